"""What lies below gevent: native threads, native locks, and gRPC's C core.

gevent patches ``threading`` in place, and the C core's extension module takes its Condition from
there for each channel. That lock is held by native threads while they report an event: were it one
of gevent's, they would each get a hub of their own to wait in. So the module is shown the native
lock instead. It is only ever held, never waited on: that is for grpcio's integrated calls, which
are not used here, and no longer work in this process.
"""

from __future__ import annotations

import threading
from typing import Any

from gevent.monkey import get_original
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # it has no stubs

new_lock: Any = get_original("_thread", "allocate_lock")
start_thread: Any = get_original("_thread", "start_new_thread")


class _HeldLock:
    """As much of a Condition as the C core's module needs."""

    def __init__(self) -> None:
        self._lock = new_lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def notify_all(self) -> None:
        """Nobody waits."""


class _Threading:
    """``threading`` as the C core's module shall see it."""

    Condition = _HeldLock

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else the module has
        return getattr(threading, name)

    @staticmethod
    def current_thread() -> None:
        """It asks whether it is in the main thread, to look for signals there: never."""


core: Any = cygrpc
core.threading = _Threading()
NO_FLAGS = 0

__all__ = ["NO_FLAGS", "core", "new_lock", "start_thread"]
