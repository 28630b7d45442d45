"""The transport itself: see the manual in :mod:`anchor.transport`."""

from __future__ import annotations

import logging
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from gevent.event import Event

from anchor.raft.errors import InvalidMessage
from anchor.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshotResponse,
    Message,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from anchor.transport import channel as channels
from anchor.transport import codec
from anchor.transport.admission import Admission
from anchor.transport.channel import Channel, translated
from anchor.transport.codec import Malformed
from anchor.transport.errors import CallRefused, Unreachable
from anchor.transport.forwarding import ForwardStream
from anchor.transport.greenlets import Greenlets
from anchor.transport.options import LocalMember, TransportOptions
from anchor.transport.parts import Parts
from anchor.transport.peer import Peer
from anchor.transport.rpc import CallFailed, Pump
from anchor.transport.server import Server
from anchor.transport.snapshot_sending import SnapshotSending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from anchor.raft.configuration import Member
    from anchor.raft.messages import InstallSnapshot
    from anchor.transport.handler import TransportHandler
    from anchor.transport.questions import (
        Identification,
        JoinRequest,
        JoinResponse,
        RemoveRequest,
        RemoveResponse,
    )
    from anchor.transport.snapshots import SnapshotReceiver, SnapshotSource

T = TypeVar("T")

_LOGGER = logging.getLogger("anchor.transport")


