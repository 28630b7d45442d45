"""A node that was away while it was removed finds out, and no other node ever believes it."""

from __future__ import annotations

import random
from dataclasses import replace

import gevent
import pytest

from anchor.node.departure import Departure, Report, proves_departure, report_of
from anchor.raft import Configuration, Member
from anchor.transport import Identification, JoinRequest, Unreachable, codec

N3 = Member("n3", "n3:1", incarnation=3)


def of(
    *voters: str, outgoing: tuple[str, ...] = (), learners: tuple[str, ...] = ()
) -> Configuration:
    """A configuration; a member's incarnation is the number in its name."""
    ids = {*voters, *outgoing, *learners}
    return Configuration(
        {i: Member(i, f"{i}:1", incarnation=int(i[1:])) for i in ids},
        frozenset(voters),
        frozenset(outgoing),
        frozenset(learners),
    )


def says(member_id: str, configuration: Configuration, index: int, *, committed: bool) -> Report:
    """What one node goes by."""
    return Report(member_id, int(member_id[1:]), configuration, index, committed)


WITHOUT = of("n1", "n2", "n4")


def test_a_majority_of_a_committed_configuration_without_it_is_proof() -> None:
    """All of them now, one of them knowing that it is committed."""
    reports = [says("n1", WITHOUT, 9, committed=True), says("n4", WITHOUT, 9, committed=False)]
    assert proves_departure(N3, reports)
    assert not proves_departure(Member("n4", incarnation=4), reports)


@pytest.mark.parametrize(
    "reports",
    [
        [],
        [says("n1", WITHOUT, 9, committed=True)],
        [says("n1", WITHOUT, 9, committed=False), says("n2", WITHOUT, 9, committed=False)],
        [says("n1", WITHOUT, 9, committed=True), says("n2", of("n2", "n3"), 12, committed=False)],
        [says("n1", WITHOUT, 9, committed=True), says("n2", WITHOUT, 7, committed=True)],
        [says("n1", WITHOUT, 9, committed=True), says("n5", WITHOUT, 9, committed=True)],
        [
            says("n1", WITHOUT, 9, committed=True),
            replace(says("n2", WITHOUT, 9, committed=True), incarnation=7),
        ],
        [says(i, of("n1", "n2", "n3"), 9, committed=True) for i in ("n1", "n2", "n3")],
        [says(i, of("n1", "n2", learners=("n3",)), 9, committed=True) for i in ("n1", "n2")],
        [
            says(i, of("n1", "n4", "n5", outgoing=("n1", "n2", "n6")), 9, committed=True)
            for i in ("n1", "n4")
        ],
    ],
    ids=[
        "nobody", "one lags", "not committed", "another is past it", "at two indexes",
        "no member says so", "a wiped one says so", "it is a voter", "it is a learner",
        "half of a joint one",
    ],
)  # fmt: skip
def test_anything_less_proves_nothing(reports: list[Report]) -> None:
    """A lagging peer must not make a member believe that it is out."""
    assert not proves_departure(N3, reports)


def test_its_id_with_another_incarnation_is_somebody_else() -> None:
    """Its place was taken by a node with another data directory."""
    reports = [says(i, of("n1", "n2", "n3"), 9, committed=True) for i in ("n1", "n2")]
    assert proves_departure(replace(N3, incarnation=33), reports)


def random_step(now: Configuration, chance: random.Random) -> list[Configuration]:
    """What the next change appends: one configuration, or a joint one and its end."""
    ids = [f"n{i}" for i in range(1, 7)]
    voters = set(chance.sample(ids, chance.choice([1, 2, 3, 4])))
    learners = set(chance.sample(ids, 2)) - voters
    target = of(*sorted(voters), learners=tuple(sorted(learners)))
    first = now.towards(target)
    return [first, first.after_joint()] if first.is_joint else [first]


def a_quorum(configuration: Configuration, chance: random.Random) -> set[str]:
    """Some quorum of it."""
    ids = sorted(configuration.voters | configuration.voters_outgoing)
    chance.shuffle(ids)
    quorum: set[str] = set()
    while not configuration.is_quorum(quorum):
        quorum.add(ids.pop())
    return quorum


