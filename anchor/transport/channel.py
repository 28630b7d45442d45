"""Our client side: the methods there are, the options both sides share, and channels.

Messages are bytes here; what waits in an outbox is encoded only when it leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import gevent
import grpc
from gevent.event import AsyncResult, Event

from anchor.transport.errors import CallRefused, CallTimeout, TransportError, Unreachable
from anchor.transport.rpc import CallFailed, ClientCall, Connection, Sending
from anchor.transport.rpc.client import ask
from anchor.transport.rpc.failures import closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anchor.transport.outbox import Outbox
    from anchor.transport.rpc import Pump

T = TypeVar("T")

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


class Stream(Generic[T]):
    """A bidirectional stream of ours: what the outbox has goes out, messages come back.

    ``on_message`` is called on the hub and must not wait long; what it raises ends the stream.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        outbox: Outbox[T],
        encode: Callable[[T], bytes],
        on_message: Callable[[bytes], None],
    ) -> None:
        self._outbox = outbox
        self._on_message = on_message
        self._end: AsyncResult[None] = AsyncResult()
        self._call = ClientCall(connection, path, self._hear, self._ended)
        self._sending = Sending(self._call, outbox, encode, self._finish, connection.pump)
        self._sending.wake()

    def wait(self) -> None:
        """Sleep until it ends; raises CallFailed at a bad end, or what ``on_message`` raised."""
        self._end.get()

    def cancel(self) -> None:
        """End it now. Idempotent."""
        self._call.cancel()

    def _hear(self, wire: bytes) -> None:
        if self._end.ready():
            return
        try:
            self._on_message(wire)
        except (Exception, gevent.Timeout) as error:  # noqa: BLE001 - raised where it is waited for
            self._end.set_exception(error)
            self._call.cancel()

    def _finish(self) -> None:
        """Nothing more will be put into the outbox."""
        self._call.close_sending()

    def _ended(self, failure: CallFailed | None) -> None:
        if self._end.ready():
            return
        if failure is None:
            self._end.set()
        else:
            self._end.set_exception(failure)


class Upload:
    """A stream of ours that gets one answer. Its messages may take their time to be made."""

    def __init__(self, connection: Connection, path: str, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self._answer: bytes | None = None
        self._end: AsyncResult[CallFailed | None] = AsyncResult()
        self._cancelled = False
        self._call = ClientCall(connection, path, self._hear, self._ended)
        self._pump = connection.pump
        self._sent = Event()
        self._sender = gevent.spawn(self._send_all)

    def result(self) -> bytes:
        """Wait for the answer; raises CallFailed, or what making the messages raised."""
        try:
            failure = self._end.get()
        finally:
            self._sender.kill(block=False)  # it may still wait for something to send
            self._call.cancel()
        if failure is not None:
            raise failure
        if self._answer is None:
            raise CallFailed(grpc.StatusCode.UNKNOWN, "it ended without an answer")
        return self._answer

    def cancel(self) -> None:
        """End it now. Idempotent."""
        self._cancelled = True
        self._call.cancel()

    def _send_all(self) -> None:
        try:
            for wire in self._requests:
                self._sent.clear()
                # The C core may take a message of a call that is being cancelled: not worth making.
                if self._cancelled or not self._call.start_send(wire, self._on_sent):
                    return
                self._sent.wait()
        except Exception as error:  # noqa: BLE001 - raised again where the answer is waited for
            self._end.set_exception(error)
            self._call.cancel()
        else:
            self._call.close_sending()

    def _ended(self, failure: CallFailed | None) -> None:
        if not self._end.ready():
            self._end.set(failure)

    def _on_sent(self, _event: object) -> None:
        """In a native thread."""
        self._pump.post(self._go_on)

    def _go_on(self, _: object) -> None:
        self._sent.set()

    def _hear(self, wire: bytes) -> None:
        self._answer = wire


class Channel:
    """A connection to one address that tries again fast, shares nothing and knows no proxy.

    Back-off is ours: gRPC's own is kept short. Without a subchannel pool of its own a renewed
    channel would get the old connection back. Raises ValueError for what cannot be an address.
    """

    def __init__(self, address: str, max_message_bytes: int, pump: Pump) -> None:
        self.address = address
        self._connection = Connection(
            address,
            [
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
            pump,
        )

    def call(self, path: str, wire: bytes, timeout_seconds: float) -> bytes:
        """Ask and wait; raises CallFailed."""
        outcome: AsyncResult[bytes | CallFailed] = AsyncResult()
        self.call_later(path, wire, timeout_seconds, outcome.set)
        answer = outcome.get()
        if isinstance(answer, bytes):
            return answer
        raise answer or closed()

    def call_later(
        self,
        path: str,
        wire: bytes,
        timeout_seconds: float,
        done: Callable[[bytes | CallFailed], None],
    ) -> None:
        """Ask; ``done`` gets the answer or the failure, on the hub. Raises CallFailed."""
        ask(self._connection, path, wire, timeout_seconds, done)

    def stream(
        self,
        path: str,
        outbox: Outbox[T],
        encode: Callable[[T], bytes],
        on_message: Callable[[bytes], None],
    ) -> Stream[T]:
        """Open a stream; whether it gets through shows at its end. Raises CallFailed."""
        return Stream(self._connection, path, outbox, encode, on_message)

    def upload(self, path: str, requests: Iterator[bytes]) -> Upload:
        """Stream these, made in a greenlet, and get one answer. Raises CallFailed."""
        return Upload(self._connection, path, requests)

    def close(self) -> None:
        """End it, and every call on it."""
        self._connection.close()


def translated(error: CallFailed, address: str) -> TransportError:
    """Give the error for callers outside this package."""
    if error.status is grpc.StatusCode.UNAVAILABLE:
        return Unreachable(f"{address}: {error.why}")
    if error.status in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}:
        return CallTimeout(f"{address}: no answer in time")
    return CallRefused(error.status.name.lower(), error.detail)
