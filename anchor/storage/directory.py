"""A node's data directory: who owns it, what belongs in it, and opening all of it or nothing."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

from anchor.fsm import FsmError, StateMachine
from anchor.raft import Entry, EntryKind, HardState
from anchor.storage import inspection, stable
from anchor.storage.directory_lock import DirectoryLock
from anchor.storage.errors import (
    CorruptionError,
    ForeignDirectoryError,
    StorageError,
)
from anchor.storage.files import sync_directory
from anchor.storage.raft_database import Changes, RaftDatabase, WriteCounts
from anchor.storage.rocks_log import RocksLog
from anchor.storage.scrub import Scrub
from anchor.storage.snapshots import Snapshot, SnapshotStore
from anchor.storage.stable import Identity
from anchor.storage.state import RocksState
from anchor.storage.sync_mark import SyncMark

if TYPE_CHECKING:
    from pathlib import Path

    from anchor.raft import Configuration

LOCK_FILE = "lock"
MARK_FILE = "synced"
RAFT_DATABASE = "raft.db"
STATE = "state"
SNAPSHOTS = "snapshots"

# Room for what is under way: write-ahead logs (12 MiB), and a flush of what the buffers hold.
RESERVE_BYTES = 32 << 20

_OURS = {LOCK_FILE, MARK_FILE, RAFT_DATABASE, STATE, SNAPSHOTS}
_HARMLESS = {"lost+found"}  # what a file system puts at its own root


class DataDirectory:
    """The open directory. Everything in it was checked, and one process has it."""

    def __init__(self, path: Path, resources: ExitStack) -> None:
        self.path = path
        self._resources = resources
        self.snapshots = SnapshotStore(path / SNAPSHOTS)
        self._database: RaftDatabase
        self.identity: Identity
        self.generation: int
        self.log: RocksLog
        self.state: RocksState

    @classmethod
    def open(cls, path: Path, node_id: str, *, rng: random.Random | None = None) -> DataDirectory:
        """Open the directory, or make it if there is nothing. Blocking.

        Raises a StorageError whose text is one line for the user.
        """
        with ExitStack() as resources:
            directory = cls(path, resources)
            try:
                directory._prepare()
                is_new = directory._is_new()
                if is_new:
                    directory._create(node_id, rng or random.SystemRandom())
                directory._open(node_id)
            except OSError as error:
                raise StorageError(
                    f"{error.filename or path}: {error.strerror}; "
                    "--dir must be a directory that this user may write to"
                ) from None
            directory._resources = resources.pop_all()
            return directory

    @property
    def is_new(self) -> bool:
        """Whether the node belongs to no cluster yet."""
        return not self.identity.cluster_id

    def set_cluster_id(self, cluster_id: str) -> None:
        """Remember, durably, which cluster the node belongs to: once and for all. Blocking."""
        if self.identity.cluster_id not in ("", cluster_id):
            raise ForeignDirectoryError(
                f"{self.path}: belongs to cluster {self.identity.cluster_id}, not {cluster_id}"
            )
        self._become(replace(self.identity, cluster_id=cluster_id), [], None)

    def bootstrap(self, cluster_id: str, configuration: Configuration) -> None:
        """Make this node, durably, the only member of a new cluster. Blocking.

        The log begins with the configuration, in term 1. It is there together with the cluster's
        id, or neither is.
        """
        if self.log.last_index() or self.log.hard_state() != HardState():
            raise StorageError(f"{self.path}: has a log already; it cannot found a cluster")
        entry = Entry(1, 1, EntryKind.CONFIGURATION, configuration.encode())
        identity = replace(self.identity, cluster_id=cluster_id)
        self._become(identity, [entry], HardState(term=1))

    def continue_as(self, cluster_id: str, entry: Entry, hard_state: HardState) -> None:
        """Go on, durably, as a member of this cluster with one more entry in the log. Blocking.

        For :mod:`anchor.storage.recovery` alone, which says when that may be done. All of it is
        there together, or nothing.
        """
        self._become(replace(self.identity, cluster_id=cluster_id), [entry], hard_state)

    def free_bytes(self) -> int:
        """Give how much space this process may still use on the disk. Hub-safe."""
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def scrub(self) -> Scrub:
        """Give a new scrub of all that is open here; close it before the directory."""
        return Scrub(self._database, self.state)

    def close(self) -> None:
        """Flush the state and close everything; may be called again. Blocking."""
        self._resources.close()

    # Snapshots.

    def create_snapshot(self) -> Snapshot:
        """Make a snapshot of the state, durably; the log's snapshot is recorded apart. Blocking."""
        return self.snapshots.create(self.state, self.identity.cluster_id)

    def install(self, snapshot: Snapshot) -> None:
        """Put a snapshot in the place of state and log. Blocking; touch neither meanwhile.

        ``state`` is another one afterwards: make a new state machine of it. A crash at any instant
        leaves all of the old or all of the new. Raises CorruptionError for a damaged snapshot.
        """
        snapshot.verify()
        generation = self.generation + 1
        path = self._generation_path(generation)
        snapshot.place(path)
        state = RocksState(path)
        try:
            self._check_installed(snapshot, state)
            self.log.install(snapshot.metadata, generation)
            self.log.sync()
        except BaseException:
            state.close()
            raise
        previous, self.state, self.generation = self.state, state, generation
        previous.close()
        self._remove_leftovers()

    def _check_installed(self, snapshot: Snapshot, state: RocksState) -> None:
        machine = StateMachine(state)
        metadata = snapshot.metadata
        expected = (metadata.last_included_index, metadata.last_included_term)
        if (machine.applied_index, machine.applied_term) != expected:
            raise CorruptionError(snapshot.path, "is of another entry than its manifest says")
        if snapshot.manifest.cluster_id != self.identity.cluster_id:
            raise ForeignDirectoryError(
                f"{snapshot.path}: belongs to cluster {snapshot.manifest.cluster_id}"
            )

    def _remove_leftovers(self) -> None:
        """Remove states that are not live any more, or never came to be, and old snapshots."""
        for path in (self.path / STATE).iterdir():
            if path != self._generation_path(self.generation):
                shutil.rmtree(path, ignore_errors=True)
        self.snapshots.remove_foreign(self.identity.cluster_id)
        self.snapshots.remove_old()

    # Opening, step by step.

    def _prepare(self) -> None:
        """Make the directory private, and ours alone."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {found.name for found in self.path.iterdir()} - _HARMLESS
        if names and not names & _OURS:
            raise ForeignDirectoryError(
                f"{self.path}: holds {min(names)!r} and nothing of anchor's; "
                "choose an empty directory"
            )
        self.path.chmod(0o700)
        lock = DirectoryLock(self.path / LOCK_FILE)
        self._resources.callback(lock.release)
        for found in self.path.rglob("*"):
            if not found.is_symlink():
                found.chmod(0o700 if found.is_dir() else 0o600)

    def _is_new(self) -> bool:
        """Whether there is nothing yet, or only what an interrupted creation left."""
        mark_path = self.path / MARK_FILE
        if mark_path.exists() and any(SyncMark.read(mark_path)):
            return False
        if not inspection.holds_nothing(self.path / RAFT_DATABASE):
            raise CorruptionError(mark_path, "is missing")
        if any((self.path / STATE).rglob("*.sst")):
            raise CorruptionError(self.path / RAFT_DATABASE, "is missing")
        return True

    def _create(self, node_id: str, rng: random.Random) -> None:
        """Make all pieces. The mark's first counts say that all of them are there."""
        SyncMark.create(self.path / MARK_FILE, WriteCounts())
        for part in (RAFT_DATABASE, STATE, SNAPSHOTS):
            shutil.rmtree(self.path / part, ignore_errors=True)
            (self.path / part).mkdir(mode=0o700)
        RocksState(self._generation_path(1), create=True).close()
        with closing(RaftDatabase(self.path / RAFT_DATABASE, create=True)) as database:
            identity = Identity(node_id, rng.getrandbits(63), "")
            changes = Changes(database)
            changes.put(stable.IDENTITY, stable.encode_identity(identity))
            changes.put(stable.GENERATION, stable.encode_generation(1))
            database.write(changes)
            database.sync()
            counts = database.counts
        for directory in (self.path / STATE, self.path, self.path.parent):
            sync_directory(directory)
        SyncMark.create(self.path / MARK_FILE, counts)

    def _open(self, node_id: str) -> None:
        """Check all pieces, and open them."""
        mark = SyncMark(self.path / MARK_FILE)
        self._resources.callback(mark.close)
        raft_path = self.path / RAFT_DATABASE
        self.identity = inspection.inspect_raft_database(raft_path, node_id, mark.counts)
        with inspection.naming_the_file(raft_path):
            self._database = RaftDatabase(raft_path)
        self._resources.callback(self._database.close)
        self.generation = self._read_generation()
        self.log = RocksLog(self._database, mark)
        state_path = self._generation_path(self.generation)
        with inspection.naming_the_file(state_path):
            self.state = RocksState(state_path)
        self._resources.callback(self._close_state)
        self._check_state()
        self._remove_leftovers()

    def _close_state(self) -> None:
        """Close whichever state is live by then."""
        self.state.close()

    def _check_state(self) -> None:
        """Raise CorruptionError if the log cannot have made the state, or cannot continue it."""
        try:
            applied_index = StateMachine(self.state).applied_index
        except FsmError as error:
            raise CorruptionError(self.state.path, str(error)) from None
        if applied_index > self.log.last_index():
            raise CorruptionError(
                self.path / RAFT_DATABASE,
                f"ends at entry {self.log.last_index()}, but entry {applied_index} was applied: "
                "the log has lost its end",
            )
        if applied_index < self.log.first_index() - 1:
            raise CorruptionError(
                self.state.path,
                f"is as of entry {applied_index}, but the log starts at {self.log.first_index()}",
            )

    def _read_generation(self) -> int:
        try:
            return stable.decode_generation(self._database.get(stable.GENERATION) or b"")
        except ValueError as error:
            raise CorruptionError(self._database.path, str(error)) from None

    def _generation_path(self, generation: int) -> Path:
        return generation_path(self.path, generation)

    def _become(
        self, identity: Identity, entries: list[Entry], hard_state: HardState | None
    ) -> None:
        records = {stable.IDENTITY: stable.encode_identity(identity)}
        self.log.append(entries, hard_state, records)
        self.log.sync()
        self.identity = identity


def generation_path(directory: Path, generation: int) -> Path:
    """Give where in a data directory a generation of the state is."""
    return directory / STATE / f"{generation:08d}"
