"""What every log does, in memory and on disk alike."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from anchor.raft import Compacted, Entry, EntryKind, HardState, LogStorage, Unavailable
from anchor.storage import MemoryLog, RocksLog
from tests.storage.building import entries, entry, opened, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL = 1 << 30


@pytest.fixture(params=["memory", "rocks"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryLog | RocksLog]:
    """Give an empty log."""
    with ExitStack() as resources:
        if request.param == "memory":
            yield MemoryLog()
        else:
            yield resources.enter_context(opened(tmp_path / "d")).log


def indexes(found: list[Entry]) -> list[int]:
    """Give the entries' indexes."""
    return [one.index for one in found]


def test_a_new_log_is_empty(log: MemoryLog | RocksLog) -> None:
    """It starts at 1 and ends before; term 0 stands before its first entry."""
    storage: LogStorage = log
    assert (storage.first_index(), storage.last_index(), storage.term(0)) == (1, 0, 0)
    assert storage.hard_state() == HardState(0, None)
    assert storage.snapshot() is None
    assert storage.configuration_entries() == []


def test_appended_entries_are_read_as_they_were(log: MemoryLog | RocksLog) -> None:
    """Index, term, kind and payload, also an empty one."""
    written = [*entries(1, 3), Entry(4, 2, EntryKind.NOOP, b""), entry(5, 2)]
    log.append(written[:2])
    log.append(written[2:])
    assert log.entries(1, 5, ALL) == written
    assert log.entries(2, 4, ALL) == written[1:4]
    assert [log.term(index) for index in range(6)] == [0, 1, 1, 1, 2, 2]


def test_reading_gives_as_much_as_fits_but_one_at_least(log: MemoryLog | RocksLog) -> None:
    """``max_bytes`` bounds the sum of the entries' sizes, except for the first."""
    written = entries(1, 5)
    log.append(written)
    size = written[0].size_bytes
    assert indexes(log.entries(1, 5, 0)) == [1]
    assert indexes(log.entries(1, 5, 2 * size - 1)) == [1]
    assert indexes(log.entries(1, 5, 2 * size)) == [1, 2]
    assert indexes(log.entries(2, 3, ALL)) == [2, 3]


def test_reading_beyond_the_log_says_which_side(log: MemoryLog | RocksLog) -> None:
    """Compacted before it, Unavailable behind it."""
    log.append(entries(1, 9))
    log.record_snapshot(snapshot(5))
    log.drop_prefix(4)
    with pytest.raises(Compacted):
        log.entries(4, 6, ALL)
    with pytest.raises(Compacted):
        log.term(3)
    with pytest.raises(Unavailable):
        log.entries(9, 10, ALL)
    with pytest.raises(Unavailable):
        log.term(10)
    assert log.entries(7, 6, ALL) == []


@pytest.mark.parametrize("start", [1, 3, 5])
def test_appending_replaces_all_from_its_first_entry_on(
    log: MemoryLog | RocksLog, start: int
) -> None:
    """What was there before stays; what was there after goes, however much."""
    log.append(entries(1, 5))
    log.append(entries(start, start, term=2))
    assert log.last_index() == start
    assert log.entries(1, start, ALL) == [*entries(1, start - 1), entry(start, 2)]


def test_a_long_tail_is_replaced_like_a_short_one(log: MemoryLog | RocksLog) -> None:
    """Thousands of entries give way, and come back different."""
    log.append(entries(1, 3000))
    log.append(entries(3, 4, term=2))
    assert log.last_index() == 4
    with pytest.raises(Unavailable):
        log.term(5)
    log.append(entries(5, 3000, term=2))
    assert log.entries(1, 3000, ALL) == [*entries(1, 2), *entries(3, 3000, term=2)]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(entries(4, 4), id="a gap after the log"),
        pytest.param(entries(0, 1), id="before the log"),
        pytest.param([entry(3), entry(5)], id="a gap within"),
        pytest.param([entry(3, 2), entry(4, 1)], id="a term that falls"),
    ],
)
def test_entries_that_do_not_follow_are_refused(
    log: MemoryLog | RocksLog, wrong: list[Entry]
) -> None:
    """And nothing of them is written, the hard state neither."""
    log.append(entries(1, 2))
    with pytest.raises(ValueError, match="entry"):
        log.append(wrong, HardState(9, None))
    assert log.entries(1, log.last_index(), ALL) == entries(1, 2)
    assert log.hard_state() == HardState()


@pytest.mark.parametrize("vote", [None, "node2", "", "ü"])
def test_the_hard_state_is_kept_with_and_without_entries(
    log: MemoryLog | RocksLog, vote: str | None
) -> None:
    """A vote for nobody is not a vote for an empty name."""
    log.append([], HardState(7, vote))
    assert log.hard_state() == HardState(7, vote)
    log.append(entries(1, 1, term=8), HardState(8, None))
    assert log.hard_state() == HardState(8, None)
    log.append(entries(2, 2, term=8))
    assert log.hard_state() == HardState(8, None)


