"""Writes that are safe to send again: in sessions, with keys, and as of old without either."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from anchor.client import Client, CommitUnknown, NoLeader, PreconditionFailed, Refused, Unreachable
from anchor.client import retrying as retrying_module
from tests.client.fakes import Act, FakeCluster, FakeNode, Reply, Seen, problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.client.conftest import Naps, SleepingMachine

NO_LEADER = problem(503, "no_leader", retryable=True)
UNKNOWN = problem(504, "commit_unknown")
ENTRY = (
    b'{"key":"k","key_encoding":"utf-8","value":"%b","encoding":"%b",'
    b'"create_index":1,"mod_index":1,"version":1}'
)
OPEN_FATES = [
    Act.LOSE, Act.CLOSE, Act.TRUNCATE, Act.GARBAGE,
    UNKNOWN, Reply(500), Reply(502), Reply(503), Reply(504), problem(500, "internal"),
]  # fmt: skip


# --------------------------------------------------------------------- conditions and indexes


def test_a_write_returns_the_index_that_the_next_one_may_expect() -> None:
    """put, put_if and entry agree on it."""
    with FakeNode() as node, Client(node.endpoint) as client:
        first = client.put("k", "1")
        second = client.put_if("k", "2", mod_index=first)
        entry = client.entry("k")
        assert entry is not None
        assert (entry.key, entry.value) == (b"k", b"2")
        assert (entry.create_index, entry.mod_index, entry.version) == (first, second, 2)
        client.delete_if("k", second)
        assert client.entry("k") is None


def test_an_entry_has_bytes_whatever_they_are() -> None:
    """Neither key nor value need be text."""
    with FakeNode() as node, Client(node.endpoint) as client:
        client.put(b"\xff/k", b"\x00\xfe")
        entry = client.entry(b"\xff/k")
        assert entry is not None
        assert (entry.key, entry.value) == (b"\xff/k", b"\x00\xfe")


@pytest.mark.parametrize("sessions", [True, False])
def test_a_write_that_expects_something_else_changes_nothing(sessions: bool) -> None:  # noqa: FBT001
    """And learns what there is."""
    with FakeNode() as node, Client(node.endpoint, sessions=sessions) as client:
        with pytest.raises(PreconditionFailed) as failed:
            client.put_if("k", "1", mod_index=7)
        assert failed.value.mod_index is None
        with pytest.raises(PreconditionFailed, match="not there"):
            client.delete_if("k", 7)
        created = client.put_if("k", "1", mod_index=0)
        for call in (
            lambda: client.put_if("k", "2", mod_index=0),
            lambda: client.put_if("k", "2", mod_index=created + 1),
            lambda: client.delete_if("k", created + 1),
        ):
            with pytest.raises(PreconditionFailed) as failed:
                call()
            assert failed.value.mod_index == created
        assert client.get("k") == b"1"


def test_an_index_that_cannot_be_never_leaves() -> None:
    """It is the caller's mistake."""
    client = Client("a:1")
    for wrong in (lambda: client.put_if("k", "", -1), lambda: client.delete_if("k", 0)):
        with pytest.raises(ValueError, match="1 or more"):
            wrong()


def test_an_answer_without_an_index_is_not_taken_for_done() -> None:
    """Whatever says 200 there, it is not a node."""
    with FakeNode(Reply()) as node, Client(node.endpoint) as client:
        with pytest.raises(CommitUnknown, match="ETag"):
            client.put("k", "v")
        client.delete("k")
    with FakeNode(problem(404, "not_found")) as node, Client(node.endpoint) as client:
        for call in (lambda: client.put("k", "v"), lambda: client.delete("k")):
            with pytest.raises(Refused, match="not_found"):
                call()


def test_an_index_may_be_weakened_on_the_way() -> None:
    """As proxies do that compress."""
    with FakeNode(Reply(headers={"ETag": 'W/"7"'})) as node, Client(node.endpoint) as client:
        assert client.put("k", "v") == 7


@pytest.mark.parametrize(
    "body",
    [
        b"v",
        b"{}",
        b"[]",
        ENTRY % (b"%", b"base64"),
        ENTRY % (b"v", b"latin-1"),
    ],
)
def test_an_entry_that_is_none_is_refused(body: bytes) -> None:
    """An older node answers with the bare value."""
    with (
        FakeNode(Reply(200, body)) as node,
        Client(node.endpoint) as client,
        pytest.raises(Refused, match="not_anchor"),
    ):
        client.entry("k")


