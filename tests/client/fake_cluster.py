"""What a cluster of nodes has in common, kept the simple way: keys, sessions, answered keys.

It follows the HTTP contract in the README to the letter where clients depend on it, and is strict:
what a correct client never does is an assertion here.
"""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field, replace
from urllib.parse import unquote_to_bytes

from tests.client.replies import Reply, Seen, json_reply, problem

ANSWERS_KEPT = 32


@dataclass(frozen=True)
class FakeEntry:
    """A key's value and indexes."""

    value: bytes
    create_index: int
    mod_index: int
    version: int


@dataclass
class FakeSession:
    """The answers to a session's last writes, by number, and what was asked."""

    ttl_seconds: float
    highest: int = 0
    acked: int = 0
    ended: bool = False
    answers: dict[int, tuple[tuple[str, str, bytes], Reply]] = field(default_factory=dict)


class FakeCluster:
    """Shared by fake nodes; the methods may be called from all their threads."""

    def __init__(self, *, protocol_version: int = 3) -> None:
        self.protocol_version = protocol_version
        self.cluster_id = "c1"
        self.leader_id = "n1"
        self.addresses: dict[str, str] = {}
        self.entries: dict[str, FakeEntry] = {}
        self.sessions: dict[str, FakeSession] = {}
        self.keys: dict[str, Reply] = {}
        self.index = 0
        self.applied = 0  # writes that were done, so also those done twice
        self._lock = threading.Lock()

    def end_sessions(self) -> None:
        """Let all sessions expire."""
        for session in self.sessions.values():
            session.ended = True

    def answer(self, seen: Seen, node_id: str) -> Reply:
        """Do what is asked; atomic, as if it went through the log."""
        with self._lock:
            if seen.target == "/status":
                return self._status(node_id)
            if seen.target.startswith("/sessions"):
                return self._sessions(seen)
            assert seen.target.startswith("/kv/"), seen.target
            reply = self._read(seen) if seen.method == "GET" else self._write(seen)
            return replace(reply, headers={**reply.headers, "X-Raft-Leader": self.leader_id})

    def _status(self, node_id: str) -> Reply:
        peers = [
            {"id": each, "role": "follower", "http_address": address}
            for each, address in self.addresses.items()
            if each != node_id
        ]
        return json_reply(
            {
                "node_id": node_id,
                "role": "leader" if node_id == self.leader_id else "follower",
                "leader_id": self.leader_id,
                "cluster_id": self.cluster_id,
                "http_address": self.addresses[node_id],
                "protocol_version": self.protocol_version,
                "peers": peers,
            }
        )

    def _sessions(self, seen: Seen) -> Reply:
        if self.protocol_version < 2:
            return problem(404, "not_found")
        if self.protocol_version < 3:
            return problem(503, "upgrade_in_progress", retryable=True)
        if seen.method == "DELETE":
            session = self.sessions.get(seen.target.removeprefix("/sessions/"))
            if session is None:
                return problem(404, "session_unknown")
            session.ended = True
            return Reply()
        asked = json.loads(seen.body or b"{}")
        assert seen.target == "/sessions"
        assert asked.keys() <= {"ttl_seconds"}
        session_id = f"{len(self.sessions) + 1:032x}"
        self.sessions[session_id] = FakeSession(asked.get("ttl_seconds", 60))
        told = {"session": session_id, "ttl_seconds": self.sessions[session_id].ttl_seconds}
        return json_reply(told, 201)

    def _read(self, seen: Seen) -> Reply:
        entry = self.entries.get(seen.target)
        if entry is None:
            return problem(404, "not_found")
        headers = {"ETag": f'"{entry.mod_index}"'}
        if seen.headers.get("Accept") != "application/json":
            return Reply(200, entry.value, headers)
        key, key_encoding = _text(unquote_to_bytes(seen.target.removeprefix("/kv/")))
        value, encoding = _text(entry.value)
        told = {
            "key": key,
            "key_encoding": key_encoding,
            "value": value,
            "encoding": encoding,
            "create_index": entry.create_index,
            "mod_index": entry.mod_index,
            "version": entry.version,
        }
        return replace(json_reply(told), headers={**headers, "Content-Type": "application/json"})

    # ----------------------------------------------------------------- writes

    def _write(self, seen: Seen) -> Reply:
        marked = seen.headers.keys() & {"X-Session", "Idempotency-Key"}
        conditional = seen.headers.keys() & {"If-Match", "If-None-Match"}
        if self.protocol_version < 3 and conditional:
            return problem(503, "upgrade_in_progress", retryable=True)
        if self.protocol_version < 3 and marked:
            return problem(503, "upgrade_in_progress", retryable=True)
        if "X-Session" in seen.headers:
            return self._in_session(seen)
        key = seen.headers.get("Idempotency-Key")
        if key is None:
            return self._apply(seen)
        if key in self.keys:
            return _replayed(self.keys[key])
        self.keys[key] = self._apply(seen)
        return self.keys[key]

    def _in_session(self, seen: Seen) -> Reply:
        session = self.sessions.get(seen.headers["X-Session"])
        sequence, acked = int(seen.headers["X-Sequence"]), int(seen.headers["X-Acked"])
        assert 0 <= acked < sequence
        if session is None:
            return problem(404, "session_unknown")
        if session.ended:
            return problem(410, "session_expired")
        if sequence > session.highest + 1:
            return problem(409, "sequence_gap")
        request = (seen.method, seen.target, seen.body)
        if sequence <= session.highest:
            if sequence not in session.answers:
                return problem(409, "sequence_forgotten")
            first, reply = session.answers[sequence]
            return _replayed(reply) if first == request else problem(422, "sequence_reused")
        reply = self._apply(seen)
        session.highest = sequence
        session.answers[sequence] = (request, reply)
        for forgotten in [
            each for each in session.answers if each <= max(acked, sequence - ANSWERS_KEPT)
        ]:
            del session.answers[forgotten]
        return reply

    def _apply(self, seen: Seen) -> Reply:
        self.index += 1
        entry = self.entries.get(seen.target)
        etag = {} if entry is None else {"ETag": f'"{entry.mod_index}"'}
        if_match, if_none_match = (seen.headers.get(each) for each in ("If-Match", "If-None-Match"))
        assert if_none_match in {None, "*"}
        if (if_match is not None and if_match != etag.get("ETag")) or (if_none_match and entry):
            failed = problem(412, "precondition_failed")
            return replace(failed, headers={**failed.headers, **etag})
        self.applied += 1
        if seen.method == "DELETE":
            self.entries.pop(seen.target, None)
            return Reply()
        create_index, version = (entry.create_index, entry.version) if entry else (self.index, 0)
        self.entries[seen.target] = FakeEntry(seen.body, create_index, self.index, version + 1)
        return Reply(headers={"ETag": f'"{self.index}"'})


def _replayed(reply: Reply) -> Reply:
    return replace(reply, headers={**reply.headers, "X-Replayed": "true"})


def _text(raw: bytes) -> tuple[str, str]:
    try:
        return raw.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode(), "base64"
