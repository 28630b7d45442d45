"""The client: endpoints tried in turn under one deadline, and care with writes."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote_from_bytes

from anchor.client.connections import Answer, Broken, Connections, NotHTTP, NotSent, Request
from anchor.client.errors import ClientError, CommitUnknown, NoLeader, Refused, Unreachable
from anchor.settings import join_address, split_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

TIMEOUT_SECONDS = 10.0
"""Longer than the 5 s a node waits for a leader, so that its reasoned answer arrives."""

BACKOFF_SECONDS = 0.05
BACKOFF_SECONDS_MAX = 1.0

# The codes by which a node says that a write had no effect and may be sent again.
_NOTHING_DONE = frozenset({"no_leader", "overloaded", "stopping"})

CONNECT_SECONDS = 1.5
"""Where there are other endpoints, one that is not there must not take the whole deadline: not
with its connection, and of a read not with its answer either, see SHARE."""

SHARE = 0.6
"""This much of the time that is left a read waits for an endpoint before it tries the next. With
the usual timeouts it outlasts the time a node waits for a leader."""

MARGIN = 1.5
"""A write is sent again only if this many times what the last try took is left, and"""

RESERVE = 0.2
"""this share of the whole time: cut short by the deadline, it would end as "unknown"."""

_JSON_BYTES_MAX = 1 << 20


class Client:
    """Talks to a cluster through any of its nodes. See the package for what it promises.

    ``endpoints`` are HTTP addresses, ``"host1:8001,host2:8001"`` or an iterable of them.
    ``timeout`` is for a whole call, in seconds; while no endpoint accepts a connection it gives up
    after ``patience`` seconds already. ``rng`` and ``sleep`` can be replaced by tests.
    """

    def __init__(
        self,
        endpoints: str | Iterable[str],
        *,
        timeout: float = TIMEOUT_SECONDS,
        patience: float = math.inf,
        rng: random.Random | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = endpoints.split(",") if isinstance(endpoints, str) else endpoints
        named = (part.strip().removeprefix("http://").removesuffix("/") for part in parts)
        self.endpoints = tuple(
            dict.fromkeys(join_address(*split_address(part)) for part in named if part)
        )
        if not self.endpoints:
            raise ValueError("a client needs at least one endpoint, like localhost:8001")
        self.timeout = timeout
        self.patience = patience
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._sleep = sleep
        self._connections = Connections()
        self._lock = threading.Lock()
        self._preferred = 0  # the endpoint that answered last

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections. The client can no longer keep any, but still works."""
        self._connections.close()

    # ----------------------------------------------------------------- keys

    def get(
        self, key: str | bytes, *, consistency: str | None = None, timeout: float | None = None
    ) -> bytes | None:
        """Read a key; None where there is no such key.

        ``consistency`` is "linearizable" (what nodes do unless asked), "lease" or "stale".
        """
        answer = self._call(Request("GET", _path(key), consistency=consistency), timeout)
        return None if answer.status == 404 else answer.body

    def put(self, key: str | bytes, value: str | bytes, *, timeout: float | None = None) -> None:
        """Store a value under a key."""
        body = value.encode() if isinstance(value, str) else value
        self._call(Request("PUT", _path(key), body), timeout)

    def delete(self, key: str | bytes, *, timeout: float | None = None) -> None:
        """Delete a key; one that is not there is fine."""
        self._call(Request("DELETE", _path(key)), timeout)

    # ----------------------------------------------------------------- the cluster

    def status(
        self, endpoint: str | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Ask how a node is: the given endpoint alone, or any."""
        request = Request("GET", "/status")
        if endpoint is None:
            return _json_object(self._call(request, timeout))
        limit = self.timeout if timeout is None else timeout
        try:
            answer = self._connections.exchange(endpoint, request, limit, limit)
            return _json_object(_judge(request, answer))
        except (NotSent, Broken) as error:
            raise Unreachable(str(error)) from None

    def members(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """List the members, as the leader sees them where it can be found.

        Each has at least ``id``, ``role`` and ``connected``; ``match_index`` and ``lag`` (in
        entries) are known to the leader alone.
        """
        status = self.status(timeout=timeout)
        leader = status.get("leader_id")
        if leader and leader != status.get("node_id"):
            status = self._status_of_leader(leader, status, timeout) or status
        lag = status.get("replication_lag")
        lags = lag if isinstance(lag, dict) else {}
        peers = status.get("peers")
        members = (
            [dict(peer) for peer in peers if isinstance(peer, dict)]
            if isinstance(peers, list)
            else []
        )
        if not any(member.get("id") == status.get("node_id") for member in members):
            members.insert(0, _itself(status))
        for member in members:
            if member.get("id") in lags:
                member.setdefault("lag", lags[member["id"]])
        return members

    def _status_of_leader(
        self, leader: str, seen: dict[str, Any], timeout: float | None
    ) -> dict[str, Any] | None:
        """Ask the leader itself, by its advertised address or among the endpoints."""
        peers = seen.get("peers")
        told = [
            str(peer["http_address"])
            for peer in (peers if isinstance(peers, list) else [])
            if isinstance(peer, dict) and peer.get("id") == leader and peer.get("http_address")
        ]
        limit = min(self.timeout if timeout is None else timeout, 1.0)
        for endpoint in dict.fromkeys((*told, *self.endpoints)):
            try:
                status = self.status(endpoint, timeout=limit)
            except (ClientError, ValueError):
                continue
            if status.get("node_id") == leader:
                return status
        return None

    # ----------------------------------------------------------------- one call, many tries

    def _call(self, request: Request, timeout: float | None) -> Answer:
        """Try endpoints until one gives an answer that settles it, or the time is up."""
        started = now = time.monotonic()
        deadline = started + (self.timeout if timeout is None else timeout)
        give_up = min(deadline, started + self.patience)
        first = self._preferred
        last: ClientError | None = None
        tries = 0
        needs = 0.0  # seconds that one more try should have
        while last is None or now + needs < give_up:
            at = (first + tries) % len(self.endpoints)
            try:
                answer = _judge(request, self._exchange(at, request, deadline, tries))
            except _TryAgain as again:
                last = _more_telling(last, again.error)
                if again.connected:
                    give_up = deadline
                if again.connected and request.writes:
                    took = time.monotonic() - now
                    needs = max(needs, MARGIN * took, RESERVE * (deadline - started))
            else:
                with self._lock:
                    self._preferred = at
                return answer
            tries += 1
            if tries % len(self.endpoints) == 0:
                self._back_off(tries // len(self.endpoints), give_up)
            now = time.monotonic()
        raise last

    def _exchange(self, at: int, request: Request, deadline: float, tries: int) -> Answer:
        limit = connect_limit = max(0.001, deadline - time.monotonic())
        if len(self.endpoints) > 1:
            connect_limit = CONNECT_SECONDS
            if not request.writes and (tries + 1) % len(self.endpoints):
                limit *= SHARE
        try:
            return self._connections.exchange(self.endpoints[at], request, limit, connect_limit)
        except NotSent as error:
            raise _TryAgain(Unreachable(str(error)), connected=False) from None
        except Broken as error:
            if request.writes:
                raise CommitUnknown(f"{error}; the write may have happened") from None
            # Something else listens there: that will not change while we wait.
            elsewhere = isinstance(error, NotHTTP)
            raise _TryAgain(Unreachable(str(error)), connected=not elsewhere) from None

    def _back_off(self, rounds: int, deadline: float) -> None:
        """Wait with full jitter: anything from nothing to an exponentially rising bound."""
        bound = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS * 2 ** min(rounds - 1, 10))
        remaining = max(0.0, deadline - time.monotonic())
        self._sleep(min(self._rng.uniform(0, bound), remaining))


class _TryAgain(Exception):  # noqa: N818 - a turn of events, not an error
    """This try settled nothing and did nothing; ``error`` stands if it was the last."""

    def __init__(self, error: ClientError, *, connected: bool = True) -> None:
        self.error = error
        self.connected = connected


def _more_telling(last: ClientError | None, now: ClientError) -> ClientError:
    """Choose what to report at the end: that one endpoint is down says less than an answer."""
    return last if last is not None and isinstance(now, Unreachable) else now


def _judge(request: Request, answer: Answer) -> Answer:
    """Return a result, or raise what the answer means."""
    if 200 <= answer.status < 300:
        return answer
    problem = _problem(answer)
    code = str(problem.get("code") or "")
    detail = str(problem.get("detail") or problem.get("title") or "")
    if answer.status == 404 and code in {"", "not_found"} and request.path.startswith("/kv/"):
        return answer
    if code == "commit_unknown":
        raise CommitUnknown(detail or "the write may have happened")
    if code in _NOTHING_DONE or (not request.writes and _may_pass(answer, problem)):
        error: ClientError = Refused(code or "unavailable", detail, answer.status)
        if code == "no_leader":
            error = NoLeader(detail or "the cluster has no leader")
        raise _TryAgain(error)
    if request.writes and answer.status >= 500 and not code:
        # Not a node of ours: something between that cannot know what became of the write.
        raise CommitUnknown(f"answered {answer.status}; the write may have happened")
    raise Refused(code or f"http_{answer.status}", detail, answer.status)


def _may_pass(answer: Answer, problem: dict[str, Any]) -> bool:
    return bool(problem.get("retryable", answer.status in {502, 503, 504}))


def _problem(answer: Answer) -> dict[str, Any]:
    """Read the problem (RFC 9457) in an answer; empty where there is none."""
    if len(answer.body) > _JSON_BYTES_MAX or "json" not in answer.headers.get("Content-Type", ""):
        return {}
    try:
        problem = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _json_object(answer: Answer) -> dict[str, Any]:
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refused("not_anchor", "the answer is not anchor's; is this the HTTP port?", 200)
    return value


def _itself(status: dict[str, Any]) -> dict[str, Any]:
    """Describe the node that gave a status as a member of its cluster."""
    return {
        "id": status.get("node_id"),
        "role": status.get("role"),
        "connected": True,
        "match_index": status.get("last_log_index"),
        "address": status.get("address"),
        "http_address": status.get("http_address"),
    }


def _path(key: str | bytes) -> str:
    raw = key.encode() if isinstance(key, str) else key
    if not raw:
        raise ValueError("a key has at least one byte")
    return "/kv/" + quote_from_bytes(raw, safe="/")
