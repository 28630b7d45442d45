"""The writes of this node's own clients, from the moment they are gathered until they are applied.

Theory of operation
===================

While one round of batches is on its way, the next one gathers: group commit without a timer. A
batch is one log entry. It carries this node's ``origin``, drawn anew at each start, and a number
that rises; the state machine applies a batch only if its number is above the last one it applied
of that origin. Three things follow.

- A batch may be handed out again, to the same leader or to the next, whenever its fate is in
  doubt: the log may hold it twice, the state machine applies it once.
- Whoever gathered a batch learns its fate by applying the log, as leader or as follower alike. The
  leader need not answer at all, unless it refuses.
- A batch that comes by as *replayed* while its clients still wait was overtaken by a higher number
  of this node's own, was never applied, and never will be under its number: it is gathered anew.

A snapshot that takes the place of the log says the number of the last batch it includes. What
comes after that goes on. What comes before was applied, or overtaken, and the snapshot does not say
which: gathered anew it could be applied twice. So its clients are told that it is not known; those
that write in a session, or with an idempotency key, may send it again and learn it.

A write that runs out of time answers ``commit_unknown`` if it was ever handed to a leader that did
not refuse it, else ``no_leader``, which is a promise that nothing happened.

Nothing here knows greenlets or clocks: waiters are whatever has ``deadline`` and ``resolve``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from anchor.fsm import encode_batch
from anchor.node.errors import CommitUnknown, NodeError, NoLeader, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from anchor.fsm import BatchOutcome


class Pending(Protocol):
    """A request that waits: :class:`anchor.node.waiting.Waiter`, or a test's stand-in."""

    deadline: float

    def resolve(self, outcome: object) -> None:
        """Decide it; a NodeError means it failed."""


class Batch:
    """Commands that travel as one log entry, and who waits for each."""

    __slots__ = (
        "commands",
        "doubtful",
        "handed_to",
        "keys",
        "number",
        "payload",
        "round",
        "size_bytes",
        "waiters",
        "was_doubtful",
    )

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.keys: set[bytes] = set()
        self.waiters: list[Pending] = []
        self.size_bytes = 0
        self.number = 0
        self.payload = b""
        self.round = 0
        self.handed_to: Hashable = None
        # Handed to somebody who may have proposed it: its fate is unknown until applied.
        self.doubtful = False
        self.was_doubtful = False  # before it was handed out last

    def add(self, command: bytes, key: bytes | None, waiter: Pending) -> None:
        """Append one command."""
        self.commands.append(command)
        if key is not None:
            self.keys.add(key)
        self.waiters.append(waiter)
        self.size_bytes += len(command)


