"""Figures 7 and 8 of the paper, played through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anchor.raft import AppendEntries, AppendEntriesResponse, Message, Role
from tests.raft.harness import Cluster
from tests.raft.network import between
from tests.raft.server import OPTIONS

# Figure 7: the logs when the leader of term 8 comes to power. Entry 1 is the configuration.
LEADER = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
FIGURE_7 = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


def figure_7(*, eager: bool = True) -> Cluster:
    """Seven servers with the figure's logs; the leader's term is about to be 8."""
    ids = ["leader", *FIGURE_7]
    logs = {"leader": LEADER, **FIGURE_7}
    return Cluster(ids, logs=logs, terms=dict.fromkeys(ids, 7), eager=eager)


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("follower", FIGURE_7)
def test_figure_7_leader_brings_every_follower_log_to_its_own(
    follower: str, *, eager: bool
) -> None:
    """§5.3, Figure 7 (a to f): whatever a log lacks or has too much, it becomes the leader's."""
    cluster = figure_7(eager=eager)
    leader = cluster.elect("leader")
    assert leader.raft.term == 8
    cluster.run(5)
    assert leader.log_terms() == [*LEADER, 8]
    assert cluster[follower].log_terms() == [*LEADER, 8]
    assert cluster[follower].raft.commit_index == leader.raft.commit_index == 11


@pytest.mark.parametrize("follower", FIGURE_7)
def test_figure_7_conflicts_are_found_in_few_round_trips(follower: str) -> None:
    """§5.3: one refusal a conflicting term, not one an entry: at most three here."""
    cluster = figure_7()
    cluster.elect("leader")
    cluster.run(5)
    refusals = [
        m
        for m in cluster.network.sent
        if isinstance(m, AppendEntriesResponse) and not m.success and m.sender == follower
    ]
    assert len(refusals) <= 3, refusals


def test_figure_7_followers_with_shorter_logs_cannot_win() -> None:
    """§5.4.1: b, e and f are less up to date than a majority: they do not get its votes."""
    for candidate in ("b", "e", "f"):
        cluster = figure_7()
        cluster.tick(cluster.options.election_timeout_ticks)
        while cluster[candidate].raft.role is Role.FOLLOWER:
            cluster.tick(only=[candidate])
        cluster.deliver(between(sender=candidate))
        cluster.deliver(between(recipient=candidate))
        assert not cluster[candidate].is_leader


# Figure 8: s1 replicated an entry of term 2 to s2 and crashed; s5 took one of term 3 in and
# crashed; now s1 is back and leads term 4.
FIGURE_8 = {"s1": (1, 2), "s2": (1, 2), "s3": (1,), "s4": (1,), "s5": (1, 3)}


def carries_term_4(message: Message) -> bool:
    """Match the appends that bring the new leader's own first entry."""
    return isinstance(message, AppendEntries) and any(e.term == 4 for e in message.entries)


def figure_8_c() -> Cluster:
    """Give the figure's moment (c): the old entry is on a majority, no entry of term 4 is."""
    one_entry_a_message = replace(OPTIONS, max_append_bytes=1)
    terms = dict.fromkeys(FIGURE_8, 3)
    cluster = Cluster(list(FIGURE_8), logs=FIGURE_8, terms=terms, options=one_entry_a_message)
    cluster.crash("s5")
    cluster.network.hold(carries_term_4)
    s1 = cluster.elect("s1")
    cluster.run(4)
    assert s1.raft.term == 4
    assert s1.log_terms() == [1, 2, 4]
    assert cluster["s2"].log_terms() == cluster["s3"].log_terms() == [1, 2]
    return cluster


def test_figure_8_an_entry_of_an_old_term_is_not_committed_by_counting() -> None:
    """§5.4.2, Figure 8 (c): the entry of term 2 is on three of five, and is not committed."""
    cluster = figure_8_c()
    assert cluster["s1"].raft.commit_index <= 1
    assert cluster["s1"].state.index <= 1


def test_figure_8_such_an_entry_can_still_be_overwritten() -> None:
    """§5.4.2, Figure 8 (d): s1 crashes, s5 wins by its later last term, and overwrites entry 2."""
    cluster = figure_8_c()
    cluster.crash("s1")
    cluster.network.held.clear()
    cluster.network.release()
    cluster.restart("s5")
    s5 = cluster.elect("s5")
    cluster.run(5)
    assert s5.raft.term >= 5
    for server in cluster.up():
        assert server.log_terms() == [1, 3, s5.raft.term]
        assert server.raft.commit_index == 3


def test_figure_8_an_entry_of_the_own_term_commits_all_before_it() -> None:
    """§5.4.2, Figure 8 (e): with term 4's entry on a majority both are committed; s5 cannot win."""
    cluster = figure_8_c()
    cluster.network.release()
    cluster.run(4)
    assert cluster["s1"].raft.commit_index == 3
    cluster.restart("s5")
    cluster.crash("s1")
    cluster["s5"].tick(3 * cluster.options.election_timeout_ticks)
    cluster.run(5)
    assert not cluster["s5"].is_leader
    cluster.run_until(cluster.leaders)
    cluster.run(5)
    assert all(server.log_terms()[:3] == [1, 2, 4] for server in cluster.up())
