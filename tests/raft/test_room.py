"""Members whose disks are full: they hold what they have, take no more, and come back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anchor.raft import (
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    ProgressState,
    Raft,
    TimeoutNow,
)
from tests.raft.harness import Cluster, configuration


def led(voters: int = 3) -> Cluster:
    """A cluster that n1 leads, and in which something is committed; it speaks protocol 2."""
    cluster = Cluster(voters)
    leader = cluster.elect("n1")
    leader.propose_configuration(replace(leader.raft.configuration, protocol_version=2))
    cluster.commit(b"first")
    return cluster


def entries_sent(cluster: Cluster, recipient: str, ticks: int) -> int:
    """How many appends with entries a member is sent in so much time."""
    sent = 0
    for _ in range(ticks):
        cluster.tick()
        while (message := cluster.network.next(lambda _: True)) is not None:
            if isinstance(message, AppendEntries) and message.recipient == recipient:
                sent += bool(message.entries)
            cluster.hand_over(message)
    return sent


def test_a_follower_without_room_acknowledges_nothing_it_has_not() -> None:
    """The others commit; it stays where it is, and stays a follower."""
    cluster = led()
    full = cluster["n3"]
    last_index = full.raft.last_log_index
    full.raft.set_room(False)
    cluster.commit(b"second")
    assert full.raft.last_log_index == last_index
    assert cluster.leader().raft.progress["n3"].match_index == last_index
    cluster.run(100)
    assert full.raft.leader_id == "n1"
    assert cluster.leaders() == ["n1"]


def test_a_leader_does_not_press_a_member_that_has_no_room() -> None:
    """After one refusal it sends heartbeats only, however much there is to send."""
    cluster = led()
    cluster["n3"].raft.set_room(False)
    for number in range(20):
        cluster.commit(b"%d" % number)
    assert cluster.leader().raft.progress["n3"].state is ProgressState.PROBE
    assert entries_sent(cluster, "n3", 100) == 0


def test_a_member_that_has_room_again_catches_up_by_itself() -> None:
    """The next heartbeat's answer says so."""
    cluster = led()
    full = cluster["n3"]
    full.raft.set_room(False)
    for number in range(20):
        cluster.commit(b"%d" % number)
    full.raft.set_room(True)
    cluster.run(2 * cluster.options.heartbeat_ticks)
    cluster.settle()
    assert full.raft.last_log_index == cluster.leader().raft.last_log_index
    assert cluster.leader().raft.progress["n3"].has_room


def test_what_a_full_member_holds_already_it_acknowledges() -> None:
    """A late or repeated append costs no room; what follows it is left out."""
    cluster = led()
    follower = cluster["n3"]
    cluster.isolate("n3")
    leader = cluster.leader()
    leader.propose(b"second")
    leader.propose(b"third")
    cluster.settle()
    cluster.heal()
    term, last_index = leader.raft.term, leader.raft.last_log_index
    log = [leader.raft.log.entries(i, 0)[0] for i in range(1, last_index + 1)]
    follower.raft.set_room(False)
    held = follower.raft.last_log_index
    for first in (0, held - 1):
        sent = tuple(log[first:])
        prev_term = log[first - 1].term if first else 0
        follower.raft.step(AppendEntries(term, "n1", "n3", first, prev_term, sent, 0, 0, 77))
    answers = [m for m in everything_promised(follower.raft) if m.session == 77]
    assert [(m.success, m.match_index, m.no_room) for m in answers] == [(True, held, True)] * 2
    sent = tuple(log[held - 1 : held])
    prev_term = log[held - 2].term
    follower.raft.step(AppendEntries(term, "n1", "n3", held - 1, prev_term, sent, 0, 0, 78))
    (answer,) = (m for m in everything_promised(follower.raft) if m.session == 78)
    assert (answer.success, answer.match_index) == (True, held)


def everything_promised(raft: Raft) -> list[AppendEntriesResponse]:
    """What it would answer."""
    ready = raft.ready()
    raft.persisted(ready.number)
    messages = [*ready.messages, *ready.messages_after_persist]
    return [message for message in messages if isinstance(message, AppendEntriesResponse)]


def test_a_full_member_gives_its_vote_and_does_not_campaign() -> None:
    """Terms and votes are small; a leader would have to append."""
    cluster = led()
    cluster["n1"].raft.set_room(False)
    cluster["n1"].raft.step_down()
    cluster["n3"].raft.set_room(False)
    cluster.run_until(lambda: cluster.leaders() == ["n2"])
    leader = cluster.leader().raft
    cluster["n3"].raft.step(TimeoutNow(leader.term, "n2", "n3"))
    cluster.run(100)
    assert cluster.leaders() == ["n2"]


