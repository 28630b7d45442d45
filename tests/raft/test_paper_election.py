"""§5.2: terms, elections, randomized timeouts; pre-vote and check-quorum (thesis §9.6, §6.2)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from anchor.raft import AppendEntries, RequestVote, Role
from tests.raft.harness import Cluster
from tests.raft.messages import append_entries, appends, request_vote, sent, vote
from tests.raft.network import between

if TYPE_CHECKING:
    from tests.raft.server import Server


def test_servers_start_as_followers() -> None:
    """§5.2: when servers start up, they begin as followers, with the term from their disk."""
    cluster = Cluster(3, terms={"n1": 4})
    assert all(server.raft.role is Role.FOLLOWER for server in cluster.up())
    assert cluster["n1"].raft.term == 4
    assert cluster["n1"].raft.leader_id is None


def test_a_follower_stays_one_while_a_leader_is_heard() -> None:
    """§5.2: a server remains in follower state as long as it receives valid RPCs from a leader."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    term = leader.raft.term
    cluster.run(10 * cluster.options.election_timeout_ticks)
    assert cluster.leaders() == ["n1"]
    assert {server.raft.term for server in cluster.up()} == {term}


def test_silence_for_an_election_timeout_starts_an_election() -> None:
    """§5.2: no communication for the election timeout: begin an election. Not before."""
    cluster = Cluster(3)
    cluster.tick(cluster.options.election_timeout_ticks - 1)
    assert not cluster.network.in_flight
    cluster.tick(cluster.options.election_timeout_ticks + 1)
    assert all(server.raft.role is Role.PRE_CANDIDATE for server in cluster.up())


def test_a_candidate_increments_its_term_votes_for_itself_and_asks_all() -> None:
    """§5.2: increment currentTerm, vote for self, send RequestVote to all other servers."""
    cluster = Cluster(3)
    n1 = cluster["n1"]
    n1.tick(2 * cluster.options.election_timeout_ticks)
    assert n1.raft.role is Role.PRE_CANDIDATE
    sent(cluster, RequestVote)
    n1.step(vote(2, pre=True))
    assert (n1.raft.role, n1.raft.term, n1.raft.voted_for) == (Role.CANDIDATE, 2, "n1")
    asked = sent(cluster, RequestVote)
    assert {(m.recipient, m.term, m.pre_vote) for m in asked} == {
        ("n2", 2, False),
        ("n3", 2, False),
    }
    assert {(m.last_log_index, m.last_log_term) for m in asked} == {(1, 1)}


