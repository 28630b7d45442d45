"""Letting members in: dial first, then a learner, which the steward promotes once caught up.

The leader dials the new address first, so a wrong one costs nothing; then it adds a learner, which
has no vote, so the quorum stays what it was. What a learner shall become stands in the
configuration itself (``Member.promote``), so a new leader goes on where the old one stopped.

A wiped node
============

Whoever comes under a member's id with another incarnation has not the disk that member made its
promises on: it could vote twice in a term, or deny what it acknowledged. It is refused, unless it
asks to take the old one's place (``--replace``). Then one change of the configuration makes the
old voter a learner with the new incarnation: the voters differ by one, so all majorities before
and after share a member (thesis §4.1), and the newcomer votes only once it has all there is. The
transport lets no message of the old incarnation through from then on. The old one must not answer
any more, and the others must be a quorum without it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from anchor.node.changing import answer_of
from anchor.node.errors import INCARNATION_CONFLICT, UNREACHABLE, WRONG_NODE, MembershipError
from anchor.node.versions import check_joiner
from anchor.raft import Member
from anchor.transport import Identification, JoinRequest, JoinResponse, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.node.changing import Changes
    from anchor.node.removing import Removing
    from anchor.raft import Configuration

DIAL_SECONDS = 2.0


class Admitting:
    """Makes nodes members."""

    def __init__(self, changes: Changes, removing: Removing, cluster_id: Callable[[], str]) -> None:
        self._changes = changes
        self._raft = changes.raft
        self._transport = changes.transport
        self._removing = removing
        self._cluster_id = cluster_id

    def admit(self, request: JoinRequest, deadline: float) -> Member:
        """Make it a member, or ask the leader to; it need not wait to be promoted."""
        return self._changes.through_leader(
            lambda: self._admit_as_leader(request, deadline),
            lambda leader, seconds: self._ask_leader(leader, request, seconds),
            deadline,
            forwarded=request.forwarded,
        )

    def await_part(self, request: JoinRequest, deadline: float) -> None:
        """Return once a member is what it was let in as: a learner for good, or a voter."""
        member_id = request.member_id
        while True:
            configuration = self._raft.committed_configuration
            member = configuration.members.get(member_id)
            if member is not None and not member.promote:
                break
            self._changes.pause(deadline, f"{member_id} was let in, but has not caught up yet")
        if request.voter and member_id in configuration.learners:
            raise MembershipError(
                f"{member_id} is a member without a vote: POST /members/{member_id}/promote gives "
                "it one"
            )
        if not request.voter and member_id in configuration.voters:
            raise MembershipError(f"{member_id} is a member with a vote already")

    def _ask_leader(self, leader: Member, request: JoinRequest, seconds: float) -> Member:
        passed_on = replace(request, forwarded=True)
        response = answer_of(
            leader, lambda: self._transport.join(leader.address, passed_on, seconds)
        )
        promoted = isinstance(response, JoinResponse) and response.promoted
        return Member(request.member_id, request.address, promote=not promoted)

    def _admit_as_leader(self, request: JoinRequest, deadline: float) -> Member:
        member = self._known_as(request, self._raft.configuration)
        found: Identification | None = None
        if member is None:
            # A member is answered all the same: it may wait for nothing else to take part.
            self._changes.check_free()
            found = self.dial(request)
            self._check_old_is_gone(request)
            member = Member(
                request.member_id,
                request.address,
                request.http_address or found.http_address,
                found.incarnation,
                promote=request.voter,
            )
        elif not request.incarnation:
            self._check_not_wiped(member)
        joining, dialled = member, found

        def with_learner(configuration: Configuration) -> Configuration:
            if dialled is not None:
                check_joiner(dialled, configuration)
            # Asked again of the configuration that is changed: there may have been another.
            if self._known_as(request, configuration) is not None:
                return configuration
            if joining.id in configuration.members:
                self._removing.check(joining.id, configuration)
            return replace(
                configuration,
                members={**configuration.members, joining.id: joining},
                voters=configuration.voters - {joining.id},
                learners=configuration.learners | {joining.id},
            )

        def is_in(committed: Configuration) -> bool:
            known = committed.members.get(joining.id)
            return known is not None and known.incarnation == joining.incarnation

        self._changes.change(with_learner, is_in, deadline)
        return self._raft.committed_configuration.members.get(joining.id, joining)

    @staticmethod
    def _known_as(request: JoinRequest, configuration: Configuration) -> Member | None:
        """The member it already is; raises MembershipError if it cannot be that one."""
        members = configuration.members
        for other in members.values():
            if other.address == request.address and other.id != request.member_id:
                raise MembershipError(f"{request.address} is the address of {other.id}")
        known = members.get(request.member_id)
        if known is None:
            return None
        if request.incarnation and known.incarnation not in {0, request.incarnation}:
            if request.replace:
                return None  # the newcomer takes its place
            raise wiped(known)
        if known.address != request.address:
            raise MembershipError(f"{known.id} is a member already, at {known.address}")
        return known

    def dial(self, request: JoinRequest) -> Identification:
        """Who answers there? A wrong address must never become part of a quorum."""
        try:
            found = self._transport.identify(request.address, DIAL_SECONDS)
        except TransportError as error:
            raise MembershipError(
                f"nobody answers at {request.address}: {error}", UNREACHABLE
            ) from None
        if found.member_id != request.member_id:
            raise MembershipError(
                f"the node at {request.address} is {found.member_id}, not {request.member_id}",
                WRONG_NODE,
            )
        if found.cluster_id not in {"", self._cluster_id()}:
            raise MembershipError(
                f"the node at {request.address} is in another cluster, {found.cluster_id}"
            )
        check_joiner(found, self._raft.configuration)
        if request.incarnation and found.incarnation != request.incarnation:
            raise MembershipError(
                f"the node at {request.address} is not the one that asks", WRONG_NODE
            )
        return found

    def _check_not_wiped(self, member: Member) -> None:
        """Refuse an operator's word that this is the member, if another data directory answers."""
        if member.id == self._raft.id or self._transport.connected(member.id):
            return
        try:
            found = self._transport.identify(member.address, DIAL_SECONDS)
        except TransportError:
            return  # a member that is down stays one
        if found.member_id == member.id and member.incarnation not in {0, found.incarnation}:
            raise wiped(member)

    def _check_old_is_gone(self, request: JoinRequest) -> None:
        """Refuse a replacement while the member it shall replace still answers."""
        old = self._raft.configuration.members.get(request.member_id)
        if old is None or old.address == request.address:
            return  # at its own address somebody else answered
        try:
            found = self._transport.identify(old.address, DIAL_SECONDS)
        except TransportError:
            return
        if (found.member_id, found.incarnation) == (old.id, old.incarnation):
            raise MembershipError(
                f"{old.id} still runs, at {old.address}: stop it before another takes its place",
                INCARNATION_CONFLICT,
            )


def wiped(member: Member) -> MembershipError:
    """Say why a member's id alone is not enough."""
    return MembershipError(
        f"{member.id} is a member already, at {member.address}, with another data directory: a "
        f"wiped voter could vote twice. If that directory is lost, remove {member.id}, or start "
        "the new node with --replace",
        INCARNATION_CONFLICT,
    )
