"""Damage to a write-ahead log: a torn tail is accepted, and nothing else.

The log under test holds 200 records, each written and synced by itself. Whatever happens to its
file, opening must either find all of them or be refused; only the last one may be cut short.
"""

from __future__ import annotations

import random
import shutil
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchor.storage import CorruptionError
from anchor.storage.crc32c import masked_crc
from anchor.storage.inspection import inspect_raft_database
from anchor.storage.raft_database import RaftDatabase
from anchor.storage.record_file import BLOCK_BYTES, check_checksums, records
from anchor.storage.sync_mark import SyncMark
from tests.storage.building import (
    NODE_ID,
    as_after_a_crash,
    configuration,
    entries,
    entry,
    opened,
)

if TYPE_CHECKING:
    from pathlib import Path

LAST = 201


class Victim:
    """A directory whose newest write-ahead log can be replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raft = path / "raft.db"
        (self.log,) = (found for found in self.raft.glob("*.log") if found.stat().st_size)
        self.content = self.log.read_bytes()
        self.counts = SyncMark.read(path / "synced")
        self.whole = list(records(self.log))

    def last_index_with(self, content: bytes) -> int:
        """Give the last index found with this content; raises CorruptionError."""
        self.log.write_bytes(content)
        inspect_raft_database(self.raft, NODE_ID, self.counts)
        with closing(RaftDatabase(self.raft, read_only=True)) as database:
            last = database.last_entry_index() or 0
            assert [index for index, _ in database.entries(1, last)] == list(range(1, last + 1))
        return last

    def refuses(self, content: bytes) -> bool:
        """Whether this content is refused, with the file's name; else all must be there."""
        try:
            last = self.last_index_with(content)
        except CorruptionError as error:
            return error.path.is_relative_to(self.raft)
        assert last == LAST
        return False

    def piece_positions(self) -> list[int]:
        """Give where each record begins, if all fit into one block each."""
        positions, position = [], 0
        for record in self.whole:
            positions.append(position)
            position += 7 + len(record)
        assert position == len(self.content) < BLOCK_BYTES
        return positions


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    """Give a directory as a killed process leaves it: all in the write-ahead log."""
    root = tmp_path_factory.mktemp("wal")
    with as_after_a_crash(root / "d", root / "copy") as directory:
        directory.bootstrap("c", configuration())
        for index in range(2, LAST + 1):
            directory.log.append([entry(index)])
            directory.log.sync()
    return Victim(root / "copy")


def flipped(content: bytes, position: int, mask: int) -> bytes:
    """Flip bits of one byte."""
    return content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :]


def test_an_undamaged_log_is_whole(victim: Victim) -> None:
    """The control."""
    assert victim.last_index_with(victim.content) == LAST


def test_a_flipped_byte_is_refused_wherever_it_is(victim: Victim) -> None:
    """Each 97th byte, so that all parts of records are met, first and last ones included."""
    for position in [*range(0, len(victim.content), 97), len(victim.content) - 1]:
        assert victim.refuses(flipped(victim.content, position, 0xFF))


@pytest.mark.parametrize("mask", [0x01, 0x10, 0x80])
@pytest.mark.parametrize("byte", [4, 5, 6], ids=["length low", "length high", "type"])
def test_a_flipped_bit_in_a_header_is_refused(victim: Victim, byte: int, mask: int) -> None:
    """RocksDB takes a record that seems to go on behind the end for a torn one.

    It drops that and all that follow.
    """
    for position in victim.piece_positions()[::20] + victim.piece_positions()[-1:]:
        assert victim.refuses(flipped(victim.content, position + byte, mask))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_of_any_kind_is_refused(victim: Victim, data: st.DataObject) -> None:
    """Zeros, noise, bytes cut out or doubled: if something is missing, it is refused.

    Only bytes from within the last record to the end may be missing.
    """
    size = len(victim.content)
    start = data.draw(st.integers(0, size - 1), label="start")
    end = min(size, start + data.draw(st.sampled_from([1, 7, 60, 512, 4096]), label="length"))
    kind = data.draw(st.sampled_from(["zeros", "noise", "cut out", "doubled"]), label="kind")
    middle = {
        "zeros": bytes(end - start),
        "noise": random.Random(start).randbytes(end - start),
        "cut out": b"",
        "doubled": victim.content[start:end] * 2,
    }[kind]
    damaged = victim.content[:start] + middle + victim.content[end:]
    with suppress(CorruptionError):
        last = victim.last_index_with(damaged)
        assert last >= LAST - (start > victim.piece_positions()[-1])


