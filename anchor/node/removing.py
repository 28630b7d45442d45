"""Letting members go. The leader hands over before it removes itself."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import gevent

from anchor.node.changing import answer_of
from anchor.node.errors import LAST_VOTER, QUORUM_WOULD_BE_LOST, MembershipError
from anchor.raft import Role
from anchor.transport import RemoveRequest, TransportError

if TYPE_CHECKING:
    from collections.abc import Collection

    from anchor.node.changing import Changes
    from anchor.node.leading import Leading
    from anchor.raft import Configuration, Member


DIAL_SECONDS = 1.0


class Removing:
    """Takes members out, if the others can go on without them."""

    def __init__(self, changes: Changes, leading: Leading) -> None:
        self._changes = changes
        self._raft = changes.raft
        self._leading = leading

    def remove(self, member_id: str, deadline: float, *, forwarded: bool) -> None:
        """Return once it is out; raises a NodeError."""
        self._changes.through_leader(
            lambda: self._remove_as_leader(member_id, deadline),
            lambda leader, seconds: self._ask_leader(leader, member_id, seconds),
            deadline,
            forwarded=forwarded,
        )

    def _ask_leader(self, leader: Member, member_id: str, seconds: float) -> None:
        request = RemoveRequest(member_id, forwarded=True)
        transport = self._changes.transport
        answer_of(leader, lambda: transport.remove(leader.address, request, seconds))

    def _remove_as_leader(self, member_id: str, deadline: float) -> None:
        self._changes.check_free()
        configuration = self._raft.configuration
        self.check(member_id, configuration)
        if member_id in configuration.voters:
            self.ask_for_quorum(configuration.voters - {member_id}, f"without {member_id}")
        if member_id == self._raft.id:
            # Who goes on shall lead the removal, so that there is no silence after it.
            self._leading.hand_over(max(0.1, (deadline - time.monotonic()) / 2))
            if self._raft.role is Role.LEADER:
                self._leading.check_successor(configuration.voters - {member_id})

        def without(configuration: Configuration) -> Configuration:
            self._changes.check_free()
            self.check(member_id, configuration)
            return replace(
                configuration,
                members={i: m for i, m in configuration.members.items() if i != member_id},
                voters=configuration.voters - {member_id},
                learners=configuration.learners - {member_id},
            )

        self._changes.change(
            without, lambda committed: member_id not in committed.members, deadline
        )

    def check(self, member_id: str, configuration: Configuration) -> None:
        """Raise MembershipError if the cluster could not go on without this voter."""
        if member_id not in configuration.voters:
            return
        remaining = configuration.voters - {member_id}
        if not remaining:
            raise MembershipError(
                f"{member_id} is the last voter; a cluster of none cannot be", LAST_VOTER
            )
        self.check_quorum(remaining, f"without {member_id}")

    def check_quorum(self, voters: Collection[str], when: str, here: Collection[str] = ()) -> None:
        """Raise MembershipError unless a majority was heard of late; ``here`` are known to be."""
        alive = [
            voter
            for voter in voters
            if voter == self._raft.id or voter in here or self._changes.transport.connected(voter)
        ]
        self._judge(alive, voters, when)

    def ask_for_quorum(
        self, voters: Collection[str], when: str, here: Collection[str] = ()
    ) -> None:
        """Raise MembershipError unless a majority answers now.

        One that died a moment ago still counts as heard of late: the last change before the
        quorum is gone must not be made in that moment.
        """
        asked = sorted(set(voters) - {self._raft.id, *here})
        answers = [gevent.spawn(self._answers, voter) for voter in asked]
        gevent.joinall(answers)
        there = {voter for voter, call in zip(asked, answers, strict=True) if call.value}
        self._judge([v for v in voters if v not in asked or v in there], voters, when)

    def _answers(self, voter: str) -> bool:
        member = self._raft.configuration.members.get(voter)
        if member is None:
            return False
        try:
            found = self._changes.transport.identify(member.address, DIAL_SECONDS)
        except TransportError:
            return False
        return found.member_id == voter and member.incarnation in {0, found.incarnation}

    @staticmethod
    def _judge(alive: Collection[str], voters: Collection[str], when: str) -> None:
        if len(alive) <= len(voters) // 2:
            raise MembershipError(
                f"{when} there are {len(voters)} voters, and only {len(alive)} of them are "
                "reachable: the quorum would be lost",
                QUORUM_WOULD_BE_LOST,
            )
