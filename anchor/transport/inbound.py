"""Streams and votes that others opened to us.

A stream takes two greenlets: gRPC's own, which sends what ``responses`` yields, and a reader.
The reader never speaks to gRPC's context: it leaves its verdict in ``rejection`` and closes the
outbox, and ``responses`` ends the call with that.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc

from anchor.raft.errors import InvalidMessage
from anchor.raft.messages import AppendEntriesResponse, RequestVote, RequestVoteResponse
from anchor.transport import codec
from anchor.transport.admission import Admission, Rejection
from anchor.transport.codec import Malformed
from anchor.transport.outbox import Outbox, join_append_responses
from anchor.transport.questions import ForwardResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anchor.transport.handler import TransportHandler

_LOGGER = logging.getLogger("anchor.transport")
_MAX_RESPONSES = 4096

R = TypeVar("R", AppendEntriesResponse, ForwardResponse)


def malformed(error: Exception) -> Rejection:
    """What the sender of nonsense is told."""
    return Rejection(grpc.StatusCode.INVALID_ARGUMENT, "malformed", str(error)[:300])


def too_many(what: str) -> Rejection:
    """What who comes last is told."""
    return Rejection(grpc.StatusCode.RESOURCE_EXHAUSTED, "too_many", f"too many {what}")


class InboundStream(Generic[R]):
    """A stream somebody opened to us. ``sender`` is empty until its first message."""

    def __init__(self, admission: Admission, context: grpc.ServicerContext) -> None:
        self.sender = ""
        self.rejection: Rejection | None = None
        self.outbox: Outbox[R] = self._new_outbox()
        self._admission = admission
        self._context = context
        self._accepted: codec.Header | None = None
        self._generation = -1
        self._header: codec.Header | None = None
        context.add_callback(self.outbox.close)

    def _new_outbox(self) -> Outbox[R]:
        return Outbox(_MAX_RESPONSES, 64 << 20)

    def admit(self, header: codec.Header) -> bool:
        """Check a message's header. True if it is the stream's first; raises Rejection."""
        if header == self._accepted and self._generation == self._admission.generation:
            return False
        envelope = codec.envelope(header)
        self._admission.check(envelope)
        first = not self.sender
        if not first and envelope.sender != self.sender:
            raise malformed(ValueError("the sender changed within a stream"))
        self.sender = envelope.sender
        self._accepted = header
        self._generation = self._admission.generation
        local = self._admission
        self._header = codec.header(
            local.cluster_id,
            local.member_id,
            local.incarnation,
            envelope.sender,
            envelope.sender_incarnation,
        )
        return first

    def end(self, rejection: Rejection | None = None) -> None:
        """End the call, with a status if there is something to say."""
        if self.rejection is None:
            self.rejection = rejection
        self.outbox.close(discard=True)

    def responses(self) -> Iterator[bytes]:
        """Yield what gRPC shall send, until the end."""
        while True:
            response = self.outbox.take()
            if response is None or self._header is None:
                break
            yield self._encode(self._header, response)
        if self.rejection is not None:
            self._context.abort(self.rejection.status, self.rejection.detail)

    def _encode(self, header: codec.Header, response: R) -> bytes:
        raise NotImplementedError


class InboundAppends(InboundStream[AppendEntriesResponse]):
    """A leader's stream of AppendEntries."""

    def _new_outbox(self) -> Outbox[AppendEntriesResponse]:
        return Outbox(_MAX_RESPONSES, 64 << 20, join_append_responses)

    def _encode(self, header: codec.Header, response: AppendEntriesResponse) -> bytes:
        return codec.encode_append_response(header, response)


class InboundForward(InboundStream[ForwardResponse]):
    """A member's stream of questions to us as its leader."""

    def reply(self, response: ForwardResponse) -> None:
        """Send this answer, if the asker is still there."""
        self.outbox.put(response, 64)

    def _encode(self, header: codec.Header, response: ForwardResponse) -> bytes:
        return codec.encode_forward_response(header, response)


def hear(
    stream: InboundStream[R],
    requests: Iterator[bytes],
    on_wire: Callable[[bytes], None],
    on_rejected: Callable[[Rejection], None],
) -> None:
    """Read a stream to its end, whatever end it is. The reader's whole life."""
    try:
        for wire in requests:
            on_wire(wire)
            if stream.outbox.closed:
                break
    except grpc.RpcError:
        pass  # cancelled, or its connection broke
    except (Malformed, InvalidMessage) as error:
        stream.rejection = malformed(error)
    except Rejection as rejection:
        stream.rejection = rejection
    except Exception:
        _LOGGER.exception("failed to handle a message of %r", stream.sender)
        stream.rejection = Rejection(grpc.StatusCode.INTERNAL, "internal", "internal error")
    if stream.rejection is not None:
        on_rejected(stream.rejection)
    stream.outbox.close()


class _Ballot:
    """A vote somebody waits for."""

    def __init__(self, request: RequestVote) -> None:
        self.request = request
        self.response: RequestVoteResponse | None = None
        self.decided = threading.Event()


class Ballots:
    """Votes that were asked for and not answered yet.

    An answer belongs to the question of the same candidate, kind and term; a refusal carries the
    voter's own term, so without an exact match it goes to the oldest of that candidate and kind.
    Should that be the wrong one it does no harm: the answer says all there is to know.
    """

    _MAX_PER_CANDIDATE = 4
    _MAX_CANDIDATES = 16  # and kinds: strangers may ask too, see Admission

    def __init__(self, handler: TransportHandler) -> None:
        self._handler = handler
        self._lock = threading.Lock()
        self._open: dict[tuple[str, bool], list[_Ballot]] = {}

    def ask(self, request: RequestVote, timeout: float) -> RequestVoteResponse | None:
        """Hand the question to the core and wait for its answer; None if it gives none."""
        key = (request.sender, request.pre_vote)
        ballot = _Ballot(request)
        with self._lock:
            if len(self._open) >= self._MAX_CANDIDATES and key not in self._open:
                raise too_many("candidates at once")
            ballots = self._open.setdefault(key, [])
            ballots.append(ballot)
            if len(ballots) > self._MAX_PER_CANDIDATE:
                ballots.pop(0).decided.set()
        try:
            self._handler.on_message(request)
            ballot.decided.wait(timeout)
        finally:
            with self._lock:
                if ballot in ballots:
                    ballots.remove(ballot)
                if not ballots and self._open.get(key) is ballots:
                    del self._open[key]
        return ballot.response

    def answer(self, response: RequestVoteResponse) -> None:
        """Give the core's answer to who waits for it, if anybody still does."""
        with self._lock:
            ballots = self._open.get((response.recipient, response.pre_vote))
            if not ballots:
                return
            exact = [b for b in ballots if b.request.term == response.term]
            ballot = (exact or ballots)[0]
            ballots.remove(ballot)
        ballot.response = response
        ballot.decided.set()

    def close(self) -> None:
        """Let everybody who waits go."""
        with self._lock:
            for ballots in self._open.values():
                for ballot in ballots:
                    ballot.decided.set()
