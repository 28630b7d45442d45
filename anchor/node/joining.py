"""Getting into a cluster: a new node asks its peers until it sees that it is a member."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gevent

from anchor.node.founding import Founding
from anchor.transport import JoinRequest, JoinResponse, TransportError

if TYPE_CHECKING:
    from anchor.node.node import Parts

_log = logging.getLogger("anchor.membership")

BACKOFF_SECONDS = (0.1, 2.0)
LOOK_AROUND_SECONDS = 0.2
PATIENCE_SECONDS = 2.0
CALL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """How a node without data gets into a cluster."""

    learner: bool = False  # for good: without a vote
    replace: bool = False  # take the place of the member of its id, whose disk is lost
    bootstrap_expect: int = 0  # found a cluster together with others; 0: only join one


class Joiner:
    """Asks to be let in. A peer that does not lead passes the question on."""

    def __init__(self, parts: Parts) -> None:
        self._raft = parts.raft
        self._transport = parts.transport
        self._directory = parts.directory
        self._peers = parts.peers
        itself = parts.itself
        self._request = JoinRequest(
            itself.id,
            itself.address,
            itself.http_address,
            itself.incarnation,
            voter=not parts.joining.learner,
            replace=parts.joining.replace,
        )
        self._founding = Founding(parts) if parts.joining.bootstrap_expect else None

    @property
    def is_needed(self) -> bool:
        """Whether this node has somebody to ask, and a reason to.

        Not if its log knows any members: then it is one of them, or was removed and must not
        let itself in again.
        """
        return bool(self._peers) and not self._raft.configuration.members

    @property
    def view(self) -> tuple[str, ...]:
        """With whom this node would found a cluster."""
        return self._founding.view if self._founding is not None else ()

    @property
    def _is_member(self) -> bool:
        # In its own committed configuration: any other could still be overruled.
        return self._raft.id in self._raft.committed_configuration.members

    def run(self) -> None:
        """Ask, with back-off, until this node sees that it is a member."""
        if self._founding is None:
            _log.info("asks to be let in: %s", ", ".join(self._peers))
        backoff_seconds, most = BACKOFF_SECONDS
        said: set[str] = set()
        began = time.monotonic()
        while not self._is_member and not self._raft.is_removed:
            if not self._is_cluster_there():
                gevent.sleep(random.uniform(0.5, 1) * LOOK_AROUND_SECONDS)  # noqa: S311
                began = time.monotonic()
                continue
            reasons = self._ask()
            # Nodes that are started together find each other soon: no need to worry anybody.
            if time.monotonic() - began > PATIENCE_SECONDS:
                for why in sorted(reasons - said):
                    _log.warning("%s", why)
                said |= reasons
            gevent.sleep(random.uniform(backoff_seconds / 2, backoff_seconds))  # noqa: S311
            backoff_seconds = min(most, backoff_seconds * 1.5)

    def _is_cluster_there(self) -> bool:
        """Whether there is somebody to ask; founds the cluster if that is this node's part."""
        if self._founding is None or self._directory.identity.cluster_id:
            return True
        return self._founding.look_around()

    def _ask(self) -> set[str]:
        """Return what keeps this node out, in the words of each peer; nothing once let in."""
        reasons: set[str] = set()
        for peer in self._peers if self._founding is None else self._founding.others:
            try:
                response = self._transport.join(peer, self._request, CALL_SECONDS)
            except TransportError as error:
                reasons.add(f"cannot ask to be let in: {error}")
                continue
            if not response.error_code:
                self._let_in(response)
                return set()
            reasons.add(f"{peer} does not let this node in: {response.error_detail}")
        return reasons

    def _let_in(self, response: JoinResponse) -> None:
        if self._directory.identity.cluster_id:
            return
        pool = gevent.get_hub().threadpool
        pool.apply(self._directory.set_cluster_id, (response.cluster_id,))
        self._transport.set_cluster_id(response.cluster_id)
        _log.info("let into cluster %s by %s", response.cluster_id, response.leader_id)
