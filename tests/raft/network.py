"""A simulated network: every message waits until the test says what becomes of it.

Nothing is delivered by itself. Messages in flight keep the order in which they were sent;
``held`` ones wait apart until released. A cut is one way: it loses what would cross it, both
what is sent over it and what was in flight when it was made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from anchor.raft import Message

if TYPE_CHECKING:
    from collections.abc import Iterable

Which: TypeAlias = Callable[[Message], bool]


def everything(_: Message) -> bool:
    """Match any message."""
    return True


def between(
    sender: str | None = None, recipient: str | None = None, kind: type | None = None
) -> Which:
    """Match messages by who sends them, who gets them, and what they are."""

    def matches(message: Message) -> bool:
        return (
            (sender is None or message.sender == sender)
            and (recipient is None or message.recipient == recipient)
            and (kind is None or isinstance(message, kind))
        )

    return matches


class Network:
    """All messages under way, in a test's hands."""

    def __init__(self) -> None:
        self.in_flight: list[Message] = []
        self.held: list[Message] = []
        self.sent: list[Message] = []  # all ever sent, for looking back
        self.lost: list[Message] = []
        self._cuts: set[tuple[str, str]] = set()
        self._holds: list[Which] = []

    def send(self, messages: Iterable[Message]) -> None:
        """Take messages from a member; cuts and holds apply."""
        for message in messages:
            self.sent.append(message)
            self._admit(message)

    def _admit(self, message: Message) -> None:
        if (message.sender, message.recipient) in self._cuts:
            self.lost.append(message)
        elif any(hold(message) for hold in self._holds):
            self.held.append(message)
        else:
            self.in_flight.append(message)

    def next(self, which: Which = everything) -> Message | None:
        """Take the oldest matching message out of flight, to be delivered."""
        for position, message in enumerate(self.in_flight):
            if which(message):
                return self.in_flight.pop(position)
        return None

    def take_sent(self) -> list[Message]:
        """Give all that was sent since the last call."""
        sent, self.sent = self.sent, []
        return sent

    # Faults ------------------------------------------------------------------------------

    def drop(self, which: Which = everything) -> list[Message]:
        """Lose the matching messages in flight; gives them, so that they may come late."""
        dropped = [m for m in self.in_flight if which(m)]
        self.in_flight = [m for m in self.in_flight if not which(m)]
        self.lost.extend(dropped)
        return dropped

    def duplicate(self, which: Which = everything) -> None:
        """Put a second copy of the matching messages in flight."""
        self.in_flight.extend([m for m in self.in_flight if which(m)])

    def reverse(self) -> None:
        """Let the newest message arrive first."""
        self.in_flight.reverse()

    def inject(self, *messages: Message) -> None:
        """Put messages in flight that nobody sent just now: late or repeated ones."""
        self.in_flight.extend(messages)

    def hold(self, which: Which) -> None:
        """From now on park matching messages, those in flight included."""
        self._holds.append(which)
        self.held.extend([m for m in self.in_flight if which(m)])
        self.in_flight = [m for m in self.in_flight if not which(m)]

    def release(self) -> None:
        """End all holds; what was parked is in flight again, after the rest."""
        self._holds.clear()
        parked, self.held = self.held, []
        for message in parked:
            self._admit(message)

    def cut(self, sender: str, recipient: str) -> None:
        """Lose all that ``sender`` sends to ``recipient`` until healed; one way."""
        self._cuts.add((sender, recipient))
        self.drop(between(sender, recipient))

    def is_cut(self, sender: str, recipient: str) -> bool:
        """Whether messages from ``sender`` to ``recipient`` are lost."""
        return (sender, recipient) in self._cuts

    def heal(self) -> None:
        """End all cuts."""
        self._cuts.clear()
