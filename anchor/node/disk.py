"""One blocking call at a time, in a native thread beside the hub.

gevent's own thread pool does this too, with queues, conditions and results in Python around every
call. Every write of every client passes here, on the leader and on each follower, so it is worth a
queue in C on the way there and a watcher on the way back.
"""

from __future__ import annotations

import time
from _queue import SimpleQueue  # the native one: gevent patches what queue exports
from typing import TYPE_CHECKING, Any

import gevent
from gevent import get_hub, getcurrent
from gevent.monkey import get_original

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenlet import greenlet


class Disk:
    """Runs ``call`` when told to ``begin``; ``wait`` sleeps until it is done.

    Begin again only after a ``wait`` has returned. Whatever ``call`` raises, ``wait`` raises.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        allocate_lock = get_original("_thread", "allocate_lock")
        self._call = call
        self._finished = False
        self._error: BaseException | None = None
        self._parked: greenlet | None = None
        self._begun: SimpleQueue[bool] = SimpleQueue()  # False: end
        self._ended: Any = allocate_lock()
        self._ended.acquire()
        self._watcher = get_hub().loop.async_()
        self._watcher.start(self._on_finished)
        get_original("_thread", "start_new_thread")(self._run, ())

    def begin(self) -> None:
        """Let the thread make the call; returns at once."""
        self._begun.put(True)

    def wait(self) -> None:
        """Sleep until the call that was begun, or is begun meanwhile, has ended."""
        while not self._finished:
            self._parked = getcurrent()
            try:
                get_hub().switch()
            finally:
                self._parked = None
        self._finished = False
        error, self._error = self._error, None
        if error is not None:
            raise error

    def stop(self, timeout_seconds: float) -> bool:
        """End the thread, after the call that is under way; False if that does not end in time."""
        self._begun.put(False)
        deadline = time.monotonic() + timeout_seconds
        while not self._ended.acquire(False):
            if time.monotonic() > deadline:
                return False
            gevent.sleep(0.002)  # the thread cannot wake a greenlet any more
        self._watcher.stop()
        self._watcher.close()
        return True

    def _run(self) -> None:
        """The native thread."""
        while self._begun.get():
            try:
                self._call()
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                self._error = error
            self._watcher.send()
        self._ended.release()

    def _on_finished(self) -> None:
        self._finished = True
        if self._parked is not None:
            self._parked.switch()
