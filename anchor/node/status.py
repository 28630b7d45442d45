"""What ``GET /status`` says of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.node.members import role_of
from anchor.raft import Role

if TYPE_CHECKING:
    from anchor.node.node import Node
    from anchor.transport import Transport


def status_of(node: Node, transport: Transport, version: str) -> dict[str, object]:
    """A JSON-ready object; the README names the fields that stay."""
    raft = node.raft
    itself = node.membership.itself
    return {
        "node_id": raft.id,
        "role": role_of(raft, raft.id),
        "term": raft.term,
        "commit_index": raft.commit_index,
        "leader_id": raft.leader_id,
        "peers": [_peer(node, transport, member_id) for member_id in _others(node)],
        "replication_lag": _replication_lag(node),
        "cluster_id": node.membership.cluster_id,
        "applied_index": node.applied_index,
        "last_log_index": raft.last_log_index,
        "first_log_index": node.first_log_index,
        **node.snapshots.status(),
        "address": itself.address,
        "http_address": itself.http_address,
        "http_addr": itself.http_address,
        "digest": node.digest.hex(),
        "sessions": node.session_count,
        "disk": node.space.status(),
        "protocol_version": raft.committed_configuration.protocol_version,
        "version": version,
        "uptime_seconds": round(node.uptime_seconds, 3),
    }


def _others(node: Node) -> list[str]:
    return sorted(node.raft.configuration.members.keys() - {node.raft.id})


def _peer(node: Node, transport: Transport, member_id: str) -> dict[str, object]:
    member = node.raft.configuration.members[member_id]
    progress = node.raft.progress.get(member_id)
    return {
        "id": member_id,
        "role": role_of(node.raft, member_id),
        "connected": transport.connected(member_id),
        # Only the leader knows how far the others are.
        "match_index": progress.match_index if progress is not None else None,
        "address": member.address,
        "http_address": member.http_address,
    }


def _replication_lag(node: Node) -> dict[str, int]:
    raft = node.raft
    if raft.role is not Role.LEADER:
        return {}
    return {
        member_id: raft.last_log_index - raft.progress[member_id].match_index
        for member_id in _others(node)
        if member_id in raft.progress
    }
