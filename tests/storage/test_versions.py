"""What is on the disk says which version it is of: older ones are read, newer ones refused."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anchor.fsm import StateMachine
from anchor.raft import Entry, EntryKind, HardState
from anchor.settings import VERSION
from anchor.storage import DataDirectory, UnsupportedFormatError, stable
from anchor.storage.directory import MARK_FILE
from anchor.storage.stable import DIRECTORY_FORMAT
from tests.storage import old_formats
from tests.storage.building import NODE_ID, configuration, opened

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("format_version", range(1, DIRECTORY_FORMAT + 1))
def test_a_directory_of_every_format_so_far_is_read(tmp_path: Path, format_version: int) -> None:
    """All of it: whose it is, the vote, the log, the snapshot, and a state that goes on."""
    with tarfile.open(old_formats.archive(format_version)) as packed:
        packed.extractall(tmp_path, filter="data")
    with opened(tmp_path / NODE_ID) as directory:
        assert directory.identity.node_id == NODE_ID
        assert directory.identity.cluster_id == old_formats.CLUSTER_ID
        log = directory.log
        assert log.hard_state() == old_formats.HARD_STATE
        assert (log.first_index(), log.last_index()) == (16, old_formats.COMMANDS + 1)
        assert log.entries(16, log.last_index(), 1 << 20) == old_formats.commands()[14:]
        snapshot = log.snapshot()
        assert snapshot is not None
        assert (snapshot.last_included_index, snapshot.last_included_term) == (25, 3)
        assert snapshot.configuration == configuration("node1", "node2", "node3")
        newest = directory.snapshots.newest(old_formats.CLUSTER_ID)
        assert newest is not None
        newest.verify()
        machine = StateMachine(directory.state)
        assert machine.applied_index >= 30
        machine.apply(log.entries(machine.applied_index + 1, log.last_index(), 1 << 20))
        found = machine.get(b"key3")
        assert found is not None
        assert (found.value, found.mod_index) == (b"value38", 38)
        assert machine.get(b"key5") is None  # entry 40 deleted it
        assert machine.digest.hex() == "742e070d4ac1587563c272c5d8a134af"


def test_todays_format_is_among_those_that_are_kept(tmp_path: Path) -> None:
    """Whoever raises the number keeps a directory of it, made by ``old_formats``."""
    assert old_formats.archive(DIRECTORY_FORMAT).exists()
    old_formats.build(tmp_path / NODE_ID)  # what makes it still works


def test_a_directory_of_a_newer_format_is_refused_with_the_version_it_needs(
    tmp_path: Path,
) -> None:
    """One line, and not a byte of it is changed."""
    with opened(tmp_path / "d") as directory:
        newer = replace(directory.identity, format_version=DIRECTORY_FORMAT + 1, needs="9.8.7")
        directory.log.append([], None, {stable.IDENTITY: stable.encode_identity(newer)})
        directory.log.sync()
    with pytest.raises(UnsupportedFormatError) as refused:
        DataDirectory.open(tmp_path / "d", NODE_ID)
    line = str(refused.value)
    assert f"is of format {DIRECTORY_FORMAT + 1}" in line
    assert f"this is anchor {VERSION} and knows {DIRECTORY_FORMAT}" in line
    assert "use anchor 9.8.7 or newer" in line
    assert "\n" not in line


def test_a_sync_mark_of_a_newer_format_is_no_damage(tmp_path: Path) -> None:
    """Its layout is anybody's guess, but it says what it is."""
    with opened(tmp_path / "d"):
        pass
    mark = tmp_path / "d" / MARK_FILE
    mark.write_bytes(b"anchor-2" + mark.read_bytes()[8:] + b"more")
    with pytest.raises(UnsupportedFormatError, match="is of a newer format"):
        DataDirectory.open(tmp_path / "d", NODE_ID)


def test_the_bytes_of_format_1_are_these() -> None:
    """An entry, a vote, a position and a configuration, as they lie on disks by now."""
    entry = Entry(9, 258, EntryKind.COMMAND, b"payload")
    assert entry.encode() == b"\x01\0\0\0\0\0\0\x01\x02payload"
    vote = stable.encode_hard_state(HardState(258, "n1"))
    assert vote == b"\x01\0\0\0\0\0\0\x01\x02\x01n1"
    assert stable.encode_position(1, 2) == b"\x01" + bytes(7) + b"\x01" + bytes(7) + b"\x02"
    assert configuration("a").encode() == (
        b'{"format_version":1,"learners":[],"members":[{"address":"","http_address":"","id":"a",'
        b'"incarnation":0,"promote":false}],"voters":["a"],"voters_outgoing":[]}'
    )
