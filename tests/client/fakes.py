"""A stand-in for a node's HTTP interface: real sockets, scripted answers."""

from __future__ import annotations

import enum
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    target: str
    body: bytes
    headers: dict[str, str]
    connection: int  # which connection it came by, counted from 0


@dataclass(frozen=True)
class Reply:
    """What to answer."""

    status: int = 200
    body: bytes = b"OK"
    headers: dict[str, str] = field(default_factory=dict)


class Act(enum.Enum):
    """What to do instead of answering."""

    CLOSE = "close the connection"
    HANG = "say nothing until the test is over"
    TRUNCATE = "announce more than is sent"
    GARBAGE = "send what is no HTTP"


def problem(status: int, code: str, *, retryable: bool = False, detail: str = "why") -> Reply:
    """An error as nodes write it (RFC 9457)."""
    body = {"title": "t", "status": status, "detail": detail, "code": code, "retryable": retryable}
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/problem+json"})


def json_reply(value: object) -> Reply:
    """A JSON answer."""
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


Script = Callable[[Seen], Reply | Act]


class FakeNode:
    """Serves on a free port while entered. ``seen`` holds all requests, in order."""

    def __init__(self, script: Script | Sequence[Reply | Act] | Reply | Act | None = None) -> None:
        self.seen: list[Seen] = []
        self.store: dict[str, bytes] = {}
        self.script: Script = _as_script(script, self)
        self._over = threading.Event()
        self._connections = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    @property
    def methods(self) -> list[str]:
        """The methods of all requests seen."""
        return [seen.method for seen in self.seen]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            number = 0

            def setup(self) -> None:
                super().setup()
                self.number = fake._connections
                fake._connections += 1

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                seen = Seen(self.command, self.path, body, dict(self.headers), self.number)
                fake.seen.append(seen)
                reply = fake.script(seen)
                if reply is Act.HANG:
                    fake._over.wait()
                if reply is Act.GARBAGE:
                    self.wfile.write(b"\x00\x00\x12\x04\n")
                if isinstance(reply, Act) and reply is not Act.TRUNCATE:
                    self.close_connection = True
                    return
                truncated = isinstance(reply, Act)
                answer = Reply(body=b"12") if isinstance(reply, Act) else reply
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body) + 5 * truncated))
                self.end_headers()
                self.wfile.write(answer.body)
                self.close_connection = self.close_connection or truncated

            do_GET = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

        return Handler


def _as_script(
    script: Script | Sequence[Reply | Act] | Reply | Act | None, fake: FakeNode
) -> Script:
    """Make a script of replies in order, of one reply for ever, or of a working store."""
    if script is None:
        return lambda seen: _store(fake.store, seen)
    if isinstance(script, Reply | Act):
        always = script
        return lambda _: always
    if isinstance(script, Sequence):
        replies = iter(script)
        return lambda _: next(replies)
    return script


def _store(store: dict[str, bytes], seen: Seen) -> Reply:
    """Behave like a node with one member, keys still encoded."""
    if seen.target == "/status":
        return json_reply({"node_id": "n1", "role": "leader", "leader_id": "n1", "peers": []})
    if seen.method in {"PUT", "POST"}:
        store[seen.target] = seen.body
    elif seen.method == "DELETE":
        store.pop(seen.target, None)
    elif seen.target not in store:
        return problem(404, "not_found")
    else:
        return Reply(200, store[seen.target])
    return Reply()
