"""``raft.db``: RocksDB with the column families ``log`` and ``stable``, nothing of Raft.

Each family counts the writes made to it, in a record of its own that is part of each of them. So
a family that has lost its newest writes, by whatever damage, is found behind the count that the
sync mark has of it (:mod:`anchor.storage.sync_mark`).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from rocksdict import ReadOptions, WriteBatch

from anchor.storage import rocks
from anchor.storage.errors import CorruptionError, SyncError, translate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rocksdict import Rdict

_INDEX = struct.Struct(">Q")
pack_index = _INDEX.pack

_LAST_INDEX = 2**64 - 2
_LOG_COUNT = pack_index(2**64 - 1)  # an index that no entry gets to
_STABLE_COUNT = b"writes"


class WriteCounts(NamedTuple):
    """How many writes each column family has seen."""

    log: int = 0
    stable: int = 0


class Changes:
    """Changes that ``RaftDatabase.write`` makes all at once, or not at all."""

    def __init__(self, database: RaftDatabase) -> None:
        self.batch = WriteBatch(raw_mode=True)
        self._log = database.log_handle
        self._stable = database.stable_handle
        self._touch_log = self._touch_stable = 0

    def put_entry(self, index: int, encoded: bytes) -> None:
        """Write one entry."""
        self._touch_log = 1
        self.batch.put(pack_index(index), encoded, self._log)

    def delete_entry(self, index: int) -> None:
        """Delete one entry."""
        self._touch_log = 1
        self.batch.delete(pack_index(index), self._log)

    def delete_entries(self, low: int, high: int) -> None:
        """Delete the entries from ``low`` to ``high`` with one mark. Dear for the readers."""
        self._touch_log = 1
        self.batch.delete_range(pack_index(low), pack_index(high + 1), self._log)

    def put(self, key: bytes, record: bytes) -> None:
        """Write a stable record."""
        self._touch_stable = 1
        self.batch.put(key, record, self._stable)

    def delete(self, key: bytes) -> None:
        """Delete a stable record."""
        self._touch_stable = 1
        self.batch.delete(key, self._stable)

    def count(self, counts: WriteCounts) -> WriteCounts:
        """Count this write in the families it changes; give the counts with it."""
        counts = WriteCounts(counts.log + self._touch_log, counts.stable + self._touch_stable)
        if self._touch_log:
            self.batch.put(_LOG_COUNT, pack_index(counts.log), self._log)
        if self._touch_stable:
            self.batch.put(_STABLE_COUNT, pack_index(counts.stable), self._stable)
        return counts


class RaftDatabase:
    """The open database. Whatever RocksDB complains of comes out as a StorageError."""

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        self.path = path
        self._rocks = rocks.open_raft(path, create=create, read_only=read_only)
        self._log = self._rocks.get_column_family(rocks.LOG_FAMILY)
        self._stable = self._rocks.get_column_family(rocks.STABLE_FAMILY)
        self.log_handle = self._rocks.get_column_family_handle(rocks.LOG_FAMILY)
        self.stable_handle = self._rocks.get_column_family_handle(rocks.STABLE_FAMILY)
        self.counts = WriteCounts(
            self._read_count(self._log, _LOG_COUNT), self._read_count(self._stable, _STABLE_COUNT)
        )

    def get(self, key: bytes) -> bytes | None:
        """Give a stable record."""
        try:
            record: bytes | None = self._stable.get(key)
        except Exception as error:  # noqa: BLE001 - the binding raises nothing narrower
            raise translate(error, self.path) from None
        return record

    def get_entry(self, index: int) -> bytes:
        """Give an entry that must be there."""
        try:
            encoded: bytes | None = self._log.get(pack_index(index))
        except Exception as error:  # noqa: BLE001 - as above
            raise translate(error, self.path) from None
        if encoded is None:
            raise CorruptionError(self.path, f"entry {index} is missing")
        return encoded

    def entries(
        self, low: int, high: int, *, passing_by: bool = False
    ) -> Iterator[tuple[int, bytes]]:
        """Give the entries from ``low`` to ``high``, which must all be there.

        ``passing_by`` leaves the cache as it is.
        """
        iterator = self._log.iter(rocks.passing_by() if passing_by else ReadOptions())
        iterator.seek(pack_index(low))
        for index in range(low, high + 1):
            if not iterator.valid() or iterator.key() != pack_index(index):
                rocks.check_status(iterator, self.path)
                raise CorruptionError(self.path, f"entry {index} is missing")
            yield index, iterator.value()
            iterator.next()

    def last_entry_index(self) -> int | None:
        """Give the index of the last entry."""
        iterator = self._log.iter(ReadOptions())
        iterator.seek_for_prev(pack_index(_LAST_INDEX))
        if iterator.valid():
            return int(_INDEX.unpack(iterator.key())[0])
        rocks.check_status(iterator, self.path)
        return None

    def indexes_after(self, prefix: bytes, low: int) -> list[int]:
        """Give the indexes from ``low`` on that stable keys of this prefix end with."""
        iterator = self._stable.iter(ReadOptions())
        iterator.seek(prefix + pack_index(low))
        found: list[int] = []
        while iterator.valid() and iterator.key().startswith(prefix):
            found += _INDEX.unpack(iterator.key()[len(prefix) :])
            iterator.next()
        rocks.check_status(iterator, self.path)
        return found

    def write(self, changes: Changes) -> None:
        """Make the changes: in the page cache, not yet durable. Hub-safe."""
        counts = changes.count(self.counts)
        try:
            self._rocks.write(changes.batch)
        except Exception as error:  # noqa: BLE001 - as above
            raise translate(error, self.path) from None
        self.counts = counts

    def sync(self) -> None:
        """Make all writes so far durable. Blocking, GIL released."""
        try:
            self._rocks.flush_wal(True)
        except Exception as error:  # noqa: BLE001 - as above
            # Not even a full disk is an excuse: what reached the disk is not known any more, and
            # another fsync would not tell either.
            raise SyncError(self.path, translate(error, self.path)) from None

    def compact_entries(self, high: int) -> None:
        """Give the space of deleted entries up to ``high`` back. Blocking, GIL released."""
        try:
            self._log.compact_range(pack_index(0), pack_index(high + 1))
        except Exception as error:  # noqa: BLE001 - as above
            raise translate(error, self.path) from None

    def table_bytes(self) -> int:
        """Give how much the tables of both families take on the disk. Hub-safe."""
        return sum(rocks.measure(family, "live-sst-files-size") for family in self.families())

    def families(self) -> list[Rdict]:
        """Give both families, for reading. They may not outlive the database."""
        return [self._log, self._stable]

    def close(self) -> None:
        """Close it. Blocking, GIL released. Nothing else may be called after it."""
        parts = [self._log, self._stable, self._rocks]
        # Whatever refers to the database keeps it open, and its lock held.
        del self.log_handle, self.stable_handle, self._log, self._stable, self._rocks
        rocks.close(self.path, parts)

    def _read_count(self, family: Rdict, key: bytes) -> int:
        try:
            record = family.get(key)
        except Exception as error:  # noqa: BLE001 - as above
            self.close()
            raise translate(error, self.path) from None
        if record is None:
            return 0
        (count,) = _INDEX.unpack(record)
        return int(count)
