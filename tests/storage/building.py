"""Short ways to entries, configurations and directories."""

from __future__ import annotations

import random
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from anchor.raft import Configuration, Entry, EntryKind, Member, SnapshotMetadata
from anchor.storage import DataDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODE_ID = "node1"


def configuration(*voters: str) -> Configuration:
    """Make a configuration of these voters."""
    names = voters or (NODE_ID,)
    return Configuration(members={name: Member(name) for name in names}, voters=frozenset(names))


def entry(index: int, term: int = 1, kind: EntryKind = EntryKind.COMMAND) -> Entry:
    """Make an entry whose payload depends on its place and term."""
    if kind is EntryKind.CONFIGURATION:
        return Entry(index, term, kind, configuration(f"n{index}").encode())
    return Entry(index, term, kind, random.Random(index * 1000 + term).randbytes(30))


def entries(low: int, high: int, term: int = 1) -> list[Entry]:
    """Make the entries from ``low`` to ``high``."""
    return [entry(index, term) for index in range(low, high + 1)]


def snapshot(index: int, term: int = 1) -> SnapshotMetadata:
    """Make what a snapshot up to there stands for."""
    return SnapshotMetadata(index, term, configuration(), min(index, 1))


@contextmanager
def opened(path: Path, node_id: str = NODE_ID) -> Iterator[DataDirectory]:
    """Open a directory, and close it."""
    directory = DataDirectory.open(path, node_id, rng=random.Random(1))
    try:
        yield directory
    finally:
        directory.close()


@contextmanager
def as_after_a_crash(path: Path, copy: Path) -> Iterator[DataDirectory]:
    """Open a directory; afterwards ``copy`` is what a crash at that moment would leave.

    Of a killed process, that is: what it wrote is in its files, what it would have written at its
    end is not.
    """
    with opened(path) as directory:
        yield directory
        copy_at_rest(path, copy)


def copy_at_rest(path: Path, copy: Path) -> None:
    """Copy an open directory at a moment when RocksDB's background threads change no file of it."""
    while True:
        before = _listing(path)
        with suppress(shutil.Error):
            shutil.copytree(path, copy)
            if _listing(path) == before:
                return
        shutil.rmtree(copy)


def _listing(path: Path) -> dict[Path, int]:
    """Give the sizes of all files that matter."""
    sizes = {}
    for found in path.rglob("*"):
        with suppress(FileNotFoundError):
            if not found.name.startswith("LOG"):
                sizes[found] = found.stat().st_size
    return sizes
