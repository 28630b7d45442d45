"""How greenlets wait for each other here: a signal for one owner, a waiter for one request.

gevent's own Event and AsyncResult do more than is needed and cost several times as much, on a path
that every request takes. Everything below runs on the hub's one thread, so nothing needs a lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gevent import get_hub, getcurrent

from anchor.node.errors import NodeError

if TYPE_CHECKING:
    from greenlet import greenlet


class Signal:
    """Wakes the one greenlet that waits for it; set before the wait, it does not wait."""

    __slots__ = ("_parked", "_raised")

    def __init__(self) -> None:
        self._raised = False
        self._parked: greenlet | None = None

    def set(self) -> None:
        """Wake the waiting greenlet in the hub's next round; the caller goes on at once."""
        if self._raised:
            return
        self._raised = True
        if self._parked is not None:
            get_hub().loop.run_callback(self._resume)

    def wait(self) -> None:
        """Sleep until ``set``; forgets that it was set."""
        while not self._raised:
            self._parked = getcurrent()
            try:
                get_hub().switch()
            finally:
                self._parked = None
        self._raised = False

    def _resume(self) -> None:
        if self._parked is not None:
            self._parked.switch()


class Waiter:
    """One request that sleeps until somebody decides its outcome, exactly once.

    ``deadline`` is in seconds of the monotonic clock. Nobody sets a timer for it: whoever holds
    the waiter sweeps out those whose time is up, which costs nothing for the many that are not.
    """

    __slots__ = ("_decided", "_outcome", "_parked", "deadline")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self._decided = False
        self._outcome: Any = None
        self._parked: greenlet | None = None

    def resolve(self, outcome: object) -> None:
        """Decide the outcome; an exception is raised in the waiting greenlet."""
        if self._decided:
            return
        self._decided = True
        self._outcome = outcome
        if self._parked is not None:
            get_hub().loop.run_callback(self._resume)

    def wait(self) -> Any:  # noqa: ANN401 - what was asked decides what comes back
        """Sleep until ``resolve``; return its outcome, or raise it if it is an error."""
        while not self._decided:
            self._parked = getcurrent()
            try:
                get_hub().switch()
            finally:
                # Killed while asleep: a late resume must not switch into it elsewhere.
                self._parked = None
        if isinstance(self._outcome, NodeError):
            raise self._outcome
        return self._outcome

    def _resume(self) -> None:
        if self._parked is not None:
            self._parked.switch()
