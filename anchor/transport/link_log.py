"""What the log says about the connection to one member: a line a change, and no more.

Trouble that comes back under the same reason is not said again before it is over, also when two
reasons take turns. Two reasons are normal for a while: a member that stops says so, and one that
joins is in no cluster yet.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from anchor.transport.admission import JOIN_SECONDS, NO_CLUSTER
from anchor.transport.rpc.failures import STOPPING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOGGER = logging.getLogger("anchor.transport")
_QUIET_SECONDS = 10.0  # between two lines about what keeps it lost
_MAX_REASONS = 16
_NO_DIGITS = {ord(digit): None for digit in "0123456789"}


class LinkLog:
    """Decides what is worth a line, and at which level."""

    def __init__(
        self, member_id: str, address: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._id = member_id
        self._where = f"{member_id} at {address}"
        self._clock = clock
        self._stands = False  # who reads the log believes that there is a connection
        self._said: set[str] = set()  # reasons since then, without the numbers in them
        self._said_last = 0.0
        self._joining_since: float | None = None

    def connected(self) -> None:
        """It became connected."""
        level = logging.DEBUG if self._stands else logging.INFO
        _LOGGER.log(level, "connected to %s", self._where)
        self._stands = True
        self._said.clear()
        self._joining_since = None

    def failed(self, reason: str) -> None:
        """An attempt failed, or the connection broke."""
        now = self._clock()
        overdue = False
        if not reason.endswith(NO_CLUSTER):
            self._joining_since = None
        elif not (overdue := self._is_overdue(now)):
            return
        if self._stands:
            self._say(now, reason, logging.WARNING, "lost %s: %s")
        elif self._is_news(now, reason):
            level = logging.WARNING if overdue else logging.INFO
            self._say(now, reason, level, "cannot reach %s: %s")

    def _is_overdue(self, now: float) -> bool:
        """Whether it has been joining for longer than that takes."""
        if self._joining_since is None:
            self._joining_since = now
            _LOGGER.debug("%s is %s", self._where, NO_CLUSTER)
        return now - self._joining_since > JOIN_SECONDS

    def _is_news(self, now: float, reason: str) -> bool:
        if not self._said:
            return True
        return (
            reason.translate(_NO_DIGITS) not in self._said
            and len(self._said) < _MAX_REASONS
            and now > self._said_last + _QUIET_SECONDS
        )

    def _say(self, now: float, reason: str, level: int, line: str) -> None:
        self._stands = False
        self._said.add(reason.translate(_NO_DIGITS))
        self._said_last = now
        if reason == STOPPING:
            _LOGGER.info("%s is stopping", self._id)
        else:
            _LOGGER.log(level, line, self._where, reason)
