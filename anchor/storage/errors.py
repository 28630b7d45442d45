"""What can be wrong with the disk. Each ``str()`` is one line: which file, what, and what to do."""

from __future__ import annotations

import errno
import re
from pathlib import Path

_REPLACE = (
    "stop using this copy: move the data directory away, remove this node from the cluster "
    "and let it join anew"
)
_FILE_IN_MESSAGE = re.compile(r"(/[^\s:]*/(?:\d+\.(?:sst|log)|MANIFEST-\d+|CURRENT))")
_NAME_IN_MESSAGE = re.compile(r"\b(\d{6,}\.(?:sst|log)|MANIFEST-\d+)\b")


class StorageError(Exception):
    """The disk did not do what it was asked to; final for this node (except DiskFullError)."""


class CorruptionError(StorageError):
    """A file is damaged, or missing. ``path`` says which, ``detail`` in what way."""

    def __init__(self, path: Path | str, detail: str) -> None:
        super().__init__(f"{path}: {detail}; {_REPLACE}")
        self.path = Path(path)
        self.detail = detail


class ForeignDirectoryError(StorageError):
    """The directory is another node's, another cluster's, or something else's."""


class LockedError(StorageError):
    """Another process has the directory open."""


class UnsupportedFormatError(StorageError):
    """A newer version of anchor wrote the directory."""


class SyncError(StorageError):
    """An fsync failed: what was written before it may be on the disk or not."""

    def __init__(self, path: Path, error: StorageError) -> None:
        super().__init__(
            f"{path}: an fsync failed ({error}); what was not durable before is in doubt: "
            "check the disk, then start again"
        )


class DiskFullError(StorageError):
    """No space, or no quota, left."""


def translate(error: Exception, path: Path) -> StorageError:
    """Make a StorageError of what the binding raised about the database at ``path``.

    The binding raises bare ``Exception`` with RocksDB's status as its text.
    """
    if isinstance(error, StorageError):
        return error
    message = " ".join(str(error).split())
    if "No space left" in message or "quota exceeded" in message.lower():
        return DiskFullError(f"{path}: no space left on the disk; free some, then start again")
    missing = "No such file or directory" in message
    if message.startswith("Corruption") or missing or "file is too short" in message:
        return CorruptionError(_file_named_in(message, path), message)
    if "lock hold by current process" in message or "LOCK: Resource temporarily" in message:
        return LockedError(f"{path}: is open in another process; stop that one first")
    return StorageError(f"{path}: {message or type(error).__name__}")


def _file_named_in(message: str, path: Path) -> Path:
    """Give the damaged file if RocksDB says which, else the database."""
    if found := _FILE_IN_MESSAGE.search(message):
        return Path(found[1])
    if found := _NAME_IN_MESSAGE.search(message):
        return path / found[1]
    return path


def translate_os(error: OSError, path: Path) -> StorageError:
    """Make a StorageError of what the system said about a file at, or in, ``path``."""
    where = error.filename or path
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"{where}: no space left on the disk; free some")
    return StorageError(f"{where}: {error.strerror or error}")
