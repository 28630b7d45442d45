"""What a member does with what a leader sends: append, commit, acknowledge, install.

The rules for all servers that have to do with the leader's messages (Figure 2; §7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.raft.configuration import Configuration
from anchor.raft.entry import Entry, EntryKind
from anchor.raft.errors import InvalidMessage, LogError
from anchor.raft.interface import Role
from anchor.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anchor.raft.raft import Raft

NO_ROOM_PROTOCOL = 2  # the first in which an answer can say so


class Following:
    """The follower's rules; all state is the core's."""

    def __init__(self, core: Raft) -> None:
        self._core = core
        self._log = core.log

    # ----------------------------------------------------------------- entries

    def on_append_entries(self, message: AppendEntries) -> None:
        """Figure 2, AppendEntries."""
        core = self._core
        if message.term < core.term:
            self._refuse_append(message, 0, 0)
            return
        self._check_against_committed(message)
        core.follow(message)
        if not core.has_room and not core.cluster_speaks(NO_ROOM_PROTOCOL):
            return  # the leader would press on after any answer it understands
        prev = message.prev_log_index
        if prev > self._log.commit_index and not self._log.matches(prev, message.prev_log_term):
            hint = self._log.last_not_after(min(prev, self._log.last_index), message.prev_log_term)
            self._refuse_append(message, hint, self._term_or_zero(hint))
            return
        entries = message.entries if core.has_room else self._held_already(message.entries)
        self._append_from_leader(entries)
        last_new_index = prev + len(entries)
        core.commit_to(min(message.commit_index, last_new_index))
        self._acknowledge(message, last_new_index)

    def _check_against_committed(self, message: AppendEntries) -> None:
        """Leader Completeness (§5.4): no leader contradicts what is committed."""
        core = self._core
        if core.role is Role.LEADER and message.term == core.term:
            raise InvalidMessage(f"{message.sender} claims to lead term {core.term} too")
        commit_index = self._log.commit_index
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
            return self._log.term(index)
        except LogError:
            return 0

    def _held_already(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """As many of these as are in the log already: there is no room for others."""
        if not entries:
            return entries
        known = max(0, self._log.commit_index - entries[0].index + 1)
        position = self._log.first_conflict(entries[known:])
        return entries if position is None else entries[: known + position]

    def _append_from_leader(self, entries: Sequence[Entry]) -> None:
        # Entries up to the commit index are here, or compacted: they need no comparing.
        known = max(0, self._log.commit_index - entries[0].index + 1) if entries else 0
        entries = entries[known:]
        position = self._log.first_conflict(entries)
        if position is None:
            return
        fresh = entries[position:]
        if fresh[0].index <= self._log.last_index:
            self._core.truncate(fresh[0].index)
        self._log.append(fresh)
        for entry in fresh:
            if entry.kind is EntryKind.CONFIGURATION:
                self._core.put_into_force(entry.index, Configuration.decode(entry.payload))

    def _acknowledge(self, message: AppendEntries, match_index: int) -> None:
        """Figure 2: answer once what is acknowledged is on disk.

        A heartbeat is answered at once, with as much as is on disk already: otherwise a slow disk
        would look like a dead member.
        """
        core = self._core
        hand_out = core.promise
        if not message.entries and core.durable_term == core.term:
            hand_out = core.send
            match_index = min(match_index, self._log.persisted_index)
        hand_out(
            AppendEntriesResponse(
                core.term,
                core.id,
                message.sender,
                success=True,
                match_index=match_index,
                rejected_index=0,
                conflict_index=0,
                conflict_term=0,
                read_round=message.read_round,
                session=message.session,
                no_room=not core.has_room,
            )
        )

    def _refuse_append(
        self, message: AppendEntries, conflict_index: int, conflict_term: int
    ) -> None:
        core = self._core
        # Sessions and rounds are counted anew in each term: under a later one the echo of a
        # message of an old term could pass for an answer to the present.
        is_present = message.term == core.term
        core.promise(
            AppendEntriesResponse(
                core.term,
                core.id,
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

    def on_install_snapshot(self, message: InstallSnapshot) -> None:
        """§7. The shell has the files; this decides whether they become the state."""
        core = self._core
        if message.term < core.term:
            self._answer_snapshot(message, success=False, match_index=0)
            return
        if core.role is Role.LEADER and message.term == core.term:
            raise InvalidMessage(f"{message.sender} claims to lead term {core.term} too")
        core.follow(message)
        snapshot = message.snapshot
        index = snapshot.last_included_index
        if index <= self._log.commit_index:
            self._answer_snapshot(message, success=True, match_index=self._log.commit_index)
        elif self._log.matches(index, snapshot.last_included_term):
            core.commit_to(index)  # the log has it all, and goes on after it
            self._answer_snapshot(message, success=True, match_index=index)
        else:
            core.install(message)
            self._answer_snapshot(message, success=True, match_index=index)

    def _answer_snapshot(
        self, message: InstallSnapshot, *, success: bool, match_index: int
    ) -> None:
        core = self._core
        session = message.session if message.term == core.term else 0
        core.promise(
            InstallSnapshotResponse(
                core.term, core.id, message.sender, success, match_index, session
            )
        )
