"""Connections and their deadlines.

A timer per request would cost more than the request. So a connection carries one deadline, moved
by plain assignment, and one greenlet looks at all of them every :data:`SWEEP_SECONDS`.

The clock behind it advances by at most two sweeps at a time: what passed while this process was
paused is not held against its clients, who could not have been heard.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from typing import TYPE_CHECKING, Any

import gevent
from gevent import get_hub

from anchor.api.answers import Problem

if TYPE_CHECKING:
    from anchor.api.limits import Limits

SWEEP_SECONDS = 0.25
LINGER_SECONDS = 2.0
NEVER = math.inf
_SMALL_BYTES = 64 << 10
_READ = 1  # of the loop's events


class TooSlow(Problem):
    """The client did not send what it owes in time."""

    def __init__(self, what: str) -> None:
        super().__init__(408, "request_timeout", f"{what} did not arrive in time")


class Connections:
    """All open connections, and the clock that their deadlines are read on."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.now = 0.0
        self._arriving_bytes = 0
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> None:
        """Watch it."""
        self._open.add(connection)

    def discard(self, connection: Connection) -> None:
        """Watch it no longer."""
        self._open.discard(connection)

    def any_serving(self) -> bool:
        """Tell whether a request is under way on any of them."""
        return any(connection.serving for connection in self._open)

    def reserve(self, size: int) -> None:
        """Make room for this much of a body that is on its way in; raises a Problem."""
        if self._arriving_bytes + size > self.limits.max_arriving_bytes:
            raise Problem(
                503,
                "overloaded",
                "too much is being sent here at once; nothing was done",
                retryable=True,
            )
        self._arriving_bytes += size

    def release(self, size: int) -> None:
        """Give the room back."""
        self._arriving_bytes -= size

    def sweep(self, elapsed_seconds: float) -> None:
        """Let time pass, and end the waits whose time is up."""
        self.now += min(elapsed_seconds, 2 * SWEEP_SECONDS)
        for connection in [each for each in self._open if each.deadline <= self.now]:
            connection.expire()

    def sweep_for_ever(self) -> None:
        """Sweep, on the greenlet that this is called on."""
        last = time.monotonic()
        while True:
            gevent.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            self.sweep(now - last)
            last = now


class Connection:
    """One client's connection. ``serving``: a request has begun and is not yet answered."""

    __slots__ = (
        "_readable",
        "address",
        "awaited",
        "connections",
        "deadline",
        "expired",
        "sending",
        "served",
        "serving",
        "sock",
    )

    def __init__(self, sock: socket.socket, address: object, connections: Connections) -> None:
        self.sock = sock
        self.address = address
        self.connections = connections
        self.awaited = "the request"
        self.deadline = NEVER
        self.expired = False
        self.serving = False
        self.sending = False
        self.served = 0
        self._readable: Any = None

    def close(self) -> None:
        """End it."""
        if self._readable is not None:
            self._readable.stop()
            self._readable.close()
        self.sock.close()

    def recv_next(self, size: int) -> bytes:
        """Receive what the client says next, which it most likely has not said yet.

        To try first, as a socket does, costs a system call and an exception for nothing.
        """
        hub = get_hub()
        if self._readable is None:
            self._readable = hub.loop.io(self.sock.fileno(), _READ)
        hub.wait(self._readable)
        return self.recv(size)

    def allow(self, seconds: float) -> None:
        """Give whatever is waited for next this long from now."""
        self.deadline = self.connections.now + seconds

    def recv(self, size: int) -> bytes:
        """Receive, as a socket does; raises TooSlow once the deadline has passed."""
        try:
            received = self.sock.recv(size)
        except OSError:
            if self.expired:
                raise TooSlow(self.awaited) from None
            raise
        if self.expired:
            raise TooSlow(self.awaited)
        return received

    def send(self, payload: bytes) -> None:
        """Send all of it."""
        self.allow_to_send(len(payload))
        sent = self.sock.send(payload)
        if sent < len(payload):
            self.sock.sendall(memoryview(payload)[sent:])
        self.deadline = NEVER

    def allow_to_send(self, size: int) -> None:
        """Give the client the time it may take to receive this many bytes."""
        limits = self.connections.limits
        self.sending = True
        self.deadline = self.connections.now + limits.send_timeout
        if size > _SMALL_BYTES:
            self.deadline += size / limits.min_bytes_per_second

    def expire(self) -> None:
        """End the wait that is under way. A read may be followed by one last answer."""
        how = socket.SHUT_RDWR if self.expired or self.sending else socket.SHUT_RD
        self.expired = True
        self.allow(LINGER_SECONDS)
        with contextlib.suppress(OSError):
            self.sock.shutdown(how)

    def linger(self) -> None:
        """Let the client read its answer: closing on unread bytes would reset the connection.

        RFC 9112 §9.6: close the sending half, read on for a while, then close.
        """
        self.serving = self.sending = False
        until = self.connections.now + LINGER_SECONDS
        self.deadline = until
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            while self.connections.now < until:
                if not self.sock.recv(_SMALL_BYTES):
                    if not self.expired:
                        return
                    # The receiving half was shut, so the end does not show: look now and then.
                    gevent.sleep(SWEEP_SECONDS)
