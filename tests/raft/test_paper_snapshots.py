"""§7: log compaction and InstallSnapshot, as the core sees them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anchor.raft import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    SnapshotMetadata,
)
from tests.raft.harness import Cluster, configuration
from tests.raft.messages import append_entries, appends, sent
from tests.raft.network import between
from tests.raft.server import OPTIONS, AppliedState


def behind(*, eager: bool = True, tail: int = 0) -> Cluster:
    """Give a cluster whose n3 lacks what n1 and n2 have compacted away: entries 3 to 7.

    They keep nothing of it in memory either.
    """
    cluster = Cluster(3, eager=eager, options=replace(OPTIONS, max_log_cache_bytes=0))
    cluster.elect("n1")
    cluster.run(4)
    cluster.crash("n3")
    cluster.commit(*[b"%d" % i for i in range(5)])
    for member_id in ("n1", "n2"):
        cluster[member_id].compact(tail=tail)
    cluster.restart("n3")
    return cluster


@pytest.mark.parametrize("eager", [True, False])
def test_a_follower_too_far_behind_gets_a_snapshot(*, eager: bool) -> None:
    """§7: InstallSnapshot is sent when the leader has discarded what a follower needs next."""
    cluster = behind(eager=eager)
    cluster.run(8)
    n3 = cluster["n3"]
    assert any(isinstance(m, InstallSnapshot) for m in cluster.network.sent)
    assert n3.state == cluster["n1"].state
    assert n3.disk.durable.snapshot == cluster["n1"].disk.durable.snapshot
    assert n3.raft.commit_index == 7
    cluster.commit(b"after")
    assert n3.commands == [b"after"]


def test_a_follower_within_the_retained_tail_gets_entries() -> None:
    """§7: what the log still has is sent as entries, snapshot or no snapshot."""
    cluster = behind(tail=6)
    cluster.run(8)
    assert not any(isinstance(m, InstallSnapshot) for m in cluster.network.sent)
    assert cluster["n3"].state == cluster["n1"].state


def test_appends_wait_while_a_snapshot_is_under_way() -> None:
    """§7: while the snapshot travels, only heartbeats follow; they keep the election off."""
    cluster = behind()
    cluster.network.hold(between("n1", "n3", InstallSnapshot))
    cluster.run(6)
    leader = cluster["n1"]
    assert leader.raft.progress["n3"].state.value == "snapshot"
    cluster.network.take_sent()
    leader.propose(b"x")
    cluster.run(cluster.options.election_timeout_ticks * 3)
    to_n3 = sent(cluster, AppendEntries, recipient="n3")
    assert to_n3
    assert all(not message.entries for message in to_n3)
    assert not sent(cluster, InstallSnapshot)
    assert cluster.leaders() == ["n1"]


def test_a_failed_transfer_is_tried_again() -> None:
    """snapshot_sent(success=False): back to a probe, which leads to the next attempt."""
    cluster = behind()
    cluster.network.hold(between("n1", "n3", InstallSnapshot))
    cluster.run(6)
    cluster.network.held.clear()
    cluster["n1"].snapshot_sent("n3", success=False)
    assert cluster["n1"].raft.progress["n3"].state.value == "probe"
    cluster.network.release()
    cluster.run(8)
    assert cluster["n3"].state == cluster["n1"].state


def test_a_lost_answer_to_a_snapshot_is_made_up_for() -> None:
    """§5.5: the member has installed it and said so in vain: the leader finds out all the same."""
    cluster = behind()
    cluster.network.hold(between("n3", "n1", InstallSnapshotResponse))
    cluster.run(6)
    assert cluster["n3"].state.index == 7
    cluster.network.held.clear()
    cluster.network.release()
    cluster.commit(b"after")
    assert cluster["n3"].commands == [b"after"]


def test_a_member_that_crashed_before_its_snapshot_was_durable_gets_it_again() -> None:
    """§7: sent whole is not installed: only what the member itself says counts."""
    cluster = behind()
    n3 = cluster["n3"]
    n3.auto_persist = False
    cluster.run(6)
    assert n3.state.index == 7
    cluster.report_transfer("n1", "n3", success=True)
    n3.crash()
    n3.auto_persist = True
    n3.start()
    assert n3.state.index == 0
    cluster.run(10)
    assert n3.state == cluster["n1"].state


def test_a_member_whose_snapshot_is_not_durable_yet_is_not_sent_it_twice() -> None:
    """§7: its core has it and goes on from there; only its acknowledgement waits for the disk."""
    cluster = behind()
    n3 = cluster["n3"]
    n3.auto_persist = False
    cluster.run(6)
    assert n3.state.index == 7
    cluster.report_transfer("n1", "n3", success=True)
    cluster.run(6)
    assert len([m for m in cluster.network.sent if isinstance(m, InstallSnapshot)]) == 1
    n3.auto_persist = True
    n3.persist()
    cluster.commit(b"after")
    assert n3.commands == [b"after"]


def install(
    index: int, term: int, *, message_term: int = 3, voters: tuple[str, ...] = ("n1", "n2", "n3")
) -> InstallSnapshot:
    """Make an InstallSnapshot from n2 to n1."""
    metadata = SnapshotMetadata(index, term, configuration(voters), 1)
    return InstallSnapshot(message_term, "n2", "n1", metadata, session=5)


def test_an_installed_snapshot_replaces_the_whole_log() -> None:
    """§7, InstallSnapshot 7: discard the entire log, reset state, load the configuration."""
    cluster = Cluster(3, logs={"n1": (1, 1, 1)})
    n1 = cluster["n1"]
    cluster.states[9] = AppliedState(9, 2, 99, cluster.initial, 1)
    n1.step(install(9, 2))
    assert (n1.disk.durable.first_index, n1.disk.durable.last_index) == (10, 9)
    assert (n1.raft.commit_index, n1.raft.last_applied, n1.state.digest) == (9, 9, 99)
    reply = sent(cluster, InstallSnapshotResponse)[-1]
    assert (reply.success, reply.match_index, reply.session, reply.term) == (True, 9, 5, 3)
    assert appends(n1, append_entries(3, (9, 2), [3])).match_index == 10


def test_the_answer_waits_until_the_snapshot_is_durable() -> None:
    """Figure 2's rule holds for §7 as well: first durable, then acknowledged."""
    cluster = Cluster(3)
    n1 = cluster["n1"]
    n1.auto_persist = False
    cluster.states[9] = AppliedState(9, 2, 99, cluster.initial, 1)
    n1.step(install(9, 2))
    assert sent(cluster, InstallSnapshotResponse) == []
    n1.persist()
    assert len(sent(cluster, InstallSnapshotResponse)) == 1