def test_configuration_entries_come_and_go_with_the_log(log: MemoryLog | RocksLog) -> None:
    """Truncated (trap 9), replaced or dropped, they are gone."""
    first, second, third = (entry(index, 1, EntryKind.CONFIGURATION) for index in (1, 3, 5))
    log.append([first, entry(2), second, entry(4), third])
    assert log.configuration_entries() == [first, second, third]
    log.append([entry(5, 2)])
    assert log.configuration_entries() == [first, second]
    log.append([entry(3, 3), entry(4, 3, EntryKind.CONFIGURATION)])
    assert log.configuration_entries() == [first, entry(4, 3, EntryKind.CONFIGURATION)]
    log.record_snapshot(snapshot(3, 3))
    log.drop_prefix(2)
    assert log.configuration_entries() == [entry(4, 3, EntryKind.CONFIGURATION)]


def test_a_prefix_is_dropped_and_its_last_term_stays(log: MemoryLog | RocksLog) -> None:
    """The term before the first entry is what an append after it is compared with."""
    log.append([*entries(1, 4), *entries(5, 9, term=2)])
    log.record_snapshot(snapshot(6, 2))
    log.drop_prefix(5)
    assert (log.first_index(), log.last_index()) == (6, 9)
    assert (log.term(5), log.term(6)) == (2, 2)
    log.drop_prefix(6)
    assert log.entries(7, 9, ALL) == entries(7, 9, term=2)
    log.append(entries(7, 7, term=3))
    assert log.last_index() == 7


def test_all_may_be_dropped(log: MemoryLog | RocksLog) -> None:
    """The log goes on where the snapshot ended."""
    log.append(entries(1, 4))
    log.record_snapshot(snapshot(4))
    log.drop_prefix(4)
    assert (log.first_index(), log.last_index(), log.term(4)) == (5, 4, 1)
    log.append(entries(5, 5))
    assert log.entries(5, 5, ALL) == entries(5, 5)


@pytest.mark.parametrize("index", [0, 2, 6, 7, 10])
def test_only_what_a_snapshot_includes_is_dropped(log: MemoryLog | RocksLog, index: int) -> None:
    """Not more, not again, and not what is not there."""
    log.append(entries(1, 9))
    with pytest.raises(ValueError, match="cannot be dropped"):
        log.drop_prefix(2)
    log.record_snapshot(snapshot(5))
    log.drop_prefix(2)
    with pytest.raises(ValueError, match="entry"):
        log.drop_prefix(index)
    assert (log.first_index(), log.last_index()) == (3, 9)


def test_the_newest_snapshot_is_known(log: MemoryLog | RocksLog) -> None:
    """With its configuration, and its last term even where the log has none."""
    log.append(entries(1, 9))
    log.record_snapshot(snapshot(5))
    log.record_snapshot(snapshot(7))
    assert log.snapshot() == snapshot(7)
    assert log.term(7) == 1


def test_an_installed_snapshot_takes_the_place_of_a_log_that_differs(
    log: MemoryLog | RocksLog,
) -> None:
    """Nothing of the log stays when it is shorter, or has another entry there."""
    log.append(entries(1, 3))
    log.install(snapshot(8, 3), 2)
    assert (log.first_index(), log.last_index(), log.term(8)) == (9, 8, 3)
    assert log.snapshot() == snapshot(8, 3)
    log.append(entries(9, 12, term=3))
    log.install(snapshot(10, 4), 3)
    assert (log.first_index(), log.last_index(), log.term(10)) == (11, 10, 4)
    with pytest.raises(Unavailable):
        log.term(11)


def test_an_installed_snapshot_leaves_nothing_of_the_log(log: MemoryLog | RocksLog) -> None:
    """As the core has it: of a log that agrees it keeps all, and installs nothing (§7)."""
    log.append([*entries(1, 5), entry(6, 1, EntryKind.CONFIGURATION), *entries(7, 9)])
    log.install(snapshot(5, 1), 2)
    assert (log.first_index(), log.last_index(), log.term(5)) == (6, 5, 1)
    assert log.configuration_entries() == []
    with pytest.raises(Unavailable):
        log.term(6)


def test_a_term_is_installed_together_with_the_log_that_needs_it(
    log: MemoryLog | RocksLog,
) -> None:
    """A log whose last entry is of a later term than the current one is damage."""
    log.append(entries(1, 3), HardState(1))
    log.install(snapshot(8, 3), 2, HardState(3, "other"))
    assert log.hard_state() == HardState(3, "other")
    log.install(snapshot(9, 3), 3)
    assert log.hard_state() == HardState(3, "other")


def test_an_installed_snapshot_cannot_go_back(log: MemoryLog | RocksLog) -> None:
    """Behind what is compacted there is nothing to continue with."""
    log.install(snapshot(8), 2)
    with pytest.raises(ValueError, match="snapshot up to 7"):
        log.install(snapshot(7), 3)


def test_writing_nothing_is_allowed(log: MemoryLog | RocksLog) -> None:
    """And a sync of nothing."""
    log.append([])
    log.sync()
    assert log.last_index() == 0
