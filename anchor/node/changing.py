"""One change of membership at a time: finding the leader, and seeing a change through.

Every change is made by the leader and is done once a *committed* configuration is as wished: what
is in force may still be overruled, and so may a proposal. Whoever is asked instead of the leader
passes the question on, one hop.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import gevent

from anchor.node.errors import (
    CHANGE_IN_PROGRESS,
    MembershipError,
    NodeError,
    NoLeader,
    Removed,
    RequestTimeout,
)
from anchor.raft import (
    ChangeInProgress,
    InvalidConfiguration,
    NotLeader,
    NotReady,
    Role,
    TransferInProgress,
)
from anchor.transport import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anchor.node.node import Node, Parts
    from anchor.raft import Configuration, Member
    from anchor.transport import JoinResponse, RemoveResponse

T = TypeVar("T")

RETRY_SECONDS = 0.02  # while a change is under way


class Changes:
    """Asks the leader, or is it; proposes and waits."""

    def __init__(self, node: Node, parts: Parts) -> None:
        self._node = node
        self._directory = parts.directory
        self.raft = parts.raft
        self.transport = parts.transport
        self._exclusive = ""  # the one change that lets no other begin

    # ----------------------------------------------------------------- who leads?

    def through_leader(
        self,
        lead: Callable[[], T],
        ask: Callable[[Member, float], T],
        deadline: float,
        *,
        forwarded: bool,
    ) -> T:
        """Do it as leader, or ask whoever leads; again, until it is done or time is up.

        ``ask`` gets the leader and how many seconds there are. What was ``forwarded`` goes no
        further: who sent it looks for the leader anew. Raises a NodeError.
        """
        raft = self.raft
        if not self._directory.identity.cluster_id:
            raise NoLeader(f"{raft.id} is in no cluster itself yet")
        while True:
            if raft.is_removed:
                raise Removed("this node was removed from its cluster")
            leader_id = raft.leader_id
            leader = raft.configuration.members.get(leader_id or "")
            try:
                if raft.role is Role.LEADER:
                    return lead()
                if leader is not None and not forwarded:
                    return ask(leader, max(0.1, deadline - time.monotonic()))
            except NotLeader:
                pass  # not any more: whoever follows is asked
            except NoLeader as error:
                self.pause(deadline, str(error), NoLeader)
            if forwarded and raft.role is not Role.LEADER:
                raise NoLeader(f"{raft.id} does not lead; {leader_id or 'nobody'} may")
            if leader is None:
                self.pause(deadline, "no leader is known", NoLeader)

    def pause(self, deadline: float, why: str, error: type[NodeError] = RequestTimeout) -> None:
        """Let others go on for a moment; raises the error once time is up."""
        if time.monotonic() >= deadline:
            raise error(why)
        self._node.wake()
        gevent.sleep(RETRY_SECONDS)

    def wake(self) -> None:
        """Let the node see at once what was proposed."""
        self._node.wake()

    # ----------------------------------------------------------------- as leader

    @contextmanager
    def exclusively(self, what: str) -> Iterator[None]:
        """Let no other change begin meanwhile; raises MembershipError if another has."""
        self.check_free()
        self._exclusive = what
        try:
            yield
        finally:
            self._exclusive = ""

    def check_free(self) -> None:
        """Raise MembershipError while a change is under way that tolerates no other."""
        if self._exclusive:
            raise MembershipError(f"{self._exclusive} is under way", CHANGE_IN_PROGRESS)

    def change(
        self,
        change: Callable[[Configuration], Configuration],
        is_done: Callable[[Configuration], bool],
        deadline: float,
    ) -> None:
        """Change the configuration until a committed one is as wished.

        Raises NotLeader, for the next leader to be asked, or a NodeError.
        """
        raft = self.raft
        while not is_done(raft.committed_configuration) or raft.committed_configuration.is_joint:
            try:
                target = change(raft.configuration)
                if target != raft.configuration:
                    raft.propose_configuration(target)
                elif raft.role is not Role.LEADER:
                    raise NotLeader(raft.leader_id)
            except (ChangeInProgress, NotReady, TransferInProgress):
                pass  # soon
            except InvalidConfiguration as error:
                raise MembershipError(str(error)) from None
            self.pause(deadline, "the change of membership is not committed yet")


def answer_of(
    leader: Member, call: Callable[[], JoinResponse | RemoveResponse]
) -> JoinResponse | RemoveResponse:
    """Make the call to the leader; raises what it answered, as the error it was there."""
    try:
        response = call()
    except TransportError as error:
        raise NoLeader(
            f"the leader {leader.id} at {leader.address} did not answer: {error}"
        ) from None
    if response.error_code:
        raise _refusal(response.error_code, response.error_detail)
    return response


def _refusal(code: str, detail: str) -> NodeError:
    for kind in (NoLeader, RequestTimeout, Removed):
        if code == kind.code:
            return NoLeader(detail) if kind is Removed else kind(detail)
    return MembershipError(detail, code)
