"""Backups of real directories: as of one entry, restored to exactly the same state."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anchor.fsm import StateMachine
from anchor.raft import Configuration, EntryKind, HardState, Member
from anchor.settings import NEWEST_PROTOCOL
from anchor.storage import (
    DataDirectory,
    ForeignDirectoryError,
    StorageError,
    restoring,
)
from anchor.storage.backup import Backup
from anchor.storage.backup_format import BackupError, encode_backup
from anchor.storage.backup_reader import BackupReader
from anchor.storage.restoring import Founder, restore
from tests.storage.building import copy_at_rest, opened
from tests.storage.test_snapshots import grow

if TYPE_CHECKING:
    from pathlib import Path

FOUNDER = Founder("new1", "127.0.0.1:7001", "127.0.0.1:8001", "cluster2")


def backup_of(directory: DataDirectory) -> Backup:
    """Begin a backup."""
    return Backup(directory.state, directory.identity, created="now", version="0")


def drained(backup: Backup) -> bytes:
    """Read a backup to its end."""
    return b"".join(iter(backup.read, b""))


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """Give a backup of entry 30."""
    with opened(tmp_path / "source") as directory:
        grow(directory, 30)
        backup = backup_of(directory)
        try:
            return drained(backup)
        finally:
            backup.close()


def reader(content: bytes) -> BackupReader:
    """Begin to read it."""
    return BackupReader(io.BytesIO(content).read, "f.backup")


def test_a_backup_is_of_the_moment_it_was_begun(tmp_path: Path) -> None:
    """Whatever is applied, flushed and compacted afterwards."""
    with opened(tmp_path / "d") as directory:
        grow(directory, 30)
        before = list(directory.state.iterate(b""))
        backup = backup_of(directory)
        grow(directory, 60)
        directory.state.flush()
        directory.state.family().compact_range(None, None)
        found = reader(drained(backup))
        assert [each for batch in found.batches() for each in batch] == before
        assert found.header.last_included_index == 30
        assert list(directory.state.iterate(b"")) != before
        backup.close()
        backup.close()
        with pytest.raises(StorageError, match="ended before its end"):
            backup.read()


def test_a_directory_can_be_closed_and_opened_after_a_backup_that_was_given_up(
    tmp_path: Path,
) -> None:
    """Nothing of it is left that would keep the database open."""
    with opened(tmp_path / "d") as directory:
        grow(directory, 30)
        backup = backup_of(directory)
        backup.read()
        backup.close()
    with opened(tmp_path / "d") as directory:
        assert StateMachine(directory.state).applied_index == 30


def test_what_is_restored_is_exactly_what_was(tmp_path: Path, content: bytes) -> None:
    """Each record of the state is the same; the log goes on after it with the new member alone."""
    restore(reader(content), tmp_path / "new", FOUNDER)
    with opened(tmp_path / "source") as source, opened(tmp_path / "new", "new1") as new:
        assert list(new.state.iterate(b"")) == list(source.state.iterate(b""))
        assert StateMachine(new.state).digest == StateMachine(source.state).digest
        assert new.identity.cluster_id == "cluster2"
        member = Member("new1", FOUNDER.address, FOUNDER.http_address, new.identity.incarnation)
        (entry,) = new.log.entries(31, 31, 1 << 20)
        assert (entry.kind, entry.term) == (EntryKind.CONFIGURATION, 2)
        assert Configuration.decode(entry.payload) == Configuration(
            {"new1": member}, frozenset({"new1"})
        )
        assert new.log.configuration_entries() == [entry]
        assert new.log.hard_state() == HardState(2, "new1")
        assert (new.log.first_index(), new.log.last_index()) == (31, 31)
        assert new.log.term(30) == 1
        snapshot = new.snapshots.newest("cluster2")
        assert snapshot is not None
        assert snapshot.metadata == new.log.snapshot()
        snapshot.verify()


def test_two_restored_directories_are_two_incarnations(tmp_path: Path, content: bytes) -> None:
    """The incarnation is drawn anew each time."""
    incarnations = set()
    for name in ("a", "b"):
        restore(reader(content), tmp_path / name, FOUNDER)
        directory = DataDirectory.open(tmp_path / name, "new1")
        incarnations.add(directory.identity.incarnation)
        directory.close()
    assert len(incarnations) == 2


def test_a_damaged_backup_leaves_a_new_directory(tmp_path: Path, content: bytes) -> None:
    """Refused at its last byte, it has made nothing that counts; the right one then works."""
    altered = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(BackupError, match=r"f\.backup: is damaged"):
        restore(reader(altered), tmp_path / "new", FOUNDER)
    with opened(tmp_path / "new", "new1") as directory:
        assert directory.is_new
        assert directory.log.last_index() == 0
        assert not list(directory.state.iterate(b""))
    restore(reader(content), tmp_path / "new", FOUNDER)
    with opened(tmp_path / "new", "new1") as directory:
        assert StateMachine(directory.state).applied_index == 30


@pytest.mark.parametrize("change", ["last_included_index", "last_included_term"])
def test_a_header_that_is_not_of_its_state_is_refused(
    tmp_path: Path, content: bytes, change: str
) -> None:
    """Even if the checksums are right."""
    source = reader(content)
    records = [each for batch in source.batches() for each in batch]
    header = replace(source.header, **{change: 29})  # type: ignore[arg-type]
    with pytest.raises(BackupError, match="not what its header says"):
        restore(reader(b"".join(encode_backup(header, records))), tmp_path / "new", FOUNDER)


def speaking(content: bytes, protocol_version: int) -> BackupReader:
    """Begin to read a backup of a cluster that speaks this protocol."""
    source = reader(content)
    records = [each for batch in source.batches() for each in batch]
    agreed = replace(source.header.configuration, protocol_version=protocol_version)
    header = replace(source.header, configuration=agreed)
    return reader(b"".join(encode_backup(header, records)))


def test_a_restored_cluster_goes_on_speaking_the_protocol_of_the_backup(
    tmp_path: Path, content: bytes
) -> None:
    """It never falls: the state may hold what an older protocol does not know."""
    restore(speaking(content, 2), tmp_path / "new", FOUNDER)
    with opened(tmp_path / "new", "new1") as new:
        (entry,) = new.log.configuration_entries()
        assert Configuration.decode(entry.payload).protocol_version == 2


def test_a_backup_of_a_newer_protocol_is_not_restored_by_an_old_version(
    tmp_path: Path, content: bytes
) -> None:
    """Before anything is made of it."""
    with pytest.raises(BackupError, match=f"speaks protocol {NEWEST_PROTOCOL + 1}"):
        restore(speaking(content, NEWEST_PROTOCOL + 1), tmp_path / "new", FOUNDER)
    assert not (tmp_path / "new").exists()


def test_a_state_of_another_version_is_refused(tmp_path: Path, content: bytes) -> None:
    """Records whose format is unknown here are no state."""
    source = reader(content)
    records = [
        (key, b"\x09" + record[1:] if key == b"mapplied" else record)
        for batch in source.batches()
        for key, record in batch
    ]
    altered = b"".join(encode_backup(source.header, records))
    with pytest.raises(BackupError, match="no state of this version's"):
        restore(reader(altered), tmp_path / "new", FOUNDER)


def test_a_directory_with_anything_in_it_is_refused(tmp_path: Path, content: bytes) -> None:
    """A node's data, or anybody's; and it stays as it was."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ForeignDirectoryError, match=r"is not empty: it holds 'notes\.txt'"):
        restore(reader(content), tmp_path / "other", FOUNDER)
    with pytest.raises(ForeignDirectoryError, match="holds the data of node 'node1'"):
        restore(reader(content), tmp_path / "source", FOUNDER)
    with opened(tmp_path / "source") as directory:
        assert StateMachine(directory.state).applied_index == 30
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="Not a directory"):
        restore(reader(content), tmp_path / "file", FOUNDER)