# --------------------------------------------------------------------- sent again


@pytest.mark.parametrize("sessions", [True, False])
@pytest.mark.parametrize("lost", OPEN_FATES)
def test_a_write_without_a_clear_answer_is_sent_again_and_done_once(
    lost: Act | Reply,
    sessions: bool,  # noqa: FBT001
    naps: Naps,
) -> None:
    """The same number or key each time; its first answer counts."""
    cluster = FakeCluster()
    with (
        FakeNode([lost, Act.LOSE, lost, Act.SERVE, Act.SERVE], cluster=cluster) as node,
        Client(node.endpoint, sleep=naps, sessions=sessions) as client,
    ):
        assert client.put_if("k", b"v", mod_index=0) == 1
        assert cluster.applied == 1
        mark = "X-Sequence" if sessions else "Idempotency-Key"
        assert len({seen.headers[mark] for seen in node.seen}) == 1
        client.put("k", b"w")
        assert len({seen.headers[mark] for seen in node.seen}) == 2
        assert cluster.entries["/kv/k"].value == b"w"


def test_a_lost_refusal_is_told_again(naps: Naps) -> None:
    """A 412 takes its number as a success does."""
    with (
        FakeNode([Act.SERVE, Act.LOSE, Act.SERVE, Act.SERVE]) as node,
        Client(node.endpoint, sleep=naps) as client,
    ):
        first = client.put("k", b"1")
        with pytest.raises(PreconditionFailed) as failed:
            client.put_if("k", b"2", mod_index=first + 5)
        assert failed.value.mod_index == first
        client.put("k", b"3")
        assert [number for _, number in node.numbers] == ["1", "2", "2", "3"]


def test_what_was_answered_is_acknowledged_with_the_next_write() -> None:
    """So that the cluster can forget it."""
    with FakeNode() as node, Client(node.endpoint) as client:
        for _ in range(3):
            client.put("k", b"v")
        assert [seen.headers["X-Acked"] for seen in node.seen] == ["0", "1", "2"]
        assert len(node.cluster.sessions) == 1


def test_a_paused_endpoint_does_not_eat_the_deadline_of_a_write() -> None:
    """The write goes to another one, though the first may do it yet."""
    cluster = FakeCluster()
    with (
        FakeNode([Act.SERVE, Act.HANG], cluster=cluster) as mute,
        FakeNode(cluster=cluster, node_id="n2") as node,
        Client([mute.endpoint, node.endpoint], timeout=1.5) as client,
    ):
        client.put("k", b"1")
        client.put("k", b"2")
        assert mute.numbers[1] == node.numbers[0]
        assert cluster.applied == 2


def test_a_write_is_unknown_only_once_the_time_is_up(naps: Naps) -> None:
    """Until then it is sent again; its session is never used again."""
    with (
        FakeNode([Act.SERVE, *[UNKNOWN] * 5000]) as node,
        Client(node.endpoint, sleep=naps) as client,
    ):
        client.put("k", b"1")
        began = time.monotonic()
        with pytest.raises(CommitUnknown, match="why"):
            client.put("k", b"2", timeout=1)
        assert time.monotonic() - began >= 1
        assert len(node.seen) > 3
        node.script = lambda _: Act.SERVE
        client.put("k", b"3")
        assert len({session for session, _ in node.numbers}) == 2
        assert node.numbers[-1][1] == "1"


@pytest.mark.parametrize(
    "other",
    [NO_LEADER, problem(413, "value_too_large"), problem(507, "disk_full"), Reply(404, b"?")],
)
def test_once_the_fate_is_open_no_other_answer_settles_it(other: Reply, naps: Naps) -> None:
    """What a node says of a later try says nothing of the first."""
    for ending in (Act.SERVE, other):
        script: list[Act | Reply] = [Act.LOSE, other, other, other]
        script += [ending] * 20_000
        cluster = FakeCluster()
        with (
            FakeNode(script, cluster=cluster) as node,
            Client(node.endpoint, sleep=naps, timeout=30 if ending is Act.SERVE else 1) as client,
        ):
            if ending is Act.SERVE:
                assert client.put("k", b"v") == 1
            else:
                with pytest.raises(CommitUnknown, match="an earlier try may have happened"):
                    client.put("k", b"v")
        assert cluster.applied == 1


