"""A store in memory, with the real state machine and switches for what can go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.fsm import EntryKind, StateMachine, clock_suffix, encode_batch
from anchor.node.errors import Overloaded
from anchor.raft import Configuration
from anchor.raft.entry import Entry
from anchor.raft.entry import EntryKind as LogEntryKind
from anchor.storage import StorageError
from anchor.storage.backup_format import BackupHeader
from tests.fsm.stores import DictStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anchor.fsm import KeyValue, Result, SessionResult
    from anchor.node.consistency import Consistency
    from anchor.node.replacing import TargetMember

__all__ = ["PIECE_BYTES", "FakeBackup", "FakeStore"]

PIECE_BYTES = 100_000
_HEADER = BackupHeader("c1u57e4", "node1", 7, 3, Configuration(), 1, "", "now", "0")


class FakeBackup:
    """Three pieces; keys of the store make it break after the first, or never end."""

    header = _HEADER

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._given = 0
        store.open_backups += 1

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Give a piece."""
        if self._given and b"break-backups" in self._store.values:
            raise StorageError("the disk failed")
        if self._given == 3 and b"endless-backups" not in self._store.values:
            raise StopIteration
        self._given += 1
        return (b"%d" % self._given)[:1] * PIECE_BYTES

    def close(self) -> None:
        """Note that it is not read any more."""
        self._store.open_backups -= 1


class FakeStore:
    """An ``anchor.api.store.Store`` of one node that leads itself."""

    def __init__(self) -> None:
        self.records = DictStore()
        self.machine = StateMachine(self.records)
        self.clock_ms = 1_000_000
        self.cluster_id = "c1u57e4"
        self.speaks_sessions = True
        self.leader_id: str | None = "node1"
        self.term = 3
        self.error: Exception | None = None
        self.before: Callable[[bytes], None] = lambda _key: None
        self.asked: list[tuple[object, ...]] = []
        self.stopped = False
        self.open_backups = 0
        self.membership = self
        self._apply(EntryKind.NOOP)

    @property
    def applied_index(self) -> int:
        """How far the state machine has got."""
        return self.machine.applied_index

    @property
    def values(self) -> dict[bytes, KeyValue]:
        """All keys and what they hold."""
        keys = [key[1:] for key, _ in self.records.iterate(b"k")]
        found = {key: self.machine.get(key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    def write(
        self, command: bytes, key: bytes | None, timeout_seconds: float
    ) -> Result | SessionResult:
        """Apply the command at once."""
        self._enter("write", key, timeout_seconds)
        batch = encode_batch(0, 0, [command]) + clock_suffix(self.clock_ms)
        (result,) = self._apply(EntryKind.COMMAND, batch)
        return result

    def content(self) -> dict[bytes, bytes]:
        """All records but for how far they go: what a command without effect leaves alone."""
        return {key: value for key, value in self.records.iterate(b"") if key[:1] != b"m"}

    def advance_to(self, index: int) -> None:
        """Let entries that do nothing follow."""
        while self.applied_index < index:
            self._apply(EntryKind.NOOP)

    def _apply(self, kind: EntryKind, payload: bytes = b"") -> list[Result | SessionResult]:
        entry = Entry(self.applied_index + 1, self.term, LogEntryKind(kind), payload)
        (outcome,) = self.machine.apply([entry])
        return outcome.results if outcome else []

    def read(self, key: bytes, consistency: Consistency, timeout_seconds: float) -> KeyValue | None:
        """Look it up."""
        self._enter("read", key, consistency, timeout_seconds)
        return self.machine.get(key)

    def backup(self, consistency: Consistency, timeout_seconds: float) -> FakeBackup:
        """Begin one."""
        self._enter("backup", consistency, timeout_seconds)
        if b"refuse-backups" in self.values:
            raise Overloaded("too many")
        return FakeBackup(self)

    def status(self) -> Mapping[str, object]:
        """Say little."""
        return {
            "node_id": "node1",
            "role": "leader",
            "term": self.term,
            "open_backups": self.open_backups,
        }

    def members(self) -> Mapping[str, object]:
        """Say little."""
        return {"node_id": "node1", "members": []}

    def leader(self) -> Mapping[str, object]:
        """Say who leads."""
        if self.error is not None:
            raise self.error
        return {"leader_id": self.leader_id, "http_address": "h:1", "term": self.term}

    def promote(self, member_id: str, timeout_seconds: float) -> None:
        """Remember the question."""
        self._enter("promote", member_id, timeout_seconds)

    def replace_members(
        self, targets: Sequence[TargetMember], *, force: bool, timeout_seconds: float
    ) -> None:
        """Remember the question."""
        self._enter("replace", tuple(targets), force, timeout_seconds)

    def transfer_leadership(self, member_id: str, timeout_seconds: float) -> None:
        """Remember the question."""
        self._enter("transfer", member_id, timeout_seconds)

    def admit(
        self,
        member_id: str,
        address: str,
        http_address: str,
        *,
        voter: bool,
        timeout_seconds: float,
    ) -> None:
        """Remember the question."""
        self._enter("join", member_id, address, http_address, voter, timeout_seconds)

    def expel(self, member_id: str, timeout_seconds: float) -> None:
        """Remember the question."""
        self._enter("remove", member_id, timeout_seconds)

    def stop(self, grace_seconds: float) -> None:  # noqa: ARG002
        """Remember that it was stopped."""
        self.stopped = True

    def _enter(self, *asked: object) -> None:
        self.asked.append(asked)
        del self.asked[:-1000]
        key = asked[1]
        self.before(key if isinstance(key, bytes) else b"")
        if self.error is not None:
            raise self.error
