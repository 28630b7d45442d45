"""The client: what can be asked of a cluster, as methods."""

from __future__ import annotations

import json
import math
import random
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote_from_bytes

from anchor.client.answers import TryAgain, json_object, mod_index_of
from anchor.client.connections import Broken, Connections, NotSent, Request
from anchor.client.endpoints import Endpoints, parse_endpoints
from anchor.client.entries import Entry, entry_of
from anchor.client.errors import ClientError, CommitUnknown, PreconditionFailed, Unreachable
from anchor.client.retrying import STATUS, Calls, Span
from anchor.client.sessions import TTL_SECONDS, TTL_SECONDS_MAX, Sessions
from anchor.client.writes import Writes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from anchor.client.connections import Answer

TIMEOUT_SECONDS = 10.0
"""Longer than the 5 s a node waits for a leader, so that its reasoned answer arrives."""


def _sleep(seconds: float) -> None:
    time.sleep(seconds)  # looked up now: gevent may have patched it since this was imported


class Client:
    """Talks to a cluster through any of its nodes. See the package for what it promises.

    ``endpoints`` are HTTP addresses, ``"host1:8001,host2:8001"`` or an iterable of them.
    ``timeout`` is for a whole call, in seconds; while no endpoint accepts a connection it gives up
    after ``patience`` seconds already. ``sessions=False`` is for a program that writes once and
    ends: no session is opened, or left behind. ``sleep`` can be replaced by tests.
    """

    def __init__(
        self,
        endpoints: str | Iterable[str],
        *,
        timeout: float = TIMEOUT_SECONDS,
        patience: float = math.inf,
        sessions: bool = True,
        sleep: Callable[[float], None] = _sleep,
    ) -> None:
        self.endpoints = parse_endpoints(endpoints)
        self.timeout = timeout
        self.patience = patience
        self._connections = Connections()
        self._calls = Calls(
            Endpoints(self.endpoints),
            self._connections,
            random.Random(),  # noqa: S311 - jitter, not a secret
            sleep,
            looks_around=sessions,
        )
        ttl_seconds = min(max(TTL_SECONDS, 4 * timeout), TTL_SECONDS_MAX)
        self._sessions = Sessions(self._calls, ttl_seconds) if sessions else None
        self._writes = Writes(self._calls, self._sessions)

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
        """Delete the sessions, within about a second, and close idle connections.

        The client can no longer keep any, but still works.
        """
        if self._sessions is not None:
            self._sessions.close()
        self._connections.close()

    # ----------------------------------------------------------------- keys

    def get(
        self, key: str | bytes, *, consistency: str | None = None, timeout: float | None = None
    ) -> bytes | None:
        """Read a key; None where there is no such key.

        ``consistency`` is "linearizable" (what nodes do unless asked), "lease" or "stale".
        """
        answer = self._read(key, consistency, timeout)
        return None if answer is None else answer.body

    def entry(
        self, key: str | bytes, *, consistency: str | None = None, timeout: float | None = None
    ) -> Entry | None:
        """Read a key with its indexes and its version; None where there is no such key."""
        answer = self._read(key, consistency, timeout, Accept="application/json")
        return None if answer is None else entry_of(answer)

    def put(self, key: str | bytes, value: str | bytes, *, timeout: float | None = None) -> int:
        """Store a value under a key; returns its new ``mod_index``."""
        return self._put(Request("PUT", _path(key), _body(value)), timeout)

    def put_if(
        self,
        key: str | bytes,
        value: str | bytes,
        mod_index: int,
        *,
        timeout: float | None = None,
    ) -> int:
        """Store a value if the key's ``mod_index`` is this one, 0: if it is not there.

        Returns the new one. Raises PreconditionFailed, which has the current one.
        """
        request = Request("PUT", _path(key), _body(value))
        if mod_index == 0:
            return self._put(request.having(If_None_Match="*"), timeout)
        return self._put(request.having(If_Match=_etag(mod_index)), timeout)

    def delete(self, key: str | bytes, *, timeout: float | None = None) -> None:
        """Delete a key; one that is not there is fine."""
        self._write(Request("DELETE", _path(key)), timeout)

    def delete_if(self, key: str | bytes, mod_index: int, *, timeout: float | None = None) -> None:
        """Delete a key if its ``mod_index`` is this one; raises PreconditionFailed."""
        self._write(Request("DELETE", _path(key)).having(If_Match=_etag(mod_index)), timeout)

    # ----------------------------------------------------------------- the cluster

    def status(
        self, endpoint: str | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Ask how a node is: the given endpoint alone, or any."""
        if endpoint is None:
            return json_object(self._call(STATUS, timeout))
        try:
            return json_object(self._calls.ask(endpoint, STATUS, self._seconds(timeout)))
        except (NotSent, Broken) as error:
            raise Unreachable(str(error)) from None
        except TryAgain as again:
            raise again.error from None

    def members(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """List the members, as the leader sees them where it can be found.

        Each has at least ``id``, ``role`` and ``connected``; ``match_index`` and ``lag`` (in
        entries) are known to the leader alone.
        """
        status = self.status(timeout=timeout)
        leader = status.get("leader_id")
        if leader and leader != status.get("node_id"):
            status = self._status_of_leader(leader, status, timeout) or status
        return _members_in(status)

    def join(
        self,
        member_id: str,
        address: str,
        *,
        http_address: str = "",
        voter: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Make the node at an address a member; safe to repeat."""
        body = {"id": member_id, "addr": address, "voter": voter}
        if http_address:
            body["http_addr"] = http_address
        self._post("/join", body, timeout)

    def remove(self, member_id: str, *, timeout: float | None = None) -> None:
        """Let a member go; one that is out already is fine."""
        self._post("/remove", {"id": member_id}, timeout)

    def promote(self, member_id: str, *, timeout: float | None = None) -> None:
        """Give a member without a vote one; safe to repeat."""
        self._post(f"/members/{quote_from_bytes(member_id.encode(), safe='')}/promote", {}, timeout)

    def replace_members(
        self,
        members: Iterable[Mapping[str, Any]],
        *,
        force: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Make these the members, each with ``id``, ``addr`` and perhaps ``voter``; atomic."""
        self._post("/members", {"members": list(members), "force": force}, timeout)

    def leader(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Ask who leads: ``leader_id``, ``http_address``, ``term``; raises NoLeader."""
        return json_object(self._call(Request("GET", "/leader"), timeout))

    def transfer_leadership(
        self, member_id: str = "", *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Let this voter lead, or any other; returns who leads then, like ``leader``."""
        body = {"id": member_id} if member_id else {}
        return json_object(self._post("/leader", body, timeout))

    def _call(self, request: Request, timeout: float | None) -> Answer:
        return self._calls.call(request, Span.of(self._seconds(timeout), self.patience))

    def _post(self, path: str, body: Mapping[str, Any], timeout: float | None) -> Answer:
        return self._call(Request("POST", path, json.dumps(body).encode()), timeout)

    def _write(self, request: Request, timeout: float | None) -> Answer:
        answer = self._writes.write(request, Span.of(self._seconds(timeout), self.patience))
        if answer.status == 412:
            raise PreconditionFailed(mod_index_of(answer))
        return answer

    def _put(self, request: Request, timeout: float | None) -> int:
        answer = self._write(request, timeout)
        mod_index = mod_index_of(answer)
        if mod_index is None:
            raise CommitUnknown("the answer has no ETag, as if it were not anchor's")
        return mod_index

    def _read(
        self, key: str | bytes, consistency: str | None, timeout: float | None, **headers: str
    ) -> Answer | None:
        if consistency is not None:
            headers["X_Consistency"] = consistency
        answer = self._call(Request("GET", _path(key)).having(**headers), timeout)
        return None if answer.status == 404 else answer

    def _seconds(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else timeout

    def _status_of_leader(
        self, leader: str, seen: dict[str, Any], timeout: float | None
    ) -> dict[str, Any] | None:
        """Ask the leader itself, by its advertised address or among the endpoints."""
        told = [
            str(peer["http_address"])
            for peer in _peers(seen)
            if peer.get("id") == leader and peer.get("http_address")
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


def _members_in(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Make a list of the members, the node itself among them, of what it says."""
    lag = status.get("replication_lag")
    lags = lag if isinstance(lag, dict) else {}
    members = [dict(peer) for peer in _peers(status)]
    if not any(member.get("id") == status.get("node_id") for member in members):
        members.insert(0, _itself(status))
    for member in members:
        if member.get("id") in lags:
            member.setdefault("lag", lags[member["id"]])
    return members


def _peers(status: dict[str, Any]) -> list[dict[str, Any]]:
    peers = status.get("peers")
    return [peer for peer in peers if isinstance(peer, dict)] if isinstance(peers, list) else []


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


def _body(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _etag(mod_index: int) -> str:
    if mod_index < 1:
        raise ValueError("a mod_index is 1 or more")
    return f'"{mod_index}"'
