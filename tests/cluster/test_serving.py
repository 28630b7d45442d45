"""Every node is a front door: what a client sees of a whole cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from tests.cluster.processes import Cluster

pytestmark = pytest.mark.xdist_group("serving")

ODD_KEYS = [
    b"plain",
    b"with/slashes/in it",
    b"../../etc/passwd",
    b"nul\x00in the middle",
    b"line\r\nX-Injected: yes",
    b"\xff\xfe not utf-8",
    b"%2F is not decoded twice",
    b"q?and#",
]


@pytest.mark.parametrize("writer", range(3))
def test_a_key_written_through_any_node_is_read_from_any_other(
    cluster: Cluster, writer: int
) -> None:
    """A linearizable read that starts after the answer sees the write, wherever it is asked."""
    for round_ in range(10):
        value = f"{writer}-{round_}".encode()
        assert cluster.nodes[writer].request("PUT", "/kv/everywhere", value)[0] == 200
        for reader in cluster.nodes:
            for consistency in ("linearizable", "lease"):
                code, headers, body = reader.request(
                    "GET", "/kv/everywhere", headers={"X-Consistency": consistency}
                )
                assert (code, body) == (200, value)
                assert headers["X-Consistency"] == consistency


@pytest.mark.parametrize("key", ODD_KEYS)
def test_keys_come_back_byte_for_byte(cluster: Cluster, key: bytes) -> None:
    """Whatever bytes a key has, it is that key and no other."""
    path = "/kv/" + quote(key, safe="")
    assert cluster.nodes[0].request("POST", path, key)[0] == 200
    assert cluster.nodes[1].request("GET", path)[2] == key
    assert cluster.nodes[2].request("DELETE", path)[0] == 200
    assert cluster.nodes[0].request("GET", path)[0] == 404


def test_deleting_what_is_not_there_is_fine(cluster: Cluster) -> None:
    """So that a delete can be sent again."""
    assert cluster.nodes[1].request("DELETE", "/kv/never-was")[0] == 200


def test_an_etag_is_the_index_of_the_last_write(cluster: Cluster) -> None:
    """It rises with every write of the key, and reads agree with writes."""
    _, first, _ = cluster.nodes[0].request("PUT", "/kv/etag", b"1")
    _, second, _ = cluster.nodes[1].request("PUT", "/kv/etag", b"2")
    _, read, _ = cluster.nodes[2].request("GET", "/kv/etag")
    assert int(first["ETag"].strip('"')) < int(second["ETag"].strip('"'))
    assert read["ETag"] == second["ETag"]
    assert int(read["X-Applied-Index"]) >= int(read["ETag"].strip('"'))
    assert read["X-Raft-Leader"] == cluster.leader().node_id


def test_a_large_value_travels_through_a_follower(cluster: Cluster) -> None:
    """The largest value allowed, by way of the forward stream."""
    leader = cluster.leader()
    follower = next(node for node in cluster.nodes if node is not leader)
    value = bytes(range(256)) * 4096
    assert follower.request("PUT", "/kv/large", value)[0] == 200
    assert leader.request("GET", "/kv/large")[2] == value
    assert follower.request("PUT", "/kv/large", value + b"x")[0] == 413


def test_status_tells_who_leads_and_how_far_everybody_is(cluster: Cluster) -> None:
    """The fields the README names, on the leader and on the others."""
    cluster.nodes[0].request("PUT", "/kv/status", b"x")
    cluster.wait_until_caught_up()
    leader = cluster.leader()
    for node in cluster.nodes:
        status = node.status()
        assert status is not None
        assert status["node_id"] == node.node_id
        assert status["role"] == ("leader" if node is leader else "follower")
        assert status["leader_id"] == leader.node_id
        assert status["commit_index"] == status["applied_index"]
        assert {peer["id"] for peer in status["peers"]} == {
            other.node_id for other in cluster.nodes if other is not node
        }
        assert all(peer["connected"] for peer in status["peers"])
        if node is leader:
            assert set(status["replication_lag"].values()) == {0}
            assert all(peer["match_index"] == status["last_log_index"] for peer in status["peers"])


def problem(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    """The status and the code of an error."""
    return answer[0], json.loads(answer[2])["code"]


def post(cluster: Cluster, path: str, **body: object) -> tuple[int, dict[str, str], bytes]:
    """POST a JSON object to a follower, which has to ask the leader."""
    leader = cluster.leader()
    follower = next(node for node in cluster.nodes if node is not leader)
    return follower.request("POST", path, json.dumps(body).encode())


def test_joining_is_idempotent(cluster: Cluster) -> None:
    """A member that is told to join is one already."""
    node = cluster.nodes[2]
    assert post(cluster, "/join", id=node.node_id, addr=node.address)[0] == 200


def test_an_unreachable_joiner_costs_nothing(cluster: Cluster) -> None:
    """It is dialed first, and the configuration stays as it was."""
    before = cluster.nodes[0].status()
    answer = post(cluster, "/join", id="node9", addr="127.0.0.1:1")
    assert problem(answer) == (422, "unreachable")
    after = cluster.nodes[0].status()
    assert before is not None
    assert after is not None
    assert [peer["id"] for peer in after["peers"]] == [peer["id"] for peer in before["peers"]]
    assert after["commit_index"] == before["commit_index"]


def test_an_id_in_use_cannot_join_from_elsewhere(cluster: Cluster) -> None:
    """Two nodes under one id would be one member that votes twice."""
    assert post(cluster, "/join", id="node2", addr="127.0.0.1:1")[0] == 409


def test_a_member_cannot_join_under_another_id(cluster: Cluster) -> None:
    """Its address is another's."""
    assert post(cluster, "/join", id="node9", addr=cluster.nodes[1].address)[0] == 409


def test_removing_who_is_not_there_is_fine(cluster: Cluster) -> None:
    """So that a removal can be sent again."""
    assert post(cluster, "/remove", id="node9")[0] == 200
