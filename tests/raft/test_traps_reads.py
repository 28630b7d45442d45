"""Traps 11 and 12: reads before the first commit of a term; leases that are not what they seem."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anchor.raft import AppendEntries, AppendEntriesResponse, RequestVote, Role, TimeoutNow
from tests.raft.harness import Cluster
from tests.raft.messages import append_entries, appends, grants, request_vote, timeout_now, vote
from tests.raft.network import between
from tests.raft.server import OPTIONS, Server


def led(size: int = 3) -> Cluster:
    """Give a cluster that n1 leads, all quiet and caught up, with a valid lease."""
    cluster = Cluster(size)
    cluster.elect("n1")
    cluster.run(2 * cluster.options.heartbeat_ticks)
    assert cluster["n1"].raft.lease_valid()
    return cluster


def ask(cluster: Cluster, server: Server, context: object) -> None:
    """Ask for a read point, watched by the checker."""
    cluster.invariants.reads.asked(server, context)
    server.read_index(context)


# 11. ReadIndex before the first commit of the term, and reused read contexts ---------------------


def test_trap_11_a_new_leader_does_not_know_the_commit_index_yet() -> None:
    """§8: n2 leads and has not committed its no-op: entry 3 was committed, n2 does not know."""
    cluster = led(3)
    n1, n2 = cluster["n1"], cluster["n2"]
    n1.propose(b"x")
    cluster.deliver()
    assert (n1.raft.commit_index, n2.raft.commit_index) == (3, 2)
    cluster.crash("n1")
    cluster.network.hold(lambda m: isinstance(m, AppendEntries) and bool(m.entries))
    cluster.elect("n2")
    assert n2.raft.commit_index == 2
    ask(cluster, n2, "read")
    cluster.run(3)
    assert n2.reads == []
    cluster.network.release()
    cluster.run(4)
    assert [(r.context, r.index >= 4) for r in n2.reads] == [("read", True)]


def test_trap_11_a_lease_is_not_valid_before_the_first_commit_of_the_term() -> None:
    """§8: leadership alone does not make the state machine current."""
    cluster = Cluster(3)
    cluster.network.hold(lambda m: isinstance(m, AppendEntries) and bool(m.entries))
    leader = cluster.elect("n1")
    cluster.run(4)
    assert leader.is_leader
    assert not leader.raft.lease_valid()


def test_trap_11_reads_waiting_for_the_first_commit_are_aborted_with_the_leadership() -> None:
    """A held question is answered one way or the other."""
    cluster = Cluster(3)
    cluster.network.hold(lambda m: isinstance(m, AppendEntries) and bool(m.entries))
    leader = cluster.elect("n1")
    ask(cluster, leader, "held")
    leader.step(request_vote(99, (99, 98), sender="n2", transfer=True))
    assert leader.raft.role is Role.FOLLOWER
    assert leader.aborted_reads == ["held"]


def test_trap_11_a_context_used_again_later_is_a_new_question() -> None:
    """An answer to an earlier question with the same context does not answer the later one."""
    cluster = led(3)
    leader = cluster["n1"]
    ask(cluster, leader, "same")
    late = [m for m in cluster.network.in_flight if isinstance(m, AppendEntries)]
    cluster.deliver()
    assert len(leader.reads) == 1
    index = cluster.commit(b"x")
    cluster.network.hold(lambda m: isinstance(m, AppendEntries))
    ask(cluster, leader, "same")
    for message in late:  # the first question's appends come again, and are answered again
        cluster.hand_over(message)
    cluster.deliver()
    assert len(leader.reads) == 1
    cluster.network.release()
    cluster.run(3)
    assert [r.index for r in leader.reads] == [2, index]


def test_trap_11_answers_to_an_earlier_reign_confirm_nothing() -> None:
    """Rounds of an earlier term do not confirm reads of a later one."""
    cluster = led(3)
    n1 = cluster["n1"]
    for i in range(5):
        ask(cluster, n1, i)
    cluster.deliver(between("n1", "n2"))
    cluster.deliver(between("n1", "n3"))
    late = cluster.network.drop(between(recipient="n1", kind=AppendEntriesResponse))
    cluster.run(3)
    n1.transfer_leadership("n2")
    cluster.run(3)
    cluster["n2"].transfer_leadership("n1")
    cluster.run(3)
    assert n1.is_leader
    cluster.network.hold(lambda m: isinstance(m, AppendEntries))
    before = len(n1.reads)
    ask(cluster, n1, "again")
    for message in late:
        n1.step(message)
    assert len(n1.reads) == before


# 12. A lease under clock drift, after a pause, during a transfer ---------------------------------


def test_trap_12_the_lease_ends_before_a_fast_follower_could_elect_another() -> None:
    """Options.lease_ticks: what it leaves of the election timeout is the allowance for drift.

    n1's clock does 7 ticks while the others' do 9: they still wait, the lease is over.
    """
    cluster = led(3)
    cluster.isolate("n1")
    cluster["n1"].tick(7)
    assert not cluster["n1"].raft.lease_valid()
    cluster.tick(9, only=["n2", "n3"])
    assert not cluster.network.in_flight
    assert not grants(cluster["n2"], request_vote(3, (9, 2), sender="n3", recipient="n2"))


@pytest.mark.parametrize("pause_ticks", [8, 50, 10_000])
def test_trap_12_no_lease_after_a_pause(pause_ticks: int) -> None:
    """A process that slept learns of it by one tick of many units: the lease is gone at once."""
    cluster = led(3)
    cluster["n1"].tick(elapsed=pause_ticks)
    assert not cluster["n1"].raft.lease_valid()


def test_trap_12_an_answer_from_before_the_pause_gives_no_lease() -> None:
    """Answers that waited while the leader slept speak of rounds sent before it slept."""
    cluster = led(3)
    leader = cluster["n1"]
    cluster.tick(cluster.options.heartbeat_ticks, only=["n1"])
    cluster.deliver(between("n1"))
    answers = cluster.network.drop(between(recipient="n1"))
    leader.tick(elapsed=100)
    for answer in answers:
        leader.step(answer)
    assert not leader.raft.lease_valid()


def test_trap_12_a_pause_counts_as_one_tick_for_elections() -> None:
    """A server that slept did not listen: it does not depose a leader on waking up."""
    cluster = led(3)
    cluster["n2"].tick(elapsed=10_000)
    assert cluster["n2"].raft.role is Role.FOLLOWER
    assert not cluster.network.next(between("n2", kind=RequestVote))
    cluster["n1"].tick(elapsed=10_000)
    assert cluster["n1"].is_leader


def test_trap_12_no_lease_during_a_transfer() -> None:
    """Thesis §6.4.1: the target may be elected before any timeout: the lease is off at once."""
    cluster = led(3)
    cluster.isolate("n3")
    cluster["n1"].transfer_leadership("n3")
    assert not cluster["n1"].raft.lease_valid()
    cluster.run(3)
    assert not cluster["n1"].raft.lease_valid()


def test_trap_12_no_lease_after_a_transfer_that_was_given_up_but_may_still_happen() -> None:
    """TimeoutNow was sent; it may arrive at any time in this term and depose the leader at once."""
    cluster = led(3)
    n1, n2 = cluster["n1"], cluster["n2"]
    cluster.network.hold(between("n1", "n2", TimeoutNow))
    n1.transfer_leadership("n2")
    cluster.run(2 * cluster.options.election_timeout_ticks)
    assert cluster.network.held
    assert n1.raft.transferring_to is None
    cluster.network.hold(between(recipient="n1"))  # n1 shall not hear of it at once
    cluster.network.in_flight.extend(m for m in cluster.network.held if isinstance(m, TimeoutNow))
    cluster.deliver()
    assert n2.is_leader
    n2.propose(b"newer than n1 knows")
    cluster.deliver()
    assert n2.raft.commit_index > n1.raft.commit_index
    assert n1.is_leader
    assert not cluster.invariants.reads.lease(n1)


def test_trap_12_a_transfer_given_up_before_timeout_now_gives_the_lease_back() -> None:
    """The target never caught up, so it was never told to campaign."""
    cluster = led(3)
    cluster.isolate("n3")
    cluster["n1"].propose(b"x")
    cluster["n1"].transfer_leadership("n3")
    cluster.run(2 * cluster.options.election_timeout_ticks)
    assert cluster["n1"].raft.transferring_to is None
    assert cluster["n1"].raft.lease_valid()


def test_trap_12_a_restarted_voter_remembers_nothing_and_waits() -> None:
    """It may have supported a lease before the crash: for an election timeout it does not vote."""
    cluster = led(3)
    n2 = cluster["n2"]
    term = n2.raft.term
    n2.crash()
    n2.start()
    for pre_vote in (True, False):
        asked = request_vote(term + 1, (9, term), sender="n3", recipient="n2", pre_vote=pre_vote)
        assert not grants(n2, asked)
    assert n2.raft.term == term
    n2.tick(cluster.options.election_timeout_ticks)
    assert grants(n2, request_vote(term + 1, (9, term), sender="n3", recipient="n2"))


def test_trap_12_a_restarted_voter_still_serves_a_transfer() -> None:
    """Thesis §4.2.3: the leader has given its lease up itself, so nothing need wait."""
    cluster = led(3)
    n2 = cluster["n2"]
    n2.crash()
    n2.start()
    message = request_vote(3, (9, 2), sender="n3", recipient="n2", transfer=True)
    assert grants(n2, message)


def test_trap_12_a_follower_does_not_campaign_against_the_lease_it_supports() -> None:
    """campaign() within the timeout of hearing a leader: its own vote is part of that lease.

    n3 lost touch long ago and would vote for n2 at once; n2 still hears n1.
    """
    cluster = led(3)
    cluster.isolate("n3")
    cluster.run(15)
    cluster.heal()
    cluster.isolate("n1")
    assert cluster["n1"].raft.lease_valid()
    cluster["n2"].campaign()
    cluster.deliver()
    assert not cluster["n2"].is_leader


def test_trap_12_the_lease_counts_voters_of_both_configurations_and_no_learner() -> None:
    """§6: a learner's answers extend no lease."""
    cluster = Cluster(3, learners=["n4"])
    leader = cluster.elect("n1")
    cluster.run(4)
    cluster.crash("n2", "n3")
    cluster.run(cluster.options.lease_ticks)
    assert leader.is_leader
    assert not leader.raft.lease_valid()


