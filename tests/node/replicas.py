"""Replicas without greenlets: three members in one thread, every step taken by the test."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

from anchor.fsm import StateMachine, encode_put
from anchor.node.replica import Replica
from anchor.raft import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Member,
    Options,
    Raft,
    Refused,
    SnapshotMetadata,
)
from anchor.settings import NEWEST_PROTOCOL
from anchor.storage import MemoryLog
from tests.node.test_writes import Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anchor.node.writes import Batch
    from anchor.raft import Message, Ready

IDS = ("n1", "n2", "n3")
TICK_MS = 20


class DictStore:
    """A state store that is a dict."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """Give the record at ``key``."""
        return self.records.get(key)

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Make all changes."""
        for key, record in changes.items():
            if record is None:
                self.records.pop(key, None)
            else:
                self.records[key] = record

    def iterate(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Give all records whose key starts so, from ``start`` on."""
        found = sorted(self.records.items())
        return ((k, v) for k, v in found if k.startswith(prefix) and k >= start)


class Outside:
    """Carries everything over a network that a test can cut."""

    def __init__(self, world: World, member_id: str) -> None:
        self._world = world
        self._id = member_id
        self.roles = 0

    def written(self) -> None:
        """The world syncs when it likes."""

    def send(self, messages: Sequence[Message]) -> None:
        """To members."""
        self._world.wire.extend(messages)

    def forward_writes(self, leader_id: str, batches: Sequence[Batch]) -> None:
        """To the leader."""
        self._world.forwarded.append((self._id, leader_id, list(batches)))

    def forward_read(self, leader_id: str, number: int, *, lease: bool) -> None:
        """To the leader."""
        self._world.questions.append((self._id, leader_id, number, lease))

    def configuration_changed(self, configuration: Configuration) -> None:
        """Nobody to tell."""

    def role_changed(self) -> None:
        """Count it."""
        self.roles += 1

    def install(self, ready: Ready) -> None:
        """No log is compacted here."""
        raise AssertionError(ready)


class World:
    """Three replicas and what is between them."""

    def __init__(self, protocol_version: int = NEWEST_PROTOCOL) -> None:
        configuration = Configuration(
            members={i: Member(i, f"{i}:1") for i in IDS},
            voters=frozenset(IDS),
            protocol_version=protocol_version,
        )
        first = Entry(1, 1, EntryKind.CONFIGURATION, configuration.encode())
        self.wire: deque[Message] = deque()
        self.forwarded: deque[tuple[str, str, list[Batch]]] = deque()
        self.questions: deque[tuple[str, str, int, bool]] = deque()
        self.cut: set[str] = set()
        self.slow_disks: set[str] = set()
        self.stores = {i: DictStore() for i in IDS}
        self.logs = {i: MemoryLog() for i in IDS}
        self.outsides = {i: Outside(self, i) for i in IDS}
        self.replicas: dict[str, Replica] = {}
        for number, member_id in enumerate(IDS):
            log = self.logs[member_id]
            log.append([first], HardState(1))
            log.sync()
            options = Options(max_log_cache_bytes=0)
            raft = Raft(member_id, log, options, random.Random(number))
            self.replicas[member_id] = Replica(
                raft,
                log,
                StateMachine(self.stores[member_id]),
                self.outsides[member_id],
                origin=number + 1,
                tick_ms=TICK_MS,
            )

    def run(self) -> None:
        """Let everything happen that can, without time passing."""
        busy = True
        while busy:
            for replica in self.replicas.values():
                while replica.work():
                    pass
            busy = self._sync() | self._deliver() | self._forward() | self._question()

    def tick(self, ticks: int = 1) -> None:
        """Let time pass for all who are there."""
        for _ in range(ticks):
            for member_id, replica in self.replicas.items():
                if member_id not in self.cut:
                    replica.tick(1)
            self.run()

    def compact(self, member_id: str) -> None:
        """Let a member drop all of its log that it has applied."""
        replica, log = self.replicas[member_id], self.logs[member_id]
        machine, raft = replica.machine, replica.raft
        log.record_snapshot(
            SnapshotMetadata(
                machine.applied_index,
                machine.applied_term,
                raft.committed_configuration,
                machine.configuration_index,
            )
        )
        log.drop_prefix(machine.applied_index)

    def elect(self, member_id: str) -> Replica:
        """Make this one the leader."""
        self.tick(2 * Options().election_timeout_ticks)  # whoever it is: somebody leads
        leader = self.leader()
        if leader.raft.id != member_id:
            leader.raft.transfer_leadership(member_id)
            self.run()
        assert self.leader().raft.id == member_id
        return self.replicas[member_id]

    def leader(self) -> Replica:
        """The leader of the newest term among those not cut off."""
        leading = [
            replica
            for member_id, replica in self.replicas.items()
            if member_id not in self.cut and replica.raft.leader_id == member_id
        ]
        return max(leading, key=lambda replica: replica.raft.term)

    def _sync(self) -> bool:
        synced = False
        for member_id, replica in self.replicas.items():
            if replica.unsynced and member_id not in self.slow_disks:
                replica.synced(replica.written)
                synced = True
        return synced

    def _deliver(self) -> bool:
        delivered = bool(self.wire)
        while self.wire:
            message = self.wire.popleft()
            recipient = self.replicas.get(message.recipient)
            if recipient is not None and not self.cut & {message.sender, message.recipient}:
                recipient.receive(message)
        return delivered

    def _forward(self) -> bool:
        moved = bool(self.forwarded)
        while self.forwarded:
            sender, leader_id, batches = self.forwarded.popleft()
            if self.cut & {sender, leader_id}:
                continue
            try:
                self.replicas[leader_id].propose_for(sender, [b.payload for b in batches])
            except Refused:
                self.replicas[sender].writes_refused(batches)
        return moved

    def _question(self) -> bool:
        moved = bool(self.questions)
        while self.questions:
            sender, leader_id, number, lease = self.questions.popleft()
            if self.cut & {sender, leader_id}:
                continue
            asker = self.replicas[sender]

            def answer(index: int | None, asker: Replica = asker, number: int = number) -> None:
                if index is None:
                    asker.read_aborted(number)
                else:
                    asker.read_confirmed(number, index)

            self.replicas[leader_id].read_index_for(sender, answer, lease=lease)
        return moved


def put(replica: Replica, key: bytes, value: bytes = b"v") -> Client:
    """A client writes through this replica."""
    client = Client(deadline=1e9)
    replica.write(encode_put(key, value), key, client)
    return client
