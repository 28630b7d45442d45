"""What is answered under ``/kv/``: the one place that decides it, whichever path leads here."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from anchor.api.answers import Answer, Problem, bad_request, method_not_allowed, not_found
from anchor.api.documents import document_of
from anchor.api.etags import conditions_of
from anchor.api.keys import key_of
from anchor.api.sessions import check_spoken
from anchor.api.terms import REPLAYED_LINE, terms_of
from anchor.fsm import Result, Status, encode_delete, encode_put
from anchor.node.consistency import Consistency
from anchor.node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.api.asked import Asked, TermFields
    from anchor.api.limits import Limits
    from anchor.api.store import Store
    from anchor.api.terms import Terms
    from anchor.fsm import SessionResult

_log = logging.getLogger("anchor.api")

METHODS = "GET, HEAD, PUT, POST, DELETE"

_CONSISTENCIES = {consistency.value.encode(): consistency for consistency in Consistency}
_CONSISTENCY_LINES = {
    consistency: f"X-Consistency: {consistency.value}\r\n".encode() for consistency in Consistency
}
_RAW_LINE = b"Content-Type: application/octet-stream\r\n"
_JSON_LINE = b"Content-Type: application/json\r\n"
_NOT_IN_A_HEADER = re.compile(r"[^\x21-\x7e]")


class KeyValues:
    """Reads and writes keys of a store on behalf of HTTP clients."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._leader: tuple[str | None, int] = (None, -1)
        self._leader_lines = b""

    def handle(
        self,
        method: bytes,
        target: bytes,
        asked: Asked,
        read_body: Callable[[], bytes],
    ) -> Answer:
        """Answer a request for a ``/kv/`` target in origin form; never raises.

        ``read_body`` is called for a write whose target and fields make sense; it may raise a
        Problem.
        """
        consistency = None
        try:
            consistency = consistency_of(asked.consistency)
            if method in {b"GET", b"HEAD"}:
                return self._get(target, consistency, asked)
            if method in {b"PUT", b"POST"}:
                return self._put(target, asked.terms, read_body)
            if method == b"DELETE":
                return self._delete(target, asked.terms)
            return self.refuse(method_not_allowed(method.decode("latin-1"), METHODS))
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes an answer
            answer = self.refuse(error)
            if consistency is not None and method in {b"GET", b"HEAD"}:
                return answer._replace(headers=answer.headers + _CONSISTENCY_LINES[consistency])
            return answer

    def refuse(self, error: Exception) -> Answer:
        """Turn an exception into an answer that gives nothing away but what it means."""
        store = self._store
        answer = as_problem(error).answer(store.leader_id)
        state = b"X-Applied-Index: %d\r\n%s" % (store.applied_index, self._raft_lines())
        return answer._replace(headers=answer.headers + state)

    def _get(self, target: bytes, consistency: Consistency, asked: Asked) -> Answer:
        store = self._store
        key = key_of(target, self._limits.max_key_bytes)
        conditions = None if asked.terms is None else conditions_of(asked.terms)
        found = store.read(key, consistency, self._limits.request_timeout)
        if found is None:  # RFC 9110 §13.2.1: whatever the conditions
            raise not_found("there is no such key")
        status, type_line, body = 200, _RAW_LINE, found.value
        if conditions is not None and not conditions.want(found.mod_index):
            status, type_line, body = 304, b"", b""
        elif asked.as_json:
            type_line, body = _JSON_LINE, document_of(key, found)
        headers = b'%sCache-Control: no-store\r\nETag: "%d"\r\nX-Applied-Index: %d\r\n%s%s' % (
            type_line,
            found.mod_index,
            store.applied_index,
            self._raft_lines(),
            _CONSISTENCY_LINES[consistency],
        )
        return Answer(status, headers, body)

    def _put(
        self, target: bytes, fields: TermFields | None, read_body: Callable[[], bytes]
    ) -> Answer:
        key = key_of(target, self._limits.max_key_bytes)
        terms = None if fields is None else terms_of(fields)
        value = read_body()
        if len(value) > self._limits.max_value_bytes:
            raise value_too_large(self._limits.max_value_bytes)
        command = encode_put(key, value) if terms is None else self._command(terms, key, value)
        result = self._store.write(command, key, self._limits.request_timeout)
        return self._written(result, terms, tagged=True)

    def _delete(self, target: bytes, fields: TermFields | None) -> Answer:
        key = key_of(target, self._limits.max_key_bytes)
        terms = None if fields is None else terms_of(fields)
        command = encode_delete(key) if terms is None else self._command(terms, key, None)
        result = self._store.write(command, key, self._limits.request_timeout)
        return self._written(result, terms, tagged=False)

    def _command(self, terms: Terms, key: bytes, value: bytes | None) -> bytes:
        check_spoken(self._store, self._limits.request_timeout)
        return terms.command(key, value)

    def _written(
        self, result: Result | SessionResult, terms: Terms | None, *, tagged: bool
    ) -> Answer:
        if not isinstance(result, Result):
            raise TypeError(f"a write was answered {result}")
        more_lines = b'ETag: "%d"\r\n' % result.mod_index if tagged else b""
        if terms is not None:
            if result.status is not Status.DONE:
                raise terms.refusal(result, self._store)
            if result.replayed:
                more_lines += REPLAYED_LINE
        headers = b"Content-Type: text/plain; charset=utf-8\r\n%sX-Applied-Index: %d\r\n%s" % (
            more_lines,
            self._store.applied_index,
            self._raft_lines(),
        )
        return Answer(200, headers, b"OK")

    def _raft_lines(self) -> bytes:
        store = self._store
        leader = (store.leader_id, store.term)
        if leader != self._leader:
            name = _NOT_IN_A_HEADER.sub("?", leader[0] or "")
            self._leader_lines = f"X-Raft-Leader: {name}\r\nX-Raft-Term: {leader[1]}\r\n".encode()
            self._leader = leader
        return self._leader_lines


def consistency_of(value: bytes | None) -> Consistency:
    """Read the value of X-Consistency; raises a Problem."""
    if value is None:
        return Consistency.LINEARIZABLE
    try:
        return _CONSISTENCIES[value]
    except KeyError:
        known = ", ".join(consistency.value for consistency in Consistency)
        raise bad_request(f"X-Consistency is not one of {known}") from None


def as_problem(error: Exception) -> Problem:
    """Say what an exception means to a client; one that nobody expected is logged."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, NodeError):
        return Problem(error.status, error.code, str(error), retryable=error.retryable)
    _log.error("a request failed unexpectedly: %r", error, exc_info=error)
    return Problem(500, "internal", "something went wrong here; the node's log says what")


def value_too_large(max_value_bytes: int) -> Problem:
    """Refuse a value over the limit."""
    return Problem(413, "value_too_large", f"a value may have at most {max_value_bytes} bytes")
