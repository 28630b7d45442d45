"""What the client promises: one deadline, other endpoints, and care with writes."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchor.client import Client, ClientError, CommitUnknown, NoLeader, Refused, Unreachable
from anchor.client.connections import Request
from anchor.client.download import open_download
from anchor.client.retrying import BACKOFF_SECONDS, BACKOFF_SECONDS_MAX
from anchor.settings import split_address
from tests.client.fakes import Act, FakeCluster, FakeNode, Reply, json_reply, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.client.conftest import Naps

NO_LEADER = problem(503, "no_leader", retryable=True)


# --------------------------------------------------------------------- the plain course


def test_what_was_put_is_got_until_it_is_deleted() -> None:
    """The three calls, bytes and text alike."""
    with FakeNode() as node, Client(node.endpoint) as client:
        assert client.get("k") is None
        client.put("k", "välue")
        assert client.get(b"k") == "välue".encode()
        client.put("k", b"\x00\xff")
        assert client.get("k") == b"\x00\xff"
        client.put("k", b"")
        assert client.get("k") == b""
        client.delete("k")
        client.delete("k")
        assert client.get("k") is None


def test_calls_share_one_connection() -> None:
    """Connections are kept and reused."""
    with FakeNode() as node, Client(node.endpoint) as client:
        for _ in range(3):
            client.put("k", b"v")
            client.get("k")
            client.get("missing")
        assert {seen.connection for seen in node.seen} == {0}


@given(st.binary(min_size=1, max_size=40))
def test_any_key_travels_byte_for_byte(key: bytes) -> None:
    """Whatever the bytes, the target decodes to them and needs no quoting in a request line."""
    target = _target_of(key)
    assert unquote_to_bytes(target.removeprefix("/kv/")) == key
    assert target.isascii()
    assert not set(target) & set(' ?#\r\n\t"<>')


def _target_of(key: bytes) -> str:
    from anchor.client.client import _path  # noqa: PLC0415 - the one look inside

    return _path(key)


def test_dots_and_slashes_in_keys_are_left_as_they_are() -> None:
    """No step in between tidies a path up."""
    with FakeNode() as node, Client(node.endpoint) as client:
        for key in ("../a", "a//b", "/", ".", "a/../b", "%2F"):
            client.put(key, key)
        assert [seen.target for seen in node.seen] == [
            "/kv/../a", "/kv/a//b", "/kv//", "/kv/.", "/kv/a/../b", "/kv/%252F",
        ]  # fmt: skip


def test_an_empty_key_never_leaves() -> None:
    """It is the caller's mistake."""
    with pytest.raises(ValueError, match="at least one byte"):
        Client("a:1").get("")


def test_consistency_is_asked_for_in_a_header() -> None:
    """And nothing is, unless told."""
    with FakeNode() as node, Client(node.endpoint) as client:
        client.get("k", consistency="stale")
        client.get("k")
        assert node.seen[0].headers["X-Consistency"] == "stale"
        assert "X-Consistency" not in node.seen[1].headers


def test_endpoints_are_checked_when_the_client_is_made() -> None:
    """Several ways to write them; nonsense raises ValueError at once."""
    assert Client("a:1, http://b:2/,a:1").endpoints == ("a:1", "b:2")
    assert Client(["[::1]:1"]).endpoints == ("[::1]:1",)
    for wrong in ("", ",", "a", "a:b"):
        with pytest.raises(ValueError, match=r"endpoint|port"):
            Client(wrong)


# --------------------------------------------------------------------- other endpoints


def test_an_endpoint_that_is_down_is_passed_over(nowhere: str, naps: Naps) -> None:
    """Reads and writes go to the next one at once, and stay there."""
    with FakeNode() as node, Client([nowhere, node.endpoint], sleep=naps) as client:
        client.put("k", b"v")
        assert client.get("k") == b"v"
        assert naps.seconds == []
        assert len(node.seen) == 2


