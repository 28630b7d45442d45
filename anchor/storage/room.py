"""How much room there is on the disk, and how much of it is not for clients' writes.

RocksDB does not take a full disk well: after a failed write it takes no more until it is opened
again. So nobody may get there. Three numbers, all scaled down on a disk of a few dozen MiB:

- below the *reserve* a node takes no new entries. It is room to finish what is under way: the
  write-ahead logs, a flush of what the buffers hold, and one compaction, which writes its result
  before it removes what it read;
- the *ballast* is a file without content, given up piece by piece when somebody else has filled the
  disk all the same: before each write that finds next to nothing free, so that whoever fills the
  disk does not get it. Terms and votes, some bytes each, can go on being written then;
- below the *minimum*, and without ballast, there is room for nothing at all, and a node had better
  take no part.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Write-ahead logs (12 MiB), and a flush of what the buffers hold.
RESERVE_BYTES = 32 << 20
# What one compaction reads: as a rule the tables of the first two levels.
MAX_COMPACTION_BYTES = 256 << 20
BALLAST_BYTES = 16 << 20
BALLAST_PIECES = 8
# Less than this is as good as nothing.
MINIMUM_BYTES = 1 << 20
START_BYTES = 8 << 20  # what opening the databases may take
LOOK_SECONDS = 0.005  # between two looks before a write: each takes some µs

BALLAST_FILE = "ballast"


class Room:
    """The room around a data directory. Everything here is hub-safe, some µs, but ``hold``."""

    def __init__(self, directory: Path) -> None:
        self._ballast = directory / BALLAST_FILE
        disk = os.statvfs(directory)
        self._scale = min(1.0, disk.f_blocks * disk.f_frsize / (8 * RESERVE_BYTES))
        self.minimum_bytes = MINIMUM_BYTES
        self._name = str(directory)
        self._next_look = 0.0

    def free_bytes(self) -> int:
        """Give how much space this process may still use on the disk."""
        disk = os.statvfs(self._name)
        return disk.f_bavail * disk.f_frsize

    def reserve_bytes(self, table_bytes: int = 0) -> int:
        """Give how much of that has to stay free, with tables of this size to be compacted."""
        return int(self._scale * (RESERVE_BYTES + min(MAX_COMPACTION_BYTES, table_bytes)))

    @property
    def ballast_bytes(self) -> int:
        """How large the ballast is, where it is held."""
        return int(self._scale * BALLAST_BYTES)

    @property
    def ballast_left(self) -> int:
        """Give how much of it there is to give up."""
        try:
            return self._ballast.stat().st_size
        except OSError:
            return 0

    def hold(self) -> None:
        """Take the ballast on; nothing if there is no room for it. Blocking, for a native thread.

        It takes some ms, or as long as the disk takes to write so much.
        """
        with suppress(OSError):
            handle = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._allocate(handle)
            except OSError:
                self.give_up()
                raise
            finally:
                os.close(handle)

    def _allocate(self, handle: int) -> None:
        """Have the system allocate it; where it cannot (macOS, some file systems), write it."""
        allocate = getattr(os, "posix_fallocate", None)
        if allocate is not None:
            try:
                allocate(handle, 0, self.ballast_bytes)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
            else:
                return
        self._write_zeros()

    def _write_zeros(self) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            missing = self.ballast_bytes - os.fstat(file.fileno()).st_size
            if missing > self.free_bytes():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            zeros = bytes(self.ballast_bytes // BALLAST_PIECES)
            while missing > 0:  # appended: what is given up meanwhile leaves no hole
                missing -= file.write(zeros[:missing])

    def give_up(self) -> None:
        """Make room with all of it."""
        with suppress(OSError):
            self._ballast.unlink()

    def relieve(self) -> None:
        """Give some ballast up if it is needed. Called before each write, it looks now and then."""
        now = perf_counter()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        if self.free_bytes() < self.minimum_bytes and (left := self.ballast_left):
            piece = self.ballast_bytes // BALLAST_PIECES
            with suppress(OSError):
                os.truncate(self._ballast, max(0, left - piece))

    def make_room_to_start(self) -> None:
        """Opening databases replays and flushes: give all of it up rather than fail at that."""
        if self.free_bytes() < START_BYTES:
            self.give_up()
