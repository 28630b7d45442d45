"""The scrub: everything is read once in a while, so that rot is found before it is needed.

RocksDB keeps a checksum with each block of a table and verifies it when the block is read, and at
no other time. A member that serves a few keys would find out about all the others when its cluster
has lost a member and needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.storage import rocks

if TYPE_CHECKING:
    from anchor.storage.raft_database import RaftDatabase
    from anchor.storage.state import RocksState

SLICE_SECONDS = 0.001


class Scrub:
    """Passes over all tables of a node, a slice at a time.

    The caller sets the pace: a slice now and then from a native thread. A slice keeps the GIL for
    about its time, and beyond it for one read of the disk at most; it leaves the caches as they
    are. What is cached is taken from there, and read from the disk by a later pass; a write-ahead
    log is not read.
    """

    def __init__(self, database: RaftDatabase, state: RocksState) -> None:
        self._families = [*database.families(), state.family()]
        self._paths = [database.path] * (len(self._families) - 1) + [state.path]
        self._current = 0
        self._next_key = b""

    def step(self, seconds: float = SLICE_SECONDS) -> bool:
        """Read on for so long. True: that was the end of a pass, all of it is whole.

        Raises CorruptionError for what is damaged: stop the node.
        """
        family, path = self._families[self._current], self._paths[self._current]
        next_key = rocks.read_on(family, path, self._next_key, seconds)
        self._next_key = next_key or b""
        if next_key is not None:
            return False
        self._current = (self._current + 1) % len(self._families)
        return self._current == 0

    def close(self) -> None:
        """Let go of the databases, which may not be closed before."""
        self._families.clear()
