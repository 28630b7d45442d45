"""Snapshots that a leader sends: kept, verified, and made ready to be the state.

All that takes time is done before the core hears of the snapshot: when it decides that this is the
state from now on, the files are here, verified and durable, in a generation of their own with an
open database, and what is left is one write (``Node.install``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import gevent

from anchor.storage import (
    RESERVE_BYTES,
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


class SnapshotReceptions:
    """The ``transport.SnapshotReceiver`` of a node: one transfer at a time."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._sink: Sink | None = None

    def receive(self, message: InstallSnapshot, manifest: transport.SnapshotManifest) -> Sink:
        """Begin, or go on with what was begun. Raises SnapshotRefused."""
        wanted = self._read(message.snapshot, manifest)
        sink = self._sink
        if sink is not None and sink.is_usable and sink.manifest == wanted:
            return sink
        self.forget()
        needed = sum(file.size_bytes for file in wanted.files)
        free = self._directory.free_bytes() - RESERVE_BYTES
        if needed > free:
            raise SnapshotRefused(f"it has {needed} bytes, and there is room for {max(0, free)}")
        try:
            self._sink = Sink(self._directory, wanted)
        except StorageError as error:
            raise SnapshotRefused(str(error)) from None
        return self._sink

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
        self._reception = _in_thread(lambda: Reception(directory.snapshots, manifest))

    @property
    def position(self) -> SnapshotPosition:
        """Where to go on."""
        return SnapshotPosition(self._reception.file, self._reception.offset)

    def write(self, position: SnapshotPosition, content: bytes) -> None:  # noqa: ARG002 - the next
        """Keep this. Raises SnapshotRefused: damaged on its way, or no room for it."""
        try:
            _in_thread(lambda: self._reception.write(content))
        except CorruptionError as error:  # that file is sent again
            raise SnapshotRefused(f"{error.path.name} {error.detail}") from None
        except StorageError as error:
            self.discard()
            raise SnapshotRefused(str(error)) from None

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
        """Remove it all. Blocks this greenlet."""
        self.is_usable = False
        installation = self.installation
        if installation is not None:
            _in_thread(lambda: self._directory.abandon(installation))
        _in_thread(self._reception.discard)

    def _prepare(self) -> Installation:
        snapshot = self._reception.finish()
        try:
            return self._directory.prepare(snapshot)
        except CorruptionError:
            self._directory.snapshots.discard(snapshot.metadata)  # for nobody else
            raise


def _in_thread(call: Callable[[], _T]) -> _T:
    result: _T = gevent.get_hub().threadpool.apply(call)
    return result
