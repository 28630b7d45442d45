"""Gunicorn's gevent worker, with a short path for the plain request and a node inside.

One connection is one greenlet. It takes the bytes as they come; a plain request (``plain.py``) is
answered right here, in one send, and anything else goes to Gunicorn's parser and Falcon, which get
the bytes as if nobody had looked at them. Pipelined requests follow each other on either path.

The life of the worker: it boots, loads the application (which starts the node), serves until it is
told to stop, then in this order: no new connections; every answer closes its connection; the node
stops, handing its leadership over; what is still under way finishes; the process ends.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
import warnings
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import gevent
from gevent.monkey import MonkeyPatchWarning
from gevent.server import StreamServer
from gunicorn.http import errors as refused
from gunicorn.http.parser import RequestParser
from gunicorn.workers.ggevent import GeventWorker

from anchor.api.answers import Answer, Problem, bad_request, on_the_wire
from anchor.api.connections import NEVER, Connection, Connections
from anchor.api.guarded import GuardedBody
from anchor.api.keys import KEY_PREFIX
from anchor.api.plain import MAX_HEAD_BYTES, IncompleteError, Plain, recognise

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from anchor.api.server import NodeApplication

_log = logging.getLogger("anchor.api")

RECEIVE_BYTES = 64 << 10
POLL_SECONDS = 0.1
# Of the five seconds that a stop may take: what is under way has this long before the node stops,
# the node this long, and all of it this long.
DRAIN_SECONDS = 0.5
NODE_STOP_SECONDS = 2.5
STOP_SECONDS = 3.6
# Pipelined requests can be served for ever without anybody having to wait for anything.
TURN_REQUESTS = 64
_PR_SET_PDEATHSIG = 1

_SPELLINGS = {
    name.lower(): name
    for name in (
        "Allow",
        "Cache-Control",
        "Content-Length",
        "Content-Type",
        "ETag",
        "Retry-After",
        "X-Applied-Index",
        "X-Consistency",
        "X-Raft-Leader",
        "X-Raft-Term",
    )
}


class NodeWorker(GeventWorker):  # type: ignore[misc]
    """The process that is the node."""

    app: NodeApplication
    alive: bool

    def init_process(self) -> None:
        """Tie this process's life to its parent's, then boot as Gunicorn does."""
        die_with_parent(self.ppid)
        super().init_process()

    def patch(self) -> None:
        """Make the standard library cooperative; nothing here uses the ssl it warns of."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MonkeyPatchWarning)
            super().patch()

    def load_wsgi(self) -> None:
        """Start the node, and put what Gunicorn's path needs around the application."""
        application = self.app.wsgi()
        self.limits = self.app.limits
        self.key_values = self.app.key_values
        self.connections = Connections(self.limits)
        self.date_line = b""
        self.wsgi = partial(self._call, application)

    def run(self) -> None:
        """Serve until told to stop."""
        gevent.spawn(self.connections.sweep_for_ever)
        gevent.spawn(self._keep_date)
        servers = [
            StreamServer(listener, handle=partial(self.handle, listener), spawn="default")
            for listener in self.sockets
        ]
        for server in servers:
            server.start()
        while self.alive:
            self.notify()
            gevent.sleep(POLL_SECONDS)
        for server in servers:
            server.close()
        self._stop()

    def _stop(self) -> None:
        began = time.monotonic()
        self._drain(began + DRAIN_SECONDS)
        try:
            self.app.store.stop(NODE_STOP_SECONDS)
        except Exception as error:  # noqa: BLE001 - it is over, one way or the other
            _log.error("the node did not stop in order: %r", error, exc_info=error)
        self._drain(began + STOP_SECONDS)

    def _drain(self, until: float) -> None:
        while self.connections.any_serving() and time.monotonic() < until:
            gevent.sleep(0.01)

    def _keep_date(self) -> None:
        while True:
            self.date_line = f"Date: {formatdate(usegmt=True)}\r\n".encode()
            gevent.sleep(1 - time.time() % 1)

    # ----------------------------------------------------------------- signals

    def handle_quit(self, _sig: int, _frame: object) -> None:
        """Stop in order here too: Ctrl-C reaches this process as well as its parent."""
        self.alive = False

    handle_exit = handle_quit

    # ----------------------------------------------------------------- connections

    def handle(self, listener: socket.socket, client: socket.socket, address: object) -> None:
        """Serve a connection to its end."""
        connection = Connection(client, address, self.connections)
        try:
            if len(self.connections) >= self.limits.max_connections:
                problem = Problem(503, "overloaded", "too many connections", retryable=True)
                self._answer(connection, self.key_values.refuse(problem), close=True)
                return
            self.connections.add(connection)
            self._converse(listener, connection)
        except OSError:
            pass  # the client is gone; there is nobody to tell
        except Exception as error:  # noqa: BLE001 - one connection must not harm the others
            _log.error("a connection failed unexpectedly: %r", error, exc_info=error)
        finally:
            self.connections.discard(connection)
            client.close()

    def _converse(self, listener: socket.socket, connection: Connection) -> None:
        buffer: bytes | None = b""
        while buffer is not None:
            try:
                buffer = self._serve_one(listener, connection, buffer)
            except Problem as problem:
                if connection.serving:
                    self._answer(connection, self.key_values.refuse(problem), close=True)
                    connection.linger()
                return

    def _serve_one(
        self, listener: socket.socket, connection: Connection, buffer: bytes
    ) -> bytes | None:
        """Serve one request; return what follows it, or None if the connection shall close."""
        if not buffer:
            connection.serving = connection.sending = False
            connection.deadline = self.connections.now + self.limits.idle_timeout
            buffer = connection.recv(RECEIVE_BYTES)
            if not buffer:
                return None
            connection.serving = True
        connection.served += 1
        if connection.served % TURN_REQUESTS == 0:
            gevent.sleep(0)
        try:
            plain = recognise(buffer, self.limits.max_value_bytes)
        except IncompleteError:
            buffer, plain = self._await_head(connection, buffer)
        if plain is None:
            return self._serve_gunicorns_way(listener, connection, buffer)
        return self._serve_plain(connection, buffer, plain)

    def _await_head(self, connection: Connection, buffer: bytes) -> tuple[bytes, Plain | None]:
        connection.awaited = "the head of the request"
        connection.allow(self.limits.head_timeout)
        while len(buffer) < MAX_HEAD_BYTES:
            more = connection.recv(RECEIVE_BYTES)
            if not more:
                break
            buffer += more
            try:
                return buffer, recognise(buffer, self.limits.max_value_bytes)
            except IncompleteError:
                continue
        return buffer, None

    def _serve_plain(self, connection: Connection, buffer: bytes, plain: Plain) -> bytes | None:
        method, target, consistency, body_bytes, head_bytes, close = plain
        connection.deadline = NEVER
        end = head_bytes + body_bytes
        if len(buffer) < end:
            buffer = self._await_body(connection, buffer, end)
            if len(buffer) < end:
                return None  # the client left in the middle
        answer = self.key_values.handle(method, target, consistency, lambda: buffer[head_bytes:end])
        close = close or not self.alive
        connection.send(
            on_the_wire(answer, self.date_line, without_body=method == b"HEAD", close=close)
        )
        return None if close else buffer[end:]

    def _await_body(self, connection: Connection, buffer: bytes, end: int) -> bytes:
        connection.awaited = "the body"
        began = self.connections.now + self.limits.body_timeout
        gathered = bytearray(buffer)
        self.connections.reserve(end)
        try:
            while len(gathered) < end:
                connection.deadline = began + len(gathered) / self.limits.min_bytes_per_second
                more = connection.recv(max(RECEIVE_BYTES, end - len(gathered)))
                if not more:
                    break
                gathered += more
        finally:
            self.connections.release(end)
        connection.deadline = NEVER
        return bytes(gathered)

    def _answer(self, connection: Connection, answer: Answer, *, close: bool) -> None:
        connection.send(on_the_wire(answer, self.date_line, without_body=False, close=close))

    # ----------------------------------------------------------------- Gunicorn's path

    def _serve_gunicorns_way(
        self, listener: socket.socket, connection: Connection, buffer: bytes
    ) -> bytes | None:
        parser = RequestParser(self.cfg, Source(connection, buffer), connection.address)
        parser.unreader.unread(buffer)
        connection.awaited = "the head of the request"
        connection.allow(self.limits.head_timeout)
        try:
            request = next(parser)
        except (StopIteration, refused.NoMoreData):
            return None
        except refused.ParseException as error:
            raise what_was_refused(error, buffer) from None
        parser.unreader.sock.head_left = None
        connection.deadline = NEVER
        body = request.body = GuardedBody(request, connection)
        request.proxy_protocol_info = {}
        try:
            self.handle_request(
                listener.getsockname(), request, connection.sock, connection.address
            )
        except StopIteration:
            if not body.ended:
                connection.linger()
            return None
        finally:
            body.release()
        connection.deadline = NEVER
        rest: bytes = parser.unreader.take_buffered()
        return rest

    def _call(
        self,
        application: Callable[..., Iterable[bytes]],
        environ: dict[str, Any],
        start_response: Callable[..., Any],
    ) -> Iterable[bytes]:
        """Call Falcon; before its answer starts, see to the rest of the body and the spelling."""
        body: GuardedBody = environ["wsgi.input"]

        def start(status: str, headers: list[tuple[str, str]], *rest: object) -> object:
            body.before_answer(close=not self.alive)
            spelled = [(_SPELLINGS.get(name, name), value) for name, value in headers]
            return start_response(status, spelled, *rest)

        return application(environ, start)


