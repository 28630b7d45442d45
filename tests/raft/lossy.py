"""A network with a will of its own, for simulations: it loses, delays, reorders and repeats."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anchor.raft import InstallSnapshot
from tests.raft.network import Network

if TYPE_CHECKING:
    import random

    from anchor.raft import Message


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad it is. Probabilities are per message, delays in steps."""

    loss: float = 0.0
    duplication: float = 0.0
    delay_steps_max: int = 0
    late: float = 0.0  # the chance of a delay far beyond the ordinary one


CALM = Weather()


class LossyNetwork(Network):
    """Messages are due at a step of their own; what is due is taken in that order."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.weather = CALM
        self.step = 0
        self._rng = rng
        self._number = 0
        self._due: list[tuple[int, int, Message]] = []

    def _admit(self, message: Message) -> None:
        self.sent.clear()  # nobody looks back in a simulation
        weather, rng = self.weather, self._rng
        if self.is_cut(message.sender, message.recipient) or rng.random() < weather.loss:
            self.lost.append(message)
            return
        self._schedule(message)
        if weather.duplication and rng.random() < weather.duplication:
            self._schedule(message)

    def _schedule(self, message: Message) -> None:
        weather, rng = self.weather, self._rng
        delay = rng.randint(0, weather.delay_steps_max)
        if weather.late and rng.random() < weather.late:
            delay += rng.randint(10, 100)
        self._number += 1
        heapq.heappush(self._due, (self.step + delay, self._number, message))

    def take_due(self) -> Message | None:
        """Take the next message that is due, cuts permitting."""
        while self._due and self._due[0][0] <= self.step:
            message = heapq.heappop(self._due)[2]
            if not self.is_cut(message.sender, message.recipient):
                return message
            self.lost.append(message)
        return None

    def put_off(self, message: Message, steps: int) -> None:
        """Let a message that could not be received be due later."""
        self._number += 1
        heapq.heappush(self._due, (self.step + steps, self._number, message))

    def failed_transfers(self) -> list[InstallSnapshot]:
        """Give the snapshots lost since last asked: their senders notice, unlike with others."""
        failed = [m for m in self.lost if isinstance(m, InstallSnapshot)]
        self.lost.clear()
        return failed
