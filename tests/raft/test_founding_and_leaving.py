"""A member's first entry, and how it learns that it is a member no more."""

from __future__ import annotations

import random

import pytest

from anchor.raft import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    InvalidConfiguration,
    NotReady,
    Options,
    Raft,
    Role,
)
from anchor.storage import MemoryLog
from tests.raft.harness import Cluster, configuration
from tests.raft.messages import append_entries


def fresh(member_id: str = "n1") -> Raft:
    """A core that knows nothing."""
    return Raft(member_id, MemoryLog(), Options(), random.Random(1))


def persist(raft: Raft) -> None:
    """Do what a shell does, at once."""
    while raft.has_ready():
        ready = raft.ready()
        raft.persisted(ready.number)
        if ready.committed:
            raft.applied(ready.committed[-1].index)


def test_whoever_founds_a_cluster_leads_it_alone() -> None:
    """Its first configuration is entry 1 of term 1; the rest goes as ever."""
    raft = fresh()
    proposed = raft.found(configuration(["n1"]))
    assert (proposed.term, proposed.last_index) == (1, 1)
    ready = raft.ready()
    assert ready.hard_state == HardState(1)
    assert [(e.index, e.term, e.kind) for e in ready.entries] == [(1, 1, EntryKind.CONFIGURATION)]
    raft.persisted(ready.number)
    raft.campaign()
    persist(raft)
    assert raft.role is Role.LEADER
    assert raft.commit_index == 2
    assert raft.committed_configuration == configuration(["n1"])


def test_only_a_member_without_a_past_can_found_a_cluster() -> None:
    """Neither one with a log, nor one that has seen a term: it may have promised something."""
    raft = fresh()
    with pytest.raises(InvalidConfiguration):
        raft.found(Configuration())
    assert raft.last_log_index == 0
    raft.found(configuration(["n1"]))
    with pytest.raises(NotReady):
        raft.found(configuration(["n1"]))
    log = MemoryLog()
    log.append([], HardState(1))
    log.sync()
    with pytest.raises(NotReady):
        Raft("n1", log, Options(), random.Random(1)).found(configuration(["n1"]))


def test_a_member_that_was_told_that_it_is_out_campaigns_no_more() -> None:
    """Its own log knows nothing of it: the shell has the proof."""
    cluster = Cluster(3)
    n1 = cluster["n1"]
    n1.raft.told_removed()
    assert n1.raft.is_removed
    n1.tick(10 * cluster.options.election_timeout_ticks)
    assert (n1.raft.role, n1.raft.term) == (Role.FOLLOWER, 1)


def test_being_told_ends_a_campaign() -> None:
    """Late answers to it count for nothing."""
    cluster = Cluster(3)
    cluster.isolate("n1")
    n1 = cluster["n1"]
    while n1.raft.role is Role.FOLLOWER:
        n1.tick()
    n1.raft.told_removed()
    assert n1.raft.role.value == "follower"


def test_a_leader_that_speaks_to_it_lets_a_member_back_in() -> None:
    """It was let in again: what it had been told is over."""
    cluster = Cluster(3)
    n1 = cluster["n1"]
    n1.raft.told_removed()
    n1.step(append_entries(2, (1, 1)))
    assert not n1.raft.is_removed


def test_a_leader_knows_better_than_to_be_told() -> None:
    """A majority answers it."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    leader.raft.told_removed()
    assert not leader.raft.is_removed
    assert leader.raft.role is Role.LEADER


def test_who_hears_of_its_membership_and_its_end_at_once_knows_that_it_was_removed() -> None:
    """After a restart nothing is known to be committed; one message then commits both entries."""
    log = MemoryLog()
    both, alone = configuration(["n1", "n2"]), configuration(["n2"])
    log.append([Entry(1, 1, EntryKind.CONFIGURATION, both.encode())], HardState(1))
    log.append([Entry(2, 1, EntryKind.CONFIGURATION, alone.encode())], HardState(1))
    log.sync()
    raft = Raft("n1", log, Options(), random.Random(1))
    assert not raft.is_removed
    raft.step(append_entries(1, (2, 1), commit=2))
    assert raft.is_removed


def test_a_learner_that_hears_nothing_forgets_who_led() -> None:
    """It can do nothing about it, but must not send clients to somebody who is gone."""
    cluster = Cluster(3, learners=("n4",))
    cluster.elect("n1")
    cluster.run(2 * cluster.options.heartbeat_ticks)
    learner = cluster["n4"]
    assert learner.raft.leader_id == "n1"
    cluster.isolate("n4")
    cluster.tick(2 * cluster.options.election_timeout_ticks, only=("n4",))
    assert learner.raft.leader_id is None
