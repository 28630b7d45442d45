"""A simulated disk: it knows what was written and, apart from that, what would survive a crash.

Theory of operation: a disk holds two images of the log. ``durable`` is what a power cut leaves;
``written`` is ``durable`` plus every write handed over since, in order. ``sync`` moves writes
from the one to the other, oldest first, each whole or not at all. What the core reads is
``written`` on an *eager* disk (a page cache) and ``durable`` on a lazy one (writes go through a
queue of their own): the core has to be right with either.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from anchor.raft import Compacted, EntryKind, HardState, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anchor.raft import Entry, SnapshotMetadata


@dataclass(frozen=True, slots=True)
class Write:
    """What one Ready asks to persist, together."""

    number: int
    hard_state: HardState | None = None
    entries: Sequence[Entry] = ()
    snapshot: SnapshotMetadata | None = None


@dataclass(slots=True)
class Image:
    """One state of the stored log."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: SnapshotMetadata | None = None
    first_index: int = 1
    entries: list[Entry] = field(default_factory=list)
    configurations: list[Entry] = field(default_factory=list)  # those among ``entries``

    @property
    def last_index(self) -> int:
        """The index of the last entry; ``first_index - 1`` when there is none."""
        return self.first_index + len(self.entries) - 1

    def copy(self) -> Image:
        """Give an image that shares nothing mutable with this one."""
        return replace(self, entries=list(self.entries), configurations=list(self.configurations))

    def apply(self, write: Write) -> None:
        """Do what ``write`` says. A snapshot replaces the whole log."""
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.snapshot is not None:
            self.snapshot = write.snapshot
            self.first_index = write.snapshot.last_included_index + 1
            self.entries, self.configurations = [], []
        self.append([e for e in write.entries if e.index >= self.first_index])

    def append(self, entries: Sequence[Entry]) -> None:
        """Append, dropping first what stands from ``entries[0].index`` on."""
        if not entries:
            return
        first = entries[0].index
        assert first <= self.last_index + 1, f"gap: {first} after {self.last_index}"
        numbers = [entry.index for entry in entries]
        assert numbers == list(range(first, first + len(entries))), f"gap inside {numbers}"
        del self.entries[first - self.first_index :]
        self.entries.extend(entries)
        self.configurations = [e for e in self.configurations if e.index < first]
        self.configurations += [e for e in entries if e.kind is EntryKind.CONFIGURATION]

    def drop_prefix(self, last_index: int) -> None:
        """Forget the entries up to and including ``last_index``."""
        if last_index >= self.first_index:
            del self.entries[: last_index - self.first_index + 1]
            self.first_index = last_index + 1
            self.configurations = [e for e in self.configurations if e.index > last_index]

    def term(self, index: int) -> int:
        """Give the term at ``index``, the snapshot's last one and 0 included."""
        if self.first_index <= index <= self.last_index:
            return self.entries[index - self.first_index].term
        if self.snapshot is not None and index == self.snapshot.last_included_index:
            return self.snapshot.last_included_term
        if index == 0 and self.first_index == 1:
            return 0
        raise Compacted(index) if index < self.first_index else Unavailable(index)

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry (index, term) is in the log or inside the snapshot."""
        if self.first_index <= index <= self.last_index:
            return self.entries[index - self.first_index].term == term
        return self.snapshot is not None and index <= self.snapshot.last_included_index


class SimulatedDisk:
    """The LogStorage of one simulated member, and the shell's side of it."""

    def __init__(self, *, eager: bool = True) -> None:
        self.eager = eager
        self.durable = Image()
        self.written = Image()
        self.queue: deque[Write] = deque()
        self.applied = (0, 0)  # what the state machine last flushed: applied index, digest

    # What the core reads -----------------------------------------------------------------

    @property
    def _readable(self) -> Image:
        return self.written if self.eager else self.durable

    def hard_state(self) -> HardState:
        """Give the term and the vote."""
        return self._readable.hard_state

    def snapshot(self) -> SnapshotMetadata | None:
        """Give the newest snapshot's metadata."""
        return self._readable.snapshot

    def first_index(self) -> int:
        """Give the index of the first entry there is, or would be."""
        return self._readable.first_index

    def last_index(self) -> int:
        """Give the index of the last entry."""
        return self._readable.last_index

    def term(self, index: int) -> int:
        """Give the term at ``index``; raises Compacted or Unavailable."""
        return self._readable.term(index)

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """Give [low, high] cut to ``max_bytes``, but at least one entry."""
        image = self._readable
        if low < image.first_index:
            raise Compacted(low)
        if high > image.last_index:
            raise Unavailable(high)
        found = image.entries[low - image.first_index : high - image.first_index + 1]
        size_bytes = 0
        for position, entry in enumerate(found):
            size_bytes += entry.size_bytes
            if position and size_bytes > max_bytes:
                return found[:position]
        return found

    def configuration_entries(self) -> list[Entry]:
        """Give all configuration entries in the log, oldest first."""
        return list(self._readable.configurations)

    # What the shell does -----------------------------------------------------------------

    def write(self, write: Write) -> None:
        """Hand a write over; it is not durable yet."""
        self.queue.append(write)
        self.written.apply(write)

    def sync(self, count: int | None = None) -> int | None:
        """Make the oldest ``count`` writes durable (all by default); give the newest's number."""
        number = None
        for _ in range(len(self.queue) if count is None else min(count, len(self.queue))):
            write = self.queue.popleft()
            self.durable.apply(write)
            number = write.number
        return number

    def crash(self, keep: int = 0) -> None:
        """Lose what is not durable, but for the oldest ``keep`` writes: the disk got to those."""
        self.sync(keep)
        self.queue.clear()
        self.written = self.durable.copy()

    def compact(self, snapshot: SnapshotMetadata, *, tail: int = 0) -> None:
        """Take a snapshot, durably, and drop the log it covers less ``tail`` entries."""
        for image in (self.durable, self.written):
            if image.snapshot is not None:
                old = image.snapshot.last_included_index
                assert old <= snapshot.last_included_index, "a snapshot may not go back"
            image.snapshot = snapshot
            image.drop_prefix(min(snapshot.last_included_index - tail, image.last_index))