@pytest.mark.parametrize("seed", range(200))
def test_no_member_of_the_newest_committed_configuration_is_ever_told_that_it_is_out(
    seed: int,
) -> None:
    """Whatever changes went before, and however far each node lags, as far as Raft lets it."""
    chance = random.Random(seed)
    history = [of("n1", "n2", "n3")]
    while len(history) < 8:
        history += random_step(history[-1], chance)
    newest = chance.randrange(len(history))  # the last that is committed; later ones may be seen
    goes_by = {f"n{i}": chance.randrange(len(history)) for i in range(1, 7)}
    for index in range(newest + 1):  # each committed entry is in the logs of a quorum of its own
        for member_id in a_quorum(history[index], chance):
            goes_by[member_id] = max(goes_by[member_id], index)
    reports = [
        says(member_id, history[at], at, committed=at <= newest and chance.random() < 0.8)
        for member_id, at in goes_by.items()
        if chance.random() < 0.9
    ]
    for member in history[newest].members.values():
        assert not proves_departure(member, reports), (newest, goes_by)


def test_what_another_cluster_or_an_empty_node_says_is_no_report() -> None:
    """And neither is what cannot be read."""
    found = Identification("n1", 1, "c", "a", "h", "", 1, 2, WITHOUT.encode(), 9, True)
    assert report_of(found, "c") == says("n1", WITHOUT, 9, committed=True)
    assert report_of(found, "d") is None
    assert report_of(replace(found, configuration=b""), "c") is None
    assert report_of(replace(found, configuration=b"{"), "c") is None


def test_what_a_node_goes_by_travels_whole() -> None:
    """And so does the view of one that would found a cluster."""
    found = Identification(
        "n1", 1, "c", "a", "h", "", 1, 2, WITHOUT.encode(), 9, True, ("n1", "n2")
    )
    assert codec.decode_identification(codec.encode_identification(found)) == found
    asked = JoinRequest("n1", "a", "h", 1, voter=False, replace=True, order=b"{}")
    header = codec.header("c", "n1", 1, "", 0)
    assert codec.decode_join(codec.encode_join(header, asked))[1] == asked


class Network:
    """Nodes by address, and what each would say."""

    def __init__(self, nodes: dict[str, Identification]) -> None:
        self._nodes = nodes

    def identify(self, address: str, timeout_seconds: float) -> Identification:
        """Ask one."""
        assert timeout_seconds > 0
        if address not in self._nodes:
            raise Unreachable(address)
        return self._nodes[address]


class Core:
    """As much of a core as is looked at."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = self.committed_configuration = configuration
        self.leader_id: str | None = None
        self.is_removed = False
        self.term = 7
        self.configuration_index = 3

    def told_removed(self) -> None:
        """It is out."""
        self.is_removed = True


def departure_of(core: Core, nodes: dict[str, Identification]) -> Departure:
    """Of n3, impatient."""
    return Departure(core, Network(nodes), N3, lambda: "c", 0.001)  # type: ignore[arg-type]


def identification(member_id: str, configuration: Configuration) -> Identification:
    """What a member of it says."""
    number = int(member_id[1:])
    return Identification(
        member_id, number, "c", f"{member_id}:1", "", "", 1, 2, configuration.encode(), 9, True
    )


def test_it_asks_on_until_it_knows_and_then_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """n3 knows n1 alone, which names n4 and n5; the majority is there."""
    newest = of("n1", "n4", "n5")
    core = Core(of("n1", "n2", "n3"))
    nodes = {f"{i}:1": identification(i, newest) for i in ("n1", "n4", "n5")}
    running = gevent.spawn(departure_of(core, nodes).run)
    with gevent.Timeout(5), caplog.at_level("WARNING"):
        while "takes part no more" not in caplog.text:
            gevent.sleep(0.01)
    running.kill()
    assert core.is_removed
    assert caplog.text.count("takes part no more") == 1


def test_it_asks_nobody_while_somebody_leads() -> None:
    """Whoever leads would tell."""
    core = Core(of("n1", "n2", "n3"))
    core.leader_id = "n1"
    nodes = {f"{i}:1": identification(i, WITHOUT) for i in ("n1", "n2", "n4")}
    departure = departure_of(core, nodes)
    departure._find_out()
    assert not core.is_removed
    core.leader_id = None
    departure._find_out()
    assert core.is_removed


def test_what_it_heard_before_a_new_term_is_no_proof() -> None:
    """Asking takes its time, and it may have been let in again meanwhile."""
    core = Core(of("n1", "n2", "n3"))
    nodes = {f"{i}:1": identification(i, WITHOUT) for i in ("n1", "n2", "n4")}
    departure = departure_of(core, nodes)
    ask = departure._ask

    def ask_for_long() -> list[Report]:
        reports = ask()
        core.term += 1
        return reports

    departure._ask = ask_for_long  # type: ignore[method-assign]
    departure._find_out()
    assert not core.is_removed