def test_once_the_fate_is_open_every_endpoint_is_asked_again(naps: Naps) -> None:
    """Also one that said before that it would not do it: it may know what became of it."""
    cluster = FakeCluster()
    full = problem(507, "disk_full", retryable=True)
    with (
        FakeNode([full, Act.SERVE], cluster=cluster) as one,
        FakeNode([Act.LOSE, *[NO_LEADER] * 9999], cluster=cluster, node_id="n2") as other,
        Client([one.endpoint, other.endpoint], sleep=naps) as client,
    ):
        assert client.put("k", b"v") == 1
        assert cluster.applied == 1


def test_once_the_fate_is_open_all_of_the_time_is_used(naps: Naps) -> None:
    """No effect is to be feared any more from a try that is cut short."""

    def script(seen: Seen) -> Reply | Act:
        if not seen.target.startswith("/kv/"):
            return Act.SERVE
        if len(node.seen) > 1:
            return UNKNOWN
        time.sleep(0.2)
        return NO_LEADER

    with FakeNode(script) as node, Client(node.endpoint, sleep=naps, timeout=1.5) as client:
        began = time.monotonic()
        with pytest.raises(CommitUnknown):
            client.put("k", b"v")
        assert time.monotonic() - began >= 1.5


def test_a_write_that_was_refused_leaves_its_number_to_the_next() -> None:
    """Nothing was done with it."""
    script: list[Reply | Act]
    script = [problem(413, "value_too_large"), Act.SERVE, Reply(413), Act.SERVE]
    with FakeNode(script) as node, Client(node.endpoint) as client:
        with pytest.raises(Refused):
            client.put("k", b"1")
        client.put("k", b"2")
        with pytest.raises(Refused):
            client.put("k", b"3")  # a proxy says so: who knows what it did with it
        client.put("k", b"4")
        sessions = [session for session, _ in node.numbers]
        assert [number for _, number in node.numbers] == ["1", "1", "2", "1"]
        assert sessions[0] == sessions[1] == sessions[2] != sessions[3]


def test_a_leaderless_cluster_is_said_to_be_one_while_there_is_time_for_an_answer() -> None:
    """A node that takes its time to say "no leader" must not turn into "outcome unknown"."""

    def slow_no_leader(seen: Seen) -> Reply | Act:
        if not seen.target.startswith("/kv/"):
            return Act.SERVE
        time.sleep(1)
        return NO_LEADER

    for sessions in (True, False):
        with (
            FakeNode(slow_no_leader) as node,
            Client(node.endpoint, timeout=2, sessions=sessions) as client,
        ):
            with pytest.raises(NoLeader):
                client.put("k", b"v")
            assert len(node.seen) == 1


def test_a_write_that_had_no_effect_leaves_its_number_to_the_next(naps: Naps) -> None:
    """No session is wasted on a cluster without a leader."""
    with FakeNode(NO_LEADER) as node, Client(node.endpoint, sleep=naps, timeout=1) as client:
        for _ in range(2):
            with pytest.raises(NoLeader):
                client.put("k", b"v")
        assert len(node.seen) >= 2
        assert len(set(node.numbers)) == 1


def test_a_session_that_cannot_be_opened_leaves_no_doubt(naps: Naps) -> None:
    """The write itself never left."""

    def script(seen: Seen) -> Reply | Act:
        return UNKNOWN if seen.target == "/sessions" else Act.SERVE

    with FakeNode(script) as node, Client(node.endpoint, timeout=0.2, sleep=naps) as client:
        with pytest.raises(NoLeader):
            client.put("k", b"v")
        assert node.seen == []
    with (
        FakeNode(lambda _: Act.CLOSE) as node,
        Client(node.endpoint, timeout=0.2) as client,
        pytest.raises(Unreachable),
    ):
        client.put("k", b"v")


# --------------------------------------------------------------------- sessions that end


@pytest.mark.parametrize(
    "lost",
    [
        problem(410, "session_expired"),
        problem(404, "session_unknown"),
        problem(404, "session_foreign"),
        problem(409, "sequence_gap"),
        problem(409, "sequence_forgotten"),
        problem(422, "sequence_reused"),
    ],
)
def test_a_session_that_is_lost_is_replaced_unless_the_write_may_have_been_done(
    lost: Reply, naps: Naps
) -> None:
    """At the first try it certainly was not; after a lost answer nobody can tell any more."""
    script: list[Reply | Act]
    script = [Act.SERVE, lost, Act.SERVE, NO_LEADER, lost, Act.SERVE, UNKNOWN, lost, Act.SERVE]
    with FakeNode(script) as node, Client(node.endpoint, sleep=naps) as client:
        client.put("k", b"1")
        client.put("k", b"2")
        client.put("k", b"3")
        assert [number for _, number in node.numbers] == ["1", "2", "1", "2", "2", "1"]
        with pytest.raises(CommitUnknown, match="earlier try"):
            client.put("k", b"4")
        client.put("k", b"5")
        assert node.numbers[-1] == (f"{4:032x}", "1")
        assert len(node.cluster.sessions) == 4


