"""Writes, and how each is made safe to send again.

In a session: the rule for a client that stays. With a key drawn at random: for a program that does
one write and ends, or a client that was closed. Unmarked: while not all members of the cluster can
recognize a write (a rolling upgrade, or an older version); then it is sent again only where it
certainly had no effect.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from anchor.client.answers import UPGRADING, SessionLost, json_object
from anchor.client.clock import clock
from anchor.client.errors import NoLeader, Refused, Unreachable
from anchor.client.retrying import STATUS

if TYPE_CHECKING:
    from anchor.client.connections import Answer, Request
    from anchor.client.retrying import Backoff, Calls, Span
    from anchor.client.sessions import Session, Sessions

RECOGNIZES_SINCE_PROTOCOL = 3
"""From this ``protocol_version`` of ``/status`` on the cluster knows keys; an older node would
take no notice of one, and do the write twice."""

UNMARKED_SECONDS = 5.0
"""After it was told that there are no sessions yet, a client does not ask again for so long."""

_NO_SUCH_THING = frozenset({404, 405, 501})


class Writes:
    """Does writes; shared by threads. Without ``sessions`` each write has a key of its own."""

    def __init__(self, calls: Calls, sessions: Sessions | None) -> None:
        self._calls = calls
        self._sessions = sessions
        self._is_recognized = False  # once it is, it is for good: a cluster never unlearns
        self._unmarked_until = 0.0

    def write(self, request: Request, span: Span) -> Answer:
        """Do a write and return the answer that settles it; raises ClientError."""
        try:
            if self._sessions is None or self._sessions.closed:
                return self._with_key(request, span)
            if clock() >= self._unmarked_until:
                return self._in_session(request, span, self._sessions)
        except _CannotBeMarked:
            pass
        return self._calls.call(request, span)

    def _in_session(self, request: Request, span: Span, sessions: Sessions) -> Answer:
        backoff = self._calls.backoff(span)
        while True:
            session = self._take(sessions, span, backoff)
            try:
                return self._as_next_of(session, request, span, sessions)
            except SessionLost as lost:
                # And with it any trace of this write: there was none.
                if not span.suffices:
                    raise lost.error from None
            if session.sequence == 0:  # it was new: another one may fare no better
                backoff.pause()

    def _take(self, sessions: Sessions, span: Span, backoff: Backoff) -> Session:
        """Take a session; raises _CannotBeMarked if there are none to be had in this cluster."""
        while True:
            try:
                session = sessions.take(span)
            except Refused as refusal:
                upgrading = refusal.code == UPGRADING
                if not upgrading and refusal.status not in _NO_SUCH_THING:
                    raise
                if not self._is_recognized:
                    self._unmarked_until = clock() + UNMARKED_SECONDS
                    raise _CannotBeMarked from None
                if not upgrading or not span.suffices:
                    raise
            else:
                self._is_recognized = True
                return session
            backoff.pause()  # a node that just started may not know yet what the cluster speaks

    def _as_next_of(
        self, session: Session, request: Request, span: Span, sessions: Sessions
    ) -> Answer:
        """Do it as the next write of a session, which is given up unless all is clear."""
        began = clock()
        try:
            answer = self._calls.call(session.number(request), span)
        except (NoLeader, Unreachable):
            sessions.give_back(session)
            raise
        except Refused as refusal:
            if not refusal.code.startswith("http_"):  # by a node, which vouches for it
                sessions.give_back(session)
            raise
        session.settle(began)
        sessions.give_back(session)
        return answer

    def _with_key(self, request: Request, span: Span) -> Answer:
        if not self._is_recognized:
            self._is_recognized = self._is_recognized_now(span)
        if not self._is_recognized:
            raise _CannotBeMarked
        return self._calls.call(request.having(Idempotency_Key=secrets.token_hex(16)), span)

    def _is_recognized_now(self, span: Span) -> bool:
        """Ask whether the cluster knows keys."""
        try:
            status = json_object(self._calls.call(STATUS, span))
        except Refused:
            return False
        version = status.get("protocol_version")
        return isinstance(version, int) and version >= RECOGNIZES_SINCE_PROTOCOL


class _CannotBeMarked(Exception):  # noqa: N818 - a turn of events, not an error
    """The cluster would not recognize this write; nothing was done."""
