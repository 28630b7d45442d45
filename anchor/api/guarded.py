"""What stands around Gunicorn's parser: it has no limit on a body, and no deadline but one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import gevent
from gunicorn.http import errors as refused

from anchor.api.answers import Problem, bad_idempotency_key, bad_request
from anchor.api.connections import NEVER
from anchor.api.keys import KEY_PREFIX
from anchor.api.pacing import Paced

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gunicorn.http.message import Request

    from anchor.api.connections import Connection

_DISCARD_BYTES = 64 << 10
# A write with an Idempotency-Key that is too long for any header field.
_LONG_KEY = re.compile(
    rb"(?:PUT|POST|DELETE) [^\r\n]*\r\n(?:[^\r\n]+\r\n)*?(?i:idempotency-key):[^\r\n]{8000}"
)


class _Stream(Protocol):
    def read(self, size: int) -> bytes: ...


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


class GuardedBody:
    """Stands between the application and Gunicorn's body reader.

    It turns what goes wrong while reading into Problems, moves the connection's deadline as bytes
    arrive, and sends ``100 Continue`` when the application first asks for the body, so that one
    that is refused unread is not sent at all (RFC 9110 §10.1.1).
    """

    def __init__(self, request: Request, connection: Connection) -> None:
        self._inner: _Stream = request.body
        self._request = request
        self._connection = connection
        self._limits = connection.connections.limits
        self._expects_continue: bool = request._expected_100_continue  # noqa: SLF001
        request._expected_100_continue = False  # noqa: SLF001 - or it is sent too early
        self._began = 0.0
        self._read_bytes = 0
        self._declared = _declared_bytes(request)
        self.ended = self._declared == 0

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, none at the end; raises a Problem."""
        if self.ended:
            return b""
        if self._read_bytes == 0:
            self._begin()
        self._connection.deadline = (
            self._began
            + self._limits.body_timeout
            + self._read_bytes / self._limits.min_bytes_per_second
        )
        piece = self._read_piece(self._limits.max_value_bytes if size < 0 else size)
        self._connection.connections.reserve(len(piece))
        self._read_bytes += len(piece)
        if not piece or self._read_bytes == self._declared:
            self.ended = True
            self._connection.deadline = NEVER
        return piece

    def before_answer(self, *, close: bool) -> None:
        """See that another request can follow the answer, or have it say that none can."""
        if not self.settle() or close:
            self._request.force_close()
        self._connection.allow_to_send(self._limits.max_value_bytes)

    def paced(self, pieces: Iterable[bytes]) -> Paced:
        """Give the pieces of an answer, and the client so much time for each."""
        return Paced(pieces, self._connection)

    def settle(self) -> bool:
        """Get rid of what nobody read, before the answer; False if the connection must close."""
        if self._expects_continue or self._declared is None:
            return self.ended  # where an unread body ends, and if it comes, nobody knows
        if self._declared - self._read_bytes > _DISCARD_BYTES:
            return False
        try:
            while self.read(_DISCARD_BYTES):
                pass
        except Problem:
            return False
        return True

    def release(self) -> None:
        """Say that what was read is no longer held."""
        self._connection.connections.release(self._read_bytes)
        self._read_bytes = 0

    def _begin(self) -> None:
        self._began = self._connection.connections.now
        self._connection.awaited = "the body"
        if self._expects_continue:
            self._expects_continue = False
            self._connection.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_piece(self, size: int) -> bytes:
        try:
            return self._inner.read(size)
        except refused.NoMoreData:
            raise bad_request("the body ended early") from None
        except refused.ParseException as error:
            raise bad_request(f"the body is malformed: {error}") from None


def _declared_bytes(request: Request) -> int | None:
    """Return the length a request declares: 0 without any, None for chunks."""
    declared = 0
    for name, value in request.headers:
        if name == "TRANSFER-ENCODING":
            return None
        if name == "CONTENT-LENGTH":
            declared = int(value)
    return declared


def what_was_refused(error: Exception, buffer: bytes) -> Problem:
    """Say for a client what Gunicorn's parser did not like."""
    detail = f"the request is malformed: {error}"
    if isinstance(error, refused.LimitRequestLine):
        if KEY_PREFIX in buffer[:300]:
            return Problem(400, "key_too_large", "the key is too large")
        return Problem(414, "target_too_long", "the target of the request is too long")
    if isinstance(error, refused.LimitRequestHeaders):
        too_large = Problem(431, "head_too_large", "the head of the request is too large")
        return bad_idempotency_key() if _LONG_KEY.match(buffer) else too_large
    if isinstance(error, refused.UnsupportedTransferCoding):
        return Problem(501, "not_implemented", detail)
    if isinstance(error, refused.ExpectationFailed):
        return Problem(417, "expectation_failed", detail)
    return bad_request(detail)
