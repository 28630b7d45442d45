"""One member, seen from here: its channel, the stream to it, and whether it lives.

Theory of operation
===================

The *runner* greenlet owns the stream: it waits until there is something to append, opens a stream,
reads answers until it breaks, backs off, and starts anew. gRPC itself pulls what is to be sent
from the stream's own outbox, so a message passes one greenlet only. A stream's outbox dies with
it: what it held belongs to a replication session that is over.

The *monitor* (one for all peers, in the transport) calls :meth:`Peer.check` now and then. That is
the only place that judges silence. Answers count: what comes on our stream, to our votes, to our
pings. What the member says by itself only counts while none of our attempts failed; when some did,
it is a sign that trying again is worth while (:meth:`Peer.spoke`).

States: ``unknown`` → ``connected`` ⇄ ``lost``. One log line a change.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from anchor import raft
from anchor.transport import channel as channels
from anchor.transport import codec
from anchor.transport.channel import CallFailed, Channel, Stream
from anchor.transport.codec import Malformed
from anchor.transport.outbox import (
    Outbox,
    append_size_bytes,
    join_appends,
)

if TYPE_CHECKING:
    import random

    from anchor.raft.configuration import Member
    from anchor.raft.messages import AppendEntries, RequestVote, TimeoutNow
    from anchor.transport.admission import Admission
    from anchor.transport.handler import TransportHandler
    from anchor.transport.options import TransportOptions

_LOGGER = logging.getLogger("anchor.transport")
_IDLE_SECONDS = 10.0  # a stream with nothing to say is closed: its leader is none any more
_KICK_SECONDS = 0.25  # how often a sign of life may cut a back-off short
_REFUSED_BACKOFF_SECONDS = 0.25  # who refuses us is up, and may soon know better


class _Requests(Iterator[bytes]):
    """What gRPC pulls: the outbox, encoded at the last moment."""

    def __init__(self, outbox: Outbox[AppendEntries], header: codec.Header) -> None:
        self._outbox = outbox
        self._header = header

    def __next__(self) -> bytes:
        message = self._outbox.take()
        if message is None:
            raise StopIteration
        return codec.encode_append(self._header, message)


class Peer:
    """What we know of one member and have open to it."""

    def __init__(
        self,
        member: Member,
        admission: Admission,
        handler: TransportHandler,
        options: TransportOptions,
        rng: random.Random,
    ) -> None:
        self.member = member
        self.id = member.id
        self._admission = admission
        self._handler = handler
        self._options = options
        self._rng = rng
        self._lock = threading.RLock()
        self._closed = False
        self._connected = False
        self._reason = ""  # why it is lost, "" while it is not
        self._failures = 0
        self._refused = False  # it answers, but will not have our stream
        self._cut_off = False  # we ended the stream: its end is no news
        self._channel: Channel | None = None
        self._channel_failures = 0
        self._outbox = self._new_outbox()
        self._call: Stream | None = None
        self._retry = threading.Event()  # set: no more waiting before the next attempt
        self._last_heard = time.monotonic()
        self._last_answer = self._stream_since = self._last_kick = 0.0
        self._last_append = time.monotonic()
        self._pinging = False
        self._next_ping = 0.0
        self.on_lost: list[Callable[[], None]] = []  # what else to cancel when it is lost

    # --- identity ----------------------------------------------------------------------------

    def header(self) -> codec.Header:
        """Build the header for messages to it; the cluster id may have become known."""
        local = self._admission
        return codec.header(
            local.cluster_id, local.member_id, local.incarnation, self.id, self.member.incarnation
        )

    @property
    def connected(self) -> bool:
        """Whether it was heard of late."""
        return self._connected

    # --- sending -----------------------------------------------------------------------------

    def append(self, message: AppendEntries) -> None:
        """Put it on the stream, which the runner opens if need be."""
        self._last_append = time.monotonic()
        if not self._outbox.put(message, append_size_bytes(message)):
            with self._lock:  # the stream is being closed at this moment: it goes on the next
                if self._outbox.closed and not self._closed:
                    self._outbox = self._new_outbox()
            self._outbox.put(message, append_size_bytes(message))

    def vote(self, message: RequestVote) -> None:
        """Ask for a vote; the answer goes to the handler. Called by the dispatcher."""
        wire = codec.encode_vote(self.header(), message)
        timeout = self._options.vote_timeout_ms / 1000
        self.channel().call_later(channels.REQUEST_VOTE, wire, timeout, self._voted)

    def timeout_now(self, message: TimeoutNow) -> None:
        """Tell it to campaign. Called by the dispatcher."""
        wire = codec.encode_timeout_now(self.header(), message)
        timeout = self._options.vote_timeout_ms / 1000
        self.channel().call_later(channels.TIMEOUT_NOW, wire, timeout, lambda _outcome: None)

    def _voted(self, outcome: bytes | CallFailed) -> None:
        if isinstance(outcome, CallFailed) or self._closed:
            return
        try:
            header, message = codec.decode_vote_response(outcome)
            if self._is_from_it(header):
                self._answered()
                self._handler.on_message(message)
        except (Malformed, raft.InvalidMessage) as error:
            _LOGGER.warning("%s answered a vote with nonsense: %s", self.id, error)

    def channel(self) -> Channel:
        """Its channel, renewed if it failed twice in a row."""
        with self._lock:
            if self._channel is not None and self._channel_failures >= 2:
                old, self._channel = self._channel, None
                old.close()
            if self._channel is None:
                self._channel_failures = 0
                self._channel = Channel(self.member.address, self._options.max_message_bytes)
            return self._channel

    # --- the stream --------------------------------------------------------------------------

    def run(self) -> None:
        """Keep a stream open while there is something to append. The runner's whole life."""
        while not self._is_closed():
            outbox = self._outbox
            if not outbox.wait():
                with self._lock:
                    if self._outbox is outbox and not self._closed:
                        self._outbox = self._new_outbox()
                continue
            self._stream(outbox)
            if not self._is_closed():
                self._handler.on_disconnected(self.id)
                self._back_off()

    def _is_closed(self) -> bool:
        return self._closed

    def _stream(self, outbox: Outbox[AppendEntries]) -> None:
        """Open a stream and read it until it ends."""
        self._retry.clear()
        self._cut_off = False
        self._stream_since = time.monotonic()
        try:
            requests = _Requests(outbox, self.header())
            call = self.channel().stream(channels.APPEND_ENTRIES, requests)
        except CallFailed as error:  # somebody closed the channel at this moment
            self._failed(error.why)
        else:
            self._call = call
            if self._closed:
                call.cancel()
            self._read_to_end(call, outbox)
        finally:
            self._call = None
            with self._lock:
                if self._outbox is outbox:
                    self._outbox = self._new_outbox()
            outbox.close(discard=True)

    def _read_to_end(self, call: Stream, outbox: Outbox[AppendEntries]) -> None:
        try:
            self._read(call)
        except CallFailed as error:
            if self._cut_off:
                return
            self._refused = not error.is_breakdown
            self._failed(f"it refuses: {error.why}" if self._refused else error.why)
        except (Malformed, raft.InvalidMessage) as error:
            call.cancel()
            self._failed(f"it answered with nonsense: {error}")
        else:
            if not outbox.closed:
                self._failed("it closed the stream")

    def _read(self, call: Stream) -> None:
        accepted: codec.Header | None = None
        for wire in call:
            header, message = codec.decode_append_response(wire)
            if header != accepted:
                if not self._is_from_it(header):
                    raise Malformed("the answer is not from it, or not for us")
                accepted = header
            self._refused = False
            self._answered()
            self._handler.on_message(message)

    def _back_off(self) -> None:
        """Wait before the next attempt: capped exponential, full jitter."""
        shift = min(self._failures, 16)
        options = self._options
        cap = min(options.backoff_max_ms, options.backoff_min_ms << shift) / 1000
        if self._refused:
            cap = min(cap, _REFUSED_BACKOFF_SECONDS)
        if self._failures:
            self._retry.wait(self._rng.uniform(0.0, cap))

    def _new_outbox(self) -> Outbox[AppendEntries]:
        options = self._options
        return Outbox(
            options.max_queued_messages,
            options.max_queued_bytes,
            join_appends,
            options.max_merged_append_bytes,
        )

    # --- does it live? -----------------------------------------------------------------------

    def spoke(self) -> None:
        """It said something by itself: it lives, so a pending attempt need not wait."""
        now = self._last_heard = time.monotonic()
        if not self._failures:
            self._mark_connected()
        elif now - self._last_kick > _KICK_SECONDS:
            self._last_kick = now
            if self._call is None:
                self._channel_failures = 2  # its old connection may sit in TCP's back-off
            self._next_ping = 0.0
            self._retry.set()

    def _answered(self) -> None:
        self._last_heard = self._last_answer = time.monotonic()
        if self._failures or not self._connected:
            self._failures = self._channel_failures = 0
            self._mark_connected()
            self._retry.set()

    def _failed(self, reason: str) -> None:
        self._failures += 1
        self._channel_failures += 1
        self._lose(reason)

    def _mark_connected(self) -> None:
        if not self._connected and not self._closed:
            self._connected = True
            self._reason = ""
            _LOGGER.info("connected to %s at %s", self.id, self.member.address)

    def _lose(self, reason: str) -> None:
        if self._closed:
            return
        if self._connected:
            self._connected = False
            _LOGGER.warning("lost %s at %s: %s", self.id, self.member.address, reason)
        elif not self._reason:
            _LOGGER.warning("cannot reach %s at %s: %s", self.id, self.member.address, reason)
        self._reason = reason
        for cancel in list(self.on_lost):
            cancel()

    def check(self, now: float) -> None:
        """Judge silence: ping who is quiet, cut off who stays so. Called by the monitor."""
        silence = self._options.silence_timeout_ms / 1000
        call = self._call
        if call is not None:
            quiet = now - max(self._last_answer, self._stream_since)
            if quiet >= silence:
                self._last_answer = now  # judged once
                self._failed(f"nothing heard for {silence:.1f} s")
                self._cut()
            elif now - self._last_append > _IDLE_SECONDS:
                self._outbox.close()
            elif quiet >= silence / 3:
                self._ping_it(now, silence * 2 / 3)
            return
        interval = self._options.ping_interval_ms / 1000
        if self._connected and now - self._last_heard >= interval + silence:
            self._failed(f"nothing heard for {now - self._last_heard:.1f} s")
        if now - self._last_heard >= interval or not self._connected:
            self._ping_it(now, silence)

    def _cut(self) -> None:
        call = self._call
        if call is not None:
            self._cut_off = True
            call.cancel()

    def _ping_it(self, now: float, timeout: float) -> None:
        if self._pinging or now < self._next_ping:
            return
        local = self._admission
        wire = codec.encode_identify(local.cluster_id, local.member_id, local.incarnation)
        self._pinging = True
        try:
            self.channel().call_later(channels.IDENTIFY, wire, timeout, self._pinged)
        except CallFailed:
            self._pinging = False

    def _pinged(self, outcome: bytes | CallFailed) -> None:
        self._pinging = False
        if self._closed or (isinstance(outcome, CallFailed) and outcome.is_cancelled):
            return  # by us, with its channel
        now = time.monotonic()
        reason = self._what_is_wrong(outcome)
        if not reason:
            self._next_ping = now + self._options.silence_timeout_ms / 3000
            self._last_heard = self._last_answer = now
            if not self._refused:
                self._answered()
            return
        self._failed(reason)
        shift = min(self._failures, 16)
        cap_ms = min(self._options.backoff_max_ms, self._options.backoff_min_ms << shift)
        self._next_ping = now + self._rng.uniform(0.0, cap_ms / 1000)
        self._cut()

    def _what_is_wrong(self, outcome: bytes | CallFailed) -> str:
        """Empty if the member we mean answered the ping; otherwise what is wrong."""
        if isinstance(outcome, CallFailed):
            return outcome.why
        try:
            it = codec.decode_identification(outcome)
        except Malformed as error:
            return str(error)
        if it.member_id != self.id:
            return f"{it.member_id[:64]!r} answers there"
        if self.member.incarnation not in {0, it.incarnation}:
            return "its data directory was made anew: remove it and let it join again"
        if it.cluster_id not in {"", self._admission.cluster_id}:
            return f"it belongs to another cluster, {it.cluster_id[:64]!r}"
        return ""

    def _is_from_it(self, header: codec.Header) -> bool:
        local = self._admission
        return (
            header.sender == self.id
            and header.recipient == local.member_id
            and header.cluster_id == local.cluster_id
            and self.member.incarnation in {0, header.sender_incarnation}
            and header.recipient_incarnation in {0, local.incarnation}
        )

    # --- the end -----------------------------------------------------------------------------

    def close(self) -> None:
        """End the stream, the channel and the runner. Nothing is called any more."""
        with self._lock:
            self._closed = True
            self._outbox.close(discard=True)
            call, channel = self._call, self._channel
        self._retry.set()
        for cancel in list(self.on_lost):
            cancel()
        if call is not None:
            call.cancel()
        if channel is not None:
            channel.close()
