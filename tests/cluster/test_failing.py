"""What happens when nodes die: a slice of what ``tests.cluster.kill`` does for hours."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.kill import FAILOVER_SECONDS, check, kill_all_once, kill_leader_once
from tests.cluster.processes import Cluster, NodeProcess, eventually, running_cluster

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("failing")


def test_killed_leaders_and_power_cuts_lose_nothing(tmp_path: Path) -> None:
    """Kill -9 of the leader, twice, then of everybody, while clients write through all nodes."""
    chance = random.Random(1)
    with running_cluster(tmp_path, 3) as cluster:
        known: list[str] = []
        for number in range(2):
            done = kill_leader_once(cluster, f"leader{number}")
            check(cluster, done.acknowledged, known, chance)
            known += done.acknowledged
            assert done.gap_seconds < FAILOVER_SECONDS
            assert done.errors == []  # whoever writes through a follower gets its real answer
        fresh = kill_all_once(cluster, "all")
        check(cluster, fresh, known, chance)


def test_a_stopped_leader_hands_over_first(tmp_path: Path) -> None:
    """SIGTERM: exit 0 within 5 s, and the others need no election timeout to go on."""
    with running_cluster(tmp_path, 3) as cluster:
        leader = cluster.leader()
        others = [node for node in cluster.nodes if node is not leader]
        began = time.monotonic()
        assert leader.stop() == 0
        assert time.monotonic() - began < 5
        assert others[0].request("PUT", "/kv/after", b"x")[0] == 200
        assert "hands over to" in leader.log_path.read_text()


def test_the_leader_can_be_removed_and_the_last_voter_cannot(tmp_path: Path) -> None:
    """Down to a cluster of one, which stays."""
    with running_cluster(tmp_path, 3) as cluster:
        first = cluster.leader()
        remaining = [node for node in cluster.nodes if node is not first]
        assert remove(remaining[0], first.node_id) == 200
        assert first.status() is not None
        eventually("the removed leader knows", lambda: role(first) == "removed")
        assert first.request("GET", "/kv/x")[0] == 410
        small = Cluster(tmp_path, 0)
        small.nodes = remaining
        last = small.leader()
        gone = next(node for node in remaining if node is not last)
        assert remove(last, gone.node_id) == 200
        assert last.request("PUT", "/kv/alone", b"x")[0] == 200
        assert remove(last, last.node_id) == 409
        assert last.request("PUT", "/kv/alone", b"y")[0] == 200


def remove(via: NodeProcess, node_id: str) -> int:
    """POST /remove through a node."""
    return via.request("POST", "/remove", f'{{"id": "{node_id}"}}'.encode())[0]


def role(node: NodeProcess) -> str:
    """What a node says of itself."""
    status = node.status()
    return str(status["role"]) if status else ""


def test_without_a_quorum_nothing_is_promised(tmp_path: Path) -> None:
    """A minority answers no write and no linearizable read; a stale read it can give."""
    flags = ("--request-timeout", "1s")
    with running_cluster(tmp_path, 3, *flags) as cluster:
        survivor = cluster.nodes[0]
        assert survivor.request("PUT", "/kv/before", b"x")[0] == 200
        cluster.wait_until_caught_up()
        for node in cluster.nodes[1:]:
            node.kill()
        eventually("it knows that it is alone", lambda: leader_of(survivor) is None)
        code, _, body = survivor.request("PUT", "/kv/alone", b"x")
        assert code == 503
        assert b"no_leader" in body
        assert survivor.request("GET", "/kv/before")[0] == 503
        stale = survivor.request("GET", "/kv/before", headers={"X-Consistency": "stale"})
        assert stale[0] == 200
        for node in cluster.nodes[1:]:
            node.start()
        cluster.wait_until_whole()
        assert survivor.request("GET", "/kv/alone")[0] == 404


def leader_of(node: NodeProcess) -> object:
    """Whom a node takes for the leader."""
    status = node.status()
    assert status is not None
    return status["leader_id"]
