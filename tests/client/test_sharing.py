"""One client, many users: threads, greenlets, a fork."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from anchor.client import Client, CommitUnknown, PreconditionFailed
from tests.client.fakes import Act, FakeCluster, FakeNode, Reply, Seen, problem

ROOT = Path(__file__).resolve().parent.parent.parent


def test_no_answer_goes_to_the_wrong_thread() -> None:
    """Connections and sessions are not shared in use."""
    together = threading.Barrier(8)
    with FakeNode() as node, Client(node.endpoint) as client:

        def work(number: int) -> list[bytes | None]:
            together.wait()
            key = f"k{number}"
            client.put(key, key)
            return [client.get(key) for _ in range(10)]

        with ThreadPoolExecutor(8) as pool:
            for number, values in enumerate(pool.map(work, range(8))):
                assert values == [f"k{number}".encode()] * 10
        assert len({seen.connection for seen in node.all_seen}) <= 8


class Unreliable:
    """Loses answers after the write was done or before, ends sessions, has no leader at times."""

    def __init__(self, seed: int, cluster: FakeCluster) -> None:
        self._rng = random.Random(seed)
        self._cluster = cluster
        self._lock = threading.Lock()

    def __call__(self, seen: Seen) -> Reply | Act:
        """Decide what becomes of a request."""
        with self._lock:
            chance = self._rng.random()
        if not seen.target.startswith("/kv/"):
            return Act.SERVE
        if chance < 0.01:
            self._cluster.end_sessions()
        if chance < 0.1:
            return problem(503, "no_leader", retryable=True)
        if chance < 0.3:
            return Act.LOSE
        if chance < 0.4:
            return Act.CLOSE
        return Act.SERVE


@pytest.mark.parametrize("seed", [1, 2])
def test_threads_count_exactly_whatever_becomes_of_answers(seed: int) -> None:
    """Increments by compare-and-set: what was answered as done is counted, and once."""
    cluster = FakeCluster()
    with (
        FakeNode(Unreliable(seed, cluster), cluster=cluster) as one,
        FakeNode(Unreliable(seed + 100, cluster), cluster=cluster, node_id="n2") as other,
        Client([one.endpoint, other.endpoint], timeout=30, sleep=lambda _: None) as client,
    ):

        def increment(number: int) -> tuple[int, int]:
            done = unknown = 0
            for _ in range(15):
                try:
                    _increment(client, f"counter{number % 2}")
                    done += 1
                except CommitUnknown:  # its session ended while its answer was lost
                    unknown += 1
            return done, unknown

        with ThreadPoolExecutor(8) as pool:
            counts = list(pool.map(increment, range(8)))
        counted = sum(int(entry.value) for entry in cluster.entries.values())
        done, unknown = (sum(each) for each in zip(*counts, strict=True))
        assert done <= counted <= done + unknown
        assert cluster.applied == counted
        assert done > 60
    for node in (one, other):
        by_session: dict[str, list[int]] = {}
        for session, number in node.numbers:
            by_session.setdefault(session, []).append(int(number))
        # One write in progress in each session: its numbers never go back.
        assert all(a <= b for each in by_session.values() for a, b in pairwise(each))


def _increment(client: Client, key: str) -> None:
    while True:
        entry = client.entry(key)
        mod_index, count = (entry.mod_index, int(entry.value)) if entry else (0, 0)
        try:
            client.put_if(key, str(count + 1), mod_index)
        except PreconditionFailed:
            continue
        return


GREENLETS = """
import gevent, time
from tests.client.fakes import Act, FakeNode
with FakeNode() as node, Client(node.endpoint) as client:
    def work(number):
        for _ in range(5):
            client.put(f"k{number}", str(number))
        return client.get(f"k{number}")
    greenlets = [gevent.spawn(work, number) for number in range(20)]
    gevent.joinall(greenlets, raise_error=True)
    assert [int(each.value) for each in greenlets] == list(range(20))
    assert len(node.cluster.sessions) > 1, "they waited for one another"
    ticks = []
    def tick():
        while True:
            gevent.sleep(0.01)
            ticks.append(time.monotonic())
    ticking = gevent.spawn(tick)
    node.script = lambda _: Act.DRIP_BODY
    began = time.monotonic()
    try:
        client.get("k", timeout=0.3)
    except Unreachable:
        assert time.monotonic() - began < 2, "each byte gave it new time"
    else:
        raise AssertionError
    assert len(ticks) > 10, "waiting held the hub"
    ticks.clear()
    node.stop()
    try:
        client.put("k", "v", timeout=0.5)
    except Unreachable:
        assert len(ticks) > 10, "back-off held the hub"
    else:
        raise AssertionError
    ticking.kill()
"""
PATCH = "from gevent import monkey; monkey.patch_all()\n"
IMPORT = "from anchor.client import Client, Unreachable\n"


@pytest.mark.parametrize("start", [PATCH + IMPORT, IMPORT + PATCH], ids=["before", "after"])
def test_greenlets_share_a_client(start: str) -> None:
    """Under gevent's patches, made before the client was imported or after."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", start + GREENLETS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_a_fork_takes_neither_connections_nor_sessions_along() -> None:
    """Two processes that number writes of one session would lose some of them."""
    program = IMPORT + (
        "import os, sys\n"
        "client = Client(sys.argv[1])\n"
        "client.put('k', 'same')\n"
        "child = os.fork()\n"
        "client.put('k', 'same')\n"
        "client.close()\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
    )
    with FakeNode() as node:
        subprocess.run([sys.executable, "-c", program, node.endpoint], check=True, timeout=60)
        assert node.cluster.applied == 3
        assert len(node.cluster.sessions) == 2
        first, second, third = (seen.connection for seen in node.seen)
        assert second != third
        assert first in {second, third}
