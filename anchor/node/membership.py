"""Who belongs to the cluster, and everything that changes it.

This is where requests arrive, from operators (through the API) and from other nodes (through the
listener). What is done with them stands elsewhere:

================  =================================================================
``changing.py``   one change at a time, by the leader; passing on to it
``admitting.py``  letting nodes in: dial first, learner; the wiped ones
``removing.py``   letting members go, if the quorum stays
``replacing.py``  a whole target configuration, by joint consensus
``leading.py``    handing leadership over
``departure.py``  finding out that one was removed while away
``joining.py``    the other side: a new node asks to be let in
``founding.py``   nodes that are started alike found one cluster
================  =================================================================
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import gevent

from anchor.node import orders
from anchor.node.admitting import Admitting
from anchor.node.changing import Changes, answer_of
from anchor.node.departure import Departure
from anchor.node.digests import Digests
from anchor.node.errors import NOT_A_MEMBER, MembershipError, NodeError, Removed
from anchor.node.joining import Joiner
from anchor.node.leading import LOOK_SECONDS, Leading
from anchor.node.members import leader_of, members_of
from anchor.node.removing import Removing
from anchor.node.replacing import Replacing, is_caught_up
from anchor.node.versions import Protocols
from anchor.raft import Configuration, Member, Refused, Role
from anchor.settings import NEWEST_PROTOCOL, OLDEST_PROTOCOL, VERSION
from anchor.transport import (
    Identification,
    JoinRequest,
    JoinResponse,
    RemoveRequest,
    RemoveResponse,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anchor.node.node import Node, Parts
    from anchor.node.replacing import TargetMember

_log = logging.getLogger("anchor.membership")

STEWARD_SECONDS = 0.1
DIGEST_SECONDS = 1.0
PASSED_ON_SHARE = 0.9  # of the time that whoever passes a question on will wait
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
        self.joiner = Joiner(parts)
        self.departure = Departure(
            parts.raft,
            parts.transport,
            parts.itself,
            lambda: self.cluster_id,
            parts.election_timeout_seconds,
        )
        self._election_timeout_seconds = parts.election_timeout_seconds
        self._changes = Changes(node, parts)
        self.leading = Leading(self._changes, parts.election_timeout_seconds)
        self._removing = Removing(self._changes, self.leading)
        self._admitting = Admitting(self._changes, self._removing, lambda: self.cluster_id)
        self._replacing = Replacing(self._changes, self._admitting, self._removing, self.leading)
        self._departing: dict[str, tuple[float, Member]] = {}  # and when it left
        self._configuration = Configuration()
        self._encoded: tuple[Configuration, bytes] = (self._configuration, b"")

    # ----------------------------------------------------------------- who is who

    @property
    def cluster_id(self) -> str:
        """Empty until this node is in a cluster."""
        return self._directory.identity.cluster_id

    def identification(self) -> Identification:
        """Who answers at this node's address, and what it goes by."""
        raft = self._raft
        return Identification(
            self.itself.id,
            self.itself.incarnation,
            self.cluster_id,
            self.itself.address,
            self.itself.http_address,
            VERSION,
            OLDEST_PROTOCOL,
            NEWEST_PROTOCOL,
            self._encoded_configuration(),
            raft.configuration_index,
            raft.configuration_index <= raft.commit_index,
            self.joiner.view,
        )

    def _encoded_configuration(self) -> bytes:
        configuration = self._raft.configuration
        if configuration is not self._encoded[0]:
            self._encoded = (configuration, configuration.encode())
        return self._encoded[1]

    def members(self) -> dict[str, object]:
        """A JSON-ready object: the members as this node knows them."""
        return members_of(self._changes, self.cluster_id)

    def leader(self) -> dict[str, object]:
        """A JSON-ready object: who leads; raises NoLeader."""
        return leader_of(self._raft)

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
        for member_id in sorted(before.voters & configuration.learners):
            _log.info("%s has no vote any more", member_id)

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

    # ----------------------------------------------------------------- what operators ask

    def admit(
        self,
        member_id: str,
        address: str,
        http_address: str,
        *,
        voter: bool,
        timeout_seconds: float,
    ) -> None:
        """Let a node in; returns once it is what it shall be. Raises a NodeError."""
        deadline = time.monotonic() + timeout_seconds
        request = JoinRequest(member_id, address, http_address, voter=voter)
        self._admitting.admit(request, deadline)
        self._admitting.await_part(request, deadline)

    def expel(self, member_id: str, timeout_seconds: float) -> None:
        """Let a member go; returns once it is out. Raises a NodeError."""
        try:
            self._removing.remove(member_id, time.monotonic() + timeout_seconds, forwarded=False)
        except Removed:
            if member_id != self._raft.id:
                raise

    def promote(self, member_id: str, timeout_seconds: float) -> None:
        """Give a learner a vote; returns once it has it. Raises a NodeError."""
        deadline = time.monotonic() + timeout_seconds
        self._order(orders.Promote(member_id), deadline)
        while member_id not in self._raft.committed_configuration.voters:
            self._changes.pause(deadline, f"{member_id} has not caught up yet")

    def replace_members(
        self, targets: Sequence[TargetMember], *, force: bool, timeout_seconds: float
    ) -> None:
        """Make these the members; returns once they are. Raises a NodeError."""
        order = orders.Replace(tuple(targets), force=force)
        self._order(order, time.monotonic() + timeout_seconds)

    def transfer_leadership(self, member_id: str, timeout_seconds: float) -> None:
        """Let this voter lead, or any other if it is empty; returns once it does."""
        before = self._raft.leader_id
        self._order(orders.Transfer(member_id), time.monotonic() + timeout_seconds)
        # The old leader has answered; this node may still have to hear of the new one.
        until = time.monotonic() + self._election_timeout_seconds
        while time.monotonic() < until:
            leader_id = self._raft.leader_id
            if leader_id == member_id or (leader_id not in {None, before} and not member_id):
                return
            gevent.sleep(LOOK_SECONDS)

    def _order(self, order: orders.Order, deadline: float, *, forwarded: bool = False) -> None:
        request = JoinRequest("", "", "", forwarded=True, order=orders.encode(order))
        self._changes.through_leader(
            lambda: self._obey(order, deadline),
            lambda leader, seconds: answer_of(
                leader, lambda: self._transport.join(leader.address, request, seconds)
            ),
            deadline,
            forwarded=forwarded,
        )

    def _obey(self, order: orders.Order, deadline: float) -> None:
        """As leader."""
        match order:
            case orders.Promote(member_id):
                self._mark_for_promotion(member_id, deadline)
            case orders.Transfer(member_id):
                self.leading.transfer_as_leader(member_id, deadline)
            case orders.Replace(targets, force):
                self._replacing.replace_as_leader(targets, deadline, force=force)

    def _mark_for_promotion(self, member_id: str, deadline: float) -> None:
        """Say in the configuration that the steward shall promote it."""
        self._changes.check_free()

        def marked(configuration: Configuration) -> Configuration:
            member = configuration.members.get(member_id)
            if member is None:
                raise MembershipError(f"{member_id} is no member", NOT_A_MEMBER)
            if member_id not in configuration.learners:
                return configuration
            members = {**configuration.members, member_id: replace(member, promote=True)}
            return replace(configuration, members=members)

        def is_done(committed: Configuration) -> bool:
            member = committed.members.get(member_id)
            return member_id in committed.voters or (member is not None and member.promote)

        self._changes.change(marked, is_done, deadline)

    # ----------------------------------------------------------------- what other nodes ask

    def on_join(self, request: JoinRequest, timeout_seconds: float) -> JoinResponse:
        """Answer a node that wants in, or one that passes a question on."""
        # So that the reason why it was not done in time is still heard.
        deadline = time.monotonic() + PASSED_ON_SHARE * timeout_seconds
        try:
            if request.order:
                self._order(orders.decode(request.order), deadline, forwarded=True)
                return JoinResponse()
            member = self._admitting.admit(request, deadline)
        except NodeError as error:
            return JoinResponse(error.code, str(error))
        except ValueError as error:
            return JoinResponse("bad_request", str(error))
        return JoinResponse(
            cluster_id=self.cluster_id,
            leader_id=self._raft.leader_id or "",
            promoted=not member.promote,
        )

    def on_remove(self, request: RemoveRequest, timeout_seconds: float) -> RemoveResponse:
        """Answer a node that passes a removal on."""
        deadline = time.monotonic() + PASSED_ON_SHARE * timeout_seconds
        try:
            self._removing.remove(request.member_id, deadline, forwarded=True)
        except NodeError as error:
            return RemoveResponse(error.code, str(error))
        return RemoveResponse()

    # ----------------------------------------------------------------- the steward

    def steward(self) -> None:
        """As leader: promote who has caught up; agree on a protocol; compare digests."""
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
            if not member.promote or not is_caught_up(self._changes, learner):
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
