"""The traps: where implementations of Raft are known to have gone wrong, numbered as in our list.

Traps 11 and 12 (reads and leases) have ``test_traps_reads.py`` to themselves.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from anchor.raft import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    InvalidMessage,
    RequestVote,
    RequestVoteResponse,
    Role,
    SnapshotMetadata,
)
from tests.raft.harness import Cluster, configuration
from tests.raft.messages import (
    acknowledgement,
    append_entries,
    appends,
    asks_vote,
    request_vote,
    sent,
    timeout_now,
    vote,
)
from tests.raft.network import between
from tests.raft.server import OPTIONS, AppliedState


def led(voters: int = 3, *, learners: tuple[str, ...] = ()) -> Cluster:
    """Give a cluster that n1 leads, all quiet and caught up."""
    cluster = Cluster(voters, learners=learners)
    cluster.elect("n1")
    cluster.run(2 * cluster.options.heartbeat_ticks)
    return cluster


# 1. A membership change before the new leader has committed an entry of its own term -------------


def test_trap_1_no_change_before_the_first_commit_of_the_term() -> None:
    """Ongaro, raft-dev 2015: such a change can undo a committed one: it is refused (NotReady)."""
    cluster = Cluster(3, learners=["n4"])
    cluster.network.hold(between("n1", kind=AppendEntries))
    leader = cluster.elect("n1")
    target = configuration(["n1", "n2", "n3", "n4"])
    assert cluster.refused(lambda: leader.propose_configuration(target)) == "NotReady"
    assert leader.raft.configuration == cluster.initial
    cluster.network.release()
    cluster.run(3)
    leader.propose_configuration(target)


# 2. Committing an old term's entries by counting: test_paper_figures.py plays Figure 8 -----------


def test_trap_2_a_majority_of_old_entries_commits_nothing() -> None:
    """§5.4.2: acknowledgements of all members for an old entry leave the commit index alone."""
    cluster = Cluster(3, logs={f"n{i}": (1, 2, 2) for i in (1, 2, 3)})
    cluster.network.hold(lambda m: isinstance(m, AppendEntries) and bool(m.entries))
    leader = cluster.elect("n1")
    sessions = {
        m.recipient: m.session for m in cluster.network.held if isinstance(m, AppendEntries)
    }
    for follower in ("n2", "n3"):
        leader.step(acknowledgement(3, 3, sender=follower, session=sessions[follower]))
    assert leader.raft.progress["n2"].match_index == 3
    assert leader.raft.commit_index <= 1


# 3. A vote or term not durable before the answer -------------------------------------------------


@pytest.mark.parametrize("eager", [True, False])
def test_trap_3_a_vote_leaves_only_once_it_is_durable(*, eager: bool) -> None:
    """Figure 2: the grant waits for the disk; a crash before leaves the vote free."""
    cluster = Cluster(3, eager=eager)
    n1 = cluster["n1"]
    n1.tick(cluster.options.election_timeout_ticks)
    n1.auto_persist = False
    n1.step(request_vote(5, (1, 1), sender="n2"))
    assert sent(cluster, RequestVoteResponse) == []
    n1.crash()
    n1.start()
    assert (n1.raft.term, n1.raft.voted_for) == (1, None)


def test_trap_3_an_answer_waits_for_an_earlier_write_under_way() -> None:
    """Duty 3: a repeated grant promises what an unfinished write holds: it waits as well."""
    cluster = Cluster(3)
    n1 = cluster["n1"]
    n1.tick(cluster.options.election_timeout_ticks)
    n1.auto_persist = False
    n1.step(request_vote(5, (1, 1), sender="n2"))
    n1.step(request_vote(5, (1, 1), sender="n2"))
    assert sent(cluster, RequestVoteResponse) == []
    n1.persist()
    assert {m.vote_granted for m in sent(cluster, RequestVoteResponse)} == {True}


def test_trap_3_a_candidate_speaks_in_a_term_only_once_it_holds_it_durably() -> None:
    """Figure 2: else it could forget the term, and lead it a second time with another log."""
    cluster = Cluster(5)
    n1 = cluster["n1"]
    n1.auto_persist = False
    while n1.raft.role is Role.FOLLOWER:
        n1.tick()
    for other in ("n2", "n3", "n4"):
        n1.step(vote(2, sender=other, pre=True))
    assert n1.raft.role is Role.CANDIDATE
    assert not [m for m in sent(cluster, RequestVote) if not m.pre_vote]
    n1.persist()
    assert {m.recipient for m in sent(cluster, RequestVote)} == {"n2", "n3", "n4", "n5"}
    n1.step(vote(2, sender="n2"))
    n1.step(vote(2, sender="n3"))
    assert n1.is_leader


def test_trap_3_acknowledging_a_new_leader_makes_its_term_durable_first() -> None:
    """Figure 2: an acknowledgement is a promise not to serve older terms any more."""
    cluster = Cluster(3)
    n1 = cluster["n1"]
    n1.auto_persist = False
    n1.step(append_entries(7, (1, 1)))
    assert sent(cluster, AppendEntriesResponse) == []
    n1.persist()
    assert n1.disk.durable.hard_state.term == 7
    assert sent(cluster, AppendEntriesResponse)[0].success


# 4. An acknowledgement before the local fsync, on a single node too ------------------------------


@pytest.mark.parametrize("eager", [True, False])
def test_trap_4_a_follower_acknowledges_only_what_is_durable(*, eager: bool) -> None:
    """§5.3: entries written but not synced are not acknowledged."""
    cluster = Cluster(3, eager=eager)
    n1 = cluster["n1"]
    appends(n1, append_entries(2, (1, 1)))
    n1.auto_persist = False
    n1.step(append_entries(2, (1, 1), [2, 2]))
    n1.step(append_entries(2, (3, 2), [2]))
    assert sent(cluster, AppendEntriesResponse) == []
    n1.persist(1)
    assert [m.match_index for m in sent(cluster, AppendEntriesResponse)] == [3]
    n1.persist(1)
    assert [m.match_index for m in sent(cluster, AppendEntriesResponse)] == [4]


def test_trap_4_a_heartbeat_acknowledges_nothing_that_is_still_being_written() -> None:
    """§5.3: a success says its match_index is durable, whatever message it answers."""
    cluster = Cluster(3)
    n1 = cluster["n1"]
    appends(n1, append_entries(2, (1, 1)))
    n1.auto_persist = False
    n1.step(append_entries(2, (1, 1), [2, 2]))
    n1.step(append_entries(2, (3, 2), read_round=4))
    durable = n1.disk.durable.last_index
    assert all(m.match_index <= durable for m in sent(cluster, AppendEntriesResponse))


def test_trap_4_the_leader_counts_itself_only_once_its_own_disk_has_it() -> None:
    """Thesis §10.2.1: it sends before its own write is durable, but does not count itself."""
    cluster = led(3)
    leader = cluster["n1"]
    leader.auto_persist = False
    cluster.crash("n3")
    leader.propose(b"x")
    cluster.deliver()
    assert cluster["n2"].raft.last_log_index == 3  # it was sent all the same
    assert leader.raft.commit_index == 2
    leader.persist()
    assert leader.raft.commit_index == 3


def test_trap_4_two_followers_are_a_majority_without_the_leaders_disk() -> None:
    """Thesis §10.2.1: the leader may even commit an entry before its own disk has it."""
    cluster = led(3)
    leader = cluster["n1"]
    leader.auto_persist = False
    leader.propose(b"x")
    cluster.deliver()
    assert leader.raft.commit_index == 3
    leader.persist()
    assert leader.commands == [b"x"]


def test_trap_4_a_single_member_commits_nothing_before_its_fsync() -> None:
    """§5.3: a cluster of one has a disk to wait for, too."""
    cluster = Cluster(1)
    leader = cluster.elect("n1")
    leader.auto_persist = False
    leader.propose(b"x")
    assert (leader.raft.commit_index, leader.commands) == (2, [])
    leader.crash()
    leader.start()
    assert leader.raft.last_log_index == 2


def test_trap_4_what_a_slow_disk_reports_late_is_not_taken_for_newer_entries() -> None:
    """persisted() of entries that were truncated meanwhile acknowledges nothing of the new ones."""
    cluster = Cluster(3)
    n1 = cluster["n1"]
    n1.auto_persist = False
    n1.step(append_entries(2, (1, 1), [2, 2, 2], sender="n2"))
    n1.step(append_entries(3, (1, 1), [3, 3, 3], sender="n3"))
    n1.persist(1)
    to_n3 = [m for m in sent(cluster, AppendEntriesResponse) if m.recipient == "n3"]
    assert not [m for m in to_n3 if m.success]
    n1.persist()
    to_n3 = [m for m in sent(cluster, AppendEntriesResponse) if m.recipient == "n3"]
    assert [m.match_index for m in to_n3 if m.success] == [4]
    assert n1.log_terms() == [1, 3, 3, 3]


# 5. Truncating on a stale or matching append -----------------------------------------------------


def test_trap_5_a_late_shorter_append_does_not_shorten_the_log() -> None:
    """§5.3: entries after those of a delayed append may be acknowledged already: they stay."""
    cluster = Cluster(3)
    n1 = cluster["n1"]
    appends(n1, append_entries(2, (1, 1), [2, 2, 2]))
    reply = appends(n1, append_entries(2, (1, 1), [2]))
    assert reply.match_index == 2
    assert n1.log_terms() == [1, 2, 2, 2]


def test_trap_5_a_conflict_truncates_only_from_the_conflict_on() -> None:
    """§5.3: what matches before the conflict is neither rewritten nor lost."""
    cluster = Cluster(3, logs={"n1": (1, 1, 2, 2)})
    n1 = cluster["n1"]
    appends(n1, append_entries(3, (1, 1), [1, 2, 3]))
    assert n1.log_terms() == [1, 1, 2, 3]
    assert n1.disk.durable.entries[1].payload == b"2@1"


def test_trap_5_nothing_committed_is_ever_truncated() -> None:
    """§5.4: a conflict at or below the commit index cannot be: refused, nothing changes."""
    cluster = Cluster(3, logs={"n1": (1, 1, 2, 2)})
    n1 = cluster["n1"]
    appends(n1, append_entries(3, (3, 2), commit=3))
    before = n1.disk.written.copy()
    with pytest.raises(InvalidMessage):
        n1.step(append_entries(3, (1, 1), [3]))
    assert n1.disk.written == before
    assert n1.raft.commit_index == 3


def test_trap_5_an_append_below_the_commit_index_is_answered_with_what_is_known() -> None:
    """§5.3: a stale append from before a compaction is acknowledged up to the commit index."""
    cluster = Cluster(3, options=replace(OPTIONS, max_log_cache_bytes=0))
    cluster.elect("n1")
    cluster.commit(b"a", b"b", b"c")
    n2 = cluster["n2"]
    n2.compact()
    reply = appends(n2, append_entries(2, (1, 1), sender="n1", recipient="n2"))
    assert reply.success
    assert reply.match_index <= n2.disk.durable.last_index
    assert n2.raft.commit_index == 5


# 6. Pre-vote and check-quorum together -----------------------------------------------------------


def test_trap_6_a_rejoining_node_does_not_unseat_the_leader() -> None:
    """Thesis §9.6: however long it was away, its term has not grown, and it asks in vain."""
    cluster = led(3)
    term = cluster["n1"].raft.term
    cluster.isolate("n3")
    cluster.run(200)
    assert cluster["n3"].raft.term == term
    cluster.heal()
    cluster.run(30)
    assert cluster.leaders() == ["n1"]
    assert cluster["n1"].raft.term == term


def test_trap_6_a_leader_cut_off_steps_down_while_the_others_go_on() -> None:
    """Thesis §6.2: it does not go on for ever telling its clients to wait."""
    cluster = led(5)
    cluster.isolate("n1")
    cluster.run(40)
    assert len(cluster.leaders()) == 1
    assert cluster.leaders() != ["n1"]


def test_trap_6_a_leader_that_is_heard_but_hears_nobody_gives_way() -> None:
    """A one-way link: its heartbeats keep all quiet, no answer comes: check-quorum frees them."""
    cluster = led(3)
    for other in ("n2", "n3"):
        cluster.network.cut(other, "n1")
    ticks = cluster.run_until(lambda: set(cluster.leaders()) - {"n1"}, ticks_max=100)
    assert ticks < 8 * cluster.options.election_timeout_ticks
    cluster.heal()
    cluster.run(10)
    assert len(cluster.leaders()) == 1


def test_trap_6_a_follower_that_hears_nothing_but_is_heard_does_no_harm() -> None:
    """A one-way link: n3's pre-votes arrive and are refused: the leader stays, its term too."""
    cluster = led(3)
    term = cluster["n1"].raft.term
    cluster.network.cut("n1", "n3")
    cluster.network.cut("n2", "n3")
    cluster.run(150)
    assert cluster.leaders() == ["n1"]
    assert cluster["n1"].raft.term == term


