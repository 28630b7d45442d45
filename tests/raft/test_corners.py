"""The rest of the core's behaviour: what is ignored, what is refused, and the formats' edges."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anchor.raft import (
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    Entry,
    EntryKind,
    InstallSnapshot,
    InstallSnapshotResponse,
    InvalidConfiguration,
    InvalidMessage,
    Member,
    Options,
    RequestVoteResponse,
    Role,
)
from tests.raft.harness import Cluster, configuration
from tests.raft.messages import request_vote, sent, timeout_now
from tests.raft.network import between

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.raft import Message
    from tests.raft.server import Server


def led() -> Cluster:
    """Give a cluster that n1 leads, all quiet and caught up."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.run(2 * cluster.options.heartbeat_ticks)
    return cluster


# Who does not lead -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "report",
    [
        lambda server: server.want_commit("n1", 2),
        lambda server: server.disconnected("n1"),
        lambda server: server.snapshot_sent("n1", success=True),
        lambda server: server.raft.step_down(),
    ],
    ids=["want_commit", "disconnected", "snapshot_sent", "step_down"],
)
def test_reports_to_a_follower_do_nothing(report: Callable[[Server], None]) -> None:
    """The shell need not know who leads at the moment."""
    cluster = led()
    before = cluster.statuses()
    report(cluster["n2"])
    cluster.deliver()
    assert cluster.statuses() == before


@pytest.mark.parametrize("stranger", ["n9", "n1"])
def test_reports_about_strangers_do_nothing(stranger: str) -> None:
    """The member may have left meanwhile; and the leader is no peer of itself."""
    cluster = led()
    before = cluster.statuses()
    leader = cluster["n1"]
    leader.want_commit(stranger, 2)
    leader.disconnected(stranger)
    leader.snapshot_sent(stranger, success=False)
    leader.snapshot_sent("n2", success=False)  # none was sent
    assert cluster.statuses() == before
    assert leader.raft.progress["n2"].state.value == "replicate"


def test_a_leader_told_to_step_down_follows() -> None:
    """step_down(): the shell may know better, for instance that the disk stalls."""
    cluster = led()
    cluster["n1"].raft.step_down()
    assert cluster["n1"].raft.role is Role.FOLLOWER
    assert not cluster["n1"].raft.lease_valid()
    assert dict(cluster["n1"].raft.progress) == {}


def test_campaign_of_a_leader_changes_nothing() -> None:
    """campaign() of who leads already."""
    cluster = led()
    cluster["n1"].campaign()
    assert cluster.leaders() == ["n1"]
    assert cluster["n1"].raft.term == 2


# Messages at the edge --------------------------------------------------------------------


def test_a_server_that_knows_nothing_grants_pre_votes() -> None:
    """It has no log to compare with, and no term."""
    newcomer = Cluster(1).add("n2")
    newcomer.step(request_vote(1, (0, 0), sender="n1", recipient="n2", pre_vote=True))
    assert sent_by(newcomer) == [
        RequestVoteResponse(1, "n2", "n1", vote_granted=True, pre_vote=True)
    ]
    assert newcomer.raft.term == 0


def sent_by(server: Server) -> list[Message]:
    """Give all a server has sent."""
    return [m for m in server.network.take_sent() if m.sender == server.id]


def test_timeout_now_of_a_later_term_is_obeyed_in_that_term() -> None:
    """§5.1: a later term is adopted first, then left behind by the campaign."""
    cluster = led()
    cluster["n2"].step(timeout_now(7, sender="n3", recipient="n2"))
    assert (cluster["n2"].raft.role, cluster["n2"].raft.term) == (Role.CANDIDATE, 8)


def test_a_snapshot_from_a_second_leader_of_the_term_is_refused() -> None:
    """§5.2: it cannot be."""
    cluster = led()
    state = cluster["n1"].state
    with pytest.raises(InvalidMessage):
        cluster["n1"].step(InstallSnapshot(2, "n2", "n1", state.metadata(), session=1))
    assert cluster["n1"].is_leader