def test_trap_12_a_lease_as_long_as_the_election_timeout_is_refused() -> None:
    """Options: lease_ticks must leave an allowance for drift."""
    with pytest.raises(ValueError, match="lease"):
        Cluster(1, options=replace(OPTIONS, lease_ticks=OPTIONS.election_timeout_ticks))


def test_trap_12_a_late_timeout_now_of_this_term_is_still_obeyed() -> None:
    """Thesis §3.10: the target cannot know that the transfer was given up; safety does not mind."""
    cluster = led(3)
    cluster["n2"].step(timeout_now(cluster["n1"].raft.term, sender="n1", recipient="n2"))
    cluster.deliver()
    cluster.run(5)
    assert len(cluster.leaders()) == 1


def test_trap_12_news_of_a_later_term_does_not_release_a_voter_from_the_lease() -> None:
    """A delayed answer of a later term makes n2 forget its leader, not that it just heard one.

    Whoever campaigned in that later term long ago must not be elected by n2's vote while n1
    counts on n2's last acknowledgement.
    """
    cluster = led(3)
    n1, n2 = cluster["n1"], cluster["n2"]
    cluster.isolate("n1")
    assert n1.raft.lease_valid()
    n2.step(vote(3, granted=False, pre=True, sender="n3", recipient="n2"))
    assert not grants(n2, request_vote(3, (9, 2), sender="n3", recipient="n2"))
    n2.tick(cluster.options.election_timeout_ticks)
    assert grants(n2, request_vote(4, (9, 2), sender="n3", recipient="n2"))


def test_trap_11_a_refusal_of_an_old_term_echoes_nothing() -> None:
    """What answers a message of an earlier reign must not look like an answer to this one.

    Sessions and rounds are counted anew in each term: the echo of an old number under the new
    term would confirm a round that was never answered.
    """
    cluster = led(3)
    cluster.elect("n1")
    n2 = cluster["n2"]
    n2.step(append_entries(5, (2, 2), sender="n1", recipient="n2", session=3, read_round=2))
    late = append_entries(2, (2, 2), sender="n1", recipient="n2", session=3, read_round=9)
    refusal = appends(n2, late)
    assert not refusal.success
    assert (refusal.term, refusal.session, refusal.read_round) == (5, 0, 0)
