"""A whole target configuration at once; promotion; handing over; the wiped who come back."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import gevent
import pytest

from anchor.node import orders
from anchor.node.errors import MembershipError, NoLeader, RequestTimeout
from anchor.node.replacing import TargetMember, is_as_wished
from anchor.raft import Member, Role
from anchor.transport import Identification, JoinRequest, RemoveRequest, RemoveResponse
from tests.node.replicas import IDS, World
from tests.node.test_membership import NEW, join_request, membership_of, soon, while_the_world_turns

if TYPE_CHECKING:
    from anchor.node.membership import Membership
    from anchor.node.replica import Replica
    from anchor.raft import Configuration

WHOLE = [TargetMember(i, f"{i}:1") for i in IDS]
N4 = TargetMember("n4", "host:4")


def led(member_id: str = "n1") -> tuple[World, Replica, Membership]:
    """A world that this one leads."""
    world = World()
    leader = world.elect(member_id)
    return world, leader, membership_of(world, member_id)


def obey(world: World, membership: Membership, order: orders.Order, deadline: float = 0) -> None:
    """Give an order to the leader."""
    while_the_world_turns(world, lambda: membership._obey(order, deadline or soon()))


def test_members_are_replaced_as_one() -> None:
    """n2 without a vote and n3 gone: two voters less is more than a simple change may do."""
    world, leader, membership = led()
    seen: list[Configuration] = []
    whole = leader.raft.configuration
    targets = (WHOLE[0], replace(WHOLE[1], voter=False, http_address="h:1"))
    order = orders.Replace(targets, force=False)

    def note() -> None:
        while True:
            if not seen or seen[-1] != leader.raft.configuration:
                seen.append(leader.raft.configuration)
            gevent.sleep(0)

    world.slow_disks = {"n1"}
    noting = gevent.spawn(note)
    deciding = gevent.spawn(membership._obey, order, soon())
    gevent.sleep(0.05)
    world.slow_disks = set()
    while_the_world_turns(world, deciding.get)
    noting.kill()
    assert [(c.voters, c.voters_outgoing) for c in seen][:2] == [
        (whole.voters, frozenset()),
        (frozenset({"n1"}), whole.voters),
    ]
    done = leader.raft.committed_configuration
    assert done.voters == {"n1"}
    assert done.learners == {"n2"}
    assert done.members["n2"] == Member("n2", "n2:1", "h:1")
    obey(world, membership, order)  # once more: there is nothing to do
    assert leader.raft.committed_configuration is done


def test_who_is_new_is_a_learner_until_it_has_caught_up() -> None:
    """n4 never answers here, so the voters stay what they were, however long one waits."""
    world, leader, membership = led()
    order = orders.Replace((*WHOLE[:2], N4))
    with pytest.raises(RequestTimeout, match="n4"):
        obey(world, membership, order, time.monotonic() + 0.2)
    configuration = leader.raft.committed_configuration
    assert configuration.voters == set(IDS)
    assert configuration.learners == {"n4"}
    assert configuration.members["n4"] == Member("n4", "host:4", "host:14", 44)
    assert not configuration.members["n4"].promote


def test_another_change_has_to_wait_and_members_do_not() -> None:
    """Only who is being let in has to hear that it is: it takes part only then."""
    world, _, membership = led()
    order = orders.Replace((*WHOLE[:2], N4))
    replacing = gevent.spawn(membership._obey, order, time.monotonic() + 0.5)
    joining = JoinRequest("n4", "host:4", "", 44, forwarded=True)
    while_the_world_turns(world, lambda: gevent.sleep(0.1))
    for refused in (
        lambda: membership.on_remove(RemoveRequest("n2", forwarded=True), 1.0),
        lambda: membership.on_join(replace(joining, member_id="n5", address="x:4"), 1.0),
        lambda: membership.on_join(_passed_on(order), 1.0),
        lambda: membership.on_join(_passed_on(orders.Promote("n4")), 1.0),
    ):
        answer = while_the_world_turns(world, refused)
        assert answer.error_code == "change_in_progress"  # type: ignore[attr-defined]
    accepted = while_the_world_turns(world, lambda: membership.on_join(joining, 1.0))
    assert accepted.error_code == ""  # type: ignore[attr-defined]
    with pytest.raises(RequestTimeout):
        while_the_world_turns(world, replacing.get)


def _passed_on(order: orders.Order) -> JoinRequest:
    return JoinRequest("", "", "", forwarded=True, order=orders.encode(order))


@pytest.mark.parametrize(
    ("targets", "code"),
    [
        ((*WHOLE, TargetMember("n9", "nowhere:9")), "unreachable"),
        ((*WHOLE, TargetMember("n9", "host:4")), "wrong_node"),
        ((*WHOLE[:2], TargetMember("n3", "elsewhere:1")), "membership_conflict"),
        ((*WHOLE, TargetMember("n4", "n3:1")), "membership_conflict"),
    ],
)
def test_a_target_that_makes_no_sense_changes_nothing(
    targets: tuple[TargetMember, ...], code: str
) -> None:
    """Dialled before anything else happens."""
    world, leader, membership = led()
    index = leader.raft.last_log_index
    with pytest.raises(MembershipError) as refused:
        obey(world, membership, orders.Replace(targets))
    assert refused.value.code == code
    assert leader.raft.last_log_index == index


def test_a_change_that_would_lose_the_quorum_has_to_be_forced() -> None:
    """Of n1 and n3 alone n1 would be there, which is no majority."""
    world, leader, membership = led()
    world.cut = {"n3"}
    targets = (WHOLE[0], WHOLE[2])
    with pytest.raises(MembershipError) as refused:
        obey(world, membership, orders.Replace(targets))
    assert (refused.value.code, refused.value.status) == ("quorum_would_be_lost", 409)
    with pytest.raises(RequestTimeout):
        obey(world, membership, orders.Replace(targets, force=True), time.monotonic() + 0.1)
    assert leader.raft.configuration.voters == {"n1", "n3"}


def test_a_leader_without_a_place_hands_over_to_one_that_stays() -> None:
    """And whoever leads then is asked for the rest."""
    world, _, membership = led("n1")
    order = orders.Replace((WHOLE[1], WHOLE[2]))
    with pytest.raises(Exception, match="not the leader"):
        obey(world, membership, order)
    leader = world.leader()
    assert leader.raft.id in {"n2", "n3"}
    obey(world, membership_of(world, leader.raft.id), order)
    assert leader.raft.committed_configuration.voters == {"n2", "n3"}


def test_while_a_change_is_not_committed_no_other_begins() -> None:
    """409, to be tried again."""
    world, leader, membership = led()
    world.slow_disks = set(IDS)
    whole = leader.raft.configuration
    leader.raft.propose_configuration(
        replace(whole, voters=whole.voters - {"n3"}, learners=frozenset({"n3"}))
    )
    with pytest.raises(MembershipError) as refused:
        membership._obey(orders.Replace(tuple(WHOLE[:2])), soon())
    assert (refused.value.code, refused.value.retryable) == ("change_in_progress", True)


# --------------------------------------------------------------------- learners


def test_a_learner_stays_one_until_it_is_promoted() -> None:
    """The mark is in the configuration, so the next leader promotes it as well."""
    world, leader, membership = led()
    while_the_world_turns(
        world, lambda: membership._admitting.admit(replace(join_request(), voter=False), soon())
    )
    membership._promote()
    marks = [leader.raft.committed_configuration.members["n4"].promote]
    with pytest.raises(MembershipError, match="promote"):
        membership._admitting.await_part(join_request(), soon())
    obey(world, membership, orders.Promote("n4"))
    marks.append(leader.raft.committed_configuration.members["n4"].promote)
    assert marks == [False, True]
    obey(world, membership, orders.Promote("n2"))  # votes already
    with pytest.raises(MembershipError) as refused:
        obey(world, membership, orders.Promote("n9"))
    assert (refused.value.code, refused.value.status) == ("not_a_member", 404)


def test_a_voter_is_not_made_a_learner_by_joining_again() -> None:
    """That is for ``POST /members``."""
    world, _, membership = led()
    with pytest.raises(MembershipError, match="with a vote already"):
        membership._admitting.await_part(JoinRequest("n2", "n2:1", "", voter=False), soon())
    assert world.leader() is not None


# --------------------------------------------------------------------- handing over


def test_leadership_goes_where_it_is_wanted() -> None:
    """Done once the other leads; a second time there is nothing to do."""
    world, _, membership = led("n1")
    obey(world, membership, orders.Transfer("n3"))
    assert world.leader().raft.id == "n3"
    obey(world, membership_of(world, "n3"), orders.Transfer("n3"))
    obey(world, membership_of(world, "n3"), orders.Transfer())
    assert world.leader().raft.id != "n3"


@pytest.mark.parametrize(
    ("target", "cut", "code", "status"),
    [
        ("n9", set(), "not_a_voter", 422),
        ("n3", {"n3"}, "unreachable", 422),
        ("", {"n2", "n3"}, "unreachable", 422),
    ],
)
def test_who_cannot_lead_is_not_handed_over_to(
    target: str, cut: set[str], code: str, status: int
) -> None:
    """And the leader leads on."""
    world, leader, membership = led("n1")
    world.cut = cut
    with pytest.raises(MembershipError) as refused:
        obey(world, membership, orders.Transfer(target))
    assert (refused.value.code, refused.value.status) == (code, status)
    assert leader.raft.transferring_to is None


def test_a_handover_that_fails_is_said_to_have_failed() -> None:
    """The core gives up after an election timeout; meanwhile no other begins."""
    world, leader, membership = led("n1")
    leader.raft.transfer_leadership("n2")
    world.wire.clear()  # it never gets there
    with pytest.raises(MembershipError) as refused:
        membership._obey(orders.Transfer("n3"), soon())
    assert (refused.value.code, refused.value.retryable) == ("transfer_in_progress", True)
    waiting = gevent.spawn(membership._obey, orders.Transfer("n2"), soon())
    gevent.sleep(0.02)
    for _ in range(60):
        leader.tick(1)
    with pytest.raises(MembershipError) as refused:
        waiting.get(timeout=5)
    assert (refused.value.code, refused.value.status) == ("transfer_failed", 503)


def without_room(world: World, *member_ids: str) -> None:
    """These disks are full, and the leader has heard of it."""
    for member_id in member_ids:
        world.replicas[member_id].raft.set_room(False)
    world.tick(10)


def test_nobody_without_room_is_handed_over_to() -> None:
    """It would not campaign: the others would wait for it."""
    world, leader, membership = led("n1")
    without_room(world, "n3")
    with pytest.raises(MembershipError, match="the disk of n3 is full") as refused:
        obey(world, membership, orders.Transfer("n3"))
    assert refused.value.code == "transfer_failed"
    obey(world, membership, orders.Transfer())
    assert world.leader().raft.id == "n2"
    assert leader.raft.role is not Role.LEADER


def test_the_last_voter_with_room_is_not_removed() -> None:
    """Those that would be left could not elect a leader."""
    world, leader, membership = led("n1")
    without_room(world, "n2", "n3")
    before = leader.raft.configuration
    request = RemoveRequest("n1", forwarded=True)
    answer = while_the_world_turns(world, lambda: membership.on_remove(request, 1.0))
    assert isinstance(answer, RemoveResponse)
    assert answer.error_code == "quorum_would_be_lost"
    assert leader.raft.configuration == before


def test_a_full_leader_leads_on_while_the_one_with_room_lacks_entries() -> None:
    """That one could not be elected, and the full ones do not campaign."""
    world, leader, membership = led("n1")
    world.cut = {"n3"}
    leader.raft.propose([b""] * 3)
    world.run()
    without_room(world, "n1", "n2")
    world.cut = set()  # it is there again, and has heard nothing yet
    membership.leading.hand_over_for_good(0.01)
    assert leader.raft.role is Role.LEADER
    world.tick(30)
    membership.leading.hand_over_for_good(0.01)
    assert leader.raft.role is not Role.LEADER


def test_a_target_that_goes_meanwhile_is_said_to_have_gone() -> None:
    """Two operators at once: one of them is told."""
    world, leader, membership = led("n1")
    targets = tuple(TargetMember(i, f"{i}:1", "", voter=True) for i in IDS)
    change = membership._changes.change

    def remove_first(*arguments: object) -> None:
        configuration = leader.raft.configuration
        gone = {i: m for i, m in configuration.members.items() if i != "n3"}
        leader.raft.propose_configuration(
            replace(configuration, members=gone, voters=frozenset(gone))
        )
        world.run()
        change(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(membership._replacing, "_let_in", lambda *_: None)
        patch.setattr(membership._changes, "change", remove_first)
        wished = (*targets[:2], replace(targets[2], voter=False))
        with pytest.raises(MembershipError) as refused:
            obey(world, membership, orders.Replace(wished, force=True))
    assert refused.value.code == "change_in_progress"


# --------------------------------------------------------------------- the wiped


class Directories:
    """Which data directory answers at an address."""

    def __init__(self, membership: Membership, **found: Identification) -> None:
        self._found = {each.address: each for each in found.values()}
        transport = membership._transport
        self._ask = transport.identify
        transport.identify = self.identify  # type: ignore[method-assign]

    def identify(self, address: str, timeout_seconds: float) -> Identification:
        """The new ones first."""
        return self._found.get(address) or self._ask(address, timeout_seconds)


def with_incarnations(world: World, membership: Membership) -> None:
    """Let n4 in, as a voter at heart, with its incarnation 44."""
    while_the_world_turns(world, lambda: membership._admitting.admit(join_request(), soon()))


@pytest.mark.parametrize("address", ["host:4", "other:4"])
def test_a_wiped_node_is_refused_under_its_old_id(address: str) -> None:
    """It could vote twice. The text says what to do."""
    world, leader, membership = led()
    with_incarnations(world, membership)
    answer = membership.on_join(JoinRequest("n4", address, "", 45, forwarded=True), 5)
    assert answer.error_code == "incarnation_conflict"
    assert "--replace" in answer.error_detail
    assert leader.raft.configuration.members["n4"].incarnation == 44


def test_a_wiped_node_may_take_its_own_place_if_it_says_so() -> None:
    """One change: the old incarnation is out, the new one a learner that shall vote."""
    world, leader, membership = led()
    with_incarnations(world, membership)
    Directories(membership, n4=replace(NEW, incarnation=45))
    request = JoinRequest("n4", "host:4", "", 45, forwarded=True, replace=True)
    answer = while_the_world_turns(world, lambda: membership.on_join(request, 5))
    assert answer.error_code == ""  # type: ignore[attr-defined]
    done = leader.raft.committed_configuration
    assert done.members["n4"] == Member("n4", "host:4", "host:14", 45, promote=True)
    assert done.learners == {"n4"}


def test_nobody_takes_the_place_of_a_member_that_still_runs() -> None:
    """Elsewhere, with its own data: two of one name were started."""
    world, _, membership = led()
    with_incarnations(world, membership)
    Directories(membership, new=replace(NEW, incarnation=45, address="other:4"))
    request = JoinRequest("n4", "other:4", "", 45, forwarded=True, replace=True)
    answer = while_the_world_turns(world, lambda: membership.on_join(request, 5))
    assert answer.error_code == "incarnation_conflict"  # type: ignore[attr-defined]
    assert "still runs" in answer.error_detail  # type: ignore[attr-defined]


def test_an_operator_is_told_that_the_member_was_wiped() -> None:
    """Joining it again by hand does not help; a member that is merely down stays one."""
    world, _, membership = led()
    with_incarnations(world, membership)
    world.cut = {"n4"}
    while_the_world_turns(world, lambda: membership._admitting.admit(join_request(), soon()))
    Directories(membership, n4=replace(NEW, incarnation=45))
    with pytest.raises(MembershipError, match="data directory"):
        membership._admitting.admit(join_request(), soon())


# --------------------------------------------------------------------- orders on the wire


@pytest.mark.parametrize(
    "order",
    [
        orders.Promote("n1"),
        orders.Transfer(),
        orders.Replace((TargetMember("n1", "a:1", "h:1", voter=False),), force=True),
    ],
)
def test_orders_travel_whole(order: orders.Order) -> None:
    """What the leader reads is what was asked."""
    assert orders.decode(orders.encode(order)) == order


@pytest.mark.parametrize(
    "wire",
    [
        b"", b"[]", b"{}", b'{"order": "Dance"}', b'{"order": "Promote", "member_id": 3}',
        b'{"order": "Replace", "force": true, "targets": [{"id": "n1"}]}',
        b'{"order": "Replace", "force": true, "targets": 3}',
    ],
)  # fmt: skip
def test_what_is_no_order_is_refused(wire: bytes) -> None:
    """Nothing is guessed; an empty one is a join."""
    with pytest.raises(ValueError, match=r"\S"):
        orders.decode(wire)
    if wire:
        _, _, membership = led()
        refused = membership.on_join(JoinRequest("", "", "", forwarded=True, order=wire), 1.0)
        assert refused.error_code == "bad_request"


def test_an_order_goes_one_hop() -> None:
    """Who does not lead sends it back."""
    world, _, _ = led("n1")
    with pytest.raises(NoLeader, match="n2 does not lead; n1 may"):
        membership_of(world, "n2")._order(orders.Transfer(), soon(), forwarded=True)


def test_a_target_is_the_configuration_or_it_is_not() -> None:
    """Members, addresses and parts."""
    configuration = World().replicas["n1"].raft.configuration
    assert is_as_wished(configuration, WHOLE)
    assert not is_as_wished(configuration, WHOLE[:2])
    assert not is_as_wished(configuration, [*WHOLE[:2], replace(WHOLE[2], address="x:1")])
    assert not is_as_wished(configuration, [*WHOLE[:2], replace(WHOLE[2], voter=False)])
    assert not is_as_wished(configuration, [*WHOLE[:2], replace(WHOLE[2], http_address="h:1")])
