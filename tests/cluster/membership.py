"""Random changes of the members under load, with kill -9 in between.

    python -m tests.cluster.membership --changes 200 --seed 1

Adds, removes, replaces two members at once, hands leadership over, removes the leader; now and
then somebody is killed in the middle of it, or was killed before it is removed. Looked at all the
time: that no two configurations without a common majority are in force (``configurations.py``),
that no acknowledged write is lost, and how long no client was answered.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.cluster.configurations import ConfigurationWatch
from tests.cluster.load import Writers, missing
from tests.cluster.processes import Cluster, NodeProcess, eventually, free_ports

GAP_SECONDS_MAX = 3.0
PATIENCE_SECONDS = 60.0
SLOTS = 7
VOTERS = (3, 5)
SAMPLE = 40
PASSING = {
    "change_in_progress", "quorum_would_be_lost", "no_leader", "timeout", "unreachable",
    "transfer_failed", "transfer_in_progress", "removed", "stopping",
}  # fmt: skip


class Soak:
    """One cluster of slots, some of them in use; the model is who its voters shall be."""

    def __init__(self, directory: Path, seed: int, *flags: str) -> None:
        self.chance = random.Random(seed)
        self._directory = directory
        self._flags = flags
        self.cluster = Cluster(directory, 0)
        ports = free_ports(2 * SLOTS)
        self._ports = list(itertools.pairwise(ports))[::2]
        self.cluster.nodes = [self._fresh(slot, []) for slot in range(SLOTS)]
        self.voters: list[NodeProcess] = []
        self._settled: list[NodeProcess] = []  # who of them is one for sure
        self.done: Counter[str] = Counter()
        self.gaps: list[tuple[float, str]] = []
        self.removed_told_seconds: list[float] = []

    @property
    def nodes(self) -> list[NodeProcess]:
        """Where clients write: at members. A node that is none yet makes them wait for one."""
        return [node for node in self._settled if node in self.voters] or self.voters

    # ----------------------------------------------------------------- nodes

    def _fresh(self, slot: int, peers: list[str], *flags: str) -> NodeProcess:
        node_id = f"node{slot + 1}"
        directory = self._directory / node_id
        shutil.rmtree(directory, ignore_errors=True)
        return NodeProcess(node_id, self._ports[slot], directory, peers, *self._flags, *flags)

    def begin(self) -> None:
        """Three voters: one founds, two join."""
        for slot in range(3):
            peers = [node.address for node in self.voters]
            node = self.cluster.nodes[slot] = self._fresh(slot, peers)
            node.start()
            self.voters.append(node)
            self.await_voters()

    def start_fresh(self, *flags: str) -> NodeProcess:
        """Start an empty node in a slot that is free."""
        free = [slot for slot, node in enumerate(self.cluster.nodes) if node not in self.voters]
        slot = self.chance.choice(free)
        if self.cluster.nodes[slot].process is not None:
            self.cluster.nodes[slot].kill()
        peers = [node.address for node in self.voters]
        node = self._fresh(slot, peers, *flags)
        self.cluster.nodes[slot] = node
        node.start()
        return node

    def await_voters(self) -> None:
        """Until all who shall be voters say so of each other, and there is a leader."""
        wanted = sorted(node.node_id for node in self.voters)

        def agreed() -> bool:
            for node in self.voters:
                found = get(node, "/members")
                if found is None or found["voters"] != wanted or found["voters_outgoing"]:
                    return False
                if found["leader_id"] is None or not found["committed"]:
                    return False
            return True

        eventually(f"the voters are {wanted}", agreed, PATIENCE_SECONDS)
        self._settled = list(self.voters)

    def leader(self) -> NodeProcess:
        """Who leads."""
        by_id = {node.node_id: node for node in self.voters}

        def look() -> NodeProcess | None:
            for node in self.voters:
                found = get(node, "/leader")
                if found is not None and found["leader_id"] in by_id:
                    return by_id[found["leader_id"]]
            return None

        return eventually("somebody leads", look)

    def ask(self, path: str, body: object) -> None:
        """Ask any voter, and again, until it is done."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        said = ""
        while time.monotonic() < deadline:
            node = self.chance.choice([node for node in self.voters if node.process is not None])
            try:
                code, _, answer = node.request(
                    "POST", path, json.dumps(body).encode(), timeout=40.0
                )
            except (OSError, http.client.HTTPException) as error:
                said = str(error)
                continue
            if code == 200:
                return
            said = answer.decode()
            assert json.loads(said)["code"] in PASSING, (path, body, said)
            time.sleep(0.05)
        raise AssertionError(f"{path} {body}: {said}")

    # ----------------------------------------------------------------- the changes

    def change(self) -> str:
        """Make one; returns what it was."""
        size = len(self.voters)
        kinds = ["transfer", "replace"]
        if size < VOTERS[1]:
            kinds += ["add", "add"]
        if size > VOTERS[0]:
            kinds += ["remove", "remove the leader", "remove one that is down"]
        kind = self.chance.choice(kinds)
        # Two failures at once are more than a majority of three can bear.
        killer = None
        if kind != "remove one that is down" and self.chance.random() < 0.4:
            killer = self._kill_soon()
            kind_said = f"{kind}, with a kill"
        else:
            kind_said = kind
        getattr(self, f"_{kind.replace(' ', '_')}")()
        if killer is not None:
            killer.join()
        self.await_voters()
        self.done[kind_said] += 1
        return kind_said

    def _kill_soon(self) -> threading.Thread:
        victim = self.chance.choice([*self.voters, self.leader()])
        pause = self.chance.uniform(0, 0.3)

        def kill() -> None:
            time.sleep(pause)
            if victim.process is not None:
                victim.kill()
                time.sleep(0.5)
                if victim in self.voters:
                    victim.start()

        thread = threading.Thread(target=kill)
        thread.start()
        return thread

    def _add(self) -> None:
        if self.chance.random() < 0.5:
            self.voters.append(self.start_fresh())
            return  # it asks for itself
        node = self.start_fresh("--learner")
        eventually(
            "the learner is a member",
            lambda: any(
                node.node_id in (get(voter, "/members") or {}).get("learners", ())
                for voter in self.voters
            ),
            PATIENCE_SECONDS,
        )
        self.ask(f"/members/{node.node_id}/promote", {})
        self.voters.append(node)

    def _remove(self) -> None:
        self._remove_this(self.chance.choice(self.voters))

    def _remove_the_leader(self) -> None:
        self._remove_this(self.leader())

    def _remove_this(self, node: NodeProcess) -> None:
        self.voters.remove(node)
        self.ask("/remove", {"id": node.node_id})
        self._await_told([node])

    def _remove_one_that_is_down(self) -> None:
        node = self.chance.choice(self.voters)
        node.kill()
        self.voters.remove(node)
        self.ask("/remove", {"id": node.node_id})
        node.start()
        self._await_told([node])

    def _replace(self) -> None:
        count = self.chance.choice([1, 2])
        newcomers = []
        for _ in range(count):
            node = self.start_fresh("--learner")
            newcomers.append(node)
            self.voters.append(node)  # so that the next one takes another slot
        for node in newcomers:
            self.voters.remove(node)
            eventually("it answers", lambda node=node: node.status(), PATIENCE_SECONDS)  # type: ignore[misc]
        leaving = self.chance.sample(self.voters, count)
        staying = [node for node in self.voters if node not in leaving]
        target = [{"id": n.node_id, "addr": n.address} for n in (*staying, *newcomers)]
        self.ask("/members", target)
        self.voters = [*staying, *newcomers]
        self._await_told(leaving)

    def _transfer(self) -> None:
        self.ask("/leader", {"id": self.chance.choice(self.voters).node_id})

    def _await_told(self, nodes: list[NodeProcess]) -> None:
        """Who was removed says so, and answers 410."""
        began = time.monotonic()
        for node in nodes:
            if node.process is None:
                continue  # killed in between, and not started again
            eventually(f"{node.node_id} knows", lambda node=node: is_removed(node))  # type: ignore[misc]
            self.removed_told_seconds.append(time.monotonic() - began)
            node.kill()

    # ----------------------------------------------------------------- what is looked at

    def note_gap(self, writers: Writers, began: float, kind: str) -> None:
        """How long nobody was answered since then; a moment more, for whoever is on the way."""
        eventually("clients are answered", lambda: writers.acknowledged_after(time_floor(), ""))
        times = sorted(
            at for record in writers.records for at, _ in record.acknowledged_at if at > began - 1
        )
        longest = max((b - a for a, b in itertools.pairwise(times)), default=0.0)
        self.gaps.append((longest, kind))
        for record in writers.records:
            del record.acknowledged_at[:-500]