def test_a_snapshot_of_a_later_term_deposes_a_leader() -> None:
    """§5.1 holds for InstallSnapshot as well."""
    cluster = led()
    state = cluster["n1"].state
    cluster["n1"].step(InstallSnapshot(3, "n2", "n1", state.metadata(), session=1))
    assert (cluster["n1"].raft.role, cluster["n1"].raft.leader_id) == (Role.FOLLOWER, "n2")


def test_a_refusal_of_something_else_than_the_probe_is_old_news() -> None:
    """While probing, only the answer to the probe says where the logs meet."""
    cluster = led()
    leader = cluster["n1"]
    leader.disconnected("n2")
    progress = leader.raft.progress["n2"]
    before = progress.next_index
    refusal = AppendEntriesResponse(
        term=2,
        sender="n2",
        recipient="n1",
        success=False,
        match_index=0,
        rejected_index=before + 3,
        conflict_index=0,
        conflict_term=0,
        read_round=0,
        session=progress.session,
    )
    leader.step(refusal)
    assert (progress.state.value, progress.next_index) == ("probe", before)


def test_what_is_in_flight_can_be_seen() -> None:
    """Progress.inflight: appends sent and not acknowledged, for the status page."""
    cluster = led()
    cluster["n1"].propose(b"x")
    cluster["n1"].propose(b"y")
    assert cluster["n1"].raft.progress["n2"].inflight == 2
    cluster.deliver()
    assert cluster["n1"].raft.progress["n2"].inflight == 0


def test_a_stale_conflict_below_a_compaction_ends_in_a_snapshot() -> None:
    """§5.3 with §7: backing off stops where the log was compacted: all before is committed."""
    cluster = Cluster(
        3,
        logs={"n1": (1, 2, 3, 4, 4), "n2": (1, 2, 3, 4, 4), "n3": (1, 1)},
        options=replace(Cluster(1).options, max_log_cache_bytes=0),
    )
    cluster.crash("n3")
    cluster.elect("n1")
    cluster.run(4)
    cluster["n1"].compact(tail=1)
    cluster["n2"].compact()
    cluster["n1"].propose(b"x")
    cluster.restart("n3")
    cluster.run(10)
    assert cluster["n3"].state == cluster["n1"].state


def test_the_old_leader_hands_nothing_out_after_its_own_removal() -> None:
    """A call that ends a leadership half-way does not go on leading: each read gets one answer.

    One and the same answer confirms the round a read waits for and commits the leader's removal.
    """
    cluster = led()
    leader = cluster["n1"]
    leader.is_busy = True  # so that the question and the change leave in one message
    cluster.invariants.reads.asked(leader, "read")
    leader.read_index("read")
    leader.propose_configuration(configuration(["n2", "n3"]))
    leader.is_busy = False
    leader.settle()
    cluster.deliver()
    assert leader.raft.role is Role.FOLLOWER
    assert [read.context for read in leader.reads] == ["read"]
    assert leader.aborted_reads == []


def test_a_change_waits_for_a_transfer() -> None:
    """Thesis §3.10: no new entries while handing over, configurations included."""
    cluster = led()
    cluster["n1"].transfer_leadership("n2")
    target = configuration(["n1", "n2"])
    refused = cluster.refused(lambda: cluster["n1"].propose_configuration(target))
    assert refused == "TransferInProgress"


def test_commits_before_a_pending_change_do_not_complete_it() -> None:
    """§6: C_new, or the end of this leadership, comes with the change's own commit."""
    cluster = led()
    leader = cluster["n1"]
    leader.propose(b"x")
    cluster.deliver(between("n1", "n2"))
    leader.propose_configuration(configuration(["n2", "n3"], learners=["n1"]))
    cluster.network.hold(between("n1"))
    cluster.deliver()
    assert leader.raft.commit_index == 2  # n2 alone is no majority of n2 and n3
    cluster.network.release()
    cluster.deliver(between("n1", "n3"), count=1)
    cluster.deliver(between("n3", "n1"))
    assert leader.raft.commit_index == 3
    assert cluster.leaders() == ["n1"]
    assert leader.raft.committed_configuration == cluster.initial
    cluster.deliver()
    assert cluster.leaders() == []
    assert leader.raft.is_learner