def test_trap_6_a_member_of_a_higher_term_is_let_back_in() -> None:
    """A member of a later term refuses all appends: the leader hears of the term and gives way."""
    cluster = led(3)
    n3 = cluster["n3"]
    n3.crash()
    for image in (n3.disk.durable, n3.disk.written):
        image.hard_state = type(image.hard_state)(9, None)
    n3.start()
    cluster.run(60)
    assert len(cluster.leaders()) == 1
    assert {server.raft.term for server in cluster.up()} == {cluster.leader().raft.term}
    cluster.commit(b"x")
    assert n3.commands[-1:] == [b"x"]


def test_trap_6_a_partial_partition_that_leaves_a_majority_elects_somebody() -> None:
    """n1 and n2 cannot talk, both talk to n3: there is a leader and it stays."""
    cluster = led(3)
    cluster.network.cut("n1", "n2")
    cluster.network.cut("n2", "n1")
    cluster.run(100)
    terms = {cluster.leader().raft.term}
    cluster.run(100)
    assert {cluster.leader().raft.term} == terms
    cluster.leader().propose(b"x")
    cluster.run(5)
    assert cluster["n3"].commands == [b"x"]


# 7. A removed member that keeps campaigning ------------------------------------------------------


def test_trap_7_a_removed_member_knows_it_and_campaigns_no_more() -> None:
    """§6: once it has seen its removal it neither pre-votes nor votes for itself."""
    cluster = led(3)
    cluster["n1"].propose_configuration(configuration(["n1", "n2"]))
    cluster.deliver()
    cluster.run(4)
    n3 = cluster["n3"]
    if not n3.raft.is_removed:  # the leader no longer owes it anything: tell it by hand
        pytest.fail("a removed member that is in touch should get to know it")
    sent(cluster, RequestVote)
    n3.tick(200)
    n3.campaign()
    assert sent(cluster, RequestVote) == []
    assert n3.raft.role is Role.FOLLOWER


