"""§8 and thesis chapter 6: linearizable reads by ReadIndex and by lease."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anchor.raft import AppendEntries, AppendEntriesResponse, Role
from tests.raft.harness import Cluster
from tests.raft.network import between

if TYPE_CHECKING:
    from tests.raft.server import Server


def led(size: int = 3) -> Cluster:
    """Give a cluster that n1 leads, all quiet and caught up."""
    cluster = Cluster(size)
    cluster.elect("n1")
    cluster.run(2 * cluster.options.heartbeat_ticks)
    return cluster


def ask(cluster: Cluster, server: Server, context: object) -> None:
    """Ask for a read point, watched by the checker."""
    cluster.invariants.reads.asked(server, context)
    server.read_index(context)


def test_a_read_is_confirmed_by_a_majority_at_the_commit_index_of_its_asking() -> None:
    """§8: the leader exchanges messages with a majority before it answers a read-only request."""
    cluster = led()
    leader = cluster["n1"]
    ask(cluster, leader, "read")
    assert leader.reads == []
    cluster.run(cluster.options.heartbeat_ticks)
    assert [(r.context, r.index) for r in leader.reads] == [("read", 2)]


def test_a_read_does_not_wait_for_the_next_heartbeat() -> None:
    """Thesis §6.4: the round is started at once."""
    cluster = led()
    ask(cluster, cluster["n1"], "read")
    cluster.deliver()
    assert len(cluster["n1"].reads) == 1


def test_a_read_without_a_majority_is_never_confirmed() -> None:
    """§8: a leader that was deposed without knowing it must not serve stale data."""
    cluster = led(5)
    cluster.isolate("n1", "n2")
    ask(cluster, cluster["n1"], "read")
    cluster.run(8)
    assert cluster["n1"].reads == []
    cluster.run(40)
    assert cluster["n1"].aborted_reads == ["read"]


def test_answers_to_earlier_rounds_confirm_nothing() -> None:
    """Thesis §6.4: only what was sent after the question shows leadership after the question."""
    cluster = led()
    leader = cluster["n1"]
    cluster.tick(cluster.options.heartbeat_ticks, only=["n1"])
    cluster.deliver(between("n1", "n2"))  # n2's answer is under way before the question
    cluster.network.hold(lambda m: isinstance(m, AppendEntries))
    ask(cluster, leader, "read")
    cluster.deliver()
    assert leader.reads == []
    cluster.network.release()
    cluster.deliver()
    assert len(leader.reads) == 1


def test_many_reads_share_a_round() -> None:
    """Thesis §6.4: one round serves all reads that were waiting when it began."""
    cluster = led()
    leader = cluster["n1"]
    cluster.network.take_sent()
    for i in range(50):
        ask(cluster, leader, i)
    cluster.deliver()
    cluster.run(2)
    assert [r.context for r in leader.reads] == list(range(50))
    assert len([m for m in cluster.network.sent if isinstance(m, AppendEntries)]) <= 110


def test_reads_of_a_sole_member_are_confirmed_at_once() -> None:
    """§8: a majority of one needs no messages."""
    cluster = Cluster(1)
    leader = cluster.elect("n1")
    ask(cluster, leader, "read")
    assert [r.context for r in leader.reads] == ["read"]


def test_a_deposed_leader_aborts_its_reads() -> None:
    """§8: the client asks again elsewhere."""
    cluster = led()
    leader = cluster["n1"]
    cluster.isolate("n1")
    ask(cluster, leader, "a")
    ask(cluster, leader, "b")
    cluster.run(40)
    assert leader.raft.role is not Role.LEADER
    assert sorted(map(str, leader.aborted_reads)) == ["a", "b"]
    assert leader.reads == []


def test_followers_refuse_read_index() -> None:
    """§8: only the leader can confirm; the shell forwards."""
    cluster = led()
    assert cluster.refused(lambda: cluster["n2"].read_index("x")) == "NotLeader"


def test_the_lease_is_valid_while_a_majority_answers() -> None:
    """Thesis §6.4.1: heartbeats acknowledged by a majority extend the lease."""
    cluster = led()
    for _ in range(50):
        cluster.run()
        assert cluster.invariants.reads.lease(cluster["n1"])
        assert not cluster["n2"].raft.lease_valid()


def test_the_lease_runs_out_without_a_majority() -> None:
    """Thesis §6.4.1: it ends lease_ticks after the last acknowledged round was sent."""
    cluster = led()
    leader = cluster["n1"]
    assert leader.raft.lease_valid()
    cluster.isolate("n1")
    leader.tick(cluster.options.lease_ticks)
    assert not leader.raft.lease_valid()
    assert leader.is_leader  # it still leads, for a while; it only may not read alone


def test_a_sole_member_always_has_the_lease_once_its_noop_is_committed() -> None:
    """§8: nobody else can lead."""
    cluster = Cluster(1)
    leader = cluster.elect("n1")
    leader.tick(50)
    assert leader.raft.lease_valid()
    leader.tick(elapsed=500)  # a pause: until the next round nobody vouches for its clock
    leader.tick(cluster.options.heartbeat_ticks)
    assert leader.raft.lease_valid()


def test_a_lease_starts_when_the_round_was_sent_not_when_it_was_answered() -> None:
    """Thesis §6.4.1: an answer says only that the question had been received, not when."""
    cluster = led()
    leader = cluster["n1"]
    cluster.tick(cluster.options.lease_ticks, only=["n1"])
    assert not leader.raft.lease_valid()
    first_round = min(
        m.read_round for m in cluster.network.in_flight if isinstance(m, AppendEntries)
    )
    cluster.deliver(lambda m: isinstance(m, AppendEntries) and m.read_round == first_round, count=1)
    cluster.deliver(lambda m: isinstance(m, AppendEntriesResponse))
    assert leader.raft.lease_valid()
    leader.tick(2)  # two ticks were left of that round's lease: none is now
    assert not leader.raft.lease_valid()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_writes_wait_for_the_noop_and_so_do_reads(size: int) -> None:
    """§8: until its no-op is committed the leader does not know the commit index of its reads."""
    cluster = Cluster(size)
    leader = cluster["n1"]
    cluster.network.hold(between("n1", kind=AppendEntries))
    cluster.elect("n1")
    ask(cluster, leader, "early")
    cluster.deliver()
    assert leader.reads == []
    assert not leader.raft.lease_valid()
    cluster.network.release()
    cluster.run(3)
    assert [(r.context, r.index) for r in leader.reads] == [("early", 2)]
