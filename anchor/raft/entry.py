"""One slot of the replicated log, and the bytes it is everywhere: on disk and on the wire."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

_HEADER = struct.Struct(">BQ")  # kind, term; the payload follows


class EntryKind(IntEnum):
    """What an entry's payload is for. The numbers are part of the disk and wire format."""

    NOOP = 0
    COMMAND = 1
    CONFIGURATION = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A log entry. ``payload`` means something only to whom ``kind`` says it is for."""

    index: int
    term: int
    kind: EntryKind
    payload: bytes

    @property
    def size_bytes(self) -> int:
        """How many bytes ``encode`` gives."""
        return _HEADER.size + len(self.payload)

    def encode(self) -> bytes:
        """One byte kind, eight bytes big-endian term, then the payload.

        The index is not part of it: it is the key on disk, and follows from
        ``prev_log_index`` on the wire.
        """
        return _HEADER.pack(self.kind, self.term) + self.payload

    @classmethod
    def decode(cls, index: int, encoded: bytes) -> Entry:
        """Read what ``encode`` wrote; raises ValueError for anything else."""
        if len(encoded) < _HEADER.size:
            raise ValueError(f"entry {index}: {len(encoded)} bytes are too few for an entry")
        kind, term = _HEADER.unpack_from(encoded)
        return cls(index, term, EntryKind(kind), encoded[_HEADER.size :])
