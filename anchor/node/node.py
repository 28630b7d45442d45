"""A node: the greenlets that turn a replica's decisions into acts, and what clients may ask.

Who does what
=============

=============  ==================================================================================
owner          lets the replica work, woken by whoever gave it something to do
persist        hears from the native thread that makes the log durable: the hub never waits
ticker         turns the clock into ticks; sweeps out requests whose time is up
scrub          reads everything on the disk, slowly, to find damage before it is needed
snapshots      takes a snapshot when one is due, and drops the log before it
steward        as leader: promotes learners that have caught up, compares digests
joiner         until this node is in a cluster: asks its peers to be let in, or founds one
departure      while no leader is heard: finds out whether this node was removed meanwhile
=============  ==================================================================================

Everything runs on the hub's one thread, and calls into the replica are short: nothing takes a lock.
A message and a finished sync let the replica work at once; ``_work`` is never entered twice, and
whoever comes while it runs has only added to what it does.

Whatever goes wrong in a way that no retry can mend (a failed
fsync, corruption, diverged state, a broken invariant) ends in ``fatal``: one line, and the node
stops rather than serve what it cannot vouch for.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import gevent

from anchor.fsm import FsmError
from anchor.node.backups import Backups, BackupStream
from anchor.node.consistency import Consistency
from anchor.node.disk import Disk
from anchor.node.errors import NodeError, Removed, Stopping
from anchor.node.forwarding import Forwarding
from anchor.node.leader_clock import SESSIONS_PROTOCOL
from anchor.node.membership import Membership
from anchor.node.replica import Replica
from anchor.node.snapshot_sending import SnapshotSender
from anchor.node.snapshots import Snapshots
from anchor.node.space import Space
from anchor.node.status import status_of
from anchor.node.versions import why_too_old
from anchor.node.waiting import Signal, Waiter
from anchor.raft import InstallSnapshot, InvalidMessage, Role
from anchor.settings import OUT_OF_ROOM
from anchor.storage import DiskFullError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anchor.fsm import KeyValue, Result, SessionResult, StateMachine
    from anchor.node.compaction import Thresholds
    from anchor.node.joining import JoinOptions
    from anchor.node.snapshot_receiving import SnapshotReceptions
    from anchor.node.writes import Batch
    from anchor.raft import Configuration, Member, Message, Raft, Ready
    from anchor.storage import DataDirectory
    from anchor.transport import Transport

_log = logging.getLogger("anchor.node")

TICKS_PER_HEARTBEAT = 5
SWEEP_SECONDS = 0.1  # how often deadlines are looked at
SCRUB_SECONDS = 0.25  # how often a slice is read


def boot_clock() -> float:
    """Seconds of a clock that no one sets and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# Where the machine has no such clock, a sleeping machine is a paused process and no more.
clock: Callable[[], float] = boot_clock if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic


@dataclass(frozen=True, slots=True)
class Parts:
    """What a node is made of; :func:`anchor.node.open_node` puts it together."""

    directory: DataDirectory
    raft: Raft
    machine: StateMachine
    transport: Transport
    itself: Member
    origin: int
    peers: Sequence[str]
    tick_seconds: float
    election_timeout_seconds: float
    version: str
    joining: JoinOptions
    receptions: SnapshotReceptions
    thresholds: Thresholds
    snapshot_rate: int
    quota_bytes: int = 0


class Fatal(Protocol):
    """What is called when a node must stop by itself: with a line, and the process's status."""

    def __call__(self, message: str, status: int = 1) -> None:
        """Say the line, and end with the status."""


