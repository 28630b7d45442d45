"""Sessions: what makes a write safe to send again (Raft thesis §6.3).

The cluster remembers for each session the answers to its last writes, by number. A write sent
again with its number gets its first answer and changes nothing. The rules here:

1. A session has one write in progress at a time, so each thread that writes takes one of its own.
2. The next number is one more than the last settled one. A number is used for one request only: a
   session whose last write has no answer is given up, never reused.
3. What was answered is acknowledged with the next write, so that the cluster can forget it.
4. A session unused for longer than SAFE_SHARE of its time to live is given up rather than trusted.
   The clock is this host's, and the count begins when a write is first sent, which is before the
   cluster's begins.
5. What is given up ends by itself; what is left at the end is deleted, if that is quickly done.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anchor.client.answers import json_object, not_anchor
from anchor.client.clock import clock
from anchor.client.connections import Request
from anchor.client.errors import ClientError
from anchor.client.retrying import Span

if TYPE_CHECKING:
    from anchor.client.retrying import Calls

TTL_SECONDS = 60.0
"""Or more, where calls may take long: they must not outlive their session."""

TTL_SECONDS_MAX = 86_400.0
SAFE_SHARE = 0.5

CLOSE_SECONDS = 1.0
"""As long may it take to delete all sessions; those that are left then end by themselves."""


@dataclass(slots=True)
class Session:
    """A session of this client. ``sequence`` is the number of the last write that was settled."""

    id: str
    ttl_seconds: float
    used_at: float
    sequence: int = 0

    def number(self, request: Request) -> Request:
        """Return a write with the next number."""
        return request.having(
            X_Session=self.id, X_Sequence=str(self.sequence + 1), X_Acked=str(self.sequence)
        )

    def settle(self, began: float) -> None:
        """Count the write that was numbered last and first sent then: it has its answer."""
        self.sequence += 1
        self.used_at = began


class Sessions:
    """The sessions no write is using now, the one used last on top; shared by threads."""

    def __init__(self, calls: Calls, ttl_seconds: float) -> None:
        self.closed = False
        self._calls = calls
        self._ttl_seconds = ttl_seconds
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._idle: list[Session] = []

    def take(self, span: Span) -> Session:
        """Return a session for one write, a new one where there is none; raises ClientError."""
        with self._lock:
            self._drop_the_useless()
            if self._idle:
                return self._idle.pop()
        return self._open(span)

    def give_back(self, session: Session) -> None:
        """Let the next write have a session whose last write is settled, or had no effect."""
        with self._lock:
            self._idle.append(session)

    def close(self) -> None:
        """Delete the sessions, within a short time. Those in use end by themselves."""
        with self._lock:
            self.closed = True
            self._drop_the_useless()
            idle, self._idle = self._idle, []
        span = Span.of(CLOSE_SECONDS, CLOSE_SECONDS)
        for session in reversed(idle):
            try:
                self._calls.call(Request("DELETE", f"/sessions/{session.id}"), span)
            except ClientError:
                return

    def _open(self, span: Span) -> Session:
        began = clock()
        body = json.dumps({"ttl_seconds": self._ttl_seconds}).encode()
        answer = self._calls.call(
            Request("POST", "/sessions", body, {"Content-Type": "application/json"}), span
        )
        opened = json_object(answer)
        session_id, ttl_seconds = opened.get("session"), opened.get("ttl_seconds")
        if not isinstance(session_id, str) or not isinstance(ttl_seconds, int | float):
            raise not_anchor(answer)
        return Session(session_id, ttl_seconds, began)

    def _drop_the_useless(self) -> None:
        if self._pid != os.getpid():  # two processes must not number writes of one session
            self._pid = os.getpid()
            self._idle.clear()
        self._idle = [session for session in self._idle if _is_safe(session)]


def _is_safe(session: Session) -> bool:
    return clock() - session.used_at < SAFE_SHARE * session.ttl_seconds