@pytest.mark.parametrize(
    "passing",
    [
        NO_LEADER,
        problem(503, "overloaded", retryable=True),
        problem(503, "stopping", retryable=True),
        problem(408, "request_timeout"),
    ],
)
def test_an_answer_that_says_nothing_was_done_is_tried_again(passing: Reply, naps: Naps) -> None:
    """For writes too: the node vouches for it."""
    with (
        FakeNode([passing, passing, Act.SERVE]) as node,
        Client(node.endpoint, sleep=naps) as client,
    ):
        client.put("k", b"v")
        assert node.methods == ["PUT"] * 3
        assert len(naps.seconds) == 2
        assert len(set(node.numbers)) == 1


def test_a_read_is_tried_again_after_anything_that_may_pass(naps: Naps) -> None:
    """A broken connection, a cut-off answer, a proxy's 502, a time-out: the next try decides."""
    script: list[Reply | Act] = [
        Act.CLOSE,
        Act.TRUNCATE,
        Reply(502),
        problem(504, "timeout", retryable=True),
        Reply(200, b"v"),
    ]
    with FakeNode(script) as node, Client(node.endpoint, sleep=naps) as client:
        assert client.get("k") == b"v"
        assert len(node.seen) == 5


def test_a_read_does_not_wait_for_one_mute_endpoint_alone() -> None:
    """A paused process accepts connections and never answers; the others do."""
    with (
        FakeNode(Act.HANG) as mute,
        FakeNode(Reply(200, b"v")) as node,
        Client([mute.endpoint, node.endpoint], timeout=0.5) as client,
    ):
        assert client.get("k") == b"v"


def test_pauses_are_random_below_a_bound_that_doubles(nowhere: str, naps: Naps) -> None:
    """Full jitter: any pause from nothing to the bound, and the bound has a limit."""
    client = Client(nowhere, timeout=0.3, sleep=naps)
    with pytest.raises(Unreachable):
        client.get("k")
    bounds = [min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS * 2**n) for n in range(len(naps.seconds))]
    assert len(naps.seconds) > 5
    assert all(0 <= nap <= bound for nap, bound in zip(naps.seconds, bounds, strict=True))
    assert len(set(naps.seconds)) == len(naps.seconds)


# --------------------------------------------------------------------- deadlines and ends


def test_nobody_there_is_unreachable_once_the_time_is_up(nowhere: str) -> None:
    """The deadline covers all tries together."""
    began = time.monotonic()
    with pytest.raises(Unreachable, match="connection refused"):
        Client(nowhere, timeout=0.2).put("k", b"v")
    assert 0.15 < time.monotonic() - began < 2


def test_patience_ends_a_call_early_where_nobody_is_there(nowhere: str) -> None:
    """For people at a terminal: no ten seconds for a server that was never started."""
    began = time.monotonic()
    with pytest.raises(Unreachable):
        Client(nowhere, timeout=30, patience=0.1).get("k")
    assert time.monotonic() - began < 5


def test_patience_does_not_cut_short_what_a_node_is_at_work_on(naps: Naps) -> None:
    """An endpoint that answers is given the whole timeout."""
    script = [NO_LEADER] * 20 + [Reply(200, b"v")]
    with FakeNode(script) as node, Client(node.endpoint, patience=0.001, sleep=naps) as client:
        assert client.get("k") == b"v"


def test_a_leaderless_cluster_is_told_from_an_absent_one(nowhere: str, naps: Naps) -> None:
    """NoLeader stays the finding, though another endpoint is down."""
    with (
        FakeNode(NO_LEADER) as node,
        Client([node.endpoint, nowhere], timeout=0.2, sleep=naps) as client,
    ):
        with pytest.raises(NoLeader, match="why"):
            client.get("k")
        with pytest.raises(NoLeader, match="why"):
            client.put("k", b"v")


def test_a_mute_endpoint_makes_a_read_unreachable() -> None:
    """Within the timeout of the call, not the client's."""
    with (
        FakeNode(Act.HANG) as node,
        Client(node.endpoint) as client,
        pytest.raises(Unreachable, match="in time"),
    ):
        client.get("k", timeout=0.1)


