"""Whose directory it is, what belongs in it, and opening all of it or nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rocksdict import WriteBatch

from anchor.fsm import StateMachine
from anchor.raft import Entry, EntryKind, HardState
from anchor.storage import (
    CorruptionError,
    DataDirectory,
    ForeignDirectoryError,
    LockedError,
    StorageError,
    UnsupportedFormatError,
)
from anchor.storage import directory as module
from anchor.storage.raft_database import Changes, RaftDatabase
from tests.storage.building import (
    NODE_ID,
    as_after_a_crash,
    configuration,
    copy_at_rest,
    entries,
    entry,
    opened,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a directory of a cluster's only member, with a log of 5 entries."""
    path = tmp_path / "d"
    with opened(path) as directory:
        directory.bootstrap("cluster", configuration())
        directory.log.append(entries(2, 5))
        directory.log.sync()
    return path


def refusal(path: Path, kind: type[StorageError] = StorageError, node_id: str = NODE_ID) -> str:
    """Give the one line with which an opening is refused."""
    with pytest.raises(kind) as caught:
        DataDirectory.open(path, node_id)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_new_directory_is_private_and_belongs_to_no_cluster(tmp_path: Path) -> None:
    """Nobody else may look into it; the incarnation is drawn."""
    path = tmp_path / "a" / "b"
    with opened(path) as directory:
        assert directory.is_new
        assert directory.identity.node_id == NODE_ID
        assert 0 < directory.identity.incarnation < 2**63
        assert directory.log.last_index() == 0
    assert path.stat().st_mode & 0o777 == 0o700


def test_no_two_directories_have_one_incarnation(tmp_path: Path) -> None:
    """A wiped disk under an old id is somebody else."""
    drawn = set()
    for name in "abc":
        directory = DataDirectory.open(tmp_path / name, NODE_ID)
        drawn.add(directory.identity.incarnation)
        directory.close()
    assert len(drawn) == 3


def test_what_others_could_read_is_made_private(path: Path) -> None:
    """Directories and files, at each opening."""
    path.chmod(0o755)
    (path / "raft.db" / "CURRENT").chmod(0o644)
    with opened(path):
        assert path.stat().st_mode & 0o777 == 0o700
        assert (path / "raft.db").stat().st_mode & 0o777 == 0o700


def test_an_identity_stays(tmp_path: Path) -> None:
    """Node id, incarnation and cluster are as they were, after a stop and after a crash."""
    path, copy = tmp_path / "d", tmp_path / "copy"
    with opened(path) as directory:
        before = directory.identity
    with as_after_a_crash(path, copy) as directory:
        assert directory.identity == before
        directory.set_cluster_id("c")
    for one in (path, copy):
        with opened(one) as directory:
            assert directory.identity.incarnation == before.incarnation
            assert directory.identity.cluster_id == "c"
            assert not directory.is_new


def test_a_directory_belongs_to_one_cluster_for_ever(path: Path) -> None:
    """Naming the same cluster again is fine, another is not."""
    with opened(path) as directory:
        directory.set_cluster_id("cluster")
        with pytest.raises(ForeignDirectoryError, match="belongs to cluster cluster, not other"):
            directory.set_cluster_id("other")


def test_founding_a_cluster_survives_a_crash(tmp_path: Path) -> None:
    """Entry 1 is the configuration, in term 1."""
    with as_after_a_crash(tmp_path / "d", tmp_path / "copy") as directory:
        directory.bootstrap("c", configuration())
    with opened(tmp_path / "copy") as directory:
        first = Entry(1, 1, EntryKind.CONFIGURATION, configuration().encode())
        assert directory.log.configuration_entries() == [first]
        assert directory.log.hard_state() == HardState(1, None)
        assert directory.identity.cluster_id == "c"
        with pytest.raises(StorageError, match="cannot found a cluster"):
            directory.bootstrap("c", configuration())


