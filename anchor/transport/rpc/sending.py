"""The messages of an outbox, one after the other, onto a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.transport.outbox import Outbox
    from anchor.transport.rpc.pump import Pump

T = TypeVar("T")


class Sendable(Protocol):
    """A call, of ours or of somebody else's."""

    def start_send(self, wire: bytes, sent: Callable[[Any], None]) -> bool:
        """Begin to send; ``sent`` is called in a native thread. False: it has ended."""


class Sending(Generic[T]):
    """Sends whatever the outbox has, until it is closed and empty; then ``finish`` is called.

    gRPC takes one message at a time, so what is put meanwhile gathers in the outbox. Whoever puts
    sends too, if nothing is under way: no greenlet stands in between.
    """

    def __init__(
        self,
        call: Sendable,
        outbox: Outbox[T],
        encode: Callable[[T], bytes],
        finish: Callable[[], None],
        pump: Pump,
    ) -> None:
        self._call = call
        self._outbox = outbox
        self._encode = encode
        self._finish = finish
        self._pump = pump
        self._under_way = False
        self._finished = False
        outbox.listener = self.wake

    def wake(self) -> None:
        """Send the next message, if none is under way. On the hub."""
        if self._under_way or self._finished:
            return
        item = self._outbox.pop()
        if item is not None:
            self._under_way = True  # before it is: the thread may be faster
            if not self._call.start_send(self._encode(item), self._sent):
                self._finished = True
        elif self._outbox.closed:
            self._finished = True
            self._finish()

    def _sent(self, _event: object) -> None:
        """In the native thread: bother the hub only if there is something to do.

        Whoever puts at this very moment sees ``_under_way`` either way: if set, it has put before
        this looks into the outbox.
        """
        self._under_way = False
        if self._outbox or self._outbox.closed:
            self._pump.post(self._wake)

    def _wake(self, _: object) -> None:
        self.wake()
