"""What arrives from other nodes, brought to the part of this node that deals with it.

The transport wants its handler before there is a node, and the node wants its transport: the
listener is made first and told of the node afterwards, before anything can arrive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.node.node import Node
    from anchor.raft import Message
    from anchor.transport import (
        CompareDigest,
        ForwardRequest,
        ForwardResponse,
        Identification,
        JoinRequest,
        JoinResponse,
        RemoveRequest,
        RemoveResponse,
    )


class Listener:
    """The node's side of the transport: a ``transport.TransportHandler``."""

    _node: Node

    def serve(self, node: Node) -> None:
        """Bring everything to this node from now on."""
        self._node = node

    def on_message(self, message: Message) -> None:
        """A member said this."""
        self._node.receive(message)

    def on_disconnected(self, member_id: str) -> None:
        """The stream to this member broke."""
        self._node.disconnected(member_id)

    def on_forward(self, request: ForwardRequest, reply: Callable[[ForwardResponse], None]) -> None:
        """A member takes this node for the leader."""
        if request.lease:
            self._node.catch_up_with_time()
        self._node.forwarding.asked(request, reply)
        self._node.wake()

    def on_forward_response(self, leader_id: str, response: ForwardResponse) -> None:
        """The leader answered."""
        self._node.forwarding.answered(leader_id, response)
        self._node.wake()

    def on_forward_broken(self, leader_id: str) -> None:
        """The stream to the leader is gone."""
        self._node.forwarding.broken(leader_id)
        self._node.wake()

    def on_join(self, request: JoinRequest, timeout_seconds: float) -> JoinResponse:
        """Somebody wants in."""
        return self._node.membership.on_join(request, timeout_seconds)

    def on_remove(self, request: RemoveRequest, timeout_seconds: float) -> RemoveResponse:
        """Somebody shall go."""
        return self._node.membership.on_remove(request, timeout_seconds)

    def on_identify(self) -> Identification:
        """Say who we are."""
        return self._node.membership.identification()

    def on_compare_digest(self, question: CompareDigest) -> bytes | None:
        """A leader compares digests."""
        return self._node.membership.digests.asked(question)
