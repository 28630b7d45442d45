"""Where a client asks: what it was given, what the cluster says of itself, and who leads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from anchor.client import Client, Unreachable
from tests.client.fakes import Act, FakeCluster, FakeNode, Reply, Seen, json_reply, problem

if TYPE_CHECKING:
    from anchor.client.connections import Answer, Request
    from tests.client.conftest import Naps

NO_LEADER = problem(503, "no_leader", retryable=True)


def test_members_that_were_not_named_take_over_from_one_that_dies() -> None:
    """The client was told of them while all was well."""
    cluster = FakeCluster()
    with (
        FakeNode(cluster=cluster) as named,
        FakeNode(cluster=cluster, node_id="n2") as other,
        FakeNode(cluster=cluster, node_id="n3"),
        Client(named.endpoint, timeout=5) as client,
    ):
        client.put("k", b"1")
        named.stop()
        client.put("k", b"2")
        assert client.get("k") == b"2"
        assert other.methods == ["PUT", "GET"]


def test_members_are_asked_for_where_those_that_are_named_cannot_help(naps: Naps) -> None:
    """Also by a client that never wrote."""
    cluster = FakeCluster()
    with (
        FakeNode(NO_LEADER, cluster=cluster) as cut_off,
        FakeNode(cluster=cluster, node_id="n2"),
        Client(cut_off.endpoint, sleep=naps, sessions=False) as client,
    ):
        assert client.get("k") is None


def test_calls_stay_with_the_endpoint_that_answered_last() -> None:
    """One that gave trouble is not the first to be asked again."""
    cluster = FakeCluster()
    with (
        FakeNode([Act.SERVE, NO_LEADER], cluster=cluster) as first,
        FakeNode(cluster=cluster, node_id="n2") as second,
        Client([first.endpoint, second.endpoint]) as client,
    ):
        for _ in range(4):
            client.put("k", b"v")
        assert (len(first.seen), len(second.seen)) == (2, 3)


def test_a_retry_prefers_the_leader(naps: Naps) -> None:
    """Which is known by what any answer says of it."""
    cluster = FakeCluster()
    cluster.leader_id = "n3"
    with (
        FakeNode([Act.SERVE, Act.LOSE], cluster=cluster) as first,
        FakeNode(cluster=cluster, node_id="n2") as second,
        FakeNode(cluster=cluster, node_id="n3") as third,
        Client([first.endpoint, second.endpoint, third.endpoint], sleep=naps) as client,
    ):
        client.put("k", b"1")
        client.put("k", b"2")
        assert (second.methods, third.methods) == ([], ["PUT"])


def test_a_retry_prefers_a_leader_that_was_not_named(naps: Naps) -> None:
    """Before others that were."""
    cluster = FakeCluster()
    cluster.leader_id = "n3"
    with (
        FakeNode([Act.SERVE, Act.LOSE], cluster=cluster) as first,
        FakeNode(cluster=cluster, node_id="n2") as second,
        FakeNode(cluster=cluster, node_id="n3") as third,
        Client([first.endpoint, second.endpoint], sleep=naps) as client,
    ):
        client.put("k", b"1")
        client.put("k", b"2")
        assert (second.methods, third.methods) == ([], ["PUT"])


@pytest.mark.parametrize("stranger_is", ["another cluster", "another member", "no node"])
def test_a_stranger_at_an_advertised_address_is_not_talked_to(stranger_is: str) -> None:
    """127.0.0.1 means something else on each host."""
    foreign = FakeCluster()
    foreign.cluster_id = "c1" if stranger_is == "another member" else "c2"
    foreign.addresses["n2"] = "h:1"

    def garbled(_: Seen) -> Reply:
        return json_reply([])

    script = garbled if stranger_is == "no node" else None
    node_id = "n9" if stranger_is == "another member" else "n2"
    with (
        FakeNode() as named,
        FakeNode(script, cluster=foreign, node_id=node_id) as stranger,
        Client(named.endpoint, timeout=0.5) as client,
    ):
        named.cluster.addresses["n2"] = stranger.endpoint
        client.put("k", b"1")
        named.stop()
        with pytest.raises(Unreachable):
            client.get("k")
        with pytest.raises(Unreachable):
            client.put("k", b"2")
        assert stranger.all_seen
        assert stranger.seen == []


def test_nonsense_about_members_is_passed_over() -> None:
    """Whoever answers there, the call is not the worse for it."""

    def script(seen: Seen) -> Reply | Act:
        if seen.target != "/status":
            return Act.SERVE
        peers = [1, {"id": 1}, {"id": "a", "http_address": "?"}, {"id": "b", "http_address": 7}]
        return json_reply({"node_id": "n1", "cluster_id": "c1", "leader_id": 5, "peers": peers})

    with FakeNode(script) as node, Client(node.endpoint) as client:
        client.put("k", b"1")
        assert client._calls._endpoints.all() == [node.endpoint]


def test_members_are_asked_for_once_and_not_by_each_call() -> None:
    """A minute later again; a program that reads once and ends does not ask."""
    with FakeNode() as node, Client(node.endpoint) as client:
        for _ in range(5):
            client.put("k", b"1")
            client.get("k")
        asked = [seen.target for seen in node.all_seen]
        assert asked.count("/status") == 1
        client._calls._endpoints.told_at -= 61
        client.get("k")
        assert [seen.target for seen in node.all_seen].count("/status") == 2
    with FakeNode() as node, Client(node.endpoint, sessions=False) as client:
        client.get("k")
        assert [seen.target for seen in node.all_seen] == ["/kv/k"]


def test_members_that_do_not_tell_cost_little() -> None:
    """The answer that was asked for is there, and is given."""

    def script(seen: Seen) -> Reply | Act:
        return Act.HANG if seen.target == "/status" else Act.SERVE

    with FakeNode(script) as node, Client(node.endpoint) as client:
        began = time.monotonic()
        client.put("k", b"1")
        client.put("k", b"2")
        assert time.monotonic() - began < 5
        assert client.get("k") == b"2"


def test_seeing_who_an_endpoint_is_takes_from_the_time_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is left after that is what the answer may take."""
    cluster = FakeCluster()
    with (
        FakeNode(cluster=cluster) as named,
        FakeNode(cluster=cluster, node_id="n2") as found,
        Client(named.endpoint) as client,
    ):
        client.get("k")
        named.stop()

        def slow(seen: Seen) -> Reply | Act:
            time.sleep(0.1)
            return Act.SERVE if seen.target == "/status" else Reply()

        found.script = slow
        exchange, limits = client._connections.exchange, []

        def noting(endpoint: str, request: Request, timeout: float, connecting: float) -> Answer:
            limits.append((request.path, timeout))
            return exchange(endpoint, request, timeout, connecting)

        monkeypatch.setattr(client._connections, "exchange", noting)
        client.remove("n9", timeout=1)
        assert [path for path, _ in limits] == ["/remove", "/status", "/remove"]
        assert limits[-1][1] <= 0.9