@pytest.mark.parametrize("dripping", [Act.DRIP_HEAD, Act.DRIP_BODY])
def test_an_answer_that_comes_byte_by_byte_does_not_outlast_the_deadline(dripping: Act) -> None:
    """Each byte is in time, and the answer is not."""
    with FakeNode(lambda _: dripping) as node, Client(node.endpoint, timeout=0.3) as client:
        calls: list[tuple[type[ClientError], Callable[[], object]]] = [
            (Unreachable, lambda: client.get("k")),
            (Unreachable, lambda: client.status(node.endpoint)),
            (CommitUnknown, lambda: client.remove("n2")),
        ]
        for error, call in calls:
            began = time.monotonic()
            with pytest.raises(error, match="in time"):
                call()
            assert time.monotonic() - began < 2


def test_a_download_has_to_begin_in_time_and_may_go_on_for_long() -> None:
    """Its head has a deadline, and after that each piece of its body."""
    request = Request("GET", "/snapshot")
    with FakeNode(lambda _: Act.DRIP_HEAD) as node, Client(node.endpoint, timeout=0.3) as client:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="in time"):
            open_download(client, request)
        assert time.monotonic() - began < 2
        node.script = lambda _: Act.DRIP_BODY
        with open_download(client, request) as download:
            began = time.monotonic()
            while time.monotonic() < began + 0.5:
                assert set(download.read(1 << 16)) == set(b"x")


@pytest.fixture
def deaf() -> Iterator[tuple[str, int]]:
    """An address that neither accepts connections nor refuses them."""
    with socket.socket() as listening, contextlib.ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):  # more than it lets wait
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listening.getsockname())
        yield listening.getsockname()


def _let_names_mean(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: list(found))


def test_a_name_of_many_addresses_has_one_deadline(
    deaf: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To connect may not take the timeout for each of them."""
    with Client("name:1", timeout=0.4) as client:
        _let_names_mean(monkeypatch, *[deaf] * 8)
        began = time.monotonic()
        with pytest.raises(Unreachable, match="in time"):
            client.get("k")
        assert time.monotonic() - began < 1.5


def test_an_address_that_is_deaf_leaves_time_for_the_others(
    deaf: tuple[str, int], nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a name has an IPv6 address that leads nowhere."""
    with FakeNode(Reply(200, b"v")) as node, Client("name:1", timeout=1) as client:
        there = [split_address(each) for each in (nowhere, node.endpoint)]
        _let_names_mean(monkeypatch, deaf, *there)
        assert client.get("k") == b"v"


# --------------------------------------------------------------------- what answers mean


def test_an_idle_connection_that_has_ended_is_not_written_to() -> None:
    """A node that restarts closes them: the next write must not come back as unknown."""
    closing = Reply(200, b"v")

    with FakeNode([closing, Act.SERVE]) as node, Client(node.endpoint) as client:
        client.get("k")
        ((_, connection),) = client._connections._idle[node.endpoint]
        sock = connection.timed._sock
        sock.shutdown(socket.SHUT_WR)  # the node sees the end, and closes its side
        sock.setblocking(True)
        sock.recv(1, socket.MSG_PEEK)
        client.put("k", b"v")
        assert [seen.connection for seen in node.seen] == [0, 1]


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (problem(400, "bad_request"), "bad_request"),
        (problem(413, "value_too_large"), "value_too_large"),
        (problem(507, "disk_full"), "disk_full"),
        (problem(410, "removed"), "removed"),
        (problem(507, "quota_exceeded"), "quota_exceeded"),
        (Reply(404, b"nginx"), "http_404"),
        (Reply(301), "http_301"),
        (Reply(400, b"{", {"Content-Type": "application/problem+json"}), "http_400"),
        (Reply(400, b"[" * 5000, {"Content-Type": "application/json"}), "http_400"),
    ],
)
def test_other_errors_are_refusals_with_the_nodes_code(reply: Reply, code: str) -> None:
    """They are not tried again: the answer would be the same."""
    with FakeNode(reply) as node, Client(node.endpoint) as client:
        for call in (lambda: client.put("k", b"v"), lambda: client.get("k")):
            node.all_seen.clear()
            with pytest.raises(Refused) as refusal:
                call()
            assert (refusal.value.code, refusal.value.status) == (code, reply.status)
            assert len(node.seen) == 1


