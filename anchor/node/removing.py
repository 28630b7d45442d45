"""Letting members go. The leader hands over before it removes itself."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from anchor.node.changing import answer_of
from anchor.node.errors import LAST_VOTER, QUORUM_WOULD_BE_LOST, MembershipError
from anchor.transport import RemoveRequest

if TYPE_CHECKING:
    from collections.abc import Collection

    from anchor.node.changing import Changes
    from anchor.node.leading import Leading
    from anchor.raft import Configuration, Member


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
        self.check(member_id, self._raft.configuration)
        if member_id == self._raft.id:
            # Who goes on shall lead the removal, so that there is no silence after it.
            self._leading.hand_over(max(0.1, (deadline - time.monotonic()) / 2))

        def without(configuration: Configuration) -> Configuration:
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
        """Raise MembershipError unless a majority is reachable; ``here`` are known to be."""
        alive = [
            voter
            for voter in voters
            if voter == self._raft.id or voter in here or self._changes.transport.connected(voter)
        ]
        if len(alive) <= len(voters) // 2:
            raise MembershipError(
                f"{when} there are {len(voters)} voters, and only {len(alive)} of them are "
                "reachable: the quorum would be lost",
                QUORUM_WOULD_BE_LOST,
            )
