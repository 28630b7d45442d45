"""Growing, shrinking and replacing real clusters; founding one together."""

from __future__ import annotations

import json
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.membership import get, is_removed, run
from tests.cluster.processes import Cluster, NodeProcess, eventually, free_ports, running_cluster

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("membership")


def post(node: NodeProcess, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    """POST JSON; the problem, or nothing."""
    encoded = b"" if body is None else json.dumps(body).encode()
    code, headers, answer = node.request("POST", path, encoded, timeout=40)
    is_json = "json" in headers.get("Content-Type", "")
    return code, json.loads(answer) if is_json else {}


def another(directory: Path, number: int, cluster: Cluster, *flags: str) -> NodeProcess:
    """One node more."""
    ports = free_ports(2)
    peers = [node.address for node in cluster.nodes]
    name = f"node{number}"
    return NodeProcess(name, (ports[0], ports[1]), directory / name, peers, *flags)


def test_random_changes_under_load_lose_nothing_and_split_nothing(tmp_path: Path) -> None:
    """A slice of what ``tests.cluster.membership`` does for hours."""
    soak = run(5, 3, tmp_path, "--snapshot-entries", "200")
    assert sum(soak.done.values()) == 5


def test_a_member_removed_while_it_was_down_finds_out(tmp_path: Path) -> None:
    """It says so in its log and its status, answers 410, and stays out when started again."""
    with running_cluster(tmp_path, 3, "--election-timeout", "500ms") as cluster:
        leader = cluster.leader()
        away, other = (node for node in cluster.nodes if node is not leader)
        away.kill()
        assert post(other, "/remove", {"id": away.node_id})[0] == 200
        assert post(leader, "/leader", {"id": other.node_id})[0] == 200  # who removed it is gone
        leader.kill()
        leader.start()
        for _ in range(2):
            away.start()
            eventually("it knows", lambda: is_removed(away))
            status = away.status()
            assert status is not None
            assert status["role"] == "removed"
            away.kill()
        found = get(other, "/members")
        assert found is not None
        assert len(found["voters"]) == 2


def test_a_wiped_node_is_refused_until_it_says_that_it_replaces(tmp_path: Path) -> None:
    """In its own log too; with ``--replace`` it becomes a voter again."""
    with running_cluster(tmp_path, 3) as cluster:
        wiped = next(node for node in cluster.nodes[1:] if node is not cluster.leader())
        other = next(node for node in cluster.nodes if node is not wiped)
        assert other.request("PUT", "/kv/k", b"v")[0] == 200
        wiped.kill()
        shutil.rmtree(wiped.directory)
        wiped.start()
        eventually("it is told why", lambda: "could vote twice" in wiped.log_path.read_text())
        code, told = post(other, "/join", {"id": wiped.node_id, "addr": wiped.address})
        assert (code, told["code"]) == (409, "incarnation_conflict")
        wiped.kill()
        wiped._flags = ("--replace",)
        wiped.start()
        cluster.wait_until_whole()
        assert wiped.request("GET", "/kv/k")[2] == b"v"


def test_all_members_but_one_are_replaced_at_once(tmp_path: Path) -> None:
    """From any node; the removed ones say that they are; a second time nothing is left to do."""
    with running_cluster(tmp_path, 3) as cluster:
        newcomers = [another(tmp_path, number, cluster, "--learner") for number in (4, 5)]
        stays = cluster.nodes[2]
        leaving = cluster.nodes[:2]  # the leader among them: the first node founded the cluster
        cluster.nodes += newcomers  # so that they are killed at the end
        for node in newcomers:
            node.start()
            eventually("it is a learner", lambda node=node: _role(node) == "learner")  # type: ignore[misc]
        target = [{"id": n.node_id, "addr": n.address} for n in (stays, *newcomers)]
        for _ in range(2):
            assert post(leaving[1] if _ == 0 else stays, "/members", target)[0] == 200
        for node in leaving:
            eventually("it is told", lambda node=node: is_removed(node))  # type: ignore[misc]
        found = get(stays, "/members")
        assert found is not None
        assert found["voters"] == ["node3", "node4", "node5"]
        assert stays.request("PUT", "/kv/k", b"v")[0] == 200


def _role(node: NodeProcess) -> object:
    status = node.status()
    return status and status["role"]


def test_a_learner_gets_all_and_decides_nothing_until_promoted(tmp_path: Path) -> None:
    """It stays one across a restart."""
    with running_cluster(tmp_path, 1) as cluster:
        (first,) = cluster.nodes
        learner = another(tmp_path, 2, cluster, "--learner")
        cluster.nodes.append(learner)
        learner.start()
        eventually("it is a learner", lambda: _role(learner) == "learner")
        learner.kill()
        assert first.request("PUT", "/kv/k", b"v")[0] == 200  # nobody waits for it
        learner.start()
        eventually("it is one again", lambda: _role(learner) == "learner")
        assert learner.request("GET", "/kv/k")[2] == b"v"
        assert post(learner, f"/members/{learner.node_id}/promote")[0] == 200
        eventually("it is a voter", lambda: _role(learner) == "follower")
        found = get(first, "/members")
        assert found is not None
        assert found["voters"] == ["node1", "node2"]


@pytest.mark.parametrize("seed", range(3))
def test_nodes_started_alike_found_one_cluster(tmp_path: Path, seed: int) -> None:
    """In any order, one of them killed and started again in the middle; a fourth one joins it."""
    chance = random.Random(seed)
    ports = free_ports(8)
    addresses = [f"127.0.0.1:{port}" for port in ports[:4]]
    cluster = Cluster(tmp_path, 0)
    cluster.nodes = [
        NodeProcess(
            f"node{n + 1}", (ports[n], ports[n + 4]), tmp_path / f"node{n + 1}", addresses[:3],
            "--bootstrap-expect", "3",
        )
        for n in range(4)
    ]  # fmt: skip
    try:
        order = cluster.nodes[:3]
        chance.shuffle(order)
        victim = chance.choice(order)
        for node in order:
            node.start()
            eventually("it answers", lambda node=node: node.status(), 60)  # type: ignore[misc]
        victim.kill()
        victim.start()
        late = cluster.nodes.pop()
        cluster.wait_until_whole()
        cluster.nodes.append(late)
        late.start()
        cluster.wait_until_whole()
        found = {status["cluster_id"] for node in cluster.nodes if (status := node.status())}
        assert len(found) == 1
        text = "".join(node.log_path.read_text() for node in cluster.nodes)
        assert text.count("founded cluster") == 1
        assert victim.request("PUT", "/kv/k", b"v")[0] == 200
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.kill_all()
