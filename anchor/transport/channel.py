"""Our client side of gRPC: its options, its calls over raw bytes, its errors in our words.

Messages are bytes for gRPC: it would log a traceback for what it cannot deserialize, and what
waits in an outbox is encoded only when it leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.experimental.gevent

from anchor.transport.errors import CallRefused, CallTimeout, TransportError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PEER = "anchor.v1.Peer"
FORWARD = "anchor.v1.Forward"

APPEND_ENTRIES = f"/{PEER}/AppendEntries"
REQUEST_VOTE = f"/{PEER}/RequestVote"
TIMEOUT_NOW = f"/{PEER}/TimeoutNow"
JOIN = f"/{PEER}/Join"
REMOVE = f"/{PEER}/Remove"
IDENTIFY = f"/{PEER}/Identify"
COMPARE_DIGEST = f"/{PEER}/CompareDigest"
INSTALL_SNAPSHOT = f"/{PEER}/InstallSnapshot"
FORWARD_STREAM = f"/{FORWARD}/Forward"


def use_gevent() -> None:
    """Let gRPC wait in greenlets: after monkey-patching, before any Transport is made."""
    grpc.experimental.gevent.init_gevent()


def message_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Options both sides share."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_metadata_size", 8 << 10),
        ("grpc.absolute_max_metadata_size", 16 << 10),
    ]


def server_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Options of our server: a port in use is an error, pings of members are welcome."""
    return [
        *message_options(max_message_bytes),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_concurrent_streams", 64),
    ]


class CallFailed(Exception):  # noqa: N818 - named for what it is
    """A call or a stream ended badly."""

    def __init__(self, status: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail or status.name.lower())
        self.status = status
        self.detail = detail

    @property
    def is_breakdown(self) -> bool:
        """Whether the connection failed, rather than the other side saying no."""
        return self.status in _BREAKDOWNS

    @property
    def is_cancelled(self) -> bool:
        """Whether it was ended by ourselves."""
        return self.status is grpc.StatusCode.CANCELLED

    @property
    def why(self) -> str:
        """Say what went wrong in a few words, without gRPC's nesting."""
        if self.status is grpc.StatusCode.UNAVAILABLE:
            for theirs, ours in _PLAIN_WORDS.items():
                if theirs in self.detail:
                    return ours
        if self.status is grpc.StatusCode.DEADLINE_EXCEEDED:
            return "no answer in time"
        return str(self)

    def translated(self, address: str) -> TransportError:
        """Give the error for callers outside this package."""
        if self.status is grpc.StatusCode.UNAVAILABLE:
            return Unreachable(f"{address}: {self.why}")
        if self.status in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}:
            return CallTimeout(f"{address}: no answer in time")
        return CallRefused(self.status.name.lower(), self.detail)


_BREAKDOWNS = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
}
STOPPING = "stopping"  # what a server that stops says, and what it is called here
_NO_GRPC = "it does not speak gRPC; is that an HTTP port? give the node's --port"
_PLAIN_WORDS = {
    "Connection refused": "connection refused",
    "Connection reset": "connection reset",
    "Socket closed": "socket closed",
    "No route to host": "no route to host",
    "Failed parsing HTTP/2": _NO_GRPC,
    "http1.x server": _NO_GRPC,
    "Cancelling all calls": STOPPING,  # gRPC's own words, once our grace is over
}


class Stream:
    """A bidirectional stream of ours: iterate over what comes, raising CallFailed at a bad end."""

    def __init__(self, call: Any) -> None:  # noqa: ANN401 - gRPC has no public type for it
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._call
        except grpc.RpcError as error:
            raise _failure(error) from None

    def cancel(self) -> None:
        """End it now, from any greenlet. Idempotent."""
        self._call.cancel()


class Upload:
    """A stream of ours that gets one answer."""

    def __init__(self, future: Any) -> None:  # noqa: ANN401 - gRPC has no public type for it
        self._future = future

    def result(self) -> bytes:
        """Wait for the answer; raises CallFailed."""
        outcome = _outcome(self._future)
        if isinstance(outcome, CallFailed):
            raise outcome
        return outcome

    def cancel(self) -> None:
        """End it now, from any greenlet. Idempotent."""
        self._future.cancel()


class Channel:
    """A connection to one address that tries again fast, shares nothing and knows no proxy.

    Back-off is ours: gRPC's own is kept short. Without a subchannel pool of its own a renewed
    channel would get the old connection back.
    """

    def __init__(self, address: str, max_message_bytes: int) -> None:
        self.address = address
        self._channel: Any = grpc.insecure_channel(
            address,
            options=[
                *message_options(max_message_bytes),
                ("grpc.enable_http_proxy", 0),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 1_000),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.keepalive_time_ms", 10_000),
                ("grpc.keepalive_timeout_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.enable_retries", 0),
                ("grpc.service_config_disable_resolution", 1),
            ],
        )

    def call(self, path: str, wire: bytes, timeout_seconds: float) -> bytes:
        """Ask and wait; raises CallFailed."""
        try:
            answer = self._channel.unary_unary(path)(wire, timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise _failure(error) from None
        except ValueError as error:
            raise closed() from error
        return bytes(answer)

    def call_later(
        self,
        path: str,
        wire: bytes,
        timeout_seconds: float,
        done: Callable[[bytes | CallFailed], None],
    ) -> None:
        """Ask; ``done`` gets the answer or the failure, in another greenlet. Raises CallFailed."""
        try:
            future = self._channel.unary_unary(path).future(wire, timeout=timeout_seconds)
        except ValueError as error:
            raise closed() from error
        future.add_done_callback(lambda future: done(_outcome(future)))

    def stream(self, path: str, requests: Iterator[bytes]) -> Stream:
        """Open a stream; whether it gets through shows when it is read. Raises CallFailed."""
        try:
            return Stream(self._channel.stream_stream(path)(requests))
        except ValueError as error:
            raise closed() from error

    def upload(self, path: str, requests: Iterator[bytes]) -> Upload:
        """Stream these and get one answer. Raises CallFailed."""
        try:
            return Upload(self._channel.stream_unary(path).future(requests))
        except ValueError as error:
            raise closed() from error

    def close(self) -> None:
        """End it, and every call on it."""
        self._channel.close()


def _outcome(future: Any) -> bytes | CallFailed:  # noqa: ANN401 - gRPC has no public type for it
    try:
        return bytes(future.result())
    except grpc.RpcError as error:
        return _failure(error)
    except grpc.FutureCancelledError:
        return closed()


def _failure(error: Any) -> CallFailed:  # noqa: ANN401 - an RpcError is a Call too, which no type says
    status = error.code() or grpc.StatusCode.UNKNOWN
    return CallFailed(status, str(error.details() or "")[:300])


def closed() -> CallFailed:
    """Say that we closed the channel ourselves."""
    return CallFailed(grpc.StatusCode.CANCELLED, "the channel was closed")
