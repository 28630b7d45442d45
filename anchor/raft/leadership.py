"""What a member does while it leads: replicate, commit, confirm reads, hand over.

It exists for one term of leadership and is gone with it, and so is everything only a leader knows.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from anchor.raft.entry import Entry, EntryKind
from anchor.raft.errors import (
    ChangeInProgress,
    Compacted,
    InvalidMessage,
    NoRoom,
    NotReady,
    Overloaded,
    TransferInProgress,
    UnknownMember,
)
from anchor.raft.interface import Proposed
from anchor.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    TimeoutNow,
)
from anchor.raft.progress import Progress, ProgressState
from anchor.raft.reads import ReadRounds

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from anchor.raft.configuration import Configuration
    from anchor.raft.raft import Raft


class Leadership:
    """The leader's volatile state (Figure 2), and the rules for leaders."""

    def __init__(self, core: Raft) -> None:
        self._core = core
        self._log = core.log
        self._options = core.options
        self._sessions = 0
        self.progress: dict[str, Progress] = {}
        self._incarnations: dict[str, int] = {}
        # Removed members, until they know: they get the log up to the entry that removes them.
        self._departing: dict[str, tuple[int, Progress]] = {}
        self._rounds = ReadRounds()
        self._uncommitted: deque[tuple[int, int]] = deque()  # last index and size of proposals
        self._uncommitted_bytes = 0
        self._heartbeat_elapsed_ticks = 0
        self._quorum_elapsed_ticks = 0
        self.transferring_to: str | None = None
        self._transfer_elapsed_ticks = 0
        self._asked_to_take_over = False
        self._first_index = self._log.last_index + 1  # of this term: the no-op below
        self.configuration_changed()

    # ----------------------------------------------------------------- taking office

    def take_office(self) -> None:
        """§8: commit an entry of this term at once, and with it all that came before."""
        self._append([b""], EntryKind.NOOP)
        self._start_round()

    @property
    def has_committed_in_term(self) -> bool:
        """Whether this leader knows what is committed (§8)."""
        return self._log.commit_index >= self._first_index

    def configuration_changed(self) -> None:
        """Another configuration is in force: whom to replicate to."""
        configuration = self._core.configuration
        for member_id, member in configuration.members.items():
            if member_id == self._core.id:
                continue
            # Another data directory under the same id has nothing of what the first one had.
            if self._incarnations.get(member_id) != member.incarnation:
                self._incarnations[member_id] = member.incarnation
                self._departing.pop(member_id, None)
                next_index = self._log.last_index + 1
                self.progress[member_id] = Progress(self._options, next_index, self._next_session())
        # Sorted: the order of a set differs from one process to the next.
        for member_id in sorted(self.progress.keys() - configuration.members.keys()):
            left_at = self._core.configuration_index
            self._departing[member_id] = (left_at, self.progress.pop(member_id))
            del self._incarnations[member_id]

    def _next_session(self) -> int:
        self._sessions += 1
        return self._sessions

    def _everybody(self) -> Iterator[tuple[str, Progress]]:
        yield from self.progress.items()
        for member_id, (_, progress) in self._departing.items():
            yield member_id, progress

    def _progress_of(self, member_id: str) -> Progress | None:
        if member_id in self._departing:
            return self._departing[member_id][1]
        return self.progress.get(member_id)

    # ----------------------------------------------------------------- time

    def tick(self) -> None:
        """One tick of the timers."""
        self._heartbeat_elapsed_ticks += 1
        if self._heartbeat_elapsed_ticks >= self._options.heartbeat_ticks:
            self._heartbeat_elapsed_ticks = 0
            self._start_round()
        if self.transferring_to is not None:
            self._transfer_elapsed_ticks += 1
            if self._transfer_elapsed_ticks >= self._options.election_timeout_ticks:
                self.transferring_to = None  # thesis §3.10: give up, lead on
        self._quorum_elapsed_ticks += 1
        if self._quorum_elapsed_ticks >= self._options.election_timeout_ticks:
            self._quorum_elapsed_ticks = 0
            self._check_quorum()

    def _start_round(self) -> None:
        self._rounds.begin(self._core.now_ticks)
        for _, progress in self._everybody():
            progress.must_send = True
        self.confirm_reads()  # a single voter is a quorum

    def _check_quorum(self) -> None:
        """Thesis §6.2: a leader that no majority hears steps down, so clients look elsewhere."""
        active = {member_id for member_id, each in self.progress.items() if each.recently_active}
        if not self._core.configuration.is_quorum(active | {self._core.id}):
            self._core.step_down()
            return
        for _, progress in self._everybody():
            progress.recently_active = False
        # Who was removed long ago and never listened will find out when it asks somebody.
        self._departing = {
            member_id: (left_at, progress)
            for member_id, (left_at, progress) in self._departing.items()
            if left_at > self._log.commit_index
        }

    # ----------------------------------------------------------------- proposals

    def propose(self, payloads: Sequence[bytes]) -> Proposed:
        """Append commands; raises TransferInProgress, NoRoom or Overloaded."""
        if self.transferring_to is not None:
            raise TransferInProgress(f"{self.transferring_to} is taking over")
        self._check_room()
        size_bytes = sum(map(len, payloads))
        if self._uncommitted and (
            self._uncommitted_bytes + size_bytes > self._options.max_uncommitted_bytes
        ):
            raise Overloaded(f"{self._uncommitted_bytes} bytes are not committed yet")
        self._uncommitted_bytes += size_bytes
        proposed = self._append(payloads, EntryKind.COMMAND)
        self._uncommitted.append((proposed.last_index, size_bytes))
        return proposed

    def _check_room(self) -> None:
        """Raise NoRoom for what could not be written here, or could not be committed."""
        core = self._core
        if not core.has_room:
            raise NoRoom("the disk is full")
        cramped = {member_id for member_id, each in self.progress.items() if not each.has_room}
        if cramped and not core.configuration.is_quorum(
            (self.progress.keys() | {core.id}) - cramped
        ):
            raise NoRoom("the disks of too many members are full")

    def _append(self, payloads: Sequence[bytes], kind: EntryKind) -> Proposed:
        term = self._core.term
        first_index = self._log.last_index + 1
        self._log.append(
            [Entry(first_index + i, term, kind, payload) for i, payload in enumerate(payloads)]
        )
        return Proposed(term, first_index, self._log.last_index)

    def propose_configuration(self, target: Configuration) -> Proposed:
        """Begin a change of membership; raises a Refused."""
        if self.transferring_to is not None:
            raise TransferInProgress(f"{self.transferring_to} is taking over")
        if not self.has_committed_in_term:
            # Two leaders could otherwise each add a member to the same old configuration, and
            # then have majorities without a common member (Ongaro's note of 2015 on thesis §4.1).
            raise NotReady("no entry of this term is committed yet")
        core = self._core
        if core.configuration_index > self._log.commit_index or core.configuration.is_joint:
            raise ChangeInProgress("the last change of membership is not complete yet")
        return self._append_configuration(core.configuration.towards(target))

    def _append_configuration(self, configuration: Configuration) -> Proposed:
        proposed = self._append([configuration.encode()], EntryKind.CONFIGURATION)
        # §6: in force from now on, committed or not.
        self._core.put_into_force(proposed.last_index, configuration)
        return proposed

    # ----------------------------------------------------------------- replication

    def replicate(self) -> None:
        """Send each member what it lacks and may get now."""
        sent = False
        for member_id, progress in self._everybody():
            sent |= self._send_due(member_id, progress)
        if sent or not self.progress:
            self._rounds.sent()

    def _send_due(self, member_id: str, progress: Progress) -> bool:
        sent = False
        while progress.may_send_entries and progress.next_index <= self._log.last_index:
            if not self._send_entries(member_id, progress):
                self._send_snapshot(member_id, progress)
                break
            sent = True
        # Of entries the window keeps back there is no news: it will travel with them.
        newest_to_tell = min(self._log.commit_index, progress.next_index - 1)
        news_due = progress.commit_sent < progress.commit_wanted <= newest_to_tell
        if progress.must_send or (news_due and progress.state is ProgressState.REPLICATE):
            self._send_empty(member_id, progress)
            sent = True
        return sent

    def _send_entries(self, member_id: str, progress: Progress) -> bool:
        """Whether it could be done: not if what it needs is compacted."""
        try:
            prev_log_term = self._log.term(progress.next_index - 1)
            entries = self._log.entries(progress.next_index, self._options.max_append_bytes)
        except Compacted:
            return False
        self._send_append(member_id, progress, progress.next_index - 1, prev_log_term, entries)
        size_bytes = sum(entry.size_bytes for entry in entries)
        progress.sent(entries[-1].index, size_bytes)
        return True

    def _send_empty(self, member_id: str, progress: Progress) -> None:
        """A heartbeat. It asks whether all that was sent has arrived, so losses are noticed."""
        prev_log_index, prev_log_term = progress.next_index - 1, 0
        if progress.state is not ProgressState.SNAPSHOT:
            try:
                prev_log_term = self._log.term(prev_log_index)
            except Compacted:
                self._send_snapshot(member_id, progress)
        if progress.state is ProgressState.SNAPSHOT:
            # It matches once that is installed, so the answer to the snapshot may get lost.
            prev_log_index = progress.snapshot_index
            prev_log_term = progress.snapshot_term
        self._send_append(member_id, progress, prev_log_index, prev_log_term, ())

    def _send_append(
        self,
        member_id: str,
        progress: Progress,
        prev_log_index: int,
        prev_log_term: int,
        entries: Sequence[Entry],
    ) -> None:
        commit_index = self._log.commit_index
        progress.must_send = False
        progress.commit_sent = min(commit_index, prev_log_index + len(entries))
        self._core.send(
            AppendEntries(
                self._core.term,
                self._core.id,
                member_id,
                prev_log_index,
                prev_log_term,
                tuple(entries),
                commit_index,
                self._rounds.current,
                progress.session,
            )
        )

    def _send_snapshot(self, member_id: str, progress: Progress) -> None:
        """§7: what it needs next is compacted."""
        snapshot = self._log.snapshot()
        progress.become_snapshot(
            snapshot.last_included_index, snapshot.last_included_term, self._next_session()
        )
        core = self._core
        core.send(InstallSnapshot(core.term, core.id, member_id, snapshot, progress.session))

    # ----------------------------------------------------------------- answers

    def on_append_response(self, message: AppendEntriesResponse) -> None:
        """Count what a member acknowledges, or find out where its log departs from ours."""
        progress = self._progress_of(message.sender)
        # An answer to what was sent before something broke proves nothing any more.
        if progress is None or message.session != progress.session:
            return
        if message.match_index > self._log.last_index or message.read_round > self._rounds.current:
            raise InvalidMessage(f"{message.sender} acknowledges what was never sent")
        progress.recently_active = True
        # First what it confirms, then what it commits: that may end this leadership.
        if message.read_round > progress.acked_round:
            progress.acked_round = message.read_round
            self.confirm_reads()
        if message.success:
            progress.has_room = not message.no_room
            self._on_match(message.sender, progress, message.match_index)
        else:
            self._on_conflict(progress, message)

    def _on_match(self, member_id: str, progress: Progress, match_index: int) -> None:
        news = progress.matched(match_index)
        if not progress.has_room and progress.state is not ProgressState.SNAPSHOT:
            progress.hold(self._next_session())
        elif progress.state is ProgressState.PROBE:
            progress.become_replicate()
        elif progress.state is ProgressState.SNAPSHOT and match_index >= progress.snapshot_index:
            progress.become_probe(self._next_session())
        if news:
            self.advance_commit()
        if member_id == self.transferring_to:
            self._ask_to_take_over(progress)
        elif member_id in self._departing:
            self._say_goodbye(member_id)

    def _say_goodbye(self, member_id: str) -> None:
        """A removed member that has the entry, and was told that it is committed, needs no more."""
        left_at, progress = self._departing[member_id]
        progress.commit_wanted = left_at
        if progress.match_index >= left_at and progress.commit_sent >= left_at:
            del self._departing[member_id]

    def _on_conflict(self, progress: Progress, message: AppendEntriesResponse) -> None:
        """§5.3: back off, a whole term at a time, to where the logs may meet."""
        if progress.state is ProgressState.SNAPSHOT or (
            message.rejected_index <= progress.match_index
        ):
            return  # overtaken by an acknowledgement
        if (
            progress.state is ProgressState.PROBE
            and message.rejected_index != progress.next_index - 1
        ):
            return
        hint = self._log.last_not_after(
            min(message.conflict_index, self._log.last_index), message.conflict_term
        )
        progress.become_probe(self._next_session())
        progress.next_index = max(progress.match_index + 1, min(message.rejected_index, hint + 1))

    def on_snapshot_response(self, message: InstallSnapshotResponse) -> None:
        """A member has installed the snapshot, or did not need it."""
        progress = self._progress_of(message.sender)
        if progress is None or message.session != progress.session:
            return
        if message.match_index > self._log.last_index:
            raise InvalidMessage(f"{message.sender} acknowledges what was never sent")
        progress.recently_active = True
        if message.success:
            self._on_match(message.sender, progress, message.match_index)
        if progress.state is ProgressState.SNAPSHOT:
            progress.snapshot_index = 0  # it has none: back to where the logs last met
            progress.become_probe(self._next_session())

    def snapshot_sent(self, member_id: str, *, success: bool) -> None:
        """The snapshot has reached the member whole, or could not be sent.

        Either way the next heartbeat finds out how far the member is: after a success it may have
        crashed before the snapshot was durable there.
        """
        progress = self._progress_of(member_id)
        if progress is None or progress.state is not ProgressState.SNAPSHOT:
            return
        if not success:
            progress.snapshot_index = 0  # back to where the logs last met
        progress.become_probe(self._next_session())
        progress.paused, progress.must_send = True, False

    def disconnected(self, member_id: str) -> None:
        """What was on its way may be lost."""
        progress = self._progress_of(member_id)
        if progress is not None and progress.state is not ProgressState.SNAPSHOT:
            progress.become_probe(self._next_session())
        if member_id == self.transferring_to:
            self.transferring_to = None  # it died, most likely: proposals need not wait for it

    # ----------------------------------------------------------------- commitment

    def advance_commit(self) -> None:
        """§5.3: an entry is committed once a majority has it on disk."""
        index = self._core.configuration.quorum_value(self._match_index_of)
        # §5.4.2: only entries of its own term are committed by counting (Figure 8).
        if index > self._log.commit_index and self._log.term(index) == self._core.term:
            self._core.commit_to(index)

    def _match_index_of(self, member_id: str) -> int:
        if member_id == self._core.id:
            return self._log.persisted_index  # the leader too counts only what its disk has
        return self.progress[member_id].match_index

    def committed(self) -> None:
        """The commit index has advanced, and so has come to an entry of this term (§5.4.2)."""
        while self._uncommitted and self._uncommitted[0][0] <= self._log.commit_index:
            self._uncommitted_bytes -= self._uncommitted.popleft()[1]
        core = self._core
        for context in self._rounds.take_held():
            self.read_index(context)
        if core.configuration_index > self._log.commit_index:
            return
        if core.configuration.is_joint:
            # Thesis §4.3: C_old,new is committed, so C_new can be appended.
            self._append_configuration(core.configuration.after_joint())
        elif not core.configuration.has_vote(core.id):
            self.replicate()  # let the others know first
            core.step_down()  # thesis §4.2.2: not a voter of C_new, now that it is committed

    def want_commit(self, member_id: str, index: int) -> None:
        """Tell this member as soon as that much is committed, with or without new entries."""
        progress = self.progress.get(member_id)
        if progress is not None:
            progress.commit_wanted = max(progress.commit_wanted, index)

    # ----------------------------------------------------------------- reads

    def read_index(self, context: Hashable) -> None:
        """Thesis §6.4: find an index at which a read may be answered."""
        if not self.has_committed_in_term:
            self._rounds.hold(context)
            return
        before = self._rounds.current
        self._rounds.ask(context, self._log.commit_index, self._core.now_ticks)
        if self._rounds.current != before:
            for _, progress in self._everybody():
                progress.must_send = True
        self.confirm_reads()

    def confirm_reads(self) -> None:
        """Settle the questions whose round a quorum has answered."""
        round_ = self._core.configuration.quorum_value(self._acked_round_of)
        self._core.confirmed_reads += self._rounds.confirm(round_)

    def _acked_round_of(self, member_id: str) -> int:
        if member_id == self._core.id:
            return self._rounds.current
        return self.progress[member_id].acked_round

    def lease_valid(self) -> bool:
        """Thesis §6.4.1: whether nobody else can lead yet, as far as clocks can be trusted."""
        return (
            self.has_committed_in_term
            # Whoever was asked to take over may campaign at any time from then on, and the
            # others will not withhold their votes from it.
            and self.transferring_to is None
            and not self._asked_to_take_over
            and self._rounds.lease_covers(self._core.now_ticks, self._options.lease_ticks)
        )

    def abort(self) -> list[Hashable]:
        """The end of this leadership: the questions that stay unanswered."""
        return self._rounds.abort()

    # ----------------------------------------------------------------- handing over

    def transfer_to(self, member_id: str) -> None:
        """Thesis §3.10: stop taking proposals, bring the target up to date, let it campaign."""
        if member_id == self._core.id or member_id not in self._core.configuration.voters:
            raise UnknownMember(f"{member_id} is not another voter")
        if self.transferring_to is not None:
            raise TransferInProgress(f"{self.transferring_to} is taking over")
        self.transferring_to = member_id
        self._transfer_elapsed_ticks = 0
        self._ask_to_take_over(self.progress[member_id])

    def _ask_to_take_over(self, progress: Progress) -> None:
        target = self.transferring_to
        if target is not None and progress.match_index == self._log.last_index:
            self._asked_to_take_over = True
            self._core.send(TimeoutNow(self._core.term, self._core.id, target))
