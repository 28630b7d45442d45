"""Figure 2: the receiver's rules of RequestVote and AppendEntries, one test a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anchor.raft import Role
from tests.raft.harness import Cluster
from tests.raft.messages import append_entries, appends, asks_vote, request_vote, vote

if TYPE_CHECKING:
    from tests.raft.server import Server


def voter(terms: tuple[int, ...] = (1, 1, 2), *, term: int = 0) -> Server:
    """Give n1 of three with this log, long enough without a leader to vote."""
    cluster = Cluster(3, logs={"n1": terms}, terms={"n1": term})
    server = cluster["n1"]
    server.tick(cluster.options.election_timeout_ticks)
    assert server.raft.role is Role.FOLLOWER
    return server


# RequestVote -----------------------------------------------------------------------------


def test_request_vote_of_an_older_term_is_refused() -> None:
    """RequestVote 1: reply false if term < currentTerm; the answer carries the newer term."""
    server = voter(term=5)
    reply = asks_vote(server, request_vote(4, (9, 4)))
    assert (reply.vote_granted, reply.term) == (False, 5)
    assert server.raft.term == 5


def test_request_vote_is_granted_when_no_vote_was_given_in_the_term() -> None:
    """RequestVote 2: votedFor is null and the log is up to date: grant, and remember it."""
    server = voter()
    reply = asks_vote(server, request_vote(3, (3, 2)))
    assert (reply.vote_granted, reply.term, reply.recipient) == (True, 3, "n2")
    assert server.disk.durable.hard_state.voted_for == "n2"


def test_request_vote_is_granted_again_to_the_same_candidate() -> None:
    """RequestVote 2: votedFor is candidateId: a repeated question gets the same answer."""
    server = voter()
    assert asks_vote(server, request_vote(3, (3, 2))).vote_granted
    assert asks_vote(server, request_vote(3, (3, 2))).vote_granted


def test_only_one_candidate_gets_the_vote_of_a_term() -> None:
    """RequestVote 2: a server votes for at most one candidate in a term."""
    server = voter()
    assert asks_vote(server, request_vote(3, (3, 2), sender="n2")).vote_granted
    assert not asks_vote(server, request_vote(3, (9, 2), sender="n3")).vote_granted
    assert server.raft.voted_for == "n2"


def test_the_vote_is_free_again_in_the_next_term() -> None:
    """§5.1: a newer term is a new vote."""
    server = voter()
    assert asks_vote(server, request_vote(3, (3, 2), sender="n2")).vote_granted
    assert asks_vote(server, request_vote(4, (3, 2), sender="n3")).vote_granted


def test_the_vote_survives_a_crash() -> None:
    """§5.1: votedFor is persistent: after a restart the second candidate is refused as before."""
    server = voter()
    assert asks_vote(server, request_vote(3, (3, 2), sender="n2")).vote_granted
    server.crash()
    server.start()
    server.tick(server.options.election_timeout_ticks)
    assert not asks_vote(server, request_vote(3, (3, 2), sender="n3")).vote_granted
    assert asks_vote(server, request_vote(3, (3, 2), sender="n2")).vote_granted


@pytest.mark.parametrize(
    ("candidate_last", "granted"),
    [
        pytest.param((3, 2), True, id="the same log"),
        pytest.param((4, 2), True, id="same term, longer"),
        pytest.param((2, 2), False, id="same term, shorter"),
        pytest.param((1, 3), True, id="later term, though shorter"),
        pytest.param((99, 1), False, id="earlier term, though longer"),
        pytest.param((0, 0), False, id="nothing at all"),
    ],
)
@pytest.mark.parametrize("pre_vote", [False, True])
def test_a_candidate_needs_a_log_at_least_as_up_to_date(
    candidate_last: tuple[int, int],
    *,
    granted: bool,
    pre_vote: bool,
) -> None:
    """§5.4.1: the later last term wins; with equal terms the longer log. Pre-votes alike."""
    server = voter((1, 1, 2))
    reply = asks_vote(server, request_vote(5, candidate_last, pre_vote=pre_vote))
    assert reply.vote_granted is granted


def test_a_refused_candidate_leaves_its_term_behind_but_not_a_vote() -> None:
    """§5.1: the newer term is adopted even when the vote is refused; the vote stays free."""
    server = voter((1, 1, 2))
    assert not asks_vote(server, request_vote(7, (2, 1), sender="n2")).vote_granted
    assert (server.raft.term, server.raft.voted_for) == (7, None)
    assert asks_vote(server, request_vote(7, (3, 2), sender="n3")).vote_granted


def test_a_pre_vote_changes_nothing_at_the_voter() -> None:
    """Thesis §9.6: a pre-vote asks without consequences; many may be granted in one term."""
    server = voter()
    before = server.disk.durable.hard_state
    for candidate in ("n2", "n3"):
        reply = asks_vote(server, request_vote(9, (3, 2), sender=candidate, pre_vote=True))
        assert (reply.vote_granted, reply.pre_vote, reply.term) == (True, True, 9)
    assert server.raft.term == 2
    assert server.disk.durable.hard_state == before


def test_a_refused_pre_vote_carries_the_voters_own_term() -> None:
    """Thesis §9.6: so a candidate that is behind learns the term it has to beat."""
    server = voter(term=6)
    reply = asks_vote(server, request_vote(4, (9, 3), pre_vote=True))
    assert (reply.vote_granted, reply.pre_vote, reply.term) == (False, True, 6)


# AppendEntries ---------------------------------------------------------------------------


def test_append_entries_of_an_older_term_is_refused() -> None:
    """AppendEntries 1: reply false if term < currentTerm, with the newer term; the log stays."""
    server = voter(term=5)
    reply = appends(server, append_entries(4, (3, 2), [4]))
    assert (reply.success, reply.term) == (False, 5)
    assert server.log_terms() == [1, 1, 2]
    assert server.raft.leader_id is None


def test_append_entries_after_a_gap_is_refused() -> None:
    """AppendEntries 2: no entry at prevLogIndex: refused, with where the log ends."""
    server = voter()
    reply = appends(server, append_entries(3, (7, 2), [3]))
    assert (reply.success, reply.rejected_index) == (False, 7)
    assert 0 < reply.conflict_index <= 4
    assert server.log_terms() == [1, 1, 2]


def test_append_entries_after_another_term_is_refused() -> None:
    """AppendEntries 2: the entry at prevLogIndex has another term: refused, nothing deleted yet."""
    server = voter((1, 1, 2))
    reply = appends(server, append_entries(4, (3, 3), [4]))
    assert (reply.success, reply.rejected_index) == (False, 3)
    assert server.log_terms() == [1, 1, 2]


def test_a_conflicting_entry_is_deleted_with_all_that_follow_it() -> None:
    """AppendEntries 3: same index, different term: delete it and all after it."""
    server = voter((1, 1, 2, 2, 2))
    reply = appends(server, append_entries(3, (2, 1), [3]))
    assert (reply.success, reply.match_index) == (True, 3)
    assert server.log_terms() == [1, 1, 3]


def test_entries_not_in_the_log_are_appended() -> None:
    """AppendEntries 4: append any new entries; those already there stay as they are."""
    server = voter((1, 1, 2))
    reply = appends(server, append_entries(3, (1, 1), [1, 2, 3, 3]))
    assert (reply.success, reply.match_index) == (True, 5)
    assert server.log_terms() == [1, 1, 2, 3, 3]


def test_a_matching_append_truncates_nothing() -> None:
    """AppendEntries 3, read closely: only a conflict truncates, no delayed, shorter append."""
    server = voter((1, 1, 2, 2, 2))
    reply = appends(server, append_entries(2, (1, 1), [1]))
    assert (reply.success, reply.match_index) == (True, 2)
    assert server.log_terms() == [1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("leader_commit", "sent_terms", "expected"),
    [
        pytest.param(2, (), 2, id="the leader's commit index"),
        pytest.param(9, (), 3, id="not past what the append verified"),
        pytest.param(9, (3,), 4, id="the last new entry"),
        pytest.param(1, (3, 3), 1, id="entries beyond it stay uncommitted"),
    ],
)
def test_commit_index_is_the_lesser_of_leader_commit_and_last_new_entry(
    leader_commit: int, sent_terms: tuple[int, ...], expected: int
) -> None:
    """AppendEntries 5: commitIndex = min(leaderCommit, index of last new entry).

    The log here goes on with entries the leader may not have: they must not be committed.
    """
    server = voter((1, 1, 2, 2, 2))
    assert appends(server, append_entries(3, (3, 2), sent_terms, commit=leader_commit)).success
    assert server.raft.commit_index == expected


def test_the_commit_index_does_not_go_back() -> None:
    """AppendEntries 5: only if leaderCommit > commitIndex: late news changes nothing."""
    server = voter((1, 1, 2))
    appends(server, append_entries(3, (3, 2), commit=3))
    appends(server, append_entries(3, (3, 2), commit=1))
    assert server.raft.commit_index == 3


def test_append_entries_are_acknowledged_the_same_when_repeated() -> None:
    """§5.5: RPCs are idempotent: a repeated append changes nothing and is acknowledged alike."""
    server = voter((1, 1, 2))
    message = append_entries(3, (3, 2), [3, 3])
    assert appends(server, message) == appends(server, message)
    assert server.log_terms() == [1, 1, 2, 3, 3]


def test_an_answer_echoes_round_and_session() -> None:
    """Thesis §6.4: the echo tells the leader which round, and which session, is being answered."""
    server = voter()
    reply = appends(server, append_entries(3, (3, 2), session=77, read_round=12))
    assert (reply.session, reply.read_round) == (77, 12)
    refusal = appends(server, append_entries(3, (9, 3), session=78, read_round=13))
    assert (refusal.session, refusal.read_round) == (78, 13)


# All servers, followers, candidates --------------------------------------------------------


def test_any_message_of_a_newer_term_makes_a_follower_of_that_term() -> None:
    """All servers: term T > currentTerm: set currentTerm = T, convert to follower."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    newer = leader.raft.term + 5
    reply = appends(leader, append_entries(newer, (1, 1)))
    assert reply.success
    assert (leader.raft.role, leader.raft.term) == (Role.FOLLOWER, newer)
    assert leader.raft.leader_id == "n2"


def test_a_candidate_that_hears_the_leader_of_its_term_follows_it() -> None:
    """Candidates: AppendEntries from a new leader: convert to follower."""
    server = voter()
    server.tick(2)
    assert server.raft.role is Role.PRE_CANDIDATE
    server.step(vote(3, pre=True))
    assert (server.raft.role, server.raft.term) == (Role.CANDIDATE, 3)
    assert appends(server, append_entries(3, (3, 2))).success
    assert (server.raft.role, server.raft.leader_id, server.raft.term) == (Role.FOLLOWER, "n2", 3)


def test_committed_entries_are_applied_in_order_and_once() -> None:
    """All servers: commitIndex > lastApplied: apply the next; a Ready never repeats one."""
    server = voter((1, 1, 1))
    appends(server, append_entries(2, (3, 1), [2, 2], commit=4))
    appends(server, append_entries(2, (3, 1), [2, 2], commit=4))
    assert server.commands == [b"2@1", b"3@1", b"4@2"]
    appends(server, append_entries(2, (5, 2), commit=5))
    assert server.commands[3:] == [b"5@2"]
    assert server.raft.last_applied == 5
