"""How calls end badly, in our words."""

from __future__ import annotations

import grpc

STOPPING = "stopping"  # what a server that stops says, and what it is called here
_NO_GRPC = "it does not speak gRPC; is that an HTTP port? give the node's --port"
_PLAIN_WORDS = {
    "Connection refused": "connection refused",
    "Connection reset": "connection reset",
    "Socket closed": "socket closed",
    "No route to host": "no route to host",
    "Failed parsing HTTP/2": _NO_GRPC,
    "http1.x server": _NO_GRPC,
    "Cancelling all calls": STOPPING,  # the C core's own words, once our grace is over
}
_BREAKDOWNS = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
}
_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_LONGEST_DETAIL = 300


class CallFailed(Exception):  # noqa: N818 - named for what it is
    """A call or a stream ended badly."""

    def __init__(self, status: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail or status.name.lower())
        self.status = status
        self.detail = detail

    @classmethod
    def of_number(cls, number: int, detail: str) -> CallFailed | None:
        """Give the failure of a status as the wire has it; None for OK."""
        status = _BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)
        return None if status is grpc.StatusCode.OK else cls(status, detail[:_LONGEST_DETAIL])

    @property
    def is_breakdown(self) -> bool:
        """Whether the connection failed, rather than the other side saying no."""
        return self.status in _BREAKDOWNS

    @property
    def is_cancelled(self) -> bool:
        """Whether it was ended by ourselves."""
        return self.status is grpc.StatusCode.CANCELLED

    @property
    def is_timeout(self) -> bool:
        """Whether no answer came in time."""
        return self.status is grpc.StatusCode.DEADLINE_EXCEEDED

    @property
    def why(self) -> str:
        """Say what went wrong in a few words, without gRPC's nesting."""
        if self.status is grpc.StatusCode.UNAVAILABLE:
            for theirs, ours in _PLAIN_WORDS.items():
                if theirs in self.detail:
                    return ours
        if self.is_timeout:
            return "no answer in time"
        return str(self)


def closed() -> CallFailed:
    """Say that we closed the connection ourselves."""
    return CallFailed(grpc.StatusCode.CANCELLED, "the channel was closed")
