"""Snapshots for members that are behind the log: sent while this node leads and goes on serving.

A transfer reads files that stay as they are, in a native thread, chunk by chunk; few run at once.
Meanwhile, and until the member has caught up with the log as it was at the end of the transfer,
the log keeps what it will need next; a member that gets no further loses that.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Protocol

import gevent
from gevent.lock import BoundedSemaphore

from anchor.raft import Role
from anchor.storage import (
    SNAPSHOT_FORMAT,
    TABLE_SUFFIX,
    CorruptionError,
    DiskFullError,
    translate_os,
)
from anchor.transport import (
    SnapshotFile,
    SnapshotManifest,
    SnapshotRefused,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.node.snapshots import Snapshots
    from anchor.raft import InstallSnapshot, Raft
    from anchor.storage import Snapshot
    from anchor.transport import SnapshotPosition, Transport

_log = logging.getLogger("anchor.node")

TRANSFERS_AT_ONCE = 2  # one member that is slow does not keep another waiting
POLL_SECONDS = 0.1
RENEWAL_SECONDS = 10.0  # a snapshot is not taken for a member more often than this
PATIENCE_SECONDS = 10.0  # for a member that gets no further with the log after its snapshot
FIRST_PAUSE_SECONDS = 1.0  # after a transfer that failed; then twice as long, and so on
LAST_PAUSE_SECONDS = 30.0
# While clients wait for writes, a transfer rests for so many times as long as a chunk has taken:
# the processors and the disk are theirs for most of the time, however fast those are.
COURTESY = 3.0
COURTESY_SECONDS_MAX = 0.1


class Owner(Protocol):
    """The node."""

    raft: Raft

    def wake(self) -> None:
        """The core was told something."""

    def is_busy(self) -> bool:
        """Whether clients wait for writes."""

    def die(self, why: str) -> None:
        """Something is wrong that no retry can mend."""


class _NotWantedError(Exception):
    """This node leads no more, or the member needs another snapshot by now."""


class SnapshotSender:
    """Sends what the core asks to be sent. ``send`` is hub-safe."""

    def __init__(
        self,
        transport: Transport,
        snapshots: Snapshots,
        owner: Owner,
        rate: int,
    ) -> None:
        """``rate`` is for all transfers together, in bytes a second; 0 for no limit."""
        self._raft = owner.raft
        self._transport = transport
        self._snapshots = snapshots
        self._owner = owner
        self._pace = Pace(rate, owner.is_busy)
        self._slots = BoundedSemaphore(TRANSFERS_AT_ONCE)
        self._wanted: dict[str, InstallSnapshot] = {}
        self._serving: dict[str, gevent.Greenlet[..., None]] = {}
        self._failures: dict[str, int] = {}
        self._renewed_at = -RENEWAL_SECONDS

    def send(self, message: InstallSnapshot) -> None:
        """Send this snapshot to its recipient, in place of what was wanted for it before."""
        self._wanted[message.recipient] = message
        if message.recipient not in self._serving:
            self._serving[message.recipient] = gevent.spawn(self._serve, message.recipient)

    def stop(self) -> None:
        """End all transfers."""
        gevent.killall(list(self._serving.values()), timeout=1)

    def _serve(self, recipient: str) -> None:
        try:
            while (message := self._wanted.pop(recipient, None)) is not None:
                if self._try(message):
                    self._failures.pop(recipient, None)
                    self._let_catch_up(message)
        except Exception as error:  # noqa: BLE001 - as with any other greenlet of the node
            self._owner.die(f"{error}" or type(error).__name__)
        finally:
            del self._serving[recipient]
            self._snapshots.keep_log_no_more(recipient)

    def _try(self, message: InstallSnapshot) -> bool:
        """Whether it got there. If not, there was a pause, and the core has been told."""
        success = False
        try:
            self._await_connection(message)
            with self._slots:
                success = self._transfer(message)
        except _NotWantedError:
            return False
        except (TransportError, DiskFullError) as error:
            pause = min(
                FIRST_PAUSE_SECONDS * 2 ** self._failures.get(message.recipient, 0),
                LAST_PAUSE_SECONDS,
            )
            self._failures[message.recipient] = self._failures.get(message.recipient, 0) + 1
            _log.warning(
                "could not send a snapshot to %s: %s; tries again in %g s",
                message.recipient,
                error,
                pause,
            )
            self._snapshots.keep_log_no_more(message.recipient)
            gevent.sleep(pause)
        if self._is_wanted(message):
            self._raft.snapshot_sent(message.recipient, success)
            self._owner.wake()
        return success

    def _is_wanted(self, message: InstallSnapshot) -> bool:
        return (
            self._raft.role is Role.LEADER
            and self._raft.term == message.term
            and message.recipient in self._raft.progress
            and message.recipient not in self._wanted
        )

    def _check_wanted(self, message: InstallSnapshot) -> None:
        if not self._is_wanted(message):
            raise _NotWantedError

    def _await_connection(self, message: InstallSnapshot) -> None:
        """A member that is away gets its snapshot when it is back; the log waits for none."""
        while not self._transport.connected(message.recipient):
            self._check_wanted(message)
            gevent.sleep(POLL_SECONDS)

    def _transfer(self, message: InstallSnapshot) -> bool:
        """Whether it got there; not if there is a newer one, which the core asks for next."""
        self._check_wanted(message)
        if self._snapshots.newest != message.snapshot or self._renew():
            return False
        # At once: waiting for the snapshot's files, the log may be compacted.
        self._snapshots.keep_log(message.recipient, message.snapshot.last_included_index)
        held = self._snapshots.find(message.snapshot)
        if held is None:
            self._snapshots.take().release()
            return False
        with held:
            began = time.monotonic()
            source = Source(held.snapshot, self._pace, lambda: self._check_wanted(message))
            try:
                self._transport.send_snapshot(message, source)
            except SnapshotRefused:
                self._look_for_damage(held.snapshot)
                raise
            finally:
                source.close()
            _say_sent(message, source.size_bytes, time.monotonic() - began)
        return True

    def _renew(self) -> bool:
        """Whether a fresh snapshot was taken: files travel faster than a long log is applied."""
        if not self._snapshots.is_old() or time.monotonic() - self._renewed_at < RENEWAL_SECONDS:
            return False
        self._renewed_at = time.monotonic()
        self._snapshots.take().release()
        return True

    def _look_for_damage(self, snapshot: Snapshot) -> None:
        """Raises CorruptionError if a table is damaged: this node's own state has it too."""
        try:
            gevent.get_hub().threadpool.apply(snapshot.verify)
        except CorruptionError as error:
            if error.path.suffix == TABLE_SUFFIX:
                raise
            _log.warning("drops a damaged snapshot: %s: %s", error.path, error.detail)
            self._snapshots.discard(snapshot.metadata)

    def _let_catch_up(self, message: InstallSnapshot) -> None:
        goal = self._raft.last_log_index
        best, moved_at = 0, time.monotonic()
        while self._is_wanted(message):
            match_index = self._raft.progress[message.recipient].match_index
            if match_index > best:
                best, moved_at = match_index, time.monotonic()
                self._snapshots.keep_log(message.recipient, match_index)
            if best >= goal or time.monotonic() - moved_at > PATIENCE_SECONDS:
                return
            gevent.sleep(POLL_SECONDS)


