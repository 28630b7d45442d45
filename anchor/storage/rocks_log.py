"""The raft log on disk."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from anchor.crash import point
from anchor.raft import Entry, EntryKind, HardState, LogError
from anchor.storage import stable
from anchor.storage.errors import CorruptionError
from anchor.storage.log_checks import check_append, check_drop, check_install, check_read
from anchor.storage.log_sizes import LogSizes
from anchor.storage.raft_database import Changes, RaftDatabase, pack_index

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anchor.raft import SnapshotMetadata
    from anchor.storage.sync_mark import SyncMark

_TERM = struct.Struct(">xQ")  # the second to ninth byte of an encoded entry
_ENTRIES_CHECKED_AT_OPEN = 100_000
_DELETED_ONE_BY_ONE = 1024


class RocksLog:
    """A ``raft.LogStorage`` that keeps its promises through a power cut.

    Hub-safe (µs): all but ``sync`` and ``reclaim``, which block with the GIL released and belong
    in a native thread. One greenlet writes; ``sync`` and ``reclaim`` may run beside it.
    """

    def __init__(self, database: RaftDatabase, mark: SyncMark) -> None:
        """Read what is not read from the database each time; raises CorruptionError."""
        self._database = database
        self._mark = mark
        self.before_write: Callable[[], None] = lambda: None  # called often: some µs at most
        self._synced = mark.counts
        self.sizes = LogSizes()
        try:
            record = database.get(stable.HARD_STATE)
            self._hard_state = stable.decode_hard_state(record) if record else HardState()
            record = database.get(stable.COMPACTED)
            self._compacted = stable.decode_position(record) if record else (0, 0)
            record = database.get(stable.SNAPSHOT)
            self._snapshot = stable.decode_snapshot(record) if record else None
            self._last_index = database.last_entry_index() or self._compacted[0]
            self._configuration_indexes = database.indexes_after(
                stable.CONFIGURATION_PREFIX, self.first_index()
            )
            self._check()
        except (ValueError, LogError) as error:
            raise CorruptionError(database.path, str(error)) from None

    # Reading: raft.LogStorage.

    def hard_state(self) -> HardState:
        """Give the term and the vote."""
        return self._hard_state

    def snapshot(self) -> SnapshotMetadata | None:
        """Give what the newest snapshot stands for."""
        return self._snapshot

    def first_index(self) -> int:
        """Give the index of the first entry that is not compacted."""
        return self._compacted[0] + 1

    def last_index(self) -> int:
        """Give the index of the last entry, ``first_index() - 1`` if there is none."""
        return self._last_index

    def term(self, index: int) -> int:
        """Give an entry's term; also that of the last compacted one, and of the snapshot."""
        if index == self._compacted[0]:
            return self._compacted[1]
        if self._snapshot is not None and index == self._snapshot.last_included_index:
            return self._snapshot.last_included_term
        check_read(self.first_index(), self._last_index, index, index)
        encoded = self._database.get_entry(index)
        try:
            (term,) = _TERM.unpack_from(encoded)
        except struct.error:
            raise CorruptionError(
                self._database.path, f"entry {index} has {len(encoded)} bytes"
            ) from None
        return int(term)

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """Give entries from ``low`` to at most ``high``: one, and more while they fit."""
        check_read(self.first_index(), self._last_index, low, high)
        found: list[Entry] = []
        for index, encoded in self._database.entries(low, high):
            max_bytes -= len(encoded)
            if found and max_bytes < 0:
                break
            try:
                found.append(Entry.decode(index, encoded))
            except ValueError as error:
                raise CorruptionError(self._database.path, str(error)) from None
        return found

    def configuration_entries(self) -> list[Entry]:
        """Give all configuration entries, oldest first."""
        return [self.entries(index, index, 0)[0] for index in self._configuration_indexes]

    # Writing.

    def append(
        self,
        entries: Sequence[Entry],
        hard_state: HardState | None = None,
        records: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Put ``entries`` in the place of all from ``entries[0].index`` on: one write.

        ``records`` are stable ones of other kinds, for the same write.
        It is in the page cache then, and durable once a ``sync`` that began later has returned.
        """
        changes = Changes(self._database)
        last_index, configuration_indexes = self._last_index, self._configuration_indexes
        size_bytes = 0
        if entries:
            check_append(self.first_index(), last_index, entries)
            if entries[0].index <= last_index:
                configuration_indexes = self._truncate(changes, entries[0].index)
            last_index = entries[-1].index
        for entry in entries:
            encoded = entry.encode()
            size_bytes += len(encoded)
            changes.put_entry(entry.index, encoded)
            if entry.kind is EntryKind.CONFIGURATION:
                changes.put(_configuration_key(entry.index), b"")
                configuration_indexes = [*configuration_indexes, entry.index]
        if hard_state is not None:
            changes.put(stable.HARD_STATE, stable.encode_hard_state(hard_state))
        for key, record in (records or {}).items():
            changes.put(key, record)
        if hard_state is not None:
            point("vote.before")
        self._write(changes)
        if entries:
            self._last_index, self._configuration_indexes = last_index, configuration_indexes
            self.sizes.appended(entries[0].index, last_index, size_bytes)
        if hard_state is not None:
            self._hard_state = hard_state
            point("vote.after")

    def sync(self) -> None:
        """Make all that was written before this call durable; an error is final. Blocking."""
        counts = self._database.counts
        point("sync.before")
        self._database.sync()
        point("sync.after")
        self._synced = counts

    def record_snapshot(self, snapshot: SnapshotMetadata) -> None:
        """Remember what the newest snapshot stands for."""
        changes = Changes(self._database)
        changes.put(stable.SNAPSHOT, stable.encode_snapshot(snapshot))
        point("record.before")
        self._write(changes)
        point("record.after")
        self._snapshot = snapshot

    def drop_prefix(self, last_index: int) -> None:
        """Drop all entries up to ``last_index``, which a snapshot includes."""
        check_drop(self.first_index(), self._last_index, self._snapshot, last_index)
        changes = Changes(self._database)
        compacted = (last_index, self.term(last_index))
        changes.put(stable.COMPACTED, stable.encode_position(*compacted))
        kept = self._drop(changes, last_index)
        point("drop.before")
        self._write(changes)
        point("drop.after")
        self._compacted, self._configuration_indexes = compacted, kept
        self.sizes.dropped(last_index)

    def reclaim(self) -> None:
        """Give the space of dropped entries back to the disk. Blocking."""
        point("reclaim.before")
        self._database.compact_entries(self._compacted[0])
        point("reclaim.after")

    def install(
        self, snapshot: SnapshotMetadata, generation: int, hard_state: HardState | None = None
    ) -> None:
        """Make the log begin after ``snapshot``, and ``generation`` the live state: one write.

        Nothing of the log stays: of one that agrees with the snapshot the core keeps what follows
        and installs nothing (§7). ``hard_state`` goes with it: the term may not be behind the log.
        """
        compacted = (snapshot.last_included_index, snapshot.last_included_term)
        check_install(self._compacted[0], snapshot)
        changes = Changes(self._database)
        changes.put(stable.COMPACTED, stable.encode_position(*compacted))
        changes.put(stable.SNAPSHOT, stable.encode_snapshot(snapshot))
        changes.put(stable.GENERATION, stable.encode_generation(generation))
        if hard_state is not None:
            changes.put(stable.HARD_STATE, stable.encode_hard_state(hard_state))
        kept = self._drop(changes, max(self._last_index, compacted[0]))
        self._write(changes)
        self._compacted, self._snapshot = compacted, snapshot
        self._last_index, self._configuration_indexes = compacted[0], kept
        self._hard_state = hard_state or self._hard_state
        self.sizes.restarted()

    # Within.

    def _check(self) -> None:
        """Raise ValueError or CorruptionError if the pieces do not make a log."""
        first, last, snapshot = self.first_index(), self._last_index, self._snapshot
        if last < first - 1:
            raise ValueError(f"the log ends at {last}, but starts at {first}")
        if last >= first:
            self.term(first)
            low = max(first, last - _ENTRIES_CHECKED_AT_OPEN)
            for index, encoded in self._database.entries(low, last, passing_by=True):
                self.sizes.appended(index, index, len(encoded))
        if self._configuration_indexes and self._configuration_indexes[-1] > last:
            raise ValueError(f"configuration entry {self._configuration_indexes[-1]} is missing")
        if self.term(last) > self._hard_state.term:
            raise ValueError(
                f"the last entry is of term {self.term(last)}, "
                f"the current term is {self._hard_state.term}"
            )
        if first > 1 and (snapshot is None or snapshot.last_included_index < first - 1):
            raise ValueError(f"the log starts at {first}, with no snapshot before it")

    def _write(self, changes: Changes) -> None:
        # The sync before this write is witnessed first: the mark lags by one sync on purpose.
        self._mark.note(self._synced)
        self.before_write()
        point("append.before")
        self._database.write(changes)
        point("append.after")

    def _truncate(self, changes: Changes, start: int) -> list[int]:
        """Delete all entries from ``start`` on; give the configuration indexes left."""
        last = self._last_index
        if last - start < _DELETED_ONE_BY_ONE:
            for index in range(start, last + 1):
                changes.delete_entry(index)
        else:
            changes.delete_entries(start, last)
        kept = bisect_left(self._configuration_indexes, start)
        for index in self._configuration_indexes[kept:]:
            changes.delete(_configuration_key(index))
        return self._configuration_indexes[:kept]

    def _drop(self, changes: Changes, last: int) -> list[int]:
        """Delete all entries up to ``last``; give the configuration indexes left."""
        changes.delete_entries(0, last)
        kept = bisect_right(self._configuration_indexes, last)
        for index in self._configuration_indexes[:kept]:
            changes.delete(_configuration_key(index))
        return self._configuration_indexes[kept:]


def _configuration_key(index: int) -> bytes:
    return stable.CONFIGURATION_PREFIX + pack_index(index)
