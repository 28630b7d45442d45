"""A cluster of real cores in memory, where nothing happens unless a test says so.

Time passes by :meth:`Cluster.tick`, messages arrive by :meth:`Cluster.deliver`, disks finish by
:meth:`Server.persist`. Every server is watched by every checker of ``invariants.py`` all the
time, in scenarios as in simulations. Nothing here is left to chance: election timeouts are at a
chosen fraction of their range, ``n1``'s the shortest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.raft import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    InstallSnapshot,
    InstallSnapshotResponse,
    Member,
    Message,
    Options,
    RaftError,
)
from tests.raft.disk import SimulatedDisk
from tests.raft.invariants import Invariants
from tests.raft.network import Network, everything
from tests.raft.server import OPTIONS, AppliedState, Chosen, Server

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping, Sequence


def configuration(
    voters: Iterable[str],
    *,
    outgoing: Iterable[str] = (),
    learners: Iterable[str] = (),
) -> Configuration:
    """Make a configuration of members that are nothing but their ids."""
    sets = frozenset(voters), frozenset(outgoing), frozenset(learners)
    members = {member_id: Member(member_id) for member_id in sorted(frozenset().union(*sets))}
    return Configuration(members, *sets)


def log_of(terms: Sequence[int], first: Configuration) -> list[Entry]:
    """Make a log with these terms; entry 1 is the configuration ``first``.

    What two such logs hold at one index and term is the same, as log matching wants it.
    """
    entries = [
        Entry(index, term, EntryKind.COMMAND, b"%d@%d" % (index, term))
        for index, term in enumerate(terms, start=1)
    ]
    entries[0] = Entry(1, terms[0], EntryKind.CONFIGURATION, first.encode())
    return entries


class Cluster:
    """Some servers, their network, and what they agreed on."""

    def __init__(
        self,
        voters: int | Sequence[str] = 3,
        *,
        learners: Sequence[str] = (),
        options: Options = OPTIONS,
        eager: bool = True,
        logs: Mapping[str, Sequence[int]] | None = None,
        terms: Mapping[str, int] | None = None,
        network: Network | None = None,
        rng: Callable[[str], random.Random] | None = None,
    ) -> None:
        ids = [f"n{i + 1}" for i in range(voters)] if isinstance(voters, int) else list(voters)
        self.initial = configuration(ids, learners=learners)
        self.options = options
        self.eager = eager
        self.network = network or Network()
        self._rng = rng
        self.states: dict[int, AppliedState] = {}
        self.servers: dict[str, Server] = {}
        self.invariants = Invariants(self.servers)
        for member_id in [*ids, *learners]:
            log = log_of((logs or {}).get(member_id, (1,)), self.initial)
            self.add(member_id, log=log, term=(terms or {}).get(member_id, 0))

    def add(self, member_id: str, *, log: Sequence[Entry] = (), term: int = 0) -> Server:
        """Start a server with this log; one without is new and knows nobody."""
        disk = SimulatedDisk(eager=self.eager)
        term = max([term, *(entry.term for entry in log)])
        for image in (disk.durable, disk.written):
            image.append(log)
            image.hard_state = HardState(term, None)
        server = Server(
            member_id,
            self.network,
            disk,
            options=self.options,
            rng=self._rng(member_id) if self._rng else self._chosen(),
            states=self.states,
            watchers=[self.invariants],
        )
        self.servers[member_id] = server
        return server

    def _chosen(self) -> Chosen:
        rng = Chosen()
        rng.fraction = min(0.9, 0.2 + 0.15 * len(self.servers))
        return rng

    def __getitem__(self, member_id: str) -> Server:
        return self.servers[member_id]

    def up(self) -> list[Server]:
        """Give the servers that are up."""
        return [server for server in self.servers.values() if server.up]

    # Time and messages -------------------------------------------------------------------

    def tick(self, ticks: int = 1, *, only: Sequence[str] | None = None) -> None:
        """Let time pass everywhere, or for some; nothing is delivered."""
        for _ in range(ticks):
            for server in self.up():
                if only is None or server.id in only:
                    server.tick()

    def run(self, ticks: int = 1) -> None:
        """Let time pass on a network that delivers all at once."""
        for _ in range(ticks):
            self.tick()
            self.deliver()

    def run_until(self, condition: Callable[[], object], *, ticks_max: int = 200) -> int:
        """Run until ``condition`` holds; gives the ticks it took."""
        for ticks in range(ticks_max):
            if condition():
                return ticks
            self.run()
        raise AssertionError(f"not within {ticks_max} ticks: {self.statuses()}")

    def deliver(self, which: Callable[[Message], bool] = everything, *, count: int = -1) -> int:
        """Deliver what matches, and what comes of it, until quiet or ``count`` are delivered."""
        delivered = 0
        while delivered != count and (message := self.network.next(which)) is not None:
            self.hand_over(message)
            delivered += 1
            assert delivered < 100_000, f"the cluster never falls silent: {message}"
        return delivered

    def hand_over(self, message: Message) -> None:
        """Let ``message`` arrive. A snapshot's sender hears how its transfer went.

        A failure is noticed at once; that all went well, when the receiver's answer comes.
        """
        recipient = self.servers.get(message.recipient)
        arrived = recipient is not None and recipient.up
        if arrived and recipient is not None:
            recipient.step(message)
        if isinstance(message, InstallSnapshot) and not arrived:
            self.report_transfer(message.sender, message.recipient, success=False)
        if isinstance(message, InstallSnapshotResponse):
            self.report_transfer(message.recipient, message.sender, success=True)

    def report_transfer(self, sender: str, recipient: str, *, success: bool) -> None:
        """Let ``sender`` hear what became of the snapshot it sent."""
        server = self.servers.get(sender)
        if server is not None and server.up:
            server.snapshot_sent(recipient, success=success)

    # Faults ------------------------------------------------------------------------------

    def isolate(self, *ids: str) -> None:
        """Cut ``ids`` off from all others, both ways; among themselves they stay in touch."""
        for inside in ids:
            for outside in self.servers:
                if outside not in ids:
                    self.network.cut(inside, outside)
                    self.network.cut(outside, inside)

    def heal(self) -> None:
        """End all cuts."""
        self.network.heal()

    def crash(self, *ids: str) -> None:
        """Crash servers; what they sent is still under way."""
        for member_id in ids:
            self[member_id].crash()

    def restart(self, *ids: str) -> None:
        """Start crashed servers again."""
        for member_id in ids:
            self[member_id].start()

    # Shorthands --------------------------------------------------------------------------

    def leaders(self) -> list[str]:
        """Give who believes to be leader."""
        return [server.id for server in self.up() if server.is_leader]

    def leader(self) -> Server:
        """Give the leader of the highest term."""
        return max((self[i] for i in self.leaders()), key=lambda server: server.raft.term)

    def elect(self, member_id: str) -> Server:
        """Make ``member_id`` the leader, the ordinary way: by its election timeout."""
        server = self[member_id]
        timeout = self.options.election_timeout_ticks
        for other in self.up():  # they have heard of no leader for long enough to vote
            if other is not server:
                self._grow_patient(other, timeout)
        for _ in range(6 * timeout):
            if server.is_leader:
                return server
            server.tick()
            self.deliver()
        raise AssertionError(f"{member_id} was not elected: {self.statuses()}")

    def _grow_patient(self, server: Server, ticks: int) -> None:
        for _ in range(ticks):
            if server.is_leader:
                return
            server.tick()
            self.network.drop(lambda message: message.sender == server.id)

    def settle(self) -> None:
        """Finish all disks, apply everything, deliver everything, until nothing is left."""
        while True:
            for server in self.up():
                server.persist()
                server.apply()
            if not self.deliver():
                return

    def commit(self, *payloads: bytes) -> int:
        """Propose to the leader, commit and apply everywhere; gives the last index."""
        leader = self.leader()
        proposed = leader.propose(*payloads)
        self.settle()
        self.run(self.options.heartbeat_ticks)
        assert leader.raft.commit_index >= proposed.last_index, self.statuses()
        return int(proposed.last_index)

    def statuses(self) -> list[dict[str, object]]:
        """Say how all are."""
        return [server.status() for server in self.servers.values()]

    def refused(self, action: Callable[[], object]) -> str:
        """Do ``action``, which the core must refuse; gives the name of the error."""
        try:
            action()
        except RaftError as error:
            return type(error).__name__
        raise AssertionError("it was not refused")
