"""When a snapshot is due."""

from __future__ import annotations

from itertools import pairwise

import pytest

from anchor.node.compaction import Thresholds, place_among
from anchor.raft import Configuration, Member

THRESHOLDS = Thresholds(1000, 1 << 20)


def members(count: int) -> Configuration:
    """Make a configuration of so many voters."""
    ids = [f"n{number}" for number in range(count)]
    return Configuration(members={i: Member(i) for i in ids}, voters=frozenset(ids))


def turns(place: float, last_index: int, step: int) -> list[int]:
    """Where a member takes its snapshots, if the log grows by ``step`` at a time."""
    taken = [0]
    for applied_index in range(0, last_index, step):
        if THRESHOLDS.are_passed(place, taken[-1], applied_index, 0):
            taken.append(applied_index)
    return taken[1:]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_members_take_turns(count: int) -> None:
    """Nobody is due within half a turn of anybody else; each is, once in so many entries."""
    configuration = members(count)
    all_turns = []
    for member_id in configuration.members:
        own = turns(place_among(member_id, configuration), 10_000, 10)
        assert [later - earlier for earlier, later in pairwise(own)] == [1000] * (len(own) - 1)
        assert own[0] <= 1000
        all_turns += own
    all_turns.sort()
    gaps = [later - earlier for earlier, later in pairwise(all_turns)]
    assert min(gaps) >= 1000 // count - 20


def test_a_member_that_is_late_takes_one_snapshot_and_not_several() -> None:
    """However many turns it has missed."""
    assert THRESHOLDS.are_passed(0.5, 0, 90_000, 0)
    assert not THRESHOLDS.are_passed(0.5, 90_000, 90_001, 0)


def test_a_large_log_is_due_before_its_turn() -> None:
    """By bytes; members differ there too. Without a new entry there is nothing to do."""
    assert THRESHOLDS.are_passed(0.0, 100, 101, 1 << 20)
    assert not THRESHOLDS.are_passed(0.0, 100, 101, (1 << 20) - 1)
    assert THRESHOLDS.are_passed(0.5, 100, 101, (1 << 20) * 7 // 8)
    assert not THRESHOLDS.are_passed(0.0, 101, 101, 1 << 30)


def test_who_is_no_member_has_a_place_all_the_same() -> None:
    """A node that was removed, or is not in yet."""
    assert place_among("other", members(3)) == 0.0
