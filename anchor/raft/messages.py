"""Everything members say to each other, one frozen dataclass a message.

The names are those of the paper's Figure 2. What the paper leaves out is said beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anchor.raft.configuration import Configuration
    from anchor.raft.entry import Entry


@dataclass(frozen=True, slots=True)
class Message:
    """What every message carries: who speaks to whom, and in which term."""

    term: int
    sender: str
    recipient: str


@dataclass(frozen=True, slots=True)
class RequestVote(Message):
    """§5.2, §5.4.1. With ``pre_vote``, ``term`` is the one it would campaign in (thesis §9.6)."""

    last_log_index: int
    last_log_term: int
    pre_vote: bool = False
    leadership_transfer: bool = False  # thesis §4.2.3: overrides leader stickiness


@dataclass(frozen=True, slots=True)
class RequestVoteResponse(Message):
    """A granted pre-vote repeats the asked term; a refusal carries the voter's own term."""

    vote_granted: bool
    pre_vote: bool = False


@dataclass(frozen=True, slots=True)
class AppendEntries(Message):
    """§5.3. Empty ``entries`` make it a heartbeat, a probe, or news of the commit index."""

    prev_log_index: int
    prev_log_term: int
    entries: tuple[Entry, ...]
    commit_index: int
    read_round: int  # the newest ReadIndex round when this was sent; echoed (thesis §6.4)
    session: int  # the sender's replication session for this member; echoed


@dataclass(frozen=True, slots=True)
class AppendEntriesResponse(Message):
    """Success acknowledges all up to ``match_index``; a refusal says where to probe next.

    ``no_room``: send no entries until an answer says otherwise.
    """

    success: bool
    match_index: int
    rejected_index: int
    conflict_index: int
    conflict_term: int
    read_round: int
    session: int
    no_room: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotMetadata:
    """What a snapshot stands for: all entries up to ``last_included_index`` (§7).

    ``configuration`` is the newest *committed* one at that index, appended at
    ``configuration_index``.
    """

    last_included_index: int
    last_included_term: int
    configuration: Configuration
    configuration_index: int


@dataclass(frozen=True, slots=True)
class InstallSnapshot(Message):
    """§7. The shell sends the files; the core sees only what they amount to."""

    snapshot: SnapshotMetadata
    session: int


@dataclass(frozen=True, slots=True)
class InstallSnapshotResponse(Message):
    """The snapshot was installed (or was not needed any more): the member is at ``match_index``."""

    success: bool
    match_index: int
    session: int


@dataclass(frozen=True, slots=True)
class TimeoutNow(Message):
    """Thesis §3.10: the leader asks the recipient to campaign at once."""
