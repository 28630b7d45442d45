"""One member, seen from here: the stream of appends to it, and the votes asked of it.

Theory of operation
===================

The *runner* greenlet owns the stream: it waits until there is something to append, opens a stream,
waits until it breaks, backs off, and starts anew. Messages do not pass by it: what is put into the
stream's outbox is sent at once, or as soon as gRPC has taken the one before. A stream's outbox
dies with it: what it held belongs to a replication session that is over.

The *monitor* (one for all peers, in the transport) calls :meth:`Peer.check` now and then, the only
place that judges silence. An open stream is judged by the answers we get, and a ping asks before
it is cut off: acknowledgements wait for the member's disk, the ping does not. Without a stream
whatever was heard counts, and a ping asks who was quiet.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from anchor.raft.errors import InvalidMessage
from anchor.transport import channel as channels
from anchor.transport import codec
from anchor.transport.codec import Malformed
from anchor.transport.link import Link
from anchor.transport.outbox import Outbox, append_size_bytes, join_appends
from anchor.transport.rpc import CallFailed

if TYPE_CHECKING:
    from anchor.raft.configuration import Member
    from anchor.raft.messages import AppendEntries, RequestVote, TimeoutNow
    from anchor.transport.channel import Stream
    from anchor.transport.parts import Parts

_LOGGER = logging.getLogger("anchor.transport")
_IDLE_SECONDS = 10.0  # a stream with nothing to say is closed: its leader is none any more


class Peer:
    """What is open to one member."""

    def __init__(
        self,
        member: Member,
        parts: Parts,
    ) -> None:
        self.id = member.id
        self.member = member
        self.link = Link(member, parts)
        self._handler = parts.handler
        self._options = parts.options
        self._closed = False
        self._outbox = self._new_outbox()
        self._stream: Stream[AppendEntries] | None = None
        self._stream_since = 0.0
        self._cut_off = False  # we ended the stream: its end is no news
        self._accepted: codec.Header | None = None  # of this stream's answers
        self._last_append = time.monotonic()
        self.link.on_lost.append(self._cut)

    # --- sending -----------------------------------------------------------------------------

    def append(self, message: AppendEntries) -> None:
        """Put it on the stream, which the runner opens if need be."""
        self._last_append = time.monotonic()
        size_bytes = append_size_bytes(message)
        if not self._outbox.put(message, size_bytes):  # being closed: it goes on the next stream
            self._replace(self._outbox).put(message, size_bytes)

    def vote(self, message: RequestVote) -> None:
        """Ask for a vote; the answer goes to the handler."""
        wire = codec.encode_vote(self.link.header(), message)
        timeout = self._options.vote_timeout_ms / 1000
        self.link.channel().call_later(channels.REQUEST_VOTE, wire, timeout, self._voted)

    def timeout_now(self, message: TimeoutNow) -> None:
        """Tell it to campaign."""
        wire = codec.encode_timeout_now(self.link.header(), message)
        timeout = self._options.vote_timeout_ms / 1000
        self.link.channel().call_later(channels.TIMEOUT_NOW, wire, timeout, lambda _outcome: None)

    def _voted(self, outcome: bytes | CallFailed) -> None:
        if isinstance(outcome, CallFailed) or self._closed:
            return
        try:
            header, message = codec.decode_vote_response(outcome)
            if self.link.is_from_it(header):
                self.link.answered()
                self._handler.on_message(message)
        except (Malformed, InvalidMessage) as error:
            _LOGGER.warning("%s answered a vote with nonsense: %s", self.id, error)

    # --- the stream --------------------------------------------------------------------------

    def run(self) -> None:
        """Keep a stream open while there is something to append. The runner's whole life."""
        self.link.ping(time.monotonic(), self._options.silence_timeout_ms / 1000)
        while not self._is_closed():
            outbox = self._outbox
            if not outbox.wait():
                self._replace(outbox)
                continue
            self._run_stream(outbox)
            if not self._is_closed():
                self._handler.on_disconnected(self.id)
                self.link.back_off()

    def _is_closed(self) -> bool:
        return self._closed

    def _run_stream(self, outbox: Outbox[AppendEntries]) -> None:
        """Open a stream and read it until it ends."""
        self.link.retry.clear()
        self._cut_off = False
        self._stream_since = time.monotonic()
        self._accepted = None
        try:
            encode = partial(codec.encode_append, self.link.header())
            channel = self.link.channel()
            self._stream = channel.stream(channels.APPEND_ENTRIES, outbox, encode, self._hear)
            self._wait_for_its_end(self._stream, outbox)
        except CallFailed as error:  # somebody closed the channel at this moment
            self.link.failed(error.why)
        finally:
            self._stream = None
            self._replace(outbox)

    def _wait_for_its_end(
        self, stream: Stream[AppendEntries], outbox: Outbox[AppendEntries]
    ) -> None:
        try:
            stream.wait()
        except CallFailed as error:
            if not self._cut_off:
                self.link.refused = not error.is_breakdown
                self.link.failed(f"it refuses: {error.why}" if self.link.refused else error.why)
        except (Malformed, InvalidMessage) as error:
            self.link.failed(f"it answered with nonsense: {error}")
        except Exception:  # the handler failed; the next stream must still be opened
            _LOGGER.exception("failed to handle an answer of %s", self.id)
            self.link.failed("its answer could not be handled")
        else:
            if not outbox.closed:
                self.link.failed("it closed the stream")

    def _hear(self, wire: bytes) -> None:
        """Pass an answer on. Called by the stream."""
        header, message = codec.decode_append_response(wire)
        if header != self._accepted:
            if not self.link.is_from_it(header):
                raise Malformed("the answer is not from it, or not for us")
            self._accepted = header
            self.link.refused = False
        if not self._closed:
            self.link.answered()
            self._handler.on_message(message)

    def _replace(self, outbox: Outbox[AppendEntries]) -> Outbox[AppendEntries]:
        """Start a new outbox if this is still the present one; its messages are lost."""
        outbox.close(discard=True)
        if self._outbox is outbox and not self._closed:
            self._outbox = self._new_outbox()
        return self._outbox

    def _new_outbox(self) -> Outbox[AppendEntries]:
        options = self._options
        return Outbox(
            options.max_queued_messages,
            options.max_queued_bytes,
            join_appends,
            options.max_merged_append_bytes,
        )

    # --- does it live? -----------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Judge silence: ping who is quiet, cut off who stays so. Called by the monitor."""
        if self._stream is not None:
            self._check_stream(now)
        else:
            self._check_idle(now)

    def _check_stream(self, now: float) -> None:
        silence = self._options.silence_timeout_ms / 1000
        quiet = now - max(self.link.last_answer, self._stream_since)
        if quiet >= silence:
            self.link.failed(f"nothing heard for {quiet:.1f} s")
        elif now - self._last_append > _IDLE_SECONDS:
            self._outbox.close()
        elif quiet >= silence / 3:
            self.link.ping(now, silence * 2 / 3)

    def _check_idle(self, now: float) -> None:
        silence = self._options.silence_timeout_ms / 1000
        interval = self._options.ping_interval_ms / 1000
        quiet = now - self.link.last_heard
        if self.link.connected and quiet >= interval + silence:
            self.link.failed(f"nothing heard for {quiet:.1f} s")
        if quiet >= interval or not self.link.connected:
            self.link.ping(now, silence)

    def _cut(self) -> None:
        """End the stream: it is lost, or we end."""
        stream = self._stream
        if stream is not None:
            self._cut_off = True
            stream.cancel()

    def retire(self) -> None:
        """Log and call nothing any more; ``close`` follows. Does not switch greenlets."""
        self._closed = True
        self.link.retire()

    def close(self) -> None:
        """End the stream, the channel and the runner."""
        self.retire()
        self._outbox.close(discard=True)
        self.link.close()
