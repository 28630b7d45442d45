"""Sockets whose every wait ends with one deadline.

A socket's own timeout begins anew with each byte that comes: a node that sends one now and then
would be waited for without end. So it is set before each wait, to what is left until the deadline.
"""

from __future__ import annotations

import io
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class TimedSocket:
    """What ``http.client`` needs of a socket; ``deadline`` is on the monotonic clock."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.deadline = deadline
        self._sock = sock

    def sendall(self, content: bytes) -> None:
        """Send all of it; raises TimeoutError at the deadline."""
        self._limit()
        self._sock.sendall(content)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Give what is received; reading raises TimeoutError at the deadline."""
        return io.BufferedReader(_Received(self._sock.makefile("rb", buffering=0), self._limit))

    def fileno(self) -> int:
        """Give the descriptor, -1 once it is closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close it, once what was made of it is closed too."""
        self._sock.close()

    def _limit(self) -> None:
        """Let the next wait end with the deadline."""
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._sock.settimeout(remaining)


class _Received(io.RawIOBase):
    """Reads from a socket after a call that limits the wait for it."""

    def __init__(self, raw: socket.SocketIO, limit: Callable[[], None]) -> None:
        self._raw = raw
        self._limit = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - as its base has it
        self._limit()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def open_socket(host: str, port: int, deadline: float) -> TimedSocket:
    """Connect to the first of a host's addresses that accepts; each has its share of the time.

    To look them up takes as long as it takes. Raises OSError, UnicodeError.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    while True:
        family, kind, protocol, _, address = addresses.pop(0)
        sock = socket.socket(family, kind, protocol)
        try:
            share = (deadline - time.monotonic()) / (len(addresses) + 1)
            sock.settimeout(max(share, 0.001))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException as error:
            sock.close()
            if not addresses or not isinstance(error, OSError):
                raise
        else:
            return TimedSocket(sock, deadline)
