"""Snapshots: made whole or not at all, verified, and put in the place of a state in one step."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path

import pytest

from anchor.fsm import KeyValue, StateMachine
from anchor.raft import Entry, EntryKind, HardState, SnapshotMetadata
from anchor.storage import (
    CorruptionError,
    DataDirectory,
    DiskFullError,
    ForeignDirectoryError,
    RocksState,
    Snapshot,
    UnsupportedFormatError,
    snapshot_manifest,
)
from anchor.storage import snapshots as snapshots_module
from tests.fsm.entries import command, put
from tests.storage.building import configuration, copy_at_rest, opened


def grow(directory: DataDirectory, last_index: int) -> StateMachine:
    """Append and apply entries up to ``last_index``; each writes its index to key ``k``."""
    machine = StateMachine(directory.state)
    first = directory.log.last_index() + 1
    if directory.is_new:
        directory.bootstrap("c", configuration())
        machine.apply(directory.log.entries(1, 1, 1))
        first = 2
    machine.apply(directory.log.entries(machine.applied_index + 1, first - 1, 1 << 30))
    written = [command(i, put(b"k", b"%d" % i)) for i in range(first, last_index + 1)]
    directory.log.append(written)
    directory.log.sync()
    machine.apply(written)
    return machine


def carried(snapshot: Snapshot, directory: DataDirectory) -> Snapshot:
    """Copy a snapshot into another directory, as a transfer would."""
    path = directory.path / "snapshots" / snapshot.path.name
    shutil.copytree(snapshot.path, path)
    return Snapshot(path, snapshot.manifest)


@pytest.fixture
def source(tmp_path: Path) -> Snapshot:
    """Give a snapshot of entry 30, from a node that has gone on since."""
    with opened(tmp_path / "source") as directory:
        grow(directory, 30)
        snapshot = directory.create_snapshot()
        grow(directory, 40)
    return snapshot


def join(directory: DataDirectory) -> None:
    """Make a directory one of the same cluster."""
    directory.set_cluster_id("c")
    directory.log.append([], HardState(1, None))
    directory.log.sync()


def test_a_snapshot_stands_for_what_was_applied(source: Snapshot) -> None:
    """Its manifest says up to which entry, with which configuration; its files are whole."""
    assert source.metadata == SnapshotMetadata(30, 1, configuration(), 1)
    assert source.manifest.cluster_id == "c"
    assert source.path.name == f"{1:020d}-{30:020d}"
    source.verify()


def test_the_newest_two_snapshots_stay(tmp_path: Path) -> None:
    """Making a third removes the first; making the same again changes nothing."""
    with opened(tmp_path / "d") as directory:
        for index in (5, 10, 15, 15):
            grow(directory, index)
            directory.create_snapshot()
        found = directory.snapshots.all()
        assert [one.metadata.last_included_index for one in found] == [15, 10]
        assert directory.snapshots.newest("c") == found[0]
        with pytest.raises(ForeignDirectoryError, match="belongs to cluster c, not other"):
            directory.snapshots.newest("other")
        for one in found:
            one.verify()


def test_a_snapshot_that_is_held_stays(tmp_path: Path) -> None:
    """Until as many have let go of it as took hold of it."""
    with opened(tmp_path / "d") as directory:
        grow(directory, 5)
        held = directory.create_snapshot()
        for _ in range(2):
            directory.snapshots.hold(held)
        for index in (10, 15, 20):
            grow(directory, index)
            directory.create_snapshot()
        assert len(directory.snapshots.all()) == 3
        held.verify()
        directory.snapshots.release(held)
        directory.snapshots.remove_old()
        assert directory.snapshots.find(held.metadata) == held
        directory.snapshots.release(held)
        directory.snapshots.remove_old()
        assert directory.snapshots.find(held.metadata) is None


def test_a_table_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rot that a later snapshot shares with an earlier one is not vouched for."""
    measured: list[str] = []
    describe = snapshot_manifest.describe_file

    def note(path: Path) -> snapshot_manifest.SnapshotFile:
        measured.append(path.name)
        return describe(path)

    with opened(tmp_path / "d") as directory:
        grow(directory, 5)
        first = directory.create_snapshot()
        (table,) = (file for file in first.manifest.files if file.name.endswith(".sst"))
        grow(directory, 10)
        monkeypatch.setattr(snapshots_module, "describe_file", note)
        second = directory.create_snapshot()
        assert table in second.manifest.files
        assert table.name not in measured
        assert any(name.endswith(".sst") for name in measured)
        second.verify()


