"""Sessions: how they are called, opened, kept and closed.

A session's id is 32 hexadecimal digits: its number (8 bytes), then its token: 4 bytes that stand
for the cluster it was opened in, and 4 by chance. The cluster's are only there to tell, of a
session that is not found, whether it could be: after a restore it is, under another cluster's id.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from anchor.api.answers import Answer, Problem, bad_request, json_answer, ok
from anchor.api.bodies import parse_object
from anchor.fsm import (
    PLACE_BITS,
    TTL_MS_MAX,
    CloseSession,
    KeepAlive,
    OpenSession,
    SessionResult,
    Status,
    encode_session_command,
)
from anchor.node.consistency import Consistency
from anchor.node.errors import NoLeader

if TYPE_CHECKING:
    from anchor.api.limits import Limits
    from anchor.api.store import Store

TTL_SECONDS = 60
TTL_SECONDS_MAX = TTL_MS_MAX // 1000

_ID = re.compile(rb"[0-9A-Fa-f]{32}")
_CHANCE_BYTES = 4
_CHANCE_BITS = 8 * _CHANCE_BYTES


class SessionId(NamedTuple):
    """A session's id, taken apart."""

    number: int
    token: int

    def __str__(self) -> str:
        return f"{self.number:016x}{self.token:016x}"


@lru_cache(maxsize=1024)
def parse_id(text: bytes) -> SessionId:
    """Read a session's id; raises a Problem."""
    if not _ID.fullmatch(text):
        raise Problem(400, "bad_session", "the session is not 32 hexadecimal digits")
    return SessionId(int(text[:16], 16), int(text[16:], 16))


class Sessions:
    """Opens, keeps and closes sessions of a store on behalf of HTTP clients."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    def open(self, body: bytes) -> Answer:
        """Open one; raises a Problem or a NodeError."""
        ttl_ms = _ttl_ms(parse_object(body, {"ttl_seconds": float}) if body else {})
        if not self._store.cluster_id:
            raise NoLeader("this node is in no cluster yet; nothing was done")
        chance = int.from_bytes(os.urandom(_CHANCE_BYTES), "big")
        token = cluster_mark(self._store.cluster_id) << _CHANCE_BITS | chance
        result = self._command(OpenSession(ttl_ms, token, self._limits.max_sessions))
        content = _described(SessionId(result.number, token), result.ttl_ms)
        return json_answer(content)._replace(status=201)

    def keep_alive(self, text: str, body: bytes) -> Answer:
        """Start a session's ttl anew; raises a Problem or a NodeError. The body says nothing."""
        session = parse_id(text.encode("latin-1"))
        if body:
            parse_object(body, {})
        result = self._command(KeepAlive(*session))
        if result.status is not Status.DONE:
            raise no_session(session, self._store)
        return json_answer(_described(session, result.ttl_ms))

    def close(self, text: str) -> Answer:
        """End a session, unless it has ended; raises a Problem or a NodeError."""
        session = parse_id(text.encode("latin-1"))
        if self._command(CloseSession(*session)).status is not Status.DONE:
            why = no_session(session, self._store)
            if why.code != "session_expired":
                raise why
        return ok()

    def _command(self, command: OpenSession | KeepAlive | CloseSession) -> SessionResult:
        check_spoken(self._store, self._limits.request_timeout)
        encoded = encode_session_command(command)
        result = self._store.write(encoded, None, self._limits.request_timeout)
        if not isinstance(result, SessionResult):
            raise TypeError(f"a command about a session was answered {result}")
        return result


@lru_cache(maxsize=8)
def cluster_mark(cluster_id: str) -> int:
    """Digest a cluster's id, 32 bits."""
    return int.from_bytes(blake2b(cluster_id.encode(), digest_size=4).digest(), "big")


def check_spoken(store: Store, timeout_seconds: float) -> None:
    """Raise a Problem if a member of the cluster would not know what is asked, or a NodeError."""
    if not store.speaks_sessions:
        # A node that has just started does not know what is committed: a read finds out.
        store.read(b"", Consistency.LINEARIZABLE, timeout_seconds)
    if not store.speaks_sessions:
        raise Problem(
            503,
            "upgrade_in_progress",
            "a member is of a version that does not know this yet; nothing was done",
            retryable=True,
        )


def no_session(session: SessionId, store: Store) -> Problem:
    """Say why there is no such session."""
    if session.token >> _CHANCE_BITS != cluster_mark(store.cluster_id):
        return Problem(404, "session_foreign", "the session is of another cluster")
    if session.number >> PLACE_BITS > store.applied_index:
        return Problem(404, "session_unknown", "there never was such a session")
    return Problem(410, "session_expired", "the session has ended; this request did nothing")


def _ttl_ms(asked: dict[str, object]) -> int:
    ttl_seconds = asked.get("ttl_seconds", TTL_SECONDS)
    if not isinstance(ttl_seconds, int | float) or not 1 <= ttl_seconds <= TTL_SECONDS_MAX:
        raise bad_request(f'the field "ttl_seconds" is not 1 to {TTL_SECONDS_MAX}')
    return round(ttl_seconds * 1000)


def _described(session: SessionId, ttl_ms: int) -> dict[str, object]:
    ttl_seconds = ttl_ms / 1000
    whole = ttl_ms % 1000 == 0
    return {"session": str(session), "ttl_seconds": int(ttl_seconds) if whole else ttl_seconds}
