"""What ``GET /members`` and ``GET /leader`` say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.node.errors import NoLeader
from anchor.node.replacing import is_caught_up
from anchor.raft import Role

if TYPE_CHECKING:
    from anchor.node.changing import Changes
    from anchor.raft import Raft


def members_of(changes: Changes, cluster_id: str) -> dict[str, object]:
    """The configuration in force at this node, JSON-ready.

    How far the others are is known to the leader alone: elsewhere it is null.
    """
    raft = changes.raft
    configuration = raft.configuration
    return {
        "node_id": raft.id,
        "cluster_id": cluster_id,
        "leader_id": raft.leader_id,
        "term": raft.term,
        "configuration_index": raft.configuration_index,
        "committed": raft.configuration_index <= raft.commit_index,
        "voters": sorted(configuration.voters),
        "voters_outgoing": sorted(configuration.voters_outgoing),
        "learners": sorted(configuration.learners),
        "members": [_member(changes, member_id) for member_id in sorted(configuration.members)],
    }


def _member(changes: Changes, member_id: str) -> dict[str, object]:
    raft = changes.raft
    member = raft.configuration.members[member_id]
    is_itself, leads = member_id == raft.id, raft.role is Role.LEADER
    progress = raft.progress.get(member_id)
    match_index = raft.log.persisted_index if is_itself else None
    if progress is not None:
        match_index = progress.match_index
    return {
        "id": member_id,
        "address": member.address,
        "http_address": member.http_address,
        "voter": raft.configuration.has_vote(member_id),
        "becomes_voter": member.promote,
        "role": role_of(raft, member_id),
        "connected": is_itself or changes.transport.connected(member_id),
        "match_index": match_index,
        "lag": raft.last_log_index - match_index if leads and match_index is not None else None,
        "caught_up": (is_itself or is_caught_up(changes, member_id)) if leads else None,
    }


def role_of(raft: Raft, member_id: str) -> str:
    """The role of a member, as far as this node can know it."""
    if raft.is_removed and member_id == raft.id:
        return "removed"
    if member_id in raft.configuration.learners:
        return "learner"
    if member_id not in raft.configuration.members:
        # A newcomer hears of its leader before it has the configuration that names it.
        return "joining"
    if member_id == raft.id:
        return raft.role.value
    return Role.LEADER.value if member_id == raft.leader_id else Role.FOLLOWER.value


def leader_of(raft: Raft) -> dict[str, object]:
    """Who leads, as far as this node knows; raises NoLeader."""
    leader_id = raft.leader_id
    if leader_id is None:
        raise NoLeader("no leader is known here")
    member = raft.configuration.members.get(leader_id)
    return {
        "leader_id": leader_id,
        "http_address": member.http_address if member is not None else "",
        "term": raft.term,
    }
