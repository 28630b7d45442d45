"""A node's data directory: who owns it, what belongs in it, and opening all of it or nothing."""

from __future__ import annotations

import random
import shutil
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anchor.crash import point
from anchor.fsm import FsmError, StateMachine
from anchor.raft import Entry, EntryKind, HardState
from anchor.settings import LOCK_FILE
from anchor.storage import inspection, stable
from anchor.storage.directory_lock import DirectoryLock
from anchor.storage.errors import (
    CorruptionError,
    ForeignDirectoryError,
    StorageError,
    translate_os,
)
from anchor.storage.files import sync_directory
from anchor.storage.raft_database import Changes, RaftDatabase, WriteCounts
from anchor.storage.rocks_log import RocksLog
from anchor.storage.room import BALLAST_FILE, Room
from anchor.storage.scrub import Scrub
from anchor.storage.snapshots import Snapshot, SnapshotStore
from anchor.storage.stable import Identity
from anchor.storage.state import RocksState
from anchor.storage.sync_mark import SyncMark

if TYPE_CHECKING:
    from pathlib import Path

    from anchor.raft import Configuration

MARK_FILE = "synced"
RAFT_DATABASE = "raft.db"
STATE = "state"
SNAPSHOTS = "snapshots"

_OURS = {LOCK_FILE, MARK_FILE, RAFT_DATABASE, STATE, SNAPSHOTS, BALLAST_FILE}
_HARMLESS = {"lost+found"}  # what a file system puts at its own root


@dataclass(frozen=True, slots=True)
class Installation:
    """A snapshot that is a generation of the state already, and can become the live one."""

    snapshot: Snapshot
    generation: int
    state: RocksState


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
        self._last_generation: int  # live, or prepared to be
        self._replaced: list[RocksState] = []  # not live any more, and still open
        self.room: Room

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
        return self.room.free_bytes()

    def reserve_bytes(self) -> int:
        """Give how much space has to stay free for what is under way. Hub-safe."""
        return self.room.reserve_bytes(self.state.table_bytes() + self._database.table_bytes())

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

    def prepare(self, snapshot: Snapshot) -> Installation:
        """Make a generation of a verified snapshot, durably, but not live. Blocking.

        Raises StorageError; then nothing is left of it.
        """
        self._last_generation += 1
        generation = self._last_generation
        path = self._generation_path(generation)
        try:
            point("install.before")
            snapshot.place(path)
            point("install.placed")
            state = RocksState(path)
            try:
                self._check_installed(snapshot, state)
            except BaseException:
                state.close()
                raise
        except BaseException as error:
            shutil.rmtree(path, ignore_errors=True)
            if isinstance(error, OSError):
                raise translate_os(error, path) from None
            raise
        return Installation(snapshot, generation, state)

    def switch(self, installation: Installation, hard_state: HardState | None = None) -> None:
        """Put what was prepared in the place of state and log: one write. Hub-safe.

        ``state`` is another one afterwards: load the state machine from it. Call ``log.sync``, then
        ``retire``. A crash before the sync has ended leaves all of the old or all of the new.
        """
        point("switch.before")
        self.log.install(installation.snapshot.metadata, installation.generation, hard_state)
        point("switch.after")
        self._replaced.append(self.state)
        self.state, self.generation = installation.state, installation.generation

    def retire(self) -> None:
        """Close and remove the states that were replaced, durably by now. Blocking.

        Nobody may use them any more, nor a scrub made before the switch.
        """
        while self._replaced:
            point("switch.durable")
            state = self._replaced.pop()
            with suppress(StorageError):  # it is of no use any more
                state.close()
            shutil.rmtree(state.path, ignore_errors=True)

    def abandon(self, installation: Installation) -> None:
        """Remove what was prepared and is not wanted. Blocking."""
        with suppress(StorageError):
            installation.state.close()
        shutil.rmtree(installation.state.path, ignore_errors=True)

    def install(self, snapshot: Snapshot) -> None:
        """Verify a snapshot and do all of that in a row. Blocking; touch nothing meanwhile.

        A crash at any instant leaves all of the old or all of the new. Raises CorruptionError for
        a damaged snapshot.
        """
        snapshot.verify()
        installation = self.prepare(snapshot)
        try:
            self.switch(installation)
        except BaseException:
            self.abandon(installation)
            raise
        self.log.sync()
        self.retire()
        self.snapshots.remove_old()

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
        """Remove states that are not live any more, or never came to be, and old snapshots.

        What made this one live is durable: opening a database flushes what its log holds.
        """
        for path in (self.path / STATE).iterdir():
            if path != self._generation_path(self.generation):
                shutil.rmtree(path, ignore_errors=True)
        self.snapshots.remove_interrupted()
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
        self.room = Room(self.path)
        self.room.make_room_to_start()
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
        point("create.mark")
        for part in (RAFT_DATABASE, STATE, SNAPSHOTS):
            shutil.rmtree(self.path / part, ignore_errors=True)
            (self.path / part).mkdir(mode=0o700)
        RocksState(self._generation_path(1), create=True).close()
        point("create.state")
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
        point("create.database")
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
        self.generation = self._last_generation = self._read_generation()
        self.log = RocksLog(self._database, mark)
        self.log.before_write = self.room.relieve
        state_path = self._generation_path(self.generation)
        with inspection.naming_the_file(state_path):
            self.state = RocksState(state_path)
        self._resources.callback(self._close_state)
        self._check_state()
        self._remove_leftovers()

    def _close_state(self) -> None:
        """Close whichever state is live by then, and those it replaced."""
        for state in (*self._replaced, self.state):
            state.close()

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
