"""What goes in and out of the core beside messages: options, storage, and the Ready."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from anchor.raft.entry import Entry
    from anchor.raft.messages import InstallSnapshot, Message, SnapshotMetadata


class Role(Enum):
    """What a member is at the moment. Learner is no role: it is a follower without a vote."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"  # thesis §9.6
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class HardState:
    """What must survive a crash beside the log (Figure 2: persistent state)."""

    term: int = 0
    voted_for: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """Times in ticks, sizes in bytes."""

    election_timeout_ticks: int = 50  # randomised in [n, 2n)
    heartbeat_ticks: int = 5
    # How long after sending what a quorum acknowledged the leader may answer without asking.
    # What is left of the election timeout is the allowance for clocks that drift.
    lease_ticks: int = 40
    max_append_bytes: int = 1 << 20  # entries in one AppendEntries; one always fits
    max_inflight_appends: int = 64  # sent and not acknowledged, for one member
    max_inflight_bytes: int = 8 << 20
    max_uncommitted_bytes: int = 64 << 20  # beyond that, proposals are refused
    max_committed_bytes: int = 4 << 20  # handed out in one Ready
    max_log_cache_bytes: int = 16 << 20  # entries kept in memory though stored and applied

    def __post_init__(self) -> None:
        """Refuse what cannot work: ValueError."""
        if not 0 < self.heartbeat_ticks < self.election_timeout_ticks:
            raise ValueError("heartbeats must be more frequent than elections")
        if not 0 <= self.lease_ticks < self.election_timeout_ticks:
            raise ValueError("a lease must be shorter than the election timeout")


class LogStorage(Protocol):
    """What the shell has stored, for reading. The core never writes."""

    def hard_state(self) -> HardState:
        """The newest one that was persisted."""

    def snapshot(self) -> SnapshotMetadata | None:
        """The newest snapshot, if there is one."""

    def first_index(self) -> int:
        """The first entry the log still holds; 1 for a fresh log."""

    def last_index(self) -> int:
        """The last entry; ``first_index() - 1`` if there is none."""

    def term(self, index: int) -> int:
        """The term of an entry, or of the snapshot's last one. Raises Compacted, Unavailable."""

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """Entries from low to high, both included; at least one. Raises Compacted, Unavailable."""

    def configuration_entries(self) -> list[Entry]:
        """All CONFIGURATION entries in the log, oldest first."""


@dataclass(frozen=True, slots=True)
class ReadState:
    """``context`` may be answered by a state machine that has applied ``index``."""

    context: Hashable
    index: int


@dataclass(frozen=True, slots=True)
class Proposed:
    """Where proposals were appended. Only while the term lasts is that where they stay."""

    term: int
    first_index: int
    last_index: int


@dataclass(slots=True)
class Ready:
    """Everything to do now; the duties are in :mod:`anchor.raft`."""

    number: int
    hard_state: HardState | None = None
    entries: Sequence[Entry] = ()
    snapshot: InstallSnapshot | None = None
    messages: list[Message] = field(default_factory=list)
    messages_after_persist: list[Message] = field(default_factory=list)
    committed: Sequence[Entry] = ()
    reads: list[ReadState] = field(default_factory=list)
    aborted_reads: list[Hashable] = field(default_factory=list)
    must_persist: bool = False
    role_changed: bool = False  # role, term or leader differ from the last Ready
