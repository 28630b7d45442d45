"""Snapshots from one node's disk to another's: both sides are real but for the wire and the core.

Each failure, on either side, ends in the old state or in the new one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import gevent
import pytest

from anchor.fsm import StateMachine
from anchor.node import snapshot_sending
from anchor.node.compaction import Thresholds
from anchor.node.snapshot_receiving import SnapshotReceptions
from anchor.node.snapshot_sending import (
    COURTESY,
    COURTESY_SECONDS_MAX,
    Pace,
    SnapshotSender,
)
from anchor.node.snapshots import Snapshots
from anchor.raft import HardState, InstallSnapshot, Role
from anchor.storage import DataDirectory, DiskFullError, Reception, RocksState, StorageError
from anchor.transport import (
    SnapshotManifest,
    SnapshotPosition,
    SnapshotRefused,
    SnapshotSource,
    Unreachable,
)
from tests.storage.building import configuration, opened
from tests.storage.test_snapshots import Camera, grow, join

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anchor.node.snapshot_sending import Owner
    from anchor.raft import Raft
    from anchor.transport import Transport

CHUNK_BYTES = 4000


@dataclass
class FakeProgress:
    """How far the member is."""

    match_index: int = 0


@dataclass
class FakeRaft:
    """The core of a leader."""

    id: str = "node1"
    role: Role = Role.LEADER
    term: int = 1
    last_applied: int = 0
    last_log_index: int = 0
    configuration: object = field(default_factory=configuration)
    progress: dict[str, FakeProgress] = field(default_factory=dict)
    reports: list[tuple[str, bool]] = field(default_factory=list)

    def snapshot_sent(self, member_id: str, success: bool) -> None:  # noqa: FBT001 - as the core's
        """Remember what was reported."""
        self.reports.append((member_id, success))


class Wire:
    """Carries files as the transport does; ``on_chunk`` may break it or change what it carries."""

    def __init__(self) -> None:
        self.receivers: dict[str, SnapshotReceptions] = {}
        self.on_chunk: Callable[[int, bytes], bytes] = lambda _number, content: content
        self.on_message: Callable[[InstallSnapshot], None] = lambda _message: None
        self.away: set[str] = set()
        self.chunks = 0
        self.sending = self.most_sending = 0

    def connected(self, member_id: str) -> bool:
        """Whether it is there."""
        return member_id not in self.away

    def send_snapshot(self, message: InstallSnapshot, source: SnapshotSource) -> None:
        """Send what is missing, then the message."""
        self.sending += 1
        self.most_sending = max(self.most_sending, self.sending)
        try:
            manifest = source.manifest
            sink = self.receivers[message.recipient].receive(message, manifest)
            position = manifest.settled(sink.position)
            while not manifest.is_complete(position):
                left = manifest.files[position.file].size_bytes - position.offset
                content = source.read(position, min(left, CHUNK_BYTES))
                self.chunks += 1
                sink.write(position, self.on_chunk(self.chunks, content))
                position = manifest.settled(
                    SnapshotPosition(position.file, position.offset + len(content))
                )
            sink.finish()
            self.on_message(message)
        finally:
            self.sending -= 1


class Leader:
    """A node that leads, with a snapshot of entry 30 and a log from 21 to 40."""

    def __init__(self, directory: DataDirectory) -> None:
        self.directory = directory
        self.raft = FakeRaft()
        self.wire = Wire()
        self.deaths: list[str] = []
        self.wakes = 0
        self.snapshots = Snapshots(
            directory,
            cast("Raft", self.raft),
            Thresholds(400, 1 << 30),
            die=lambda error: self.die(str(error)),
        )
        self.sender = SnapshotSender(
            cast("Transport", self.wire), self.snapshots, cast("Owner", self), 0
        )
        grow(directory, 30)
        self.applied(30)
        self.snapshots.take().release()
        grow(directory, 40)
        self.applied(40)

    def applied(self, index: int) -> None:
        """Tell the core how far this node is."""
        self.raft.last_applied = self.raft.last_log_index = index

    def wake(self) -> None:
        """The core was told something."""
        self.wakes += 1

    def is_busy(self) -> bool:
        """Nobody waits for anything."""
        return False

    def die(self, why: str) -> None:
        """Remember why."""
        self.deaths.append(why)

    def message(self, recipient: str = "node2") -> InstallSnapshot:
        """What the core would send now."""
        self.raft.progress.setdefault(recipient, FakeProgress())
        newest = self.snapshots.newest
        assert newest is not None
        return InstallSnapshot(self.raft.term, "node1", recipient, newest, 1)

    def send(self, recipient: str = "node2", reports: int = 1) -> list[tuple[str, bool]]:
        """Send, as the core asks for it, until so much was reported; give the reports."""
        self.sender.send(self.message(recipient))
        return self.await_reports(reports)

    def await_reports(self, count: int) -> list[tuple[str, bool]]:
        """Wait until the core was told so often."""
        with gevent.Timeout(60):
            while len(self.raft.reports) < count:
                gevent.sleep(0.001)
        return self.raft.reports

    def settle(self) -> None:
        """Wait until no transfer goes on."""
        with gevent.Timeout(60):
            while self.sender._serving:
                gevent.sleep(0.001)


@pytest.fixture
def leader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Leader]:
    """Give a leader that does not pause long."""
    for name in ("POLL_SECONDS", "FIRST_PAUSE_SECONDS", "LAST_PAUSE_SECONDS"):
        monkeypatch.setattr(snapshot_sending, name, 0.001)
    monkeypatch.setattr(snapshot_sending, "PATIENCE_SECONDS", 0.05)
    with opened(tmp_path / "leader") as directory:
        leader = Leader(directory)
        yield leader
        leader.sender.stop()
        assert leader.snapshots.stop(10)


@pytest.fixture
def follower(tmp_path: Path, leader: Leader) -> Iterator[Follower]:
    """Give an empty node that the leader reaches."""
    with opened(tmp_path / "follower") as directory:
        join(directory)
        yield Follower(directory, leader.wire, "node2")


class Follower:
    """A node that receives."""

    def __init__(self, directory: DataDirectory, wire: Wire, member_id: str) -> None:
        self.directory = directory
        self.receptions = SnapshotReceptions(directory)
        wire.receivers[member_id] = self.receptions

    def install(self, message: InstallSnapshot) -> None:
        """Do as the core decides and the node does."""
        hard_state = HardState(message.term, None)
        self.directory.switch(self.receptions.take(message.snapshot), hard_state)
        self.directory.log.sync()
        self.directory.retire()

    @property
    def applied_index(self) -> int:
        """What its state is as of."""
        return StateMachine(self.directory.state).applied_index


def test_a_member_gets_the_state_and_the_log_waits_for_it(
    leader: Leader, follower: Follower
) -> None:
    """The core is told; nothing the member needs next is dropped until it has it."""
    leader.wire.on_message = follower.install
    assert leader.send() == [("node2", True)]
    assert follower.applied_index == 30
    assert (follower.directory.log.first_index(), follower.directory.log.last_index()) == (31, 30)
    assert leader.snapshots._log_needed == {"node2": 30}
    leader.raft.progress["node2"].match_index = 40
    leader.settle()
    assert leader.snapshots._log_needed == {}
    assert leader.wakes == 1


def test_the_log_does_not_wait_for_a_member_that_gets_no_further(
    leader: Leader, follower: Follower
) -> None:
    """It gets another snapshot if it ever comes back."""
    leader.wire.on_message = follower.install
    leader.send()
    leader.settle()
    assert leader.snapshots._log_needed == {}


def test_a_broken_stream_is_gone_on_with_where_it_broke(leader: Leader, follower: Follower) -> None:
    """However often: what has arrived is not sent again, and in the end it is whole."""
    breaks = 0

    def break_often(number: int, content: bytes) -> bytes:
        nonlocal breaks
        if number % 2:
            breaks += 1
            raise Unreachable("the stream broke")
        return content

    leader.wire.on_chunk = break_often
    leader.wire.on_message = follower.install
    for attempt in range(1, 100):
        if leader.send(reports=attempt)[-1][1]:
            break
    assert follower.applied_index == 30
    (sent, *_) = leader.directory.snapshots.all()
    chunks = sum(-(-file.size_bytes // CHUNK_BYTES) for file in sent.manifest.files)
    assert leader.wire.chunks == chunks + breaks
    assert breaks >= chunks


def test_a_flipped_byte_on_the_way_is_found_and_sent_again(
    leader: Leader, follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """The first attempt is refused with the file's name; the next one succeeds."""

    def flip(number: int, content: bytes) -> bytes:
        return content[:-1] + bytes([content[-1] ^ 1]) if number == 1 else content

    leader.wire.on_chunk = flip
    leader.wire.on_message = follower.install
    assert leader.send() == [("node2", False)]
    assert "did not arrive as it was sent" in caplog.text
    assert follower.applied_index == 0
    assert leader.send(reports=2)[-1] == ("node2", True)
    assert follower.applied_index == 30
    assert leader.deaths == []


