"""What a node does between its core, its log, its state machine and the others.

The core decides, and hands out what it decided as a Ready; the replica carries it out in the order
that ``anchor.raft`` demands, and no step of it blocks. Three things are left to whoever owns it:

- call ``tick`` as time passes, ``receive`` as messages arrive, the others as clients ask;
- after any of them, call ``work``;
- while ``unsynced``, make the log durable (``log.sync()``, elsewhere, it may take its time) and
  then report the ``written`` number seen *before* the sync began to ``synced``.

There is no greenlet, no clock and no chance in here, so a simulation drives the very same code.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from anchor.crash import point
from anchor.node.errors import DiskFull
from anchor.node.leader_clock import LeaderClock
from anchor.node.reads import ReadQueue
from anchor.node.writes import Batch, Pending, WriteQueue
from anchor.raft import NoRoom, NotLeader, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anchor.fsm import StateMachine
    from anchor.node.errors import NodeError
    from anchor.raft import (
        Configuration,
        Entry,
        HardState,
        Message,
        Proposed,
        Raft,
        Ready,
    )


# With ``max_committed_bytes`` this bounds how long heartbeats may have to wait for a turn.
READYS_PER_TURN = 8

# One round of writes at a time: what gathers meanwhile shares the next one's messages and fsync.
# Two at a time were not faster with 64 clients, and send more messages.
ROUNDS_IN_FLIGHT = 1


class Log(Protocol):
    """The writing half of a member's log; :mod:`anchor.storage` has two."""

    def append(self, entries: Sequence[Entry], hard_state: HardState | None = None) -> None:
        """Write, without waiting for the disk; drops what was there from the first index on."""


class Outside(Protocol):
    """Whoever carries things out of the replica. No call blocks, none fails."""

    def written(self) -> None:
        """The log has something that is not durable yet: see ``unsynced``."""

    def send(self, messages: Sequence[Message]) -> None:
        """To members, soon."""

    def forward_writes(self, leader_id: str, batches: Sequence[Batch]) -> None:
        """To the leader; ``writes_refused`` if it proposes none of them."""

    def forward_read(self, leader_id: str, number: int, *, lease: bool) -> None:
        """To the leader; ``read_confirmed`` or ``read_aborted`` with its answer."""

    def configuration_changed(self, configuration: Configuration) -> None:
        """Another configuration is in force."""

    def role_changed(self) -> None:
        """Role, term or leader are not what they were."""

    def install(self, ready: Ready) -> None:
        """A leader's snapshot takes the place of state and log, together with the hard state.

        The state machine has it when this returns; it is durable with whatever is written next.
        """