def test_founding_a_cluster_is_done_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash before its write leaves a new directory, one before its sync may leave a cluster."""
    path = tmp_path / "d"
    with opened(path) as directory:
        with monkeypatch.context() as patch:
            patch.setattr(directory.log, "sync", lambda: copy_at_rest(path, tmp_path / "written"))
            copy_at_rest(path, tmp_path / "before")
            directory.bootstrap("c", configuration())
        assert directory.log.last_index() == 1
    with opened(tmp_path / "before") as directory:
        assert directory.is_new
        directory.bootstrap("d", configuration())
    with opened(tmp_path / "written") as directory:
        assert directory.identity.cluster_id == "c"
        assert directory.log.last_index() == 1


def test_a_directory_is_open_in_one_process_at_a_time(path: Path) -> None:
    """The message names the other process; when that is gone, so is its lock."""
    program = (
        "import sys; from pathlib import Path; from anchor.storage import DataDirectory\n"
        f"d = DataDirectory.open(Path(sys.argv[1]), {NODE_ID!r}); print('open', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        assert f"in use by process {other.pid}" in refusal(path, LockedError)
        other.kill()
    with opened(path):
        assert f"in use by process {os.getpid()}" in refusal(path, LockedError)


def test_another_nodes_directory_is_refused(path: Path) -> None:
    """The message names both, and what to change."""
    message = refusal(path, ForeignDirectoryError, "node2")
    assert f"{path}/raft.db: belongs to node 'node1', not to 'node2'" in message


def test_a_newer_format_is_refused(path: Path) -> None:
    """Whatever else its identity says."""
    with opened(path) as directory:
        changes = Changes(directory._database)
        changes.put(b"identity", json.dumps({"format": 2, "more": []}).encode())
        directory._database.write(changes)
    assert "use what wrote it, or newer" in refusal(path, UnsupportedFormatError)


@pytest.mark.parametrize("identity", [b"", b"{}", b"[1]", b"\xff", b'{"format":"x"}'])
def test_an_identity_that_is_none_is_refused(path: Path, identity: bytes) -> None:
    """Damaged in whatever way."""
    with opened(path) as directory:
        changes = Changes(directory._database)
        changes.put(b"identity", identity)
        directory._database.write(changes)
    assert f"{path}/raft.db: " in refusal(path, CorruptionError)


def test_somebody_elses_files_are_not_touched(tmp_path: Path) -> None:
    """A directory with files, none of them ours, stays as it is."""
    (tmp_path / "thesis.tex").write_text("\\section{}")
    tmp_path.chmod(0o755)
    message = refusal(tmp_path, ForeignDirectoryError)
    assert message == (
        f"{tmp_path}: holds 'thesis.tex' and nothing of anchor's; choose an empty directory"
    )
    assert [found.name for found in tmp_path.iterdir()] == ["thesis.tex"]
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_file_system_of_its_own_is_an_empty_directory(tmp_path: Path) -> None:
    """Its lost+found is nobody's."""
    (tmp_path / "lost+found").mkdir()
    with opened(tmp_path) as directory:
        assert directory.is_new


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """The message says which, and what to do."""
    (tmp_path / "d").write_text("")
    assert f"{tmp_path / 'd'}: File exists; --dir must be" in refusal(tmp_path / "d")


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("raft.db", "raft.db"),
        ("raft.db/CURRENT", "raft.db/CURRENT"),
        ("state", "state/00000001"),
        ("state/00000001", "state/00000001"),
        ("state/00000001/CURRENT", "state/00000001/CURRENT"),
        ("synced", "synced"),
    ],
)
def test_a_missing_piece_is_named(path: Path, missing: str, named: str) -> None:
    """A directory that has lost a piece is neither opened nor made anew."""
    gone = path / missing
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()
    message = refusal(path, CorruptionError)
    assert message.startswith(f"{path / named}: is missing; stop using this copy")


def test_a_raft_database_that_is_gone_with_its_mark_is_not_made_anew(path: Path) -> None:
    """What the state has applied tells that there was one."""
    with opened(path) as directory:
        StateMachine(directory.state).apply(directory.log.entries(1, 5, 1 << 20)[:1])
    shutil.rmtree(path / "raft.db")
    (path / "synced").unlink()
    assert f"{path}/raft.db: is missing" in refusal(path, CorruptionError)


STEPS = ("SyncMark.create", "RocksState", "RaftDatabase", "Changes", "sync_directory")


class PowerCutError(Exception):
    """The power goes."""


