"""Snapshots on their way: what is sent, where it comes from, where it goes.

A snapshot is a few files and a manifest that lists them. They travel in one order, file by file,
in chunks of at most ``MAX_CHUNK_BYTES``; a *position* says where the next byte goes. Whoever keeps
the files (storage, through the node) implements a source on one side, a receiver and its sinks on
the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from anchor.raft.messages import InstallSnapshot

MAX_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A file by its plain name, without any directory; ``sha256`` of the whole, 32 bytes."""

    name: str
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True, order=True)
class SnapshotPosition:
    """Where the next byte goes: the place of a file in the manifest, and an offset in it."""

    file: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """All files, in the order in which they travel."""

    format_version: int
    files: tuple[SnapshotFile, ...]

    def settled(self, position: SnapshotPosition) -> SnapshotPosition:
        """Move past files that are complete, empty ones among them."""
        file, offset = position.file, position.offset
        while file < len(self.files) and offset >= self.files[file].size_bytes:
            file, offset = file + 1, 0
        return SnapshotPosition(file, offset)

    def is_complete(self, position: SnapshotPosition) -> bool:
        """Whether nothing is missing any more."""
        return self.settled(position).file >= len(self.files)


class SnapshotSource(Protocol):
    """The sender's files. They stay as they are until the transfer has ended."""

    @property
    def manifest(self) -> SnapshotManifest:
        """What will be sent."""

    def read(self, position: SnapshotPosition, size_bytes: int) -> bytes:
        """Exactly this much of one file. May block this greenlet, not the hub."""


class SnapshotSink(Protocol):
    """The receiver's side of one transfer. Any method may raise SnapshotRefused."""

    @property
    def position(self) -> SnapshotPosition:
        """Where to go on; not the beginning if part of this very snapshot is here already."""

    def write(self, position: SnapshotPosition, content: bytes) -> None:
        """Keep this; positions follow each other without a gap. May block this greenlet."""

    def finish(self) -> None:
        """All is here: verify every checksum, make it durable. The core decides about it next."""

    def suspend(self) -> None:
        """The transfer broke: keep what may be of use when it goes on."""


class SnapshotReceiver(Protocol):
    """Makes a sink for each snapshot that arrives. There is one transfer at a time."""

    def receive(self, message: InstallSnapshot, manifest: SnapshotManifest) -> SnapshotSink:
        """Begin, or go on. Raises SnapshotRefused: too large, a format not known here …."""