def time_floor() -> float:
    """A moment ago."""
    return time.monotonic() - 0.05


def get(node: NodeProcess, path: str) -> dict[str, Any] | None:
    """GET a JSON object; None where there is none."""
    if node.process is None:
        return None
    try:
        code, _, body = node.request("GET", path, timeout=2.0)
    except (OSError, http.client.HTTPException):
        return None
    found: dict[str, Any] = json.loads(body)
    return found if code == 200 else None


def is_removed(node: NodeProcess) -> bool:
    """Whether it says that it was removed, wherever it can be asked."""
    status = node.status()
    if status is None or status["role"] != "removed":
        return False
    return node.request("GET", "/kv/x")[0] == 410 and "was removed" in node.log_path.read_text()


def run(changes: int, seed: int, directory: Path, *flags: str) -> Soak:
    """Make so many changes; raises AssertionError for whatever must not be."""
    soak = Soak(directory, seed, *flags)
    known: list[str] = []
    try:
        soak.begin()
        with (
            ConfigurationWatch(soak.cluster) as watch,
            Writers(soak, 4, "w", pause_seconds=0.1) as writers,
        ):
            eventually("clients are answered", lambda: len(writers.acknowledged) > 50)
            for number in range(changes):
                began = time.monotonic()
                kind = soak.change()
                soak.note_gap(writers, began, kind)
                gap = soak.gaps[-1][0]
                acknowledged = writers.acknowledged
                fresh, known = acknowledged[-SAMPLE:], acknowledged
                sample = fresh + soak.chance.sample(known, min(SAMPLE, len(known)))
                for node in soak.voters:
                    lost = missing(node, sample)
                    assert not lost, f"missing on {node.node_id}: {lost[:5]}"
                assert not watch.wrong, watch.wrong
                print(
                    f"{number + 1} {kind}: {len(soak.voters)} voters, gap {gap:.2f} s, "
                    f"{time.monotonic() - began:.1f} s, load {os.getloadavg()[0]:.0f}",
                    flush=True,
                )
                if gap >= GAP_SECONDS_MAX:
                    print(soak.cluster.logs(), flush=True)
        known = writers.acknowledged
        lost = missing_anywhere(soak.voters, known)
        assert not lost, f"{len(lost)} lost: {lost[:5]}"
        report(soak, watch, len(known))
    except BaseException:
        print(f"seed {seed}")
        print(soak.cluster.logs())
        raise
    finally:
        soak.cluster.kill_all()
    return soak


