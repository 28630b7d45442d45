"""Our gRPC server: each method checks who calls, reads what is said, and passes it on."""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import gevent
import grpc

from anchor.raft.errors import InvalidMessage
from anchor.transport import channel as channels
from anchor.transport import codec
from anchor.transport.admission import RefusalLog, Rejection
from anchor.transport.codec import Malformed
from anchor.transport.errors import BindFailed, PortInUse
from anchor.transport.inbound import (
    Ballots,
    InboundAppends,
    InboundForward,
    malformed,
    too_many,
)
from anchor.transport.rpc import Method, RpcServer, ServerCall
from anchor.transport.rpc.failures import STOPPING
from anchor.transport.snapshot_receiving import SnapshotReceiving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anchor.raft.messages import (
        AppendEntriesResponse,
        InstallSnapshotResponse,
        RequestVoteResponse,
    )
    from anchor.transport.parts import Parts
    from anchor.transport.snapshots import SnapshotReceiver

_LOGGER = logging.getLogger("anchor.transport")
_MAX_STRANGERS = 16  # streams that have not said who they are; calls anybody may make
_LONGEST_CALL_SECONDS = 60.0

S = TypeVar("S", InboundAppends, InboundForward)
Unary = Callable[[bytes, ServerCall], bytes]


class Server:
    """Listens, and keeps the newest stream of each kind of each member."""

    def __init__(
        self,
        bind_address: str,
        parts: Parts,
        on_spoke: Callable[[str, int], None],
        receiver: SnapshotReceiver | None,
    ) -> None:
        self._bind_address = bind_address
        self._admission = parts.admission
        self._handler = parts.handler
        self._options = parts.options
        self._pump = parts.pump
        self._on_spoke = on_spoke
        self._refusals = RefusalLog()
        self._ballots = Ballots(parts.handler)
        self._snapshots = SnapshotReceiving(parts, receiver) if receiver is not None else None
        self._appends: dict[str, InboundAppends] = {}
        self._forwards: dict[str, InboundForward] = {}
        self._nameless: dict[InboundAppends | InboundForward, float] = {}
        self._strangers = 0
        self._server: RpcServer | None = None
        self.port = 0

    # --- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Bind and serve; raises PortInUse or BindFailed."""
        server = RpcServer(
            self._methods(),
            channels.server_options(self._options.max_message_bytes),
            self._options.max_concurrent_calls,
            self._pump,
        )
        port = server.listen(self._bind_address)
        if port == 0:
            raise _bind_error(self._bind_address)
        server.start()
        self.port, self._server = port, server

    def stop(self, grace_seconds: float) -> None:
        """Refuse what is new, end streams, give calls the grace."""
        if self._server is None:
            return
        self._server.refuse_new()  # or who is told that we stop would be back at once
        gone = Rejection(grpc.StatusCode.UNAVAILABLE, "stopping", STOPPING)
        for stream in [*self._appends.values(), *self._forwards.values(), *self._nameless]:
            stream.end(gone)
        self._ballots.close()
        if self._snapshots is not None:
            self._snapshots.close()
        self._server.stop(grace_seconds)

    def check(self, now: float) -> None:
        """End streams that say nothing. Called by the monitor."""
        if self._snapshots is not None:
            self._snapshots.check(now)
        oldest = now - self._options.first_message_timeout_ms / 1000
        late = [stream for stream, since in self._nameless.items() if since < oldest]
        for stream in late:
            stream.end(
                Rejection(grpc.StatusCode.DEADLINE_EXCEEDED, "silent", "said nothing in time")
            )
        if self._server is not None:
            self._server.check(now, self._options.first_message_timeout_ms / 1000)

    # --- what the node sends as answers --------------------------------------------------------

    def answer_append(self, response: AppendEntriesResponse) -> None:
        """Send it back over the newest stream of that leader, if there is one."""
        stream = self._appends.get(response.recipient)
        if stream is not None:
            stream.outbox.put(response, 64)

    def answer_vote(self, response: RequestVoteResponse) -> None:
        """Give it to the call that waits for it."""
        self._ballots.answer(response)

    def answer_snapshot(self, response: InstallSnapshotResponse) -> None:
        """Give it to the call that waits for it."""
        if self._snapshots is not None:
            self._snapshots.answer(response)

    def refuse(self, member_id: str, reason: str) -> None:
        """End a member's streams because the core found it spoke nonsense."""
        rejection = malformed(ValueError(reason))
        self._refusals.refused(member_id, rejection.reason, rejection.detail)
        for stream in (self._appends.get(member_id), self._forwards.get(member_id)):
            if stream is not None:
                stream.end(rejection)

    # --- streams -------------------------------------------------------------------------------

    def _append_entries(self, call: ServerCall) -> None:
        def on_wire(wire: bytes) -> None:
            header, message = codec.decode_append(wire)
            if stream.admit(header):
                self._adopt(self._appends, stream, header)
            self._on_spoke(stream.sender, header.sender_incarnation)
            self._handler.on_message(message)

        stream = InboundAppends(
            self._admission,
            call,
            self._pump,
            on_wire,
            lambda why: self._ended(self._appends, stream, call, why),
        )
        self._begin(stream)

    def _forward(self, call: ServerCall) -> None:
        def on_wire(wire: bytes) -> None:
            header, request = codec.decode_forward(wire)
            if stream.admit(header):
                self._adopt(self._forwards, stream, header)
            self._handler.on_forward(request, stream.reply)

        stream = InboundForward(
            self._admission,
            call,
            self._pump,
            on_wire,
            lambda why: self._ended(self._forwards, stream, call, why),
        )
        self._begin(stream)

    def _begin(self, stream: InboundAppends | InboundForward) -> None:
        if len(self._nameless) >= _MAX_STRANGERS:
            stream.end(too_many("streams that said nothing yet"))
            return
        self._nameless[stream] = time.monotonic()
        stream.start()

    def _ended(
        self, table: dict[str, S], stream: S, call: ServerCall, why: Rejection | None
    ) -> None:
        self._nameless.pop(stream, None)
        if table.get(stream.sender) is stream:
            del table[stream.sender]
        if why is not None:
            self._rejected(call.peer, why, stream.sender)

    def _adopt(self, table: dict[str, S], stream: S, header: codec.Header) -> None:
        """The stream said who it is: it replaces an older one of the same member."""
        older = table.get(stream.sender)
        if older is None and self._is_crowded(table, stream.sender):
            raise too_many("streams of strangers")
        self._nameless.pop(stream, None)
        table[stream.sender] = stream
        if older is not None:
            older.end(Rejection(grpc.StatusCode.ABORTED, "replaced", "a newer stream replaced it"))
        self._on_spoke(stream.sender, header.sender_incarnation)

    def _is_crowded(self, table: dict[str, S], newcomer: str) -> bool:
        members = self._admission.members
        strangers = sum(1 for sender in table if sender not in members)
        return newcomer not in members and strangers >= _MAX_STRANGERS

    # --- calls -----------------------------------------------------------------------------------

    def _request_vote(self, wire: bytes, call: ServerCall) -> bytes:
        header, message = codec.decode_vote(wire)
        envelope = codec.envelope(header)
        self._admission.check(envelope)
        self._on_spoke(envelope.sender, envelope.sender_incarnation)
        timeout = min(_time_left(call), self._options.vote_timeout_ms / 1000)
        response = self._ballots.ask(message, timeout)
        if response is None:
            raise Rejection(grpc.StatusCode.DEADLINE_EXCEEDED, "", "no answer in time")
        return codec.encode_vote_response(self._header_to(envelope), response)

    def _timeout_now(self, wire: bytes, _call: ServerCall) -> bytes:
        header, message = codec.decode_timeout_now(wire)
        self._admission.check(codec.envelope(header))
        self._handler.on_message(message)
        return b""

    def _identify(self, wire: bytes, _call: ServerCall) -> bytes:
        envelope = codec.decode_identify(wire)
        if self._admission.is_member(envelope.sender, envelope.sender_incarnation):
            self._on_spoke(envelope.sender, envelope.sender_incarnation)
        return codec.encode_identification(self._handler.on_identify())

    def _compare_digest(self, wire: bytes, _call: ServerCall) -> bytes:
        header, question = codec.decode_compare_digest(wire)
        envelope = codec.envelope(header)
        self._admission.check(envelope)
        digest = self._handler.on_compare_digest(question)
        return codec.encode_digest(self._header_to(envelope), digest)

    def _join(self, wire: bytes, call: ServerCall) -> bytes:
        header, request = codec.decode_join(wire)
        self._admission.check_protocol(codec.envelope(header))
        with self._stranger():
            response = self._handler.on_join(request, _time_left(call))
        return codec.encode_join_response(response)

    def _remove(self, wire: bytes, call: ServerCall) -> bytes:
        header, request = codec.decode_remove(wire)
        self._admission.check_own_cluster(codec.envelope(header))
        with self._stranger():
            response = self._handler.on_remove(request, _time_left(call))
        return codec.encode_remove_response(response)

    # --- around them -----------------------------------------------------------------------------

    def _methods(self) -> dict[str, Method]:
        unary: dict[str, Unary] = {
            channels.REQUEST_VOTE: self._request_vote,
            channels.TIMEOUT_NOW: self._timeout_now,
            channels.IDENTIFY: self._identify,
            channels.COMPARE_DIGEST: self._compare_digest,
            channels.JOIN: self._join,
            channels.REMOVE: self._remove,
        }
        methods = {
            channels.APPEND_ENTRIES: Method(self._append_entries),
            channels.FORWARD_STREAM: Method(self._forward),
        }
        for path, behaviour in unary.items():
            methods[path] = Method(partial(self._serve_unary, behaviour), waits=True)
        if self._snapshots is not None:
            methods[channels.INSTALL_SNAPSHOT] = Method(
                partial(self._guarded, self._snapshots.install), waits=True
            )
        return methods

    def _serve_unary(self, behaviour: Unary, call: ServerCall) -> None:
        wire = next(call.messages(), None)
        if wire is None:
            call.finish(grpc.StatusCode.INVALID_ARGUMENT, "a call without a message")
        else:
            self._guarded(partial(behaviour, wire), call)

    def _guarded(self, behaviour: Callable[[ServerCall], bytes], call: ServerCall) -> None:
        """Answer, or turn what went wrong into a status for the caller and a line here."""
        try:
            answer = behaviour(call)
        except Rejection as error:
            rejection = error
        except (Malformed, InvalidMessage) as error:
            rejection = malformed(error)
        except (Exception, gevent.Timeout):
            _LOGGER.exception("failed to answer a call")
            rejection = Rejection(grpc.StatusCode.INTERNAL, "", "internal error")
        else:
            call.answer(answer)
            return
        if not call.gone:
            self._rejected(call.peer, rejection)
            call.finish(rejection.status, rejection.detail)

    def _rejected(self, where: str, rejection: Rejection, sender: str = "") -> None:
        """Log it; ``where`` is gRPC's, like ``ipv4:127.0.0.1:4711``."""
        if rejection.reason not in {"", "replaced", "stopping"}:
            who = sender or rejection.sender or where.rpartition(":")[0]
            self._refusals.refused(who, rejection.reason, rejection.detail)

    @contextmanager
    def _stranger(self) -> Iterator[None]:
        """Hold one of the few places for calls that anybody may make."""
        if self._strangers >= _MAX_STRANGERS:
            raise too_many("calls at once")
        self._strangers += 1
        try:
            yield
        finally:
            self._strangers -= 1

    def _header_to(self, envelope: codec.Envelope) -> codec.Header:
        local = self._admission
        return codec.header(
            local.cluster_id,
            local.member_id,
            local.incarnation,
            envelope.sender,
            envelope.sender_incarnation,
        )


def _time_left(call: ServerCall) -> float:
    """How long the caller will wait."""
    left = call.seconds_left
    return _LONGEST_CALL_SECONDS if left is None else min(left, _LONGEST_CALL_SECONDS)


def _bind_error(address: str) -> BindFailed:
    """Why the address cannot be had: gRPC does not say, the system does."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _name, where in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(where)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return PortInUse(
                f"cannot listen on {address}: the port is in use; stop what uses it, or choose "
                "another with --port"
            )
        return BindFailed(f"cannot listen on {address}: {error.strerror or error}")
    except ValueError:
        return BindFailed(f"cannot listen on {address!r}: not host:port")
    return BindFailed(f"cannot listen on {address}")