class Node:
    """One running member of a cluster."""

    def __init__(self, parts: Parts, fatal: Fatal) -> None:
        self._parts = parts
        self._fatal = fatal
        self._transport = parts.transport
        self._machine = parts.machine
        self.raft = parts.raft
        self.replica = Replica(
            parts.raft,
            parts.directory.log,
            parts.machine,
            self,
            origin=parts.origin,
            tick_ms=parts.tick_seconds * 1000,
        )
        self.forwarding = Forwarding(self.replica, parts.transport)
        self.membership = Membership(self, parts)
        self.space = Space(parts.directory, parts.quota_bytes)
        self._handing_over = False
        self._tidying = False
        self._backups = Backups(parts.directory, parts.version)
        self._wake = Signal()
        self._disk = Disk(parts.directory.log.sync)
        self.snapshots = Snapshots(parts.directory, parts.raft, parts.thresholds, die=self._die_of)
        parts.receptions.alone = self.snapshots.alone
        self._sender = SnapshotSender(
            parts.transport,
            self.snapshots,
            self,
            parts.snapshot_rate,
        )
        self._syncing = 0  # the number of the newest Ready that the sync under way covers
        self._sync_began = 0.0
        self._ticks_done = 0
        self._next_sweep = 0.0
        self._started = clock()
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._leader_seen: tuple[int, str | None, Role] = (0, None, Role.FOLLOWER)
        self._working = False
        self._stopping = False
        self._dead = False

    # ----------------------------------------------------------------- life

    def start(self) -> None:
        """Begin to take part. The transport must have been started."""
        self._look_at_space()
        configuration = self.raft.configuration
        self.configuration_changed(configuration)
        if configuration.voters == {self.raft.id} and not configuration.voters_outgoing:
            self.raft.campaign()  # nobody else could: no need to wait for silence
        membership = self.membership
        loops = [self._own, self._persist, self._tick, self._scrub, self.snapshots.run]
        loops += [membership.steward, membership.departure.run]
        if membership.joiner.is_needed:
            loops.append(membership.joiner.run)
        self._greenlets = [gevent.spawn(self._guard, loop) for loop in loops]
        self._wake.set()

    def stop(self, grace_seconds: float = 3.0) -> None:
        """Hand over if leading, let what is under way finish, and end. Idempotent."""
        if self._stopping:
            return
        deadline = time.monotonic() + grace_seconds
        if not self._dead:
            self.membership.leading.hand_over(grace_seconds / 2)
            while len(self.replica.writes) and time.monotonic() < deadline:
                gevent.sleep(0.01)
        self._stopping = True
        self._fail_all("the node is stopping; nothing was done")
        gevent.killall(self._greenlets, timeout=1)
        self._sender.stop()
        self._transport.stop(0.3)
        self._backups.end_all(timeout_seconds=0.5)
        with suppress(gevent.Timeout), gevent.Timeout(1):
            self._parts.receptions.forget()
        if self.snapshots.stop(timeout_seconds=2.0) and self._disk.stop(timeout_seconds=1.0):
            self._parts.directory.close()
        else:
            _log.warning("its disk does not answer; leaves without closing its files")

    def is_busy(self) -> bool:
        """Whether clients wait for writes."""
        return len(self.replica.writes) > 0

    def _fail_all(self, why: str) -> None:
        self.replica.writes.fail_all(Stopping, why)
        self.replica.reads.fail_all(Stopping, why)

    def die(self, why: str, status: int = 1) -> None:
        """Stop taking part at once, because something is wrong that no retry can mend."""
        if self._dead or self._stopping:
            return
        self._dead = True
        self.snapshots.halt()
        self._fail_all(f"the node stopped: {why}")
        self._fatal(why, status)

    def _die_of(self, error: Exception) -> None:
        """RocksDB goes on after a full disk only if it is opened anew: let the process be."""
        status = OUT_OF_ROOM if isinstance(error, DiskFullError) else 1
        self.die(f"{error}" or type(error).__name__, status)

    def _guard(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Exception as error:  # noqa: BLE001 - whatever it is, the node must not limp on
            if not isinstance(error, NodeError):
                _log.debug("fatal", exc_info=True)
            self._die_of(error)

    # ----------------------------------------------------------------- the greenlets

    def _own(self) -> None:
        while not self._dead:
            self._wake.wait()
            while self._work():
                gevent.sleep(0)

    def _work(self) -> bool:
        """Let the replica do what it can in one turn, never from inside itself; True for more."""
        if self._working or self._dead:
            return False
        self._working = True
        try:
            return self.replica.work()
        finally:
            self._working = False

    def _persist(self) -> None:
        while not self._dead:
            self._disk.wait()
            number, self._syncing = self._syncing, 0
            self.replica.synced(number)
            self.snapshots.synced(number)
            if self.replica.unsynced:
                self.written()
            if self._work():
                self._wake.set()

    def _tick(self) -> None:
        while not self._dead:
            gevent.sleep(self._parts.tick_seconds)
            self.catch_up_with_time()
            if time.monotonic() >= self._next_sweep:
                self._next_sweep = time.monotonic() + SWEEP_SECONDS
                self._sweep()
            self._wake.set()

    def catch_up_with_time(self) -> None:
        """Tell the core how late it is; after a pause, before anything that trusts the lease."""
        due = int((clock() - self._started) / self._parts.tick_seconds)
        if due > self._ticks_done:
            self.replica.tick(due - self._ticks_done)
            self._ticks_done = due

    def _look_at_space(self) -> None:
        """Act on a disk that has filled up, or has room again."""
        space, raft = self.space, self.raft
        space.look()
        raft.set_room(not space.is_full)
        refusal = space.refusal(b"") if space.is_full else None
        if refusal is not None:
            self.replica.writes.fail_gathered(refusal)
        if space.is_full and raft.role is Role.LEADER and not self._handing_over:
            self._handing_over = True
            gevent.spawn(self._guard, self._hand_over)
        if space.is_tidying_due(self.applied_index) and not self._tidying:
            self._tidying = True
            gevent.spawn(self._guard, self._tidy)

    def _hand_over(self) -> None:
        """Let somebody lead who has room."""
        try:
            self.membership.leading.hand_over_for_good(self._parts.election_timeout_seconds)
        finally:
            self._handing_over = False

    def _tidy(self) -> None:
        """Find out whether deletions have made room. That may take minutes."""
        try:
            index = self.applied_index
            self.snapshots.alone(lambda: self.space.tidy(index))
        finally:
            self._tidying = False

    def _sweep(self) -> None:
        now = time.monotonic()
        self._look_at_space()
        self.replica.writes.expire(now, self._leader_known)
        self.replica.reads.expire(now, self._leader_known)
        self.replica.end_what_is_due()
        syncing_seconds = clock() - self._sync_began if self._syncing else 0.0
        others = self.raft.configuration.voters - {self.raft.id}
        if (
            syncing_seconds > self._parts.election_timeout_seconds
            and self.raft.role is Role.LEADER
            and others
        ):
            self.raft.step_down()

    def _scrub(self) -> None:
        """Read everything once in a while, a slice at a time, to find rot before it is needed."""
        while True:
            gevent.sleep(SCRUB_SECONDS)
            self.snapshots.scrub()
            self._parts.receptions.forget_if_overtaken(self.raft.last_applied)

    def _leader_known(self) -> bool:
        return self.raft.leader_id is not None

    # ----------------------------------------------------------------- what clients ask

    def write(
        self, command: bytes, key: bytes | None, timeout_seconds: float
    ) -> Result | SessionResult:
        """Have one serialized command applied, which writes a key or none; raises a NodeError.

        CommitUnknown says that nobody knows; all others promise that nothing happened.
        """
        self._check_serving()
        if self.space.refuses and (refusal := self.space.refusal(command)) is not None:
            raise refusal
        waiter = Waiter(time.monotonic() + timeout_seconds)
        self.replica.write(command, key, waiter)
        self._wake.set()
        result: Result | SessionResult = waiter.wait()
        return result

    def read(self, key: bytes, consistency: Consistency, timeout_seconds: float) -> KeyValue | None:
        """Read a key, as fresh as asked; None where it is not there. Raises a NodeError."""
        self._check_serving()
        if consistency is not Consistency.STALE and not (
            consistency is Consistency.LEASE and self._lease_covers_now()
        ):
            waiter = Waiter(time.monotonic() + timeout_seconds)
            self.replica.read(waiter, lease=consistency is Consistency.LEASE)
            self._wake.set()
            waiter.wait()
        try:
            return self._machine.get(key)
        except (StorageError, FsmError) as error:
            self.die(str(error))
            raise Stopping("the node is stopping; nothing was read") from None

    def backup(self, consistency: Consistency, timeout_seconds: float) -> BackupStream:
        """Begin a backup of all there is, as fresh as asked. Raises a NodeError."""
        self.read(b"", consistency, timeout_seconds)  # it waits for what the backup has to hold
        return self._backups.begin()

    def _lease_covers_now(self) -> bool:
        if self.raft.role is not Role.LEADER:
            return False
        self.catch_up_with_time()
        return self.raft.lease_valid() and self._machine.applied_index >= self.raft.commit_index

    def _check_serving(self) -> None:
        if self._stopping or self._dead:
            raise Stopping("the node is stopping; nothing was done")
        if self.raft.is_removed:
            raise Removed("this node was removed from its cluster")

    def await_applied(self, index: int, deadline: float) -> None:
        """Sleep until the state machine has applied this much; raises a NodeError."""
        waiter = Waiter(deadline)
        self.replica.await_applied(waiter, index)
        self._wake.set()
        waiter.wait()

    def wake(self) -> None:
        """Let the owner look at the core again."""
        self._wake.set()

    @property
    def applied_index(self) -> int:
        """How far the state machine has got."""
        return self._machine.applied_index

    @property
    def session_count(self) -> int:
        """How many sessions of clients there are."""
        return self._machine.session_count

    @property
    def speaks_sessions(self) -> bool:
        """Whether all members know of sessions, idempotency keys and conditions."""
        return self.raft.cluster_speaks(SESSIONS_PROTOCOL)

    @property
    def cluster_id(self) -> str:
        """The cluster's; empty until this node is in one."""
        return self.membership.cluster_id

    @property
    def leader_id(self) -> str | None:
        """Who leads, as far as this node knows."""
        return self.raft.leader_id

    @property
    def term(self) -> int:
        """The current term."""
        return self.raft.term

    @property
    def first_log_index(self) -> int:
        """The first entry the log still holds."""
        return self._parts.directory.log.first_index()

    @property
    def digest(self) -> bytes:
        """The state machine's running digest, at ``applied_index``."""
        return self._machine.digest

    def status(self) -> dict[str, object]:
        """A JSON-ready object: see :mod:`anchor.node.status`."""
        return status_of(self, self._transport, self._parts.version)

    @property
    def uptime_seconds(self) -> float:
        """How long this node has been running."""
        return clock() - self._started

    # ----------------------------------------------------------------- replica.Outside

    def written(self) -> None:
        """Begin to make the log durable, unless that is under way already."""
        if not self._syncing:
            self._syncing = self.replica.written
            self._sync_began = clock()
            self._disk.begin()

    def send(self, messages: Sequence[Message]) -> None:
        """Pass the core's messages on."""
        if any(type(message) is InstallSnapshot for message in messages):
            for message in messages:
                if isinstance(message, InstallSnapshot):
                    self._sender.send(message)
            messages = [m for m in messages if not isinstance(m, InstallSnapshot)]
        self._transport.send(messages)

    def forward_writes(self, leader_id: str, batches: Sequence[Batch]) -> None:
        """Hand batches to the leader."""
        self.forwarding.writes(leader_id, batches)

    def forward_read(self, leader_id: str, number: int, *, lease: bool) -> None:
        """Ask the leader for a read index."""
        self.forwarding.read(leader_id, number, lease=lease)

    def configuration_changed(self, configuration: Configuration) -> None:
        """Let the transport speak to whoever is a member now."""
        if (why := why_too_old(configuration)) is not None:
            self.die(why)
        self.membership.configuration_changed(configuration)

    def role_changed(self) -> None:
        """Say in the log what happened, and why."""
        raft = self.raft
        seen = (raft.term, raft.leader_id, raft.role)
        if seen == self._leader_seen:
            return
        was = self._leader_seen
        if raft.role is Role.LEADER:
            _log.info("became leader of term %d", raft.term)
        elif raft.role is Role.PRE_CANDIDATE:
            _log.info("heard no leader; asks whether it would be elected in term %d", raft.term + 1)
        elif raft.role is Role.CANDIDATE:
            asked = was[2] is Role.FOLLOWER and was[1] is not None
            why = f"{was[1]} hands over" if asked else "a majority would elect it"
            _log.info("asks for votes in term %d: %s", raft.term, why)
        elif was[2] is Role.LEADER:
            _log.info("leads no more: %s", self._why_not(raft.leader_id))
        elif raft.leader_id is not None and (raft.term, raft.leader_id) != was[:2]:
            _log.info("follows %s in term %d", raft.leader_id, raft.term)
        self._leader_seen = seen

    def _why_not(self, leader_id: str | None) -> str:
        """Why this node, which led until now, leads no more."""
        if leader_id is not None:
            return f"{leader_id} leads term {self.raft.term}"
        if self.raft.term > self._leader_seen[0]:
            return f"there is a newer term, {self.raft.term}"
        if self._syncing and clock() - self._sync_began > self._parts.election_timeout_seconds:
            return "its disk does not answer"
        return "no majority has answered it for an election timeout"

    def install(self, ready: Ready) -> None:
        """Take a leader's snapshot in: its files are here, and its state is open."""
        assert ready.snapshot is not None  # noqa: S101 - narrows the type
        request = ready.snapshot
        directory = self._parts.directory
        directory.switch(self._parts.receptions.take(request.snapshot), ready.hard_state)
        self._machine.load(directory.state)
        self.snapshots.switched(ready.number)
        _log.info(
            "was behind the log of %s: has the state as of entry %d now",
            request.sender,
            request.snapshot.last_included_index,
        )

    # ----------------------------------------------------------------- what listener.py brings

    def receive(self, message: Message) -> None:
        """A member said this. Raises InvalidMessage for what none may say."""
        if self._dead or self.space.is_exhausted:
            return  # an answer may be a promise, and none could be kept
        try:
            self.replica.receive(message)
            # Not left to the owner: others would come first, and a quorum waits for this.
            if self._work():
                self._wake.set()
        except InvalidMessage:
            raise
        except Exception as error:  # noqa: BLE001 - a broken core must not go on
            self._die_of(error)

    def disconnected(self, member_id: str) -> None:
        """The stream to this member broke."""
        self.raft.disconnected(member_id)
        self._wake.set()
