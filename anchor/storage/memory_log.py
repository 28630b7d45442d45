"""The log in memory, for tests and simulation: a disk that can lose power."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from anchor.raft import EntryKind, HardState
from anchor.storage.log_checks import check_append, check_drop, check_install, check_read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anchor.raft import Entry, SnapshotMetadata


@dataclass(slots=True)
class _Contents:
    """What a disk holds. ``entries[0]`` has the index after ``compacted``'s."""

    hard_state: HardState = field(default_factory=HardState)
    compacted: tuple[int, int] = (0, 0)
    snapshot: SnapshotMetadata | None = None
    entries: list[Entry] = field(default_factory=list)


class MemoryLog:
    """A ``raft.LogStorage`` with RocksLog's way of writing.

    What is written counts only once ``sync`` was called; ``crash`` loses the rest.
    """

    def __init__(self) -> None:
        self._now = _Contents()
        self._durable = _Contents()

    def hard_state(self) -> HardState:
        """Give the term and the vote."""
        return self._now.hard_state

    def snapshot(self) -> SnapshotMetadata | None:
        """Give what the newest snapshot stands for."""
        return self._now.snapshot

    def first_index(self) -> int:
        """Give the index of the first entry that is not compacted."""
        return self._now.compacted[0] + 1

    def last_index(self) -> int:
        """Give the index of the last entry, ``first_index() - 1`` if there is none."""
        return self._now.compacted[0] + len(self._now.entries)

    def term(self, index: int) -> int:
        """Give an entry's term; also that of the last compacted one, and of the snapshot."""
        snapshot = self._now.snapshot
        if index == self._now.compacted[0]:
            return self._now.compacted[1]
        if snapshot is not None and index == snapshot.last_included_index:
            return snapshot.last_included_term
        check_read(self.first_index(), self.last_index(), index, index)
        return self._now.entries[index - self.first_index()].term

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """Give entries from ``low`` to at most ``high``: one, and more while they fit."""
        first = self.first_index()
        check_read(first, self.last_index(), low, high)
        found: list[Entry] = []
        for entry in self._now.entries[low - first : high - first + 1]:
            max_bytes -= entry.size_bytes
            if found and max_bytes < 0:
                break
            found.append(entry)
        return found

    def configuration_entries(self) -> list[Entry]:
        """Give all configuration entries, oldest first."""
        return [entry for entry in self._now.entries if entry.kind is EntryKind.CONFIGURATION]

    def append(self, entries: Sequence[Entry], hard_state: HardState | None = None) -> None:
        """Put ``entries`` in the place of all from ``entries[0].index`` on."""
        if entries:
            first = self.first_index()
            check_append(first, self.last_index(), entries)
            self._now.entries[entries[0].index - first :] = entries
        if hard_state is not None:
            self._now.hard_state = hard_state

    def sync(self) -> None:
        """Make all that was written durable."""
        self._durable = replace(self._now, entries=self._now.entries.copy())

    def crash(self) -> None:
        """Lose power: what was not synced is gone."""
        self._now = replace(self._durable, entries=self._durable.entries.copy())

    def record_snapshot(self, snapshot: SnapshotMetadata) -> None:
        """Remember what the newest snapshot stands for."""
        self._now.snapshot = snapshot

    def drop_prefix(self, last_index: int) -> None:
        """Drop all entries up to ``last_index``, which a snapshot includes."""
        first = self.first_index()
        check_drop(first, self.last_index(), self._now.snapshot, last_index)
        term = self.term(last_index)
        del self._now.entries[: last_index - first + 1]
        self._now.compacted = (last_index, term)

    def install(
        self,
        snapshot: SnapshotMetadata,
        generation: int = 0,  # noqa: ARG002 - it has none
        hard_state: HardState | None = None,
    ) -> None:
        """Make the log begin after ``snapshot``, with nothing of what was there."""
        check_install(self._now.compacted[0], snapshot)
        self._now.entries = []
        self._now.compacted = (snapshot.last_included_index, snapshot.last_included_term)
        self._now.snapshot = snapshot
        self._now.hard_state = hard_state or self._now.hard_state