def test_a_leader_with_a_damaged_table_stops(leader: Leader, follower: Follower) -> None:
    """Its own state has that table too: it must not serve what it cannot vouch for."""
    with leader.snapshots.take() as held:
        file = next(f for f in held.snapshot.manifest.files if f.name.endswith(".sst"))
        path = held.snapshot.file_path(file)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    leader.sender.send(leader.message())
    leader.settle()
    assert follower.applied_index == 0
    (why,) = leader.deaths
    assert file.name in why


def test_a_damaged_file_of_the_snapshot_alone_costs_that_snapshot(
    leader: Leader, follower: Follower
) -> None:
    """A new one is taken, and the member gets that."""
    newest = leader.message().snapshot
    found = leader.snapshots.find(newest)
    assert found is not None
    found.release()
    path = next(found.snapshot.path.glob("state/OPTIONS*"))
    path.write_bytes(path.read_bytes()[:-1] + b"#")
    leader.wire.on_message = follower.install
    assert leader.send() == [("node2", False)]
    assert leader.snapshots.find(newest) is None
    assert leader.send(reports=2)[-1] == ("node2", False)  # there is another one by now
    assert leader.send(reports=3)[-1] == ("node2", True)
    assert follower.applied_index == 40
    assert leader.deaths == []


def test_a_fresh_snapshot_is_taken_for_a_member_if_the_newest_is_old(
    leader: Leader, follower: Follower
) -> None:
    """Files travel faster than a long log is applied."""
    grow(leader.directory, 200)
    leader.applied(200)
    leader.wire.on_message = follower.install
    assert leader.send() == [("node2", False)]
    assert leader.send(reports=2)[-1] == ("node2", True)
    assert follower.applied_index == 200


