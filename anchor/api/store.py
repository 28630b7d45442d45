"""What the API needs of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anchor.fsm import KeyValue, Result, SessionResult
    from anchor.node.consistency import Consistency
    from anchor.node.replacing import TargetMember
    from anchor.storage.backup_format import BackupHeader


class Backup(Protocol):
    """The pieces of a backup. Making one blocks the calling greenlet; ``close`` in any case."""

    @property
    def header(self) -> BackupHeader:
        """What it is of."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...

    def close(self) -> None:
        """Let go of what it holds."""


class Membership(Protocol):
    """Who belongs to the cluster, and who leads it. Blocks and raises as a ``Store`` does."""

    def members(self) -> Mapping[str, object]:
        """Say who the members are, as this node knows them, ready for JSON."""

    def leader(self) -> Mapping[str, object]:
        """Say who leads, ready for JSON; raises NoLeader."""

    def admit(
        self,
        member_id: str,
        address: str,
        http_address: str,
        *,
        voter: bool,
        timeout_seconds: float,
    ) -> None:
        """Make the node at an address a member; return once it is."""

    def expel(self, member_id: str, timeout_seconds: float) -> None:
        """Let a member go; return once it is out."""

    def promote(self, member_id: str, timeout_seconds: float) -> None:
        """Give a member a vote; return once it has it."""

    def replace_members(
        self, targets: Sequence[TargetMember], *, force: bool, timeout_seconds: float
    ) -> None:
        """Make these the members; return once they are."""

    def transfer_leadership(self, member_id: str, timeout_seconds: float) -> None:
        """Let this voter lead, or any other if it is empty; return once it does."""


class Store(Protocol):
    """A running node. Its methods block the calling greenlet and raise ``NodeError``."""

    @property
    def applied_index(self) -> int:
        """How far the state machine has got."""

    @property
    def leader_id(self) -> str | None:
        """Who leads, as far as this node knows."""

    @property
    def cluster_id(self) -> str:
        """The cluster's; empty until the node is in one."""

    @property
    def speaks_sessions(self) -> bool:
        """Whether all members know of sessions, idempotency keys and conditions."""

    @property
    def term(self) -> int:
        """The current term."""

    def write(
        self, command: bytes, key: bytes | None, timeout_seconds: float
    ) -> Result | SessionResult:
        """Have one serialized command applied, which writes a key or none."""

    def read(self, key: bytes, consistency: Consistency, timeout_seconds: float) -> KeyValue | None:
        """Read a key as fresh as asked; None where it is not there."""

    def backup(self, consistency: Consistency, timeout_seconds: float) -> Backup:
        """Begin a backup, as fresh as asked."""

    def status(self) -> Mapping[str, object]:
        """Say what there is to say about this node, ready for JSON."""

    @property
    def membership(self) -> Membership:
        """The part of it that knows who belongs."""

    def stop(self, grace_seconds: float) -> None:
        """Hand over if leading, let what is under way finish, and end."""
