"""A disk that fills up, and a quota: what is refused, when, and that it ends by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import gevent

from anchor.fsm import encode_delete, encode_put
from anchor.node.errors import DiskFull, QuotaExceeded
from anchor.node.space import (
    HOLD_PAUSE_SECONDS,
    LIFTS_AT,
    MEASURE_SECONDS,
    TIDY_SECONDS,
    Space,
)

if TYPE_CHECKING:
    from anchor.storage import DataDirectory

MIB = 1 << 20
PUT, DELETE = encode_put(b"k", b"v"), encode_delete(b"k")


class Disk:
    """A disk, a ballast and a state whose sizes are whatever the test says."""

    def __init__(self) -> None:
        self.free = 100 * MIB
        self.used = self.table_bytes = 0
        self.after_compaction = 0
        self.ballast_left = self.ballast_bytes = 16 * MIB
        self.minimum_bytes = MIB
        self.now = 0.0
        self.holds = 0
        self.quota_exceeded = False

    def free_bytes(self) -> int:
        """What is free."""
        return self.free

    def hold(self) -> None:
        """Take the ballast on, unless the file system does not let it."""
        self.holds += 1
        if self.quota_exceeded:
            return
        self.free -= self.ballast_bytes - self.ballast_left
        self.ballast_left = self.ballast_bytes

    def compact(self) -> None:
        """What was deleted is gone; it takes a second."""
        self.used, self.now = self.after_compaction, self.now + 1

    def space(self, quota_bytes: int = 0) -> Space:
        """Watch it."""
        state = SimpleNamespace(
            live_bytes=lambda: self.used,
            table_bytes=lambda: self.table_bytes,
            compact=self.compact,
        )
        directory = SimpleNamespace(room=self, state=state, reserve_bytes=lambda: 32 * MIB)
        return Space(cast("DataDirectory", directory), quota_bytes, lambda: self.now)

    def look(self, space: Space) -> None:
        """Let time pass, and look."""
        self.now += MEASURE_SECONDS
        space.look()
        if space._holding is not None:
            with gevent.Timeout(10):
                space._holding.get()


def test_a_disk_is_full_before_it_is_and_has_room_only_with_some_to_spare() -> None:
    """Below the reserve nothing is written, not even a deletion: it takes a log entry."""
    disk = Disk()
    space = disk.space()
    disk.look(space)
    assert not space.refuses
    disk.free = 32 * MIB - 1
    disk.look(space)
    for command in (PUT, DELETE):
        refusal = space.refusal(command)
        assert isinstance(refusal, DiskFull)
        assert (refusal.status, refusal.code, refusal.retryable) == (507, "disk_full", True)
    disk.free = 33 * MIB  # it would be full again at once
    disk.look(space)
    assert space.is_full
    disk.free = 37 * MIB
    disk.look(space)
    assert not space.refuses
    assert space.refusal(PUT) is None


def test_the_ballast_keeps_a_full_disk_from_being_exhausted() -> None:
    """Somebody else took all there was: votes still fit into what it gives back."""
    disk = Disk()
    space = disk.space()
    disk.look(space)
    disk.free = 0
    disk.look(space)
    seen = [(space.is_full, space.is_exhausted)]
    disk.ballast_left = 0  # it went into writes, or somebody took that too
    disk.look(space)
    seen.append((space.is_full, space.is_exhausted))
    disk.free = 3 * MIB
    disk.look(space)
    seen.append((space.is_full, space.is_exhausted))
    assert seen == [(True, False), (True, True), (True, False)]


def test_the_ballast_is_taken_on_again_when_there_is_plenty() -> None:
    """Not before: it would fill the disk."""
    disk = Disk()
    disk.ballast_left = 0
    space = disk.space()
    disk.free = 41 * MIB
    disk.look(space)
    assert not space.is_full
    assert not disk.ballast_left
    disk.free = 80 * MIB
    disk.look(space)
    assert disk.ballast_left == disk.ballast_bytes


def test_the_hub_does_not_wait_for_the_ballast() -> None:
    """A look returns at once; one ballast is taken on at a time."""
    disk = Disk()
    disk.ballast_left = 0
    space = disk.space()
    for _ in range(3):
        space.look()
    assert not disk.ballast_left
    assert space._holding is not None
    with gevent.Timeout(10):
        space._holding.get()
    assert disk.holds == 1
    assert disk.ballast_left == disk.ballast_bytes


def test_a_ballast_that_is_not_to_be_had_is_tried_for_again_after_a_pause() -> None:
    """A user's quota on the file system, say: there seems to be room, and there is none."""
    disk = Disk()
    disk.ballast_left = 0
    disk.quota_exceeded = True
    space = disk.space()
    for _ in range(5):
        disk.look(space)
    assert disk.holds == 1
    disk.now += HOLD_PAUSE_SECONDS
    disk.look(space)
    assert disk.holds == 2


