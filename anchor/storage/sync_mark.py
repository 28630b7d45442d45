"""The sync mark: how much of the raft database certainly was durable, kept outside of it.

RocksDB cannot tell a database that lost its newest writes to a power cut, before anybody was told
of them, from one that lost synced writes since: a log or a manifest cut short, a file removed. This
file can: it holds counts of writes that an fsync covered. A database found behind them has lost
what this member promised, and must not vote.

It always lags by one sync: a torn last record is what a crash may leave, and is accepted. It is
written in place, never fsynced, before the next append (1 µs): after a power cut it may be older,
which makes it a weaker witness, but not a false one.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from typing import TYPE_CHECKING

from anchor.crash import point
from anchor.storage.errors import CorruptionError, UnsupportedFormatError
from anchor.storage.raft_database import WriteCounts

if TYPE_CHECKING:
    from pathlib import Path

_MARK = struct.Struct(">8sQQ")  # magic, writes to the log, writes to the stable state
_CHECKSUM = struct.Struct(">I")  # CRC-32 of that
_MAGIC = b"anchor-1"  # the last byte is the format
_NEWER = tuple(b"anchor-%d" % number for number in range(2, 10))


class SyncMark:
    """The open file. ``counts`` are those found in it, or last noted."""

    def __init__(self, path: Path) -> None:
        """Open the file, which must exist."""
        self.path = path
        self.counts = self.read(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    @staticmethod
    def read(path: Path) -> WriteCounts:
        """Read the counts; raises CorruptionError, UnsupportedFormatError."""
        try:
            encoded = path.read_bytes()
        except FileNotFoundError:
            raise CorruptionError(path, "is missing") from None
        if encoded.startswith(_NEWER):
            raise UnsupportedFormatError(
                f"{path}: is of a newer format; use the version of anchor that wrote it or newer"
            )
        if len(encoded) == _MARK.size + _CHECKSUM.size:
            _, *counts = _MARK.unpack_from(encoded)
            if _encode(WriteCounts(*counts)) == encoded:
                return WriteCounts(*counts)
        raise CorruptionError(path, "is damaged")

    @staticmethod
    def create(path: Path, counts: WriteCounts) -> None:
        """Make the file, or make its counts these, durably. Blocking."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(handle, _encode(counts), 0)
            os.fsync(handle)
        finally:
            os.close(handle)

    def note(self, counts: WriteCounts) -> None:
        """Remember that all these writes are durable. Hub-safe."""
        if counts == self.counts:
            return
        self.counts = counts
        point("mark.before")
        # A mark that stays behind is a weaker witness, no more; the log's own disk decides.
        with contextlib.suppress(OSError):
            os.pwrite(self._file, _encode(counts), 0)
        point("mark.after")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _encode(counts: WriteCounts) -> bytes:
    fields = _MARK.pack(_MAGIC, *counts)
    return fields + _CHECKSUM.pack(zlib.crc32(fields))
