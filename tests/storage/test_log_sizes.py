"""How many bytes of log lie where, to within a mark of 64 KiB."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anchor.storage.log_sizes import LogSizes

MARK_BYTES = 64 << 10

sizes = st.lists(st.integers(1, 200_000), min_size=1, max_size=60)


def filled(entries: list[int]) -> LogSizes:
    """Make a log of entries of these sizes, from 1 on."""
    log = LogSizes()
    for index, size_bytes in enumerate(entries, 1):
        log.appended(index, index, size_bytes)
    return log


@given(sizes, st.data())
def test_bytes_after_an_entry_are_at_most_a_mark_too_many(
    entries: list[int], data: st.DataObject
) -> None:
    """Whatever the sizes of the entries; also when a prefix is dropped."""
    log = filled(entries)
    dropped = data.draw(st.integers(0, len(entries)))
    log.dropped(dropped)
    for index in range(dropped, len(entries) + 1):
        found, true = log.bytes_after(index), sum(entries[index:])
        assert true <= found < true + MARK_BYTES


@given(sizes, st.integers(0, 1 << 20), st.data())
def test_a_tail_is_no_larger_than_it_may_be(
    entries: list[int], size_bytes: int, data: st.DataObject
) -> None:
    """And it is not empty while there is room for more than two marks and an entry."""
    log = filled(entries)
    end = data.draw(st.integers(1, len(entries)))
    first = log.first_after(size_bytes, end)
    assert 0 <= first <= end
    tail_bytes = sum(entries[first:end])
    assert tail_bytes <= size_bytes + MARK_BYTES
    if first > 0:
        assert tail_bytes + max(entries) + 2 * MARK_BYTES > size_bytes


@given(sizes, sizes, st.data())
def test_entries_that_were_overruled_do_not_count(
    old: list[int], new: list[int], data: st.DataObject
) -> None:
    """What is appended in their place does, to within a mark."""
    log = filled(old)
    start = data.draw(st.integers(1, len(old)))
    for index, size_bytes in enumerate(new, start):
        log.appended(index, index, size_bytes)
    true = sum(old[: start - 1]) + sum(new)
    assert true - MARK_BYTES < log.bytes_after(0) <= true


def test_a_log_that_a_snapshot_replaced_is_empty() -> None:
    """It counts from nothing again."""
    log = filled([100_000] * 5)
    log.restarted()
    assert log.bytes_after(5) == 0
    log.appended(9, 9, 70_000)
    assert log.bytes_after(8) == 70_000
