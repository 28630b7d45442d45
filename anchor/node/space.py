"""What a node does about its disk filling up, and about its quota.

Looked at ten times a second. The disk is *full* while less than the reserve is free
(:mod:`anchor.storage.room`): the node takes no new entries, hands over if it leads, and goes on
voting. It is *exhausted* when even terms and votes might not fit any more: the node takes no part
until that is over. Both end by themselves, when somebody makes room.

The quota is about what the data takes, as RocksDB estimates it: tables and buffers, less what was
overwritten or deleted. RocksDB knows of deletions once they are compacted, so while over quota the
state is compacted now and then; a write is refused meanwhile, a deletion goes through. Each node
asks its own disk, at its own front door: it is about admission, not part of the state machine.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import gevent

from anchor.fsm import takes_space
from anchor.node.errors import DiskFull, NodeError, QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.storage import DataDirectory

_log = logging.getLogger("anchor.node")

MEASURE_SECONDS = 0.5  # how often RocksDB is asked
TIDY_SECONDS = 2.0  # the least between two compactions over quota
HOLD_PAUSE_SECONDS = 10.0  # after a ballast that could not be taken on: a quota may forbid it
TIDY_SHARE = 0.1  # of the time, at most, is spent compacting
LIFTS_AT = 0.95  # of the quota, so that it is not lifted and imposed with each write


class Space:
    """The room that one node has. ``look`` before anything else, and often."""

    def __init__(
        self,
        directory: DataDirectory,
        quota_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self.quota_bytes = quota_bytes
        self.free_bytes = self.reserve_bytes = self.used_bytes = 0
        self.is_full = self.is_exhausted = self.is_over_quota = False
        self._measured_at = self._tidied_at = float("-inf")
        self._tidied_index = -1
        self._tidying_seconds = 0.0
        self._table_bytes = 0
        self._hold_at = float("-inf")
        self._holding: gevent.Greenlet[..., None] | None = None

    @property
    def refuses(self) -> bool:
        """Whether some writes are refused."""
        return self.is_full or self.is_over_quota

    def refusal(self, command: bytes) -> NodeError | None:
        """What is said to a write, if it is refused."""
        if self.is_full:
            return DiskFull(
                f"the disk of this node is full: {_mib(self.free_bytes)} are free, and "
                f"{_mib(self.reserve_bytes)} have to stay free; nothing was done"
            )
        if self.is_over_quota and takes_space(command):
            return QuotaExceeded(
                f"the data takes {_mib(self.used_bytes)}, and the quota is "
                f"{_mib(self.quota_bytes)}; delete something; nothing was done"
            )
        return None

    def look(self) -> None:
        """See how things are now. Hub-safe."""
        room = self._directory.room
        if self._clock() - self._measured_at >= MEASURE_SECONDS:
            self._measured_at = self._clock()
            self.used_bytes = self._directory.state.live_bytes()
            self.reserve_bytes = self._directory.reserve_bytes()
            self._table_bytes = self._directory.state.table_bytes()
            self._judge_quota()
        self.free_bytes = room.free_bytes()
        self._judge_room()
        if (
            self._has_plenty()
            and self._clock() >= self._hold_at
            and not self._holding
            and room.ballast_left < room.ballast_bytes
        ):
            self._holding = gevent.spawn(self._hold_ballast)

    def _hold_ballast(self) -> None:
        """Not on the hub: a slow disk takes its time."""
        room = self._directory.room
        gevent.get_hub().threadpool.apply(room.hold)
        if room.ballast_left < room.ballast_bytes:
            self._hold_at = self._clock() + HOLD_PAUSE_SECONDS

    def _has_plenty(self) -> bool:
        """Whether the ballast would not fill the disk again."""
        return self.free_bytes > self.reserve_bytes * 5 // 4 + self._directory.room.ballast_bytes

    def _judge_room(self) -> None:
        was_full, was_exhausted = self.is_full, self.is_exhausted
        enough = self.reserve_bytes * 9 // 8 if was_full else self.reserve_bytes
        self.is_full = self.free_bytes < enough
        minimum = self._directory.room.minimum_bytes
        self.is_exhausted = (
            self.free_bytes < (2 * minimum if was_exhausted else minimum)
            and not self._directory.room.ballast_left
        )
        if self.is_full and not was_full:
            _log.warning(
                "the disk is full: %s are free; takes no writes until %s are",
                _mib(self.free_bytes),
                _mib(self.reserve_bytes * 9 // 8),
            )
        elif was_full and not self.is_full:
            _log.info("there is room on the disk again: %s are free", _mib(self.free_bytes))
        if self.is_exhausted and not was_exhausted:
            _log.error("no room is left even for a vote: takes no part until there is")
        elif was_exhausted and not self.is_exhausted:
            _log.info("has room for votes again: takes part")

    def _judge_quota(self) -> None:
        if not self.quota_bytes:
            return
        was_over = self.is_over_quota
        limit = int(self.quota_bytes * LIFTS_AT) if was_over else self.quota_bytes
        self.is_over_quota = self.used_bytes >= limit
        if self.is_over_quota and not was_over:
            _log.warning(
                "the data takes %s: over quota; takes deletions only until it is less than %s",
                _mib(self.used_bytes),
                _mib(int(self.quota_bytes * LIFTS_AT)),
            )
        elif was_over and not self.is_over_quota:
            _log.info("the data takes %s: within quota again", _mib(self.used_bytes))

    def is_tidying_due(self, applied_index: int) -> bool:
        """Whether compacting may find out that the quota is kept."""
        pause = max(TIDY_SECONDS, self._tidying_seconds / TIDY_SHARE)
        return (
            self.is_over_quota
            and self._has_room_to_tidy(self.free_bytes)
            and applied_index != self._tidied_index
            and self._clock() - self._tidied_at >= pause
        )

    def _has_room_to_tidy(self, free_bytes: int) -> bool:
        """Whether all tables fit on the disk once more: so much a compaction may write at first.

        One that ran out of room would end the node, and the next one would be due after its start.
        """
        return not self.is_full and free_bytes > self._table_bytes + self.reserve_bytes

    def tidy(self, applied_index: int) -> None:
        """Compact the state, if there still is room for that. Blocking, for a native thread."""
        if not self._has_room_to_tidy(self._directory.room.free_bytes()):
            return
        began = self._clock()
        self._tidied_index = applied_index
        self._directory.state.compact()
        self._tidied_at = self._clock()
        self._tidying_seconds = self._tidied_at - began
        self._measured_at = float("-inf")

    def status(self) -> dict[str, object]:
        """What ``/status`` says of it."""
        return {
            "free_bytes": self.free_bytes,
            "reserve_bytes": self.reserve_bytes,
            "used_bytes": self.used_bytes,
            "quota_bytes": self.quota_bytes,
            "full": self.is_full,
            "over_quota": self.is_over_quota,
        }


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"
