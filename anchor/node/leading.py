"""Who leads, and handing that over (thesis §3.10)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import gevent

from anchor.node.errors import (
    NOT_A_VOTER,
    QUORUM_WOULD_BE_LOST,
    TRANSFER_FAILED,
    TRANSFER_IN_PROGRESS,
    UNREACHABLE,
    MembershipError,
)
from anchor.raft import NotLeader, Refused, Role

if TYPE_CHECKING:
    from collections.abc import Collection

    from anchor.node.changing import Changes

_log = logging.getLogger("anchor.membership")

LOOK_SECONDS = 0.01


class Leading:
    """Makes another voter the leader."""

    def __init__(self, changes: Changes, election_timeout_seconds: float) -> None:
        self._changes = changes
        self._raft = changes.raft
        self._transport = changes.transport
        self._election_timeout_seconds = election_timeout_seconds

    def hand_over(self, grace_seconds: float, among: Collection[str] | None = None) -> None:
        """As leader: let the voter that is furthest take over, and wait until it does.

        Returns after the grace, or if there is nobody to take over, still as leader.
        """
        raft = self._raft
        deadline = time.monotonic() + grace_seconds
        while raft.role is Role.LEADER and time.monotonic() < deadline:
            candidate = self._best(among)
            if candidate is None:
                return
            if raft.transferring_to is None:
                _log.info("hands over to %s", candidate)
                try:
                    raft.transfer_leadership(candidate)
                except Refused:
                    return
                self._changes.wake()
            gevent.sleep(LOOK_SECONDS)

    def hand_over_for_good(self, grace_seconds: float) -> None:
        """As leader: let a voter with room take over, by an election if need be.

        Where there is none, it leads on: it may still answer reads. So it does while that voter
        lacks entries: it could not be elected, and those without room do not campaign.
        """
        self.hand_over(grace_seconds)
        raft = self._raft
        candidate = self._best()
        if (
            raft.role is Role.LEADER
            and candidate is not None
            and raft.progress[candidate].match_index == raft.last_log_index
        ):
            raft.step_down()
            self._changes.wake()

    def check_successor(self, voters: Collection[str]) -> None:
        """As leader about to go: raise MembershipError if none of these voters could lead.

        Those whose disks are full do not campaign.
        """
        progress = self._raft.progress
        if not any(voter in progress and progress[voter].has_room for voter in voters):
            raise MembershipError(
                "none of the voters that would be left has room on its disk, so none could lead",
                QUORUM_WOULD_BE_LOST,
            )

    def _best(self, among: Collection[str] | None = None) -> str | None:
        """The reachable voter with room whose log is furthest."""
        raft = self._raft
        candidates = [
            (progress.match_index, voter)
            for voter, progress in raft.progress.items()
            if voter in raft.configuration.voters
            and voter != raft.id
            and (among is None or voter in among)
            and progress.has_room
            and self._transport.connected(voter)
        ]
        return max(candidates)[1] if candidates else None

    def transfer_as_leader(self, member_id: str, deadline: float) -> None:
        """Make this voter the leader, or any other if it is empty; returns once it is.

        Raises NotLeader if this node led no more before it began, or a NodeError.
        """
        raft = self._raft
        if member_id == raft.id:
            return
        target = member_id or self._best()
        if target is None:
            raise MembershipError("no other voter can be reached to take over", UNREACHABLE)
        if target not in raft.configuration.voters:
            raise MembershipError(f"{target} is no voter of this cluster", NOT_A_VOTER)
        if not self._transport.connected(target):
            raise MembershipError(f"{target} cannot be reached", UNREACHABLE)
        if not raft.progress[target].has_room:
            raise MembershipError(f"the disk of {target} is full", TRANSFER_FAILED)
        self._begin(target)
        # The core gives up after an election timeout, and leads on.
        until = min(deadline, time.monotonic() + 2 * self._election_timeout_seconds)
        while raft.leader_id != target:
            gave_up = raft.role is Role.LEADER and raft.transferring_to is None
            elected_another = raft.leader_id not in {None, raft.id, target}
            if gave_up or elected_another or time.monotonic() >= until:
                leads = f"{raft.leader_id} leads" if raft.leader_id else "nobody leads yet"
                raise MembershipError(f"{target} did not take over: {leads}", TRANSFER_FAILED)
            gevent.sleep(LOOK_SECONDS)

    def _begin(self, target: str) -> None:
        raft = self._raft
        if raft.transferring_to not in {None, target}:
            raise MembershipError(
                f"{raft.transferring_to} is taking over already", TRANSFER_IN_PROGRESS
            )
        if raft.transferring_to is None:
            try:
                raft.transfer_leadership(target)
            except NotLeader:
                raise
            except Refused as error:
                raise MembershipError(str(error), TRANSFER_FAILED) from None
            _log.info("hands over to %s, as asked", target)
            self._changes.wake()