def test_the_members_are_those_of_now() -> None:
    """One that was replaced is not asked any more, its successor is."""
    cluster = FakeCluster()
    with (
        FakeNode(cluster=cluster) as named,
        FakeNode(cluster=cluster, node_id="n2") as leaving,
        FakeNode(cluster=cluster, node_id="n3") as coming,
        Client(named.endpoint) as client,
    ):
        del cluster.addresses["n3"]
        client.put("k", b"1")
        assert client._calls._endpoints.all() == [named.endpoint, leaving.endpoint]
        cluster.addresses["n3"] = coming.endpoint
        del cluster.addresses["n2"]
        client._calls._endpoints.told_at -= 61
        client.get("k")
        assert client._calls._endpoints.all() == [named.endpoint, coming.endpoint]


def test_a_cluster_that_was_restored_is_another_one() -> None:
    """An endpoint that was named is believed; what the old cluster said of itself is forgotten."""
    cluster = FakeCluster()
    with (
        FakeNode(cluster=cluster) as named,
        FakeNode(cluster=cluster, node_id="n2"),
        Client(named.endpoint) as client,
    ):
        client.put("k", b"1")
        cluster.cluster_id = "c2"
        cluster.sessions.clear()
        del cluster.addresses["n2"]
        client._calls._endpoints.told_at -= 61
        client.put("k", b"2")
        assert client._calls._endpoints.all() == [named.endpoint]
        assert named.numbers[-1][1] == "1"
