"""The port we listen on, and the calls of others."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from gevent.event import AsyncResult, Event
from gevent.pool import Group

from anchor.transport.rpc.failures import STOPPING
from anchor.transport.rpc.native import NO_FLAGS, core, new_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anchor.transport.rpc.pump import Pump

_NO_METADATA: tuple[()] = ()
_NEVER = 1e15  # seconds: a deadline beyond this is none
_OK = grpc.StatusCode.OK
_PATIENCE_SECONDS = 1.0  # with what was cut off
_LONGEST_END_SECONDS = 5.0  # from our verdict until the caller has read it
_FAIR_SECONDS = 0.5  # in which a first message that is on its way arrives


@dataclass(frozen=True, slots=True)
class Method:
    """What answers a path. ``serve`` is called on the hub, and must not wait unless ``waits``."""

    serve: Callable[[ServerCall], None]
    waits: bool = False


class ServerCall:
    """A call somebody made: messages there, messages back, and our status at the end."""

    def __init__(self, server: RpcServer, call: Any, deadline: float) -> None:  # noqa: ANN401 - the C core has no types
        self._server = server
        self._pump = server.pump
        self._call = call
        self._deadline = deadline
        self._greeted = False
        self._on_message: Callable[[bytes | None], None] = _ignore
        self.since = time.monotonic()
        self.heard = False  # it has said something
        self.ending_since: float | None = None
        self.finished = False  # our status is on its way
        self.gone = False  # the caller cancelled, or its connection broke
        self.on_gone: Callable[[], None] = _nothing
        self._start((core.ReceiveCloseOnServerOperation(NO_FLAGS),), self._closed)

    @property
    def peer(self) -> str:
        """Who calls, as gRPC has it, like ``ipv4:127.0.0.1:4711``."""
        return str(self._call.peer().decode())

    @property
    def seconds_left(self) -> float | None:
        """How long the caller will wait; None if it named no deadline."""
        return None if self._deadline > _NEVER else max(0.0, self._deadline - time.time())

    # ----------------------------------------------------------------- hearing

    def receive(self, on_message: Callable[[bytes | None], None]) -> None:
        """Ask for the next message; ``on_message`` gets it on the hub, None when none will come.

        A caller that is gone has nothing more to say either: see ``gone``.
        """
        self._on_message = on_message
        if not self._start((core.ReceiveMessageOperation(NO_FLAGS),), self._received):
            self._pump.post(on_message, None)

    def messages(self) -> Iterator[bytes]:
        """Wait for one message after the other, in the calling greenlet."""
        while True:
            result: AsyncResult[bytes | None] = AsyncResult()
            self.receive(result.set)
            message = result.get()
            if message is None:
                return
            yield message

    # ----------------------------------------------------------------- answering

    def start_send(self, wire: bytes, sent: Callable[[Any], None]) -> bool:
        """Begin to send a message; ``sent`` is called in the native thread."""
        return self._start((*self._greeting(), core.SendMessageOperation(wire, NO_FLAGS)), sent)

    def answer(self, wire: bytes) -> None:
        """Send the one message of an answer, and end well."""
        self._finish(_OK, "", (core.SendMessageOperation(wire, NO_FLAGS),))

    def finish(self, status: grpc.StatusCode = _OK, detail: str = "") -> None:
        """End it with this status. Idempotent: the first one counts."""
        self._finish(status, detail, ())

    def greet(self) -> None:
        """Tell the caller that the call is being served, before there is anything to send."""
        self._start(self._greeting(), _ignore)

    def is_ending(self) -> None:
        """Note that it shall be over soon: a caller that does not read cannot keep it open."""
        if self.ending_since is None:
            self.ending_since = time.monotonic()

    def cancel(self) -> None:
        """End it now, whatever is under way."""
        self._call.cancel(core.StatusCode.cancelled, "cancelled")

    def _finish(self, status: grpc.StatusCode, detail: str, before: tuple[Any, ...]) -> None:
        if self.finished:
            return
        end = core.SendStatusFromServerOperation(
            _NO_METADATA, status.value[0], detail.encode("utf-8", "replace"), NO_FLAGS
        )
        self.is_ending()
        self._start((*self._greeting(), *before, end), _ignore)
        self.finished = True

    def _greeting(self) -> tuple[Any, ...]:
        if self._greeted:
            return ()
        self._greeted = True
        return (core.SendInitialMetadataOperation(_NO_METADATA, NO_FLAGS),)

    def _start(self, operations: tuple[Any, ...], tag: Callable[[Any], None]) -> bool:
        if self.finished or self.gone or not operations:
            return False
        return self._server.begin(self._call, operations, tag)

    def _received(self, event: Any) -> None:  # noqa: ANN401 - the C core has no types
        """In the native thread."""
        self._pump.post(self._hear, event.batch_operations[0].message())

    def _hear(self, message: bytes | None) -> None:
        self.heard = True
        self._on_message(message)

    def _closed(self, event: Any) -> None:  # noqa: ANN401 - the C core has no types
        """In the native thread."""
        self._pump.post(self._close, event.batch_operations[0].cancelled())

    def _close(self, cancelled: object) -> None:
        self.gone = bool(cancelled)
        self._server.ended(self)
        on_gone, self.on_gone = self.on_gone, _nothing
        on_gone()


class RpcServer:
    """Serves ``methods`` by path; at most ``max_calls`` at once."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        options: Sequence[tuple[str, int]],
        max_calls: int,
        pump: Pump,
    ) -> None:
        self.pump = pump
        self._methods = {path.encode(): method for path, method in methods.items()}
        self._max_calls = max_calls
        self._calls: set[ServerCall] = set()
        self._lock = new_lock()  # of _due, which the hub raises and the thread lowers
        self._due = 0
        self._stopping = False
        self._waiting = Group()  # the greenlets of methods that wait
        self._shut_down = Event()
        self._ended = Event()
        self._queue = core.CompletionQueue()
        self._server = core.Server(tuple(options), False)
        self._server.register_completion_queue(self._queue)

    def listen(self, address: str) -> int:
        """Bind to ``host:port``; the port, or 0 if that cannot be."""
        try:
            return int(self._server.add_http2_port(address.encode()))
        except RuntimeError:
            return 0

    def start(self) -> None:
        """Serve."""
        self._server.start()
        self._request_call()
        self.pump.start(self._serve)

    def refuse_new(self) -> None:
        """Listen no more; calls under way go on. Idempotent."""
        if not self._stopping:
            self._stopping = True
            self.expect()
            self._server.shutdown(self._queue, self._on_shut_down)

    def stop(self, grace_seconds: float) -> None:
        """Refuse what is new, wait so long for what is under way, then cut it off. Idempotent."""
        self.refuse_new()
        if not self._shut_down.wait(grace_seconds):
            self._server.cancel_all_calls()
            self._shut_down.wait(_PATIENCE_SECONDS)
        self._waiting.kill(timeout=_PATIENCE_SECONDS)
        self.pump.post(self._end_if_idle)
        self._ended.wait(_PATIENCE_SECONDS)

    def check(self, now: float, first_message_seconds: float) -> None:
        """End calls that say nothing, and those whose callers do not read how they ended."""
        for call in list(self._calls):
            if call.ending_since is not None:
                if now - call.ending_since > _LONGEST_END_SECONDS:
                    call.cancel()
            elif not call.heard and now - call.since > first_message_seconds:
                call.finish(grpc.StatusCode.DEADLINE_EXCEEDED, "said nothing in time")

    def begin(self, call: Any, operations: tuple[Any, ...], tag: Callable[[Any], None]) -> bool:  # noqa: ANN401 - the C core has no types
        """Start these operations of a call; False if it is over."""
        if self._ended.is_set():
            return False
        self.expect()
        if call.start_server_batch(operations, tag):  # an error of the C core
            with self._lock:
                self._due -= 1
            return False
        return True

    def expect(self) -> None:
        """One more operation is under way."""
        with self._lock:
            self._due += 1

    def ended(self, call: ServerCall) -> None:
        """A call is over."""
        self._calls.discard(call)

    # ----------------------------------------------------------------- the native thread

    def _serve(self) -> None:
        while True:
            event = self._queue.poll()
            tag = event.tag
            if tag is None:  # the queue was shut down
                break
            tag(event)
            # What the event holds, a call perhaps, must not live on while this waits.
            del event, tag
            with self._lock:
                self._due -= 1
                idle = self._due == 0
            if idle and self._stopping:
                self.pump.post(self._end_if_idle)

    def _requested(self, event: Any) -> None:  # noqa: ANN401 - the C core has no types
        if event.success:
            details = event.call_details
            self.pump.post(self._accept, (event.call, details.method, details.deadline))

    def _on_shut_down(self, _event: object) -> None:
        self.pump.post(lambda _: self._shut_down.set())

    # ----------------------------------------------------------------- the hub

    def _request_call(self) -> None:
        self.expect()
        self._server.request_call(self._queue, self._queue, self._requested)

    def _accept(self, requested: tuple[Any, bytes, float]) -> None:
        raw_call, path, deadline = requested
        if not self._stopping:
            self._request_call()
        call = ServerCall(self, raw_call, deadline)
        method = self._methods.get(path)
        if self._stopping:
            call.finish(grpc.StatusCode.UNAVAILABLE, STOPPING)
        elif method is None:
            call.finish(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        elif len(self._calls) >= self._max_calls:
            call.finish(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls at once")
        else:
            self._calls.add(call)
            self._make_room()
            if method.waits:
                self._waiting.spawn(method.serve, call)
            else:
                method.serve(call)

    def _make_room(self) -> None:
        """Let the oldest silent call go when there are many: who calls has something to say."""
        silent = [call for call in self._calls if not call.heard and call.ending_since is None]
        if len(silent) > max(2, self._max_calls // 4):
            oldest = min(silent, key=lambda call: call.since)
            if time.monotonic() - oldest.since > _FAIR_SECONDS:
                oldest.finish(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls that say nothing")

    def _end_if_idle(self, _: object) -> None:
        if self._due == 0 and self._shut_down.is_set() and not self._ended.is_set():
            self._ended.set()
            self._server.destroy()
            self._queue.shutdown()


def _nothing() -> None:
    """Nobody asked to be told."""


def _ignore(_event: object) -> None:
    """For operations whose end is no news."""
