"""Who differs from the majority stops, and nobody else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from anchor.node.digests import Digests, majority_digest
from anchor.transport import CompareDigest, TransportError

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


class Machine:
    """A state machine with one digest for all it has applied."""

    def __init__(self, digest: bytes) -> None:
        self.applied_index = 5
        self.digest = digest

    def digest_at(self, index: int) -> bytes | None:
        """Give the digest."""
        return self.digest if index <= self.applied_index else None


class Network:
    """Calls the others directly; can be cut."""

    def __init__(self) -> None:
        self.members: dict[str, Digests] = {}
        self.cut: set[str] = set()

    def connected(self, member_id: str) -> bool:
        """Whether it would answer."""
        return member_id not in self.cut

    def compare_digest(
        self, member_id: str, index: int, majority: bytes, timeout_seconds: float
    ) -> bytes | None:
        """Ask it."""
        if timeout_seconds <= 0:
            raise TransportError("no time")
        leader_id = next(iter(self.members))
        return self.members[member_id].asked(CompareDigest(leader_id, index, majority))


def dead_after_comparing(digests: dict[str, bytes], cut: set[str] | None = None) -> set[str]:
    """Let the first member compare, twice; give those who stopped."""
    network = Network()
    network.cut = cut or set()
    dead: set[str] = set()
    leader_id = next(iter(digests))

    def killer(member_id: str) -> object:
        return lambda _why: dead.add(member_id)

    for member_id, digest in digests.items():
        network.members[member_id] = Digests(
            SimpleNamespace(id=member_id, leader_id=leader_id),  # type: ignore[arg-type]  # the same
            Machine(digest),  # type: ignore[arg-type]  # all that is used of one
            network,  # type: ignore[arg-type]  # the same
            killer(member_id),  # type: ignore[arg-type]  # a lambda's return value is dropped
        )
    for _ in range(2):
        network.members[leader_id].compare(frozenset(digests))
    return dead


@pytest.mark.parametrize(
    ("digests", "dead"),
    [
        ({"n1": A, "n2": A, "n3": A}, set()),
        ({"n1": A, "n2": A, "n3": B}, {"n3"}),
        ({"n1": B, "n2": A, "n3": A}, {"n1"}),
        ({"n1": A, "n2": B, "n3": C}, {"n1", "n2", "n3"}),
        ({"n1": A, "n2": B}, {"n1", "n2"}),
        ({"n1": A}, set()),
    ],
    ids=["all agree", "one follower", "the leader", "no majority", "one against one", "alone"],
)
def test_who_differs_from_the_majority_stops(digests: dict[str, bytes], dead: set[str]) -> None:
    """And where no majority agrees, nobody can be vouched for."""
    assert dead_after_comparing(digests) == dead


def test_who_cannot_be_asked_is_not_judged() -> None:
    """Two of three that agree are a majority; the third is asked another time."""
    assert dead_after_comparing({"n1": A, "n2": A, "n3": B}, cut={"n3"}) == set()


def test_while_somebody_is_missing_a_tie_is_not_decided() -> None:
    """The one who is missing will tell who is right."""
    assert dead_after_comparing({"n1": A, "n2": B, "n3": A}, cut={"n3"}) == set()


def test_a_verdict_of_anybody_but_the_leader_is_ignored() -> None:
    """Nobody else has a majority to speak for."""
    dead: list[str] = []
    digests = Digests(
        SimpleNamespace(id="n1", leader_id="n2"),  # type: ignore[arg-type]  # all that is used
        Machine(A),  # type: ignore[arg-type]  # the same
        Network(),  # type: ignore[arg-type]  # the same
        dead.append,
    )
    assert digests.asked(CompareDigest("n3", 5, B)) == A
    assert dead == []
    digests.asked(CompareDigest("n2", 5, B))
    assert len(dead) == 1


def test_two_of_three_that_disagree_are_no_majority() -> None:
    """A majority is counted among all voters, not among those who answer."""
    assert majority_digest({"n1": A, "n2": B}, voters=3) is None
    assert majority_digest({"n1": A, "n2": A}, voters=3) == A
    assert majority_digest({"n1": A, "n2": A}, voters=4) is None
