"""``raft.db``: RocksDB with the column families ``log`` and ``stable``, nothing of Raft."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from rocksdict import ReadOptions, WriteBatch

from anchor.storage import rocks
from anchor.storage.errors import CorruptionError, translate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rocksdict import RdictIter

_INDEX = struct.Struct(">Q")
pack_index = _INDEX.pack


class Changes:
    """Changes that ``RaftDatabase.write`` makes all at once, or not at all."""

    def __init__(self, database: RaftDatabase) -> None:
        self.batch = WriteBatch(raw_mode=True)
        self._log = database.log_handle
        self._stable = database.stable_handle

    def put_entry(self, index: int, encoded: bytes) -> None:
        """Write one entry."""
        self.batch.put(pack_index(index), encoded, self._log)

    def delete_entry(self, index: int) -> None:
        """Delete one entry."""
        self.batch.delete(pack_index(index), self._log)

    def delete_entries(self, low: int, high: int) -> None:
        """Delete the entries from ``low`` to ``high`` with one mark. Dear for the readers."""
        self.batch.delete_range(pack_index(low), pack_index(high + 1), self._log)

    def put(self, key: bytes, record: bytes) -> None:
        """Write a stable record."""
        self.batch.put(key, record, self._stable)

    def delete(self, key: bytes) -> None:
        """Delete a stable record."""
        self.batch.delete(key, self._stable)


class RaftDatabase:
    """The open database. Whatever RocksDB complains of comes out as a StorageError."""

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        self.path = path
        self._rocks = rocks.open_raft(path, create=create, read_only=read_only)
        self._log = self._rocks.get_column_family(rocks.LOG_FAMILY)
        self._stable = self._rocks.get_column_family(rocks.STABLE_FAMILY)
        self.log_handle = self._rocks.get_column_family_handle(rocks.LOG_FAMILY)
        self.stable_handle = self._rocks.get_column_family_handle(rocks.STABLE_FAMILY)

    def sequence(self) -> int:
        """Give RocksDB's sequence number: it rises by one with each change ever made."""
        return self._rocks.latest_sequence_number()

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

    def entries(self, low: int, high: int) -> Iterator[tuple[int, bytes]]:
        """Give the entries from ``low`` to ``high``, which must all be there."""
        iterator = self._log.iter(ReadOptions())
        iterator.seek(pack_index(low))
        for index in range(low, high + 1):
            if not iterator.valid() or iterator.key() != pack_index(index):
                self._check_status(iterator)
                raise CorruptionError(self.path, f"entry {index} is missing")
            yield index, iterator.value()
            iterator.next()

    def last_entry_index(self) -> int | None:
        """Give the index of the last entry."""
        iterator = self._log.iter(ReadOptions())
        iterator.seek_to_last()
        if iterator.valid():
            return int(_INDEX.unpack(iterator.key())[0])
        self._check_status(iterator)
        return None

    def indexes_after(self, prefix: bytes, low: int) -> list[int]:
        """Give the indexes from ``low`` on that stable keys of this prefix end with."""
        iterator = self._stable.iter(ReadOptions())
        iterator.seek(prefix + pack_index(low))
        found: list[int] = []
        while iterator.valid() and iterator.key().startswith(prefix):
            found += _INDEX.unpack(iterator.key()[len(prefix) :])
            iterator.next()
        self._check_status(iterator)
        return found

    def write(self, changes: Changes) -> None:
        """Make the changes: in the page cache, not yet durable. Hub-safe."""
        try:
            self._rocks.write(changes.batch)
        except Exception as error:  # noqa: BLE001 - as above
            raise translate(error, self.path) from None

    def sync(self) -> None:
        """Make all writes so far durable. Blocking, GIL released."""
        try:
            self._rocks.flush_wal(True)
        except Exception as error:  # noqa: BLE001 - as above
            raise translate(error, self.path) from None

    def compact_entries(self, high: int) -> None:
        """Give the space of deleted entries up to ``high`` back. Blocking, GIL released."""
        try:
            self._log.compact_range(pack_index(0), pack_index(high + 1))
        except Exception as error:  # noqa: BLE001 - as above
            raise translate(error, self.path) from None

    def close(self) -> None:
        """Close it. Blocking, GIL released. Nothing else may be called after it."""
        # A handle keeps the database open, and its lock held.
        del self.log_handle, self.stable_handle
        for part in (self._log, self._stable, self._rocks):
            part.close()

    def _check_status(self, iterator: RdictIter) -> None:
        """Raise what ended an iteration, if it was not the last key: damage ends it too."""
        try:
            iterator.status()
        except Exception as error:  # noqa: BLE001 - as above
            raise translate(error, self.path) from None
