"""The log as the core sees it: stored entries, and those still in memory on their way there.

Indexes, from left to right; each is at most the next::

    applied <= handed_out <= min(commit, persisted)      commit <= last      persisted <= last

``persisted`` may lag behind ``commit``: a majority may have an entry before this member does.
Nothing is handed out for applying before it is durable here too, so the state on disk is never
ahead of the log it came from.

Entries live in memory until they are stored and applied, and a while longer for followers that
are a little behind; older ones are read from the storage.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from anchor.raft.errors import Compacted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anchor.raft.entry import Entry
    from anchor.raft.interface import LogStorage
    from anchor.raft.messages import SnapshotMetadata


class Log:
    """The replicated log of one member."""

    def __init__(self, storage: LogStorage, applied_index: int, max_cache_bytes: int) -> None:
        self._storage = storage
        self._max_cache_bytes = max_cache_bytes
        last_index = storage.last_index()
        self._offset = last_index + 1  # the index of the first entry in memory
        self._entries: list[Entry] = []
        self._cached_bytes = 0
        # Index and term of the entry before those in memory.
        self._before = (last_index, storage.term(last_index) if last_index else 0)
        self._restored_index = 0  # what is below may be stored yet, but is no part of the log
        self._unwritten = last_index + 1  # the first entry no Ready has handed out for writing
        self._writes: deque[tuple[int, int]] = deque()  # Ready, last entry durable with it
        self.persisted_index = last_index
        self.commit_index = applied_index  # what was applied was committed
        self.handed_out_index = applied_index
        self.applied_index = applied_index

    # ----------------------------------------------------------------- looking

    @property
    def last_index(self) -> int:
        """The last entry there is."""
        return self._offset + len(self._entries) - 1

    @property
    def last_term(self) -> int:
        """The term of the last entry, 0 for an empty log."""
        if self._entries:
            return self._entries[-1].term
        return self._before[1]

    def term(self, index: int) -> int:
        """The term of an entry; 0 for the place before the first. Raises Compacted, Unavailable."""
        position = index - self._offset
        if position >= len(self._entries):
            raise Unavailable(f"entry {index} is beyond the last, {self.last_index}")
        if position >= 0:
            return self._entries[position].term
        if index == self._before[0]:
            return self._before[1]
        if 0 < index < self._restored_index:
            raise Compacted(f"entry {index} was replaced by a snapshot")
        return self._storage.term(index) if index else 0

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry there is of that term, and so the same one (Log Matching, §5.3)."""
        try:
            return self.term(index) == term
        except Unavailable:
            return False

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """§5.4.1: whether a log that ends so is at least as up-to-date as this one."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def last_not_after(self, index: int, term: int) -> int:
        """The last entry up to ``index`` whose term is at most ``term``; 0 if there is none.

        The back-off after a conflict skips a whole term at a time (§5.3). Where the log was
        compacted, all before is committed and needs no comparing.
        """
        try:
            while index > 0 and self.term(index) > term:
                index -= 1
        except Compacted:
            pass
        return index

    def entries(self, low: int, max_bytes: int) -> Sequence[Entry]:
        """From ``low``, which is in the log, on: as many as fit, and at least one; or Compacted."""
        if low < self._offset:
            return self._storage.entries(low, self._offset - 1, max_bytes)
        return self._slice(low, self.last_index, max_bytes)

    def _slice(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """From memory, ``high`` included."""
        found: list[Entry] = []
        size_bytes = 0
        for position in range(low - self._offset, high - self._offset + 1):
            entry = self._entries[position]
            size_bytes += entry.size_bytes
            if found and size_bytes > max_bytes:
                break
            found.append(entry)
        return found

    def snapshot(self) -> SnapshotMetadata:
        """What a member needs whose next entry is compacted."""
        snapshot = self._storage.snapshot()
        assert snapshot is not None  # noqa: S101 - what is compacted is in a snapshot
        return snapshot

    # ----------------------------------------------------------------- growing

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries at the end."""
        self._entries.extend(entries)
        for entry in entries:
            self._cached_bytes += entry.size_bytes

    def first_conflict(self, entries: Sequence[Entry]) -> int | None:
        """The position of the first entry that is missing here or differs; None if all are here.

        Figure 2, AppendEntries rules 3 and 4: only a conflict truncates; what is here already
        stays, since a message may be old and the log longer by now.
        """
        for position, entry in enumerate(entries):
            if not self.matches(entry.index, entry.term):
                return position
        return None

    def truncate(self, first_dropped: int) -> None:
        """Drop everything from there on: an uncommitted tail that another leader overrules."""
        if first_dropped < self._offset:
            # The tail is stored: the shell drops it there when it appends what comes instead.
            self._before = (first_dropped - 1, self.term(first_dropped - 1))
            self._entries.clear()
            self._offset = first_dropped
        else:
            del self._entries[first_dropped - self._offset :]
        self._cached_bytes = sum(entry.size_bytes for entry in self._entries)
        self.persisted_index = min(self.persisted_index, first_dropped - 1)
        # What is being written beyond will be dropped again by a later write, even if some
        # leader should restore the very same entries.
        self._writes = deque(
            (number, min(last_index, first_dropped - 1)) for number, last_index in self._writes
        )
        self._unwritten = min(self._unwritten, first_dropped)

    def restore(self, snapshot: SnapshotMetadata) -> None:
        """Start again after a snapshot, with nothing of what was there."""
        index, term = snapshot.last_included_index, snapshot.last_included_term
        self._entries.clear()
        self._cached_bytes = 0
        self._offset = index + 1
        self._unwritten = index + 1
        self._before = (index, term)
        self._restored_index = index
        # Nothing is durable until the snapshot is, and what is being written will be dropped then.
        self.persisted_index = 0
        self._writes = deque((number, 0) for number, _ in self._writes)
        self.commit_index = index
        self.handed_out_index = index

    # ----------------------------------------------------------------- on its way to the disk

    @property
    def has_unwritten(self) -> bool:
        """Whether there are entries no Ready has handed out for writing."""
        return self._unwritten <= self.last_index

    def take_unwritten(self) -> Sequence[Entry]:
        """Hand out what is to be written, once."""
        taken = self._entries[self._unwritten - self._offset :]
        self._unwritten = self.last_index + 1
        return taken

    def writing(self, number: int) -> None:
        """The Ready of this number takes everything up to now to the disk."""
        self._writes.append((number, self.last_index))

    def persisted(self, number: int) -> None:
        """All Readys up to this number are durable."""
        while self._writes and self._writes[0][0] <= number:
            self.persisted_index = max(self.persisted_index, self._writes.popleft()[1])

    # ----------------------------------------------------------------- on its way to be applied

    def commit_to(self, index: int) -> bool:
        """Commit up to there; whether that is news. A commit index never goes back."""
        if index <= self.commit_index:
            return False
        self.commit_index = index
        return True

    @property
    def has_committed(self) -> bool:
        """Whether there is something to apply."""
        return self.handed_out_index < min(self.commit_index, self.persisted_index)

    def take_committed(self, max_bytes: int) -> Sequence[Entry]:
        """Hand out what is to be applied, in order, once."""
        low = self.handed_out_index + 1
        high = min(self.commit_index, self.persisted_index)
        if low > high:
            return ()
        if low < self._offset:
            taken = self._storage.entries(low, min(high, self._offset - 1), max_bytes)
        else:
            taken = self._slice(low, high, max_bytes)
        self.handed_out_index = taken[-1].index
        return taken

    def applied(self, index: int) -> None:
        """The state machine has got so far; forget what nobody near needs any more."""
        self.applied_index = index
        if self._cached_bytes > self._max_cache_bytes:
            self._shrink()

    def _shrink(self) -> None:
        """Drop the older half of what memory holds, as far as it is stored and applied."""
        most = min(self.applied_index, self.persisted_index, self._unwritten - 1)
        count = min(len(self._entries) // 2 + 1, most - self._offset + 1)
        if count <= 0:
            return
        last = self._entries[count - 1]
        self._cached_bytes -= sum(entry.size_bytes for entry in self._entries[:count])
        del self._entries[:count]
        self._offset += count
        self._before = (last.index, last.term)
