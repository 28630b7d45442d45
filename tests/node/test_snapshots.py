"""A node's own snapshots on a real disk: taken when due, held, and the log cut behind them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

import gevent
import pytest

from anchor.node import snapshots as snapshots_module
from anchor.node.compaction import Thresholds
from anchor.node.errors import Stopping
from anchor.node.snapshots import Snapshots
from anchor.storage import DiskFullError, StorageError
from tests.storage.building import configuration, opened
from tests.storage.test_snapshots import carried as copied
from tests.storage.test_snapshots import grow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anchor.fsm import StateMachine
    from anchor.raft import Raft
    from anchor.storage import DataDirectory


class FakeRaft:
    """As much of a core as a snapshot needs."""

    id = "node1"
    configuration = configuration()
    last_applied = 0
    is_removed = False


class Member:
    """A data directory, its snapshots, and a core that says what is applied."""

    def __init__(self, directory: DataDirectory) -> None:
        self.directory = directory
        self.raft = FakeRaft()
        self.deaths: list[StorageError] = []
        self.snapshots = Snapshots(
            directory, cast("Raft", self.raft), Thresholds(40, 1 << 20), die=self.deaths.append
        )

    def grow(self, last_index: int) -> StateMachine:
        """Append and apply up to there."""
        machine = grow(self.directory, last_index)
        self.raft.last_applied = machine.applied_index
        return machine

    @property
    def taken(self) -> list[int]:
        """What snapshots there are, the newest first; by name, for one may be going just now."""
        names = [found.name for found in self.directory.snapshots.path.glob("0*-0*")]
        return sorted((int(name.split("-")[1]) for name in names), reverse=True)

    @property
    def first_index(self) -> int:
        """Where the log starts."""
        return self.directory.log.first_index()

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Let the compactor run until something holds."""
        runner = gevent.spawn(self.snapshots.run)
        try:
            with gevent.Timeout(60):
                while not condition():
                    gevent.sleep(0.001)
        finally:
            runner.kill()
        runner.get()


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Member]:
    """Give a member that is due every 40 entries and never rests."""
    monkeypatch.setattr(snapshots_module, "CHECK_SECONDS", 0.001)
    monkeypatch.setattr(snapshots_module, "REST_SECONDS_MAX", 0.0)
    monkeypatch.setattr(snapshots_module, "DISK_FULL_SECONDS", 0.0)
    with opened(tmp_path / "d") as directory:
        member = Member(directory)
        yield member
        assert member.snapshots.stop(10)
        assert member.deaths == []


def test_the_log_stays_short_without_anybody_asking(member: Member) -> None:
    """A quarter of what lies between two snapshots stays for those who are slow."""
    for last_index in range(10, 400, 10):
        member.grow(last_index)
        member.run_until(lambda: not member.snapshots._is_due())
    member.run_until(lambda: member.first_index == 351)
    assert member.taken == [360, 320]
    assert member.directory.log.last_index() == 390


def test_a_snapshot_is_taken_when_the_log_is_large_in_bytes(member: Member) -> None:
    """Few entries are many bytes."""
    member.grow(10)
    member.directory.log.sizes.appended(11, 11, 1 << 20)
    member.run_until(lambda: member.taken == [10])


def test_a_removed_member_keeps_the_log_that_says_so(member: Member) -> None:
    """A snapshot without it would make it forget, at the next start, that it was a member."""
    member.raft.is_removed = True
    member.grow(60)
    assert not member.snapshots._is_due()
    member.raft.is_removed = False
    assert member.snapshots._is_due()


def test_the_log_is_kept_for_whoever_needs_it(member: Member) -> None:
    """However long that takes; then it goes, although no snapshot is due."""
    member.grow(50)
    member.run_until(lambda: member.first_index == 41)
    member.snapshots.keep_log("slow", 45)
    for last_index in (100, 150, 200):
        member.grow(last_index)
        member.run_until(lambda: member.taken[0] == member.raft.last_applied)
        member.snapshots.take().release()  # that one is recorded by now
        member.snapshots._drop_prefix(at_least=1)
        assert member.first_index == 46
    member.snapshots.keep_log("slow", 60)
    member.run_until(lambda: member.first_index == 61)
    member.snapshots.keep_log_no_more("slow")
    member.run_until(lambda: member.first_index == 191)


def test_a_snapshot_taken_is_held_until_released(member: Member) -> None:
    """For a backup: the newest state, which stays on the disk while it is read."""
    member.grow(5)
    held = member.snapshots.take()
    assert held.snapshot.metadata.last_included_index == 5
    assert member.snapshots.status()["snapshot_index"] == 5
    with member.snapshots.take() as again:  # nothing has changed: no new one
        assert again.snapshot == held.snapshot
    for last_index in (6, 7, 8):
        member.grow(last_index)
        member.snapshots.take().release()
    assert member.taken == [8, 7, 5]
    held.snapshot.verify()
    held.release()
    held.release()
    member.grow(9)
    member.snapshots.take().release()
    assert member.taken == [9, 8]


