"""The request body on Gunicorn's path: within a deadline, and never left half-read by accident."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gunicorn.http.errors import NoMoreData, ParseException

from anchor.api.answers import Problem, bad_request
from anchor.api.connections import TooSlow

if TYPE_CHECKING:
    from gunicorn.http.message import Request

    from anchor.api.connections import Connection

_DISCARD_BYTES = 64 << 10


class _Stream(Protocol):
    def read(self, size: int) -> bytes: ...


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
        self.ended = not piece or self._read_bytes == self._declared
        return piece

    def before_answer(self, *, close: bool) -> None:
        """See that another request can follow the answer, or have it say that none can."""
        if not self.settle() or close:
            self._request.force_close()
        self._connection.allow_to_send(self._limits.max_value_bytes)

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
        except TooSlow:
            raise
        except NoMoreData:
            raise bad_request("the body ended early") from None
        except ParseException as error:
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
