"""What RocksDB complains of, as one line for the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from anchor.storage import CorruptionError, DiskFullError, LockedError, StorageError
from anchor.storage.errors import translate

DATABASE = Path("/d/raft.db")


@pytest.mark.parametrize(
    ("message", "kind", "named"),
    [
        ("Corruption: checksum mismatch", CorruptionError, "/d/raft.db"),
        ("Corruption: bad block in /d/raft.db/000012.sst offset 7", CorruptionError, "000012.sst"),
        ("Corruption: Can't access /000012.sst: gone", CorruptionError, "/d/raft.db/000012.sst"),
        ("Corruption: 000012.sst is bad", CorruptionError, "/d/raft.db/000012.sst"),
        (
            "IO error: No such file or directory: /d/raft.db/MANIFEST-000004: No such file",
            CorruptionError,
            "/d/raft.db/MANIFEST-000004",
        ),
        ("IO error: No space left on device: /d/raft.db/000012.log", DiskFullError, "/d/raft.db"),
        ("IO error: Disk quota exceeded", DiskFullError, "/d/raft.db"),
        ("IO error: lock hold by current process: /LOCK: No locks", LockedError, "/d/raft.db"),
        ("IO error: /LOCK: Resource temporarily unavailable", LockedError, "/d/raft.db"),
        ("IO error: Input/output\nerror", StorageError, "/d/raft.db: IO error: Input/output error"),
        ("", StorageError, "/d/raft.db: Exception"),
    ],
)
def test_a_complaint_names_its_file_in_one_line(
    message: str, kind: type[StorageError], named: str
) -> None:
    """The most precise one that can be had."""
    error = translate(Exception(message), DATABASE)
    assert type(error) is kind
    assert named in str(error)
    assert "\n" not in str(error)


def test_what_is_translated_stays_so() -> None:
    """An error that has passed through here is given as it is."""
    error = DiskFullError("full")
    assert translate(error, DATABASE) is error