def test_a_snapshot_loses_its_name_before_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in the middle of a removal leaves none that looks whole."""
    with opened(tmp_path / "d") as directory:
        grow(directory, 5)
        snapshot = directory.create_snapshot()
        with monkeypatch.context() as patch:
            patch.setattr("anchor.storage.snapshots.shutil.rmtree", lambda *_, **__: None)
            directory.snapshots.discard(snapshot.metadata)
        assert directory.snapshots.all() == []
        assert list((directory.path / "snapshots").iterdir()) != []
    with opened(tmp_path / "d") as directory:
        assert list((directory.path / "snapshots").iterdir()) == []


def test_what_was_prepared_and_is_not_wanted_leaves_nothing(
    source: Snapshot, tmp_path: Path
) -> None:
    """The node goes on with what it has, and the next installation gets another place."""
    with opened(tmp_path / "d") as directory:
        join(directory)
        snapshot = carried(source, directory)
        directory.abandon(directory.prepare(snapshot))
        assert [found.name for found in (directory.path / "state").iterdir()] == ["00000001"]
        directory.install(snapshot)
        assert directory.state.path.name == "00000003"


def test_the_old_state_is_readable_until_it_is_retired(source: Snapshot, tmp_path: Path) -> None:
    """Whoever reads it in a native thread at the moment of the switch is not cut off."""
    with opened(tmp_path / "d") as directory:
        join(directory)
        old = directory.state
        directory.switch(directory.prepare(carried(source, directory)))
        assert old.get(b"kk") is None
        assert directory.state is not old
        directory.log.sync()
        directory.retire()
        assert not old.path.exists()


def test_a_full_disk_leaves_no_half_made_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told from other failures, and the next attempt succeeds."""

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with opened(tmp_path / "d") as directory:
        grow(directory, 5)
        with monkeypatch.context() as patch:
            patch.setattr(snapshots_module, "sync_file", full)
            with pytest.raises(DiskFullError, match="no space left"):
                directory.create_snapshot()
        assert list((directory.path / "snapshots").iterdir()) == []
        directory.create_snapshot().verify()


def test_a_node_without_snapshots_has_none(tmp_path: Path) -> None:
    """Not even an old one."""
    with opened(tmp_path / "d") as directory:
        assert directory.snapshots.newest("c") is None
        assert directory.snapshots.all() == []


def test_the_log_is_compacted_with_a_snapshot(tmp_path: Path) -> None:
    """Flush, snapshot, drop: afterwards the node starts without the beginning of its log."""
    path = tmp_path / "d"
    with opened(path) as directory:
        grow(directory, 30)
        snapshot = directory.create_snapshot()
        directory.log.record_snapshot(snapshot.metadata)
        directory.log.drop_prefix(25)
        directory.log.reclaim()
        grow(directory, 35)
    with opened(path) as directory:
        assert (directory.log.first_index(), directory.log.last_index()) == (26, 35)
        assert directory.log.snapshot() == snapshot.metadata
        assert StateMachine(directory.state).applied_index == 35


def test_a_snapshot_is_installed_in_an_empty_node(source: Snapshot, tmp_path: Path) -> None:
    """State and log are the snapshot's, before and after a restart, and go on from there."""
    path = tmp_path / "d"
    with opened(path) as directory:
        join(directory)
        directory.install(carried(source, directory))
        assert StateMachine(directory.state).get(b"k") == KeyValue(b"30", 2, 30, 29)
        grow(directory, 33)
    with opened(path) as directory:
        assert (directory.log.first_index(), directory.log.last_index()) == (31, 33)
        assert directory.log.snapshot() == source.metadata
        assert StateMachine(directory.state).applied_index == 33
        assert [found.name for found in (path / "state").iterdir()] == ["00000002"]


