"""The scrub finds rot in what nobody reads."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from anchor.fsm import StateMachine
from anchor.storage import CorruptionError, DataDirectory
from tests.fsm.entries import command, put
from tests.storage.building import NODE_ID, configuration, entries, opened

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a directory with tables in both databases."""
    path = tmp_path / "d"
    rng = random.Random(1)
    with opened(path) as directory:
        directory.bootstrap("c", configuration())
        directory.log.append(entries(2, 3000))
        machine = StateMachine(directory.state)
        machine.apply(directory.log.entries(1, 1, 1))
        operations = [put(b"key%d" % number, rng.randbytes(99)) for number in range(3000)]
        machine.apply([command(2, *operations)])
    return path


def steps_of_a_pass(directory: DataDirectory, seconds: float) -> int:
    """Scrub once; give how many steps it took."""
    scrub = directory.scrub()
    steps = 1
    while not scrub.step(seconds):
        steps += 1
    scrub.close()
    return steps


def test_a_pass_over_what_is_whole_ends(path: Path) -> None:
    """In few steps or in many, however short; and it begins again."""
    with opened(path) as directory:
        assert steps_of_a_pass(directory, 60) == 3
        assert steps_of_a_pass(directory, 0) > 3000
        scrub = directory.scrub()
        assert [scrub.step(60) for _ in range(6)] == [False, False, True] * 2
        scrub.close()


def test_a_pass_goes_on_while_others_write(path: Path) -> None:
    """What is written or deleted meanwhile does not disturb it."""
    with opened(path) as directory:
        scrub = directory.scrub()
        for index in range(3001, 3100):
            directory.log.append(entries(index, index))
            directory.state.write({b"kkey%d" % (index - 3000): None})
            scrub.step(0)
        scrub.close()


@pytest.mark.parametrize("database", ["raft.db", "state/00000001"])
def test_rot_under_an_open_database_is_found(path: Path, database: str) -> None:
    """In whatever table it is; the error names that table."""
    tables = sorted((path / database).glob("*.sst"), key=lambda table: table.stat().st_size)
    with opened(path) as directory:
        with tables[-1].open("r+b") as table:
            table.seek(tables[-1].stat().st_size // 3)
            original = table.read(1)
            table.seek(-1, 1)
            table.write(bytes([original[0] ^ 4]))
        scrub = directory.scrub()
        with pytest.raises(CorruptionError) as caught:
            all(scrub.step() is not None for _ in range(100_000))
        scrub.close()
    assert caught.value.path == tables[-1]
    assert "checksum mismatch" in caught.value.detail


def test_a_closed_scrub_lets_the_directory_go(path: Path) -> None:
    """Nothing keeps the databases' locks."""
    directory = DataDirectory.open(path, NODE_ID)
    scrub = directory.scrub()
    scrub.step()
    scrub.close()
    directory.close()
    with opened(path):
        pass
