"""The transport itself: see the manual in :mod:`anchor.transport`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from anchor.raft.configuration import Member
from anchor.raft.messages import Message
from anchor.transport.handler import TransportHandler
from anchor.transport.options import LocalMember, TransportOptions
from anchor.transport.questions import (
    Identification,
    JoinRequest,
    JoinResponse,
    RemoveRequest,
    RemoveResponse,
)


class ForwardStream:
    """One stream of questions to a leader. Numbers are the caller's, rising."""

    leader_id: str

    @property
    def closed(self) -> bool:
        """Whether it broke or was closed."""
        raise NotImplementedError

    def propose(self, number: int, batches: Sequence[bytes]) -> None:
        """Ask for these to be proposed, in order, each a log entry. Never blocks.

        Raises ForwardClosed. Answered only when refused.
        """
        raise NotImplementedError

    def read_index(self, number: int, *, lease: bool = False) -> None:
        """Ask for a read index. Never blocks; raises ForwardClosed; always answered."""
        raise NotImplementedError

    def close(self) -> None:
        """End it without ``on_forward_broken``. Idempotent."""
        raise NotImplementedError


class Transport:
    """Carries everything between this member and the others."""

    def __init__(
        self,
        local: LocalMember,
        bind_address: str,
        handler: TransportHandler,
        options: TransportOptions | None = None,
    ) -> None:
        raise NotImplementedError

    @property
    def port(self) -> int:
        """The port listened on, once started (``bind_address`` may end in ``:0``)."""
        raise NotImplementedError

    def start(self) -> None:
        """Bind and serve. Raises PortInUse or BindFailed."""
        raise NotImplementedError

    def stop(self, grace_seconds: float = 1.0) -> None:
        """End everything within the grace; calls under way get that long. Idempotent."""
        raise NotImplementedError

    def set_cluster_id(self, cluster_id: str) -> None:
        """From now on speak, and be spoken to, as a node of this cluster."""
        raise NotImplementedError

    def set_members(self, members: Iterable[Member]) -> None:
        """These are the members now, oneself among them or not. Idempotent, cheap when unchanged."""
        raise NotImplementedError

    def send(self, messages: Sequence[Message]) -> None:
        """Pass these on to their recipients. Never blocks, never raises; may drop."""
        raise NotImplementedError

    def refuse(self, member_id: str, reason: str) -> None:
        """The core found this member's message to be nonsense: end its streams, log it."""
        raise NotImplementedError

    def connected(self, member_id: str) -> bool:
        """Whether this member was heard of late, by whatever way."""
        raise NotImplementedError

    def forward(self, leader_id: str) -> ForwardStream:
        """Open a stream of questions to this member. Raises Unreachable if it is not known."""
        raise NotImplementedError

    def identify(self, address: str, timeout_seconds: float) -> Identification:
        """Ask who answers at ``host:port``."""
        raise NotImplementedError

    def join(self, address: str, request: JoinRequest, timeout_seconds: float) -> JoinResponse:
        """Ask the node at ``host:port`` to let a member in."""
        raise NotImplementedError

    def remove(
        self, address: str, request: RemoveRequest, timeout_seconds: float
    ) -> RemoveResponse:
        """Ask the node at ``host:port`` to let a member go."""
        raise NotImplementedError

    def compare_digest(
        self, member_id: str, applied_index: int, majority_digest: bytes, timeout_seconds: float
    ) -> bytes | None:
        """Ask a member for its digest at an index; None: it does not know."""
        raise NotImplementedError
