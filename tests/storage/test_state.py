"""The state on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anchor.fsm import StateMachine
from anchor.storage import RocksState, StorageError
from tests.fsm.entries import command, put
from tests.storage.building import copy_at_rest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def state(tmp_path: Path) -> Iterator[RocksState]:
    """Give an empty state."""
    state = RocksState(tmp_path / "state", create=True)
    yield state
    state.close()


def test_changes_are_made_together(state: RocksState) -> None:
    """Writes and deletions, of what was there or not."""
    state.write({b"a": b"1", b"b": b"", b"c": b"3"})
    state.write({b"a": None, b"d": None, b"c": b"4"})
    assert [state.get(key) for key in (b"a", b"b", b"c", b"d")] == [None, b"", b"4", None]


def test_iteration_is_in_order_and_ends_with_the_prefix(state: RocksState) -> None:
    """Keys are bytes, of any length and value."""
    keys = [b"k", b"k\x00", b"kk", b"k\xff\xff"]
    state.write({key: key for key in [*keys, b"j", b"l"]})
    assert list(state.iterate(b"k")) == [(key, key) for key in keys]
    assert list(state.iterate(b"x")) == []
    assert len(list(state.iterate(b""))) == 6


def test_a_crash_goes_back_to_the_last_flush_whole(tmp_path: Path) -> None:
    """Data and applied index go back together, never one without the other."""
    state = RocksState(tmp_path / "state", create=True)
    machine = StateMachine(state)
    for index in range(1, 20):
        machine.apply([command(index, put(b"k", b"%d" % index))])
        if index == 12:
            state.flush()
    copy_at_rest(tmp_path / "state", tmp_path / "copy")
    state.close()
    for path, index in ((tmp_path / "copy", 12), (tmp_path / "state", 19)):
        again = RocksState(path)
        machine = StateMachine(again)
        found = machine.get(b"k")
        again.close()
        assert found is not None
        assert (machine.applied_index, found.value, found.mod_index) == (
            index,
            b"%d" % index,
            index,
        )


def test_a_checkpoint_is_a_state_of_its_own(state: RocksState, tmp_path: Path) -> None:
    """It holds what was flushed, and does not follow the original."""
    state.write({b"k": b"1"})
    state.flush()
    state.checkpoint(tmp_path / "checkpoint")
    state.write({b"k": b"2"})
    copy = RocksState(tmp_path / "checkpoint")
    assert copy.get(b"k") == b"1"
    copy.close()
    with pytest.raises(StorageError):
        state.checkpoint(tmp_path / "checkpoint")


def test_what_is_not_there_is_not_opened(tmp_path: Path) -> None:
    """Only a creation creates."""
    with pytest.raises(StorageError):
        RocksState(tmp_path / "state")
    assert not (tmp_path / "state" / "CURRENT").exists()
