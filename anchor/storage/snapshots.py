"""``snapshots/``: whole states, each as of one entry, that stand for the log before it.

A snapshot is the directory ``<term>-<index>``: RocksDB's checkpoint of a state in ``state``, and a
manifest. It is made under another name and gets its own when all of it is durable, so what has the
right name is whole. Its tables are hard links to those of the state: it costs no space at first.

All here blocks, for milliseconds or minutes; a native thread is the place for it. Only the
checkpoint itself holds the GIL, some milliseconds.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anchor.fsm import StateMachine
from anchor.raft import Configuration, SnapshotMetadata
from anchor.storage.errors import CorruptionError, ForeignDirectoryError, StorageError
from anchor.storage.files import sync_directory, sync_file
from anchor.storage.snapshot_manifest import (
    MANIFEST_FILE,
    SnapshotManifest,
    decode_manifest,
    describe_file,
)
from anchor.storage.state import RocksState

if TYPE_CHECKING:
    from pathlib import Path

SNAPSHOTS_KEPT = 2

_STATE = "state"
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
            path = self.path / _STATE / file.name
            try:
                found = describe_file(path)
            except FileNotFoundError:
                raise CorruptionError(path, "is missing") from None
            if found != file:
                raise CorruptionError(path, "is not what the snapshot's manifest says it is")

    def place(self, target: Path) -> None:
        """Make ``target``, durably, a state of one's own with this content.

        Tables never change, so they are shared; what RocksDB goes on writing to is copied.
        """
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        for file in self.manifest.files:
            source, copy = self.path / _STATE / file.name, target / file.name
            if source.suffix == ".sst":
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

    def create(self, state: RocksState, cluster_id: str) -> Snapshot:
        """Make a snapshot of ``state`` as it is, durably; the oldest ones go.

        It may include more than had been applied at the call: ask it, not the state machine.
        """
        making = self.path / "making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        state.flush()
        state.checkpoint(making / _STATE)
        metadata = _read_metadata(making / _STATE)
        files = []
        for path in sorted((making / _STATE).iterdir()):
            sync_file(path)
            files.append(describe_file(path))
        manifest = SnapshotManifest(cluster_id, metadata, tuple(files))
        (making / MANIFEST_FILE).write_bytes(manifest.encode())
        sync_file(making / MANIFEST_FILE)
        for directory in (making / _STATE, making):
            sync_directory(directory)
        snapshot = Snapshot(self.path / _name(metadata), manifest)
        if not snapshot.path.exists():  # of one entry there is one state, and this would be it
            making.rename(snapshot.path)
            sync_directory(self.path)
        self.remove_old()
        return snapshot

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
                    shutil.rmtree(self.path / "making", ignore_errors=True)
                    path.rename(self.path / "making")

    def remove_old(self) -> None:
        """Remove all but the newest, and what an interrupted making left."""
        for path in [*self._paths()[SNAPSHOTS_KEPT:], self.path / "making"]:
            shutil.rmtree(path, ignore_errors=True)

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