def test_trap_7_a_removed_member_that_does_not_know_stays_in_its_term() -> None:
    """§6: it pre-votes in vain: the others are in touch with their leader."""
    cluster = led(3)
    cluster.isolate("n3")
    cluster["n1"].propose_configuration(configuration(["n1", "n2"]))
    cluster.run(5)
    cluster.heal()
    term = cluster["n1"].raft.term
    cluster.run(150)
    assert cluster.leaders() == ["n1"]
    assert {cluster[i].raft.term for i in ("n1", "n2", "n3")} == {term}


# 8. A voter that still thinks it is a learner refusing to vote -----------------------------------


def test_trap_8_a_promoted_learner_that_does_not_know_it_votes() -> None:
    """§6: the candidate's log may be ahead of the voter's idea of who may vote.

    n2 and the learner n4 are voters in the leader's newest configuration (n1 n2 n4). n1 dies;
    n2 knows the promotion, n4 does not: only n4's vote can elect n2.
    """
    cluster = led(2, learners=("n4",))
    cluster.network.cut("n1", "n4")
    cluster["n1"].propose_configuration(configuration(["n1", "n2", "n4"]))
    cluster.deliver()
    assert cluster["n4"].raft.is_learner
    assert cluster["n2"].raft.configuration.voters == {"n1", "n2", "n4"}
    cluster.crash("n1")
    cluster.run_until(lambda: cluster["n2"].is_leader, ticks_max=100)
    cluster.run(5)
    assert not cluster["n4"].raft.is_learner


