"""Our end of the stream to the leader: questions go out, answers and its end come back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from anchor.transport import channel as channels
from anchor.transport import codec
from anchor.transport.codec import Malformed
from anchor.transport.errors import ForwardClosed
from anchor.transport.outbox import Outbox
from anchor.transport.rpc import CallFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anchor.transport.channel import Stream
    from anchor.transport.parts import Parts
    from anchor.transport.peer import Peer

_LOGGER = logging.getLogger("anchor.transport")


class ForwardStream:
    """One stream of questions to a leader. Numbers are the caller's, rising."""

    def __init__(self, peer: Peer, parts: Parts) -> None:
        self.leader_id = peer.id
        self._peer = peer
        self._handler = parts.handler
        options = parts.options
        self._header = peer.link.header()
        self._outbox: Outbox[bytes] = Outbox(options.max_queued_messages, options.max_queued_bytes)
        self._done = False  # closed, or broken and said so: no more callbacks
        self._cut_off = False
        self._call: Stream[bytes] | None = None

    @property
    def closed(self) -> bool:
        """Whether it broke or was closed."""
        return self._done

    def propose(self, number: int, batches: Sequence[bytes]) -> None:
        """Ask for these to be proposed, in order, each a log entry. Never blocks.

        Raises ForwardClosed. Answered only when refused.
        """
        self._put(codec.encode_proposal(self._header, number, batches))

    def read_index(self, number: int, *, lease: bool = False) -> None:
        """Ask for a read index. Never blocks; raises ForwardClosed; always answered."""
        self._put(codec.encode_read_index(self._header, number, lease=lease))

    def close(self) -> None:
        """End it without ``on_forward_broken``. Idempotent."""
        self._finish()

    def run(self) -> None:
        """Wait for its end. The whole life of its greenlet."""
        on_lost = self._peer.link.on_lost
        on_lost.append(self._cut)
        try:
            if not self._done and not self._cut_off:
                self._call = self._peer.link.channel().stream(
                    channels.FORWARD_STREAM, self._outbox, bytes, self._hear
                )
                self._call.wait()
        except (CallFailed, Malformed):
            pass  # whatever it was: it is broken, which is said below
        except Exception:
            _LOGGER.exception("failed to handle an answer of %s", self.leader_id)
        finally:
            on_lost.remove(self._cut)
            if self._finish():
                self._handler.on_forward_broken(self.leader_id)

    def _hear(self, wire: bytes) -> None:
        header, response = codec.decode_forward_response(wire)
        if header.sender != self.leader_id:
            raise Malformed("the answer is not the leader's")
        if not self._done:
            self._handler.on_forward_response(self.leader_id, response)

    def _cut(self) -> None:
        """The leader is lost: end the call, which ``run`` then finds broken.

        The caller may be inside the node: the handler is called from ``run`` alone.
        """
        self._cut_off = True
        self._outbox.close(discard=True)
        if self._call is not None:
            self._call.cancel()

    def _put(self, wire: bytes) -> None:
        gone = self._done or self._peer.link.is_closed
        if gone or not self._outbox.offer(wire, len(wire)):
            raise ForwardClosed(f"the stream to {self.leader_id} is closed or full")

    def _finish(self) -> bool:
        """End it once; False if it was ended before."""
        if self._done:
            return False
        self._done = True
        self._outbox.close(discard=True)
        if self._call is not None:
            self._call.cancel()
        return True
