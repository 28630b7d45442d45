"""The one file format of backups: a whole state as of one entry, checksummed throughout.

A backup holds the state machine's records, not RocksDB's files: so it does not depend on how (or by
which version of RocksDB) they are stored, and a node can send it while it goes on writing. Each
record says of which format it is, as in the state (:mod:`anchor.fsm`).

======================  ========================================================================
preamble                8 bytes ``89 "anchor" 0a``, 2 bytes format of the backup
part ``H``, once        JSON: what is in it, see :class:`BackupHeader`
part ``R``, any number  records in the order of their keys, each: length of the key, length of the
                        record (4 bytes each), key, record
part ``E``, once        number of records (8 bytes), SHA-256 of all before this part
======================  ========================================================================

A part is its letter, the length of its content (4 bytes), its content, and the CRC-32 of the whole
file up to there (4 bytes). All integers are big-endian. Nothing follows part ``E``. So a change of
any byte, a part that is missing, doubled or moved, and an end that is too early are all noticed,
most of them at the part where they are.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from anchor.raft import Configuration
from anchor.storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BACKUP_FORMAT = 1
MAGIC = b"\x89anchor\n"
PREAMBLE = struct.Struct(">8sH")
PART_HEAD = struct.Struct(">cI")
PART_CHECKSUM = struct.Struct(">I")
RECORD_HEAD = struct.Struct(">II")
END = struct.Struct(">Q32s")

HEADER_PART, RECORDS_PART, END_PART = b"H", b"R", b"E"
PART_BYTES = 64 << 10  # a part is closed once it has this much: a millisecond of work
MAX_PART_BYTES = 8 << 20  # with the largest record that there can be


class BackupError(StorageError):
    """It is no backup, or not all of one, or not as it was written. One line."""


@dataclass(frozen=True, slots=True)
class BackupHeader:
    """What a backup is of, when and by what it was made.

    ``created`` is UTC as in RFC 3339; ``digest`` is the state machine's, in hexadecimal.
    """

    cluster_id: str
    node_id: str
    last_included_index: int
    last_included_term: int
    configuration: Configuration
    configuration_index: int
    digest: str
    created: str
    version: str

    def encode(self) -> bytes:
        """Write it as the content of part ``H``."""
        fields = {
            "cluster_id": self.cluster_id,
            "node_id": self.node_id,
            "last_included_index": self.last_included_index,
            "last_included_term": self.last_included_term,
            "configuration": self.configuration.encode().decode(),
            "configuration_index": self.configuration_index,
            "digest": self.digest,
            "created": self.created,
            "version": self.version,
        }
        return json.dumps(fields, sort_keys=True).encode()

    @classmethod
    def decode(cls, content: bytes) -> BackupHeader:
        """Read it; raises ValueError."""
        try:
            fields = json.loads(content)
            return cls(
                str(fields["cluster_id"]),
                str(fields["node_id"]),
                int(fields["last_included_index"]),
                int(fields["last_included_term"]),
                Configuration.decode(fields["configuration"].encode()),
                int(fields["configuration_index"]),
                str(fields["digest"]),
                str(fields["created"]),
                str(fields["version"]),
            )
        except (AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a header: {error!r}") from None


def encode_backup(
    header: BackupHeader, records: Iterable[tuple[bytes, bytes]], part_bytes: int = PART_BYTES
) -> Iterator[bytes]:
    """Give a backup piece by piece: a part each. ``records`` come in the order of their keys."""
    framing = _Framing()
    yield framing.preamble() + framing.part(HEADER_PART, header.encode())
    content: list[bytes] = []
    size = count = 0
    for key, record in records:
        content += (RECORD_HEAD.pack(len(key), len(record)), key, record)
        size += RECORD_HEAD.size + len(key) + len(record)
        count += 1
        if size >= part_bytes:
            yield framing.part(RECORDS_PART, b"".join(content))
            content.clear()
            size = 0
    if content:
        yield framing.part(RECORDS_PART, b"".join(content))
    yield framing.part(END_PART, END.pack(count, framing.digest.digest()))


class _Framing:
    """Frames parts, and knows the checksums of all so far."""

    def __init__(self) -> None:
        self.digest = sha256()
        self._crc = 0

    def preamble(self) -> bytes:
        return self._written(PREAMBLE.pack(MAGIC, BACKUP_FORMAT))

    def part(self, kind: bytes, content: bytes) -> bytes:
        piece = self._written(PART_HEAD.pack(kind, len(content)) + content)
        return piece + self._written(PART_CHECKSUM.pack(self._crc))

    def _written(self, piece: bytes) -> bytes:
        self._crc = zlib.crc32(piece, self._crc)
        self.digest.update(piece)
        return piece
