"""A cluster speaks what all its members speak, once the log says that they do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from anchor.node.errors import MembershipError
from anchor.node.versions import ASK_SECONDS, Protocols, check_joiner, why_too_old
from anchor.raft import Configuration, Member
from anchor.settings import NEWEST_PROTOCOL
from anchor.transport import Identification, Unreachable
from tests.node.replicas import World, put

if TYPE_CHECKING:
    from anchor.transport import Transport


class Announced:
    """What each address says it speaks; None does not answer."""

    def __init__(self) -> None:
        self.newest: dict[str, int | None] = {}
        self.asked = 0

    def identify(self, address: str, timeout_seconds: float) -> Identification:
        """Say it."""
        assert timeout_seconds > 0
        self.asked += 1
        newest = self.newest.get(address, NEWEST_PROTOCOL)
        if newest is None:
            raise Unreachable(address)
        return Identification(address.partition(":")[0], 1, "c", address, "", "", 1, newest)


class Room:
    """A world in which n1 leads, members have addresses, and the clock is a number."""

    def __init__(self) -> None:
        self.world = World(protocol_version=1)
        self.leader = self.world.elect("n1")
        self._give_addresses()
        self.announced = Announced()
        self.now = 0.0
        transport = cast("Transport", self.announced)
        self.protocols = Protocols(self.leader.raft, transport, lambda: self.now)

    def _give_addresses(self) -> None:
        raft = self.leader.raft
        members = {i: Member(i, f"{i}:1") for i in raft.configuration.members}
        raft.propose_configuration(replace(raft.configuration, members=members))
        self.world.run()
        self.world.tick(10)

    def agree(self) -> bool:
        """Ask again, later."""
        self.now += ASK_SECONDS
        proposed = self.protocols.agree()
        self.world.run()
        self.world.tick(10)
        return proposed


def test_the_cluster_speaks_what_all_members_announce() -> None:
    """On every member, from the commitment on; then nobody is asked any more."""
    room = Room()
    assert not room.leader.raft.cluster_speaks(2)
    assert room.agree()
    assert all(replica.raft.cluster_speaks(2) for replica in room.world.replicas.values())
    asked = room.announced.asked
    assert not room.agree()
    assert room.announced.asked == asked


@pytest.mark.parametrize("newest", [1, None])
def test_one_old_or_silent_member_holds_the_cluster_back(newest: int | None) -> None:
    """Until it is brought up to date, or answers."""
    room = Room()
    room.announced.newest["n3:1"] = newest
    assert not room.agree()
    assert not room.leader.raft.cluster_speaks(2)
    del room.announced.newest["n3:1"]
    assert room.agree()
    assert room.leader.raft.cluster_speaks(2)


def test_members_are_not_asked_all_the_time() -> None:
    """The leader has other things to do."""
    room = Room()
    room.announced.newest["n3:1"] = 1
    room.agree()
    asked = room.announced.asked
    assert not room.protocols.agree()
    assert room.announced.asked == asked


def test_the_gate_of_protocol_2_opens_with_it() -> None:
    """A member without room says so only where the leader understands; else it is silent."""
    room = Room()
    full = room.world.replicas["n3"].raft
    room.announced.newest["n3:1"] = 1
    room.agree()
    full.set_room(False)
    put(room.leader, b"a")
    room.world.run()
    assert room.leader.raft.progress["n3"].has_room  # as far as the leader knows
    full.set_room(True)
    room.world.tick(10)
    del room.announced.newest["n3:1"]
    assert room.agree()
    full.set_room(False)
    put(room.leader, b"b")
    room.world.run()
    assert not room.leader.raft.progress["n3"].has_room


def test_who_is_too_old_for_the_cluster_is_not_let_in() -> None:
    """It could not read what the others write."""
    found = Identification("n4", 4, "", "host:4", "", "", 1, 1)
    check_joiner(found, Configuration())
    with pytest.raises(MembershipError, match="n4 speaks protocol 1 and the cluster protocol 2"):
        check_joiner(found, Configuration(protocol_version=2))


def test_who_finds_itself_too_old_says_what_it_needs() -> None:
    """One line, for the operator."""
    assert why_too_old(Configuration(protocol_version=NEWEST_PROTOCOL)) is None
    why = why_too_old(Configuration(protocol_version=NEWEST_PROTOCOL + 1))
    assert why is not None
    assert f"speaks protocol {NEWEST_PROTOCOL + 1}" in why
    assert "\n" not in why