def test_an_installed_state_does_not_change_the_snapshot(source: Snapshot, tmp_path: Path) -> None:
    """They share tables, and nothing that is written to."""
    with opened(tmp_path / "d") as directory:
        join(directory)
        snapshot = carried(source, directory)
        directory.install(snapshot)
        grow(directory, 90)
        directory.state.flush()
        snapshot.verify()


def test_a_damaged_snapshot_is_not_installed(source: Snapshot, tmp_path: Path) -> None:
    """A flipped byte, a missing or a longer file: named, and the node is as it was."""
    with opened(tmp_path / "d") as directory:
        join(directory)
        for file in source.manifest.files:
            snapshot = carried(source, directory)
            path = snapshot.path / "state" / file.name
            content = path.read_bytes()
            damages = [content + b"\0"]
            if content:
                flipped = bytearray(content)
                flipped[random.Random(file.name).randrange(len(content))] ^= 1
                damages += [bytes(flipped), content[:-1]]
            for damaged in damages:
                path.write_bytes(damaged)
                with pytest.raises(CorruptionError) as caught:
                    directory.install(snapshot)
                assert caught.value.path == path
            path.unlink()
            with pytest.raises(CorruptionError, match="is missing"):
                directory.install(snapshot)
            shutil.rmtree(snapshot.path)
        assert directory.log.last_index() == 0
        assert StateMachine(directory.state).applied_index == 0


def test_a_damaged_manifest_is_refused(source: Snapshot, tmp_path: Path) -> None:
    """Whatever byte is flipped; also none at all, and none of it."""
    with opened(tmp_path / "d") as directory:
        path = carried(source, directory).path / "manifest.json"
        content = path.read_bytes()
        for position in range(0, len(content) - 1, 7):
            flipped = bytearray(content)
            flipped[position] ^= 0x04
            path.write_bytes(flipped)
            with pytest.raises((CorruptionError, UnsupportedFormatError)):
                directory.snapshots.all()
        for damaged in (b"", b"[]", b"{}", content[:-9]):
            path.write_bytes(damaged)
            with pytest.raises(CorruptionError):
                directory.snapshots.all()
        path.unlink()
        with pytest.raises(CorruptionError, match="is missing"):
            directory.snapshots.all()


def rewritten(path: Path, **changes: object) -> None:
    """Change a manifest, checksum and all."""
    fields = json.loads(path.read_bytes())
    del fields["checksum"]
    fields.update(changes)
    fields["checksum"] = snapshot_manifest._checksum(fields)
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize("name", ["../../lock", "", ".", "..", "/etc/passwd", "a\0b", 5])
def test_a_manifest_names_files_and_no_paths(
    source: Snapshot, tmp_path: Path, name: object
) -> None:
    """A hostile sender cannot reach out of the snapshot."""
    with opened(tmp_path / "d") as directory:
        snapshot = carried(source, directory)
        rewritten(snapshot.path / "manifest.json", files=[[name, 1, "00"]])
        with pytest.raises(CorruptionError, match="is not a file's name"):
            directory.snapshots.all()


def test_a_newer_snapshot_format_is_refused(source: Snapshot, tmp_path: Path) -> None:
    """Not guessed at."""
    with opened(tmp_path / "d") as directory:
        snapshot = carried(source, directory)
        rewritten(snapshot.path / "manifest.json", format=2)
        with pytest.raises(UnsupportedFormatError, match="is of format 2"):
            directory.snapshots.all()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"cluster_id": "other"}, ForeignDirectoryError),
        ({"last_included_index": 31}, CorruptionError),
        ({"last_included_term": 2}, CorruptionError),
    ],
)
def test_a_snapshot_of_something_else_is_not_installed(
    source: Snapshot, tmp_path: Path, changes: dict[str, object], kind: type[Exception]
) -> None:
    """Of another cluster, or of another entry than it says; the node is as it was."""
    with opened(tmp_path / "d") as directory:
        join(directory)
        rewritten(carried(source, directory).path / "manifest.json", **changes)
        with pytest.raises(kind):
            directory.install(directory.snapshots.all()[0])
        assert directory.log.last_index() == 0
        assert directory.state.get(b"kk") is None
    with opened(tmp_path / "d") as directory:
        assert [found.name for found in (directory.path / "state").iterdir()] == ["00000001"]


