"""Stand-ins for nodes: real sockets, and answers that are scripted or those of a small cluster."""

from __future__ import annotations

import contextlib
import enum
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from tests.client.fake_cluster import FakeCluster
from tests.client.replies import Reply, Seen, json_reply, problem

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Act", "FakeCluster", "FakeNode", "Reply", "Seen", "json_reply", "problem"]


class Act(enum.Enum):
    """What to do instead of answering."""

    SERVE = "answer as the cluster does"
    LOSE = "do what is asked, and close the connection instead of answering"
    CLOSE = "close the connection"
    HANG = "say nothing until the test is over"
    TRUNCATE = "announce more than is sent"
    GARBAGE = "send what is no HTTP"
    DRIP_HEAD = "send a byte now and then, of a head that does not end"
    DRIP_BODY = "the same, of a body that was announced"


DRIPPING: dict[Act, bytes] = {
    Act.DRIP_HEAD: b"HTTP/1.1 200 OK\r\nX-Long: ",
    Act.DRIP_BODY: b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n",
}
DRIP_SECONDS = 0.05

Script = Callable[[Seen], Reply | Act]


@dataclass
class _Sequence:
    """Replies in order, but to what is aside."""

    replies: list[Reply | Act] = field(default_factory=list)

    def __call__(self, seen: Seen) -> Reply | Act:
        return Act.SERVE if _is_aside(seen) else self.replies.pop(0)


class _Server(ThreadingHTTPServer):
    """Keeps what goes wrong, but for clients that go away while they are answered."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.errors: list[str] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Note an exception that a request ended with."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self.errors.append(f"{request} {client_address}: {error!r}")


class FakeNode:
    """Serves on a free port while entered, for a cluster of its own unless told otherwise.

    A Reply or an Act, or several in order, is for what a test is about: sessions and ``/status``
    are served all the same, unless the script is a function. ``seen`` leaves them out too.
    """

    def __init__(
        self,
        script: Script | Sequence[Reply | Act] | Reply | Act | None = None,
        *,
        cluster: FakeCluster | None = None,
        node_id: str = "n1",
    ) -> None:
        self.all_seen: list[Seen] = []
        self.cluster = cluster or FakeCluster()
        self.node_id = node_id
        self.script: Script = _as_script(script)
        self._over = threading.Event()
        self._sockets: list[socket.socket] = []
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    @property
    def store(self) -> dict[str, bytes]:
        """What the keys are now, by their targets."""
        return {target: entry.value for target, entry in self.cluster.entries.items()}

    @property
    def seen(self) -> list[Seen]:
        """What was asked of it, but for sessions and how it is."""
        return [seen for seen in self.all_seen if not _is_aside(seen)]

    @property
    def methods(self) -> list[str]:
        """The methods of all that is ``seen``."""
        return [seen.method for seen in self.seen]

    @property
    def numbers(self) -> list[tuple[str, str]]:
        """Session and number of all writes seen."""
        return [
            (seen.headers["X-Session"], seen.headers["X-Sequence"])
            for seen in self.seen
            if "X-Session" in seen.headers
        ]

    def stop(self) -> None:
        """Close the port and all connections, as when a process is killed."""
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for each in self._sockets:
            with contextlib.suppress(OSError):  # it is closed already
                each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._thread.start()
        self.cluster.addresses[self.node_id] = self.endpoint
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread.is_alive():
            self.stop()
        assert self._server.errors == []

    def _reply(self, seen: Seen) -> Reply | Act:
        reply = self.script(seen)
        if reply is Act.SERVE or reply is Act.LOSE:
            answer = self.cluster.answer(seen, self.node_id)
            return answer if reply is Act.SERVE else Act.CLOSE
        if reply is Act.HANG:
            self._over.wait()
        return reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            number = 0

            def setup(self) -> None:
                super().setup()
                self.number = len(fake._sockets)
                fake._sockets.append(self.connection)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                seen = Seen(self.command, self.path, body, dict(self.headers), self.number)
                fake.all_seen.append(seen)
                reply = fake._reply(seen)
                if reply is Act.GARBAGE:
                    self.wfile.write(b"\x00\x00\x12\x04\n")
                if isinstance(reply, Act) and reply in DRIPPING:
                    self._drip(DRIPPING[reply])
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

            def _drip(self, start: bytes) -> None:
                self.wfile.write(start)
                while not fake._over.wait(DRIP_SECONDS):
                    self.wfile.write(b"x")

            do_GET = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

        return Handler


def _as_script(script: Script | Sequence[Reply | Act] | Reply | Act | None) -> Script:
    """Make a script of replies in order, of one reply for ever, or of a working cluster."""
    if script is None:
        return lambda _: Act.SERVE
    if isinstance(script, Reply | Act):
        always = script
        return lambda seen: Act.SERVE if _is_aside(seen) else always
    if isinstance(script, Sequence):
        return _Sequence(list(script))
    return script


def _is_aside(seen: Seen) -> bool:
    return seen.target == "/status" or seen.target.startswith("/sessions")