@pytest.mark.parametrize("code", ["removed", "disk_full"])
def test_what_one_node_will_not_do_another_may(code: str) -> None:
    """Each is asked once; what stands is what they say."""
    refusing = problem(507, code, retryable=True)
    cluster = FakeCluster()
    with (
        FakeNode(refusing, cluster=cluster) as one,
        FakeNode(refusing, cluster=cluster, node_id="n2") as other,
    ):
        with Client([one.endpoint, other.endpoint]) as client, pytest.raises(Refused, match=code):
            client.put("k", b"v")
        assert [one.methods, other.methods] == [["PUT"], ["PUT"]]
        del cluster.addresses["n2"]
        with (
            FakeNode(cluster=cluster, node_id="n3") as third,
            Client([one.endpoint, third.endpoint]) as client,
        ):
            client.put("k", b"v")
            assert client.get("k") == b"v"


def test_every_error_is_a_client_error() -> None:
    """One except clause is enough."""
    assert all(issubclass(each, ClientError) for each in (NoLeader, Unreachable, CommitUnknown))
    assert str(Refused("code", "detail", 400)) == "code: detail"


# --------------------------------------------------------------------- status and members

STATUS = {
    "node_id": "n1", "role": "leader", "leader_id": "n1", "last_log_index": 9,
    "peers": [{"id": "n2", "role": "follower", "connected": True, "match_index": 7}],
    "replication_lag": {"n2": 2},
}  # fmt: skip


def test_members_are_the_peers_and_the_node_itself_with_their_lag() -> None:
    """As the leader sees them."""
    with FakeNode(lambda _: json_reply(STATUS)) as node, Client(node.endpoint) as client:
        itself, other = client.members()
        assert (itself["id"], itself["role"], itself["match_index"]) == ("n1", "leader", 9)
        assert (other["id"], other["lag"], other["match_index"]) == ("n2", 2, 7)


def test_members_are_asked_of_the_leader_where_it_can_be_found() -> None:
    """A follower knows its address."""
    with FakeNode(lambda _: json_reply(STATUS)) as leader:
        peers = [{"id": "n1", "role": "leader", "http_address": leader.endpoint}]
        follower_status = {"node_id": "n2", "leader_id": "n1", "role": "follower", "peers": peers}
        with (
            FakeNode(lambda _: json_reply(follower_status)) as follower,
            Client(follower.endpoint) as client,
        ):
            assert client.members()[1]["lag"] == 2


def test_members_of_a_follower_do_without_a_leader_that_is_away(nowhere: str) -> None:
    """What is known is better than nothing."""
    peers = [{"id": "n1", "role": "leader", "http_address": nowhere}]
    status = {"node_id": "n2", "leader_id": "n1", "role": "follower", "peers": peers}
    with FakeNode(lambda _: json_reply(status)) as follower, Client(follower.endpoint) as client:
        assert [member["id"] for member in client.members()] == ["n2", "n1"]


@pytest.mark.parametrize(
    "reply", [Reply(200, b"hello"), Reply(200, b"[1]"), Reply(200, b"[" * 9999)]
)
def test_a_status_that_is_none_is_refused(reply: Reply) -> None:
    """Some other server may listen there."""
    with FakeNode(lambda _: reply) as node, Client(node.endpoint) as client:
        with pytest.raises(Refused, match="is this the HTTP port"):
            client.status()
        with pytest.raises(Refused):
            client.status(node.endpoint)


def test_one_endpoint_can_be_asked_by_name(nowhere: str) -> None:
    """Then no other answers for it."""
    with FakeNode() as node, Client(node.endpoint) as client:
        assert client.status(node.endpoint)["node_id"] == "n1"
        with pytest.raises(Unreachable):
            client.status(nowhere, timeout=0.2)


def test_a_closed_client_keeps_no_connection() -> None:
    """It still works, one connection for each call."""
    with FakeNode() as node:
        client = Client(node.endpoint)
        client.get("k")
        client.close()
        client.get("k")
        client.get("k")
        assert [seen.connection for seen in node.seen] == [0, 1, 2]