class Transport:
    """Carries everything between this member and the others."""

    def __init__(
        self,
        local: LocalMember,
        bind_address: str,
        handler: TransportHandler,
        options: TransportOptions | None = None,
        snapshot_receiver: SnapshotReceiver | None = None,
    ) -> None:
        self._admission = Admission(local)
        self._options = options or TransportOptions()
        self._greenlets = Greenlets()
        self._parts = Parts(
            self._admission,
            handler,
            self._options,
            self._greenlets,
            random.Random(),  # noqa: S311 - jitter, no secret
            Pump(),
        )
        self._server = Server(bind_address, self._parts, self._spoke, snapshot_receiver)
        self._peers: dict[str, Peer] = {}
        self._forwards: dict[str, ForwardStream] = {}
        self._sendings: set[SnapshotSending] = set()
        self._stopped = Event()

    @property
    def port(self) -> int:
        """The port listened on, once started (``bind_address`` may end in ``:0``)."""
        return self._server.port

    def start(self) -> None:
        """Bind and serve. Raises PortInUse or BindFailed."""
        self._server.start()
        self._greenlets.spawn("monitor", self._monitor)

    def stop(self, grace_seconds: float = 1.0) -> None:
        """End everything within the grace; calls under way get that long. Idempotent."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        until = time.monotonic() + grace_seconds
        for peer in self._peers.values():  # all of them first: nothing is said about any of them
            peer.retire()
        for stream in list(self._forwards.values()):
            stream.close()
        for sending in list(self._sendings):
            sending.close()
        for peer in self._peers.values():
            peer.close()
        self._server.stop(grace_seconds)
        self._greenlets.join(max(0.1, until - time.monotonic()))
        self._parts.pump.close()

    # --- who is who --------------------------------------------------------------------------

    def set_cluster_id(self, cluster_id: str) -> None:
        """From now on speak, and be spoken to, as a node of this cluster."""
        self._admission.set_cluster_id(cluster_id)

    def set_members(self, members: Iterable[Member]) -> None:
        """Replace the members, oneself among them or not. Cheap, and never switches greenlets."""
        wanted = {m.id: m for m in members if m.id != self._admission.member_id}
        if wanted == self._admission.members or self._stopped.is_set():
            return
        self._admission.set_members(wanted.values())
        for member_id, peer in list(self._peers.items()):
            if not _same_place(peer.member, wanted.get(member_id)):
                del self._peers[member_id]
                peer.close()
        for member_id, member in wanted.items():
            if member_id not in self._peers and member.address:
                peer = Peer(member, self._parts)
                self._peers[member_id] = peer
                self._greenlets.spawn(f"peer-{member_id}", peer.run)

    def connected(self, member_id: str) -> bool:
        """Whether this member was heard of late, by whatever way."""
        peer = self._peers.get(member_id)
        return peer is not None and peer.link.connected

    def refuse(self, member_id: str, reason: str) -> None:
        """End a member's streams, and log why: the core found what it said to be nonsense."""
        self._server.refuse(member_id, reason)

    def _spoke(self, member_id: str, incarnation: int) -> None:
        peer = self._peers.get(member_id)
        if peer is not None and peer.member.incarnation in {0, incarnation}:
            peer.link.spoke()

    # --- messages ----------------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> None:
        """Pass these on to their recipients. Never blocks, never raises; may drop."""
        for message in messages:
            kind = type(message)
            if kind is AppendEntries:
                peer = self._peers.get(message.recipient)
                if peer is not None:
                    peer.append(message)  # type: ignore[arg-type]
            elif kind is AppendEntriesResponse:
                self._server.answer_append(message)  # type: ignore[arg-type]
            elif isinstance(message, RequestVote | TimeoutNow):
                self._ask(message)
            elif isinstance(message, RequestVoteResponse):
                self._server.answer_vote(message)
            elif isinstance(message, InstallSnapshotResponse):
                self._server.answer_snapshot(message)
            else:
                _LOGGER.error("no way to send a %s", kind.__name__)

    def _ask(self, message: RequestVote | TimeoutNow) -> None:
        """Make the call that a vote or a handover is."""
        peer = self._peers.get(message.recipient)
        if peer is None:
            return
        with suppress(CallFailed):  # its channel was closed a moment ago
            if isinstance(message, RequestVote):
                peer.vote(message)
            else:
                peer.timeout_now(message)

    def _monitor(self) -> None:
        """Judge silence, everybody's."""
        while not self._stopped.wait(self._options.round_seconds):
            now = time.monotonic()
            self._server.check(now)
            for peer in list(self._peers.values()):
                peer.link.look_round(now)
                try:
                    peer.check(now)
                except Exception:  # one that cannot be judged must not hide the others
                    _LOGGER.exception("failed to look after %s", peer.id)

    def send_snapshot(self, message: InstallSnapshot, source: SnapshotSource) -> None:
        """Send a snapshot's files and then the message itself; blocks until it is judged.

        The answer comes to ``on_message``, before this returns. Raises Unreachable when the
        transfer broke for good, SnapshotRefused, CallRefused for an answer that is nonsense, and
        whatever the source raised; then no answer comes. Give it a greenlet of its own, and report
        ``snapshot_sent`` to the core after it.
        """
        peer = self._peers.get(message.recipient)
        if peer is None or self._stopped.is_set():
            raise Unreachable(f"{message.recipient} is not a member we know")
        sending = SnapshotSending(peer.link, message, source)
        self._sendings.add(sending)
        try:
            response = sending.run()
        finally:
            self._sendings.discard(sending)
        try:
            self._parts.handler.on_message(response)
        except InvalidMessage as error:
            raise CallRefused("malformed", f"{message.recipient}: {error}") from None

    # --- forwarding --------------------------------------------------------------------------

    def forward(self, leader_id: str) -> ForwardStream:
        """Open a stream of questions to this member. Raises Unreachable if it is not known.

        Open it when there is something to ask: a stream on which nothing was said for
        ``first_message_timeout_ms`` is ended by the other side.
        """
        peer = self._peers.get(leader_id)
        if peer is None or self._stopped.is_set():
            raise Unreachable(f"{leader_id} is not a member we know")
        older = self._forwards.get(leader_id)
        if older is not None:
            older.close()
        stream = ForwardStream(peer, self._parts)
        self._forwards[leader_id] = stream
        self._greenlets.spawn(f"forward-{leader_id}", stream.run)
        return stream

    # --- calls -------------------------------------------------------------------------------

    def identify(self, address: str, timeout_seconds: float) -> Identification:
        """Ask who answers at ``host:port``."""
        local = self._admission
        wire = codec.encode_identify(local.cluster_id, local.member_id, local.incarnation)
        answer = self._call(address, channels.IDENTIFY, wire, timeout_seconds)
        return _read(codec.decode_identification, answer, address)

    def join(self, address: str, request: JoinRequest, timeout_seconds: float) -> JoinResponse:
        """Ask the node at ``host:port`` to let a member in."""
        wire = codec.encode_join(self._header_to_anybody(), request)
        answer = self._call(address, channels.JOIN, wire, timeout_seconds)
        return _read(codec.decode_join_response, answer, address)

    def remove(
        self, address: str, request: RemoveRequest, timeout_seconds: float
    ) -> RemoveResponse:
        """Ask the node at ``host:port`` to let a member go."""
        wire = codec.encode_remove(self._header_to_anybody(), request)
        answer = self._call(address, channels.REMOVE, wire, timeout_seconds)
        return _read(codec.decode_remove_response, answer, address)

    def compare_digest(
        self, member_id: str, applied_index: int, majority_digest: bytes, timeout_seconds: float
    ) -> bytes | None:
        """Ask a member for its digest at an index; None: it does not know."""
        peer = self._peers.get(member_id)
        if peer is None:
            raise Unreachable(f"{member_id} is not a member we know")
        wire = codec.encode_compare_digest(peer.link.header(), applied_index, majority_digest)
        address = peer.member.address
        try:
            channel = peer.link.channel()
        except CallFailed:  # closed a moment ago
            raise Unreachable(f"{member_id} is no member any more, or we stop") from None
        answer = _ask(channel, channels.COMPARE_DIGEST, wire, timeout_seconds)
        return _read(codec.decode_digest, answer, address)[1]

    def _header_to_anybody(self) -> codec.Header:
        local = self._admission
        return codec.header(local.cluster_id, local.member_id, local.incarnation, "", 0)

    def _call(self, address: str, path: str, wire: bytes, timeout_seconds: float) -> bytes:
        try:
            channel = Channel(address, self._options.max_message_bytes, self._parts.pump)
        except ValueError as error:  # it cannot even be encoded
            raise Unreachable(f"{address!a}: no address ({error})") from None
        try:
            return _ask(channel, path, wire, timeout_seconds)
        finally:
            channel.close()


def _ask(channel: Channel, path: str, wire: bytes, timeout_seconds: float) -> bytes:
    try:
        return channel.call(path, wire, timeout_seconds)
    except CallFailed as error:
        raise translated(error, channel.address) from None


def _read(decode: Callable[[bytes], T], wire: bytes, address: str) -> T:
    try:
        return decode(wire)
    except Malformed as error:
        raise CallRefused("malformed", f"{address}: {error}") from None


def _same_place(one: Member, other: Member | None) -> bool:
    return (
        other is not None and one.address == other.address and one.incarnation == other.incarnation
    )


__all__ = ["ForwardStream", "Transport"]
