"""What the node implements for the transport to call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.raft.messages import Message
    from anchor.transport.questions import (
        CompareDigest,
        ForwardRequest,
        ForwardResponse,
        Identification,
        JoinRequest,
        JoinResponse,
        RemoveRequest,
        RemoveResponse,
    )


class TransportHandler(Protocol):
    """The node's side. See the manual in :mod:`anchor.transport` for when each is called."""

    def on_message(self, message: Message) -> None:
        """A member said this. Return at once; may raise ``anchor.raft.InvalidMessage``."""

    def on_disconnected(self, member_id: str) -> None:
        """The stream to this member broke."""

    def on_forward(self, request: ForwardRequest, reply: Callable[[ForwardResponse], None]) -> None:
        """A member asks its leader. ``reply`` never blocks, works from any greenlet, also later.

        Call it at most once; never for a proposal that was accepted. Once the asker is gone it
        does nothing.
        """

    def on_forward_response(self, leader_id: str, response: ForwardResponse) -> None:
        """The leader answered what was asked through ``Transport.forward``."""

    def on_forward_broken(self, leader_id: str) -> None:
        """The forward stream to this leader is gone; what was unanswered is in doubt."""

    def on_join(self, request: JoinRequest, timeout_seconds: float) -> JoinResponse:
        """Somebody wants in. May block up to the timeout, after which nobody waits."""

    def on_remove(self, request: RemoveRequest, timeout_seconds: float) -> RemoveResponse:
        """Somebody shall go. May block up to the timeout, after which nobody waits."""

    def on_identify(self) -> Identification:
        """Say who we are."""

    def on_compare_digest(self, question: CompareDigest) -> bytes | None:
        """Our digest at that index, or None: not applied yet, or too long ago."""