class Source:
    """What Gunicorn's parser reads from: a bounded head, and a turn for others at each read."""

    def __init__(self, connection: Connection, received: bytes) -> None:
        self._connection = connection
        self._received = received
        self.head_left: int | None = connection.connections.limits.max_head_bytes - len(received)

    def recv(self, size: int) -> bytes:
        """Receive, as a socket does."""
        gevent.sleep(0)
        received = self._connection.recv(size)
        if self.head_left is not None:
            self.head_left -= len(received)
            if self.head_left < 0:
                if b"\n" in self._received:
                    raise refused.LimitRequestHeaders("too many bytes")
                raise refused.LimitRequestLine(len(self._received), len(self._received))
        return received


def what_was_refused(error: Exception, buffer: bytes) -> Problem:
    """Say for a client what Gunicorn's parser did not like."""
    detail = f"the request is malformed: {error}"
    if isinstance(error, refused.LimitRequestLine):
        if KEY_PREFIX in buffer[:300]:
            return Problem(400, "key_too_large", "the key is too large")
        return Problem(414, "target_too_long", "the target of the request is too long")
    if isinstance(error, refused.LimitRequestHeaders):
        return Problem(431, "head_too_large", "the head of the request is too large")
    if isinstance(error, refused.UnsupportedTransferCoding):
        return Problem(501, "not_implemented", detail)
    if isinstance(error, refused.ExpectationFailed):
        return Problem(417, "expectation_failed", detail)
    return bad_request(detail)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, however that happens (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died just before
        leave(1)


def leave(status: int) -> NoReturn:
    """End this process now, past everything that the parent's frames below would do."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
