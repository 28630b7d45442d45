"""A data directory made of a backup: a new cluster of one member, with the state as it was.

The state is as in the backup, byte for byte: values, their indexes and versions, origins, digest,
applied index. The log begins after it, with one CONFIGURATION entry of a new term that names the
new member alone. Cluster id and incarnation are new, so whoever was a member when the backup was
made is a stranger.

The state is written beside the one that a new directory has, and all the rest is one batch, synced,
once the whole backup has been read and its checksums were right. Before it, the directory is a new
one that belongs to no cluster; after it, it is whole. A crash leaves one or the other, and what was
written to the first is removed when it is opened.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anchor.fsm import FsmError, StateMachine
from anchor.raft import Configuration, Entry, EntryKind, HardState, Member, SnapshotMetadata
from anchor.settings import LOCK_FILE, NEWEST_PROTOCOL
from anchor.storage import inspection, stable
from anchor.storage.backup_format import BackupError
from anchor.storage.directory import (
    MARK_FILE,
    RAFT_DATABASE,
    STATE,
    DataDirectory,
    generation_path,
)
from anchor.storage.directory_lock import DirectoryLock
from anchor.storage.errors import ForeignDirectoryError, StorageError
from anchor.storage.files import check_owner, sync_directory
from anchor.storage.raft_database import Changes, RaftDatabase, pack_index
from anchor.storage.state import RocksState

if TYPE_CHECKING:
    from pathlib import Path

    from anchor.storage.backup_format import BackupHeader
    from anchor.storage.backup_reader import BackupReader

_GENERATION = 2  # the first is what a new directory has


@dataclass(frozen=True, slots=True)
class Founder:
    """The only member of the new cluster, and the cluster's id."""

    node_id: str
    address: str
    http_address: str
    cluster_id: str


def restore(backup: BackupReader, path: Path, founder: Founder) -> None:
    """Make the directory ``path``, which must be empty or not there, of a backup. Blocking.

    Raises a StorageError (one line), a BackupError where the backup is at fault. The directory
    belongs to no cluster then, and the same may be tried again.
    """
    _check_protocol(backup)
    try:
        check_empty(path)
        with closing(DataDirectory.open(path, founder.node_id)) as directory:
            incarnation = directory.identity.incarnation
        _restore(backup, path, founder, incarnation)
        with closing(DataDirectory.open(path, founder.node_id)) as directory:
            directory.create_snapshot()  # for who joins: the log begins after it
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror}") from None


def _check_protocol(backup: BackupReader) -> None:
    protocol_version = backup.header.configuration.protocol_version
    if protocol_version > NEWEST_PROTOCOL:
        raise BackupError(
            f"{backup.name}: is of a cluster that speaks protocol {protocol_version}, and this "
            f"version of anchor up to {NEWEST_PROTOCOL}: restore it with a newer one"
        )


def check_empty(path: Path) -> None:
    """Raise ForeignDirectoryError unless nothing would be lost."""
    if not path.exists():
        return
    check_owner(path)
    names = {found.name for found in path.iterdir()} - {"lost+found"}
    if not names:
        return
    if not {MARK_FILE, RAFT_DATABASE} <= names:
        raise ForeignDirectoryError(
            f"{path}: is not empty: it holds {min(names)!r}; a backup is restored to an empty one"
        )
    raft_path = path / RAFT_DATABASE
    with inspection.naming_the_file(raft_path):
        database = RaftDatabase(raft_path, read_only=True)
    with closing(database):
        _check_new(path, database)


def _check_new(path: Path, database: RaftDatabase) -> None:
    identity = inspection.read_identity(database)
    if identity.cluster_id or database.last_entry_index() is not None:
        raise ForeignDirectoryError(
            f"{path}: is not empty: it holds the data of node {identity.node_id!r}; "
            "a backup is restored to an empty one"
        )


def _restore(backup: BackupReader, path: Path, founder: Founder, incarnation: int) -> None:
    lock = DirectoryLock(path / LOCK_FILE)
    generation = generation_path(path, _GENERATION)
    try:
        with closing(RaftDatabase(path / RAFT_DATABASE)) as database:
            _check_new(path, database)
            shutil.rmtree(generation, ignore_errors=True)
            try:
                _write_state(backup, generation)
                sync_directory(path / STATE)
            except BaseException:
                shutil.rmtree(generation, ignore_errors=True)
                raise
            _begin(database, backup.header, founder, incarnation)
    finally:
        lock.release()


def _write_state(backup: BackupReader, path: Path) -> None:
    """Write all records, durably, and see that they are what the header says."""
    header = backup.header
    with closing(RocksState(path, create=True)) as state:
        for batch in backup.batches():
            state.write(dict(batch))
        state.flush()
        try:
            machine = StateMachine(state)
        except FsmError as error:
            raise BackupError(f"{backup.name}: holds no state of this version's: {error}") from None
        found = (machine.applied_index, machine.applied_term, machine.digest.hex())
    if found != (header.last_included_index, header.last_included_term, header.digest):
        raise BackupError(f"{backup.name}: its state is not what its header says it is")


def _begin(
    database: RaftDatabase, header: BackupHeader, founder: Founder, incarnation: int
) -> None:
    """Make the log begin after the state, and the state the live one: one write, synced."""
    index, term = header.last_included_index, header.last_included_term
    snapshot = SnapshotMetadata(index, term, header.configuration, header.configuration_index)
    member = Member(founder.node_id, founder.address, founder.http_address, incarnation)
    configuration = Configuration(
        {member.id: member},
        frozenset({member.id}),
        protocol_version=header.configuration.protocol_version,
    )
    entry = Entry(index + 1, term + 1, EntryKind.CONFIGURATION, configuration.encode())
    identity = stable.Identity(founder.node_id, incarnation, founder.cluster_id)
    changes = Changes(database)
    changes.put(stable.IDENTITY, stable.encode_identity(identity))
    changes.put(stable.GENERATION, stable.encode_generation(_GENERATION))
    changes.put(stable.COMPACTED, stable.encode_position(index, term))
    changes.put(stable.SNAPSHOT, stable.encode_snapshot(snapshot))
    changes.put(stable.HARD_STATE, stable.encode_hard_state(HardState(term + 1, member.id)))
    changes.put(stable.CONFIGURATION_PREFIX + pack_index(index + 1), b"")
    changes.put_entry(index + 1, entry.encode())
    database.write(changes)
    database.sync()