def test_a_snapshot_of_an_older_term_is_refused() -> None:
    """§7, InstallSnapshot 1: reply immediately if term < currentTerm."""
    cluster = Cluster(3, terms={"n1": 8})
    n1 = cluster["n1"]
    n1.step(install(9, 2))
    assert n1.disk.durable.snapshot is None
    assert n1.raft.term == 8
    assert all(m.term == 8 for m in sent(cluster, InstallSnapshotResponse))


def test_a_snapshot_the_log_reaches_already_leaves_the_log_alone() -> None:
    """§7, InstallSnapshot 6: an entry of the same index and term: retain what follows it."""
    cluster = Cluster(3, logs={"n1": (1, 1, 1, 2, 2)})
    n1 = cluster["n1"]
    n1.step(install(4, 2))
    assert n1.log_terms() == [1, 1, 1, 2, 2]
    assert n1.raft.commit_index == 4  # what a snapshot covers is committed
    assert n1.commands == [b"2@1", b"3@1", b"4@2"]
    assert sent(cluster, InstallSnapshotResponse)[-1].match_index >= 4


def test_a_snapshot_below_the_commit_index_is_not_installed() -> None:
    """§7: a late snapshot never takes a state machine back; the answer says how far it is."""
    cluster = Cluster(3, logs={"n1": (1, 1, 1, 2, 2)})
    n1 = cluster["n1"]
    appends(n1, append_entries(3, (5, 2), commit=5))
    n1.step(install(3, 1))
    assert n1.disk.durable.snapshot is None
    assert n1.raft.commit_index == 5
    assert n1.log_terms() == [1, 1, 1, 2, 2]
    reply = sent(cluster, InstallSnapshotResponse)[-1]
    assert reply.success
    assert reply.match_index == 5


def test_a_snapshot_brings_the_configuration() -> None:
    """§7: the snapshot includes the latest configuration as of its last included index."""
    cluster = Cluster(3, learners=["n4"])
    n1 = cluster["n1"]
    wider = ("n1", "n2", "n3", "n5")
    cluster.states[9] = AppliedState(9, 2, 99, configuration(wider), 1)
    n1.step(install(9, 2, voters=wider))
    assert n1.raft.configuration.voters == frozenset(wider)
    n1.crash()
    n1.start()
    assert n1.raft.configuration.voters == frozenset(wider)
    assert n1.raft.commit_index >= 9


@pytest.mark.parametrize("eager", [True, False])
def test_what_a_snapshot_replaced_is_not_looked_at_any_more(*, eager: bool) -> None:
    """§7: until the snapshot is durable the disk still shows the old log: it is no evidence.

    A late append speaks of entries the snapshot covers: it is old news, not a contradiction.
    """
    cluster = Cluster(3, eager=eager, logs={"n1": (1, 1, 2, 2, 2)})
    n1 = cluster["n1"]
    n1.auto_persist = False
    cluster.states[9] = AppliedState(9, 4, 99, cluster.initial, 1)
    n1.step(install(9, 4, message_term=5))
    n1.step(append_entries(5, (4, 3), commit=4))
    n1.step(append_entries(5, (4, 3), [3], commit=4))
    n1.persist()
    matches = [m.match_index for m in sent(cluster, AppendEntriesResponse) if m.success]
    assert matches
    assert n1.raft.commit_index == 9


def test_a_restart_begins_at_the_snapshot() -> None:
    """§7: after a restart what the snapshot covers is committed and applied."""
    cluster = behind()
    n2 = cluster["n2"]
    n2.crash()
    n2.start()
    assert (n2.raft.commit_index, n2.raft.last_applied, n2.raft.last_log_index) == (7, 7, 7)
    assert n2.raft.configuration == cluster.initial


def test_a_compacted_leader_wins_elections_by_its_snapshots_last_term() -> None:
    """§7 with §5.4.1: an empty log after a snapshot is as up to date as the snapshot says."""
    cluster = behind()
    cluster.crash("n1")
    cluster.run_until(cluster.leaders, ticks_max=60)
    assert cluster.leaders() == ["n2"]
    cluster.run(8)
    assert cluster["n3"].state.digest == cluster["n2"].state.digest


def test_a_new_empty_server_is_caught_up_by_snapshot() -> None:
    """§6 with §7: a joiner far behind gets the snapshot, and with it the configuration."""
    cluster = behind()
    cluster.run(8)
    cluster.add("n4")
    cluster["n1"].propose_configuration(configuration(["n1", "n2", "n3"], learners=["n4"]))
    cluster.run(10)
    assert cluster["n4"].state == cluster["n1"].state
    assert cluster["n4"].raft.is_learner