class Replica:
    """One member: its core, its log and its state machine, and the clients that wait for them."""

    def __init__(  # noqa: PLR0913 - its four parts, and two facts about it
        self,
        raft: Raft,
        log: Log,
        machine: StateMachine,
        outside: Outside,
        *,
        origin: int,
        tick_ms: float,
    ) -> None:
        self.raft = raft
        self.machine = machine
        self.writes = WriteQueue(origin, max_rounds=ROUNDS_IN_FLIGHT)
        self.reads = ReadQueue()
        self.clock = LeaderClock(raft, machine, tick_ms)
        self.written = 0  # the newest Ready that went into the log
        self._log = log
        self._outside = outside
        self._origin = origin
        self._synced = 0
        self._held: deque[tuple[int, list[Message]]] = deque()  # until their Ready is durable
        self._configuration: Configuration | None = None
        self._read_handlers: dict[int, Callable[[int | None], None]] = {}
        self._read_contexts = 0
        self._holding_back = False

    # ----------------------------------------------------------------- what happens to a node

    def tick(self, elapsed_ticks: int) -> None:
        """Time passed. Whatever was refused is tried again from here on."""
        self._holding_back = False
        self.clock.tick(elapsed_ticks)
        self.raft.tick(elapsed_ticks)

    def end_what_is_due(self) -> None:
        """As leader: where nobody writes, let an entry pass on what time it is."""
        if self.clock.is_due() and self.machine.applied_index == self.raft.last_log_index:
            with suppress(Refused):
                self.raft.propose([self.clock.suffix()])

    def receive(self, message: Message) -> None:
        """A message of a member arrived; raises InvalidMessage, and then nothing has changed."""
        self.raft.step(message)

    @property
    def unsynced(self) -> bool:
        """Whether something was written that nobody reported as durable yet."""
        return self.written > self._synced

    def synced(self, number: int) -> None:
        """All that was written up to this Ready is durable: keep the promises made about it."""
        self._synced = number
        self.raft.persisted(number)
        held = self._held
        while held and held[0][0] <= number:
            point("promise.before")
            self._outside.send(held.popleft()[1])
            point("promise.after")

    # ----------------------------------------------------------------- what clients ask

    def write(self, command: bytes, key: bytes | None, waiter: Pending) -> None:
        """Let a client's command be gathered; raises Overloaded."""
        self.writes.add(command, key, waiter)

    def read(self, waiter: Pending, *, lease: bool = False) -> None:
        """Let a client's read wait until this member may serve it."""
        if lease and self.raft.lease_valid():
            self.await_applied(waiter, self.raft.commit_index)
        else:
            self.reads.add(waiter, lease=lease)

    def await_applied(self, waiter: Pending, index: int) -> None:
        """Resolve the waiter once the state machine has got so far."""
        if index <= self.machine.applied_index:
            waiter.resolve(None)
        else:
            self.reads.add_confirmed(waiter, index)

    # ----------------------------------------------------------------- what other nodes forward

    def propose_for(self, member_id: str, batches: Sequence[bytes]) -> Proposed:
        """Propose another node's batches; raises Refused, and then none was."""
        proposed = self.raft.propose(self._with_time(batches))
        # That node waits to see them applied: tell it as soon as they are committed.
        self.raft.want_commit(member_id, proposed.last_index)
        return proposed

    def read_index_for(
        self, member_id: str, answer: Callable[[int | None], None], *, lease: bool
    ) -> None:
        """Find a read index for another node; ``answer`` gets it, or None if this one cannot."""

        def answer_and_tell(index: int | None) -> None:
            answer(index)
            if index is not None:
                self.raft.want_commit(member_id, index)

        if lease and self.raft.lease_valid():
            answer_and_tell(self.raft.commit_index)
        else:
            self._ask_core(answer_and_tell)

    # ----------------------------------------------------------------- what the leader answers

    def writes_refused(self, batches: Sequence[Batch], why: NodeError | None = None) -> None:
        """The leader proposed none of these; they are handed out again at the next tick.

        Unless there is a reason ``why`` that a tick does not mend: then their clients get it.
        """
        self.writes.refused(batches)
        if why is not None:
            self.writes.fail_gathered(why)
        self._holding_back = True

    def read_confirmed(self, number: int, index: int) -> None:
        """The leader answered a question of ``forward_read``."""
        self.reads.confirmed(number, index, self.machine.applied_index)

    def read_aborted(self, number: int) -> None:
        """The leader will not answer; ask again at the next tick."""
        self.reads.aborted(number)
        self._holding_back = True

    def lost_touch(self) -> None:
        """The way to the leader broke: what is open is asked again at the next tick."""
        self.writes.lost_touch()
        self.reads.lost_touch()
        self._holding_back = True

    # ----------------------------------------------------------------- carrying it out

    def work(self) -> bool:
        """Carry out what can be done now; True if there is more: let others have a turn first."""
        self._hand_out()
        for _ in range(READYS_PER_TURN):
            if not self.raft.has_ready():
                return False
            self._carry_out(self.raft.ready())
            self._hand_out()
        return True

    def _carry_out(self, ready: Ready) -> None:
        """One Ready, in the order of the duties in ``anchor.raft``."""
        if ready.snapshot is not None:
            self._install(ready)
        if ready.must_persist:
            self._log.append(ready.entries, ready.hard_state)
            self.written = ready.number
            self._outside.written()
        if ready.messages:
            point("send.before")
            self._outside.send(ready.messages)
            point("send.after")
        if ready.messages_after_persist:
            self._held.append((ready.number, ready.messages_after_persist))
        if self.raft.configuration is not self._configuration:
            self._configuration = self.raft.configuration
            self._outside.configuration_changed(self._configuration)
        if ready.committed:
            self._apply(ready.committed)
        for read in ready.reads:
            self._read_answered(read.context, read.index)
        for context in ready.aborted_reads:
            self._read_answered(context, None)
        if ready.role_changed:
            self._outside.role_changed()

    def _install(self, ready: Ready) -> None:
        self._outside.install(ready)
        self.raft.applied(self.machine.applied_index)
        self.writes.skipped(self.machine.last_number(self._origin))
        self.reads.applied(self.machine.applied_index)

    def _apply(self, entries: Sequence[Entry]) -> None:
        outcomes = self.machine.apply(entries)
        applied_index = entries[-1].index
        self.raft.applied(applied_index)
        for outcome in outcomes:
            if outcome is not None and outcome.origin == self._origin:
                self.writes.applied(outcome)
        self.reads.applied(applied_index)

    def _hand_out(self) -> None:
        """Give what clients asked to whoever leads, as far as it takes it."""
        leader_id = self.raft.leader_id
        if leader_id is None or self._holding_back:
            return
        leader = (self.raft.term, leader_id)
        batches = self.writes.due(leader)
        if batches:
            if leader_id == self.raft.id:
                self._propose(batches)
            else:
                self._outside.forward_writes(leader_id, batches)
        for question in self.reads.due(leader):
            if leader_id == self.raft.id:
                self._ask_core(self._answer_to_own(question.number))
            else:
                self._outside.forward_read(leader_id, question.number, lease=question.lease)

    def _propose(self, batches: Sequence[Batch]) -> None:
        try:
            self.raft.propose(self._with_time([batch.payload for batch in batches]))
        except NoRoom as error:
            self.writes_refused(batches, DiskFull(f"{error}; nothing was done"))
        except Refused:
            self.writes_refused(batches)

    def _with_time(self, payloads: Sequence[bytes]) -> Sequence[bytes]:
        suffix = self.clock.suffix()
        return [payload + suffix for payload in payloads] if suffix else payloads

    # ----------------------------------------------------------------- questions to the own core

    def _ask_core(self, answer: Callable[[int | None], None]) -> None:
        self._read_contexts += 1
        try:
            self.raft.read_index(self._read_contexts)
        except NotLeader:
            answer(None)
        else:
            self._read_handlers[self._read_contexts] = answer

    def _answer_to_own(self, number: int) -> Callable[[int | None], None]:
        def answer(index: int | None) -> None:
            if index is None:
                self.read_aborted(number)
            else:
                self.read_confirmed(number, index)

        return answer

    def _read_answered(self, context: object, index: int | None) -> None:
        assert isinstance(context, int)  # noqa: S101 - narrows the type: contexts are drawn above
        self._read_handlers.pop(context)(index)