class Pace:
    """Lets bytes pass at a rate, and clients first."""

    def __init__(self, rate: int, is_busy: Callable[[], bool]) -> None:
        """``is_busy`` says whether clients wait for anything."""
        self._rate = rate
        self._is_busy = is_busy
        self._free_at = 0.0
        self._passed_at = 0.0

    def wait(self, size_bytes: int) -> None:
        """Sleep until so much may pass."""
        if self._is_busy():
            took = time.monotonic() - self._passed_at
            gevent.sleep(min(COURTESY * took, COURTESY_SECONDS_MAX))
        if self._rate:
            self._keep_to_rate(size_bytes)
        self._passed_at = time.monotonic()

    def _keep_to_rate(self, size_bytes: int) -> None:
        now = time.monotonic()
        starts_at = max(now, self._free_at)
        self._free_at = starts_at + size_bytes / self._rate
        if starts_at > now:
            gevent.sleep(starts_at - now)


class Source:
    """The ``transport.SnapshotSource`` of a snapshot that is held."""

    def __init__(self, snapshot: Snapshot, pace: Pace, check: Callable[[], None]) -> None:
        """``check`` raises whatever shall end the transfer."""
        self._snapshot = snapshot
        self._pace = pace
        self._check = check
        self._open: tuple[int, int] | None = None  # place of a file in the manifest, its handle
        files = snapshot.manifest.files
        self.size_bytes = sum(file.size_bytes for file in files)
        self.manifest = SnapshotManifest(
            SNAPSHOT_FORMAT,
            tuple(SnapshotFile(f.name, f.size_bytes, bytes.fromhex(f.sha256)) for f in files),
        )

    def read(self, position: SnapshotPosition, size_bytes: int) -> bytes:
        """Give that much; raises CorruptionError if the file is shorter than it was."""
        self._check()
        self._pace.wait(size_bytes)
        content: bytes = gevent.get_hub().threadpool.apply(
            self._read, (position.file, position.offset, size_bytes)
        )
        return content

    def _read(self, file: int, offset: int, size_bytes: int) -> bytes:
        path = self._snapshot.file_path(self._snapshot.manifest.files[file])
        try:
            if self._open is None or self._open[0] != file:
                self.close()
                self._open = (file, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            content = os.pread(self._open[1], size_bytes, offset)
        except FileNotFoundError:
            raise CorruptionError(path, "is missing") from None
        except OSError as error:
            raise translate_os(error, path) from None
        if len(content) < size_bytes:
            raise CorruptionError(path, "is shorter than it was")
        return content

    def close(self) -> None:
        """Close what is open."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None


def _say_sent(message: InstallSnapshot, size_bytes: int, seconds: float) -> None:
    _log.info(
        "sent %s the state as of entry %d: %.1f MB in %.1f s",
        message.recipient,
        message.snapshot.last_included_index,
        size_bytes / 1e6,
        seconds,
    )
