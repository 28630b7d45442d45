"""The simulation's slice for every day; ``python -m tests.raft.simulation`` runs more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.raft.simulation import Simulation

SEEDS_A_TEST = 10
# Seeds that once found something, and what. They stay.
KEPT_SEEDS = {
    103: "a member whose own removal was not committed did not campaign",
    135: "a joint configuration that nobody could decode",
    185: "a refusal of an old term passed for an answer of the present one",
    204: "the answer to a snapshot was lost, and the member forgotten",
    218: "writes under way vouched for a log that a snapshot had replaced",
    250: "a leader that had removed itself answered a read it had aborted",
    795: "the disk was asked about entries that a snapshot had replaced",
    895: "the same, met by an append with entries",
}


@pytest.mark.parametrize("first", range(0, 100, SEEDS_A_TEST))
def test_nothing_is_ever_broken(first: int) -> None:
    """The invariants hold at every step, and the cluster agrees once all is healed."""
    for seed in range(first, first + SEEDS_A_TEST):
        Simulation(seed).run()


@pytest.mark.parametrize("seed", KEPT_SEEDS, ids=str)
def test_what_was_broken_once_stays_mended(seed: int) -> None:
    """Each of these seeds showed a defect, now mended."""
    Simulation(seed).run()


def test_the_simulation_does_what_it_is_for() -> None:
    """A simulation in which nothing goes wrong, or nothing gets done, would prove nothing."""
    seen: Counter[str] = Counter()
    committed = confirmed = terms = 0
    for seed in range(1000, 1012):
        simulation = Simulation(seed).run()
        seen.update(simulation.seen)
        committed += simulation.cluster.invariants.committed.last_index
        confirmed += simulation.cluster.invariants.reads.confirmed
        terms += len(simulation.cluster.invariants.elections.leaders)
    assert committed > 1000
    assert confirmed > 100
    assert terms > 30
    for what in ("crash", "partition", "pause", "compact", "InstallSnapshot", "TimeoutNow"):
        assert seen[what] > 3, what
    assert seen["change"] > 20
    assert seen["lease"] > 200


def test_the_same_seed_is_the_same_run_in_any_process() -> None:
    """Nothing depends on the order of a set, an object's address or the global chance."""
    script = (
        "from tests.raft.simulation import Simulation\n"
        "for seed in (3, 20, 22, 83): print(Simulation(seed).run().trace)\n"
    )
    traces = {
        subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(traces) == 1