@pytest.mark.parametrize("step", range(9))
def test_an_interrupted_creation_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Whatever step was the last one done, the next start makes a whole directory."""
    calls = 0

    def counted(original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls > step:
                raise PowerCutError
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in STEPS:
            owner = getattr(module, name.split(".")[0]) if "." in name else module
            attribute = name.split(".")[-1]
            patch.setattr(owner, attribute, counted(getattr(owner, attribute)))
        with pytest.raises(PowerCutError):
            DataDirectory.open(tmp_path / "d", NODE_ID)
    with opened(tmp_path / "d") as directory:
        assert directory.is_new
        directory.bootstrap("c", configuration())
    with opened(tmp_path / "d") as directory:
        assert directory.log.last_index() == 1


def applied(directory: DataDirectory, last_index: int) -> None:
    """Apply entries that are nowhere but here."""
    machine = StateMachine(directory.state)
    machine.apply([Entry(i, 1, EntryKind.NOOP, b"") for i in range(1, last_index + 1)])


def test_a_state_ahead_of_its_log_is_refused(path: Path) -> None:
    """Nothing is applied before it is durable: so the log has lost its end."""
    with opened(path) as directory:
        applied(directory, 6)
    message = refusal(path, CorruptionError)
    assert message.startswith(f"{path}/raft.db: ends at entry 5, but entry 6 was applied")


def test_a_state_behind_its_log_is_refused(path: Path) -> None:
    """What lies between is nowhere any more."""
    with opened(path) as directory:
        applied(directory, 2)
        directory.log.record_snapshot(snapshot(4))
        directory.log.drop_prefix(4)
    message = refusal(path, CorruptionError)
    assert message.startswith(f"{path}/state/00000001: is as of entry 2, but the log starts at 5")


def test_a_state_of_a_newer_version_is_refused(path: Path) -> None:
    """In one line, like everything else."""
    with opened(path) as directory:
        directory.state.write({b"mapplied": b"\x02"})
    assert f"{path}/state/00000001: the applied record" in refusal(path, CorruptionError)


def tamper(path: Path, write: Callable[[WriteBatch, RaftDatabase], None]) -> None:
    """Change the raft database as nothing of anchor would."""
    with opened(path) as directory:
        batch = WriteBatch(raw_mode=True)
        write(batch, directory._database)
        directory._database._rocks.write(batch)


@pytest.mark.parametrize(
    ("index", "complaint"),
    [(1, "entry 1 is missing"), (3, "entry 3 is missing")],
)
def test_a_gap_in_the_log_is_refused(path: Path, index: int, complaint: str) -> None:
    """Indexes follow each other."""
    tamper(path, lambda batch, database: batch.delete(index.to_bytes(8), database.log_handle))
    assert f"{path}/raft.db: {complaint}" in refusal(path, CorruptionError)


@pytest.mark.parametrize(
    ("key", "record", "complaint"),
    [
        (b"hard_state", b"\x01" + bytes(9), "the last entry is of term 1, the current term is 0"),
        (b"hard_state", b"\x01", "a record of 1 bytes, not 10"),
        (b"hard_state", b"\x02" + bytes(9), "a record of format 2"),
        (b"hard_state", b"\x01" + bytes(9) + b"node2", "a vote where there is none"),
        (b"compacted", b"\x01" + bytes(7) + b"\x03" + bytes(8), "with no snapshot before it"),
        (b"compacted", b"\x01" + bytes(7) + b"\x09" + bytes(8), "ends at 5, but starts at 10"),
        (b"generation", b"\x01", "a record of 1 bytes"),
        (b"configuration/" + (9).to_bytes(8), b"", "configuration entry 9 is missing"),
    ],
)
def test_stable_records_that_make_no_sense_are_refused(
    path: Path, key: bytes, record: bytes, complaint: str
) -> None:
    """Each with what is wrong."""
    tamper(path, lambda batch, database: batch.put(key, record, database.stable_handle))
    message = refusal(path, CorruptionError)
    assert message.startswith(f"{path}/raft.db: ")
    assert complaint in message


def test_the_space_left_is_known(tmp_path: Path) -> None:
    """As the disk has it."""
    with opened(tmp_path / "d") as directory:
        assert 0 < directory.free_bytes() <= shutil.disk_usage(tmp_path).total


def test_an_entry_that_is_none_is_refused_when_read(path: Path) -> None:
    """Its bytes are whole, but do not say what they are."""
    tamper(path, lambda batch, database: batch.put((3).to_bytes(8), b"\x09", database.log_handle))
    with opened(path) as directory:
        with pytest.raises(CorruptionError, match=r"raft\.db: entry 3"):
            directory.log.entries(1, 5, 1 << 20)
        with pytest.raises(CorruptionError, match=r"raft\.db: entry 3"):
            directory.log.term(3)
        assert directory.log.entries(4, 5, 1 << 20) == [entry(4), entry(5)]
