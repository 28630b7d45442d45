"""The sync mark: how far the raft database certainly was durable, kept outside of it.

RocksDB cannot tell a write-ahead log that lost its tail to a power cut, before anybody was told of
it, from one that lost synced writes since. This file can: it holds a sequence number of the raft
database that an fsync covered. A database found behind it has lost what this member promised, and
must not vote.

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

from anchor.storage.errors import CorruptionError

if TYPE_CHECKING:
    from pathlib import Path

_MARK = struct.Struct(">8sQI")  # magic, sequence number, CRC-32 of both
_MAGIC = b"anchor-1"


class SyncMark:
    """The open file. ``sequence`` is the number found in it, or last noted."""

    def __init__(self, path: Path) -> None:
        """Open the file, which must exist."""
        self.path = path
        self.sequence = self.read(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    @staticmethod
    def read(path: Path) -> int:
        """Read the number; raises CorruptionError."""
        try:
            return _decode(path, path.read_bytes())
        except FileNotFoundError:
            raise CorruptionError(path, "is missing") from None

    @staticmethod
    def create(path: Path, sequence: int) -> None:
        """Make the file, or make its number ``sequence``, durably. Blocking."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(handle, _encode(sequence), 0)
            os.fsync(handle)
        finally:
            os.close(handle)

    def note(self, sequence: int) -> None:
        """Remember that all up to ``sequence`` is durable. Hub-safe."""
        if sequence <= self.sequence:
            return
        self.sequence = sequence
        # A mark that stays behind is a weaker witness, no more; the log's own disk decides.
        with contextlib.suppress(OSError):
            os.pwrite(self._file, _encode(sequence), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _encode(sequence: int) -> bytes:
    head = _MARK.pack(_MAGIC, sequence, 0)[:-4]
    return head + struct.pack(">I", zlib.crc32(head))


def _decode(path: Path, encoded: bytes) -> int:
    if len(encoded) != _MARK.size or _encode(_MARK.unpack(encoded)[1]) != encoded:
        raise CorruptionError(path, "is damaged")
    sequence: int = _MARK.unpack(encoded)[1]
    return sequence
