"""What only the log in memory can do: lose power."""

from __future__ import annotations

from anchor.raft import HardState
from anchor.storage import MemoryLog
from tests.storage.building import entries, snapshot


def test_a_crash_loses_what_was_not_synced() -> None:
    """Entries, hard state and snapshot are as of the last sync."""
    log = MemoryLog()
    log.append(entries(1, 4), HardState(1, "a"))
    log.record_snapshot(snapshot(3))
    log.sync()
    log.append(entries(3, 9, term=2), HardState(2, "b"))
    log.record_snapshot(snapshot(4))
    log.drop_prefix(2)
    log.crash()
    assert log.entries(1, 4, 1 << 30) == entries(1, 4)
    assert log.hard_state() == HardState(1, "a")
    assert log.snapshot() == snapshot(3)


def test_what_was_synced_is_not_changed_by_what_comes_after() -> None:
    """Two crashes in a row lead to the same place."""
    log = MemoryLog()
    log.append(entries(1, 2))
    log.sync()
    for _ in range(2):
        log.append(entries(2, 5, term=3))
        log.crash()
        assert log.entries(1, 2, 1 << 30) == entries(1, 2)
