"""Nodes that are started alike found one cluster, in whatever order, whatever crashes."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING

import gevent
import pytest

from anchor.node.founding import Founding, Outlook, addresses_of, look, used
from anchor.node.joining import JoinOptions
from anchor.node.startup import _bootstrap
from anchor.raft import Configuration, Entry, EntryKind, HardState, Member, Options, Raft
from anchor.storage import DataDirectory, MemoryLog
from anchor.transport import Identification, Unreachable

if TYPE_CHECKING:
    from pathlib import Path


def node(name: str, *founders: str, cluster: str = "", incarnation: int = 1) -> Identification:
    """What a node says."""
    return Identification(name, incarnation, cluster, f"{name}:1", "", "", founders=founders)


N1 = Member("n1", "n1:1", incarnation=1)
ALL = ("n1", "n2", "n3")


def test_the_first_name_founds_once_all_see_the_same() -> None:
    """And nobody else does."""
    answers = {f"{i}:1": node(i, *ALL) for i in ALL}
    assert look(N1, 3, answers) == Outlook(ALL, ("n2:1", "n3:1"), founds=True)
    n2 = Member("n2", incarnation=1)
    assert look(n2, 3, answers) == Outlook(ALL, ("n1:1", "n3:1"), founds=False)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"n2:1": node("n2", *ALL)}, "2 nodes of 3 are there"),
        ({"n2:1": node("n2", *ALL), "n3:1": None}, "no answer from n3:1"),
        ({"n2:1": node("n2"), "n3:1": node("n3", cluster="c")}, "n3:1 is in a cluster"),
        ({"n2:1": None, "n3:1": node("n3", cluster="c")}, "n3:1 is in a cluster"),
        ({"n2:1": node("n2"), "n3:1": node("n1", incarnation=2)}, "two nodes are named n1"),
        ({"a": node("n2"), "b": node("n2", incarnation=2), "c": node("n3")}, "are named n2"),
        # One node under two addresses counts once.
        ({"n2:1": node("n2", *ALL), "also-n2:1": node("n2", *ALL)}, "2 nodes of 3 are there"),
    ],
)
def test_without_a_full_view_nobody_founds(
    answers: dict[str, Identification | None], why: str
) -> None:
    """Every address has to answer, none of them from a cluster, by different names."""
    outlook = look(N1, 3, {"n1:1": node("n1", *ALL), **answers})
    assert why in outlook.missing
    assert not outlook.view
    assert not outlook.founds


def test_one_that_sees_others_keeps_all_from_founding() -> None:
    """Its list differs: perhaps it is right."""
    answers = {"n2:1": node("n2", *ALL), "n3:1": node("n3", "n2", "n3", "n4")}
    outlook = look(N1, 3, answers)
    assert outlook.view == ALL
    assert not outlook.founds


def test_a_name_means_all_its_addresses() -> None:
    """And what cannot be looked up is an address at which nobody answers."""
    assert addresses_of("localhost:7001")[0] in (["127.0.0.1:7001"], ["[::1]:7001"])
    assert addresses_of("[::1]:7001") == [["[::1]:7001"]]
    assert addresses_of("no-such-host.invalid:7001") == [["no-such-host.invalid:7001"]]


def test_a_name_of_two_families_counts_where_its_nodes_listen() -> None:
    """Where all answer; where none does, both are missing."""
    both = [["127.0.0.1:1", "127.0.0.2:1"], ["[::1]:1"]]
    n2 = node("n2")
    everywhere = {"127.0.0.1:1": n2, "127.0.0.2:1": n2, "[::1]:1": n2}
    assert list(used([both], everywhere)) == both[0]
    assert list(used([both], {**everywhere, "127.0.0.1:1": None})) == both[1]
    nowhere = dict.fromkeys(everywhere)
    assert used([both, []], nowhere) == dict.fromkeys(both[0])


def test_a_founding_that_was_cut_short_goes_on_at_the_next_start(tmp_path: Path) -> None:
    """Its first entry is durable, its cluster has no id yet: nobody was let in meanwhile."""
    with closing(DataDirectory.open(tmp_path / "n1", "n1")) as directory:
        itself = Member("n1", "n1:1", incarnation=directory.identity.incarnation)
        only = Configuration({"n1": itself}, frozenset({"n1"}))
        entry = Entry(1, 1, EntryKind.CONFIGURATION, only.encode())
        directory.log.append([entry], HardState(1))
        directory.log.sync()
        assert directory.is_new
    with closing(DataDirectory.open(tmp_path / "n1", "n1")) as directory:
        _bootstrap(directory, itself)
        assert directory.identity.cluster_id
        assert directory.log.entries(1, 1, 1 << 20) == [entry]
        assert directory.log.last_index() == 1


# --------------------------------------------------------------------- many orders, many crashes


@dataclass
class Machine:
    """A node: its disk, and what its process knows while there is one."""

    name: str
    incarnation: int
    cluster: str = ""  # on disk
    up: bool = False
    view: tuple[str, ...] = ()
    asking: dict[str, Identification | None] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)  # addresses not asked yet in this round


class FoundingSimulation:
    """N nodes and spare ones, every question and answer a step of its own, in random order."""

    def __init__(self, seed: int, *, spare: int, wipes: bool) -> None:
        self.chance = random.Random(seed)
        self.expect = self.chance.choice([2, 3, 5])
        names = [f"n{i}" for i in range(1, self.expect + spare + 1)]
        self.machines = {name: Machine(name, 1) for name in names}
        self.wipes = wipes
        self.founded: list[tuple[str, str]] = []  # cluster, founder

    def says(self, machine: Machine) -> Identification | None:
        """What it answers now."""
        if not machine.up:
            return None
        view = () if machine.cluster else machine.view
        return node(machine.name, *view, cluster=machine.cluster, incarnation=machine.incarnation)

    def step(self, *, calm: bool) -> None:
        """Something happens to somebody."""
        machine = self.chance.choice(list(self.machines.values()))
        if not machine.up:
            if calm or self.chance.random() < 0.3:
                machine.up, machine.view, machine.left = True, (), []
            return
        if not calm and self.chance.random() < 0.02:
            machine.up = False
            # Only who belongs to no cluster may lose its disk: the cluster would be lost with it.
            if self.wipes and not machine.cluster and self.chance.random() < 0.5:
                machine.incarnation += 1
            return
        if not machine.cluster:
            self._ask_on(machine)

    def _ask_on(self, machine: Machine) -> None:
        if not machine.left:
            machine.asking, machine.left = {}, sorted(self.machines)
            self.chance.shuffle(machine.left)
        name = machine.left.pop()
        machine.asking[name] = self.says(self.machines[name])
        if machine.left:
            return
        itself = Member(machine.name, incarnation=machine.incarnation)
        outlook = look(itself, self.expect, machine.asking)
        machine.view = outlook.view
        if outlook.in_cluster:
            # What a join comes to: the cluster of somebody who still is there.
            there = self.machines[self.chance.choice(outlook.in_cluster)]
            machine.cluster = there.cluster if there.up else ""
        elif outlook.founds:
            machine.cluster = f"{machine.name}/{machine.incarnation}"
            self.founded.append((machine.cluster, machine.name))


@pytest.mark.parametrize("spare", [0, 1, 3])
@pytest.mark.parametrize("wipes", [False, True])
def test_there_is_never_more_than_one_cluster_and_always_one_in_the_end(
    spare: int, *, wipes: bool
) -> None:
    """500 orders of starts, crashes and lost disks each."""
    for seed in range(500):
        simulation = FoundingSimulation(seed, spare=spare, wipes=wipes)
        for step in range(3000):
            simulation.step(calm=step > 1000)
            assert len(simulation.founded) <= 1, (seed, simulation.founded)
            if all(machine.cluster for machine in simulation.machines.values()):
                break
        clusters = {machine.cluster for machine in simulation.machines.values()}
        assert clusters == {simulation.founded[0][0]}, seed


# --------------------------------------------------------------------- one real round


class Network:
    """Nodes by address, and the id that the transport was told."""

    def __init__(self, answers: dict[str, Identification]) -> None:
        self.answers = answers
        self.cluster_id = ""

    def identify(self, address: str, timeout_seconds: float) -> Identification:
        """Ask one."""
        assert timeout_seconds > 0
        if address not in self.answers:
            raise Unreachable(address)
        return self.answers[address]

    def set_cluster_id(self, cluster_id: str) -> None:
        """Take note."""
        self.cluster_id = cluster_id


class Disk:
    """Remembers the cluster's id, and whether the log began before."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self.cluster_id = ""

    def set_cluster_id(self, cluster_id: str) -> None:
        """Only once the first entry is durable: else a crash left a cluster without a member."""
        assert self._raft.commit_index >= 1
        self.cluster_id = cluster_id