class Camera:
    """Takes a picture of a directory before each step: what a crash there would leave."""

    def __init__(self, path: Path, pictures: Path, patch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.pictures = pictures
        self.taken = 0
        self._patch = patch

    def watch(self, owner: object, name: str) -> None:
        """Take a picture before and after each call of ``owner.name``."""
        original = getattr(owner, name)

        def call(*arguments: object, **options: object) -> object:
            self.take()
            result = original(*arguments, **options)
            self.take()
            return result

        self._patch.setattr(owner, name, call)

    def take(self) -> None:
        """Take a picture."""
        copy_at_rest(self.path, self.pictures / str(self.taken))
        self.taken += 1


def watched(camera: Camera, *, log: object = None) -> None:
    """Watch every step of making and installing snapshots."""
    for name in ("sync_file", "sync_directory", "describe_file"):
        camera.watch(snapshots_module, name)
    camera.watch(RocksState, "checkpoint")
    camera.watch(RocksState, "close")
    camera.watch(snapshots_module.Snapshot, "place")
    if log is not None:
        camera.watch(log, "install")
        camera.watch(log, "sync")


def test_a_crash_while_making_a_snapshot_leaves_a_whole_one_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each step: what is listed is whole, and what is not whole is gone after the start."""
    path, pictures = tmp_path / "d", tmp_path / "pictures"
    seen = set()
    with opened(path) as directory:
        grow(directory, 10)
        directory.create_snapshot()
        grow(directory, 20)
        with monkeypatch.context() as patch:
            camera = Camera(path, pictures, patch)
            watched(camera)
            directory.create_snapshot()
            camera.take()
    for number in range(camera.taken):
        with opened(pictures / str(number)) as directory:
            found = directory.snapshots.all()
            for one in found:
                one.verify()
            seen.add(tuple(one.metadata.last_included_index for one in found))
            names = {one.name for one in (directory.path / "snapshots").iterdir()}
            assert names == {one.path.name for one in found}
            assert StateMachine(directory.state).applied_index in (10, 20)
    assert seen == {(10,), (20, 10)}


def test_a_crash_while_installing_leaves_all_of_the_old_or_all_of_the_new(
    source: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each step: state and log fit each other, and nothing else is left over."""
    path, pictures = tmp_path / "d", tmp_path / "pictures"
    seen = set()
    with opened(path) as directory:
        join(directory)
        noop = Entry(1, 1, EntryKind.NOOP, b"")
        directory.log.append([noop])
        directory.log.sync()
        StateMachine(directory.state).apply([noop])
        directory.state.flush()
        snapshot = carried(source, directory)
        with monkeypatch.context() as patch:
            camera = Camera(path, pictures, patch)
            watched(camera, log=directory.log)
            directory.install(snapshot)
            camera.take()
    for number in range(camera.taken):
        with opened(pictures / str(number)) as directory:
            applied_index = StateMachine(directory.state).applied_index
            seen.add((applied_index, directory.log.first_index(), directory.log.last_index()))
            (state,) = (directory.path / "state").iterdir()
            assert state == directory.state.path
    assert seen == {(1, 1, 1), (30, 31, 30)}


@pytest.mark.parametrize("call", ["mkdir", "rename"])
def test_a_full_disk_is_told_as_such_wherever_it_is_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Before anything is made as well as while old ones are removed: the node waits for room."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with opened(tmp_path / "d") as directory:
        for number in (10, 20):
            grow(directory, number)
            directory.create_snapshot()
        grow(directory, 30)
        if call == "rename":
            monkeypatch.setattr(directory.snapshots, "_remove", full)
        else:
            monkeypatch.setattr(Path, "mkdir", full)
        with pytest.raises(DiskFullError, match="no space left"):
            directory.create_snapshot()
