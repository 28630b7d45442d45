"""Streams and votes that others opened to us."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, TypeVar

import gevent
import grpc
from gevent.event import AsyncResult

from anchor.raft.errors import InvalidMessage
from anchor.raft.messages import AppendEntriesResponse, RequestVote, RequestVoteResponse
from anchor.transport import codec
from anchor.transport.admission import Admission, Rejection
from anchor.transport.codec import Malformed
from anchor.transport.outbox import Outbox, join_append_responses
from anchor.transport.questions import ForwardResponse
from anchor.transport.rpc import Sending

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.transport.handler import TransportHandler
    from anchor.transport.rpc import Pump, ServerCall

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
    """A stream somebody opened to us. ``sender`` is empty until its first message.

    Messages are handled one after the other, in ``on_wire``; whatever that raises ends the stream.
    """

    def __init__(
        self,
        admission: Admission,
        call: ServerCall,
        pump: Pump,
        on_wire: Callable[[bytes], None],
        on_ended: Callable[[Rejection | None], None],
    ) -> None:
        self.sender = ""
        self.rejection: Rejection | None = None
        self.outbox: Outbox[R] = self._new_outbox()
        self._admission = admission
        self._call = call
        self._on_wire = on_wire
        self._on_ended = on_ended
        self._ended = False
        self._accepted: codec.Header | None = None
        self._generation = -1
        self._header: codec.Header | None = None
        self._sending: Sending[R] = Sending(call, self.outbox, self._encoded, self._finish, pump)
        call.on_gone = self.end

    def start(self) -> None:
        """Begin to hear."""
        self._call.greet()
        self._call.receive(self._hear)

    def _hear(self, wire: bytes | None) -> None:
        if self._ended:
            return
        if wire is None:
            self.outbox.close()  # what is still to be said goes out
            self._end()
            return
        self._call.receive(self._hear)
        try:
            self._on_wire(wire)
        except (Malformed, InvalidMessage) as error:
            self.end(malformed(error))
        except Rejection as rejection:
            self.end(rejection)
        except (Exception, gevent.Timeout):
            _LOGGER.exception("failed to handle a message of %r", self.sender)
            self.end(Rejection(grpc.StatusCode.INTERNAL, "internal", "internal error"))

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
        """End the call, with a status if there is something to say. Idempotent."""
        if not self._ended:
            self.rejection = rejection
            self._call.is_ending()
            self.outbox.close(discard=True)
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._on_ended(self.rejection)

    def _finish(self) -> None:
        """All is said."""
        if self.rejection is None:
            self._call.finish()
        else:
            self._call.finish(self.rejection.status, self.rejection.detail)

    def _encoded(self, response: R) -> bytes:
        assert self._header is not None  # noqa: S101 - nobody answers who was not admitted
        return self._encode(self._header, response)

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


class _Ballot:
    """A vote somebody waits for."""

    def __init__(self, request: RequestVote) -> None:
        self.request = request
        self.decided: AsyncResult[RequestVoteResponse | None] = AsyncResult()


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
        self._open: dict[tuple[str, bool], list[_Ballot]] = {}

    def ask(self, request: RequestVote, timeout: float) -> RequestVoteResponse | None:
        """Hand the question to the core and wait for its answer; None if it gives none."""
        key = (request.sender, request.pre_vote)
        if len(self._open) >= self._MAX_CANDIDATES and key not in self._open:
            raise too_many("candidates at once")
        ballot = _Ballot(request)
        ballots = self._open.setdefault(key, [])
        ballots.append(ballot)
        if len(ballots) > self._MAX_PER_CANDIDATE:
            ballots.pop(0).decided.set(None)
        try:
            self._handler.on_message(request)
            return ballot.decided.get(timeout=timeout)
        except gevent.Timeout:
            return None
        finally:
            if ballot in ballots:
                ballots.remove(ballot)
            if not ballots and self._open.get(key) is ballots:
                del self._open[key]

    def answer(self, response: RequestVoteResponse) -> None:
        """Give the core's answer to who waits for it, if anybody still does."""
        ballots = self._open.get((response.recipient, response.pre_vote))
        if not ballots:
            return
        exact = [b for b in ballots if b.request.term == response.term]
        ballot = (exact or ballots)[0]
        ballots.remove(ballot)
        ballot.decided.set(response)

    def close(self) -> None:
        """Let everybody who waits go."""
        for ballots in self._open.values():
            for ballot in ballots:
                ballot.decided.set(None)
