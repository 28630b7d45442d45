"""Damage to any other file: found at the start or by a read, never served, never skipped."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from anchor.fsm import StateMachine, encode_batch, encode_put
from anchor.raft import Entry, EntryKind, HardState
from anchor.storage import CorruptionError, DataDirectory, StorageError
from tests.storage.building import NODE_ID, as_after_a_crash, configuration, opened

if TYPE_CHECKING:
    from pathlib import Path

LAST = 400


class Contents(NamedTuple):
    """All that a directory holds, seen through its reading methods."""

    log: list[Entry]
    hard_state: HardState
    state: list[tuple[bytes, bytes]]


def fill(directory: DataDirectory, low: int, high: int) -> None:
    """Append, sync and apply entries."""
    machine = StateMachine(directory.state)
    machine.apply(directory.log.entries(machine.applied_index + 1, low - 1, 1 << 30))
    for index in range(low, high + 1):
        term = 1 + index // 50
        commands = [
            encode_put(b"key%d" % (index * 7 % 900 + offset), random.Random(index).randbytes(60))
            for offset in range(3)
        ]
        entry = Entry(index, term, EntryKind.COMMAND, encode_batch(1, index, commands))
        directory.log.append([entry], HardState(term, None) if index % 50 == 0 else None)
        directory.log.sync()
        machine.apply([entry])


def read_all(directory: DataDirectory) -> Contents:
    """Read everything, after the state has caught up with the log."""
    machine = StateMachine(directory.state)
    last = directory.log.last_index()
    machine.apply(directory.log.entries(machine.applied_index + 1, last, 1 << 30))
    return Contents(
        directory.log.entries(1, directory.log.last_index(), 1 << 30),
        directory.log.hard_state(),
        list(directory.state.iterate(b"")),
    )


class Victim(NamedTuple):
    """A directory with tables, manifests and a write-ahead log, and what it holds."""

    path: Path
    contents: Contents

    def survives(self, work: Path, damaged: Path, content: bytes | None) -> bool:
        """Whether a copy with this damage holds everything; False if it is refused or raises.

        Holding anything else fails.
        """
        shutil.copytree(self.path, work)
        if content is None:
            (work / damaged).unlink()
        else:
            (work / damaged).write_bytes(content)
        try:
            directory = DataDirectory.open(work, NODE_ID)
            try:
                assert read_all(directory) == self.contents
            finally:
                directory.close()
        except StorageError as error:
            return not str(error).startswith(f"{work}/")
        finally:
            shutil.rmtree(work)
        return True


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    """Give a directory with a history: two clean stops, and a crash."""
    root = tmp_path_factory.mktemp("damage")
    with opened(root / "d") as directory:
        directory.bootstrap("c", configuration())
        fill(directory, 2, 200)
    with opened(root / "d") as directory:
        fill(directory, 201, 300)
    with as_after_a_crash(root / "d", root / "crashed") as directory:
        fill(directory, 301, LAST)
        expected = read_all(directory)
    return Victim(root / "crashed", expected)


def files(victim: Victim, pattern: str) -> list[Path]:
    """Give the files of that name, relative to the directory."""
    found = [one.relative_to(victim.path) for one in sorted(victim.path.rglob(pattern))]
    assert found
    return found


def test_an_undamaged_directory_survives(victim: Victim, tmp_path: Path) -> None:
    """The control."""
    mark = files(victim, "synced")[0]
    assert victim.survives(tmp_path / "w", mark, (victim.path / mark).read_bytes())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*", "CURRENT", "synced"])
def test_a_flipped_byte_is_never_served_and_never_skipped(
    victim: Victim, tmp_path: Path, pattern: str, seed: int
) -> None:
    """Either the file is refused, or what it holds is read as it was written."""
    rng = random.Random(f"{pattern} {seed}")
    damaged = rng.choice(files(victim, pattern))
    content = bytearray((victim.path / damaged).read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    victim.survives(tmp_path / "w", damaged, bytes(content))


@pytest.mark.parametrize("pattern", ["*.sst", "raft.db/MANIFEST-*", "CURRENT", "synced"])
def test_a_file_that_is_gone_or_empty_stops_the_start(
    victim: Victim, tmp_path: Path, pattern: str
) -> None:
    """Each one of them."""
    for damaged in files(victim, pattern):
        assert not victim.survives(tmp_path / "w", damaged, None)
        assert not victim.survives(tmp_path / "w", damaged, b"")


@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*"])
def test_a_file_cut_short_is_never_served_and_never_skipped(
    victim: Victim, tmp_path: Path, pattern: str
) -> None:
    """A manifest without its end forgets tables; what they held must not go missing unseen."""
    rng = random.Random(pattern)
    for damaged in files(victim, pattern):
        content = (victim.path / damaged).read_bytes()
        for end in {0, len(content) - 1, *(rng.randrange(len(content)) for _ in range(6))}:
            survived = victim.survives(tmp_path / "w", damaged, content[:end])
            assert not (survived and pattern == "*.sst")


def test_what_rocksdb_keeps_for_itself_does_not_matter(victim: Victim, tmp_path: Path) -> None:
    """Its notes of options and identity, and the binding's configuration, decide nothing."""
    for pattern in ("OPTIONS-*", "IDENTITY", "rocksdict-config.json"):
        for content in (None, b"", b"\xff" * 99):
            assert victim.survives(tmp_path / "w", files(victim, pattern)[0], content)


def test_a_damaged_table_is_named(victim: Victim, tmp_path: Path) -> None:
    """At the start, or by whatever reads the damaged block."""
    for damaged in files(victim, "*.sst"):
        work = tmp_path / "w"
        shutil.copytree(victim.path, work)
        content = bytearray((work / damaged).read_bytes())
        content[20] ^= 0xFF
        (work / damaged).write_bytes(content)
        with pytest.raises(CorruptionError) as caught, opened(work) as directory:
            read_all(directory)
        assert caught.value.path == work / damaged
        shutil.rmtree(work)
