"""What RocksDB does not check about its write-ahead logs: that nothing is missing.

Each record begins with the sequence number of its first change and the number of its changes. They
follow each other without a gap through all the logs, and the first log continues from what the
manifest says is in the tables.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from anchor.storage.errors import CorruptionError
from anchor.storage.manifest import current_manifest, last_sequence
from anchor.storage.record_file import records

if TYPE_CHECKING:
    from pathlib import Path

_BATCH_HEADER = struct.Struct("<QI")


def check_write_ahead_logs(database: Path) -> None:
    """Raise CorruptionError if synced writes are certainly missing from the logs. Blocking."""
    manifest = current_manifest(database)
    in_tables = last_sequence(manifest)
    expected: int | None = None
    for path in sorted(database.glob("*.log")):
        for record in records(path):
            if len(record) < _BATCH_HEADER.size:
                raise CorruptionError(path, f"has a record of only {len(record)} bytes")
            first, count = _BATCH_HEADER.unpack_from(record)
            if expected is None and in_tables is not None and first > in_tables + 1:
                raise CorruptionError(
                    path,
                    f"begins with change {first}, but {manifest.name} ends with {in_tables}: "
                    "what was between them is missing",
                )
            if expected is not None and first != expected:
                raise CorruptionError(
                    path, f"goes on with change {first}, where change {expected} should be"
                )
            expected = first + count