def test_a_member_that_is_away_costs_nothing(leader: Leader, follower: Follower) -> None:
    """Nothing is read or kept for it until it is back."""
    leader.wire.away.add("node2")
    leader.wire.on_message = follower.install
    leader.sender.send(leader.message())
    gevent.sleep(0.05)
    assert leader.snapshots._log_needed == {}
    assert leader.raft.reports == []
    leader.wire.away.clear()
    assert leader.await_reports(1) == [("node2", True)]


def test_few_transfers_run_at_once(leader: Leader, tmp_path: Path, follower: Follower) -> None:
    """Others wait for their turn: no storm."""
    del follower

    def linger(_number: int, content: bytes) -> bytes:
        gevent.sleep(0.002)
        return content

    leader.wire.on_chunk = linger
    with opened(tmp_path / "a") as a, opened(tmp_path / "b") as b, opened(tmp_path / "c") as c:
        for member_id, directory in (("a", a), ("b", b), ("c", c)):
            join(directory)
            Follower(directory, leader.wire, member_id)
        for member_id in ("a", "b", "c", "node2"):
            leader.sender.send(leader.message(member_id))
        reports = leader.await_reports(4)
        assert sorted(reports) == [(i, True) for i in ("a", "b", "c", "node2")]
        for receiver in leader.wire.receivers.values():
            receiver.forget()
    assert leader.wire.most_sending == 2


def test_a_leader_that_leads_no_more_stops_sending(leader: Leader, follower: Follower) -> None:
    """In the middle of a transfer; its core is told nothing."""

    def lose(number: int, content: bytes) -> bytes:
        if number == 2:
            leader.raft.role = Role.FOLLOWER
        return content

    leader.wire.on_chunk = lose
    leader.sender.send(leader.message())
    leader.settle()
    assert leader.wire.chunks == 2
    assert leader.raft.reports == []
    assert follower.applied_index == 0


def test_a_newer_wish_takes_the_place_of_an_older_one(leader: Leader, follower: Follower) -> None:
    """The core asked again, of another term: the older transfer ends, the newer begins."""

    def ask_again(number: int, content: bytes) -> bytes:
        if number == 2:
            leader.raft.term = 2
            leader.sender.send(leader.message())
        return content

    leader.wire.on_chunk = ask_again
    leader.wire.on_message = follower.install
    assert leader.send() == [("node2", True)]
    assert follower.directory.log.hard_state() == HardState(2, None)


