"""The manifest of a snapshot: what it stands for, and each of its files with size and checksum.

JSON with sorted keys, so that it can be looked at; ``checksum`` is the SHA-256 of all the rest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anchor.raft import Configuration, SnapshotMetadata
from anchor.storage.errors import CorruptionError, UnsupportedFormatError

if TYPE_CHECKING:
    from pathlib import Path

SNAPSHOT_FORMAT = 1
MANIFEST_FILE = "manifest.json"
_CHUNK_BYTES = 1 << 20
TABLE_SUFFIX = ".sst"  # RocksDB never changes these once they are written


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """One file of a snapshot. ``name`` is a plain name, never a path."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """What a snapshot is."""

    cluster_id: str
    metadata: SnapshotMetadata
    files: tuple[SnapshotFile, ...]

    def encode(self) -> bytes:
        """Write it as the content of ``manifest.json``."""
        fields = {
            "format": SNAPSHOT_FORMAT,
            "cluster_id": self.cluster_id,
            "last_included_index": self.metadata.last_included_index,
            "last_included_term": self.metadata.last_included_term,
            "configuration_index": self.metadata.configuration_index,
            "configuration": self.metadata.configuration.encode().decode(),
            "files": [[file.name, file.size_bytes, file.sha256] for file in self.files],
        }
        fields["checksum"] = _checksum(fields)
        return json.dumps(fields, sort_keys=True, indent=1).encode() + b"\n"


def decode_manifest(path: Path, encoded: bytes) -> SnapshotManifest:
    """Read it; ``path`` is for the complaint. Raises CorruptionError, UnsupportedFormatError."""
    try:
        fields = json.loads(encoded)
        found = int(fields["format"])
        if found > SNAPSHOT_FORMAT:
            raise UnsupportedFormatError(
                f"{path}: is of format {found}, this version of anchor knows {SNAPSHOT_FORMAT}"
            )
        if fields.pop("checksum") != _checksum(fields):
            raise CorruptionError(path, "is damaged: checksum mismatch")
        metadata = SnapshotMetadata(
            int(fields["last_included_index"]),
            int(fields["last_included_term"]),
            Configuration.decode(fields["configuration"].encode()),
            int(fields["configuration_index"]),
        )
        files = tuple(checked_file(*entry) for entry in fields["files"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptionError(path, f"is no snapshot's manifest: {error}") from None
    return SnapshotManifest(str(fields["cluster_id"]), metadata, files)


def describe_file(path: Path) -> SnapshotFile:
    """Measure a file. Blocking, GIL released for most of it."""
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    return SnapshotFile(path.name, size_bytes, digest.hexdigest())


def checked_file(name: Any, size_bytes: Any, sha256: Any) -> SnapshotFile:  # noqa: ANN401
    """Make one of what JSON or another node says; raises ValueError for a path or nonsense."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not a file's name")
    return SnapshotFile(name, int(size_bytes), str(sha256))


def _checksum(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