def test_sessions_that_end_one_after_the_other_end_the_call_in_time(naps: Naps) -> None:
    """A cluster with too many clients, say: nothing was done, and that is said."""
    with (
        FakeNode(problem(410, "session_expired")) as node,
        Client(node.endpoint, sleep=naps, timeout=0.3) as client,
    ):
        with pytest.raises((Refused, Unreachable), match=r"session_expired|no time is left"):
            client.put("k", b"v")
        assert naps.seconds


def test_a_session_that_was_idle_is_replaced_rather_than_trusted() -> None:
    """By this host's clock, well before the cluster would end it."""
    with FakeNode() as node, Client(node.endpoint) as client:
        client.put("k", b"1")
        assert client._sessions is not None
        (session,) = client._sessions._idle
        for _ in range(2):
            session.used_at -= 20
            client.put("k", b"2")
        session.used_at -= 31
        client.put("k", b"3")
        assert [number for _, number in node.numbers] == ["1", "2", "3", "1"]


def test_a_session_ages_while_the_machine_sleeps(machine: SleepingMachine) -> None:
    """The cluster's time went on."""
    with FakeNode() as node, Client(node.endpoint) as client:
        client.put("k", b"1")
        machine.sleep(31)
        client.put("k", b"2")
        assert [number for _, number in node.numbers] == ["1", "1"]


def test_sessions_of_a_burst_are_forgotten_when_they_are_too_old() -> None:
    """Those that lie below the one in use too, and they are not deleted one by one at the end."""
    with FakeNode() as node, Client(node.endpoint) as client:
        together = threading.Barrier(5)

        def script(seen: Seen) -> Act:
            if seen.method == "PUT":
                together.wait(10)
            return Act.SERVE

        node.script = script
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda number: client.put(f"k{number}", b"v"), range(5)))
        node.script = lambda _: Act.SERVE
        assert client._sessions is not None
        *old, recent, fresh = client._sessions._idle
        for session in old:
            session.used_at -= 31
        client.put("k", b"v")
        assert client._sessions._idle == [recent, fresh]
        recent.used_at -= 31
        client.close()
        assert [each.target for each in node.all_seen if each.method == "DELETE"] == [
            f"/sessions/{fresh.id}"
        ]


def test_a_session_outlives_the_longest_call() -> None:
    """Its time to live follows the timeout."""
    for timeout, ttl_seconds in ((5, 60.0), (100, 400.0), (1e6, 86_400.0)):
        with FakeNode() as node, Client(node.endpoint, timeout=timeout) as client:
            client.put("k", b"v")
            (session,) = node.cluster.sessions.values()
            assert session.ttl_seconds == ttl_seconds


def test_closing_deletes_the_sessions() -> None:
    """And a write after that needs none."""
    with FakeNode() as node:
        client = Client(node.endpoint)
        client.put("k", b"1")
        client.close()
        assert all(session.ended for session in node.cluster.sessions.values())
        client.put("k", b"2")
        assert "Idempotency-Key" in node.seen[-1].headers
        assert len(node.cluster.sessions) == 1


def test_closing_does_not_wait_for_long() -> None:
    """What is left behind ends by itself."""

    def script(seen: Seen) -> Reply | Act:
        return Act.HANG if seen.method == "DELETE" else Act.SERVE

    with FakeNode(script) as node:
        client = Client(node.endpoint)
        client.put("k", b"1")
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < 5


# --------------------------------------------------------------------- keys


def test_without_sessions_each_write_has_a_key_of_its_own() -> None:
    """And the cluster is asked once whether it knows keys."""
    with FakeNode() as node, Client(node.endpoint, sessions=False) as client:
        client.put("k", b"1")
        client.delete("k")
        client.put("k", b"1")
        keys = [seen.headers["Idempotency-Key"] for seen in node.seen]
        assert len(set(keys)) == 3
        assert [seen.target for seen in node.all_seen].count("/status") == 1
        assert node.cluster.sessions == {}