def missing_anywhere(nodes: list[NodeProcess], keys: list[str]) -> list[str]:
    """Look for all keys, each node for its share of them."""
    shares = [keys[at :: len(nodes)] for at in range(len(nodes))]
    with ThreadPoolExecutor(len(nodes)) as pool:
        return [key for lost in pool.map(missing, nodes, shares) for key in lost]


def report(soak: Soak, watch: ConfigurationWatch, acknowledged: int) -> None:
    """Print the figures."""
    gaps = [gap for gap, _ in soak.gaps]
    worst = max(soak.gaps, default=(0.0, ""))
    print(f"changes: {dict(sorted(soak.done.items()))}")
    print(
        f"no client answered for: median {statistics.median(gaps):.2f} s, "
        f"worst {worst[0]:.2f} s ({worst[1]})"
    )
    print(
        f"{watch.samples} samples, {watch.joint} of them with a joint configuration, "
        f"{len(watch.committed)} committed configurations seen, none wrong"
    )
    if soak.removed_told_seconds:
        print(f"removed nodes knew it after {max(soak.removed_told_seconds):.2f} s at most")
    print(f"{acknowledged} acknowledged writes, none missing")


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snapshot-entries", type=int, default=200)
    arguments = parser.parse_args()
    # Few, so that who joins or was away is sent a snapshot as often as the log.
    flags = ("--snapshot-entries", str(arguments.snapshot_entries))
    with tempfile.TemporaryDirectory() as directory:
        soak = run(arguments.changes, arguments.seed, Path(directory), *flags)
    late = [f"{kind}: {gap:.2f} s" for gap, kind in soak.gaps if gap >= GAP_SECONDS_MAX]
    if late:
        print(f"{len(late)} changes kept clients waiting for over {GAP_SECONDS_MAX} s: {late}")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
