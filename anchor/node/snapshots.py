"""Snapshots of this node's own state: taken when due, held while somebody reads them.

Whatever takes its time runs in a native thread, one thing at a time: making a snapshot, giving the
space of dropped entries back, closing a state that was replaced, and the slices of the scrub. What
changes the log is a few µs on the hub.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

import gevent
from gevent.lock import BoundedSemaphore

from anchor.node.compaction import Thresholds, place_among
from anchor.node.errors import Stopping
from anchor.storage import CorruptionError, DiskFullError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.raft import Raft, SnapshotMetadata
    from anchor.storage import DataDirectory, Snapshot

_log = logging.getLogger("anchor.node")
_T = TypeVar("_T")

CHECK_SECONDS = 0.25
# At most this share of the time goes into snapshots, unless they come more rarely than that anyway.
TIME_SHARE = 0.1
REST_SECONDS_MAX = 30.0
DISK_FULL_SECONDS = 10.0  # until it is tried again


class HeldSnapshot:
    """A snapshot whose files stay until ``release``, or the end of a ``with``."""

    def __init__(self, snapshots: Snapshots, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._snapshots: Snapshots | None = snapshots

    def release(self) -> None:
        """Let it go; may be called again."""
        if self._snapshots is not None:
            self._snapshots.release(self.snapshot)
            self._snapshots = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Snapshots:
    """Takes snapshots and compacts the log. ``run`` is for a greenlet of its own."""

    def __init__(
        self,
        directory: DataDirectory,
        raft: Raft,
        thresholds: Thresholds,
        *,
        die: Callable[[StorageError], None],
    ) -> None:
        """``die`` is called with what went wrong, if the node cannot go on after it."""
        self._directory = directory
        self._die = die
        self._stopped = False
        self._raft = raft
        self._thresholds = thresholds
        self._lock = BoundedSemaphore(1)
        self._under_way: Any = None  # what the native thread does, or did last
        self._scrubbing = directory.scrub()
        self._log_needed: dict[str, int] = {}  # by member: the last entry it has, or gets
        self._rest_until = 0.0
        self._disk_was_full = False
        self._switched_by: int | None = None  # the Ready whose snapshot replaced the state
        self.taken_at: float | None = self._read_time()

    def take(self) -> HeldSnapshot:
        """Give a snapshot of the state as it is now, or a little later.

        Blocks this greenlet until it is made. Raises StorageError: DiskFullError, if that is why;
        Stopping.
        """
        with self._lock:
            newest, snapshot = self.newest, None
            if newest and newest.last_included_index == self._raft.last_applied:
                snapshot = self._find(newest)
            if snapshot is None:
                self._check_space()
                snapshot = self._in_thread(self._directory.create_snapshot)
                self._record(snapshot.metadata)
            self._directory.snapshots.hold(snapshot)
            return HeldSnapshot(self, snapshot)

    def find(self, metadata: SnapshotMetadata) -> HeldSnapshot | None:
        """Give the snapshot that ends with this entry, if it is here. Blocks this greenlet."""
        with self._lock:
            snapshot = self._find(metadata)
            if snapshot is None:
                return None
            self._directory.snapshots.hold(snapshot)
            return HeldSnapshot(self, snapshot)

    def _find(self, metadata: SnapshotMetadata) -> Snapshot | None:
        """Give a snapshot; one whose manifest is damaged is none, and goes."""
        try:
            return self._directory.snapshots.find(metadata)
        except CorruptionError as error:
            _log.warning("drops a damaged snapshot: %s: %s", error.path, error.detail)
            self._directory.snapshots.discard(metadata)
            return None

    def release(self, snapshot: Snapshot) -> None:
        """See HeldSnapshot."""
        self._directory.snapshots.release(snapshot)

    def discard(self, metadata: SnapshotMetadata) -> None:
        """Remove one that is damaged."""
        self._exclusively(lambda: self._directory.snapshots.discard(metadata))

    def alone(self, call: Callable[[], None]) -> None:
        """Make a blocking call while nothing else here works on the files. Blocks this greenlet."""
        self._exclusively(call)

    def keep_log(self, member_id: str, index: int) -> None:
        """Drop no entry after ``index``: the member will need it."""
        self._log_needed[member_id] = index

    def keep_log_no_more(self, member_id: str) -> None:
        """The member has what it needs, or will never have it."""
        self._log_needed.pop(member_id, None)

    @property
    def newest(self) -> SnapshotMetadata | None:
        """What the newest snapshot stands for."""
        return self._directory.log.snapshot()

    def is_old(self) -> bool:
        """Whether so much of the log follows the newest that it is worth taking another one."""
        newest = self.newest
        index = newest.last_included_index if newest else 0
        return (
            self._raft.last_applied - index > self._thresholds.tail_entries
            or self._directory.log.sizes.bytes_after(index) > self._thresholds.tail_bytes // 8
        )

    def status(self) -> dict[str, object]:
        """What ``GET /status`` says of them."""
        newest = self.newest
        taken_at = self.taken_at
        return {
            "snapshot_index": newest.last_included_index if newest else 0,
            "snapshot_time": None
            if newest is None or taken_at is None
            else datetime.fromtimestamp(taken_at, UTC).isoformat(timespec="seconds"),
        }

    # ----------------------------------------------------------------- compaction

    def run(self) -> None:
        """Take a snapshot whenever one is due, and drop what it stands for."""
        while not self._stopped:
            gevent.sleep(CHECK_SECONDS)
            try:
                if self._is_due():
                    self._compact()
                self._drop_prefix(at_least=self._thresholds.tail_entries // 2 + 1)
            except DiskFullError as error:
                self._wait_for_space(error)

    def _is_due(self) -> bool:
        if self._raft.is_removed:
            return False  # the log is all that says so after a restart; and it grows no more
        log = self._directory.log
        newest = self.newest
        snapshot_index = newest.last_included_index if newest else 0
        return time.monotonic() >= self._rest_until and self._thresholds.are_passed(
            place_among(self._raft.id, self._raft.configuration),
            snapshot_index,
            self._raft.last_applied,
            log.sizes.bytes_after(snapshot_index),
        )

    def _compact(self) -> None:
        began = time.monotonic()
        with self.take() as held:
            metadata = held.snapshot.metadata
        self._drop_prefix(at_least=1)
        took = time.monotonic() - began
        self._rest_until = time.monotonic() + min(took / TIME_SHARE, REST_SECONDS_MAX)
        self._disk_was_full = False
        _log.debug(
            "took a snapshot of entry %d in %.3f s; the log starts at %d",
            metadata.last_included_index,
            took,
            self._directory.log.first_index(),
        )

    def _record(self, metadata: SnapshotMetadata) -> None:
        newest = self.newest
        # It may be of a state that another one has replaced meanwhile.
        if newest is None or metadata.last_included_index > newest.last_included_index:
            self._directory.log.record_snapshot(metadata)
            self.taken_at = time.time()

    def _drop_prefix(self, *, at_least: int) -> None:
        """Drop what nobody near needs any more, if it is that many entries."""
        log, thresholds, newest = self._directory.log, self._thresholds, self.newest
        if newest is None:
            return
        end = newest.last_included_index
        last_dropped = max(
            end - thresholds.tail_entries, log.sizes.first_after(thresholds.tail_bytes, end)
        )
        last_dropped = min(last_dropped, end, *self._log_needed.values())
        if last_dropped - log.first_index() + 1 >= at_least:
            log.drop_prefix(last_dropped)
            self._exclusively(log.reclaim)

    def _check_space(self) -> None:
        """Making one flushes what the state's buffers hold: half of the reserve is for that."""
        if self._directory.free_bytes() < self._directory.room.reserve_bytes() // 2:
            raise DiskFullError(f"{self._directory.path}: almost no space left on the disk")

    def _wait_for_space(self, error: DiskFullError) -> None:
        if not self._disk_was_full:
            _log.warning("cannot take a snapshot, so the log grows: %s", error)
        self._disk_was_full = True
        self._rest_until = time.monotonic() + DISK_FULL_SECONDS

    def _read_time(self) -> float | None:
        newest = self.newest
        snapshot = self._find(newest) if newest else None
        return snapshot.path.stat().st_mtime if snapshot else None

    # ----------------------------------------------------------------- another state

    def switched(self, number: int) -> None:
        """The Ready of this number has put another state in the place of this node's."""
        self._switched_by = number
        self.taken_at = time.time()

    def synced(self, number: int) -> None:
        """All up to the Ready of this number is durable."""
        if self._switched_by is not None and number >= self._switched_by:
            self._switched_by = None
            gevent.spawn(self._clear_up)

    def _clear_up(self) -> None:
        try:
            self._exclusively(self._retire)
        except Stopping:
            pass  # at the next start, then
        except StorageError as error:
            self._die(error)

    def _retire(self) -> None:
        self._scrubbing.close()
        self._directory.retire()
        self._scrubbing = self._directory.scrub()
        # A member that only ever gets snapshots makes none, and that is when the old ones go.
        self._directory.snapshots.remove_old()
        self._directory.log.reclaim()

    # ----------------------------------------------------------------- the native thread

    def scrub(self) -> None:
        """Read a slice of what is on the disk. Blocks this greenlet. Raises CorruptionError."""
        self._exclusively(self._scrub_slice)

    def _scrub_slice(self) -> None:
        self._scrubbing.step()

    def halt(self) -> None:
        """Begin nothing any more."""
        self._stopped = True

    def stop(self, timeout_seconds: float) -> bool:
        """Let go of the directory; False if something still works on it. Kill ``run`` first."""
        self.halt()
        if self._under_way is not None and not self._under_way.ready():
            self._under_way.wait(timeout_seconds)
            if not self._under_way.ready():
                return False
        self._scrubbing.close()
        return True

    def _exclusively(self, call: Callable[[], _T]) -> _T:
        with self._lock:
            return self._in_thread(call)

    def _in_thread(self, call: Callable[[], _T]) -> _T:
        # Whoever waited for the last thing may have been killed, and it goes on.
        if self._under_way is not None:
            self._under_way.wait()
        if self._stopped:
            raise Stopping("the node is stopping")
        self._under_way = gevent.get_hub().threadpool.spawn(call)
        result: _T = self._under_way.get()
        return result
