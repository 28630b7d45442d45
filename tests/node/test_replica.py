"""What a replica does between core, log and state machine, every step taken by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anchor.fsm import Result
from anchor.node.errors import DiskFull
from anchor.raft import Role
from tests.node.replicas import IDS, World, put
from tests.node.test_writes import Client


def version(client: Client) -> int:
    """The version of the key after this client's write, which must have been answered once."""
    (outcome,) = client.outcomes
    assert isinstance(outcome, Result)
    return outcome.version


@pytest.mark.parametrize("via", IDS)
def test_a_write_through_any_member_is_applied_by_all(via: str) -> None:
    """Leader or not, the member that took it answers, and all have it."""
    world = World()
    world.elect("n1")
    client = put(world.replicas[via], b"k")
    world.run()
    assert version(client) == 1
    world.tick(10)
    for replica in world.replicas.values():
        found = replica.machine.get(b"k")
        assert found is not None
        assert found.value == b"v"
    assert len({replica.machine.digest for replica in world.replicas.values()}) == 1


def test_a_follower_need_not_wait_for_a_heartbeat() -> None:
    """Its forwarded write is answered as soon as it is committed: no tick passes."""
    world = World()
    world.elect("n1")
    client = put(world.replicas["n2"], b"k")
    world.run()
    assert client.outcomes


def test_nothing_is_acknowledged_before_a_majority_has_it_on_disk() -> None:
    """Two slow disks of three, the leader's among them, hold a write back."""
    world = World()
    world.elect("n1")
    world.slow_disks = {"n1", "n2"}
    client = put(world.replicas["n1"], b"k")
    world.run()
    assert client.outcomes == []
    world.slow_disks = {"n1"}
    world.run()
    assert client.outcomes == []  # committed by the others, but the leader has it on no disk yet
    world.slow_disks = set()
    world.run()
    assert version(client) == 1


def test_a_slow_disk_of_a_minority_holds_nobody_up() -> None:
    """Two of three are enough, and the slow member still answers heartbeats."""
    world = World()
    world.elect("n1")
    world.slow_disks = {"n3"}
    client = put(world.replicas["n1"], b"k")
    world.run()
    assert version(client) == 1
    term = world.leader().raft.term
    world.tick(300)
    assert world.leader().raft.term == term
    assert world.replicas["n1"].raft.progress["n3"].recently_active


def test_a_write_rides_through_a_change_of_leader() -> None:
    """Handed to a leader that vanishes, it is handed to the next, and applied once."""
    world = World()
    world.elect("n1")
    world.cut = {"n1"}
    client = put(world.replicas["n2"], b"k")
    world.run()
    assert client.outcomes == []
    world.replicas["n2"].lost_touch()
    world.tick(200)
    assert version(client) == 1


def test_a_write_sent_twice_is_applied_once() -> None:
    """The log holds both copies; the state machine counts one."""
    world = World()
    world.elect("n1")
    follower = world.replicas["n2"]
    client = put(follower, b"k")
    follower.work()
    copy = world.forwarded[0]
    world.forwarded.append(copy)
    world.run()
    second = put(follower, b"k")
    world.run()
    assert version(client) == 1
    assert version(second) == 2


def test_a_leader_cut_off_leaves_its_clients_writes_to_its_successor() -> None:
    """Appended by a leader nobody heard, written through the next one after all."""
    world = World()
    old = world.elect("n1")
    world.cut = {"n1"}
    client = put(old, b"k")
    world.run()
    world.tick(200)
    assert client.outcomes == []
    world.cut = set()
    world.tick(20)
    assert old.raft.role is Role.FOLLOWER
    assert version(client) == 1


def test_a_read_on_a_follower_sees_every_write_answered_before() -> None:
    """It waits until it has applied what the leader had committed when it was asked."""
    world = World()
    world.elect("n1")
    put(world.replicas["n1"], b"k")
    world.run()
    follower = world.replicas["n3"]
    reader = Client(1e9)
    follower.read(reader)
    world.run()
    assert reader.outcomes == [None]
    assert follower.machine.get(b"k") is not None


def test_a_read_of_a_cut_off_leader_waits() -> None:
    """It may not answer from what it has, and answers once it has asked its successor."""
    world = World()
    old = world.elect("n1")
    world.cut = {"n1"}
    world.tick(200)
    writer = put(world.leader(), b"k")
    world.run()
    assert version(writer) == 1
    reader = Client(1e9)
    old.read(reader)
    world.run()
    assert reader.outcomes == []
    world.cut = set()
    world.tick(20)
    assert reader.outcomes == [None]
    assert old.machine.get(b"k") is not None


def test_a_lease_read_needs_no_messages() -> None:
    """The leader answers from its lease while it lasts, and asks when it does not."""
    world = World()
    leader = world.elect("n2")
    world.tick(10)
    reader = Client(1e9)
    leader.read(reader, lease=True)
    assert reader.outcomes == [None]
    assert not world.wire
    leader.tick(1000)  # it was paused: the lease is over
    late = Client(1e9)
    leader.read(late, lease=True)
    assert late.outcomes == []
    world.run()
    assert late.outcomes == [None]


def test_a_lease_read_on_a_follower_asks_the_leader_once() -> None:
    """Which answers from its lease."""
    world = World()
    world.elect("n2")
    world.tick(10)
    reader = Client(1e9)
    world.replicas["n1"].read(reader, lease=True)
    world.run()
    assert reader.outcomes == [None]


def test_refused_writes_are_tried_again_at_the_next_tick() -> None:
    """While leadership is handed over nothing is proposed, and nothing is lost."""
    world = World()
    leader = world.elect("n1")
    world.cut = {"n2"}
    leader.raft.transfer_leadership("n2")
    client = put(world.replicas["n3"], b"k")
    world.run()
    assert client.outcomes == []
    world.cut = set()
    world.tick(200)
    assert version(client) == 1


def test_what_too_many_full_disks_refuse_is_answered_at_once() -> None:
    """Nothing was done, and another try would not help: no need to wait for the time to be up."""
    world = World()
    leader = world.elect("n1")
    raft = leader.raft
    raft.propose_configuration(replace(raft.configuration, protocol_version=2))
    world.run()
    world.tick(10)
    for member_id in ("n2", "n3"):
        world.replicas[member_id].raft.set_room(False)
    world.tick(10)
    client = put(leader, b"k")
    world.run()
    assert isinstance(client.error, DiskFull)
    assert not len(leader.writes)
    for member_id in ("n2", "n3"):
        world.replicas[member_id].raft.set_room(True)
    world.tick(10)
    again = put(leader, b"k")
    world.tick(10)
    assert [type(outcome) for outcome in again.outcomes] == [Result]


def test_a_leader_whose_disk_is_full_answers_what_it_has_not_proposed() -> None:
    """What gathers while the last round is on its way is in nobody's hands yet."""
    world = World()
    leader = world.elect("n1")
    leader.raft.set_room(False)
    client = put(leader, b"k")
    world.run()
    assert isinstance(client.error, DiskFull)
