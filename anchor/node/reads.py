"""The linearizable and lease reads of this node's own clients, until they may be served.

A question (ReadIndex, thesis §6.4) is asked for all reads then waiting: of this member's own core
where it leads, else of the leader. The answer is an index; once this member has applied that much,
the reads are served from its own state machine. While one question is open, the next reads gather.

Nothing here knows greenlets or clocks: waiters are whatever has ``deadline`` and ``resolve``.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

from anchor.node.errors import NodeError, NoLeader, RequestTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from anchor.node.writes import Pending


class Question(NamedTuple):
    """Asked of ``leader`` on behalf of ``waiters``."""

    number: int
    leader: Hashable
    lease: bool
    waiters: list[Pending]


class ReadQueue:
    """Gathers reads, asks for a read index on behalf of all, and releases them once applied."""

    def __init__(self, *, max_open: int = 2) -> None:
        self._max_open = max_open
        self._gathering: dict[bool, list[Pending]] = {False: [], True: []}  # by lease
        self._open: dict[int, Question] = {}
        self._number = 0
        self._confirmed: list[tuple[int, int, list[Pending]]] = []  # a heap by index

    def add(self, waiter: Pending, *, lease: bool = False) -> None:
        """Let a read wait for a read index."""
        self._gathering[lease].append(waiter)

    def add_confirmed(self, waiter: Pending, index: int) -> None:
        """Let a read wait for an index that is already known."""
        self._number += 1
        heapq.heappush(self._confirmed, (index, self._number, [waiter]))

    def due(self, leader: Hashable) -> list[Question]:
        """The questions to ask of ``leader`` now; those asked of another are asked again."""
        for question in [q for q in self._open.values() if q.leader != leader]:
            self.aborted(question.number)
        questions = []
        for lease, waiters in self._gathering.items():
            if waiters and len(self._open) < self._max_open:
                self._number += 1
                question = Question(self._number, leader, lease, waiters[:])
                waiters.clear()
                self._open[question.number] = question
                questions.append(question)
        return questions

    def confirmed(self, number: int, index: int, applied_index: int) -> None:
        """The question's reads may be served by whoever has applied ``index``."""
        question = self._open.pop(number, None)
        if question is None:
            return
        if index <= applied_index:
            for waiter in question.waiters:
                waiter.resolve(None)
        else:
            heapq.heappush(self._confirmed, (index, number, question.waiters))

    def aborted(self, number: int) -> None:
        """Nobody will answer this question: its reads wait for the next one."""
        question = self._open.pop(number, None)
        if question is not None:
            self._gathering[question.lease][:0] = question.waiters

    def lost_touch(self) -> None:
        """The way to the leader broke: ask everything again."""
        for number in list(self._open):
            self.aborted(number)

    def applied(self, applied_index: int) -> None:
        """Release the reads that waited for this much to be applied."""
        while self._confirmed and self._confirmed[0][0] <= applied_index:
            for waiter in heapq.heappop(self._confirmed)[2]:
                waiter.resolve(None)

    def expire(self, now: float, leader_known: Callable[[], bool]) -> None:
        """Answer the reads whose time is up."""
        waiting: list[list[Pending]] = list(self._gathering.values())
        waiting += [question.waiters for question in self._open.values()]
        waiting += [waiters for _, _, waiters in self._confirmed]
        for waiters in waiting:
            if waiters and waiters[0].deadline <= now:
                for waiter in waiters:
                    if waiter.deadline <= now:
                        waiter.resolve(self._too_late(leader_known))
                waiters[:] = [waiter for waiter in waiters if waiter.deadline > now]
        # One that is never answered must not keep the next ones from being asked.
        self._open = {n: question for n, question in self._open.items() if question.waiters}

    @staticmethod
    def _too_late(leader_known: Callable[[], bool]) -> NodeError:
        if leader_known():
            return RequestTimeout("the leader did not confirm the read in time")
        return NoLeader("no leader was known in time; nothing was read")

    def fail_all(self, error: Callable[[str], NodeError], why: str) -> None:
        """Answer everything still waiting: the node stops."""
        waiting = [
            *self._gathering.values(),
            *(question.waiters for question in self._open.values()),
        ]
        for waiters in [*waiting, *(entry[2] for entry in self._confirmed)]:
            for waiter in waiters:
                waiter.resolve(error(why))
            waiters.clear()
        self._open.clear()
        self._confirmed.clear()