def test_over_quota_deletions_go_through_and_writes_do_not() -> None:
    """Before the disk is full, and with its own code."""
    disk = Disk()
    space = disk.space(10 * MIB)
    disk.used = 10 * MIB
    disk.look(space)
    refusal = space.refusal(PUT)
    assert isinstance(refusal, QuotaExceeded)
    assert (refusal.status, refusal.code, refusal.retryable) == (507, "quota_exceeded", False)
    assert space.refusal(DELETE) is None
    assert "delete something" in str(refusal)


def test_a_quota_of_zero_is_none() -> None:
    """However much there is."""
    disk = Disk()
    space = disk.space()
    disk.used = 1 << 50
    disk.look(space)
    assert not space.refuses


def test_the_quota_lifts_once_a_compaction_shows_what_deletions_freed() -> None:
    """It is made when something was applied since the last one, and not all the time."""
    disk = Disk()
    space = disk.space(10 * MIB)
    disk.used = disk.after_compaction = 11 * MIB
    disk.look(space)
    assert space.is_tidying_due(applied_index=5)
    space.tidy(5)
    assert not space.is_tidying_due(applied_index=5)
    assert not space.is_tidying_due(applied_index=6)
    disk.now += max(TIDY_SECONDS, 10)  # a second of compaction in ten at most
    assert not space.is_tidying_due(applied_index=5)
    assert space.is_tidying_due(applied_index=6)
    disk.after_compaction = int(10 * MIB * LIFTS_AT) - 1
    space.tidy(6)
    disk.look(space)
    assert not space.refuses
    assert not space.is_tidying_due(applied_index=7)


def test_just_below_the_quota_it_stays_imposed() -> None:
    """Else it would be lifted and imposed with each write."""
    disk = Disk()
    space = disk.space(10 * MIB)
    disk.used = 10 * MIB
    disk.look(space)
    disk.used = int(9.8 * MIB)
    disk.look(space)
    assert space.is_over_quota


def test_a_full_disk_is_not_compacted() -> None:
    """A compaction needs room first."""
    disk = Disk()
    space = disk.space(10 * MIB)
    disk.used, disk.free = 11 * MIB, 5 * MIB
    disk.look(space)
    assert not space.is_tidying_due(applied_index=5)


def test_a_state_that_does_not_fit_twice_is_not_compacted() -> None:
    """It would end the node for want of room, and be due again after its start, for ever."""
    disk = Disk()
    space = disk.space(10 * MIB)
    disk.used, disk.table_bytes = 11 * MIB, 68 * MIB
    disk.look(space)
    assert not space.is_full
    assert not space.is_tidying_due(applied_index=5)
    disk.free += MIB
    disk.look(space)
    assert space.is_tidying_due(applied_index=5)
    disk.after_compaction, disk.free = 0, 100 * MIB  # it was asked for, and had to wait
    space.tidy(5)
    assert disk.used == 11 * MIB


def test_the_status_says_what_is_free_used_and_allowed() -> None:
    """For the operator, and whoever watches for him."""
    disk = Disk()
    space = disk.space(10 * MIB)
    disk.used = 3 * MIB
    disk.look(space)
    assert space.status() == {
        "free_bytes": 100 * MIB,
        "reserve_bytes": 32 * MIB,
        "used_bytes": 3 * MIB,
        "quota_bytes": 10 * MIB,
        "full": False,
        "over_quota": False,
    }
