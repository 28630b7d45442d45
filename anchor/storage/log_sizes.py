"""How many bytes of the log lie after an entry, near enough to decide when to compact."""

from __future__ import annotations

from collections import deque

_MARK_BYTES = 64 << 10


class LogSizes:
    """Remembers, every 64 KiB, which entry the log had got to: a few KiB for all of it."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]]  # an entry, and the bytes up to and with it
        self._last_index: int
        self._total_bytes: int
        self.restarted()

    def appended(self, first_index: int, last_index: int, size_bytes: int) -> None:
        """Count entries that were appended together; what was there from the first on is gone."""
        if first_index <= self._last_index:
            while len(self._marks) > 1 and self._marks[-1][0] >= first_index:
                self._marks.pop()
            self._total_bytes = self._marks[-1][1]  # less than is true, by less than a mark
        self._total_bytes += size_bytes
        self._last_index = last_index
        if self._total_bytes - self._marks[-1][1] >= _MARK_BYTES:
            self._marks.append((last_index, self._total_bytes))

    def dropped(self, last_index: int) -> None:
        """Forget the entries up to there."""
        while len(self._marks) > 1 and self._marks[1][0] <= last_index:
            self._marks.popleft()

    def restarted(self) -> None:
        """Forget all entries."""
        self._marks = deque([(0, 0)])
        self._last_index = self._total_bytes = 0

    def bytes_after(self, index: int) -> int:
        """Give how many bytes follow this entry, up to a mark more."""
        for marked_index, size_bytes in reversed(self._marks):
            if marked_index <= index:
                return self._total_bytes - size_bytes
        return self._total_bytes - self._marks[0][1]

    def first_after(self, size_bytes: int, last_index: int) -> int:
        """Give the lowest entry that has at most so many bytes between it and ``last_index``."""
        end_bytes = self._total_bytes - self.bytes_after(last_index)
        for marked_index, marked_bytes in self._marks:
            if marked_bytes >= end_bytes - size_bytes:
                return min(marked_index, last_index)
        return last_index
