"""One process to a data directory."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from anchor.storage.errors import LockedError

if TYPE_CHECKING:
    from pathlib import Path


class DirectoryLock:
    """An advisory lock on a file that stays; the system lets go of it when the process ends."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip()
            os.close(self._file)
            raise LockedError(
                f"{path.parent}: is in use by process {holder or 'unknown'}; "
                "stop that one, or choose another directory"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let go of it."""
        os.close(self._file)
