"""A snapshot that arrives: each file is verified, and what is named like a snapshot is whole."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anchor.fsm import StateMachine
from anchor.storage import (
    CorruptionError,
    DataDirectory,
    DiskFullError,
    Reception,
    Snapshot,
    StorageError,
)
from tests.storage.building import opened
from tests.storage.test_snapshots import grow, join

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK_BYTES = 700


@pytest.fixture
def source(tmp_path: Path) -> Snapshot:
    """Give a snapshot of entry 30; one of its files is empty."""
    with opened(tmp_path / "source") as directory:
        grow(directory, 30)
        snapshot = directory.create_snapshot()
    assert any(not file.size_bytes for file in snapshot.manifest.files)
    return snapshot


@pytest.fixture
def target(tmp_path: Path) -> Iterator[DataDirectory]:
    """Give an empty node of the same cluster."""
    with opened(tmp_path / "target") as directory:
        join(directory)
        yield directory


def chunks(source: Snapshot, reception: Reception) -> Iterator[bytes]:
    """Give what is missing, piece by piece."""
    while not reception.is_complete:
        file = source.manifest.files[reception.file]
        content = source.file_path(file).read_bytes()
        yield content[reception.offset : reception.offset + CHUNK_BYTES]


def fill(source: Snapshot, reception: Reception) -> None:
    """Let all arrive that is missing."""
    for chunk in chunks(source, reception):
        reception.write(chunk)


def test_what_arrived_is_a_snapshot_that_can_be_installed(
    source: Snapshot, target: DataDirectory
) -> None:
    """Its files are the source's; nothing is left where they arrived."""
    reception = Reception(target.snapshots, source.manifest)
    fill(source, reception)
    assert reception.missing_bytes == 0
    assert target.snapshots.all() == []
    snapshot = reception.finish()
    snapshot.verify()
    assert snapshot.manifest == source.manifest
    assert target.snapshots.all() == [snapshot]
    assert not target.snapshots.receiving_path().exists()
    target.install(snapshot)
    assert StateMachine(target.state).applied_index == 30


def test_a_flipped_byte_costs_the_file_it_is_in_and_no_more(
    source: Snapshot, target: DataDirectory
) -> None:
    """Each file in turn arrives damaged, is refused by name, and is taken when sent again."""
    reception = Reception(target.snapshots, source.manifest)
    flipped: set[int] = set()
    refused: list[str] = []
    positions: list[tuple[int, int]] = []
    places: list[tuple[int, int]] = []
    for chunk in chunks(source, reception):
        place, is_first = reception.file, reception.offset == 0
        damaged = chunk
        if is_first and place not in flipped:
            flipped.add(place)
            damaged = bytes([chunk[0] ^ 1]) + chunk[1:]
        try:
            reception.write(damaged)
        except CorruptionError as error:
            refused.append(error.path.name)
            positions.append((reception.file, reception.offset))
            places.append((place, 0))
    assert refused == [file.name for file in source.manifest.files if file.size_bytes]
    assert positions == places

    reception.finish().verify()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_cannot_take_it_is_said_so(
    source: Snapshot, target: DataDirectory, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A full one is told from a broken one; nothing of the reception stays once it is dropped."""
    reception = Reception(target.snapshots, source.manifest)

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("anchor.storage.reception.os.write", fail)
    with pytest.raises(StorageError) as caught:
        fill(source, reception)
    assert isinstance(caught.value, DiskFullError) == (code != errno.EIO)
    reception.discard()
    assert not target.snapshots.receiving_path().exists()


def test_a_reception_takes_the_place_of_an_earlier_one(
    source: Snapshot, target: DataDirectory
) -> None:
    """Of which nothing is left."""
    earlier = Reception(target.snapshots, source.manifest)
    earlier.write(next(chunks(source, earlier)))
    later = Reception(target.snapshots, source.manifest)
    assert (later.file, later.offset) == (0, 0) or not source.manifest.files[0].size_bytes
    fill(source, later)
    later.finish().verify()


def test_an_empty_file_must_be_empty_in_the_manifest_too(
    source: Snapshot, target: DataDirectory
) -> None:
    """A checksum that no empty file has is noticed although nobody sends the file."""
    files = tuple(
        file if file.size_bytes else replace(file, sha256="00" * 32)
        for file in source.manifest.files
    )
    with pytest.raises(CorruptionError, match="did not arrive as it was sent"):
        fill(source, Reception(target.snapshots, replace(source.manifest, files=files)))


def test_what_a_crash_left_of_a_reception_is_gone_after_the_start(
    source: Snapshot, tmp_path: Path
) -> None:
    """It is worth nothing to a process that does not know how far it got."""
    path = tmp_path / "target"
    with opened(path) as directory:
        join(directory)
        reception = Reception(directory.snapshots, source.manifest)
        reception.write(next(chunks(source, reception)))
    with opened(path) as directory:
        assert list((path / "snapshots").iterdir()) == []
