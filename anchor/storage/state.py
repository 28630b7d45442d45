"""A generation of the state machine's data: RocksDB without a WAL.

After a crash it is as of its last flush, all of one write or nothing of it, and the raft log
replays the rest. One column family, so that a flush takes data and applied index together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rocksdict import Checkpoint, ReadOptions, WriteBatch

from anchor.crash import point
from anchor.storage import rocks
from anchor.storage.errors import translate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rocksdict import Rdict


class RocksState:
    """The ``fsm.StateStore`` on disk.

    Hub-safe (µs): ``get``, ``write``. Blocking, for a native thread: ``flush`` (GIL released),
    ``checkpoint`` (GIL held: milliseconds after a flush), ``close``.
    """

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        self.path = path
        self._rocks = rocks.open_state(path, create=create, read_only=read_only)
        self._write_options = rocks.without_wal()

    def get(self, key: bytes) -> bytes | None:
        """Give the record at ``key``; raises CorruptionError rather than a damaged one."""
        try:
            record: bytes | None = self._rocks.get(key)
        except Exception as error:  # noqa: BLE001 - the binding raises nothing narrower
            raise translate(error, self.path) from None
        return record

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Make all changes or none. Not durable before the next ``flush``."""
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, record in changes.items():
            if record is None:
                delete(key)
            else:
                put(key, record)
        point("apply.before")
        try:
            self._rocks.write(batch, self._write_options)
        except Exception as error:  # noqa: BLE001 - as above
            raise translate(error, self.path) from None
        point("apply.after")

    def iterate(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Give all keys that start with ``prefix``, from ``start`` on, in order, with records."""
        iterator = self._rocks.iter(ReadOptions())
        iterator.seek(max(prefix, start))
        while iterator.valid():
            key: bytes = iterator.key()
            if not key.startswith(prefix):
                return
            yield key, iterator.value()
            iterator.next()
        rocks.check_status(iterator, self.path)

    def flush(self) -> None:
        """Make all writes so far durable."""
        point("flush.before")
        try:
            self._rocks.flush()
        except Exception as error:  # noqa: BLE001 - as above
            raise translate(error, self.path) from None
        point("flush.after")

    def checkpoint(self, path: Path) -> None:
        """Make ``path``, which must not exist, a copy of the state: hard links. Flush first."""
        try:
            Checkpoint(self._rocks).create_checkpoint(str(path))
        except Exception as error:  # noqa: BLE001 - as above
            raise translate(error, self.path) from None

    def table_bytes(self) -> int:
        """Give how much the tables take on the disk. Hub-safe."""
        return rocks.measure(self._rocks, "live-sst-files-size")

    def live_bytes(self) -> int:
        """Give about how much the data takes, less what was overwritten or deleted. Hub-safe.

        It knows of deletions only once they are compacted.
        """
        return rocks.measure(self._rocks, "estimate-live-data-size", "cur-size-all-mem-tables")

    def compact(self) -> None:
        """Give the space of what was overwritten or deleted back. Blocking, GIL released."""
        try:
            self._rocks.flush()
            self._rocks.compact_range(None, None)
        except Exception as error:  # noqa: BLE001 - as above
            raise translate(error, self.path) from None

    def family(self) -> Rdict:
        """Give all there is, for reading. It may not outlive the state."""
        return self._rocks

    def close(self) -> None:
        """Flush and close. Nothing else may be called after it."""
        parts = [self._rocks]
        del self._rocks
        rocks.close(self.path, parts)