def test_an_empty_directory_will_do(tmp_path: Path, content: bytes) -> None:
    """As will a file system's root, and a directory that no node was let into a cluster with."""
    (tmp_path / "root" / "lost+found").mkdir(parents=True)
    with opened(tmp_path / "new", "new1"):
        pass
    for name in ("root", "new"):
        restore(reader(content), tmp_path / name, FOUNDER)
        with opened(tmp_path / name, "new1") as directory:
            assert StateMachine(directory.state).applied_index == 30


def test_a_crash_in_the_middle_leaves_a_new_directory(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the one write that counts it belongs to nobody; after it, it is whole."""
    begin = restoring._begin

    def crash_around(*arguments: object) -> None:
        copy_at_rest(tmp_path / "new", tmp_path / "before")
        begin(*arguments)  # type: ignore[arg-type]
        copy_at_rest(tmp_path / "new", tmp_path / "after")

    monkeypatch.setattr(restoring, "_begin", crash_around)
    restore(reader(content), tmp_path / "new", FOUNDER)
    with opened(tmp_path / "before", "new1") as directory:
        assert directory.is_new
        assert directory.log.hard_state() == HardState()
        assert [path.name for path in (tmp_path / "before" / "state").iterdir()] == ["00000001"]
    with opened(tmp_path / "after", "new1") as directory:
        assert directory.identity.cluster_id == "cluster2"
        assert StateMachine(directory.state).applied_index == 30