def test_a_full_leader_takes_no_commands_and_serves_reads_until_it_hands_over() -> None:
    """What it has it may still vouch for."""
    cluster = led()
    leader = cluster.leader()
    leader.raft.set_room(False)
    assert cluster.refused(lambda: leader.propose(b"more")) == "NoRoom"
    cluster.invariants.reads.asked(leader, "question")
    leader.read_index("question")
    cluster.deliver()
    assert "question" in [read.context for read in leader.reads]
    leader.transfer_leadership("n2")
    cluster.run_until(lambda: cluster.leaders() == ["n2"])
    cluster.commit(b"more")
    assert cluster.leader().raft.progress["n1"].match_index < cluster.leader().raft.last_log_index


def test_a_leader_appends_nothing_that_too_few_have_room_for() -> None:
    """It would never be committed, and nobody would know."""
    cluster = led()
    for member_id in ("n2", "n3"):
        cluster[member_id].raft.set_room(False)
    cluster.run(2 * cluster.options.heartbeat_ticks)
    leader = cluster.leader()
    assert cluster.refused(lambda: leader.propose(b"more")) == "NoRoom"
    cluster["n3"].raft.set_room(True)
    cluster.run(2 * cluster.options.heartbeat_ticks)
    cluster.commit(b"more")


@pytest.mark.parametrize("turns", [1, 2])
def test_a_new_leader_finds_where_a_full_members_log_meets_its_own(turns: int) -> None:
    """With as many probes as with any other member."""
    cluster = led()
    cluster["n3"].raft.set_room(False)
    for number in range(30):
        cluster.commit(b"%d" % number)
    for member_id in ("n2", "n1")[:turns]:
        cluster.leader().transfer_leadership(member_id)
        cluster.run_until(lambda member_id=member_id: cluster.leaders() == [member_id])  # type: ignore[misc]
    assert entries_sent(cluster, "n3", 100) <= 3
    held = cluster["n3"].raft.last_log_index
    assert cluster.leader().raft.progress["n3"].match_index == held


def test_a_full_member_is_silent_where_the_leader_may_not_understand() -> None:
    """In a cluster of protocol 1 any answer would have the leader press on."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.commit(b"first")
    assert not cluster["n3"].raft.cluster_speaks(2)
    cluster["n3"].raft.set_room(False)
    cluster.commit(b"second")
    cluster.run(100)
    assert cluster.leaders() == ["n1"]
    assert not cluster.leader().raft.progress["n3"].recently_active
    cluster["n3"].raft.set_room(True)
    cluster.commit(b"third")
    assert cluster["n3"].raft.last_log_index == cluster.leader().raft.last_log_index


def test_the_protocol_of_a_cluster_rises_and_never_falls() -> None:
    """It is agreed on in the log, and survives every change of membership."""
    cluster = led(5)
    raft = cluster.leader().raft
    assert all(server.raft.cluster_speaks(2) for server in cluster.up())
    smaller = replace(
        configuration(["n1", "n2", "n3"]), protocol_version=1
    )  # two voters fewer: a joint change
    cluster.leader().propose_configuration(smaller)
    cluster.settle()
    cluster.run(2 * cluster.options.heartbeat_ticks)
    assert raft.committed_configuration.voters == {"n1", "n2", "n3"}
    assert raft.cluster_speaks(2)
    assert not raft.cluster_speaks(3)


def test_a_configuration_of_protocol_1_has_the_bytes_it_always_had() -> None:
    """Members that know no such field write and read the same."""
    first = configuration(["n1"])
    assert b"protocol_version" not in first.encode()
    newer = replace(first, protocol_version=2)
    assert Configuration.decode(newer.encode()) == newer
    assert Configuration.decode(first.encode()).protocol_version == 1


@pytest.mark.parametrize("wrong", [b"0", b'"2"', b"true", b"null", b"2.5"])
def test_a_protocol_that_is_none_makes_no_configuration(wrong: bytes) -> None:
    """It would be compared with numbers."""
    newer = replace(configuration(["n1"]), protocol_version=2).encode()
    with pytest.raises(ValueError, match="protocol_version"):
        Configuration.decode(newer.replace(b'"protocol_version":2', b'"protocol_version":' + wrong))