def test_a_denied_snapshot_sends_the_leader_back_to_probing() -> None:
    """No member says so today; one that did would be probed where the logs last met."""
    cluster = Cluster(3, options=replace(Cluster(1).options, max_log_cache_bytes=0))
    cluster.elect("n1")
    cluster.run(4)
    cluster.crash("n3")
    cluster.commit(b"x", b"y")
    cluster["n1"].compact()
    cluster.restart("n3")
    cluster.network.hold(between("n1", "n3", InstallSnapshot))
    cluster.run(4)
    progress = cluster["n1"].raft.progress["n3"]
    assert progress.state.value == "snapshot"
    denial = InstallSnapshotResponse(2, "n3", "n1", False, 0, session=progress.session)
    cluster["n1"].raft.step(denial)
    assert (progress.state.value, progress.next_index) == ("probe", progress.match_index + 1)


def test_questions_asked_before_anything_is_sent_share_a_round() -> None:
    """Thesis §6.4: the shell may ask many times before it takes one Ready."""
    cluster = led()
    leader = cluster["n1"]
    cluster.network.take_sent()
    for context in ("a", "b"):
        cluster.invariants.reads.asked(leader, context)
        leader.raft.read_index(context)
    leader.settle()
    assert len({m.read_round for m in sent(cluster, AppendEntries) if m.read_round}) == 1
    cluster.deliver()
    assert [read.context for read in leader.reads] == ["a", "b"]


# Formats ---------------------------------------------------------------------------------


def test_an_entry_is_what_its_bytes_say() -> None:
    """Entry.encode and decode are each other's inverse; the index stands outside."""
    entry = Entry(7, 3, EntryKind.COMMAND, b"payload")
    encoded = entry.encode()
    assert encoded == b"\x01" + (3).to_bytes(8, "big") + b"payload"
    assert entry.size_bytes == len(encoded)
    assert Entry.decode(7, encoded) == entry


@pytest.mark.parametrize("encoded", [b"", b"\x01\x00", b"\x09" + bytes(8)])
def test_bytes_that_are_no_entry_are_refused(encoded: bytes) -> None:
    """Too short, or of a kind nobody knows: ValueError, never a guess."""
    with pytest.raises(ValueError, match=r"entry|EntryKind"):
        Entry.decode(7, encoded)


def test_a_configuration_is_what_its_bytes_say() -> None:
    """Configuration.encode and decode are each other's inverse, and the bytes are stable."""
    members = {
        "n1": Member("n1", "host:1", "host:2", incarnation=2**63 + 5),
        "n2": Member("n2", promote=True),
    }
    agreed = Configuration(members, frozenset({"n1"}), frozenset({"n1"}), frozenset({"n2"}))
    assert Configuration.decode(agreed.encode()) == agreed
    again = Configuration(dict(reversed(members.items())))
    assert replace(agreed, members=again.members).encode() == agreed.encode()


VALID = json.loads(configuration(["n1"], learners=["n2"]).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"format_version": None},
        {"members": None},
        {"members": [{"id": 5}]},
        {"members": [{"id": "n1", "incarnation": "x"}]},
        {"members": [{"id": "n1", "unknown": 1}]},
        {"voters": "n1"},
        {"voters": [1]},
        {"voters": ["n1", "n3"]},
        {"voters": []},
    ],
)
def test_bytes_that_are_no_configuration_are_refused(changes: dict[str, object]) -> None:
    """ValueError, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r"configuration"):
        Configuration.decode(json.dumps({**VALID, **changes}).encode())


def test_a_member_listed_under_another_id_is_refused() -> None:
    """The key is the member's id."""
    wrong = Configuration({"n1": Member("n2")}, frozenset({"n1"}))
    with pytest.raises(InvalidConfiguration):
        wrong.validate()


@pytest.mark.parametrize(
    "changes",
    [
        {"heartbeat_ticks": 0},
        {"heartbeat_ticks": 50},
        {"lease_ticks": 50},
        {"lease_ticks": -1},
    ],
)
def test_options_that_cannot_work_are_refused(changes: dict[str, int]) -> None:
    """A heartbeat slower than elections, a lease as long as the election timeout."""
    with pytest.raises(ValueError, match=r"heartbeats|lease"):
        Options(**changes)