def test_a_snapshot_is_found_by_what_it_ends_with(member: Member) -> None:
    """And one whose manifest is damaged is dropped, and said so."""
    member.grow(5)
    with member.snapshots.take() as held:
        metadata = held.snapshot.metadata
    found = member.snapshots.find(metadata)
    assert found is not None
    found.release()
    (found.snapshot.path / "manifest.json").write_bytes(b"{}")
    assert member.snapshots.find(metadata) is None
    assert member.taken == []
    assert member.snapshots.find(metadata) is None


def test_a_full_disk_is_said_once_and_waited_for(
    member: Member, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The node goes on; when there is space again, so does compaction."""
    caplog.set_level(logging.WARNING)
    attempts = 0

    def full() -> None:
        nonlocal attempts
        attempts += 1
        raise DiskFullError("d: no space left on the disk")

    member.grow(50)
    with monkeypatch.context() as patch:
        patch.setattr(member.directory, "create_snapshot", full)
        member.run_until(lambda: attempts >= 3)
        assert member.first_index == 1
    assert [record.getMessage() for record in caplog.records] == [
        "cannot take a snapshot, so the log grows: d: no space left on the disk"
    ]
    member.run_until(lambda: member.taken == [50])


def test_no_snapshot_is_begun_on_a_disk_that_is_almost_full(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last space is for what is under way."""
    member.grow(5)
    monkeypatch.setattr(member.directory, "free_bytes", lambda: 1 << 20)
    with pytest.raises(DiskFullError, match="almost no space"):
        member.snapshots.take()


def test_a_small_disk_has_a_small_reserve_for_snapshots_too(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where writes go on, the log has to be cut as well."""
    member.grow(5)
    member.directory.room._scale = 1 / 4
    monkeypatch.setattr(member.directory, "free_bytes", lambda: 9 << 20)
    assert member.directory.room.reserve_bytes() == 8 << 20
    member.snapshots.take().release()
    assert member.taken == [5]


def test_members_that_are_sent_snapshots_keep_two(member: Member, tmp_path: Path) -> None:
    """However often they fall behind, and although they take none themselves."""
    member.grow(5)
    with opened(tmp_path / "other") as other:
        for number in range(1, 5):
            grow(other, 30 * number)
            carried = copied(other.create_snapshot(), member.directory)
            replaced = member.directory.state.path
            member.directory.switch(member.directory.prepare(carried))
            member.directory.log.sync()
            member.snapshots.switched(number)
            member.snapshots.synced(number)
            with gevent.Timeout(60):
                while replaced.exists() or len(member.taken) > 2:
                    gevent.sleep(0.001)
    assert member.taken == [120, 90]


def test_a_disk_that_is_full_after_an_installation_is_said_to_be(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in words alone: what the node does about it is to wait for room and start over."""

    def full() -> None:
        raise DiskFullError("d: no space left on the disk")

    with monkeypatch.context() as patch:
        patch.setattr(member.directory.log, "reclaim", full)
        member.snapshots.switched(1)
        member.snapshots.synced(1)
        with gevent.Timeout(60):
            while not member.deaths:
                gevent.sleep(0.001)
    (death,) = member.deaths
    assert isinstance(death, DiskFullError)
    member.deaths.clear()


def test_a_replaced_state_goes_when_its_replacement_is_durable(
    member: Member, tmp_path: Path
) -> None:
    """Not before: a power cut would leave neither. The scrub goes on with the new one."""
    with opened(tmp_path / "other") as other:
        grow(other, 30)
        snapshot = other.create_snapshot()
    member.grow(5)
    replaced = member.directory.state.path
    carried = copied(snapshot, member.directory)
    member.directory.switch(member.directory.prepare(carried))
    member.snapshots.switched(7)
    member.snapshots.synced(6)
    assert member.snapshots._switched_by == 7  # nothing has begun
    for _ in range(3):
        member.snapshots.scrub()
    assert replaced.exists()
    member.directory.log.sync()
    member.snapshots.synced(8)
    with gevent.Timeout(60):
        while replaced.exists():
            gevent.sleep(0.001)
    for _ in range(3):
        member.snapshots.scrub()
    assert member.snapshots.status()["snapshot_index"] == 30
    assert member.first_index == 31


def test_nothing_begins_after_the_end(tmp_path: Path) -> None:
    """The directory is about to be closed."""
    with opened(tmp_path / "d") as directory:
        member = Member(directory)
        member.grow(5)
        assert member.snapshots.stop(1)
        for call in (member.snapshots.take, member.snapshots.scrub):
            with pytest.raises(Stopping):
                call()


def test_the_hub_goes_on_while_a_snapshot_is_made(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making one takes as long as it takes, in a native thread."""
    member.grow(5)
    create = member.directory.create_snapshot
    begun = gevent.get_hub().loop.async_()
    go_on: list[bool] = []
    beats = 0

    def slow() -> object:
        begun.send()
        while not go_on:
            pass  # in its own thread: it takes the GIL, and gives it back
        return create()

    monkeypatch.setattr(member.directory, "create_snapshot", slow)
    taking = gevent.spawn(member.snapshots.take)
    gevent.get_hub().wait(begun)
    for _ in range(5):
        gevent.sleep(0.001)
        beats += 1
    assert not taking.ready()
    go_on.append(True)
    taking.get(timeout=20).release()
    begun.close()
    assert beats == 5
