"""One connection is one conversation: requests follow each other, on either path.

Bytes are taken as they come. A plain request (``plain.py``) is answered right here, in one send.
Anything else goes to Gunicorn's parser and Falcon, which get the bytes as if nobody had looked at
them, and what follows them comes back.
"""

from __future__ import annotations

import logging
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gunicorn.http import errors as refused
from gunicorn.http.parser import RequestParser

from anchor.api.answers import Answer, Problem, on_the_wire
from anchor.api.connections import NEVER, Connection, Connections
from anchor.api.guarded import GuardedBody, Source, what_was_refused
from anchor.api.plain import MAX_HEAD_BYTES, IncompleteError, Plain, recognise

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from gunicorn.http.message import Request

    from anchor.api.kv import KeyValues

_log = logging.getLogger("anchor.api")

RECEIVE_BYTES = 64 << 10
# Pipelined requests can be served for ever without anybody having to wait for anything.
TURN_REQUESTS = 64

_SPELLINGS = {
    name.lower(): name
    for name in (
        "Allow",
        "Cache-Control",
        "Content-Disposition",
        "Content-Length",
        "Content-Type",
        "ETag",
        "Retry-After",
        "X-Applied-Index",
        "X-Consistency",
        "X-Raft-Leader",
        "X-Raft-Term",
        "X-Replayed",
    )
}


class GunicornWorker(Protocol):
    """What Gunicorn's path needs of its worker. Not ``alive``: each answer is the last."""

    alive: bool
    cfg: Any

    def handle_request(
        self, listener_name: object, request: Request, client: socket.socket, address: object
    ) -> object:
        """Call the application; raises StopIteration if the connection shall close."""


class Conversations:
    """Holds all conversations of a worker."""

    def __init__(
        self, worker: GunicornWorker, key_values: KeyValues, connections: Connections
    ) -> None:
        self._worker = worker
        self._key_values = key_values
        self.connections = connections
        self._limits = connections.limits
        self._date_line = b""

    def keep_date(self) -> None:
        """Have the Date of all answers at hand (RFC 9110 §6.6.1), on this greenlet, for ever."""
        while True:
            self._date_line = f"Date: {formatdate(usegmt=True)}\r\n".encode()
            gevent.sleep(1 - time.time() % 1)

    def hold(self, listener: socket.socket, client: socket.socket, address: object) -> None:
        """Serve a connection to its end."""
        connection = Connection(client, address, self.connections)
        try:
            if len(self.connections) >= self._limits.max_connections:
                problem = Problem(503, "overloaded", "too many connections", retryable=True)
                self._answer(connection, self._key_values.refuse(problem), close=True)
                return
            self.connections.add(connection)
            self._converse(listener, connection)
        except OSError:
            pass  # the client is gone; there is nobody to tell
        except Exception as error:  # noqa: BLE001 - one connection must not harm the others
            _log.error("a connection failed unexpectedly: %r", error, exc_info=error)
        finally:
            self.connections.discard(connection)
            connection.close()

    def _converse(self, listener: socket.socket, connection: Connection) -> None:
        buffer: bytes | None = b""
        while buffer is not None:
            try:
                buffer = self._serve_one(listener, connection, buffer)
            except Problem as problem:
                if connection.serving:
                    self._answer(connection, self._key_values.refuse(problem), close=True)
                buffer = None
        if connection.sending:  # the last that happened was an answer
            connection.linger()

    def _serve_one(
        self, listener: socket.socket, connection: Connection, buffer: bytes
    ) -> bytes | None:
        """Serve one request; return what follows it, or None if the connection shall close."""
        connection.sending = False
        if not buffer:
            connection.serving = False
            connection.deadline = self.connections.now + self._limits.idle_timeout
            buffer = connection.recv_next(RECEIVE_BYTES)
            if not buffer:
                return None
            connection.serving = True
        connection.served += 1
        if connection.served % TURN_REQUESTS == 0:
            gevent.sleep(0)
        try:
            plain = recognise(buffer, self._limits.max_value_bytes)
        except IncompleteError:
            buffer, plain = self._await_head(connection, buffer)
        if plain is None:
            return self._serve_gunicorns_way(listener, connection, buffer)
        return self._serve_plain(connection, buffer, plain)

    def _await_head(self, connection: Connection, buffer: bytes) -> tuple[bytes, Plain | None]:
        connection.awaited = "the head of the request"
        connection.allow(self._limits.head_timeout)
        while len(buffer) < MAX_HEAD_BYTES:
            more = connection.recv(RECEIVE_BYTES)
            if not more:
                break
            buffer += more
            try:
                return buffer, recognise(buffer, self._limits.max_value_bytes)
            except IncompleteError:
                continue
        return buffer, None

    def _serve_plain(self, connection: Connection, buffer: bytes, plain: Plain) -> bytes | None:
        method, target, asked, body_bytes, head_bytes, close = plain
        connection.deadline = NEVER
        end = head_bytes + body_bytes
        if len(buffer) < end:
            buffer = self._await_body(connection, buffer, end)
            if len(buffer) < end:
                return None  # the client left in the middle
        answer = self._key_values.handle(method, target, asked, lambda: buffer[head_bytes:end])
        close = close or not self._worker.alive
        connection.send(
            on_the_wire(answer, self._date_line, without_body=method == b"HEAD", close=close)
        )
        return None if close else buffer[end:]

    def _await_body(self, connection: Connection, buffer: bytes, end: int) -> bytes:
        connection.awaited = "the body"
        began = self.connections.now + self._limits.body_timeout
        gathered = bytearray(buffer)
        self.connections.reserve(end)
        try:
            while len(gathered) < end:
                connection.deadline = began + len(gathered) / self._limits.min_bytes_per_second
                more = connection.recv(max(RECEIVE_BYTES, end - len(gathered)))
                if not more:
                    break
                gathered += more
        finally:
            self.connections.release(end)
        connection.deadline = NEVER
        return bytes(gathered)

    def _answer(self, connection: Connection, answer: Answer, *, close: bool) -> None:
        connection.send(on_the_wire(answer, self._date_line, without_body=False, close=close))

    def _serve_gunicorns_way(
        self, listener: socket.socket, connection: Connection, buffer: bytes
    ) -> bytes | None:
        parser = RequestParser(self._worker.cfg, Source(connection, buffer), connection.address)
        parser.unreader.unread(buffer)
        connection.awaited = "the head of the request"
        connection.allow(self._limits.head_timeout)
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
            self._worker.handle_request(
                listener.getsockname(), request, connection.sock, connection.address
            )
        except StopIteration:
            return None
        finally:
            body.release()
        connection.deadline = NEVER
        rest: bytes = parser.unreader.take_buffered()
        return rest

    def call(
        self,
        application: Callable[..., Iterable[bytes]],
        environ: dict[str, Any],
        start_response: Callable[..., Any],
    ) -> Iterable[bytes]:
        """Call the application; see to the rest of the body, and to spelling, before it answers."""
        body: GuardedBody = environ["wsgi.input"]

        def start(status: str, headers: list[tuple[str, str]], *rest: object) -> object:
            body.before_answer(close=not self._worker.alive)
            spelled = [(_SPELLINGS.get(name, name), value) for name, value in headers]
            return start_response(status, spelled, *rest)

        answer = application(environ, start)
        return answer if isinstance(answer, list) else body.paced(answer)
