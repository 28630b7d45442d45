"""``snapshots/``: whole states, each as of one entry, that stand for the log before it.

A snapshot is the directory ``<term>-<index>``: RocksDB's checkpoint of a state in ``state``, and a
manifest. It is made under another name and gets its own when all of it is durable, so what has the
right name is whole. Its tables are hard links to those of the state: it costs no space at first.

A snapshot is removed when two newer ones are there and nobody has a hold on it. It loses its name
first, so that one that is half gone is not taken for a whole one.

All here blocks, for milliseconds or minutes; a native thread is the place for it, one at a time.
Only the checkpoint itself holds the GIL, some milliseconds. ``hold`` and ``release`` are hub-safe.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anchor.crash import point
from anchor.fsm import StateMachine
from anchor.raft import Configuration, SnapshotMetadata
from anchor.storage.errors import (
    CorruptionError,
    ForeignDirectoryError,
    StorageError,
    translate_os,
)
from anchor.storage.files import sync_directory, sync_file
from anchor.storage.snapshot_manifest import (
    MANIFEST_FILE,
    TABLE_SUFFIX,
    SnapshotFile,
    SnapshotManifest,
    decode_manifest,
    describe_file,
)
from anchor.storage.state import RocksState

if TYPE_CHECKING:
    from pathlib import Path

SNAPSHOTS_KEPT = 2

STATE = "state"  # the directory of a snapshot that has the files of its manifest
_MAKING = "making"
_REMOVING = "removing"
_RECEIVING = "receiving"
_NAME = re.compile(r"[0-9]{20}-[0-9]{20}")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot on this disk."""

    path: Path
    manifest: SnapshotManifest

    @property
    def metadata(self) -> SnapshotMetadata:
        """What it stands for."""
        return self.manifest.metadata

    def verify(self) -> None:
        """Read all of it and compare; raises CorruptionError."""
        for file in self.manifest.files:
            path = self.file_path(file)
            try:
                found = describe_file(path)
            except FileNotFoundError:
                raise CorruptionError(path, "is missing") from None
            if found != file:
                raise CorruptionError(path, "is not what the snapshot's manifest says it is")

    def file_path(self, file: SnapshotFile) -> Path:
        """Where a file of the manifest is."""
        return self.path / STATE / file.name

    def place(self, target: Path) -> None:
        """Make ``target``, durably, a state of one's own with this content.

        Tables never change, so they are shared; what RocksDB goes on writing to is copied.
        """
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        for file in self.manifest.files:
            source, copy = self.file_path(file), target / file.name
            if source.suffix == TABLE_SUFFIX:
                copy.hardlink_to(source)
            else:
                shutil.copyfile(source, copy)
                sync_file(copy)
        sync_directory(target)
        sync_directory(target.parent)


