"""The time that a leader puts into its entries: the clock by which sessions end.

It is nobody's wall clock. It goes on from where the state machine's stands when the leader has
applied an entry of its own term, by the ticks that pass while it leads. So it stands still while
nobody leads, and no host's clock, however wrong, and none that jumps, moves it. A leader that was
paused counts no more of the pause than an election takes: its clients could not reach it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.fsm import EXPIRY_MS, clock_suffix
from anchor.raft import Role

if TYPE_CHECKING:
    from anchor.fsm import StateMachine
    from anchor.raft import Raft

SESSIONS_PROTOCOL = 3  # the first in which entries have a time, and commands have terms


class LeaderClock:
    """One member's; it goes only while that member leads."""

    def __init__(self, raft: Raft, machine: StateMachine, tick_ms: float) -> None:
        self._raft = raft
        self._machine = machine
        self._tick_ms = tick_ms
        self._most_ticks = raft.options.election_timeout_ticks
        self._term = 0  # in which it goes
        self._now_ms = 0.0

    def tick(self, elapsed_ticks: int) -> None:
        """Time passed."""
        if self.now_ms() is not None:
            self._now_ms += min(elapsed_ticks, self._most_ticks) * self._tick_ms

    def now_ms(self) -> int | None:
        """Milliseconds, at least 1; None while this member may not say."""
        raft = self._raft
        if raft.role is not Role.LEADER:
            return None
        if self._term != raft.term:
            # Before that, entries of earlier leaders may be on their way that are further.
            if self._machine.applied_term != raft.term:
                return None
            if not raft.cluster_speaks(SESSIONS_PROTOCOL):
                return None
            self._term = raft.term
            self._now_ms = float(max(1, self._machine.clock_ms))
        return int(self._now_ms)

    def suffix(self) -> bytes:
        """What to put behind a batch."""
        now_ms = self.now_ms()
        return b"" if now_ms is None else clock_suffix(now_ms)

    def is_due(self) -> bool:
        """Whether something may have run out, and ends with an entry of this second."""
        now_ms = self.now_ms()
        return (
            now_ms is not None
            and now_ms >= self._machine.nothing_ends_before_ms
            and now_ms // EXPIRY_MS > self._machine.clock_ms // EXPIRY_MS
        )
