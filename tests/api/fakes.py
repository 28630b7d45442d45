"""A store in memory, with switches for what can go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.fsm import KeyValue, Result
from anchor.fsm.fsm_pb2 import Command
from anchor.node.errors import Overloaded
from anchor.raft import Configuration
from anchor.storage import StorageError
from anchor.storage.backup_format import BackupHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

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
        self.applied_index = 1
        self.leader_id: str | None = "node1"
        self.term = 3
        self.values: dict[bytes, KeyValue] = {}
        self.error: Exception | None = None
        self.before: Callable[[bytes], None] = lambda _key: None
        self.asked: list[tuple[object, ...]] = []
        self.stopped = False
        self.open_backups = 0
        self.membership = self

    def write(self, command: bytes, key: bytes, timeout_seconds: float) -> Result:
        """Apply the command at once."""
        self._enter("write", key, timeout_seconds)
        self.applied_index += 1
        parsed = Command.FromString(command)
        before = self.values.pop(key, None)
        if parsed.WhichOneof("operation") == "delete":
            return Result(before is not None, 0, self.applied_index, 0)
        created = before.create_index if before else self.applied_index
        version = before.version + 1 if before else 1
        self.values[key] = KeyValue(parsed.put.value, created, self.applied_index, version)
        return Result(before is not None, created, self.applied_index, version)

    def read(self, key: bytes, consistency: Consistency, timeout_seconds: float) -> KeyValue | None:
        """Look it up."""
        self._enter("read", key, consistency, timeout_seconds)
        return self.values.get(key)

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
