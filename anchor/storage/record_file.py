"""The framing of RocksDB's write-ahead logs and manifests, read without RocksDB.

RocksDB accepts a log whose last record is torn: an append that a crash cut short. But it takes any
record whose length points beyond the end of the file for a torn one, and a header of zeros for the
end; so one flipped bit in a length makes it drop everything after, synced or not, without a word
(RocksDB 9.8, mode ``tolerate_corrupted_tail_records``). What it checks well, the checksum of each
whole record, is left to it. This finds the rest.

The format: blocks of 32 KiB; a record's piece never crosses one; each piece has a header of CRC
(4 bytes, masked), length (2) and type (1), all little-endian; the CRC covers type and content.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from anchor.storage.crc32c import masked_crc, prefix_with_masked_crc
from anchor.storage.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK_BYTES = 32 << 10

_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[bytes]:
    """Give all whole records; raises CorruptionError unless only the last append may be torn.

    Whether their bytes are the right ones, only RocksDB checks. Blocking.
    """
    content = path.read_bytes()
    pieces: list[bytes] = []
    for kind, piece in _pieces(path, content):
        if (kind in (_FULL, _FIRST)) == bool(pieces) or kind > _LAST:
            raise CorruptionError(path, f"has pieces of records that do not fit together ({kind})")
        pieces.append(piece)
        if kind in (_FULL, _LAST):
            yield b"".join(pieces)
            pieces.clear()


def check_checksums(path: Path) -> None:
    """Raise CorruptionError if a whole record is damaged. Blocking, and slow: 10 MB/s."""
    for _ in _pieces(path, path.read_bytes(), verify=True):
        pass


def _pieces(path: Path, content: bytes, *, verify: bool = False) -> Iterator[tuple[int, bytes]]:
    """Give the type and content of each whole piece."""
    position = 0
    while position < len(content):
        block_end = position - position % BLOCK_BYTES + BLOCK_BYTES
        if block_end - position < _HEADER.size:  # too little for a header: zeros
            position = block_end
            continue
        start = position + _HEADER.size
        if start > len(content):
            return  # a torn header
        crc, length, kind = _HEADER.unpack_from(content, position)
        if kind == 0 and length == 0:
            _check_end(path, content, position)
            return
        if start + length > min(block_end, len(content)):
            _check_torn(path, content, position, crc)
            return
        if verify and masked_crc(content[start - 1 : start + length]) != crc:
            raise CorruptionError(path, f"is damaged: checksum mismatch at byte {position}")
        yield kind, content[start : start + length]
        position = start + length


def _check_end(path: Path, content: bytes, position: int) -> None:
    """Zeros are space that was never written to: nothing may follow them."""
    if content.count(0, position) != len(content) - position:
        raise CorruptionError(path, f"has a hole at byte {position}, and more after it")


def _check_torn(path: Path, content: bytes, position: int, crc: int) -> None:
    """A piece that seems to go on behind the end is torn, or its length is wrong.

    It is torn if the file ends in its block, and no beginning of what is there fits its checksum:
    a whole record would.
    """
    block_end = position - position % BLOCK_BYTES + BLOCK_BYTES
    body = content[position + _HEADER.size - 1 : block_end]
    if len(content) > block_end or prefix_with_masked_crc(body, crc) is not None:
        raise CorruptionError(path, f"has a record of a wrong length at byte {position}")