def test_trap_8_a_voter_without_any_configuration_votes() -> None:
    """§6: a server promoted before it got its first entry knows nobody: asked, it votes."""
    cluster = Cluster(2)
    newcomer = cluster.add("n3")
    newcomer.tick(cluster.options.election_timeout_ticks)
    reply = asks_vote(newcomer, request_vote(3, (5, 2), sender="n2", recipient="n3"))
    assert reply.vote_granted
    newcomer.tick(100)
    assert newcomer.raft.role is Role.FOLLOWER  # but it does not campaign itself


# 9. A configuration rolled back on truncation ----------------------------------------------------


def test_trap_9_a_truncated_configuration_is_out_of_force() -> None:
    """§6: the latest configuration *in the log* counts; one that is truncated is gone."""
    cluster = led(3)
    n1 = cluster["n1"]
    cluster.isolate("n1")
    n1.propose_configuration(configuration(["n1", "n2"]))
    assert n1.raft.configuration.voters == {"n1", "n2"}
    cluster.run_until(lambda: set(cluster.leaders()) - {"n1"})
    cluster.commit(b"x")
    cluster.heal()
    cluster.run(10)
    assert n1.raft.configuration == cluster.initial
    assert n1.raft.committed_configuration == cluster.initial
    assert n1.raft.configuration_index == 1


