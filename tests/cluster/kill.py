"""kill -9 under load, again and again: ``python -m tests.cluster.kill --leader 50 --all 10``.

Clients write, as many through each node. With one node of three killed at a time there is always a
majority, so whoever writes through a follower has to get its real answer within the request
timeout: no ``commit_unknown``, nor anything else but 200.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.load import COMMIT_UNKNOWN, WriteError, Writers, missing
from tests.cluster.processes import Cluster, eventually, running_cluster

FAILOVER_SECONDS = 3.0
REQUEST_TIMEOUT = "5s"
CLIENTS = 6
SAMPLE = 500  # keys of earlier rounds that are looked at again


@dataclass
class Round:
    """What came of one kill."""

    gap_seconds: float  # in which nobody was answered
    acknowledged: list[str]
    through_followers: int
    errors: list[WriteError]  # but for the connections that the kill broke


def kill_leader_once(cluster: Cluster, run: str, clients: int = CLIENTS) -> Round:
    """Kill the leader under load."""
    leader = cluster.leader()
    with Writers(cluster, clients, run) as writers:
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
    by_others = [
        node_id
        for record in writers.records
        for _, node_id in record.acknowledged_at
        if node_id != leader.node_id
    ]
    errors = [
        error for error in writers.errors if error.answered or error.node_id != leader.node_id
    ]
    return Round(gap_ends - killed_at, writers.acknowledged, len(by_others), errors)


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
    with Writers(cluster, CLIENTS, run) as writers:
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
    parser.add_argument("--clients", type=int, default=CLIENTS)
    arguments = parser.parse_args()
    chance = random.Random(1)
    rounds: list[Round] = []
    known: list[str] = []
    with (
        tempfile.TemporaryDirectory() as directory,
        running_cluster(Path(directory), 3, "--request-timeout", REQUEST_TIMEOUT) as cluster,
    ):
        for number in range(arguments.leader):
            done = kill_leader_once(cluster, f"leader{number}", arguments.clients)
            check(cluster, done.acknowledged, known, chance)
            known += done.acknowledged
            rounds.append(done)
            print(
                f"leader {number + 1}: {done.gap_seconds:.2f} s, {len(known)} acknowledged, "
                f"errors: {[str(error) for error in done.errors]}",
                flush=True,
            )
            if done.errors or done.gap_seconds >= FAILOVER_SECONDS:
                print(cluster.logs(), flush=True)
        for number in range(arguments.all):
            fresh = kill_all_once(cluster, f"all{number}")
            check(cluster, fresh, known, chance)
            known += fresh
            print(f"all {number + 1}: {len(known)} acknowledged, none missing", flush=True)
        lost = missing(cluster.nodes[0], known)
        assert not lost, lost[:5]
    print(f"{len(known)} acknowledged writes, none missing")
    return report(rounds)


def report(rounds: list[Round]) -> int:
    """Print the figures of the leaders' kills; 1 if a client saw ``commit_unknown`` or waited."""
    if not rounds:
        return 0
    gaps = [done.gap_seconds for done in rounds]
    errors = Counter(error.code for done in rounds for error in done.errors)
    unknown = errors.pop(COMMIT_UNKNOWN, 0)
    print(f"failover: median {statistics.median(gaps):.2f} s, worst {max(gaps):.2f} s")
    print(
        f"{len(rounds)} leader kills, request timeout {REQUEST_TIMEOUT}, "
        f"{sum(len(done.acknowledged) for done in rounds)} writes, "
        f"{sum(done.through_followers for done in rounds)} of them through followers: "
        f"{unknown} {COMMIT_UNKNOWN} while a majority was up, other errors: {dict(errors)}"
    )
    late = [f"{gap:.2f} s" for gap in gaps if gap >= FAILOVER_SECONDS]
    if late:
        print(f"{len(late)} kept clients waiting for over {FAILOVER_SECONDS} s: {late}")
    return 1 if unknown or late else 0


if __name__ == "__main__":
    sys.exit(main())
