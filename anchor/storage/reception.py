"""A snapshot on its way in: its files as they come, until it is whole and gets its name."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

from anchor.crash import point
from anchor.storage.errors import CorruptionError, translate_os
from anchor.storage.snapshots import STATE

if TYPE_CHECKING:
    from hashlib import _Hash

    from anchor.storage.snapshot_manifest import SnapshotFile, SnapshotManifest
    from anchor.storage.snapshots import Snapshot, SnapshotStore


class Reception:
    """Takes the files of ``manifest`` in their order, each from its beginning to its end.

    ``file`` and ``offset`` say where the next byte goes; a broken transfer goes on from there.
    All calls block, for a native thread, one at a time. Nothing of it survives a restart.
    """

    def __init__(self, store: SnapshotStore, manifest: SnapshotManifest) -> None:
        """Begin, in place of whatever was begun before; raises StorageError."""
        self.manifest = manifest
        self.file = 0
        self.offset = 0
        self._store = store
        self._path = store.receiving_path()
        self._handle: int | None = None
        self._digest: _Hash = hashlib.sha256()
        shutil.rmtree(self._path, ignore_errors=True)
        try:
            (self._path / STATE).mkdir(mode=0o700, parents=True)
            self._finish_files()
        except OSError as error:
            raise translate_os(error, self._path) from None

    @property
    def missing_bytes(self) -> int:
        """How much has still to come."""
        return sum(file.size_bytes for file in self.manifest.files[self.file :]) - self.offset

    def write(self, content: bytes) -> None:
        """Keep the next bytes, all of one file.

        Raises CorruptionError when they complete a file that is not what the manifest says: it is
        to be sent again, all of it. Raises StorageError, and then the reception is of no more use.
        """
        point("receive.before")
        try:
            if self._handle is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                self._handle = os.open(self._file_path(self._present), flags, 0o600)
            view = memoryview(content)
            while view:
                view = view[os.write(self._handle, view) :]
            self._digest.update(content)
            self.offset += len(content)
            point("receive.after")
            if self.offset >= self._present.size_bytes:
                self._finish_file()
                self._finish_files()
        except OSError as error:
            raise translate_os(error, self._path) from None

    def finish(self) -> Snapshot:
        """Make it a snapshot like any other, durably; all files must have come."""
        try:
            snapshot = self._store.publish(self._path, self.manifest)
        except OSError as error:
            raise translate_os(error, self._path) from None
        shutil.rmtree(self._path, ignore_errors=True)  # if it had that name already
        return snapshot

    def discard(self) -> None:
        """Remove what has come."""
        self._close()
        shutil.rmtree(self._path, ignore_errors=True)

    @property
    def is_complete(self) -> bool:
        """Whether all files are here."""
        return self.file >= len(self.manifest.files)

    @property
    def _present(self) -> SnapshotFile:
        return self.manifest.files[self.file]

    def _file_path(self, file: SnapshotFile) -> str:
        return str(self._path / STATE / file.name)

    def _finish_files(self) -> None:
        """Make the empty files that come next: nobody sends them."""
        while not self.is_complete and not self._present.size_bytes:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._handle = os.open(self._file_path(self._present), flags, 0o600)
            self._finish_file()

    def _finish_file(self) -> None:
        file, found = self._present, self._digest.hexdigest()
        if self._handle is not None and found == file.sha256:
            os.fsync(self._handle)
        self._close()
        self.offset = 0
        if found != file.sha256:
            raise CorruptionError(self._file_path(file), "did not arrive as it was sent")
        self.file += 1

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self._handle = None
        self._digest = hashlib.sha256()
