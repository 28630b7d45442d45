"""How a leader knows that it still leads: ReadIndex rounds, and the lease (thesis §6.4).

Theory of operation
===================

Rounds are numbered. Every AppendEntries carries the newest round's number at the time it is sent,
every answer brings it back. An answer with round *r* to a message of this term proves that its
sender followed this leader at some moment after round *r* began. Once a quorum has proved that,
no newer leader existed when round *r* began, so

- a question asked before the round began may be answered from the commit index of that time
  (ReadIndex), whatever the clocks do; appends already on their way do not count for it, all that
  are sent later do;
- for ``lease_ticks`` after the round began nobody else can have been elected: who followed then
  withholds its vote for an election timeout (§6.4.1). This one trusts clocks not to drift too far.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from anchor.raft.interface import ReadState

if TYPE_CHECKING:
    from collections.abc import Hashable


class ReadRounds:
    """The rounds of one leader in one term, the questions that wait for them, and the lease."""

    def __init__(self) -> None:
        self.current = 0
        self._sent = True  # whether any message went out with the current round's number
        self._began: deque[tuple[int, int]] = deque()  # round, tick; those that may confirm yet
        self._confirmed_began: int | None = None  # the tick the newest confirmed round began at
        self._waiting: deque[tuple[int, ReadState]] = deque()  # by round
        self._held: list[Hashable] = []  # until the first commit of the term

    def begin(self, now_ticks: int) -> None:
        """Start a round, unless the current one has not been sent to anybody yet."""
        if self._sent:
            self.current += 1
            self._sent = False
            self._began.append((self.current, now_ticks))

    def sent(self) -> None:
        """The current round's number went out."""
        self._sent = True

    def hold(self, context: Hashable) -> None:
        """Keep a question until this leader knows what is committed (thesis §6.4, step 1)."""
        self._held.append(context)

    def take_held(self) -> list[Hashable]:
        """The questions that were held."""
        held, self._held = self._held, []
        return held

    def ask(self, context: Hashable, commit_index: int, now_ticks: int) -> None:
        """Let a question wait for a round that begins now."""
        self.begin(now_ticks)
        self._waiting.append((self.current, ReadState(context, commit_index)))

    def confirm(self, round_: int) -> list[ReadState]:
        """A quorum has answered this round or a later one; which questions that settles."""
        while self._began and self._began[0][0] <= round_:
            self._confirmed_began = self._began.popleft()[1]
        settled = []
        while self._waiting and self._waiting[0][0] <= round_:
            settled.append(self._waiting.popleft()[1])
        return settled

    def lease_covers(self, now_ticks: int, lease_ticks: int) -> bool:
        """Whether nobody else can have been elected yet, clocks permitting."""
        began = self._confirmed_began
        return began is not None and now_ticks < began + lease_ticks

    def abort(self) -> list[Hashable]:
        """All questions that were never settled."""
        return self._held + [state.context for _, state in self._waiting]