def test_transfers_keep_to_the_rate_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one has sent, the other waits for."""
    slept: list[float] = []
    now = 100.0
    monkeypatch.setattr("anchor.node.snapshot_sending.time.monotonic", lambda: now)
    monkeypatch.setattr("anchor.node.snapshot_sending.gevent.sleep", slept.append)
    pace = Pace(1000, lambda: False)
    for _ in range(3):
        pace.wait(500)
    assert slept == [0.5, 1.0]
    Pace(0, lambda: False).wait(1 << 40)
    assert len(slept) == 2


def test_a_transfer_rests_while_clients_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a multiple of what a chunk takes, within bounds; and not at all when nobody waits."""
    slept: list[float] = []
    now = 100.0
    monkeypatch.setattr("anchor.node.snapshot_sending.time.monotonic", lambda: now)
    monkeypatch.setattr("anchor.node.snapshot_sending.gevent.sleep", slept.append)
    busy = True
    pace = Pace(0, lambda: busy)
    pace.wait(1 << 20)
    now += 0.01
    pace.wait(1 << 20)
    assert slept == [COURTESY_SECONDS_MAX, pytest.approx(0.01 * COURTESY)]
    busy = False
    now += 0.01
    pace.wait(1 << 20)
    assert len(slept) == 2


# --------------------------------------------------------------------- the receiving side


def test_a_snapshot_without_room_for_it_is_refused(
    leader: Leader,
    follower: Follower,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before a byte of it is written."""
    reserve_bytes = follower.directory.room.reserve_bytes()
    monkeypatch.setattr(follower.directory, "free_bytes", lambda: reserve_bytes)
    assert leader.send() == [("node2", False)]
    assert "there is room for 0" in caplog.text
    assert leader.wire.chunks == 0


def test_a_disk_that_fills_up_meanwhile_leaves_the_old_state(
    leader: Leader, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had come is removed; when there is room, it is sent again."""
    write = Reception.write

    def fill_up(reception: Reception, content: bytes) -> None:
        if leader.wire.chunks == 3:
            raise DiskFullError("no space left on the disk")
        write(reception, content)

    leader.wire.on_message = follower.install
    with monkeypatch.context() as patch:
        patch.setattr(Reception, "write", fill_up)
        assert leader.send() == [("node2", False)]
    assert not follower.directory.snapshots.receiving_path().exists()
    assert follower.applied_index == 0
    assert leader.send(reports=2)[-1] == ("node2", True)
    assert follower.applied_index == 30


def test_a_transfer_leaves_the_reserve_to_the_node_when_others_fill_the_disk(
    leader: Leader, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends, and gives back what it has taken, before the last room is gone."""
    free = [1 << 40]

    def fill_up(number: int, content: bytes) -> bytes:
        if number == 3:
            free[0] = follower.directory.room.reserve_bytes() // 2 - 1
        return content

    monkeypatch.setattr("anchor.node.snapshot_receiving.LOOK_BYTES", 1)
    monkeypatch.setattr(follower.directory, "free_bytes", lambda: free[0])
    leader.wire.on_chunk = fill_up
    leader.wire.on_message = follower.install
    assert leader.send() == [("node2", False)]
    assert leader.wire.chunks == 3
    assert not follower.directory.snapshots.receiving_path().exists()
    assert follower.applied_index == 0
    free[0] = 1 << 40
    leader.wire.on_chunk = lambda _number, content: content
    assert leader.send(reports=2)[-1] == ("node2", True)


def test_a_transfer_that_goes_on_needs_room_for_what_is_missing(
    leader: Leader, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may have filled up since it broke; what had come is given back then."""
    free = [1 << 40]

    def break_off(number: int, content: bytes) -> bytes:
        if number == 3:
            raise Unreachable("the wire broke")
        return content

    monkeypatch.setattr(follower.directory, "free_bytes", lambda: free[0])
    leader.wire.on_chunk = break_off
    assert leader.send() == [("node2", False)]
    assert follower.directory.snapshots.receiving_path().exists()
    free[0] = follower.directory.room.reserve_bytes() + 1
    assert leader.send(reports=2)[-1] == ("node2", False)
    assert leader.wire.chunks == 3
    assert not follower.directory.snapshots.receiving_path().exists()


def test_old_snapshots_make_room_for_one_that_arrives(
    leader: Leader, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are looked for when it would not fit."""
    removed: list[int] = []

    def free_bytes() -> int:
        return 1 << 40 if removed else 0

    monkeypatch.setattr(follower.directory, "free_bytes", free_bytes)
    monkeypatch.setattr(follower.directory.snapshots, "remove_old", lambda: removed.append(1))
    leader.wire.on_message = follower.install
    assert leader.send() == [("node2", True)]


def test_a_state_that_cannot_be_made_ready_leaves_no_snapshot_either(
    leader: Leader, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take the room that the next try needs."""

    def full(_directory: object, _snapshot: object) -> None:
        raise DiskFullError("no space left on the disk")

    leader.wire.on_message = follower.install
    with monkeypatch.context() as patch:
        patch.setattr(DataDirectory, "prepare", full)
        assert leader.send() == [("node2", False)]
    assert follower.directory.snapshots.all() == []
    assert leader.send(reports=2)[-1] == ("node2", True)
    assert len(follower.directory.snapshots.all()) == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: replace(m, format_version=2), "format 2 is not known"),
        (lambda m: replace(m, files=(replace(m.files[0], name="../x"),)), "not a file's name"),
        (lambda m: replace(m, files=(m.files[0], m.files[0])), "the same name"),
    ],
)
def test_what_a_hostile_sender_announces_is_refused(
    leader: Leader,
    follower: Follower,
    change: Callable[[SnapshotManifest], SnapshotManifest],
    why: str,
) -> None:
    """Formats of the future, paths, files twice."""
    with leader.snapshots.take() as held:
        source = snapshot_sending.Source(held.snapshot, Pace(0, lambda: False), lambda: None)
    with pytest.raises(SnapshotRefused, match=why):
        follower.receptions.receive(leader.message(), change(source.manifest))