@pytest.mark.parametrize(
    ("size", "foreign_votes", "wins"),
    [
        (1, 0, True),
        (2, 0, False),
        (2, 1, True),
        (3, 0, False),
        (3, 1, True),
        (4, 1, False),
        (4, 2, True),
        (5, 1, False),
        (5, 2, True),
        (7, 2, False),
        (7, 3, True),
    ],
)
def test_a_candidate_wins_with_the_votes_of_a_majority(
    size: int,
    foreign_votes: int,
    *,
    wins: bool,
) -> None:
    """§5.2: a candidate wins with the votes of a majority of the servers, its own included."""
    cluster = Cluster(size)
    n1 = cluster["n1"]
    while n1.raft.role is Role.FOLLOWER:
        n1.tick()
    for i in range(size // 2):
        n1.step(vote(n1.raft.term + 1, sender=f"n{i + 2}", pre=True))
    assert n1.raft.role is (Role.LEADER if size == 1 else Role.CANDIDATE)
    for i in range(foreign_votes):
        n1.step(vote(n1.raft.term, sender=f"n{i + 2}"))
    assert n1.is_leader is wins


def test_a_vote_counts_once_however_often_it_arrives() -> None:
    """§5.2: the votes of servers are counted, not messages."""
    cluster = Cluster(5)
    n1 = campaigning(cluster)
    for _ in range(5):
        n1.step(vote(n1.raft.term, sender="n2"))
    assert not n1.is_leader


def test_votes_of_other_terms_and_other_rounds_do_not_count() -> None:
    """§5.2: only votes of the current term, and no pre-vote in the vote's place."""
    cluster = Cluster(5)
    n1 = campaigning(cluster)
    term = n1.raft.term
    n1.step(vote(term - 1, sender="n2"))
    n1.step(vote(term, sender="n3", pre=True))
    n1.step(vote(term, sender="n4"))
    assert not n1.is_leader
    n1.step(vote(term, sender="n5"))
    assert n1.is_leader


def test_votes_of_strangers_and_learners_do_not_count() -> None:
    """§6: only voters of the configuration elect."""
    cluster = Cluster(3, learners=["n4"])
    n1 = campaigning(cluster)
    n1.step(vote(n1.raft.term, sender="n4"))
    n1.step(vote(n1.raft.term, sender="stranger"))
    assert not n1.is_leader


def campaigning(cluster: Cluster) -> Server:
    """Give n1 as a candidate that has all pre-votes and no foreign vote yet."""
    n1 = cluster["n1"]
    while n1.raft.role is Role.FOLLOWER:
        n1.tick()
    for member_id in cluster.initial.voters - {"n1"}:
        n1.step(
            vote(n1.raft.term + (n1.raft.role is Role.PRE_CANDIDATE), sender=member_id, pre=True)
        )
    assert n1.raft.role is Role.CANDIDATE
    return n1


def test_a_refused_vote_does_not_count() -> None:
    """§5.2: a refusal is not a vote; a newer term in it ends the candidacy."""
    cluster = Cluster(3)
    n1 = campaigning(cluster)
    term = n1.raft.term
    n1.step(vote(term, granted=False, sender="n2"))
    assert n1.raft.role is not Role.LEADER
    n1.step(vote(term + 3, granted=False, sender="n3"))
    assert (n1.raft.role, n1.raft.term) == (Role.FOLLOWER, term + 3)


def test_a_new_leader_announces_itself_at_once_and_keeps_doing_so() -> None:
    """§5.2: it sends heartbeats to all to establish its authority, in idle periods too."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.run(5)
    sent(cluster, AppendEntries)
    cluster.tick(cluster.options.heartbeat_ticks)
    assert {m.recipient for m in sent(cluster, AppendEntries)} == {"n2", "n3"}


def test_a_split_vote_ends_in_a_new_election() -> None:
    """§5.2: if many candidates split the vote, each times out and starts a new election."""
    cluster = Cluster(4)
    for one, other in (("n1", "n3"), ("n1", "n4"), ("n2", "n3"), ("n2", "n4")):
        assert one != other
    cluster.tick(2 * cluster.options.election_timeout_ticks)
    cluster.deliver(lambda m: getattr(m, "pre_vote", False))
    candidates = [s.id for s in cluster.up() if s.raft.role is Role.CANDIDATE]
    assert len(candidates) > 1
    cluster.run_until(cluster.leaders)
    assert len(cluster.leaders()) == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_candidate_that_is_refused_waits_for_less_than_a_timeout(seed: int) -> None:
    """§5.2: two who split the votes, the third being dead, try again soon, and not both at once."""
    cluster = Cluster(3)
    cluster["n1"].rng = random.Random(seed)
    cluster["n1"].crash()
    cluster["n1"].start()
    n1 = campaigning(cluster)
    n1.step(vote(n1.raft.term, granted=False, sender="n2"))
    assert n1.raft.role is Role.CANDIDATE
    n1.tick(cluster.options.election_timeout_ticks - 1)
    assert n1.status()["role"] == "pre_candidate"


def test_election_timeouts_are_spread_over_the_whole_interval() -> None:
    """§5.2: timeouts are chosen randomly from a fixed interval, [n, 2n) ticks, anew each time."""
    timeouts = []
    cluster = Cluster(3)
    for seed in range(300):
        server = cluster["n1"]
        server.rng = random.Random(seed)
        server.crash()
        server.start()
        ticks = 0
        while server.raft.role is Role.FOLLOWER:
            server.tick()
            ticks += 1
        timeouts.append(ticks)
    timeout = cluster.options.election_timeout_ticks
    assert set(timeouts) == set(range(timeout, 2 * timeout))


def test_successive_timeouts_of_one_server_differ() -> None:
    """§5.2: the timeout is drawn anew at the start of each election."""
    cluster = Cluster(3)
    server = cluster["n1"]
    server.rng = random.Random(3)
    server.crash()
    server.start()
    gaps, last = [], 0
    cluster.network.take_sent()
    for tick in range(1, 400):
        server.tick()
        if sent(cluster, RequestVote):
            gaps.append(tick - last)
            last = tick
    assert len(set(gaps)) > 3
    timeout = cluster.options.election_timeout_ticks
    assert all(timeout <= gap < 2 * timeout for gap in gaps)


def test_a_vote_or_a_leader_restarts_the_timeout() -> None:
    """Figure 2, followers: AppendEntries of the leader or granting a vote put the election off."""
    cluster = Cluster(3)
    n1, timeout = cluster["n1"], cluster.options.election_timeout_ticks
    n1.tick(timeout)
    n1.step(request_vote(5, (1, 1)))
    n1.tick(timeout - 1)
    assert n1.status()["role"] == "follower"
    appends(n1, append_entries(5, (1, 1)))
    n1.tick(timeout - 1)
    assert n1.status()["role"] == "follower"
    n1.tick(timeout)
    assert n1.status()["role"] == "pre_candidate"


def test_a_refused_vote_does_not_restart_the_timeout() -> None:
    """Figure 2: only a vote that is granted puts the own election off."""
    cluster = Cluster(3, logs={"n1": (1, 1, 1)})
    n1 = cluster["n1"]
    for tick in range(2 * cluster.options.election_timeout_ticks):
        n1.step(request_vote(3 + tick, (1, 1)))
        n1.tick()
    assert sent(cluster, RequestVote)  # it asked for pre-votes itself in between


def test_an_idle_cluster_of_two_partitions_never_has_two_leaders_in_a_term() -> None:
    """§5.2 election safety: cut and heal for a while; the checker of invariants.py looks on."""
    cluster = Cluster(5)
    cluster.elect("n1")
    for round_ in range(10):
        cut = [f"n{(round_ + i) % 5 + 1}" for i in range(2)]
        cluster.isolate(*cut)
        cluster.run(25)
        assert len([s for s in cluster.leaders() if s not in cut]) == 1
        cluster.heal()
        cluster.run(10)
        assert len(cluster.leaders()) == 1
    terms = cluster.invariants.elections.leaders
    assert len(terms) >= 3


def test_a_leader_that_hears_no_majority_steps_down() -> None:
    """Thesis §6.2: a leader steps down after an election timeout without a majority's answers."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    cluster.run(5)
    cluster.isolate("n1")
    cluster.tick(2 * cluster.options.election_timeout_ticks, only=["n1"])
    assert not leader.is_leader
    assert leader.raft.leader_id is None


def test_one_answering_follower_of_two_is_enough_to_lead() -> None:
    """Thesis §6.2: a majority, the leader included, is enough."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.isolate("n3")
    cluster.run(5 * cluster.options.election_timeout_ticks)
    assert "n1" in cluster.leaders()


def test_a_follower_that_heard_the_leader_refuses_to_elect_another() -> None:
    """§6, thesis §4.2.3: within the minimum timeout of hearing a leader, RequestVote is ignored."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    cluster.run(5)
    term = leader.raft.term
    for pre_vote in (True, False):
        cluster["n2"].step(
            request_vote(term + 9, (99, term), sender="n3", recipient="n2", pre_vote=pre_vote)
        )
        assert cluster["n2"].raft.term == term
        assert cluster["n2"].raft.voted_for == "n1"


def test_a_leader_that_is_heard_refuses_to_be_replaced() -> None:
    """Thesis §4.2.3: a leader in touch with its majority does not vote for another either."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    cluster.run(5)
    term = leader.raft.term
    leader.step(request_vote(term + 9, (99, term), sender="n3"))
    assert leader.is_leader
    assert leader.raft.term == term


def test_only_the_asked_kind_of_silence_elects() -> None:
    """Thesis §9.6: a pre-candidate whose majority still hears the leader goes nowhere."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    cluster.run(5)
    cluster.network.cut("n1", "n3")
    term = leader.raft.term
    cluster.run(10 * cluster.options.election_timeout_ticks)
    assert cluster.leaders() == ["n1"]
    assert leader.raft.term == term
    assert not cluster.network.next(between(kind=RequestVote, sender="n2"))


def test_role_changes_are_announced() -> None:
    """Ready.role_changed: role, term or leader differ from what the last Ready knew."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.run(5)
    counts = {server.id: server.role_changes for server in cluster.up()}
    assert counts["n1"] >= 2
    assert counts["n2"] >= 1
    cluster.run(50)
    assert counts == {server.id: server.role_changes for server in cluster.up()}
