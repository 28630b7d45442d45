"""Making files and directories durable. Blocking, GIL released."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from anchor.storage.errors import ForeignDirectoryError

if TYPE_CHECKING:
    from pathlib import Path


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    _sync(path, os.O_RDONLY)


def sync_directory(path: Path) -> None:
    """Make a directory's list of files durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def check_owner(path: Path) -> None:
    """Raise ForeignDirectoryError if root would leave its own files among another user's.

    The node, which runs as that user, could not start any more.
    """
    owner = path.stat().st_uid
    if os.geteuid() == 0 and owner != 0:
        raise ForeignDirectoryError(
            f"{path}: belongs to user {_user(owner)}, and you are root; do this as that user"
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
