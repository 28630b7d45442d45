"""One simulated member: a real core, a simulated disk, a state machine that keeps a digest.

It does the shell's duties of ``anchor/raft/__init__.py`` in their order. By default it persists
and applies at once; with ``auto_persist`` or ``auto_apply`` off the test decides when.
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from anchor.raft import (
    Configuration,
    EntryKind,
    Options,
    Raft,
    Role,
    SnapshotMetadata,
)
from tests.raft.disk import SimulatedDisk, Write

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from anchor.raft import Entry, Message, Proposed, ReadState, Ready
    from tests.raft.network import Network

READYS_MAX = 1000  # in a row, before a core is taken to be running in circles
OPTIONS = Options(election_timeout_ticks=10, heartbeat_ticks=2, lease_ticks=7)


@dataclass(frozen=True, slots=True)
class AppliedState:
    """A state machine that remembers nothing but a digest of what it applied, and in order."""

    index: int = 0
    term: int = 0
    digest: int = 0
    configuration: Configuration | None = None
    configuration_index: int = 0

    def apply(self, entry: Entry) -> AppliedState:
        """Give the state after ``entry``."""
        assert entry.index == self.index + 1, f"applied {entry.index} after {self.index}"
        seen = b"%d %d %d " % (entry.index, entry.term, entry.kind) + entry.payload
        after = replace(
            self, index=entry.index, term=entry.term, digest=zlib.crc32(seen, self.digest)
        )
        if entry.kind is EntryKind.CONFIGURATION:
            decoded = Configuration.decode(entry.payload)
            after = replace(after, configuration=decoded, configuration_index=entry.index)
        return after

    def metadata(self) -> SnapshotMetadata:
        """Describe a snapshot of this state (§7)."""
        assert self.configuration is not None
        return SnapshotMetadata(self.index, self.term, self.configuration, self.configuration_index)


class Watcher(Protocol):
    """Who looks on, and complains when a promise is broken."""

    def before_send(self, server: Server, messages: Sequence[Message]) -> None:
        """``messages`` are about to leave ``server``."""

    def ready(self, server: Server, ready: Ready) -> None:
        """``server`` took ``ready`` and has not acted on it yet."""

    def applied(self, server: Server, entry: Entry) -> None:
        """``server`` applied ``entry``."""

    def changed(self, server: Server) -> None:
        """``server`` did something, and is at rest again."""


class Chosen(random.Random):
    """Chance that is chosen: every draw lands at ``fraction`` of the range it is drawn from."""

    fraction = 0.5

    def random(self) -> float:
        """Give the chosen fraction."""
        return self.fraction

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """Give the value at the chosen fraction of the range."""
        values = range(start) if stop is None else range(start, stop, step)
        return values[int(self.fraction * len(values))]

    def randint(self, a: int, b: int) -> int:
        """Give the value at the chosen fraction of [a, b]."""
        return self.randrange(a, b + 1)


class Server:
    """A member that can crash, be slow, and come back."""

    def __init__(
        self,
        member_id: str,
        network: Network,
        disk: SimulatedDisk,
        *,
        options: Options = OPTIONS,
        rng: random.Random | None = None,
        states: dict[int, AppliedState] | None = None,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self.id = member_id
        self.network = network
        self.disk = disk
        self.options = options
        self.rng = rng or Chosen()
        self.states = {} if states is None else states  # of all servers, for snapshots
        self.watchers = watchers
        self.auto_persist = True
        self.auto_apply = True
        self.is_busy = False  # more calls come before the next Ready is taken
        self.lives = 0
        self.flushed = AppliedState()  # what of the state machine survives a crash
        self.start()

    # Life and death ----------------------------------------------------------------------

    def start(self) -> None:
        """Start, or start again, from what is on disk."""
        self.lives += 1
        self.up = True
        self.state = self.flushed
        snapshot = self.disk.durable.snapshot
        if snapshot is not None and snapshot.last_included_index > self.state.index:
            self.state = self.states[snapshot.last_included_index]
        self.commands: list[bytes] = []  # applied in this life
        self.reads: list[ReadState] = []
        self.aborted_reads: list[Hashable] = []
        self.unsent: deque[tuple[int, list[Message]]] = deque()
        self.unapplied: deque[Entry] = deque()
        self.role_changes = 0
        self.raft = Raft(self.id, self.disk, self.options, self.rng, applied_index=self.state.index)
        self.settle()

    def crash(self, keep: int = 0) -> None:
        """Lose all that is not durable; the disk still got to the oldest ``keep`` writes."""
        self.up = False
        self.disk.crash(keep)
        self.unsent.clear()
        self.unapplied.clear()

    # What happens to a core --------------------------------------------------------------

    def tick(self, ticks: int = 1, *, elapsed: int = 1) -> None:
        """Let time pass: ``ticks`` calls of ``tick(elapsed)``."""
        for _ in range(ticks):
            self.raft.tick(elapsed)
            self.settle()

    def step(self, message: Message) -> None:
        """Receive ``message``; what the core raises is raised."""
        try:
            self.raft.step(message)
        finally:
            self.settle()

    def campaign(self) -> None:
        """Ask the core to campaign."""
        self.raft.campaign()
        self.settle()

    def propose(self, *payloads: bytes) -> Proposed:
        """Propose commands."""
        proposed = self.raft.propose(payloads)
        self.settle()
        return proposed

    def propose_configuration(self, target: Configuration) -> Proposed:
        """Propose to change the configuration."""
        proposed = self.raft.propose_configuration(target)
        self.settle()
        return proposed

    def read_index(self, context: Hashable) -> None:
        """Ask for a linearizable read point."""
        self.raft.read_index(context)
        self.settle()

    def want_commit(self, member_id: str, index: int) -> None:
        """Ask the core to tell ``member_id`` at once when ``index`` is committed."""
        self.raft.want_commit(member_id, index)
        self.settle()

    def transfer_leadership(self, member_id: str) -> None:
        """Ask the core to hand over to ``member_id``."""
        self.raft.transfer_leadership(member_id)
        self.settle()

    def disconnected(self, member_id: str) -> None:
        """Report a broken stream."""
        self.raft.disconnected(member_id)
        self.settle()

    def snapshot_sent(self, member_id: str, *, success: bool) -> None:
        """Report what became of a snapshot's transfer."""
        self.raft.snapshot_sent(member_id, success)
        self.settle()

    # The shell's duties ------------------------------------------------------------------

    def settle(self) -> None:
        """Take and handle all there is to do, unless busy."""
        if self.is_busy:
            return
        rounds = 0
        while self.raft.has_ready():
            self._handle(self.raft.ready())
            rounds += 1
            assert rounds < READYS_MAX, f"{self.id} never comes to rest"
        for watcher in self.watchers:
            watcher.changed(self)

    def _handle(self, ready: Ready) -> None:
        for watcher in self.watchers:
            watcher.ready(self, ready)
        snapshot = None if ready.snapshot is None else ready.snapshot.snapshot
        if snapshot is not None:
            self._install(snapshot)
        if ready.must_persist:
            self.disk.write(Write(ready.number, ready.hard_state, ready.entries, snapshot))
            self.unsent.append((ready.number, list(ready.messages_after_persist)))
        else:
            assert not ready.messages_after_persist, "duty 3: nothing to wait for"
            assert ready.hard_state is None
            assert not ready.entries
        self._send(ready.messages)
        self.unapplied.extend(ready.committed)
        self.reads.extend(ready.reads)
        self.aborted_reads.extend(ready.aborted_reads)
        self.role_changes += ready.role_changed
        if self.auto_persist:
            self._persist(None)
        if self.auto_apply:
            self._apply(None)

    def _install(self, snapshot: SnapshotMetadata) -> None:
        assert snapshot.last_included_index > self.state.index, "a snapshot may not go back"
        self.unapplied.clear()
        self.state = self.states[snapshot.last_included_index]
        self.raft.applied(snapshot.last_included_index)

    def _send(self, messages: Sequence[Message]) -> None:
        for watcher in self.watchers:
            watcher.before_send(self, messages)
        self.network.send(messages)

    def persist(self, count: int | None = None) -> None:
        """Let the disk finish the oldest ``count`` writes, and report them."""
        self._persist(count)
        self.settle()

    def _persist(self, count: int | None) -> None:
        number = self.disk.sync(count)
        if number is None:
            return
        self.raft.persisted(number)
        while self.unsent and self.unsent[0][0] <= number:
            self._send(self.unsent.popleft()[1])

    def apply(self, count: int | None = None) -> None:
        """Let the state machine apply the next ``count`` committed entries, and report it."""
        self._apply(count)
        self.settle()

    def _apply(self, count: int | None) -> None:
        for _ in range(len(self.unapplied) if count is None else min(count, len(self.unapplied))):
            entry = self.unapplied.popleft()
            self.state = self.state.apply(entry)
            self.states.setdefault(entry.index, self.state)
            if entry.kind is EntryKind.COMMAND:
                self.commands.append(entry.payload)
            for watcher in self.watchers:
                watcher.applied(self, entry)
            if not self.unapplied or count is not None:
                self.raft.applied(self.state.index)

    def flush(self) -> None:
        """Make the state machine durable as of now."""
        self.flushed = self.state

    def compact(self, *, tail: int = 0) -> None:
        """Take a snapshot of what is applied and drop the log before it, less ``tail`` entries."""
        self.flush()
        self.disk.compact(self.state.metadata(), tail=tail)

    # Views -------------------------------------------------------------------------------

    @property
    def is_leader(self) -> bool:
        """Whether this server is up and leads, as far as it knows."""
        return self.up and self.raft.role is Role.LEADER

    def log_terms(self) -> list[int]:
        """Give the terms of all entries in the written log, oldest first."""
        return [entry.term for entry in self.disk.written.entries]

    def __str__(self) -> str:
        return str(self.status())

    def status(self) -> dict[str, Any]:
        """Say in a few words how this server is."""
        if not self.up:
            return {"id": self.id, "role": "down"}
        raft = self.raft
        return {
            "id": self.id,
            "role": raft.role.value,
            "term": raft.term,
            "leader": raft.leader_id,
            "commit": raft.commit_index,
            "last": raft.last_log_index,
            "applied": self.state.index,
        }