def test_trap_9_the_roll_back_may_go_back_to_a_snapshots_configuration() -> None:
    """§6 with §7: when no configuration is left in the log, the snapshot's is in force."""
    cluster = led(3)
    n1 = cluster["n1"]
    cluster.commit(b"a")
    n1.compact()
    cluster.isolate("n1")
    n1.propose_configuration(configuration(["n1", "n2"]))
    cluster.run_until(lambda: set(cluster.leaders()) - {"n1"})
    cluster.commit(b"x")
    cluster.heal()
    cluster.run(10)
    assert n1.raft.configuration == cluster.initial
    assert n1.raft.configuration_index == 1


def test_trap_9_a_rolled_back_change_can_be_proposed_again() -> None:
    """§6: nothing of the lost attempt is in the way."""
    cluster = led(3)
    cluster.isolate("n1")
    target = configuration(["n1", "n2"])
    cluster["n1"].propose_configuration(target)
    cluster.run_until(lambda: set(cluster.leaders()) - {"n1"})
    cluster.run(4)
    cluster.heal()
    cluster.run(10)
    cluster.leader().propose_configuration(target)
    cluster.run(10)
    assert cluster["n1"].raft.committed_configuration == target


# 10. A snapshot carrying an uncommitted or stale configuration -----------------------------------


def test_trap_10_the_committed_configuration_is_not_the_pending_one() -> None:
    """§7: what a snapshot may carry is what is committed, however new the one in force is."""
    cluster = led(3)
    n1 = cluster["n1"]
    cluster.isolate("n1")
    n1.propose_configuration(configuration(["n1", "n2"]))
    assert n1.raft.committed_configuration == cluster.initial
    n1.compact()
    metadata = n1.disk.durable.snapshot
    assert metadata is not None
    assert (metadata.configuration, metadata.configuration_index) == (cluster.initial, 1)


def test_trap_10_a_tail_behind_the_snapshot_does_not_bring_old_configurations_back() -> None:
    """§7: entries kept behind the snapshot for slow followers may hold older configurations."""
    cluster = led(3)
    cluster["n1"].propose_configuration(configuration(["n1", "n2"]))
    cluster.run(5)
    cluster.commit(b"x")
    n2 = cluster["n2"]
    n2.compact(tail=10)
    n2.crash()
    n2.start()
    assert n2.raft.configuration.voters == {"n1", "n2"}
    assert n2.raft.configuration_index == 3


def test_trap_10_a_configuration_after_the_snapshot_wins_over_the_snapshots() -> None:
    """§7: the newest in log or snapshot is in force, after a restart too."""
    cluster = led(3)
    n2 = cluster["n2"]
    cluster.commit(b"x")
    n2.compact()
    cluster["n1"].propose_configuration(configuration(["n1", "n2"]))
    cluster.run(5)
    n2.crash()
    n2.start()
    assert n2.raft.configuration.voters == {"n1", "n2"}


