"""kill -9 under load, again and again: ``python -m tests.cluster.kill --leader 50 --all 10``."""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.load import Writers, missing
from tests.cluster.processes import Cluster, eventually, running_cluster

FAILOVER_SECONDS = 3.0
SAMPLE = 500  # keys of earlier rounds that are looked at again


def kill_leader_once(cluster: Cluster, run: str) -> tuple[float, list[str]]:
    """Kill the leader under load. Returns how long nobody answered, and the keys written."""
    leader = cluster.leader()
    with Writers(cluster, 6, run) as writers:
        eventually(
            "every client has been answered",
            lambda: all(len(record.acknowledged) > 20 for record in writers.records),
        )
        killed_at = time.monotonic()
        leader.kill()
        first = eventually(
            "another node accepts a write",
            lambda: writers.acknowledged_after(killed_at, leader.node_id),
        )
        # Not one that was under way already: one accepted by whoever leads next.
        gap_ends = eventually("the next leader answers", lambda: _after_gap(writers, killed_at))
        eventually("clients go on", lambda: writers.acknowledged_after(gap_ends + 0.3, "") or None)
        assert first >= killed_at
        leader.start()
    cluster.wait_until_whole()
    cluster.wait_until_caught_up()
    return gap_ends - killed_at, writers.acknowledged


def _after_gap(writers: Writers, killed_at: float) -> float | None:
    """When writes were answered again, after the longest silence since the kill."""
    times = sorted(
        at for record in writers.records for at, _ in record.acknowledged_at if at > killed_at - 0.2
    )
    if not times or time.monotonic() - killed_at < 0.5:
        return None
    gaps = [(b - a, b) for a, b in itertools.pairwise(times)]
    longest, end = max(gaps, default=(0.0, 0.0))
    return end if longest > 0.2 and times[-1] > end else None


def kill_all_once(cluster: Cluster, run: str) -> list[str]:
    """Kill every node at once while clients write, and start them again."""
    with Writers(cluster, 6, run) as writers:
        eventually(
            "every client has been answered",
            lambda: all(len(record.acknowledged) > 20 for record in writers.records),
        )
        cluster.kill_all()
    for node in cluster.nodes:
        node.start()
    cluster.wait_until_whole()
    cluster.wait_until_caught_up()
    return writers.acknowledged


def check(cluster: Cluster, fresh: list[str], earlier: list[str], chance: random.Random) -> None:
    """No acknowledged write is missing, through any node."""
    sample = fresh + chance.sample(earlier, min(SAMPLE, len(earlier)))
    for node in cluster.nodes:
        lost = missing(node, sample)
        assert not lost, (
            f"{len(lost)} acknowledged writes are missing on {node.node_id}: {lost[:5]}"
        )


def main() -> int:
    """Run the rounds asked for and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leader", type=int, default=50)
    parser.add_argument("--all", type=int, default=10)
    arguments = parser.parse_args()
    chance = random.Random(1)
    failovers: list[float] = []
    known: list[str] = []
    with (
        tempfile.TemporaryDirectory() as directory,
        running_cluster(Path(directory), 3) as cluster,
    ):
        for number in range(arguments.leader):
            seconds, fresh = kill_leader_once(cluster, f"leader{number}")
            check(cluster, fresh, known, chance)
            known += fresh
            failovers.append(seconds)
            print(f"leader {number + 1}: {seconds:.2f} s, {len(known)} acknowledged", flush=True)
            assert seconds < FAILOVER_SECONDS
        for number in range(arguments.all):
            fresh = kill_all_once(cluster, f"all{number}")
            check(cluster, fresh, known, chance)
            known += fresh
            print(f"all {number + 1}: {len(known)} acknowledged, none missing", flush=True)
        lost = missing(cluster.nodes[0], known)
        assert not lost, lost[:5]
    if failovers:
        print(
            f"failover: median {statistics.median(failovers):.2f} s, worst {max(failovers):.2f} s"
        )
    print(f"{len(known)} acknowledged writes, none missing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
