"""A seeded simulation of five cores in a hostile world.

Theory of operation: one step is one unit of real time. In each, every server's own clock (none
runs quite right) may tick, messages that are due arrive, disks and state machines make some
progress, clients ask for things, and now and then something breaks. All chance comes from one
seed: the same seed is the same run, on any machine. Each seed first draws a :class:`Climate`,
how often each thing happens, so that runs differ in kind and not only in detail (swarm testing).
The checkers of ``invariants.py`` look on all the time. At the end everything is healed, and the
cluster has to agree, serve and fall silent within a bounded number of ticks.

    python -m tests.raft.simulation --seeds 0:1000
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anchor.raft import InstallSnapshot, Message, Options, Refused
from tests.raft.harness import Cluster, configuration
from tests.raft.lossy import CALM, LossyNetwork, Weather

if TYPE_CHECKING:
    from tests.raft.server import Server

IDS = ("n1", "n2", "n3", "n4", "n5")
OPTIONS = Options(
    election_timeout_ticks=10,
    heartbeat_ticks=2,
    lease_ticks=6,
    max_append_bytes=60,
    max_inflight_appends=4,
    max_inflight_bytes=400,
    max_uncommitted_bytes=2000,
    max_committed_bytes=200,
    max_log_cache_bytes=300,
)
DRIFT = 0.08  # lease_ticks leaves more than this: 6 / 0.92 + 2 < 10 / 1.08
STEPS = 500
MESSAGES_A_STEP_MAX = 5000
FAILURES_MAX = 5  # of the command line: then it gives up
CONVERGENCE_STEPS_MAX = 800


@dataclass(frozen=True, slots=True)
class Climate:
    """How often things happen in one run: chances per step, and per server where it says so."""

    weather: Weather
    crash: float
    restart: float
    partition: float
    heal: float
    pause: float
    persist: float  # per server: the disk gets on
    apply: float  # per server
    propose: float
    read: float
    transfer: float
    change: float
    compact: float
    disconnect: float
    busy: float  # per server: calls pile up before a Ready is taken
    campaign: float

    @classmethod
    def draw(cls, rng: random.Random) -> Climate:
        """Choose for each thing whether it happens in this run at all, and how often."""

        def often(most: float, chance: float = 0.7) -> float:
            return rng.random() * most if rng.random() < chance else 0.0

        weather = Weather(often(0.3), often(0.2), rng.choice([0, 1, 3, 8]), often(0.05))
        drawn = cls(
            weather=weather,
            crash=often(0.04),
            restart=0.05 + often(0.2),
            partition=often(0.03),
            heal=0.03 + often(0.1),
            pause=often(0.02),
            persist=rng.choice([0.2, 0.5, 0.9, 1.0]),
            apply=rng.choice([0.1, 0.5, 1.0]),
            propose=rng.choice([0.1, 0.5, 0.9]),
            read=rng.choice([0.0, 0.2, 0.5]),
            transfer=often(0.03),
            change=often(0.06),
            compact=often(0.15),
            disconnect=often(0.02),
            busy=rng.choice([0.0, 0.0, 0.5, 1.0]),
            campaign=often(0.01),
        )
        return drawn if rng.random() < 0.7 else drawn.made_brisk(rng)

    def made_brisk(self, rng: random.Random) -> Climate:
        """Let leaders come and go and be busy at once: the climate in which leases fail."""
        return replace(
            self,
            weather=Weather(0.0, 0.0, rng.choice([0, 0, 1]), self.weather.late),
            partition=0.04,
            heal=0.06,
            persist=1.0,
            apply=1.0,
            propose=0.9,
            busy=0.0,
        )


class SimulationFailed(AssertionError):  # noqa: N818 - what it is
    """A run broke a promise. The message says which seed, where, and how to see it again."""


class Simulation:
    """One run of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.climate = Climate.draw(self.rng)
        self.network = LossyNetwork(self.rng)
        self.cluster = Cluster(
            IDS[: self.rng.choice([3, 3, 4, 5, 5])],
            options=replace(OPTIONS, max_log_cache_bytes=self.rng.choice([0, 0, 300])),
            eager=self.rng.random() < 0.5,
            network=self.network,
            rng=lambda member_id: random.Random(f"{seed} {member_id}"),
        )
        for member_id in IDS[len(self.cluster.servers) :]:
            self.cluster.add(member_id)
        self.servers = list(self.cluster.servers.values())
        self.rates = {i: 1 + self.rng.uniform(-DRIFT, DRIFT) for i in IDS}
        self.clocks = dict.fromkeys(IDS, 0.0)
        self.paused_until = dict.fromkeys(IDS, 0)
        self.step = 0
        self.asked = 0
        self.trace = 0  # a checksum of all that happened: equal for equal runs
        self.seen: Counter[str] = Counter()
        for server in self.servers:
            server.auto_persist = server.auto_apply = False

    # One run -----------------------------------------------------------------------------

    def run(self) -> Simulation:
        """Run it all; raises SimulationFailed."""
        try:
            self.network.weather = self.climate.weather
            for _ in range(STEPS):
                self._break_something()
                self._pass_time()
                self._ask_for_something()
            self._converge()
        except Exception as error:
            replay = f"python -m tests.raft.simulation --seeds {self.seed}:{self.seed + 1}"
            raise SimulationFailed(
                f"seed {self.seed}, step {self.step}: {type(error).__name__}: {error}\n"
                f"  replay: {replay}\n  " + "\n  ".join(map(str, self.cluster.statuses()))
            ) from error
        return self

    def _pass_time(self) -> None:
        self.step += 1
        self.network.step = self.step
        for server in self.servers:
            server.is_busy = self.rng.random() < self.climate.busy
        duties = [self._tick, self._receive]
        self.rng.shuffle(duties)  # who wakes up may hear the clock first, or the messages
        for duty in duties:
            duty()
        for server in self.servers:
            if self._awake(server):
                self._work(server)

    def _awake(self, server: Server) -> bool:
        return server.up and self.paused_until[server.id] <= self.step

    def _tick(self) -> None:
        for server in self.servers:
            self.clocks[server.id] += self.rates[server.id]
            if not server.up:
                self.clocks[server.id] %= 1
            elif self._awake(server) and self.clocks[server.id] >= 1:
                elapsed = int(self.clocks[server.id])
                self.clocks[server.id] -= elapsed
                server.tick(elapsed=elapsed)
                self._check_lease(server)

    def _check_lease(self, server: Server) -> None:
        if self.cluster.invariants.reads.lease(server):
            self.seen["lease"] += 1

    def _receive(self) -> None:
        arrived = 0
        while (message := self.network.take_due()) is not None:
            arrived += 1
            assert arrived < MESSAGES_A_STEP_MAX, f"a storm of messages: {message}"
            recipient = self.cluster.servers[message.recipient]
            if recipient.up and not self._awake(recipient):
                self.network.put_off(message, 1)
                continue
            self._note(message)
            self.cluster.hand_over(message)
            if isinstance(message, InstallSnapshot) and recipient.up and self.rng.random() < 0.5:
                self.cluster.report_transfer(message.sender, message.recipient, success=True)
        for lost in self.network.failed_transfers():
            self.cluster.report_transfer(lost.sender, lost.recipient, success=False)

    def _note(self, message: Message) -> None:
        kind = type(message).__name__
        said = f"{self.step}{kind}{message.sender}{message.recipient}{message.term}"
        self.trace = zlib.crc32(said.encode(), self.trace)
        self.seen[kind] += 1

    def _work(self, server: Server) -> None:
        server.is_busy = False
        server.settle()
        if server.disk.queue and self.rng.random() < self.climate.persist:
            server.persist(self.rng.randint(1, 3))
        if server.unapplied and self.rng.random() < self.climate.apply:
            server.apply(self.rng.randint(1, 5))

    # What clients and operators do ---------------------------------------------------------

    def _ask_for_something(self) -> None:
        for server in self.servers:
            if self._awake(server) and server.is_leader:
                self._ask_leader(server)
        server = self.rng.choice(self.servers)
        if self._awake(server) and self.rng.random() < self.climate.campaign:
            server.campaign()
        if self._awake(server) and self.rng.random() < self.climate.compact and server.state.index:
            self._compact(server)

    def _compact(self, server: Server) -> None:
        snapshot = server.disk.durable.snapshot
        if snapshot is not None and snapshot.last_included_index >= server.state.index:
            return
        if server.disk.durable.last_index >= server.state.index:  # no state ahead of its log
            server.compact(tail=self.rng.choice([0, 0, 3, 10]))
            self.seen["compact"] += 1

    def _ask_leader(self, leader: Server) -> None:
        rng, climate = self.rng, self.climate
        if rng.random() < climate.propose:
            payloads = [b"%d.%d" % (self.step, i) for i in range(rng.choice([1, 1, 1, 3, 8]))]
            self._try("propose", lambda: leader.propose(*payloads))
        if rng.random() < climate.read:
            self.asked += 1
            self.cluster.invariants.reads.asked(leader, self.asked)
            self._try("read", lambda: leader.read_index(self.asked))
        if rng.random() < climate.transfer:
            target = rng.choice(IDS)
            self._try("transfer", lambda: leader.transfer_leadership(target))
        if rng.random() < climate.change:
            self._change(leader)
        if rng.random() < climate.disconnect:
            leader.disconnected(rng.choice(IDS))
        if rng.random() < 0.1:
            leader.want_commit(rng.choice(IDS), leader.raft.last_log_index)

    def _change(self, leader: Server) -> None:
        voters = set(leader.raft.configuration.voters)
        learners = set(leader.raft.configuration.learners)
        for member_id in self.rng.sample(IDS, self.rng.choice([1, 1, 2, 3])):
            voters.discard(member_id)
            learners.discard(member_id)
            self.rng.choice([voters, voters, learners, set()]).add(member_id)
        if voters:
            target = configuration(sorted(voters), learners=sorted(learners))
            self._try("change", lambda: leader.propose_configuration(target))

    def _try(self, what: str, action: object) -> None:
        try:
            action()  # type: ignore[operator]
        except Refused as refused:
            self.seen[f"{what} {type(refused).__name__}"] += 1
        else:
            self.seen[what] += 1

    # What goes wrong ---------------------------------------------------------------------

    def _break_something(self) -> None:
        rng, climate = self.rng, self.climate
        server = self._victim()
        if server.up and rng.random() < climate.crash:
            if rng.random() < 0.5:
                self._flush(server)
            server.crash(keep=rng.randint(0, 3))
            self.seen["crash"] += 1
        elif not server.up and rng.random() < climate.restart:
            server.start()
        if rng.random() < climate.pause:
            self.paused_until[server.id] = self.step + rng.choice([3, 15, 60])
            self.seen["pause"] += 1
        if rng.random() < climate.partition:
            self._partition(server)
        if rng.random() < climate.heal:
            self.network.heal()

    def _flush(self, server: Server) -> None:
        if server.disk.durable.last_index >= server.state.index:
            server.flush()

    def _victim(self) -> Server:
        """Choose anybody, but whoever leads half of the time: that hurts most."""
        leaders = self.cluster.leaders()
        if leaders and self.rng.random() < 0.5:
            return self.cluster[self.rng.choice(leaders)]
        return self.rng.choice(self.servers)

    def _partition(self, victim: Server) -> None:
        self.seen["partition"] += 1
        self.network.heal()
        others = [i for i in IDS if i != victim.id]
        if self.rng.random() < 0.3:
            for other in self.rng.sample(others, self.rng.choice([1, 2, 4])):
                self.network.cut(*self.rng.sample([victim.id, other], 2))
            return
        self.cluster.isolate(victim.id, *self.rng.sample(others, self.rng.choice([0, 0, 1, 2])))

    # The end -----------------------------------------------------------------------------

    def _converge(self) -> None:
        """Heal everything; then all members must get to the same state, and stay quiet."""
        self.network.weather = CALM
        self.network.heal()
        for server in self.servers:
            self.paused_until[server.id] = 0
            server.auto_persist = server.auto_apply = True
            if not server.up:
                server.start()
            server.persist()
            server.apply()
        asked_at = 0
        for steps in range(CONVERGENCE_STEPS_MAX):
            self._pass_time()
            if asked_at and self._agreed() and steps > asked_at + 8:
                self.seen["steps to converge"] += steps
                return
            if not asked_at and steps > 120:
                asked_at = steps if self._ask_last() else 0
        raise AssertionError("no agreement after all was healed")

    def _ask_last(self) -> bool:
        leaders = self.cluster.leaders()
        if len(leaders) != 1:
            return False
        try:
            self.cluster[leaders[0]].propose(b"the last word")
        except Refused:
            return False
        return True

    def _agreed(self) -> bool:
        leaders = self.cluster.leaders()
        if len(leaders) != 1:
            return False
        leader = self.cluster[leaders[0]]
        agreed = leader.raft.configuration
        members = [self.cluster[i] for i in sorted(agreed.voters | agreed.learners)]
        same_state = all(server.state == leader.state for server in members)
        return (
            same_state
            and not agreed.voters_outgoing
            and leader.commands[-1:] == [b"the last word"]
            and leader.state.index == leader.raft.last_log_index
            and all(server.raft.leader_id == leader.id for server in members)
        )


def main() -> int:
    """Run a range of seeds; gives 1 when one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.raft.simulation")
    parser.add_argument("--seeds", default="0:100", help="FIRST:END, END not included")
    first, end = map(int, parser.parse_args().seeds.split(":"))
    seen: Counter[str] = Counter()
    failed = 0
    began = time.monotonic()
    for seed in range(first, end):
        try:
            seen.update(Simulation(seed).run().seen)
        except SimulationFailed as failure:
            failed += 1
            print(failure, flush=True)
            if failed == FAILURES_MAX:
                break
    seconds = time.monotonic() - began
    print(f"seeds {first} to {seed}: {failed} failed, {seconds:.1f} s")
    print(", ".join(f"{what} {count}" for what, count in sorted(seen.items())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