class SnapshotStore:
    """All snapshots of a node."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._holds: Counter[Path] = Counter()

    def hold(self, snapshot: Snapshot) -> None:
        """Keep it, whatever else is made, until as many calls of ``release``."""
        self._holds[snapshot.path] += 1

    def release(self, snapshot: Snapshot) -> None:
        """Keep it no longer than any other."""
        self._holds[snapshot.path] -= 1

    def create(self, state: RocksState, cluster_id: str) -> Snapshot:
        """Make a snapshot of ``state`` as it is, durably; the oldest ones go.

        It may include more than had been applied at the call: ask it, not the state machine.
        """
        making = self.path / _MAKING
        shutil.rmtree(making, ignore_errors=True)
        try:
            making.mkdir(mode=0o700)
            state.flush()
            point("checkpoint.before")
            state.checkpoint(making / STATE)
            point("checkpoint.after")
            metadata = _read_metadata(making / STATE)
            files = self._describe(making / STATE)
            snapshot = self.publish(making, SnapshotManifest(cluster_id, metadata, files))
        except OSError as error:
            raise translate_os(error, making) from None
        finally:
            shutil.rmtree(making, ignore_errors=True)
        self.remove_old()
        return snapshot

    def publish(self, making: Path, manifest: SnapshotManifest) -> Snapshot:
        """Give a directory with the files of ``manifest`` in ``state``, all durable, its name."""
        point("manifest.before")
        (making / MANIFEST_FILE).write_bytes(manifest.encode())
        point("manifest.after")
        sync_file(making / MANIFEST_FILE)
        for directory in (making / STATE, making):
            sync_directory(directory)
        path = self.path / _name(manifest.metadata)
        if path.exists():  # of one entry there is one state, and this would be it
            return self._load(path)
        point("rename.before")
        making.rename(path)
        point("rename.after")
        sync_directory(self.path)
        return Snapshot(path, manifest)

    def _describe(self, state: Path) -> tuple[SnapshotFile, ...]:
        """Make all files durable and measure them; tables that a snapshot has already, not again.

        So rot is not vouched for either: such a table has the checksum that it had when it was new.
        """
        known: dict[tuple[str, int], SnapshotFile] = {}
        for path in self._paths():
            with suppress(CorruptionError, FileNotFoundError):
                snapshot = self._load(path)
                for file in snapshot.manifest.files:
                    if file.name.endswith(TABLE_SUFFIX):
                        known[file.name, snapshot.file_path(file).stat().st_ino] = file
        files = []
        for path in sorted(state.iterdir()):
            described = known.get((path.name, path.stat().st_ino))
            if described is None:
                sync_file(path)
                described = describe_file(path)
            files.append(described)
        return tuple(files)

    def receiving_path(self) -> Path:
        """Where the files of a snapshot that arrives are kept until it is whole."""
        return self.path / _RECEIVING

    def all(self) -> list[Snapshot]:
        """Give all snapshots, the newest first. Manifests are checked, files are not."""
        return [self._load(path) for path in self._paths()]

    def newest(self, cluster_id: str) -> Snapshot | None:
        """Give the newest one; raises ForeignDirectoryError if it is another cluster's."""
        paths = self._paths()
        if not paths:
            return None
        snapshot = self._load(paths[0])
        if snapshot.manifest.cluster_id != cluster_id:
            raise ForeignDirectoryError(
                f"{snapshot.path}: belongs to cluster {snapshot.manifest.cluster_id}, "
                f"not {cluster_id}"
            )
        return snapshot

    def remove_foreign(self, cluster_id: str) -> None:
        """Remove those of the cluster that this was before it was recovered.

        Whose a damaged one is nobody knows; whoever wants it is told that it is damaged.
        """
        for path in self._paths():
            with suppress(StorageError):
                if self._load(path).manifest.cluster_id != cluster_id:
                    self._remove(path)

    def find(self, metadata: SnapshotMetadata) -> Snapshot | None:
        """Give the one that ends with this entry; raises CorruptionError."""
        path = self.path / _name(metadata)
        return self._load(path) if path.exists() else None

    def remove_old(self) -> None:
        """Remove all but the newest and those that are held. Raises StorageError."""
        try:
            for path in self._paths()[SNAPSHOTS_KEPT:]:
                if not self._holds[path]:
                    self._remove(path)
        except OSError as error:
            raise translate_os(error, self.path) from None

    def discard(self, metadata: SnapshotMetadata) -> None:
        """Remove one that is damaged, or not wanted."""
        self._remove(self.path / _name(metadata))

    def remove_interrupted(self) -> None:
        """Remove what a crash left of a making, a removal or a reception."""
        for path in (self.path / _MAKING, self.path / _RECEIVING, *self.path.glob(f"{_REMOVING}*")):
            shutil.rmtree(path, ignore_errors=True)

    def _remove(self, path: Path) -> None:
        # A name for each: one that arrives is discarded while another thread removes old ones.
        removing = self.path / f"{_REMOVING}-{path.name}"
        shutil.rmtree(removing, ignore_errors=True)
        with suppress(FileNotFoundError):
            path.rename(removing)
        shutil.rmtree(removing, ignore_errors=True)

    def _paths(self) -> list[Path]:
        names = [found for found in self.path.iterdir() if _NAME.fullmatch(found.name)]
        return sorted(names, reverse=True)

    def _load(self, path: Path) -> Snapshot:
        try:
            encoded = (path / MANIFEST_FILE).read_bytes()
        except FileNotFoundError:
            raise CorruptionError(path / MANIFEST_FILE, "is missing") from None
        return Snapshot(path, decode_manifest(path / MANIFEST_FILE, encoded))


def _name(metadata: SnapshotMetadata) -> str:
    """Names sort as the snapshots do."""
    return f"{metadata.last_included_term:020d}-{metadata.last_included_index:020d}"


def _read_metadata(path: Path) -> SnapshotMetadata:
    """Ask a checkpoint what it is of, and leave it as it was."""
    state = RocksState(path, read_only=True)
    try:
        machine = StateMachine(state)
    finally:
        state.close()
    for notes in path.glob("LOG*"):
        notes.unlink()
    configuration = Configuration()
    if machine.configuration is not None:
        configuration = Configuration.decode(machine.configuration)
    return SnapshotMetadata(
        machine.applied_index, machine.applied_term, configuration, machine.configuration_index
    )
