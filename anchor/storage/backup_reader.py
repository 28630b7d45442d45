"""Reading a backup, and believing none of it before its checksums are seen."""

from __future__ import annotations

import struct
import zlib
from hashlib import sha256
from typing import TYPE_CHECKING

from anchor.storage.backup_format import (
    BACKUP_FORMAT,
    END,
    END_PART,
    HEADER_PART,
    MAGIC,
    MAX_PART_BYTES,
    PART_CHECKSUM,
    PART_HEAD,
    PREAMBLE,
    RECORD_HEAD,
    RECORDS_PART,
    BackupError,
    BackupHeader,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ALTERED = "is damaged: a checksum does not fit, near byte {}"


class BackupReader:
    """Reads a backup from ``read(size)``, which gives up to so many bytes, and none at the end.

    ``header`` is there at once. Go through all of ``batches`` before you rely on any of it: only
    then is the end seen. ``name`` is for the complaints, which are :class:`BackupError`. Blocking.
    """

    def __init__(self, read: Callable[[int], bytes], name: object) -> None:
        self._read_some = read
        self.name = name
        self._crc = 0
        self._digest = sha256()
        self.bytes_read = 0
        self.record_count = 0
        self._read_preamble()
        kind, content = self._part()
        if kind != HEADER_PART:
            raise self._error("is damaged: it does not begin with a header")
        try:
            self.header = BackupHeader.decode(content)
        except ValueError as error:
            raise self._error(f"is no backup that this version can read: {error}") from None

    def batches(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """Give all keys of the state with their records, in order, some at a time."""
        last_key = b""
        while True:
            before = self._digest.digest()
            kind, content = self._part()
            if kind == END_PART:
                self._check_end(content, before)
                return
            if kind != RECORDS_PART:
                raise self._error(f"has a part of unknown kind {kind!r}")
            batch = self._records(content)
            for key, _ in batch:
                if key <= last_key:
                    raise self._error("has records that are out of order")
                last_key = key
            self.record_count += len(batch)
            yield batch

    def verify(self) -> None:
        """Read all of it."""
        for _ in self.batches():
            pass

    def _read_preamble(self) -> None:
        preamble = self._read(PREAMBLE.size, short="is no backup of anchor's")
        magic, found = PREAMBLE.unpack(preamble)
        if magic != MAGIC:
            raise self._error("is no backup of anchor's")
        if found != BACKUP_FORMAT:
            raise self._error(
                f"is a backup of format {found}, this version of anchor knows {BACKUP_FORMAT}; "
                "use the version that made it, or a newer one"
            )

    def _part(self) -> tuple[bytes, bytes]:
        start = self.bytes_read
        kind, length = PART_HEAD.unpack(self._read(PART_HEAD.size))
        if length > MAX_PART_BYTES:
            raise self._error(_ALTERED.format(start))
        content = self._read(length)
        expected = self._crc
        (found,) = PART_CHECKSUM.unpack(self._read(PART_CHECKSUM.size))
        if found != expected:
            raise self._error(_ALTERED.format(start))
        return kind, content

    def _check_end(self, content: bytes, before: bytes) -> None:
        if len(content) != END.size:
            raise self._error(_ALTERED.format(self.bytes_read))
        count, digest = END.unpack(content)
        if (count, digest) != (self.record_count, before):
            raise self._error("is damaged: it is not what its end says it is")
        if self._read_some(1):
            raise self._error("is damaged: something follows its end")

    def _records(self, content: bytes) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        position, end = 0, len(content)
        try:
            while position < end:
                key_bytes, record_bytes = RECORD_HEAD.unpack_from(content, position)
                key_at = position + RECORD_HEAD.size
                record_at = key_at + key_bytes
                position = record_at + record_bytes
                found.append((content[key_at:record_at], content[record_at:position]))
        except struct.error:
            position = -1
        if position != end:
            raise self._error("has a part that is no list of records")
        return found

    def _read(self, size: int, short: str = "") -> bytes:
        """Read exactly so many bytes."""
        pieces: list[bytes] = []
        left = size
        while left:
            piece = self._read_some(left)
            if not piece:
                raise self._error(
                    short or f"ends too early, after {self.bytes_read} bytes: it is not all there"
                )
            pieces.append(piece)
            left -= len(piece)
            self.bytes_read += len(piece)
        found = b"".join(pieces)
        self._crc = zlib.crc32(found, self._crc)
        self._digest.update(found)
        return found

    def _error(self, what: str) -> BackupError:
        return BackupError(f"{self.name}: {what}")
