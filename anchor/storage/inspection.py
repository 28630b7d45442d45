"""Looking at ``raft.db`` before it is opened for writing, without changing a byte of it.

Opening a RocksDB database for writing repairs, flushes and deletes. What is wrong with it, or not
ours, is found out before.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from anchor.settings import VERSION
from anchor.storage import stable
from anchor.storage.errors import CorruptionError, ForeignDirectoryError, UnsupportedFormatError
from anchor.storage.manifest import current_manifest
from anchor.storage.raft_database import RaftDatabase
from anchor.storage.record_file import check_checksums
from anchor.storage.stable import DIRECTORY_FORMAT, Identity
from anchor.storage.write_ahead_log import check_write_ahead_logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anchor.storage.raft_database import WriteCounts


def inspect_raft_database(path: Path, node_id: str, synced: WriteCounts) -> Identity:
    """Raise a StorageError unless the database is whole and this node's. Blocking.

    ``synced`` is what the sync mark says was durable.
    """
    with naming_the_file(path):
        check_write_ahead_logs(path)
        database = RaftDatabase(path, read_only=True)
    with closing(database):
        identity = read_identity(database)
        _check_identity(path, identity, node_id)
        for family, found, expected in zip(synced._fields, database.counts, synced, strict=True):
            if found < expected:
                raise CorruptionError(
                    path,
                    f"has {found} of at least {expected} writes that were synced to its "
                    f"{family!r} family: it has lost what it promised to keep",
                )
    return identity


def holds_nothing(path: Path) -> bool:
    """Whether the database is no more than an interrupted creation leaves. Blocking."""
    if not (path / "CURRENT").exists():
        return not any(
            found.suffix == ".sst" or (found.suffix == ".log" and found.stat().st_size > 0)
            for found in path.rglob("*")
        )
    with closing(RaftDatabase(path, read_only=True)) as database:
        return database.last_entry_index() is None and database.get(stable.HARD_STATE) is None


@contextmanager
def naming_the_file(database: Path) -> Iterator[None]:
    """Raise a CorruptionError that says which file is damaged, where RocksDB's own does not.

    Blocking, for opening a database. RocksDB names no write-ahead log, and blames the manifest for
    some damage of tables.
    """
    manifest = current_manifest(database)
    try:
        yield
    except CorruptionError as error:
        if error.path.suffix == ".sst" or not error.path.is_relative_to(database):
            raise
        for path in (manifest, *sorted(database.glob("*.log"))):
            check_checksums(path)
        if error.path == manifest and "entry in MANIFEST" not in error.detail:
            raise CorruptionError(database, f"one of its tables (*.sst): {error.detail}") from None
        raise


def read_identity(database: RaftDatabase) -> Identity:
    """Read whose database it is; raises CorruptionError."""
    record = database.get(stable.IDENTITY)
    if record is None:
        raise CorruptionError(database.path, "does not say whose it is")
    try:
        return stable.decode_identity(record)
    except ValueError as error:
        raise CorruptionError(database.path, str(error)) from None


def _check_identity(path: Path, identity: Identity, node_id: str) -> None:
    if identity.format_version > DIRECTORY_FORMAT:
        needed = (
            f"anchor {identity.needs} or newer" if identity.needs else "what wrote it, or newer"
        )
        raise UnsupportedFormatError(
            f"{path}: is of format {identity.format_version}, this is anchor {VERSION} and knows "
            f"{DIRECTORY_FORMAT}; use {needed}"
        )
    if identity.node_id != node_id:
        raise ForeignDirectoryError(
            f"{path}: belongs to node {identity.node_id!r}, not to {node_id!r}; "
            "give that --id, or another --dir"
        )