def test_a_torn_last_record_is_accepted(victim: Victim) -> None:
    """Cut at any byte of it, all records before it are there."""
    start = victim.piece_positions()[-1]
    for end in range(start, len(victim.content)):
        assert victim.last_index_with(victim.content[:end]) == LAST - 1


@pytest.mark.parametrize("tail", [bytes(1), bytes(100), bytes(50_000), b"x", b"garbage" * 9])
def test_space_behind_the_end_is_accepted(victim: Victim, tail: bytes) -> None:
    """Zeros that were never written to, or a torn header and record of whatever bytes."""
    assert victim.last_index_with(victim.content + tail) == LAST


@pytest.mark.parametrize("missing_records", [2, 50, 199])
def test_a_log_that_lost_more_than_its_last_record_is_refused(
    victim: Victim, missing_records: int
) -> None:
    """RocksDB alone cannot know; the sync mark does."""
    end = victim.piece_positions()[-missing_records]
    with pytest.raises(CorruptionError, match="has lost what it promised to keep"):
        victim.last_index_with(victim.content[:end])


def test_an_empty_log_is_refused(victim: Victim) -> None:
    """RocksDB takes it for one never written to."""
    with pytest.raises(CorruptionError):
        victim.last_index_with(b"")


def test_a_deleted_log_is_refused(victim: Victim) -> None:
    """RocksDB does not miss it."""
    victim.log.unlink()
    with pytest.raises(CorruptionError):
        inspect_raft_database(victim.raft, NODE_ID, victim.counts)


def test_a_refused_start_changes_nothing(victim: Victim) -> None:
    """No file is repaired, flushed or deleted on the way to the refusal."""
    victim.log.write_bytes(flipped(victim.content, 5000, 1))
    before = {p: p.read_bytes() for p in victim.raft.iterdir() if not p.name.startswith("LOG")}
    with pytest.raises(CorruptionError, match=rf"{victim.log}: "), opened(victim.path):
        pass
    after = {p: p.read_bytes() for p in victim.raft.iterdir() if not p.name.startswith("LOG")}
    assert after == before


def test_a_torn_record_of_a_real_start_is_dropped_for_good(victim: Victim, tmp_path: Path) -> None:
    """The log goes on from the record before, and is whole after the next crash."""
    victim.log.write_bytes(victim.content[:-3])
    path, copy = tmp_path / "d", tmp_path / "copy"
    shutil.copytree(victim.path, path)
    with as_after_a_crash(path, copy) as directory:
        assert directory.log.last_index() == LAST - 1
        directory.log.append([entry(LAST, 1), entry(LAST + 1, 1)])
        directory.log.sync()
    with opened(copy) as directory:
        assert directory.log.entries(1, LAST + 1, 1 << 30)[1:] == entries(2, LAST + 1)


def test_records_larger_than_a_block_are_read(tmp_path: Path) -> None:
    """Their pieces are put together; a piece that is missing is noticed."""
    with as_after_a_crash(tmp_path / "d", tmp_path / "copy") as directory:
        directory.bootstrap("c", configuration())
        for start in (2, 2000, 3000):
            directory.log.append(entries(directory.log.last_index() + 1, start + 1000))
        directory.log.sync()
    victim = Victim(tmp_path / "copy")
    assert len(victim.content) > 5 * BLOCK_BYTES
    assert max(len(record) for record in victim.whole) > 2 * BLOCK_BYTES
    check_checksums(victim.log)
    for block in range(len(victim.content) // BLOCK_BYTES):
        start, end = block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES
        for middle in (b"", bytes(BLOCK_BYTES), victim.content[start:end] * 2):
            assert victim.refuses(victim.content[:start] + middle + victim.content[end:])


def test_the_checksum_is_crc_32c_as_rocksdb_masks_it() -> None:
    """The check value of the catalogue of CRCs, rotated by 15 bits, plus RocksDB's constant."""
    crc = 0xE3069283
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    assert masked_crc(b"123456789") == (rotated + 0xA282EAD8) & 0xFFFFFFFF
