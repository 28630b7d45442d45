"""The replicated time: who moves it, and what does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from anchor.fsm import (
    KeepAlive,
    OpenSession,
    SessionResult,
    Status,
    encode_session_command,
)
from anchor.node.leader_clock import LeaderClock
from anchor.raft import Options, Role
from tests.node.replicas import IDS, TICK_MS, World, put
from tests.node.test_writes import Client

if TYPE_CHECKING:
    from anchor.node.replica import Replica

ELECTION_TICKS = Options().election_timeout_ticks
TTL_MS = 5000


def ask(world: World, via: str, command: OpenSession | KeepAlive) -> SessionResult:
    """Have a command about a session applied."""
    client = Client(1e9)
    world.replicas[via].write(encode_session_command(command), None, client)
    world.run()
    (result,) = client.outcomes
    assert isinstance(result, SessionResult)
    return result


def clocks(world: World) -> set[int]:
    """What time it is, for each member's state machine."""
    return {replica.machine.clock_ms for replica in world.replicas.values()}


def agreed(world: World) -> bool:
    """Whether all state machines are alike."""
    world.tick(10)
    machines = [replica.machine for replica in world.replicas.values()]
    return len({(machine.applied_index, machine.digest) for machine in machines}) == 1


def elected(via: str = "n1") -> tuple[World, Replica]:
    """A cluster with a leader."""
    world = World()
    return world, world.elect(via)


@pytest.mark.parametrize("via", IDS)
def test_time_passes_with_the_writes_of_anybody(via: str) -> None:
    """Whoever takes a write, the leader puts its time into the entry."""
    world, _ = elected()
    put(world.replicas[via], b"a")
    world.run()
    world.tick(100)
    (before,) = clocks(world)
    put(world.replicas[via], b"b")
    world.run()
    world.tick(10)
    (after,) = clocks(world)
    assert 100 * TICK_MS <= after - before < 102 * TICK_MS


def test_an_idle_cluster_writes_nothing_to_pass_time() -> None:
    """Where nothing can run out, no entry says what time it is."""
    world, leader = elected()
    last = leader.raft.last_log_index
    for _ in range(50):
        world.tick(10)
        leader.end_what_is_due()
    assert leader.raft.last_log_index == last


def test_a_session_ends_though_nobody_writes() -> None:
    """The leader lets one entry pass, and then no more."""
    world, leader = elected()
    ask(world, "n2", OpenSession(TTL_MS, 1, 10))
    last = leader.raft.last_log_index
    for _ in range(2 * TTL_MS // (10 * TICK_MS)):
        world.tick(10)
        for replica in world.replicas.values():
            replica.end_what_is_due()
        world.run()
    assert agreed(world)
    assert leader.machine.session_count == 0
    assert leader.raft.last_log_index == last + 1


def test_only_time_that_somebody_leads_counts() -> None:
    """However long the cluster has no leader, no session ends: the next one goes on from there."""
    world, leader = elected()
    opened = ask(world, "n1", OpenSession(TTL_MS, 1, 10))
    world.cut = {"n2", "n3"}
    world.tick(4 * ELECTION_TICKS)
    world.cut = set()
    for member_id in ("n2", "n3"):
        world.replicas[member_id].tick(1000 * TTL_MS)  # their clocks jump
    new = world.elect("n2")
    assert ask(world, "n3", KeepAlive(opened.number, 1)).status is Status.DONE
    assert agreed(world)
    assert new.machine.session_count == leader.machine.session_count == 1


def test_a_leader_that_was_paused_counts_no_more_than_an_election_takes() -> None:
    """Its clients could not reach it, and nobody else led."""
    world, leader = elected()
    opened = ask(world, "n1", OpenSession(TTL_MS, 1, 10))
    before = leader.clock.now_ms()
    leader.clock.tick(100 * ELECTION_TICKS)
    after = leader.clock.now_ms()
    assert before is not None
    assert after == before + ELECTION_TICKS * TICK_MS
    assert ask(world, "n1", KeepAlive(opened.number, 1)).status is Status.DONE


def test_a_new_leader_goes_on_from_where_time_stood() -> None:
    """Not from its own beginning, or time would stand still until it had caught up."""
    world, leader = elected()
    world.tick(500)
    put(leader, b"a")
    world.run()
    world.tick(10)
    (before,) = clocks(world)
    new = world.elect("n2")
    world.tick(100)
    put(new, b"b")
    world.run()
    world.tick(10)
    (after,) = clocks(world)
    assert after - before >= 100 * TICK_MS


class Leader(SimpleNamespace):
    """A core that leads and a state machine, as far as the clock looks at them."""

    def clock(self) -> LeaderClock:
        """One that goes by them."""
        return LeaderClock(self, self, TICK_MS)  # type: ignore[arg-type]  # see above


def leader_with(**others: object) -> Leader:
    """A leader of term 3 whose state machine is at 500 ms."""
    facts = {
        "role": Role.LEADER,
        "term": 3,
        "options": Options(),
        "cluster_speaks": lambda _version: True,
        "applied_term": 3,
        "clock_ms": 500,
        "nothing_ends_before_ms": 0,
    }
    return Leader(**{**facts, **others})


def test_a_leader_that_has_applied_nothing_of_its_own_does_not_say_what_time_it_is() -> None:
    """Entries of an earlier leader, further on, may be on their way to its state machine."""
    leader = leader_with(applied_term=2)
    clock = leader.clock()
    assert (clock.now_ms(), clock.suffix()) == (None, b"")
    leader.applied_term, leader.clock_ms = 3, 900
    assert clock.now_ms() == 900


def test_what_is_due_is_asked_for_once_a_second() -> None:
    """Until the clock has got to the next second, an entry more would end nothing more."""
    leader = leader_with()
    clock = leader.clock()
    assert not clock.is_due()
    clock.tick(500 // TICK_MS - 1)
    assert not clock.is_due()
    clock.tick(1)
    assert clock.is_due()
    leader.clock_ms = 1000
    assert not clock.is_due()


def test_before_all_members_know_of_it_no_entry_has_a_time() -> None:
    """A member of an older version could not read it, and would stop."""
    world = World(protocol_version=2)
    world.elect("n1")
    world.tick(100)
    put(world.replicas["n2"], b"k")
    world.run()
    world.tick(10)
    assert clocks(world) == {0}