def test_a_write_is_not_sent_again_when_its_key_may_be_forgotten(
    naps: Naps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are remembered for ten minutes, and a call may be given longer."""
    monkeypatch.setattr(retrying_module, "KEY_SECONDS", 0.2)
    with (
        FakeNode(UNKNOWN) as node,
        Client(node.endpoint, sleep=naps, sessions=False, timeout=30) as client,
    ):
        began = time.monotonic()
        with pytest.raises(CommitUnknown):
            client.put("k", b"v")
        assert time.monotonic() - began < 5
        assert len(node.seen) > 1


def test_a_key_ages_while_the_machine_sleeps(machine: SleepingMachine, naps: Naps) -> None:
    """A laptop that wakes up in the middle of a long call must not do a write twice."""

    def script(seen: Seen) -> Act:
        if seen.method != "PUT" or len(node.seen) > 1:
            return Act.SERVE
        machine.sleep(600)
        return Act.LOSE

    with (
        FakeNode(script) as node,
        Client(node.endpoint, sleep=naps, sessions=False, timeout=3600) as client,
    ):
        with pytest.raises(CommitUnknown):
            client.put("k", b"v")
        assert len(node.seen) == 1


# --------------------------------------------------------------------- neither is known


@pytest.mark.parametrize("sessions", [True, False])
@pytest.mark.parametrize("protocol_version", [1, 2])
def test_a_cluster_that_is_being_upgraded_takes_writes(
    protocol_version: int,
    sessions: bool,  # noqa: FBT001
    naps: Naps,
) -> None:
    """Unmarked, and so sent again only where nothing was done."""
    cluster = FakeCluster(protocol_version=protocol_version)
    with (
        FakeNode([Act.SERVE, NO_LEADER, Act.SERVE, Act.LOSE], cluster=cluster) as node,
        Client(node.endpoint, sleep=naps, sessions=sessions) as client,
    ):
        client.put("k", b"1")
        client.put("k", b"2")
        with pytest.raises(CommitUnknown):
            client.put("k", b"3")
        assert cluster.applied == 3
        assert not any(seen.headers.keys() & {"X-Session", "Idempotency-Key"} for seen in node.seen)


def test_an_upgrade_with_a_node_down_is_no_hindrance(nowhere: str) -> None:
    """One at a time they are down while it lasts."""
    cluster = FakeCluster(protocol_version=2)
    with FakeNode(cluster=cluster) as node, Client([nowhere, node.endpoint]) as client:
        began = time.monotonic()
        client.put("k", b"1")
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("sessions", [True, False])
def test_a_node_that_does_not_know_yet_what_the_cluster_speaks_is_waited_for(
    sessions: bool,  # noqa: FBT001
    naps: Naps,
) -> None:
    """Where writes were recognized once they always are: none goes unmarked after that."""
    with FakeNode() as node, Client(node.endpoint, sleep=naps, sessions=sessions) as client:
        client.put("k", b"1")
        _start_again(node)
        client.put("k", b"2")
        if client._sessions is not None:
            client._sessions._idle.clear()
        _start_again(node)
        client.put("k", b"3")
        mark = "X-Session" if sessions else "Idempotency-Key"
        assert all(mark in seen.headers for seen in node.seen)
        assert node.cluster.applied == 3


def _start_again(node: FakeNode) -> None:
    """Be behind the log for a while, as a node is that was just started."""
    node.cluster.protocol_version = 2
    node.script = _catching_up(node.cluster, 3)


def _catching_up(cluster: FakeCluster, requests: int) -> Callable[[Seen], Act]:
    """Serve; after so many requests the node knows what the cluster speaks."""
    counted = iter(range(requests))

    def script(_: Seen) -> Act:
        if next(counted, None) is None:
            cluster.protocol_version = 3
        return Act.SERVE

    return script


def test_sessions_are_used_once_the_upgrade_is_done(
    naps: Naps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not asked for them with each write, but now and then."""
    cluster = FakeCluster(protocol_version=2)
    with FakeNode(cluster=cluster) as node, Client(node.endpoint, sleep=naps) as client:
        client.put("k", b"1")
        cluster.protocol_version = 3
        client.put("k", b"2")
        assert node.numbers == []
        monkeypatch.setattr(client._writes, "_unmarked_until", 0.0)
        client.put("k", b"3")
        assert len(node.numbers) == 1


def test_changes_of_the_members_are_not_sent_again_in_doubt(naps: Naps) -> None:
    """They carry no mark."""
    with FakeNode(Act.CLOSE) as node, Client(node.endpoint, sleep=naps) as client:
        with pytest.raises(CommitUnknown):
            client.remove("n9")
        assert len(node.seen) == 1
