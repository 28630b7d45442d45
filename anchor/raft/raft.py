"""The machine itself: terms, roles, what each message means, and the Ready that comes of it."""

from __future__ import annotations

from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from anchor.raft.configuration import Configuration, Configurations
from anchor.raft.elections import Elections
from anchor.raft.entry import Entry, EntryKind
from anchor.raft.errors import InvalidMessage, NotLeader, NotReady
from anchor.raft.following import Following
from anchor.raft.interface import (
    HardState,
    LogStorage,
    Options,
    Proposed,
    ReadState,
    Ready,
    Role,
)
from anchor.raft.leadership import Leadership
from anchor.raft.log import Log
from anchor.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from anchor.raft.validation import check

if TYPE_CHECKING:
    import random
    from collections.abc import Hashable, Mapping, Sequence

    from anchor.raft.progress import Progress

NO_PROGRESS: Mapping[str, Progress] = MappingProxyType({})


class Write(NamedTuple):
    """A Ready that is being persisted, and what its being durable means."""

    number: int
    term: int
    to_itself: list[Message]


class Raft:
    """One member's core. The manual is in :mod:`anchor.raft`."""

    def __init__(
        self,
        member_id: str,
        storage: LogStorage,
        options: Options,
        rng: random.Random,
        *,
        applied_index: int = 0,
    ) -> None:
        self.id = member_id
        self.options = options
        hard_state = storage.hard_state()
        self.term = hard_state.term
        self.voted_for = hard_state.voted_for
        self.role = Role.FOLLOWER
        self.leader_id: str | None = None
        self.now_ticks = 0
        self.log = Log(storage, applied_index, options.max_log_cache_bytes)
        self.has_room = True
        self._was_member = False
        self.is_told_removed = False
        self._configurations = self._load_configurations(storage)
        self._following = Following(self)
        self._leadership: Leadership | None = None
        self._elections = Elections(self, rng)
        self._number = 0
        self._writes: deque[Write] = deque()
        self._hard_state = hard_state  # the last one handed out
        self._durable_term = hard_state.term
        self._snapshot: InstallSnapshot | None = None
        self._messages: list[Message] = []
        self._promises: list[Message] = []  # messages that wait for the disk
        self.confirmed_reads: list[ReadState] = []  # for the next Ready
        self._aborted_reads: list[Hashable] = []
        self._reported: tuple[Role, int, str | None] = (self.role, self.term, self.leader_id)

    def _load_configurations(self, storage: LogStorage) -> Configurations:
        base, base_index = Configuration(), 0
        snapshot = storage.snapshot()
        if snapshot is not None:
            base, base_index = snapshot.configuration, snapshot.configuration_index
            self.log.commit_to(snapshot.last_included_index)
        configurations = Configurations(base, base_index)
        self._was_member = self.id in base.members
        for entry in storage.configuration_entries():
            if entry.index > base_index:
                configurations.append(entry.index, Configuration.decode(entry.payload))
            if entry.index <= self.log.commit_index:
                self._was_member |= self.id in configurations.in_force.members
        configurations.commit(self.log.commit_index)
        return configurations

    # ----------------------------------------------------------------- views

    @property
    def commit_index(self) -> int:
        """The last entry known to be committed."""
        return self.log.commit_index

    @property
    def last_applied(self) -> int:
        """The last entry the state machine is known to have applied."""
        return self.log.applied_index

    @property
    def last_log_index(self) -> int:
        """The last entry of the log, durable or not."""
        return self.log.last_index

    @property
    def configuration(self) -> Configuration:
        """The one in force: the newest in the log, committed or not (§6)."""
        return self._configurations.in_force

    @property
    def configuration_index(self) -> int:
        """Where the one in force was appended."""
        return self._configurations.in_force_index

    @property
    def committed_configuration(self) -> Configuration:
        """The newest one known to be committed."""
        return self._configurations.committed

    @property
    def progress(self) -> Mapping[str, Progress]:
        """As leader: how far each other member is. Otherwise empty."""
        return self._leadership.progress if self._leadership else NO_PROGRESS

    @property
    def transferring_to(self) -> str | None:
        """As leader: who is taking over."""
        return self._leadership.transferring_to if self._leadership else None

    def cluster_speaks(self, protocol_version: int) -> bool:
        """Whether all members are known to understand what this protocol brought, for good."""
        return self.committed_configuration.protocol_version >= protocol_version

    @property
    def is_learner(self) -> bool:
        """Whether it gets the log and has no vote."""
        return self.id in self.configuration.learners

    @property
    def is_removed(self) -> bool:
        """Whether it was a member once, and a committed configuration has it no more."""
        return self.is_told_removed or (
            self._was_member
            and self.id not in self.committed_configuration.members
            and self.id not in self.configuration.members
        )

    def lease_valid(self) -> bool:
        """Whether reads may be answered without asking; see duty 7 of the manual."""
        return self._leadership is not None and self._leadership.lease_valid()

    # ----------------------------------------------------------------- what the shell asks

    def tick(self, elapsed_ticks: int = 1) -> None:
        """Time passed. The timers advance by one only: who was paused was not listening."""
        self.now_ticks += elapsed_ticks
        leadership = self._leadership
        self._elections.tick()
        if leadership is not None:
            leadership.tick()

    def campaign(self) -> None:
        """Try to become leader, if this member has a vote itself and may give it."""
        self._elections.campaign()

    def propose(self, payloads: Sequence[bytes]) -> Proposed:
        """Append commands, each an entry.

        Raises NotLeader, TransferInProgress, NoRoom, Overloaded.
        """
        return self._lead().propose(payloads)

    def propose_configuration(self, target: Configuration) -> Proposed:
        """Change the membership to ``target``, through a joint configuration where needed.

        Raises NotLeader, TransferInProgress, ChangeInProgress, NotReady, InvalidConfiguration.
        """
        return self._lead().propose_configuration(target)

    def read_index(self, context: Hashable) -> None:
        """Ask for a linearizable read point; answered in ``Ready.reads``. Raises NotLeader."""
        self._lead().read_index(context)

    def want_commit(self, member_id: str, index: int) -> None:
        """Let this member know as soon as ``index`` is committed. Nothing if not the leader."""
        if self._leadership is not None:
            self._leadership.want_commit(member_id, index)

    def transfer_leadership(self, member_id: str) -> None:
        """Hand over. Raises NotLeader, UnknownMember, TransferInProgress."""
        self._lead().transfer_to(member_id)

    def set_room(self, has_room: bool) -> None:  # noqa: FBT001 - one fact
        """Whether the disk has room for more entries; see duty 8 of the manual."""
        self.has_room = has_room

    def found(self, configuration: Configuration) -> Proposed:
        """Begin a cluster: its first configuration is entry 1, in term 1, as if it had led then.

        Raises NotReady unless log and term are empty: who has any past belongs to a cluster.
        """
        if self.term or self.log.last_index:
            raise NotReady("only a member without any past can found a cluster")
        configuration.validate()
        self.become_follower(1, None)
        self.log.append([Entry(1, 1, EntryKind.CONFIGURATION, configuration.encode())])
        self.put_into_force(1, configuration)
        return Proposed(1, 1, 1)

    def told_removed(self) -> None:
        """The shell has proof that a committed configuration has this member no more.

        For one that was away while it was removed: nobody sends it the entry. It campaigns no
        more, until a leader speaks to it again, whose configuration has it then. A leader knows
        better, and does not listen.
        """
        if self._leadership is None:
            self.is_told_removed = True
            self.become_follower(self.term, None)

    def step_down(self) -> None:
        """Stop leading, if it does; another may be better off."""
        if self._leadership is not None:
            self.become_follower(self.term, None)

    def disconnected(self, member_id: str) -> None:
        """The connection broke; what was sent may be lost."""
        if self._leadership is not None:
            self._leadership.disconnected(member_id)

    def snapshot_sent(self, member_id: str, success: bool) -> None:  # noqa: FBT001 - one fact
        """The snapshot for this member went out whole, or did not."""
        if self._leadership is not None:
            self._leadership.snapshot_sent(member_id, success=success)

    def applied(self, index: int) -> None:
        """The state machine has applied up to there."""
        self.log.applied(index)

    def persisted(self, number: int) -> None:
        """All Readys up to this number are durable."""
        self.log.persisted(number)
        while self._writes and self._writes[0].number <= number:
            write = self._writes.popleft()
            self._durable_term = write.term
            for message in write.to_itself:
                self.step(message)
        if self._leadership is not None:
            self._leadership.advance_commit()

    def _lead(self) -> Leadership:
        if self._leadership is None:
            raise NotLeader(self.leader_id)
        return self._leadership

    # ----------------------------------------------------------------- roles

    def become_follower(self, term: int, leader_id: str | None) -> None:
        """§5.2: follow a leader, or whoever will be elected."""
        if self._leadership is not None:
            self._aborted_reads += self._leadership.abort()
            self._leadership = None
            self._elections.start_timer()
        # Otherwise the timer runs on: only a leader, or a vote given, puts the election off.
        if term > self.term:
            self.term = term
            self.voted_for = None
        self.role = Role.FOLLOWER
        self.leader_id = leader_id

    def become_pre_candidate(self) -> None:
        """Thesis §9.6: ask whether a campaign could succeed, before disturbing anybody's term."""
        self.role = Role.PRE_CANDIDATE
        self.leader_id = None

    def become_candidate(self) -> None:
        """§5.2: a new term, and a vote for itself."""
        self.role = Role.CANDIDATE
        self.leader_id = None
        self.term += 1
        self.voted_for = self.id

    def become_leader(self) -> None:
        """§5.2: a majority wants it."""
        self.role = Role.LEADER
        self.leader_id = self.id
        self._leadership = Leadership(self)
        self._leadership.take_office()

    # ----------------------------------------------------------------- messages

    def send(self, message: Message) -> None:
        """Hand a message out with the next Ready, at once."""
        self._messages.append(message)

    def step(self, message: Message) -> None:
        """A message arrived. Raises InvalidMessage, and then nothing has changed."""
        check(message)
        match message:
            case AppendEntries():
                self._following.on_append_entries(message)
            case AppendEntriesResponse():
                if self._leads_in(message):
                    self._lead().on_append_response(message)
            case RequestVote():
                self._elections.on_request_vote(message)
            case RequestVoteResponse():
                self._elections.on_vote_response(message)
            case InstallSnapshot():
                self._following.on_install_snapshot(message)
            case InstallSnapshotResponse():
                if self._leads_in(message):
                    self._lead().on_snapshot_response(message)
            case TimeoutNow():
                self._elections.on_timeout_now(message)
            case _:
                raise InvalidMessage(f"{message.sender}: {type(message).__name__} is no message")

    def _leads_in(self, message: Message) -> bool:
        """Whether an answer is for the leader this member is; §5.1 for one of a later term."""
        if message.term > self.term:
            self.become_follower(message.term, None)
        return message.term == self.term and self._leadership is not None

    # ----------------------------------------------------------------- what both roles need

    def promise(self, message: Message) -> None:
        """Hand a message out once everything before it is durable."""
        self._promises.append(message)

    @property
    def durable_term(self) -> int:
        """The newest term that the disk knows of."""
        return self._durable_term

    def follow(self, message: Message) -> None:
        """Whoever sends this leads the message's term (§5.2)."""
        if message.term > self.term or self.role is not Role.FOLLOWER:
            self.become_follower(message.term, message.sender)
        self.leader_id = message.sender
        self.is_told_removed = False
        self._elections.heard_leader()

    def put_into_force(self, index: int, configuration: Configuration) -> None:
        """§6: a configuration counts from the moment it is appended."""
        self._configurations.append(index, configuration)
        if self._leadership is not None:
            self._leadership.configuration_changed()

    def truncate(self, index: int) -> None:
        """§5.3: forget what contradicts the leader, from here on."""
        self.log.truncate(index)
        self._configurations.truncate(index)

    def commit_to(self, index: int) -> None:
        """Commit up to there, if that is news."""
        if not self.log.commit_to(index):
            return
        # All of them: after a restart the one it was in may be committed together with the one
        # that has it no more.
        for configuration in self._configurations.commit(index):
            self._was_member |= self.id in configuration.members
        if self._leadership is not None:
            self._leadership.committed()

    def install(self, message: InstallSnapshot) -> None:
        """§7: begin anew with this snapshot, in place of log and state."""
        snapshot = message.snapshot
        self._snapshot = message
        self.log.restore(snapshot)
        self._configurations = Configurations(snapshot.configuration, snapshot.configuration_index)
        self._was_member |= self.id in snapshot.configuration.members

    # ----------------------------------------------------------------- Ready

    def has_ready(self) -> bool:
        """Whether there is anything to do."""
        leadership = self._leadership
        if leadership is not None:
            leadership.replicate()
        return bool(
            self._messages
            or self._promises
            or self.log.has_unwritten
            or self.log.has_committed
            or self.confirmed_reads
            or self._aborted_reads
            or self._snapshot is not None
            or self._hard_state_changed
            or self._reported != (self.role, self.term, self.leader_id)
        )

    @property
    def _hard_state_changed(self) -> bool:
        return (self.term, self.voted_for) != (self._hard_state.term, self._hard_state.voted_for)

    def ready(self) -> Ready:
        """Take everything there is to do now; the duties are in the manual."""
        self._number += 1
        ready = Ready(self._number)
        if self._leadership is not None:
            self._leadership.replicate()
        ready.reads, self.confirmed_reads = self.confirmed_reads, []
        ready.aborted_reads, self._aborted_reads = self._aborted_reads, []
        ready.messages, self._messages = self._messages, []
        if self._hard_state_changed:
            self._hard_state = ready.hard_state = HardState(self.term, self.voted_for)
        ready.entries = self.log.take_unwritten()
        ready.snapshot, self._snapshot = self._snapshot, None
        self._take_promises(ready)
        ready.committed = self.log.take_committed(self.options.max_committed_bytes)
        reported = (self.role, self.term, self.leader_id)
        ready.role_changed, self._reported = reported != self._reported, reported
        return ready

    def _take_promises(self, ready: Ready) -> None:
        promises, self._promises = self._promises, []
        to_itself = [message for message in promises if message.recipient == self.id]
        to_others = [message for message in promises if message.recipient != self.id]
        ready.must_persist = bool(
            ready.entries
            or ready.hard_state
            or ready.snapshot
            # Something these promise may still be on its way to the disk.
            or (promises and self._writes)
        )
        if ready.must_persist:
            ready.messages_after_persist = to_others
            self._writes.append(Write(ready.number, self.term, to_itself))
            self.log.writing(ready.number)
        else:
            ready.messages += to_others
