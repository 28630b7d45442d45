"""Looking at ``raft.db`` before it is opened for writing, without changing a byte of it.

Opening a RocksDB database for writing repairs, flushes and deletes. What is wrong with it, or not
ours, is found out before.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from anchor.storage import stable
from anchor.storage.errors import CorruptionError, ForeignDirectoryError, UnsupportedFormatError
from anchor.storage.raft_database import RaftDatabase
from anchor.storage.stable import DIRECTORY_FORMAT, Identity
from anchor.storage.write_ahead_log import check_write_ahead_logs

if TYPE_CHECKING:
    from pathlib import Path


def inspect_raft_database(path: Path, node_id: str, synced_sequence: int) -> Identity:
    """Raise a StorageError unless the database is whole and this node's. Blocking.

    ``synced_sequence`` is what the sync mark says was durable.
    """
    if not path.is_dir():
        raise CorruptionError(path, "is missing")
    check_write_ahead_logs(path)
    with closing(RaftDatabase(path, read_only=True)) as database:
        identity = read_identity(database)
        _check_identity(path, identity, node_id)
        if database.sequence() < synced_sequence:
            raise CorruptionError(
                path,
                f"ends at change {database.sequence()}, but change {synced_sequence} was synced: "
                "it has lost what it promised to keep",
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
        raise UnsupportedFormatError(
            f"{path}: is of format {identity.format_version}, this version of anchor knows "
            f"{DIRECTORY_FORMAT}; use the version that wrote it, or a newer one"
        )
    if identity.node_id != node_id:
        raise ForeignDirectoryError(
            f"{path}: belongs to node {identity.node_id!r}, not to {node_id!r}; "
            "give that --id, or another --dir"
        )