class WriteQueue:
    """Gathers commands into batches, numbers them, and keeps them until their fate is known.

    At most ``max_rounds`` rounds are on their way at once: with more, batches get small and each
    pays for its own messages and its own fsync. At most ``max_waiting_bytes`` wait.
    """

    def __init__(
        self,
        origin: int,
        *,
        max_batch_bytes: int = 512 << 10,
        max_rounds: int = 2,
        max_waiting_bytes: int = 64 << 20,
    ) -> None:
        self._origin = origin
        self._max_batch_bytes = max_batch_bytes
        self._max_rounds = max_rounds
        self._max_waiting_bytes = max_waiting_bytes
        self._gathering: deque[Batch] = deque()
        self._gathering_bytes = 0
        self._in_flight: dict[int, Batch] = {}  # by number, so in rising order
        self._round = 0
        self._batches_in_round: dict[int, int] = {}
        self._last_number = 0
        self._handed_to: Hashable = None

    def __len__(self) -> int:
        return len(self._gathering) + len(self._in_flight)

    def add(self, command: bytes, key: bytes | None, waiter: Pending) -> None:
        """Take one serialized command that writes ``key``, if any; raises Overloaded.

        A second write of a key starts a new batch: ``mod_index`` is the entry's index, and two
        writes of one key must not share it.
        """
        if self._gathering_bytes + len(command) > self._max_waiting_bytes:
            raise Overloaded("too many writes are waiting for this node; try again later")
        self._gathering_bytes += len(command)
        batch = self._gathering[-1] if self._gathering else None
        if (
            batch is None
            or key in batch.keys
            or (batch.size_bytes + len(command) > self._max_batch_bytes)
        ):
            batch = Batch()
            self._gathering.append(batch)
        batch.add(command, key, waiter)

    def due(self, leader: Hashable) -> list[Batch]:
        """All batches to hand to ``leader`` now, in the order of their numbers.

        Those on their way to somebody else come first; new ones as far as the window allows.
        They count as handed over: ``refused`` takes that back.
        """
        again: list[Batch] = []
        if leader != self._handed_to:
            again = [b for b in self._in_flight.values() if b.handed_to != leader]
            self._handed_to = leader
        if self._gathering and len(self._batches_in_round) < self._max_rounds:
            again.extend(self._new_round())
        for batch in again:
            batch.handed_to = leader
            batch.was_doubtful, batch.doubtful = batch.doubtful, True
        return again

    def _new_round(self) -> Iterable[Batch]:
        self._round += 1
        taken = list(self._gathering)
        self._gathering.clear()
        self._gathering_bytes = 0
        self._batches_in_round[self._round] = len(taken)
        for batch in taken:
            self._last_number += 1
            batch.number = self._last_number
            batch.round = self._round
            batch.payload = encode_batch(self._origin, batch.number, batch.commands)
            self._in_flight[batch.number] = batch
        return taken

    def refused(self, batches: Sequence[Batch]) -> None:
        """Whoever they were handed to proposed none of them: hand them out again when next due.

        What was never in anybody's hands but theirs is gathered again: its clients can still be
        told that nothing happened, and then nothing may happen.
        """
        self._handed_to = None
        for batch in reversed(batches):
            batch.handed_to = None
            batch.doubtful = batch.was_doubtful
            if not batch.doubtful and self._in_flight.pop(batch.number, None) is not None:
                self._leave_round(batch)
                self._gather_again(batch)

    def fail_gathered(self, error: NodeError) -> None:
        """Answer all that is in nobody's hands: nothing was done about it, and nothing will be."""
        for batch in self._gathering:
            for waiter in batch.waiters:
                waiter.resolve(error)
        self._gathering.clear()
        self._gathering_bytes = 0

    def lost_touch(self) -> None:
        """The way to the leader broke: what was handed over may or may not have arrived."""
        for batch in self._in_flight.values():
            batch.handed_to = None
        self._handed_to = None

    def applied(self, outcome: BatchOutcome) -> None:
        """A batch of this node's came by in the log and was applied, or was skipped as replayed."""
        batch = self._in_flight.pop(outcome.number, None)
        if batch is None:
            return
        self._leave_round(batch)
        if outcome.replayed:
            self._gather_again(batch)
            return
        for waiter, result in zip(batch.waiters, outcome.results, strict=True):
            waiter.resolve(result)

    def skipped(self, last_number: int) -> None:
        """Entries went into the state unseen, up to this batch of one's own."""
        for batch in [b for b in self._in_flight.values() if b.number <= last_number]:
            del self._in_flight[batch.number]
            self._leave_round(batch)
            for waiter in batch.waiters:
                waiter.resolve(
                    CommitUnknown("this node got a snapshot; whether it has the write is not known")
                )
        self.lost_touch()

    def _leave_round(self, batch: Batch) -> None:
        remaining = self._batches_in_round[batch.round] - 1
        if remaining:
            self._batches_in_round[batch.round] = remaining
        else:
            del self._batches_in_round[batch.round]

    def _gather_again(self, batch: Batch) -> None:
        # Its number is spent; its order among the others was never promised.
        fresh = Batch()
        fresh.commands, fresh.waiters = batch.commands, batch.waiters
        fresh.keys = batch.keys
        fresh.size_bytes = batch.size_bytes
        self._gathering.appendleft(fresh)
        self._gathering_bytes += fresh.size_bytes

    def expire(self, now: float, leader_known: Callable[[], bool]) -> None:
        """Answer the writes whose time is up, and forget batches nobody waits for any more."""
        for batch in self._gathering:
            if batch.waiters[0].deadline <= now:
                self._expire_in(batch, now, leader_known)
        if any(not batch.waiters for batch in self._gathering):
            self._gathering = deque(batch for batch in self._gathering if batch.waiters)
        late = [b for b in self._in_flight.values() if b.waiters[0].deadline <= now]
        for batch in late:
            # What is doubtful is done as a whole or not at all: it stays while anybody waits.
            if max(waiter.deadline for waiter in batch.waiters) <= now:
                del self._in_flight[batch.number]
                self._leave_round(batch)
            for waiter in batch.waiters:
                if waiter.deadline <= now:
                    waiter.resolve(self._too_late(batch, leader_known))

    def _expire_in(self, batch: Batch, now: float, leader_known: Callable[[], bool]) -> None:
        alive: list[tuple[bytes, Pending]] = []
        for command, waiter in zip(batch.commands, batch.waiters, strict=True):
            if waiter.deadline > now:
                alive.append((command, waiter))
            else:
                self._gathering_bytes -= len(command)
                waiter.resolve(self._too_late(batch, leader_known))
        batch.commands = [command for command, _ in alive]
        batch.waiters = [waiter for _, waiter in alive]
        batch.size_bytes = sum(map(len, batch.commands))

    @staticmethod
    def _too_late(batch: Batch, leader_known: Callable[[], bool]) -> NodeError:
        if batch.doubtful:
            return CommitUnknown("the write was handed to the leader, and its fate is not known")
        if leader_known():
            return Overloaded("the leader did not take the write in time; nothing was written")
        return NoLeader("no leader was known in time; nothing was written")

    def fail_all(self, error: Callable[[str], NodeError], why: str) -> None:
        """Answer everything still waiting: the node stops."""
        for batch in (*self._in_flight.values(), *self._gathering):
            for waiter in batch.waiters:
                waiter.resolve(CommitUnknown(why) if batch.doubtful else error(why))
        self._in_flight.clear()
        self._gathering.clear()
        self._batches_in_round.clear()
        self._gathering_bytes = 0
