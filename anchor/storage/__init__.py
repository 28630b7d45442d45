"""Everything a node keeps on its disk."""

from __future__ import annotations

from anchor.storage.directory import DataDirectory
from anchor.storage.errors import (
    CorruptionError,
    DiskFullError,
    ForeignDirectoryError,
    LockedError,
    StorageError,
    UnsupportedFormatError,
)
from anchor.storage.memory_log import MemoryLog
from anchor.storage.rocks_log import RocksLog
from anchor.storage.scrub import Scrub
from anchor.storage.snapshot_manifest import SnapshotManifest
from anchor.storage.snapshots import Snapshot, SnapshotStore
from anchor.storage.stable import Identity
from anchor.storage.state import RocksState

__all__ = [
    "CorruptionError",
    "DataDirectory",
    "DiskFullError",
    "ForeignDirectoryError",
    "Identity",
    "LockedError",
    "MemoryLog",
    "RocksLog",
    "RocksState",
    "Scrub",
    "Snapshot",
    "SnapshotManifest",
    "SnapshotStore",
    "StorageError",
    "UnsupportedFormatError",
]
