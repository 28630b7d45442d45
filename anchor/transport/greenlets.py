"""Greenlets of the transport (threads, where gevent is not at work), started without a pause."""

from __future__ import annotations

import _thread
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Greenlets:
    """Starts greenlets and waits for their end.

    ``threading.Thread.start`` waits until the thread runs, which under gevent lets others run in
    between. Whoever calls the transport holds the core at that moment and must not be passed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, str] = {}
        self._next = 0

    @property
    def running(self) -> list[str]:
        """The names of those that run."""
        return list(self._running.values())

    def spawn(self, name: str, run: Callable[[], None]) -> None:
        """Start one, without letting it or another run first."""
        with self._lock:
            self._next += 1
            number = self._next
            self._running[number] = name

        def whole_life() -> None:
            try:
                run()
            finally:
                with self._lock:
                    del self._running[number]

        _thread.start_new_thread(whole_life, ())

    def join(self, timeout_seconds: float) -> bool:
        """Wait for all of them, in small steps; False if some still run."""
        deadline = time.monotonic() + timeout_seconds
        while self._running and time.monotonic() < deadline:
            time.sleep(0.002)
        return not self._running
