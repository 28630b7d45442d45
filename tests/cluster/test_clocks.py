"""Hosts whose clocks are wrong and jump: sessions go by nobody's wall clock."""

from __future__ import annotations

import random
import struct
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import pytest

from tests.cluster.processes import Cluster, NodeProcess, eventually
from tests.cluster.shims import compiled
from tests.cluster.test_exactly_once import open_session, sessions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("exactly-once")

OFF_SECONDS = 300
# On a busy machine: an end is looked for twice a second, at whole seconds of the sessions' clock.
LATE_SECONDS = 15.0


class HostClock:
    """The clock of one node's host."""

    def __init__(self, path: Path, off_by_seconds: int) -> None:
        self.path = path
        path.write_bytes(bytes(8))
        self.set(off_by_seconds)

    def set(self, off_by_seconds: int) -> None:
        """Let it jump."""
        with self.path.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", off_by_seconds))


class User:
    """A client that uses its session all the time, through all nodes in turn."""

    def __init__(self, nodes: list[NodeProcess], ttl_seconds: float) -> None:
        self.nodes = nodes
        self.ttl_seconds = ttl_seconds
        self._open()

    def _open(self) -> None:
        self.used_at = time.monotonic()
        self._session = open_session(self.nodes[0], self.ttl_seconds)
        self._sequence = 0

    def use(self) -> None:
        """Write; the session may have ended only if the machine was too slow to use it in time."""
        self._sequence += 1
        node = self.nodes[self._sequence % len(self.nodes)]
        headers = {"X-Session": self._session, "X-Sequence": str(self._sequence)}
        sent_at = time.monotonic()
        code, _, body = node.request("PUT", "/kv/used", b"x", headers)
        if code == 410 and time.monotonic() - self.used_at > self.ttl_seconds:
            self._open()
        else:
            assert code == 200, f"after {time.monotonic() - self.used_at:.2f} s: {body!r}"
            self.used_at = sent_at


def after(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed from now on."""
    due = time.monotonic() + seconds
    return lambda: time.monotonic() > due


def dated(node: NodeProcess) -> float:
    """What a node takes for the time."""
    return parsedate_to_datetime(node.request("GET", "/status")[1]["Date"]).timestamp()


def test_sessions_end_in_time_and_alike_whatever_the_clocks_of_the_hosts_do(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Minutes apart and jumping, through changes of the leader and a restart."""
    library = compiled("clock_jumps", tmp_path_factory.mktemp("shim"))
    chance = random.Random(1)
    cluster = Cluster(tmp_path, 3, "--snapshot-entries", "100")
    clocks = [
        HostClock(tmp_path / f"clock{number}", off_by_seconds)
        for number, off_by_seconds in enumerate((OFF_SECONDS, 0, -OFF_SECONDS))
    ]
    environments = [
        {"LD_PRELOAD": str(library), "CLOCK_OFF_BY": str(clock.path)} for clock in clocks
    ]

    def jump() -> None:
        chance.choice(clocks).set(chance.randint(-OFF_SECONDS, OFF_SECONDS))

    def use_until(what: str, look: Callable[[], bool]) -> None:
        def look_and_use() -> bool:
            jump()
            user.use()
            return look()

        eventually(what, look_and_use)

    try:
        for node, environment in zip(cluster.nodes, environments, strict=True):
            node.start(**environment)
        cluster.wait_until_whole()
        early, now, late = (dated(node) - time.time() for node in reversed(cluster.nodes))
        assert early < -OFF_SECONDS / 2 < now < OFF_SECONDS / 2 < late  # they are off indeed

        by_key = {"Idempotency-Key": "once"}
        user = User(cluster.nodes, 3)
        etag = cluster.nodes[0].request("PUT", "/kv/by-key", b"x", by_key)[1]["ETag"]
        opened_at = time.monotonic()
        open_session(cluster.nodes[1], 2)
        use_until("the idle one ends", lambda: 1 in sessions(cluster))
        assert 2 <= time.monotonic() - opened_at < 2 + LATE_SECONDS

        for node in cluster.nodes:  # each leads, by its own clock
            cluster.leader().request("POST", "/leader", b'{"id": "%s"}' % node.node_id.encode())
            use_until("it has led for a second", after(1))
        leader = cluster.leader()
        number = cluster.nodes.index(leader)
        leader.kill()
        clocks[number].set(-OFF_SECONDS)
        leader.start(**environments[number])
        user.nodes = [node for node in cluster.nodes if node is not leader]
        use_until("it is back, and has the session", lambda: sessions(cluster) == [1, 1, 1])

        eventually("the user's ends too", lambda: 0 in sessions(cluster))
        idle_seconds = time.monotonic() - user.used_at
        assert user.ttl_seconds <= idle_seconds < user.ttl_seconds + LATE_SECONDS
        eventually("it has ended on all", lambda: sessions(cluster) == [0, 0, 0])
        for node in cluster.nodes:
            _, found, _ = node.request("PUT", "/kv/by-key", b"x", by_key)
            assert (found["ETag"], found["X-Replayed"]) == (etag, "true")
        cluster.wait_until_caught_up()
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.kill_all()
