"""The log on disk against a list, through restarts and crashes of the process."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from anchor.raft import Entry, EntryKind, HardState, SnapshotMetadata
from anchor.storage import DataDirectory, RocksLog
from anchor.storage.inspection import inspect_raft_database
from anchor.storage.raft_database import RaftDatabase
from anchor.storage.sync_mark import SyncMark
from tests.storage.building import NODE_ID, copy_at_rest, entry, snapshot

ALL = 1 << 30


class RocksLogAgainstList(RuleBasedStateMachine):
    """Every rule does the same to both; the invariant compares them."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="anchor-log-model-"))
        self.lives = 0
        self.entries: dict[int, Entry] = {}
        self.compacted = (0, 0)
        self.hard_state = HardState()
        self.snapshot: SnapshotMetadata | None = None

    @initialize()
    def open(self) -> None:
        """Make the directory."""
        self.path = self.root / "0"
        DataDirectory.open(self.path, NODE_ID, rng=random.Random(1)).close()
        self._open()

    @property
    def last_index(self) -> int:
        """The model's last index."""
        return max(self.entries, default=self.compacted[0])

    def term(self, index: int) -> int:
        """The model's term of an entry."""
        return self.compacted[1] if index == self.compacted[0] else self.entries[index].term

    @rule(data=st.data(), count=st.integers(0, 6), vote=st.none() | st.just("node2"))
    def append(self, data: st.DataObject, count: int, vote: str | None) -> None:
        """Append at the end or over it, with or without a new hard state.

        Nothing overrules what a snapshot includes: that is committed.
        """
        low = self.snapshot.last_included_index if self.snapshot else self.compacted[0]
        start = data.draw(st.integers(low + 1, self.last_index + 1), label="start")
        term = max(self.term(start - 1), data.draw(st.integers(1, 5), label="term"))
        kind = data.draw(st.sampled_from([EntryKind.COMMAND, EntryKind.CONFIGURATION]))
        written = [entry(index, term, kind) for index in range(start, start + count)]
        hard_state = None
        if term > self.hard_state.term or vote:
            hard_state = HardState(max(term, self.hard_state.term), vote)
            self.hard_state = hard_state
        self.log.append(written, hard_state)
        if written:
            self.entries = {i: one for i, one in self.entries.items() if i < start}
            self.entries.update((one.index, one) for one in written)

    @rule()
    def sync(self) -> None:
        """Make it durable; nothing changes."""
        self.log.sync()

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        """Record a snapshot, and drop up to it or less."""
        included = data.draw(st.sampled_from(sorted(self.entries)), label="included")
        if self.snapshot and included < self.snapshot.last_included_index:
            return
        self.snapshot = snapshot(included, self.term(included))
        self.log.record_snapshot(self.snapshot)
        last = data.draw(st.integers(self.compacted[0] + 1, included), label="last dropped")
        self.log.drop_prefix(last)
        self.compacted = (last, self.term(last))
        self.entries = {i: one for i, one in self.entries.items() if i > last}

    @rule(ahead=st.integers(0, 3))
    def reclaim(self, ahead: int) -> None:  # noqa: ARG002 - makes it rarer
        """Give space back; nothing changes."""
        self.log.reclaim()

    @rule()
    def restart(self) -> None:
        """Stop, and start again."""
        self._close()
        self._open()

    @rule()
    def crash(self) -> None:
        """Die, and start again with what was written."""
        self.lives += 1
        copy = self.root / str(self.lives)
        copy_at_rest(self.path, copy)
        self._close()
        self.path = copy
        self._open()

    def _open(self) -> None:
        """Open the log alone: the state, which applies nothing here, would not fit it."""
        self.mark = SyncMark(self.path / "synced")
        database = self.path / "raft.db"
        inspect_raft_database(database, NODE_ID, self.mark.counts)
        self.database = RaftDatabase(database)
        self.log = RocksLog(self.database, self.mark)

    def _close(self) -> None:
        """Close it."""
        self.database.close()
        self.mark.close()

    @invariant()
    def agree(self) -> None:
        """The log is the list."""
        log = self.log
        assert log.first_index() == self.compacted[0] + 1
        assert log.last_index() == self.last_index
        assert log.term(self.compacted[0]) == self.compacted[1]
        assert log.hard_state() == self.hard_state
        assert log.snapshot() == self.snapshot
        expected = list(self.entries.values())
        if expected:
            assert log.entries(expected[0].index, self.last_index, ALL) == expected
            assert log.term(self.last_index) == expected[-1].term
        assert log.configuration_entries() == [
            one for one in expected if one.kind is EntryKind.CONFIGURATION
        ]

    def teardown(self) -> None:
        """Leave nothing behind."""
        self._close()
        shutil.rmtree(self.root)


TestRocksLogAgainstList = RocksLogAgainstList.TestCase
TestRocksLogAgainstList.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