def test_a_snapshot_that_is_not_what_it_says_is_refused(leader: Leader, follower: Follower) -> None:
    """Its files are whole, but of another entry: nothing of it stays."""
    with leader.snapshots.take() as held:
        source = snapshot_sending.Source(held.snapshot, Pace(0, lambda: False), lambda: None)
        message = leader.message()
        lie = replace(message, snapshot=replace(message.snapshot, last_included_index=99))
        with pytest.raises(SnapshotRefused, match="another entry"):
            leader.wire.send_snapshot(lie, source)
        source.close()
    assert follower.directory.snapshots.all() == []
    assert [p.name for p in (follower.directory.path / "state").iterdir()] == ["00000001"]


def test_a_snapshot_the_core_has_no_use_for_leaves_no_state(
    leader: Leader, follower: Follower
) -> None:
    """The log has got there by itself meanwhile."""
    leader.send()
    assert len(list((follower.directory.path / "state").iterdir())) == 2
    follower.receptions.forget_if_overtaken(29)
    assert len(list((follower.directory.path / "state").iterdir())) == 2
    assert len(follower.directory.snapshots.all()) == 1
    follower.receptions.forget_if_overtaken(30)
    assert len(list((follower.directory.path / "state").iterdir())) == 1
    assert follower.directory.snapshots.all() == []
    with pytest.raises(StorageError, match="is not here"):
        follower.receptions.take(leader.message().snapshot)


def test_a_crash_at_any_step_of_a_transfer_leaves_the_old_state_or_the_new_one(
    leader: Leader, follower: Follower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of the receiver's disk before and after each step, opened one by one."""
    path, pictures = follower.directory.path, tmp_path / "pictures"
    leader.wire.on_message = follower.install
    with monkeypatch.context() as patch:
        camera = Camera(path, pictures, patch)
        for name in ("write", "finish", "_finish_file"):
            camera.watch(Reception, name)
        camera.watch(RocksState, "close")
        for name in ("prepare", "switch", "retire"):
            camera.watch(DataDirectory, name)
        camera.watch(follower.directory.log, "install")
        camera.watch(follower.directory.log, "sync")
        assert leader.send() == [("node2", True)]
        camera.take()
    seen = []
    for number in range(camera.taken):
        with opened(pictures / str(number)) as directory:
            machine = StateMachine(directory.state)
            seen.append((machine.applied_index, directory.log.first_index()))
            assert len(list((directory.path / "state").iterdir())) == 1
            names = {p.name for p in (directory.path / "snapshots").iterdir()}
            assert names <= {one.path.name for one in directory.snapshots.all()}
            if machine.applied_index:
                found = machine.get(b"k")
                assert found is not None
                assert found.value == b"30"
    assert seen == sorted(seen)
    assert set(seen) == {(0, 1), (30, 31)}
