"""Backups for clients: read in native threads, a few at a time, and ended before the node is."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import gevent

from anchor.node.errors import NoLeader, Overloaded
from anchor.storage.backup import Backup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anchor.storage import DataDirectory

MAX_BACKUPS = 4
"""Each keeps on the disk what it sees, however often that is overwritten meanwhile."""


class Backups:
    """All backups that are being read from this node."""

    def __init__(self, directory: DataDirectory, version: str) -> None:
        self._directory = directory
        self._version = version
        self._open: set[BackupStream] = set()

    def begin(self) -> BackupStream:
        """Begin a backup of what is applied now. Hub-safe; raises a NodeError."""
        if len(self._open) >= MAX_BACKUPS:
            raise Overloaded(f"{MAX_BACKUPS} backups are being read from this node already")
        directory = self._directory
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        backup = Backup(directory.state, directory.identity, created=created, version=self._version)
        if not backup.header.last_included_index:
            backup.close()
            raise NoLeader("this node knows nothing of its cluster's data yet")
        stream = BackupStream(backup, self._open.discard)
        self._open.add(stream)
        return stream

    def end_all(self, timeout_seconds: float) -> None:
        """End all of them: their readers get an error. Before the directory is closed."""
        deadline = time.monotonic() + timeout_seconds
        for stream in list(self._open):
            stream.end(deadline)


class BackupStream:
    """The pieces of one backup, 64 KiB or one record each. ``close`` it, whatever happens."""

    def __init__(self, backup: Backup, closed: Callable[[BackupStream], None]) -> None:
        self.header = backup.header
        self._backup = backup
        self._closed = closed
        self._reading = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Read a piece in a native thread; raises a StorageError."""
        self._reading = True
        try:
            piece: bytes = gevent.get_hub().threadpool.apply(self._backup.read)
        finally:
            self._reading = False
        if not piece:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Let go of the state; may be called again. From the greenlet that reads."""
        self._backup.close()
        self._closed(self)

    def end(self, deadline: float) -> None:
        """Close it from another greenlet, once the piece that is being read has been read."""
        while self._reading and time.monotonic() < deadline:
            gevent.sleep(0.002)
        if not self._reading:
            self.close()
