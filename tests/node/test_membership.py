"""Only what is committed counts: joins and removals that another leader overrules."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import gevent
import pytest

from anchor.node.errors import MembershipError, NoLeader, RequestTimeout
from anchor.node.joining import JoinOptions
from anchor.node.members import role_of
from anchor.node.membership import Membership
from anchor.raft import Configuration, Member, Options, Raft, Role
from anchor.settings import NEWEST_PROTOCOL
from anchor.storage import MemoryLog
from anchor.transport import Identification, JoinRequest, TransportError, Unreachable
from tests.node.replicas import IDS, World

if TYPE_CHECKING:
    from collections.abc import Iterable

NEW = Identification("n4", 44, "", "host:4", "host:14", "", newest_protocol=NEWEST_PROTOCOL)


class FakeTransport:
    """Finds a new node at any port 4, and everybody connected but those who are cut off."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.members: list[str] = []

    def set_members(self, members: Iterable[Member]) -> None:
        """Take note."""
        self.members = sorted(member.id for member in members)

    def connected(self, member_id: str) -> bool:
        """Whether it is there."""
        return member_id not in self._world.cut

    def identify(self, address: str, timeout_seconds: float) -> Identification:
        """Say who is at home."""
        assert timeout_seconds > 0
        gevent.sleep(0)  # it takes a moment, in which others go on
        member_id = address.partition(":")[0]
        if member_id in IDS and member_id not in self._world.cut:
            return Identification(member_id, 0, "c", address, "", "")
        if not address.endswith(":4"):
            raise Unreachable(f"{address}: connection refused")
        return NEW

    def join(self, address: str, request: JoinRequest, timeout_seconds: float) -> object:
        """Nobody passes anything on here."""
        raise TransportError(f"{address}: no answer to {request.member_id} in {timeout_seconds}")


def membership_of(world: World, member_id: str) -> Membership:
    """The membership of one replica, with only as much of a node around it as it looks at."""
    replica = world.replicas[member_id]
    parts = SimpleNamespace(
        raft=replica.raft,
        machine=replica.machine,
        transport=FakeTransport(world),
        directory=SimpleNamespace(identity=SimpleNamespace(cluster_id="c")),
        peers=(),
        itself=Member(member_id),
        joining=JoinOptions(),
        election_timeout_seconds=1.0,
    )
    node = SimpleNamespace(wake=lambda: None, die=print)
    return Membership(node, parts)  # type: ignore[arg-type]  # see above


def join_request(address: str = NEW.address, incarnation: int = 0) -> JoinRequest:
    """Let n4 in."""
    return JoinRequest("n4", address, "", incarnation, forwarded=True)


def while_the_world_turns(world: World, act: object) -> object:
    """Do something that waits, while everything else goes on."""
    assert callable(act)
    doing = gevent.spawn(act)
    doing_until = time.monotonic() + 10
    while not doing.ready() and time.monotonic() < doing_until:
        world.run()
        gevent.sleep(0.001)
    if doing.exception is not None:
        raise doing.exception
    return doing.value


def soon() -> float:
    """A deadline."""
    return time.monotonic() + 5


def test_a_node_that_is_let_in_is_a_learner_that_shall_vote() -> None:
    """With what was found at its address."""
    world = World()
    leader = world.elect("n1")
    membership = membership_of(world, "n1")
    while_the_world_turns(world, lambda: membership._admitting.admit(join_request(), soon()))
    configuration = leader.raft.committed_configuration
    assert configuration.learners == {"n4"}
    assert configuration.members["n4"] == Member("n4", "host:4", "host:14", 44, promote=True)


def test_a_change_that_another_leader_overrules_is_not_reported_as_done() -> None:
    """Its place in the log is taken by something else; the next leader has to be asked."""
    world = World()
    old = world.elect("n1")
    membership = membership_of(world, "n1")
    world.cut = {"n1"}
    asking = gevent.spawn(membership._admitting.admit, join_request(), time.monotonic() + 5)
    gevent.sleep(0.01)
    world.run()
    world.tick(200)
    world.cut = set()
    world.tick(50)
    with pytest.raises(NoLeader):
        while_the_world_turns(world, asking.get)
    assert "n4" not in old.raft.configuration.members


def test_an_uncommitted_change_is_waited_for() -> None:
    """To be a member in a configuration that may still be overruled is not enough."""
    world = World()
    world.elect("n1")
    membership = membership_of(world, "n1")
    world.cut = {"n2", "n3"}
    with pytest.raises(RequestTimeout):
        while_the_world_turns(
            world, lambda: membership._admitting.admit(join_request(), time.monotonic() + 0.1)
        )
    assert "n4" in world.replicas["n1"].raft.configuration.members
    with pytest.raises(RequestTimeout):
        while_the_world_turns(
            world, lambda: membership._admitting.admit(join_request(), time.monotonic() + 0.1)
        )


def test_two_nodes_cannot_get_in_under_one_id() -> None:
    """Whoever comes second is refused, however close they are."""
    world = World()
    leader = world.elect("n1")
    membership = membership_of(world, "n1")
    first = gevent.spawn(membership._admitting.admit, join_request(incarnation=44), soon())
    second = gevent.spawn(membership._admitting.admit, join_request("elsewhere:4"), soon())
    with pytest.raises(MembershipError):
        while_the_world_turns(world, second.get)
    while_the_world_turns(world, first.get)
    assert leader.raft.committed_configuration.members["n4"].address == "host:4"


def test_a_removal_is_judged_by_what_it_changes() -> None:
    """Fine when it was asked for, it would lose the quorum by the time its turn comes."""
    world = World()
    leader = world.elect("n1")
    membership = membership_of(world, "n1")
    world.slow_disks = set(IDS)
    whole = leader.raft.configuration
    leader.raft.propose_configuration(
        replace(
            whole,
            members={**whole.members, "n5": Member("n5")},
            learners=frozenset({"n5"}),
        )
    )
    removal = gevent.spawn(membership._removing.remove, "n2", soon(), forwarded=True)
    gevent.sleep(0.05)  # it waits for the change under way
    world.slow_disks = set()
    world.cut = {"n3"}
    with pytest.raises(MembershipError, match="quorum would be lost"):
        while_the_world_turns(world, removal.get)
    assert leader.raft.committed_configuration.voters == set(IDS)


def test_a_removed_member_is_told_for_a_while() -> None:
    """It has to hear that it was removed; then its address is forgotten."""
    world = World()
    world.elect("n1")
    membership = membership_of(world, "n1")
    transport = membership._transport
    assert isinstance(transport, FakeTransport)
    whole = world.replicas["n1"].raft.configuration
    membership.configuration_changed(whole)
    smaller = replace(
        whole,
        members={i: whole.members[i] for i in IDS[:2]},
        voters=frozenset(IDS[:2]),
    )
    membership.configuration_changed(smaller)
    assert transport.members == list(IDS)
    membership._departing = {i: (0.0, m) for i, (_, m) in membership._departing.items()}
    membership._tell_transport()
    assert transport.members == list(IDS[:2])


def test_a_newcomer_is_no_voter_before_it_has_the_configuration_that_says_so() -> None:
    """It hears who leads before: whoever waits for three voters must not count it yet."""
    raft = Raft("n1", MemoryLog(), Options(), random.Random(1))
    assert (raft.role, role_of(raft, "n1")) == (Role.FOLLOWER, "joining")
    raft.found(Configuration({"n1": Member("n1"), "n2": Member("n2")}, frozenset({"n1", "n2"})))
    assert (raft.role, role_of(raft, "n1")) == (Role.FOLLOWER, "follower")
