"""What every log demands of whoever writes to it, and answers to whoever reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.raft import Compacted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anchor.raft import Entry, SnapshotMetadata


def check_append(first_index: int, last_index: int, entries: Sequence[Entry]) -> None:
    """Raise ValueError unless ``entries`` follow each other, and something in the log."""
    start = entries[0].index
    if not first_index <= start <= last_index + 1:
        raise ValueError(f"entry {start} does not fit a log from {first_index} to {last_index}")
    previous = entries[0]
    for entry in entries[1:]:
        if entry.index != previous.index + 1 or entry.term < previous.term:
            raise ValueError(
                f"entry {entry.index} of term {entry.term} cannot follow "
                f"entry {previous.index} of term {previous.term}"
            )
        previous = entry


def check_read(first_index: int, last_index: int, low: int, high: int) -> None:
    """Raise Compacted or Unavailable unless the log has all of [low, high]."""
    if low < first_index:
        raise Compacted(f"entry {low} is compacted; the log starts at {first_index}")
    if high > last_index:
        raise Unavailable(f"entry {high} is not there; the log ends at {last_index}")


def check_drop(
    first_index: int, last_index: int, snapshot: SnapshotMetadata | None, index: int
) -> None:
    """Raise ValueError unless a snapshot stands for all that would be dropped."""
    if not first_index <= index <= last_index:
        raise ValueError(f"entry {index} is not in a log from {first_index} to {last_index}")
    if snapshot is None or index > snapshot.last_included_index:
        raise ValueError(f"entry {index} cannot be dropped: no snapshot includes it")


def check_install(compacted_index: int, snapshot: SnapshotMetadata) -> None:
    """Raise ValueError unless the snapshot includes all that is compacted already."""
    if snapshot.last_included_index < compacted_index:
        raise ValueError(
            f"a snapshot up to {snapshot.last_included_index} cannot take the place of "
            f"entries compacted up to {compacted_index}"
        )
