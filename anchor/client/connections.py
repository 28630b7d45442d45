"""Connections kept open, and one exchange over one of them.

The question that matters for a write is whether its bytes may have left. So an exchange fails in
two ways: :class:`NotSent`, when no connection could be had, and :class:`Broken`, when anything
went wrong after that.
"""

from __future__ import annotations

import contextlib
import enum
import http.client
import os
import select
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from anchor.client.sockets import open_socket
from anchor.settings import HTTP_PORT_OFFSET, split_address

if TYPE_CHECKING:
    from collections.abc import Mapping

IDLE_SECONDS_MAX = 30.0
"""A connection idle for longer is not reused: the other side may be about to close it."""

IDLE_PER_ENDPOINT_MAX = 16


class ExchangeError(Exception):
    """No answer came."""


class NotSent(ExchangeError):  # noqa: N818 - says what happened
    """No connection could be had: the request certainly never left."""


class Broken(ExchangeError):  # noqa: N818 - says what happened
    """The connection failed, or took too long, once the request may have left."""


class NotHTTP(Broken):
    """What came back is no HTTP at all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint said."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Resending(enum.Enum):
    """What it means to send a request a second time."""

    HARMLESS = "it changes nothing, or nothing that matters"
    RECOGNIZED = "the cluster knows it by its number or key, and does it once"
    UNSAFE = "it may be done twice, and undo what somebody else did meanwhile"


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``path`` is already percent-encoded."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def resending(self) -> Resending:
        """What it means to send this a second time."""
        if self.method in {"GET", "HEAD"} or self.path.startswith("/sessions"):
            return Resending.HARMLESS
        if self.headers.keys() & {"X-Session", "Idempotency-Key"}:
            return Resending.RECOGNIZED
        return Resending.UNSAFE

    def having(self, **headers: str) -> Request:
        """Return the same with these headers too; an underscore stands for a dash."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **more})


class Connection(http.client.HTTPConnection):
    """An open connection. Every wait on it ends with ``timed.deadline``."""

    def __init__(self, host: str, port: int, deadline: float) -> None:
        super().__init__(host, port)
        self.sock = self.timed = open_socket(host, port, deadline)


class Connections:
    """Idle connections by endpoint; safe to share between threads, and to take into a fork."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: dict[str, list[tuple[float, Connection]]] = {}
        self._closed = False

    def exchange(
        self, endpoint: str, request: Request, timeout: float, connect_timeout: float
    ) -> Answer:
        """Send a request to one endpoint and wait for its answer, at most ``timeout`` seconds.

        Raises:
            NotSent, Broken, NotHTTP: there is no answer.

        """
        deadline = time.monotonic() + timeout
        connection = self._reuse(endpoint) or connect(endpoint, min(timeout, connect_timeout))
        try:
            answer, reusable = _converse(connection, request, deadline)
        except TimeoutError:
            connection.close()
            raise Broken(f"{endpoint} did not answer in time") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            if _is_garbage(error):
                raise NotHTTP(
                    f"{endpoint} does not speak HTTP; is that its --port? "
                    f"HTTP is usually {HTTP_PORT_OFFSET} higher"
                ) from None
            raise Broken(f"{endpoint} broke off: {reason(error)}") from None
        except BaseException:
            connection.close()
            raise
        if reusable:
            self._keep(endpoint, connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Close what is idle; connections in use are closed when their exchange ends."""
        with self._lock:
            self._closed = True
            idle = [connection for kept in self._idle.values() for _, connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def _reuse(self, endpoint: str) -> Connection | None:
        """Return a connection that still looks alive: the freshest first."""
        while True:
            with self._lock:
                if self._pid != os.getpid():  # they are our parent's
                    self._pid = os.getpid()
                    self._idle.clear()
                kept = self._idle.get(endpoint)
                if not kept:
                    return None
                since, connection = kept.pop()
            if time.monotonic() - since < IDLE_SECONDS_MAX and not _has_ended(connection):
                return connection
            connection.close()

    def _keep(self, endpoint: str, connection: Connection) -> None:
        with self._lock:
            kept = self._idle.setdefault(endpoint, [])
            if not self._closed and len(kept) < IDLE_PER_ENDPOINT_MAX:
                kept.append((time.monotonic(), connection))
                return
        connection.close()


def connect(endpoint: str, timeout: float) -> Connection:
    """Connect to an endpoint; the timeout is for all that is done with it. Raises NotSent."""
    deadline = time.monotonic() + timeout
    host, port = split_address(endpoint)
    try:
        return Connection(host, port, deadline)
    except TimeoutError:
        raise NotSent(f"{endpoint} did not answer in time") from None
    except (OSError, UnicodeError) as error:
        raise NotSent(f"{endpoint}: {reason(error)}") from None


def _converse(connection: Connection, request: Request, deadline: float) -> tuple[Answer, bool]:
    headers = {"Connection": "keep-alive", **request.headers}
    if request.body is not None:
        headers.setdefault("Content-Type", "application/octet-stream")
    connection.timed.deadline = deadline
    connection.request(request.method, request.path, request.body, headers)
    response = connection.getresponse()
    body = b"".join(iter(lambda: response.read(1 << 16), b""))
    if response.length:  # closed before all that was announced
        raise http.client.IncompleteRead(body, response.length)
    return Answer(response.status, response.headers, body), not response.will_close


def _has_ended(connection: Connection) -> bool:
    """Whether an idle connection has something to read: its end, or what nobody asked for."""
    with contextlib.suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(connection.timed, select.POLLIN)
        return bool(poll.poll(0))
    return True


def _is_garbage(error: Exception) -> bool:
    """Whether what came is not even the first line of an answer."""
    return isinstance(error, http.client.BadStatusLine) and not isinstance(
        error, http.client.RemoteDisconnected
    )


def reason(error: Exception) -> str:
    """Say in a few words what went wrong on a connection."""
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return str(error) or type(error).__name__
