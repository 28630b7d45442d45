"""Who belongs to the cluster: letting members in and out, promoting them, handing over.

Joining: the leader dials the new address first, so a wrong
one costs nothing; then it adds a learner, which has no vote, so the quorum stays what it was; and
promotes it once it has caught up. What a learner shall become stands in the configuration itself
(``Member.promote``), so a new leader goes on where the old one stopped.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import gevent

from anchor.node.digests import Digests
from anchor.node.errors import MembershipError, NodeError, NoLeader, RequestTimeout
from anchor.node.versions import Protocols, check_joiner
from anchor.raft import (
    ChangeInProgress,
    Configuration,
    InvalidConfiguration,
    Member,
    NotLeader,
    NotReady,
    Refused,
    Role,
    TransferInProgress,
)
from anchor.settings import NEWEST_PROTOCOL, OLDEST_PROTOCOL, VERSION
from anchor.transport import (
    Identification,
    JoinRequest,
    JoinResponse,
    RemoveRequest,
    RemoveResponse,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.node.node import Node, Parts

_log = logging.getLogger("anchor.membership")

T = TypeVar("T")

DIAL_SECONDS = 2.0
RETRY_SECONDS = 0.02  # while a change is under way
STEWARD_SECONDS = 0.1
DIGEST_SECONDS = 1.0
CAUGHT_UP_ENTRIES = 64  # a learner this close to the commit index can vote
DEPARTED_SECONDS = 30.0  # how long one who was removed is still told so


class Membership:
    """The part of a node that knows who belongs."""

    def __init__(self, node: Node, parts: Parts) -> None:
        self._node = node
        self._raft = parts.raft
        self._transport = parts.transport
        self._directory = parts.directory
        self.itself = parts.itself
        self.digests = Digests(parts.raft, parts.machine, parts.transport, node.die)
        self._protocols = Protocols(parts.raft, parts.transport)
        self._departing: dict[str, tuple[float, Member]] = {}  # and when it left
        self._configuration = Configuration()

    # ----------------------------------------------------------------- who is who

    @property
    def cluster_id(self) -> str:
        """Empty until this node is in a cluster."""
        return self._directory.identity.cluster_id

    def identification(self) -> Identification:
        """Who answers at this node's address."""
        return Identification(
            self.itself.id,
            self.itself.incarnation,
            self.cluster_id,
            self.itself.address,
            self.itself.http_address,
            VERSION,
            OLDEST_PROTOCOL,
            NEWEST_PROTOCOL,
        )

    def configuration_changed(self, configuration: Configuration) -> None:
        """Another configuration is in force."""
        before, self._configuration = self._configuration, configuration
        gone = {i: m for i, m in before.members.items() if i not in configuration.members}
        self._departing |= {i: (time.monotonic(), member) for i, member in gone.items()}
        self._tell_transport()
        for member_id in sorted(configuration.members.keys() - before.members.keys()):
            if before.members:
                _log.info("%s is a member now", member_id)
        for member_id in sorted(gone):
            _log.info("%s is no member any more", member_id)
        for member_id in sorted(configuration.voters - before.voters):
            if before.members:
                _log.info("%s is a voter now", member_id)

    def _tell_transport(self) -> None:
        """Speak to all members, and for a while to those who were removed: they have to hear it."""
        now = time.monotonic()
        members = self._configuration.members
        self._departing = {
            i: (left, member)
            for i, (left, member) in self._departing.items()
            if i not in members and now - left < DEPARTED_SECONDS
        }
        departing = [member for _, member in self._departing.values()]
        self._transport.set_members([*members.values(), *departing])

    # ----------------------------------------------------------------- letting in

    def on_join(self, request: JoinRequest, timeout_seconds: float) -> JoinResponse:
        """Answer a node that asks over the wire; it need not wait to be promoted."""
        try:
            member = self._admit(request, time.monotonic() + timeout_seconds)
        except NodeError as error:
            return JoinResponse(error.code, str(error))
        return JoinResponse(
            cluster_id=self.cluster_id,
            leader_id=self._raft.leader_id or "",
            promoted=not member.promote,
        )

    def admit(
        self,
        member_id: str,
        address: str,
        http_address: str,
        *,
        voter: bool,
        timeout_seconds: float,
    ) -> None:
        """Answer an operator: returns once it is what it shall be."""
        deadline = time.monotonic() + timeout_seconds
        request = JoinRequest(member_id, address, http_address, voter=voter)
        self._admit(request, deadline)
        while True:
            member = self._raft.committed_configuration.members.get(member_id)
            if member is not None and not member.promote:
                return
            self._pause(deadline, f"{member_id} was let in, but has not caught up yet")

    def _admit(self, request: JoinRequest, deadline: float) -> Member:
        """Make it a member, or ask the leader to; raises a NodeError."""
        return self._through_leader(
            lambda: self._admit_as_leader(request, deadline),
            lambda leader: self._ask_leader_to_admit(leader, request, deadline),
            deadline,
            forwarded=request.forwarded,
        )

    def _through_leader(
        self, lead: Callable[[], T], ask: Callable[[Member], T], deadline: float, *, forwarded: bool
    ) -> T:
        """Do it as leader, or ask whoever leads; again, until it is done or time is up.

        What was ``forwarded`` goes no further: who sent it looks for the leader anew.
        """
        if not self.cluster_id:
            raise NoLeader(f"{self._raft.id} is in no cluster itself yet")
        while True:
            leader_id = self._raft.leader_id
            leader = self._raft.configuration.members.get(leader_id or "")
            try:
                if self._raft.role is Role.LEADER:
                    return lead()
                if leader is not None and not forwarded:
                    return ask(leader)
            except NotLeader:
                pass  # not any more: whoever follows is asked
            except NoLeader as error:
                self._pause(deadline, str(error), NoLeader)
            if forwarded and self._raft.role is not Role.LEADER:
                raise NoLeader(f"{self._raft.id} does not lead; {leader_id or 'nobody'} may")
            if leader is None:
                self._pause(deadline, "no leader is known", NoLeader)

    def _ask_leader_to_admit(self, leader: Member, request: JoinRequest, deadline: float) -> Member:
        try:
            response = self._transport.join(
                leader.address,
                replace(request, forwarded=True),
                max(0.1, deadline - time.monotonic()),
            )
        except TransportError as error:
            raise _silent(leader, error) from None
        if response.error_code:
            raise _refusal(response.error_code, response.error_detail)
        return Member(request.member_id, request.address, promote=not response.promoted)

    def _admit_as_leader(self, request: JoinRequest, deadline: float) -> Member:
        member = self._known_as(request, self._raft.configuration)
        if member is None:
            found = self._dial(request)
            member = Member(
                request.member_id,
                request.address,
                request.http_address or found.http_address,
                found.incarnation,
                promote=request.voter,
            )
        joining = member

        def with_learner(configuration: Configuration) -> Configuration:
            # Asked again of the configuration that is changed: there may have been another.
            if self._known_as(request, configuration) is not None:
                return configuration
            return replace(
                configuration,
                members={**configuration.members, joining.id: joining},
                learners=configuration.learners | {joining.id},
            )

        self._change(with_learner, lambda committed: joining.id in committed.members, deadline)
        return self._raft.committed_configuration.members.get(joining.id, joining)

    @staticmethod
    def _known_as(request: JoinRequest, configuration: Configuration) -> Member | None:
        """The member it already is; raises MembershipError if it cannot be that one."""
        members = configuration.members
        known = members.get(request.member_id)
        if known is None:
            for other in members.values():
                if other.address == request.address:
                    raise MembershipError(f"{request.address} is the address of {other.id}")
            return None
        if known.address != request.address:
            raise MembershipError(f"{known.id} is a member already, at {known.address}")
        if request.incarnation and known.incarnation != request.incarnation:
            raise MembershipError(
                f"{known.id} is a member already, with another data directory: a wiped voter could "
                f"vote twice. Remove {known.id} first, then let it join",
                "incarnation_conflict",
            )
        return known

    def _dial(self, request: JoinRequest) -> Identification:
        """Who answers there? A wrong address must never become part of a quorum."""
        try:
            found = self._transport.identify(request.address, DIAL_SECONDS)
        except TransportError as error:
            raise MembershipError(
                f"nobody answers at {request.address}: {error}", "unreachable", 422
            ) from None
        if found.member_id != request.member_id:
            raise MembershipError(
                f"the node at {request.address} is {found.member_id}, not {request.member_id}",
                "wrong_node",
                422,
            )
        if found.cluster_id and found.cluster_id != self.cluster_id:
            raise MembershipError(
                f"the node at {request.address} is in another cluster, {found.cluster_id}"
            )
        check_joiner(found, self._raft.configuration)
        if request.incarnation and found.incarnation != request.incarnation:
            raise MembershipError(
                f"the node at {request.address} is not the one that asks", "wrong_node", 422
            )
        return found

    # ----------------------------------------------------------------- letting go

    def on_remove(self, request: RemoveRequest, timeout_seconds: float) -> RemoveResponse:
        """Answer a node that passes a removal on."""
        try:
            self._expel(request.member_id, time.monotonic() + timeout_seconds, forwarded=True)
        except NodeError as error:
            return RemoveResponse(error.code, str(error))
        return RemoveResponse()

    def expel(self, member_id: str, timeout_seconds: float) -> None:
        """Answer an operator: returns once it is out."""
        self._expel(member_id, time.monotonic() + timeout_seconds, forwarded=False)

    def _expel(self, member_id: str, deadline: float, *, forwarded: bool) -> None:
        self._through_leader(
            lambda: self._expel_as_leader(member_id, deadline),
            lambda leader: self._ask_leader_to_expel(leader, member_id, deadline),
            deadline,
            forwarded=forwarded,
        )

    def _ask_leader_to_expel(self, leader: Member, member_id: str, deadline: float) -> None:
        try:
            response = self._transport.remove(
                leader.address,
                RemoveRequest(member_id, forwarded=True),
                max(0.1, deadline - time.monotonic()),
            )
        except TransportError as error:
            raise _silent(leader, error) from None
        if response.error_code:
            raise _refusal(response.error_code, response.error_detail)

    def _expel_as_leader(self, member_id: str, deadline: float) -> None:
        self._check_removal(member_id, self._raft.configuration)
        if member_id == self._raft.id:
            # Who goes on shall lead the removal, so that there is no silence after it.
            self.hand_over(max(0.1, (deadline - time.monotonic()) / 2))

        def without(configuration: Configuration) -> Configuration:
            self._check_removal(member_id, configuration)
            return replace(
                configuration,
                members={i: m for i, m in configuration.members.items() if i != member_id},
                voters=configuration.voters - {member_id},
                learners=configuration.learners - {member_id},
            )

        self._change(without, lambda committed: member_id not in committed.members, deadline)

    def _check_removal(self, member_id: str, configuration: Configuration) -> None:
        """Raises MembershipError if the cluster could not go on without this voter."""
        if member_id not in configuration.voters:
            return
        remaining = configuration.voters - {member_id}
        if not remaining:
            raise MembershipError(
                f"{member_id} is the last voter; a cluster of none cannot be", "last_voter"
            )
        alive = {v for v in remaining if v == self._raft.id or self._transport.connected(v)}
        if len(alive) <= len(remaining) // 2:
            raise MembershipError(
                f"without {member_id}, {len(remaining)} voters would remain and only "
                f"{len(alive)} of them are reachable: the quorum would be lost",
                "quorum_would_be_lost",
            )

    # ----------------------------------------------------------------- one change at a time

    def _change(
        self,
        change: Callable[[Configuration], Configuration],
        is_done: Callable[[Configuration], bool],
        deadline: float,
    ) -> None:
        """As leader, change the configuration until a committed one is as wished.

        What is in force may still be overruled, and so may a proposal: only what is committed
        counts. Raises NotLeader, for the next leader to be asked, or a NodeError.
        """
        raft = self._raft
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
            self._pause(deadline, "the change of membership is not committed yet")

    def _pause(self, deadline: float, why: str, error: type[NodeError] = RequestTimeout) -> None:
        if time.monotonic() >= deadline:
            raise error(why)
        self._node.wake()
        gevent.sleep(RETRY_SECONDS)

    # ----------------------------------------------------------------- the steward

    def steward(self) -> None:
        """As leader: promote who has caught up; compare digests."""
        compared_at = time.monotonic()
        while True:
            gevent.sleep(STEWARD_SECONDS)
            if self._departing:
                self._tell_transport()
            if self._raft.role is not Role.LEADER:
                continue
            self._promote()
            if self._protocols.agree():
                self._node.wake()
            if time.monotonic() - compared_at >= DIGEST_SECONDS:
                compared_at = time.monotonic()
                self.digests.compare(self._raft.configuration.voters)

    def _promote(self) -> None:
        configuration = self._raft.configuration
        for learner in sorted(configuration.learners):
            member = configuration.members[learner]
            progress = self._raft.progress.get(learner)
            if not member.promote or progress is None or not progress.recently_active:
                continue
            if progress.match_index + CAUGHT_UP_ENTRIES < self._raft.commit_index:
                continue
            if not progress.match_index:
                continue
            promoted = replace(
                configuration,
                members={**configuration.members, learner: replace(member, promote=False)},
                voters=configuration.voters | {learner},
                learners=configuration.learners - {learner},
            )
            try:
                self._raft.propose_configuration(promoted)
            except Refused:
                return  # tried again soon
            self._node.wake()
            return

    # ----------------------------------------------------------------- handing over

    def hand_over(self, grace_seconds: float) -> None:
        """As leader: let the voter that is furthest take over, and wait until it does."""
        raft = self._raft
        deadline = time.monotonic() + grace_seconds
        while raft.role is Role.LEADER and time.monotonic() < deadline:
            candidates = [
                (progress.match_index, voter)
                for voter, progress in raft.progress.items()
                if voter in raft.configuration.voters
                and voter != raft.id
                and progress.has_room
                and self._transport.connected(voter)
            ]
            if not candidates:
                return
            if raft.transferring_to is None:
                _log.info("hands over to %s", max(candidates)[1])
                try:
                    raft.transfer_leadership(max(candidates)[1])
                except Refused:
                    return
                self._node.wake()
            gevent.sleep(0.01)

    def hand_over_for_good(self, grace_seconds: float) -> None:
        """As leader: let any voter with room take over, by an election if need be.

        Where there is none, it leads on: it may still answer reads.
        """
        self.hand_over(grace_seconds)
        voters = self._raft.configuration.voters
        if self._raft.role is Role.LEADER and any(
            progress.has_room and self._transport.connected(voter)
            for voter, progress in self._raft.progress.items()
            if voter in voters
        ):
            self._raft.step_down()
            self._node.wake()


def _silent(leader: Member, error: TransportError) -> NoLeader:
    return NoLeader(f"the leader {leader.id} at {leader.address} did not answer: {error}")


def _refusal(code: str, detail: str) -> NodeError:
    """Turn what the leader answered over the wire into the error it was."""
    if code == NoLeader.code:
        return NoLeader(detail)
    if code == RequestTimeout.code:
        return RequestTimeout(detail)
    return MembershipError(detail, code, 422 if code in {"unreachable", "wrong_node"} else 409)
