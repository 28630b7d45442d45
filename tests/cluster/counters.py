"""Many clients, few counters, leaders that die: ``python -m tests.cluster.counters --seconds 600``.

16 clients add to 4 counters by conditional writes in sessions (:mod:`tests.cluster.counting`),
while every two seconds a leader is killed or paused (:mod:`tests.cluster.strikes`). At the end each
counter has to be the number of increments that were answered as done, on every node, and each value
up to that has to be one client's. ``--without-sessions`` shows why they are needed. With
``--one-at-a-time`` a majority is always up, and no client may be answered that its write's fate is
not known, or anything else but what became of it.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.counting import Counting, Error, Tally
from tests.cluster.processes import Cluster, running_cluster
from tests.cluster.strikes import Strikes

CLIENTS = 16
COUNTERS = [f"counter{number}" for number in range(4)]
FLAGS = ("--snapshot-entries", "500")
MIB = 1 << 20
WRONG_SHOWN = 20


@dataclass
class Run:
    """What came of it."""

    seconds: float
    tallies: list[Tally]
    found: dict[str, dict[str, int]]  # what each counter is, by node
    kills: int
    pauses: int
    memory_mib: dict[str, int]

    @property
    def done(self) -> Counter[str]:
        """Increments answered as done, by counter."""
        return Counter(counter for tally in self.tallies for counter, _, _ in tally.done)

    @property
    def off(self) -> int:
        """By how much the counters are off, all in all, on the worst node."""
        return max(
            sum(abs(counters[name] - self.done[name]) for name in COUNTERS)
            for counters in self.found.values()
        )

    @property
    def errors(self) -> list[Error]:
        """What clients were answered instead of what became of their writes."""
        return [error for tally in self.tallies for error in tally.errors]

    @property
    def complaints(self) -> list[str]:
        """What clients saw that must not be."""
        return [each for tally in self.tallies for each in tally.wrong]

    @property
    def wrong(self) -> list[str]:
        """All that must not be, in sessions."""
        wrong = []
        for node_id, counters in self.found.items():
            wrong += [
                f"{name} is {value} on {node_id}; {self.done[name]} were answered as done"
                for name, value in counters.items()
                if value != self.done[name]
            ]
        for name in COUNTERS:
            wrong += wrong_values(name, [done for tally in self.tallies for done in tally.done])
        return wrong + self.complaints

    @property
    def longest_gap(self) -> float:
        """Seconds in which nobody counted."""
        times = sorted(at for tally in self.tallies for at in tally.done_at)
        return max((b - a for a, b in itertools.pairwise(times)), default=self.seconds)


def wrong_values(name: str, done: list[tuple[str, int, str]]) -> list[str]:
    """Each value is one increment's, and their ETags rise with them."""
    values = sorted(
        (value, int(etag.strip('"'))) for counter, value, etag in done if counter == name
    )
    wrong = [
        f"{name}: {value} at {index} does not come after {before} at {before_index}"
        for (before, before_index), (value, index) in itertools.pairwise(values)
        if value != before + 1 or index <= before_index
    ]
    return wrong[:5]


def run(
    directory: Path,
    seconds: float,
    seed: int,
    *,
    in_session: bool = True,
    one_at_a_time: bool = False,
) -> Run:
    """Count for so long, heal, settle what is open, and look at the counters."""
    with running_cluster(directory, 3, *FLAGS) as cluster:
        for name in COUNTERS:
            assert cluster.nodes[0].request("PUT", f"/kv/{name}", b"0")[0] == 200
        clients = [
            Counting(cluster.nodes, number, seed, COUNTERS, directory, in_session=in_session)
            for number in range(CLIENTS)
        ]
        began = time.monotonic()
        with Strikes(cluster, seed, one_at_a_time=one_at_a_time) as strikes:
            for client in clients:
                client.start()
            time.sleep(seconds)
            for client in clients:
                client.end()
            for client in clients:
                client.join(30)
            took = time.monotonic() - began
        assert not strikes.wrong, strikes.wrong
        (directory / "strikes.log").write_text(
            "".join(f"{at:.3f} {what}\n" for at, what in strikes.log)
        )
        cluster.wait_until_whole()
        for client in clients:
            client.settle()
        cluster.wait_until_caught_up()
        return Run(
            took,
            [client.tally for client in clients],
            {
                node.node_id: counters_on(cluster, number)
                for number, node in enumerate(cluster.nodes)
            },
            strikes.kills,
            strikes.pauses,
            {node.node_id: node.memory_bytes() // MIB for node in cluster.nodes},
        )


def counters_on(cluster: Cluster, number: int) -> dict[str, int]:
    """What one node has, without asking the others."""
    found = {}
    for name in COUNTERS:
        stale = {"X-Consistency": "stale"}
        code, _, body = cluster.nodes[number].request("GET", f"/kv/{name}", headers=stale)
        assert code == 200
        found[name] = int(body)
    return found


def report(outcome: Run) -> None:
    """Print the figures."""
    tallies = outcome.tallies
    errors = Counter(error.code for error in outcome.errors)
    done = outcome.done.total()
    print(
        f"{outcome.seconds:.0f} s, {outcome.kills} leaders killed, {outcome.pauses} paused; "
        f"nobody counted for {outcome.longest_gap:.1f} s at most"
    )
    print(
        f"{done} increments done ({done / outcome.seconds:.0f} a second), "
        f"{sum(tally.met for tally in tallies)} met another's (412)"
    )
    print(
        f"attempts without an answer: {sum(tally.unanswered for tally in tallies)}; "
        f"errors: {dict(errors)}; "
        f"{sum(tally.replayed for tally in tallies)} answers were replayed to a later attempt, "
        f"{sum(tally.again for tally in tallies)} writes sent again after their answer, "
        f"{sum(tally.settled for tally in tallies)} settled at the end"
    )
    print(f"memory: {outcome.memory_mib} MiB")
    for name in COUNTERS:
        values = {node_id: counters[name] for node_id, counters in outcome.found.items()}
        print(f"{name}: {outcome.done[name]} done, {values}")


def main() -> int:
    """Run it, keep what there is to look at if it failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-sessions", action="store_true")
    parser.add_argument("--one-at-a-time", action="store_true", help="so a majority is always up")
    parser.add_argument("--keep", action="store_true", help="keep logs, histories and data")
    arguments = parser.parse_args()
    in_session = not arguments.without_sessions
    directory = Path(tempfile.mkdtemp(prefix="counters-"))
    try:
        outcome = run(
            directory,
            arguments.seconds,
            arguments.seed,
            in_session=in_session,
            one_at_a_time=arguments.one_at_a_time,
        )
    except BaseException:
        print(f"seed {arguments.seed}; logs, histories and data are in {directory}")
        raise
    report(outcome)
    wrong = outcome.wrong if in_session else outcome.complaints
    if arguments.one_at_a_time:
        wrong += [f"while a majority was up: {error}" for error in outcome.errors]
    if wrong:
        print("\n".join(wrong[:WRONG_SHOWN]))
        print(f"{len(wrong)} things are wrong; the counters are off by {outcome.off}")
        print(f"seed {arguments.seed}; logs, histories and data are in {directory}")
        return 1
    print("exact" if in_session else f"off by {outcome.off} without sessions")
    if arguments.keep:
        print(f"logs, histories and data are in {directory}")
    else:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
