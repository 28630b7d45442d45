"""The clock of the client: what it may still rely on also ages while the machine sleeps."""

from __future__ import annotations

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS has no such clock


def clock() -> float:
    """Seconds of a clock that no one sets, and that goes on in a sleep where there is one."""
    return time.clock_gettime(_CLOCK)
