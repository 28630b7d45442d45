"""Connections and calls of ours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc

from anchor.transport.rpc.failures import CallFailed, closed
from anchor.transport.rpc.native import NO_FLAGS, core, new_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anchor.transport.rpc.pump import Pump

_NO_METADATA: tuple[()] = ()


class Connection:
    """A channel of the C core to one address. ``options`` are channel arguments."""

    def __init__(self, address: str, options: Sequence[tuple[str, int]], pump: Pump) -> None:
        self.pump = pump
        # Raises ValueError for what cannot be an address.
        self._channel = core.Channel(address.encode(), tuple(options), None)

    def start_call(self, path: str, deadline: float | None, batches: object) -> Any:  # noqa: ANN401 - the C core has no types
        """Begin a call with these batches of operations. Raises CallFailed once closed."""
        try:
            return self._channel.segregated_call(
                NO_FLAGS, path.encode(), None, deadline, _NO_METADATA, None, batches, None
            )
        except ValueError:
            raise closed() from None

    def close(self) -> None:
        """End it, and every call on it."""
        self._channel.close(core.StatusCode.cancelled, "the channel was closed")


class ClientCall:
    """A stream of ours: many messages there, many back, and one end.

    ``on_message`` and ``on_end`` (None for a good end) are called on the hub, in order. The next
    message is asked for when the one before is being handled: a slow hub slows the sender down.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        on_message: Callable[[bytes], None],
        on_end: Callable[[CallFailed | None], None],
    ) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._pump = connection.pump
        self._lock = new_lock()  # of _due, which the hub raises and the thread lowers
        self._due = 2
        self._call: Any = connection.start_call(
            path,
            None,
            (
                (
                    (
                        core.SendInitialMetadataOperation(_NO_METADATA, NO_FLAGS),
                        core.ReceiveStatusOnClientOperation(NO_FLAGS),
                    ),
                    self._ended,
                ),
                ((core.ReceiveInitialMetadataOperation(NO_FLAGS),), _ignore),
            ),
        )
        self._receive()
        _start(self._pump, self._listen, self._call)

    def start_send(self, wire: bytes, sent: Callable[[Any], None]) -> bool:
        """Begin to send a message; ``sent`` is called in the native thread."""
        return self._operate(core.SendMessageOperation(wire, NO_FLAGS), sent)

    def close_sending(self) -> None:
        """Say that no more messages will come."""
        self._operate(core.SendCloseFromClientOperation(NO_FLAGS), _ignore)

    def cancel(self) -> None:
        """End it now; ``on_end`` follows. Idempotent."""
        self._call.cancel(core.StatusCode.cancelled, "cancelled by ourselves")

    def _receive(self) -> None:
        self._operate(core.ReceiveMessageOperation(NO_FLAGS), self._received)

    def _operate(self, operation: object, tag: Callable[[Any], None]) -> bool:
        with self._lock:
            if self._due and self._call.operate((operation,), tag):
                self._due += 1
                return True
        return False

    # ----------------------------------------------------------------- the native thread

    def _listen(self) -> None:
        due = self._due
        while due:
            event = self._call.next_event()
            event.tag(event)
            with self._lock:
                self._due -= 1
                due = self._due

    def _received(self, event: Any) -> None:  # noqa: ANN401 - the C core has no types
        message = event.batch_operations[0].message()
        if message is not None:
            self._pump.post(self._hear, message)

    def _ended(self, event: Any) -> None:  # noqa: ANN401 - the C core has no types
        self._pump.post(self._end, _failure(event.batch_operations))

    # ----------------------------------------------------------------- the hub

    def _hear(self, message: bytes) -> None:
        self._receive()
        self._on_message(message)

    def _end(self, failure: CallFailed | None) -> None:
        self._on_end(failure)


def ask(
    connection: Connection,
    path: str,
    wire: bytes,
    timeout_seconds: float,
    done: Callable[[bytes | CallFailed], None],
) -> None:
    """Make a call of one message and one answer; ``done`` gets that, on the hub.

    Raises CallFailed if the connection is closed already.
    """

    def answered(event: Any) -> None:  # noqa: ANN401 - the C core has no types
        operations = event.batch_operations
        failure = _failure(operations)
        if failure is None:
            answer = next(o.message() for o in operations if hasattr(o, "message"))
            outcome = closed() if answer is None else answer
        else:
            outcome = failure
        connection.pump.post(done, outcome)

    operations = (
        core.SendInitialMetadataOperation(_NO_METADATA, NO_FLAGS),
        core.SendMessageOperation(wire, NO_FLAGS),
        core.SendCloseFromClientOperation(NO_FLAGS),
        core.ReceiveInitialMetadataOperation(NO_FLAGS),
        core.ReceiveMessageOperation(NO_FLAGS),
        core.ReceiveStatusOnClientOperation(NO_FLAGS),
    )
    call = connection.start_call(path, time.time() + timeout_seconds, ((operations, answered),))

    def listen() -> None:
        event = call.next_event()
        event.tag(event)

    _start(connection.pump, listen, call)


def _start(pump: Pump, listen: Callable[[], None], call: Any) -> None:  # noqa: ANN401 - the C core has no types
    """Start the thread of a call, or give the call up."""
    try:
        pump.start(listen)
    except RuntimeError as error:
        call.cancel(core.StatusCode.cancelled, "there is nobody to hear its answer")
        raise CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from None


def _failure(operations: Sequence[Any]) -> CallFailed | None:
    """How the call ended, by the one operation that says so."""
    status = next(operation for operation in operations if hasattr(operation, "code"))
    return CallFailed.of_number(status.code(), str(status.details() or ""))


def _ignore(_event: object) -> None:
    """For operations whose end is no news."""
