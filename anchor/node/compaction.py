"""When a member takes a snapshot, and how much of the log it drops then.

Each does so by itself, at its own turn: the members of a cluster apply the same entries, so by
their places among the others they spread their turns evenly over ``entries``. By bytes they differ
by up to a quarter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anchor.raft import Configuration

# Of what lies between two snapshots this much stays in the log behind the newest, for members that
# are slow: they need no snapshot then.
TAIL_SHARE = 0.25
_SPREAD = 0.25  # of the bytes


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How much of the log may lie after a snapshot before the next is due."""

    entries: int
    size_bytes: int

    @property
    def tail_entries(self) -> int:
        """How many entries stay for those who are slow."""
        return int(self.entries * TAIL_SHARE)

    @property
    def tail_bytes(self) -> int:
        """How large those may be."""
        return int(self.size_bytes * TAIL_SHARE)

    def are_passed(
        self, place: float, snapshot_index: int, applied_index: int, size_bytes: int
    ) -> bool:
        """Whether the next snapshot is due; ``size_bytes`` of log follow the last one."""
        if applied_index <= snapshot_index:
            return False
        phase = int(self.entries * place)
        by_entries = (applied_index + phase) // self.entries
        return by_entries > (
            snapshot_index + phase
        ) // self.entries or size_bytes >= self.size_bytes * (1 - _SPREAD * place)


def place_among(member_id: str, configuration: Configuration) -> float:
    """Give where this member stands among all: 0 for the first, below 1 for the last."""
    ids = sorted(configuration.members)
    return ids.index(member_id) / len(ids) if member_id in ids else 0.0