def test_trap_10_a_snapshot_older_than_the_log_does_not_replace_its_configuration() -> None:
    """§7: a snapshot the log reaches already changes no configuration."""
    cluster = led(3)
    cluster["n1"].propose_configuration(configuration(["n1", "n2"]))
    cluster.run(5)
    metadata = SnapshotMetadata(2, 2, cluster.initial, 1)
    cluster["n2"].step(InstallSnapshot(2, "n1", "n2", metadata, session=3))
    assert cluster["n2"].raft.configuration.voters == {"n1", "n2"}


# 13. A retried proposal applied twice after a leader change --------------------------------------


def test_trap_13_the_core_itself_never_repeats_a_proposal() -> None:
    """A proposal is one entry: repeated and late appends across a leader change apply it once.

    (That a *client's* retry is applied once is the state machine's duty: sessions.)
    """
    cluster = led(3)
    cluster["n1"].propose(b"once")
    cluster.network.duplicate()
    late = [m for m in cluster.network.in_flight if isinstance(m, AppendEntries)]
    cluster.deliver()
    cluster["n1"].transfer_leadership("n2")
    cluster.deliver()
    cluster.network.inject(*late)
    cluster.run(10)
    assert cluster.leaders() == ["n2"]
    for server in cluster.up():
        assert server.commands == [b"once"]


def test_trap_13_the_proposer_can_tell_whether_its_entry_survived() -> None:
    """Proposed gives term and index: another term applied at that index means: not this entry."""
    cluster = led(3)
    n1 = cluster["n1"]
    cluster.isolate("n1")
    proposed = n1.propose(b"lost")
    cluster.run_until(lambda: set(cluster.leaders()) - {"n1"})
    cluster.commit(b"other")
    cluster.heal()
    cluster.run(10)
    assert n1.disk.written.term(proposed.first_index) != proposed.term
    assert b"lost" not in n1.commands


# 14. Expiry decided by a local clock: see test_purity.py: the core has no clock ------------------
# 15. A stale acknowledgement counted toward the quorum -------------------------------------------


def test_trap_15_acknowledgements_of_an_earlier_session_are_not_counted() -> None:
    """A session ends when the stream breaks: what it still says is not about the present."""
    cluster = led(3)
    leader = cluster["n1"]
    leader.propose(b"x")
    old = sent(cluster, AppendEntries, recipient="n2")[-1].session
    cluster.network.drop()
    leader.disconnected("n2")
    leader.step(acknowledgement(leader.raft.term, 3, session=old))
    assert leader.raft.commit_index == 2
    assert (
        leader.raft.progress["n2"].match_index == 2 or leader.raft.progress["n2"].match_index == 0
    )


def test_trap_15_acknowledgements_of_an_earlier_term_are_not_counted() -> None:
    """A leader that leads again hears the echoes of its first reign, about other entries."""
    cluster = led(3)
    leader = cluster["n1"]
    leader.propose(b"first")
    cluster.deliver(between("n1", "n2"))
    late = cluster.network.drop(between("n2", "n1"))
    assert late
    first_term = leader.raft.term
    cluster.crash("n1", "n2", "n3")
    cluster.restart("n1", "n2", "n3")
    leader = cluster.elect("n1")
    assert leader.raft.term > first_term
    cluster.network.cut("n1", "n2")
    cluster.network.cut("n1", "n3")
    before = leader.raft.commit_index
    leader.propose(b"second")
    for message in late:
        leader.step(message)
    assert leader.raft.commit_index == before


def test_trap_15_an_acknowledgement_beyond_the_leaders_log_is_refused() -> None:
    """A nonsense match index moves nothing."""
    cluster = led(3)
    leader = cluster["n1"]
    session = sent(cluster, AppendEntries, recipient="n2")[-1].session
    with pytest.raises(InvalidMessage):
        leader.step(acknowledgement(leader.raft.term, 99, session=session))
    assert leader.raft.progress["n2"].match_index == 2
    assert leader.raft.commit_index == 2


# 16. An applied index that is not atomic with the data -------------------------------------------


def test_trap_16_a_restart_hands_out_exactly_what_the_state_machine_lacks() -> None:
    """The core starts from the applied index it is told, and repeats nothing before it."""
    cluster = led(3)
    cluster.commit(b"a", b"b")
    n2 = cluster["n2"]
    n2.flush()
    cluster.commit(b"c")
    n2.crash()
    n2.start()
    assert n2.raft.last_applied == 4
    cluster.run(4)
    assert n2.commands == [b"c"]
    assert n2.state == cluster["n1"].state


