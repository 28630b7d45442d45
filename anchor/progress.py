"""One line that says how far a long transfer is, on a terminal; nothing anywhere else."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TextIO

SECONDS_BETWEEN = 0.1
BAR_CELLS = 24
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Progress:
    """Counts bytes, and shows them as a bar where ``total_bytes`` is known."""

    def __init__(
        self,
        label: str,
        total_bytes: int | None = None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._total_bytes = total_bytes
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._began = clock()
        self._next = self._began + SECONDS_BETWEEN  # what is over at once is not worth a line
        self._bytes = 0
        self._width = 0
        self._shown = self._stream.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the line as it was found."""
        if self._width:
            self._write("\r" + " " * self._width + "\r")

    def add(self, size_bytes: int) -> None:
        """Note that so much more is done."""
        self._bytes += size_bytes
        if self._shown and self._clock() >= self._next:
            self._next = self._clock() + SECONDS_BETWEEN
            line = self._line()
            self._write("\r" + line.ljust(self._width))
            self._width = max(self._width, len(line))

    def _line(self) -> str:
        rate = f"{size_text(int(self._bytes / max(self._clock() - self._began, 0.001)))}/s"
        if not self._total_bytes:
            return f"{self._label}  {size_text(self._bytes)}  {rate}"
        share = min(1.0, self._bytes / self._total_bytes)
        bar = ("#" * int(share * BAR_CELLS)).ljust(BAR_CELLS, ".")
        size = f"{size_text(self._bytes)} of {size_text(self._total_bytes)}"
        return f"{self._label}  [{bar}] {share:4.0%}  {size}  {rate}"

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


def size_text(size_bytes: int) -> str:
    """Write a number of bytes for a person: ``512 B``, ``1.5 MiB``."""
    size, unit = float(size_bytes), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} B" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
