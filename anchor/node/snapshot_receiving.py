"""Snapshots that a leader sends: kept, verified, and made ready to be the state.

All that takes time is done before the core hears of the snapshot: when it decides that this is the
state from now on, the files are here, verified and durable, in a generation of their own with an
open database, and what is left is one write (``Node.install``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import gevent

from anchor.node.errors import Stopping
from anchor.storage import (
    SNAPSHOT_FORMAT,
    CorruptionError,
    Reception,
    SnapshotManifest,
    StorageError,
    checked_file,
)
from anchor.transport import SnapshotPosition, SnapshotRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor import transport
    from anchor.raft import InstallSnapshot, SnapshotMetadata
    from anchor.storage import DataDirectory, Installation

_T = TypeVar("_T")

LOOK_BYTES = 1 << 20  # so much is written between two looks at what is free on the disk


class SnapshotReceptions:
    """The ``transport.SnapshotReceiver`` of a node: one transfer at a time."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._sink: Sink | None = None
        # Old snapshots go when nothing else works on them: ``Snapshots.alone``, of a whole node.
        self.alone: Callable[[Callable[[], None]], None] = _in_thread

    def receive(self, message: InstallSnapshot, manifest: transport.SnapshotManifest) -> Sink:
        """Begin, or go on with what was begun. Raises SnapshotRefused."""
        wanted = self._read(message.snapshot, manifest)
        sink = self._sink
        if sink is not None and sink.is_usable and sink.manifest == wanted:
            if not self._has_room(sink.missing_bytes):
                self.forget()
                raise self._no_room(sink.missing_bytes)
            return sink
        self.forget()
        needed = sum(file.size_bytes for file in wanted.files)
        try:
            if not self._has_room(needed):
                self.alone(self._directory.snapshots.remove_old)
            if not self._has_room(needed):
                raise self._no_room(needed)
            self._sink = Sink(self._directory, wanted)
        except (StorageError, Stopping) as error:
            raise SnapshotRefused(str(error)) from None
        return self._sink

    def _room_bytes(self) -> int:
        """How much may come and leave the reserve free."""
        return max(0, self._directory.free_bytes() - self._directory.room.reserve_bytes())

    def _has_room(self, needed: int) -> bool:
        return needed <= self._room_bytes()

    def _no_room(self, needed: int) -> SnapshotRefused:
        room = self._room_bytes()
        return SnapshotRefused(f"it has {needed} bytes, and there is room for {room}")

    def _read(
        self, metadata: SnapshotMetadata, manifest: transport.SnapshotManifest
    ) -> SnapshotManifest:
        if manifest.format_version != SNAPSHOT_FORMAT:
            raise SnapshotRefused(f"format {manifest.format_version} is not known here")
        try:
            files = tuple(
                checked_file(file.name, file.size_bytes, file.sha256.hex())
                for file in manifest.files
            )
        except ValueError as error:
            raise SnapshotRefused(str(error)) from None
        if len({file.name for file in files}) < len(files):
            raise SnapshotRefused("two of its files have the same name")
        return SnapshotManifest(self._directory.identity.cluster_id, metadata, files)

    def take(self, metadata: SnapshotMetadata) -> Installation:
        """Give what was made of this snapshot, once. Hub-safe; raises StorageError."""
        sink = self._sink
        if sink is None or sink.installation is None or sink.manifest.metadata != metadata:
            raise StorageError(f"the snapshot of entry {metadata.last_included_index} is not here")
        self._sink = None
        return sink.installation

    def forget(self) -> None:
        """Remove what has come, if the core has not taken it. Blocks this greenlet."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.discard()

    def forget_if_overtaken(self, applied_index: int) -> None:
        """Remove a snapshot that the core had no use for. Blocks this greenlet."""
        sink = self._sink
        if (
            sink is not None
            and sink.installation is not None
            and sink.manifest.metadata.last_included_index <= applied_index
        ):
            self.forget()


class Sink:
    """The ``transport.SnapshotSink`` of one snapshot, through however many streams it takes."""

    def __init__(self, directory: DataDirectory, manifest: SnapshotManifest) -> None:
        self.manifest = manifest
        self.installation: Installation | None = None
        self.is_usable = True
        self._directory = directory
        self._unlooked_bytes = 0  # written since the last look at the disk
        self._published: SnapshotMetadata | None = None  # a snapshot that was made of this
        self._reception = _in_thread(lambda: Reception(directory.snapshots, manifest))

    @property
    def position(self) -> SnapshotPosition:
        """Where to go on."""
        return SnapshotPosition(self._reception.file, self._reception.offset)

    @property
    def missing_bytes(self) -> int:
        """How much has still to come."""
        return self._reception.missing_bytes

    def write(self, position: SnapshotPosition, content: bytes) -> None:  # noqa: ARG002 - the next
        """Keep this. Raises SnapshotRefused: damaged on its way, or no room for it."""
        self._unlooked_bytes += len(content)
        if self._unlooked_bytes >= LOOK_BYTES:
            self._unlooked_bytes = 0
            self._check_reserve()
        try:
            _in_thread(lambda: self._reception.write(content))
        except CorruptionError as error:  # that file is sent again
            raise SnapshotRefused(f"{error.path.name} {error.detail}") from None
        except StorageError as error:
            self.discard()
            raise SnapshotRefused(str(error)) from None

    def _check_reserve(self) -> None:
        """Others may have filled the disk meanwhile, and this node needs some for itself."""
        free = self._directory.free_bytes()
        if free < self._directory.room.reserve_bytes() // 2:
            self.discard()
            raise SnapshotRefused(f"the disk has filled up: {free} bytes are free")

    def finish(self) -> None:
        """Make it a snapshot, and a state that may go live. Raises SnapshotRefused."""
        if self.installation is None:
            try:
                self.installation = _in_thread(self._prepare)
            except StorageError as error:
                self.discard()
                raise SnapshotRefused(str(error)) from None

    def suspend(self) -> None:
        """All that has come is of use when the transfer goes on."""

    def discard(self) -> None:
        """Remove it all: the core has not taken it, and will not. Blocks this greenlet."""
        self.is_usable = False
        installation = self.installation
        if installation is not None:
            _in_thread(lambda: self._directory.abandon(installation))
        _in_thread(self._unpublish)
        _in_thread(self._reception.discard)

    def _prepare(self) -> Installation:
        snapshots = self._directory.snapshots
        is_new = snapshots.find(self.manifest.metadata) is None
        snapshot = self._reception.finish()
        if is_new:  # else this node has one of its own, which stays
            self._published = snapshot.metadata
        try:
            return self._directory.prepare(snapshot)
        except CorruptionError:
            snapshots.discard(snapshot.metadata)  # for nobody else
            raise
        except BaseException:  # want of room, say: a second try needs what this takes
            self._unpublish()
            raise

    def _unpublish(self) -> None:
        """Remove the snapshot that was made of this, unless this node has made it its own."""
        published, self._published = self._published, None
        if published is not None and published != self._directory.log.snapshot():
            self._directory.snapshots.discard(published)


def _in_thread(call: Callable[[], _T]) -> _T:
    result: _T = gevent.get_hub().threadpool.apply(call)
    return result
