"""From native threads to the hub."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import gevent
from gevent import GreenletExit, get_hub, getcurrent

from anchor.transport.rpc.native import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenlet import greenlet

_LOGGER = logging.getLogger("anchor.transport")


class Pump:
    """Runs on the hub, in one greenlet and in order, what any thread posts.

    What is posted should not wait long, since all else waits behind it. Belongs to the hub of the
    thread that made it.
    """

    def __init__(self) -> None:
        self._posted: deque[tuple[Callable[[Any], object], Any]] = deque()
        self._threads = 0
        self._closed = False
        self._ended = False
        self._parked: greenlet | None = None
        self._watcher = get_hub().loop.async_()
        self._watcher.start(self._on_posted)
        self._greenlet = gevent.spawn(self._run)

    def post(self, what: Callable[[Any], object], argument: object = None) -> None:
        """Have ``what(argument)`` called on the hub. From any thread; returns at once."""
        self._posted.append((what, argument))
        if not self._ended:
            self._watcher.send()

    def start(self, loop: Callable[[], None]) -> None:
        """Run a loop in a native thread of its own. On the hub.

        Raises RuntimeError if the system will not have another thread.
        """
        start_thread(self._whole_life, (loop,))
        self._threads += 1

    @property
    def threads(self) -> int:
        """How many loops run."""
        return self._threads

    def close(self) -> None:
        """End, as soon as the last loop has ended. On the hub."""
        self._closed = True
        self._end_if_idle(None)

    def _whole_life(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        finally:
            self.post(self._thread_ended)

    def _thread_ended(self, _: object) -> None:
        self._threads -= 1
        if self._closed:
            # Not from within the greenlet that would be ended.
            get_hub().loop.run_callback(self._end_if_idle, None)

    def _end_if_idle(self, _: object) -> None:
        if self._threads == 0 and not self._ended:
            self._ended = True
            self._watcher.stop()
            self._watcher.close()
            self._greenlet.kill(block=False)

    def _on_posted(self) -> None:
        if self._parked is not None:
            self._parked.switch()

    def _run(self) -> None:
        hub = get_hub()
        posted = self._posted
        while True:
            while posted:
                what, argument = posted.popleft()
                try:
                    what(argument)
                except GreenletExit:
                    if self._ended:
                        raise
                except BaseException:  # the next one has nothing to do with it
                    _LOGGER.exception("failed to handle an event of gRPC")
            self._parked = getcurrent()
            try:
                hub.switch()
            finally:
                self._parked = None