NAME = [[f"10.0.0.{number}:7001" for number in (1, 2, 3)]]


def founding_of(network: Network) -> tuple[Founding, Raft, Disk]:
    """Of n1, for whom one name stands for all, itself among them."""
    raft = Raft("n1", MemoryLog(), Options(), random.Random(1))
    disk = Disk(raft)
    parts = SimpleNamespace(
        peers=("anchor:7001",),
        itself=N1,
        raft=raft,
        directory=disk,
        transport=network,
        joining=JoinOptions(bootstrap_expect=3),
    )
    return Founding(parts, lambda _peer: NAME), raft, disk  # type: ignore[arg-type]


def keep_durable(raft: Raft) -> None:
    """What a node does all the time."""
    while True:
        while raft.has_ready():
            raft.persisted(raft.ready().number)
        gevent.sleep(0)


def test_one_name_that_means_all_nodes_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    """It finds itself there, waits for the others, then founds; they are those to be let in."""
    addresses = NAME[0]
    network = Network({addresses[0]: node("n1"), addresses[1]: node("n2")})
    founding, raft, disk = founding_of(network)
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert not founding.look_around()
    assert caplog.text.count("no answer from 10.0.0.3:7001") == 1
    network.answers[addresses[2]] = node("n3")
    assert not founding.look_around()  # the others have not said yet that they see the same
    assert founding.view == ALL
    assert raft.last_log_index == 0
    network.answers |= {address: node(i, *ALL) for address, i in zip(addresses, ALL, strict=True)}
    running = gevent.spawn(keep_durable, raft)
    assert founding.look_around()
    running.kill()
    assert disk.cluster_id == network.cluster_id != ""
    assert raft.committed_configuration.voters == {"n1"}
    assert founding.others == tuple(addresses[1:])


def test_where_there_is_a_cluster_none_is_founded() -> None:
    """Also if all is ready for it but for one node that is in a cluster."""
    answers = {address: node(i, *ALL) for address, i in zip(NAME[0], ALL, strict=True)}
    answers[NAME[0][1]] = node("n2", cluster="c")
    founding, raft, disk = founding_of(Network(answers))
    assert founding.look_around()
    assert (raft.last_log_index, disk.cluster_id, founding.view) == (0, "", ())
