"""A store in memory, with switches for what can go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.fsm import KeyValue, Result
from anchor.fsm.fsm_pb2 import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anchor.node.consistency import Consistency
    from anchor.node.replacing import TargetMember

__all__ = ["FakeStore"]


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

    def status(self) -> Mapping[str, object]:
        """Say little."""
        return {"node_id": "node1", "role": "leader", "term": self.term}

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