def test_trap_16_what_was_applied_is_committed() -> None:
    """A restarted core takes the applied index for committed: it was."""
    cluster = led(3)
    cluster.commit(b"a")
    n2 = cluster["n2"]
    n2.flush()
    n2.crash()
    n2.start()
    assert n2.raft.commit_index == n2.state.index == 3
    with pytest.raises(InvalidMessage):
        n2.step(append_entries(9, (1, 1), [9], sender="n3", recipient="n2"))
    assert n2.log_terms() == [1, 2, 2]


def test_trap_16_a_slow_state_machine_is_never_handed_an_entry_twice() -> None:
    """Applying may lag behind: each committed entry is still handed out once."""
    cluster = led(3)
    leader = cluster["n1"]
    leader.auto_apply = False
    leader.propose(b"a", b"b")
    cluster.deliver()
    assert (leader.raft.commit_index, leader.commands) == (4, [])
    leader.apply(1)
    leader.propose(b"c")
    cluster.deliver()
    leader.apply()
    assert leader.commands == [b"a", b"b", b"c"]


def test_a_timeout_now_for_a_removed_member_starts_nothing() -> None:
    """Trap 7 once more: even asked to, a removed member does not campaign."""
    cluster = led(3)
    cluster["n1"].propose_configuration(configuration(["n1", "n2"]))
    cluster.run(6)
    n3 = cluster["n3"]
    n3.step(timeout_now(n3.raft.term, sender="n1", recipient="n3"))
    assert n3.raft.role is Role.FOLLOWER


def test_trap_4_a_write_under_way_does_not_vouch_for_the_one_that_undoes_it() -> None:
    """Three writes are queued: entries, their replacement, and the same entries again.

    When the first is durable its entries are in the log, but the second is about to drop them:
    n1 may neither acknowledge nor apply them before the third is durable.
    """
    cluster = Cluster(3)
    n1 = cluster["n1"]
    n1.auto_persist = False
    n1.step(append_entries(2, (1, 1), [2, 2], sender="n2"))
    n1.step(append_entries(3, (1, 1), [3], sender="n3"))
    n1.step(append_entries(4, (1, 1), [2, 2, 4], sender="n2", commit=4))
    n1.persist(1)
    assert n1.commands == []
    n1.persist(1)
    assert n1.commands == []
    n1.persist(1)
    assert n1.commands == [b"2@2", b"3@2", b"4@4"]


def test_trap_4_writes_under_way_do_not_vouch_for_a_log_a_snapshot_replaced() -> None:
    """Entries 2 to 6 are being written; a snapshot up to 4 replaces them, then new ones follow.

    When the first write is durable, n1 must not take the new entries for durable.
    """
    cluster = Cluster(3)
    n1 = cluster["n1"]
    cluster.states[4] = AppliedState(4, 3, 44, cluster.initial, 1)
    n1.auto_persist = False
    n1.step(append_entries(2, (1, 1), [2, 2, 2, 2, 2], sender="n2"))
    metadata = cluster.states[4].metadata()
    n1.step(InstallSnapshot(3, "n3", "n1", metadata, session=1))
    n1.step(append_entries(3, (4, 3), [3], sender="n3", commit=5))
    n1.persist(1)
    assert n1.commands == []
    n1.persist(1)
    assert n1.commands == []
    n1.persist()
    assert n1.commands == [b"5@3"]


def test_trap_4_a_heartbeat_is_answered_while_the_disk_is_slow() -> None:
    """A slow disk must not look like a dead member: the answer says what is durable so far."""
    cluster = led(3)
    n2 = cluster["n2"]
    n2.auto_persist = False
    cluster["n1"].propose(b"x")
    cluster.deliver()
    cluster.network.take_sent()
    cluster.tick(cluster.options.heartbeat_ticks, only=["n1"])
    cluster.deliver()
    answers = [m for m in sent(cluster, AppendEntriesResponse) if m.sender == "n2"]
    assert [m.match_index for m in answers] == [2]
    assert cluster["n1"].raft.progress["n2"].next_index == 4
