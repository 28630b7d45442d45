"""How much room there is, and the ballast."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from anchor.storage import Room
from anchor.storage.room import (
    BALLAST_BYTES,
    BALLAST_FILE,
    BALLAST_PIECES,
    MAX_COMPACTION_BYTES,
    RESERVE_BYTES,
)
from tests.storage.building import opened

if TYPE_CHECKING:
    from pathlib import Path


def test_the_ballast_takes_real_room_and_gives_it_back(tmp_path: Path) -> None:
    """A file with holes would take none."""
    room = Room(tmp_path)
    assert not room.ballast_left
    room.hold()
    found = (tmp_path / BALLAST_FILE).stat()
    assert found.st_size == room.ballast_bytes <= BALLAST_BYTES
    assert found.st_blocks * 512 >= room.ballast_bytes
    room.hold()
    assert room.ballast_left == room.ballast_bytes
    room.give_up()
    room.give_up()
    assert not room.ballast_left


def test_a_ballast_that_does_not_fit_is_not_half_there(tmp_path: Path) -> None:
    """It would only be in the way."""
    room = Room(tmp_path)
    room._scale = 1e9
    room.hold()
    assert not room.ballast_left


@pytest.mark.parametrize("why", ["macOS has no such call", "the file system cannot"])
def test_where_the_system_cannot_allocate_the_ballast_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """It takes real room all the same, and what is left of an old one is made up to its size."""

    def fail(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    if why.startswith("macOS"):
        monkeypatch.delattr(os, "posix_fallocate")
    else:
        monkeypatch.setattr(os, "posix_fallocate", fail)
    room = Room(tmp_path)
    for left in (0, room.ballast_bytes // 3):
        if left:
            os.truncate(tmp_path / BALLAST_FILE, left)
        room.hold()
        found = (tmp_path / BALLAST_FILE).stat()
        assert found.st_size == room.ballast_bytes
        assert found.st_blocks * 512 >= room.ballast_bytes
    room._scale = 1e9
    room.hold()
    assert not room.ballast_left


def test_the_reserve_grows_with_the_tables_up_to_a_bound(tmp_path: Path) -> None:
    """A compaction writes before it removes, and never takes everything at once."""
    room = Room(tmp_path)
    least = room.reserve_bytes(0)
    assert least <= RESERVE_BYTES
    assert least < room.reserve_bytes(1 << 20) < room.reserve_bytes(1 << 60)
    assert room.reserve_bytes(1 << 60) <= RESERVE_BYTES + MAX_COMPACTION_BYTES


def test_a_piece_of_ballast_is_given_up_before_the_write_that_needs_it(tmp_path: Path) -> None:
    """Not at the next look around, which may be too late; and no more, or somebody else has it."""
    with opened(tmp_path / "d") as directory:
        directory.room.hold()
        before = directory.room.ballast_left
        directory.room.minimum_bytes = 1 << 62
        directory.set_cluster_id("c")
        assert directory.room.ballast_left == before - before // BALLAST_PIECES


def test_a_directory_with_a_ballast_is_opened_like_any_other(tmp_path: Path) -> None:
    """And knows how large its tables and its data are."""
    with opened(tmp_path / "d") as directory:
        directory.room.hold()
        directory.state.write({b"k%d" % number: bytes(1000) for number in range(1000)})
        before = directory.state.live_bytes()
        assert before >= 1_000_000
        directory.state.compact()
        assert directory.state.table_bytes() > 0
        directory.state.write({b"k%d" % number: None for number in range(1000)})
        directory.state.compact()
        assert directory.state.live_bytes() < before / 10
        assert directory.reserve_bytes() > 0
    with opened(tmp_path / "d") as directory:
        assert directory.room.ballast_left
