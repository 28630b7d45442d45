"""The machine itself: terms, roles, what each message means, and the Ready that comes of it."""

from __future__ import annotations

from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from anchor.raft.candidacy import Candidacy
from anchor.raft.configuration import Configuration, Configurations
from anchor.raft.entry import Entry, EntryKind
from anchor.raft.errors import InvalidMessage, LogError, NotLeader, NotReady
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

NO_ROOM_PROTOCOL = 2  # the first in which an answer can say so
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
        self._rng = rng
        hard_state = storage.hard_state()
        self.term = hard_state.term
        self.voted_for = hard_state.voted_for
        self.role = Role.FOLLOWER
        self.leader_id: str | None = None
        self.now_ticks = 0
        self.log = Log(storage, applied_index, options.max_log_cache_bytes)
        self.has_room = True
        self._was_member = False
        self._told_removed = False
        self._configurations = self._load_configurations(storage)
        self._leadership: Leadership | None = None
        self._candidacy = Candidacy()
        self._election_elapsed_ticks = 0
        self._election_timeout_ticks = 0
        self._start_election_timer()
        # §6, thesis §4.2.3: for an election timeout after it has heard a leader, a member gives
        # nobody its vote, itself included; leases count on it (§6.4.1), whatever term others
        # talk of meanwhile. It may have heard one just before it was restarted.
        self._withholding_ticks = options.election_timeout_ticks if self.term else 0
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
        return self._told_removed or (
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
        if self._withholding_ticks:
            self._withholding_ticks -= 1
        if self._leadership is not None:
            self._leadership.tick()
            return
        self._election_elapsed_ticks += 1
        if self._election_elapsed_ticks >= self._election_timeout_ticks:
            if self.role is Role.FOLLOWER:
                self.leader_id = None  # also where it has no vote and cannot do more about it
            self.campaign()

    def campaign(self) -> None:
        """Try to become leader, if this member has a vote itself and may give it."""
        self._start_election_timer()
        if self._leadership is not None or not self._may_campaign():
            return
        if not self._withholding_ticks or self.configuration.is_quorum({self.id}):
            self.become_pre_candidate()

    def _may_campaign(self) -> bool:
        """Whether it has a vote, or loses it by a change that is not committed.

        Thesis §4.2.2: such a member may hold the only log that can win, and finishes the change.
        Its own vote then counts in no majority it is not part of. Without room it could not even
        append the entry that a new leader begins with.
        """
        if self._told_removed or not self.has_room:
            return False
        if self.configuration.has_vote(self.id):
            return True
        is_pending = self.configuration_index > self.log.commit_index
        return is_pending and self.committed_configuration.has_vote(self.id)

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
            self._told_removed = True
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
            self._start_election_timer()
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
        self._candidacy = Candidacy()
        self._count_vote(self.id, granted=True)
        if self.role is Role.PRE_CANDIDATE:
            self._request_votes(self.term + 1, pre_vote=True)

    def become_candidate(self, *, leadership_transfer: bool = False) -> None:
        """§5.2: a new term, a vote for itself, and the question to all others."""
        self.role = Role.CANDIDATE
        self.leader_id = None
        self.term += 1
        self.voted_for = self.id
        self._candidacy = Candidacy()
        self._start_election_timer()
        # Its own vote counts like any other: once it is on disk.
        self._promises.append(RequestVoteResponse(self.term, self.id, self.id, vote_granted=True))
        self._request_votes(self.term, pre_vote=False, leadership_transfer=leadership_transfer)

    def become_leader(self) -> None:
        """§5.2: a majority wants it."""
        self.role = Role.LEADER
        self.leader_id = self.id
        self._leadership = Leadership(self)
        self._leadership.take_office()

    def _start_election_timer(self) -> None:
        """§5.2: randomised, so that splits are rare and do not repeat."""
        least = self.options.election_timeout_ticks
        self._election_elapsed_ticks = 0
        self._election_timeout_ticks = self._rng.randrange(least, 2 * least)

    def _hasten_next_election(self) -> None:
        """Somebody has voted for another: this term may stay without a leader.

        Waiting a whole timeout for one would double the time a cluster is without. If somebody is
        elected after all, it is heard before, or the pre-vote disturbs nobody.
        """
        soon = self._election_elapsed_ticks + self._rng.randrange(
            self.options.election_timeout_ticks
        )
        self._election_timeout_ticks = min(self._election_timeout_ticks, soon)

    # ----------------------------------------------------------------- messages

    def send(self, message: Message) -> None:
        """Hand a message out with the next Ready, at once."""
        self._messages.append(message)

    def step(self, message: Message) -> None:
        """A message arrived. Raises InvalidMessage, and then nothing has changed."""
        check(message)
        match message:
            case AppendEntries():
                self._on_append_entries(message)
            case AppendEntriesResponse():
                if self._leads_in(message):
                    self._lead().on_append_response(message)
            case RequestVote():
                self._on_request_vote(message)
            case RequestVoteResponse():
                self._on_vote_response(message)
            case InstallSnapshot():
                self._on_install_snapshot(message)
            case InstallSnapshotResponse():
                if self._leads_in(message):
                    self._lead().on_snapshot_response(message)
            case TimeoutNow():
                self._on_timeout_now(message)
            case _:
                raise InvalidMessage(f"{message.sender}: {type(message).__name__} is no message")

    def _leads_in(self, message: Message) -> bool:
        """Whether an answer is for the leader this member is; §5.1 for one of a later term."""
        if message.term > self.term:
            self.become_follower(message.term, None)
        return message.term == self.term and self._leadership is not None

    # ----------------------------------------------------------------- elections

    def _request_votes(
        self, term: int, *, pre_vote: bool, leadership_transfer: bool = False
    ) -> None:
        configuration = self.configuration
        # A candidate asks once its term and its own vote are on disk: otherwise it could lead,
        # crash, forget that, be elected in the same term again, and fill the same index twice.
        # A pre-vote changes nothing, so it need not wait.
        outbox = self._messages if pre_vote else self._promises
        for voter in sorted((configuration.voters | configuration.voters_outgoing) - {self.id}):
            outbox.append(
                RequestVote(
                    term,
                    self.id,
                    voter,
                    self.log.last_index,
                    self.log.last_term,
                    pre_vote,
                    leadership_transfer,
                )
            )

    def _on_request_vote(self, message: RequestVote) -> None:
        """Figure 2, RequestVote; anybody may ask.

        Whether the candidate is a member, or this one itself, is not looked at: either of them
        may know a newer configuration than the other, and a vote withheld for that can block a
        cluster for good (thesis §4.2.2).
        """
        withholds = self._withholding_ticks > 0 or self._leadership is not None
        if withholds and not message.leadership_transfer:
            return  # §6, thesis §4.2.3: nobody may disturb a working leader, its term least
        if message.term > self.term and not message.pre_vote:
            self.become_follower(message.term, None)
        up_to_date = self.log.is_up_to_date(message.last_log_index, message.last_log_term)
        if message.pre_vote:
            # A promise of nothing, so nothing is remembered of it.
            granted = up_to_date and message.term > self.term
            term = message.term if granted else self.term
        else:
            free = self.voted_for in {None, message.sender}
            granted = up_to_date and message.term == self.term and free
            term = self.term
        if granted and not message.pre_vote:
            self.voted_for = message.sender
            self._start_election_timer()
        self._promises.append(
            RequestVoteResponse(term, self.id, message.sender, granted, message.pre_vote)
        )

    def _on_vote_response(self, message: RequestVoteResponse) -> None:
        granted_pre_vote = message.pre_vote and message.vote_granted
        if message.term > self.term and not granted_pre_vote:
            self.become_follower(message.term, None)
            return
        if message.pre_vote:
            asked_term = self.term + 1 if message.vote_granted else self.term
            expected = self.role is Role.PRE_CANDIDATE and message.term == asked_term
        else:
            expected = self.role is Role.CANDIDATE and message.term == self.term
        if expected:
            if self.role is Role.CANDIDATE and not message.vote_granted:
                self._hasten_next_election()
            self._count_vote(message.sender, granted=message.vote_granted)

    def _count_vote(self, voter: str, *, granted: bool) -> None:
        self._candidacy.count(voter, granted=granted)
        if self._candidacy.is_won(self.configuration):
            if self.role is Role.PRE_CANDIDATE:
                self.become_candidate()
            else:
                self.become_leader()
        elif self._candidacy.is_lost(self.configuration):
            self.become_follower(self.term, None)

    def _on_timeout_now(self, message: TimeoutNow) -> None:
        """Thesis §3.10: the leader asks for it, so no pre-vote, and voters need not wait."""
        if message.term < self.term or self._leadership is not None:
            return
        if message.term > self.term:
            self.become_follower(message.term, message.sender)
        if self._may_campaign():
            self.become_candidate(leadership_transfer=True)

    # ----------------------------------------------------------------- following

    def _on_append_entries(self, message: AppendEntries) -> None:
        """Figure 2, AppendEntries."""
        if message.term < self.term:
            self._refuse_append(message, 0, 0)
            return
        self._check_against_committed(message)
        self._follow(message)
        if not self.has_room and not self.cluster_speaks(NO_ROOM_PROTOCOL):
            return  # the leader would press on after any answer it understands
        prev = message.prev_log_index
        if prev > self.log.commit_index and not self.log.matches(prev, message.prev_log_term):
            hint = self.log.last_not_after(min(prev, self.log.last_index), message.prev_log_term)
            self._refuse_append(message, hint, self._term_or_zero(hint))
            return
        entries = message.entries if self.has_room else self._held_already(message.entries)
        self._append_from_leader(entries)
        last_new_index = prev + len(entries)
        self.commit_to(min(message.commit_index, last_new_index))
        self._acknowledge(message, last_new_index)

    def _check_against_committed(self, message: AppendEntries) -> None:
        """Leader Completeness (§5.4): no leader contradicts what is committed."""
        if self._leadership is not None and message.term == self.term:
            raise InvalidMessage(f"{message.sender} claims to lead term {self.term} too")
        commit_index = self.log.commit_index
        places = [(message.prev_log_index, message.prev_log_term)]
        places += [(entry.index, entry.term) for entry in message.entries]
        for index, term in places:
            if index > commit_index:
                break
            # What is compacted cannot be compared, and need not be.
            if self._term_or_zero(index) not in {0, term}:
                raise InvalidMessage(f"{message.sender} contradicts committed entry {index}")

    def _term_or_zero(self, index: int) -> int:
        try:
            return self.log.term(index)
        except LogError:
            return 0

    def _follow(self, message: Message) -> None:
        """Whoever sends this leads the message's term (§5.2)."""
        if message.term > self.term or self.role is not Role.FOLLOWER:
            self.become_follower(message.term, message.sender)
        self.leader_id = message.sender
        self._told_removed = False
        self._start_election_timer()
        self._withholding_ticks = self.options.election_timeout_ticks

    def _held_already(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """As many of these as are in the log already: there is no room for others."""
        if not entries:
            return entries
        known = max(0, self.log.commit_index - entries[0].index + 1)
        position = self.log.first_conflict(entries[known:])
        return entries if position is None else entries[: known + position]

    def _append_from_leader(self, entries: Sequence[Entry]) -> None:
        # Entries up to the commit index are here, or compacted: they need no comparing.
        known = max(0, self.log.commit_index - entries[0].index + 1) if entries else 0
        entries = entries[known:]
        position = self.log.first_conflict(entries)
        if position is None:
            return
        fresh = entries[position:]
        if fresh[0].index <= self.log.last_index:
            self.log.truncate(fresh[0].index)
            self._configurations.truncate(fresh[0].index)
        self.log.append(fresh)
        for entry in fresh:
            if entry.kind is EntryKind.CONFIGURATION:
                self.put_into_force(entry.index, Configuration.decode(entry.payload))

    def put_into_force(self, index: int, configuration: Configuration) -> None:
        """§6: a configuration counts from the moment it is appended."""
        self._configurations.append(index, configuration)
        if self._leadership is not None:
            self._leadership.configuration_changed()

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

    def _acknowledge(self, message: AppendEntries, match_index: int) -> None:
        """Figure 2: answer once what is acknowledged is on disk.

        A heartbeat is answered at once, with as much as is on disk already: otherwise a slow disk
        would look like a dead member.
        """
        outbox = self._promises
        if not message.entries and self._durable_term == self.term:
            outbox = self._messages
            match_index = min(match_index, self.log.persisted_index)
        outbox.append(
            AppendEntriesResponse(
                self.term,
                self.id,
                message.sender,
                success=True,
                match_index=match_index,
                rejected_index=0,
                conflict_index=0,
                conflict_term=0,
                read_round=message.read_round,
                session=message.session,
                no_room=not self.has_room,
            )
        )

    def _refuse_append(
        self, message: AppendEntries, conflict_index: int, conflict_term: int
    ) -> None:
        # Sessions and rounds are counted anew in each term: under a later one the echo of a
        # message of an old term could pass for an answer to the present.
        is_present = message.term == self.term
        self._promises.append(
            AppendEntriesResponse(
                self.term,
                self.id,
                message.sender,
                success=False,
                match_index=0,
                rejected_index=message.prev_log_index,
                conflict_index=conflict_index,
                conflict_term=conflict_term,
                read_round=message.read_round if is_present else 0,
                session=message.session if is_present else 0,
            )
        )

    # ----------------------------------------------------------------- snapshots

    def _on_install_snapshot(self, message: InstallSnapshot) -> None:
        """§7. The shell has the files; this decides whether they become the state."""
        if message.term < self.term:
            self._answer_snapshot(message, success=False, match_index=0)
            return
        if self._leadership is not None and message.term == self.term:
            raise InvalidMessage(f"{message.sender} claims to lead term {self.term} too")
        self._follow(message)
        snapshot = message.snapshot
        index = snapshot.last_included_index
        if index <= self.log.commit_index:
            self._answer_snapshot(message, success=True, match_index=self.log.commit_index)
        elif self.log.matches(index, snapshot.last_included_term):
            self.commit_to(index)  # the log has it all, and goes on after it
            self._answer_snapshot(message, success=True, match_index=index)
        else:
            self._snapshot = message
            self.log.restore(snapshot)
            self._configurations = Configurations(
                snapshot.configuration, snapshot.configuration_index
            )
            self._was_member |= self.id in snapshot.configuration.members
            self._answer_snapshot(message, success=True, match_index=index)

    def _answer_snapshot(
        self, message: InstallSnapshot, *, success: bool, match_index: int
    ) -> None:
        session = message.session if message.term == self.term else 0
        self._promises.append(
            InstallSnapshotResponse(
                self.term, self.id, message.sender, success, match_index, session
            )
        )

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
