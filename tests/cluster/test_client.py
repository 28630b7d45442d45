"""The Python client and the programs in examples/ against a cluster of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from anchor.client import Client, PreconditionFailed
from tests.client.fakes import Act, FakeNode, Reply, Seen, problem
from tests.cluster.processes import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.cluster.processes import Cluster, NodeProcess

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.xdist_group("client")


def endpoints(cluster: Cluster) -> str:
    """Where clients of a cluster go."""
    return ",".join(f"127.0.0.1:{node.http_port}" for node in cluster.nodes)


@contextmanager
def paused(node: NodeProcess) -> Iterator[None]:
    """A node that is stopped, as by a debugger, and goes on at the end."""
    assert node.process is not None
    for pid in _family(node.process.pid):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in _family(node.process.pid):
            os.kill(pid, signal.SIGCONT)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


@contextmanager
def restarted(node: NodeProcess) -> Iterator[None]:
    """A node that is killed, and started again at the end."""
    node.kill()
    try:
        yield
    finally:
        node.start()


class Program:
    """An example as a process; what it prints is gathered as it comes."""

    def __init__(self, name: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, ROOT / "examples" / name, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def finish(self) -> int:
        """Wait for its end; its exit code."""
        code = self._process.wait(60)
        self._reader.join()
        return code

    def kill(self) -> None:
        """Kill -9, if it has not ended."""
        self._process.kill()
        self._process.wait(10)
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def prints(self, start: str) -> str:
        """Wait for a line that starts so, and return what follows there."""
        found = eventually(
            f"a line {start!r}",
            lambda: next((line for line in self.lines if line.startswith(start)), None),
        )
        return found.removeprefix(start)


# --------------------------------------------------------------------- the client


def test_keys_conditions_and_indexes(cluster: Cluster) -> None:
    """What fakes promise the client's tests is what nodes do."""
    for sessions in (True, False):
        with Client(endpoints(cluster), sessions=sessions) as client:
            client.delete(b"\xffk")
            first = client.put_if(b"\xffk", b"\x00\xfe", 0)
            second = client.put(b"\xffk", "text")
            entry = client.entry(b"\xffk")
            assert entry is not None
            assert (entry.key, entry.value) == (b"\xffk", b"text")
            assert (entry.create_index, entry.mod_index, entry.version) == (first, second, 2)
            for call in (
                lambda: client.put_if(b"\xffk", b"", first),  # noqa: B023 - called at once
                lambda: client.put_if(b"\xffk", b"", 0),
                lambda: client.delete_if(b"\xffk", first),  # noqa: B023
            ):
                with pytest.raises(PreconditionFailed) as failed:
                    call()
                assert failed.value.mod_index == second
            client.delete_if(b"\xffk", second)
            with pytest.raises(PreconditionFailed) as failed:
                client.delete_if(b"\xffk", second)
            assert failed.value.mod_index is None
            assert client.entry(b"\xffk") is None


def test_a_client_that_knows_one_node_finds_the_others(cluster: Cluster) -> None:
    """And goes on when that one is gone."""
    node = cluster.nodes[0]
    with Client(f"127.0.0.1:{node.http_port}") as client:
        client.put("found", "1")
        with restarted(node):
            client.put("found", "2")
            assert client.get("found") == b"2"
    cluster.wait_until_whole()


@pytest.mark.parametrize("happening", [paused, restarted])
def test_threads_count_exactly_while_leaders_fail(
    cluster: Cluster, happening: Callable[[NodeProcess], AbstractContextManager[None]]
) -> None:
    """No increment is lost, none counts twice, and none is unknown."""
    key = f"counter {happening.__name__}"
    over = threading.Event()
    with Client(endpoints(cluster), timeout=20) as client:

        def increment() -> int:
            done = 0
            while not over.is_set():
                entry = client.entry(key)
                count, mod_index = (int(entry.value), entry.mod_index) if entry else (0, 0)
                try:
                    client.put_if(key, str(count + 1), mod_index)
                except PreconditionFailed:
                    continue
                done += 1
            return done

        with ThreadPoolExecutor(4) as pool:
            counting = [pool.submit(increment) for _ in range(4)]
            try:
                for _ in range(3):
                    with happening(cluster.leader()):
                        before = int(client.get(key) or b"0")
                        eventually("it goes on", lambda: int(client.get(key) or b"0") > before + 5)  # noqa: B023
                    cluster.wait_until_whole()
            finally:
                over.set()
            done = sum(each.result() for each in counting)
        assert int(client.get(key) or b"0") == done


# --------------------------------------------------------------------- the examples


def test_example_counter_counts_every_increment_once(cluster: Cluster) -> None:
    """Two programs at once, a node killed meanwhile."""
    at = endpoints(cluster)
    with (
        Program("counter.py", at, "visits", "60") as one,
        Program("counter.py", at, "visits", "60") as other,
        restarted(cluster.leader()),
    ):
        assert [one.finish(), other.finish()] == [0, 0], (one.lines, other.lines)
    cluster.wait_until_whole()
    with Client(at) as client:
        assert client.get("visits") == b"120"
    assert "visits: we added 60, the last of them made it 120" in one.lines + other.lines


def test_example_leader_is_succeeded_by_one_with_a_higher_token(cluster: Cluster) -> None:
    """Killed, its lease ends; what it guarded takes nothing from it any more."""
    at = endpoints(cluster)
    with Program("leader_election.py", at, "ann", "1") as ann:
        first = int(ann.prints("ann leads, token "))
        with Program("leader_election.py", at, "bob", "1") as bob, Client(at) as client:
            eventually("ann works", lambda: b"ann" in (client.get("work") or b""))
            assert bob.lines == []
            ann.kill()
            second = int(bob.prints("bob leads, token "))
            assert second > first
            eventually("bob works", lambda: b"bob" in (client.get("work") or b""))
            sys.path.insert(0, str(ROOT / "examples"))
            try:
                import leader_election  # noqa: PLC0415 - a program, not a package
            finally:
                sys.path.pop(0)
            with pytest.raises(leader_election.Deposed):
                leader_election.write_as_leader(client, "work", "late", first)


def test_example_leader_pauses_when_it_is_refused_at_once() -> None:
    """As where the quota is exceeded: it neither ends nor asks as fast as it can."""
    asked_at = []

    def script(seen: Seen) -> Reply | Act:
        if seen.method != "PUT":
            return Act.SERVE
        asked_at.append(time.monotonic())
        return problem(507, "quota_exceeded")

    with (
        FakeNode(script) as node,
        Program("leader_election.py", node.endpoint, "ann", "0.4") as ann,
    ):
        ann.prints("ann does not lead: quota_exceeded")
        eventually("it asks again", lambda: len(asked_at) > 3)
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(asked_at))


def test_example_follows_a_configuration_through_everything(cluster: Cluster) -> None:
    """Made, changed, spoilt, deleted; a node killed in between."""
    at = endpoints(cluster)
    with Client(at) as client, Program("watch_config.py", at, "config", "0.05") as watching:
        watching.prints("there is no configuration")
        client.put("config", '{"workers": 4}')
        watching.prints("version 1: {'workers': 4}")
        client.put("config", "{")
        watching.prints("version 2 is no JSON, ignored")
        with restarted(cluster.leader()):
            client.put("config", '{"workers": 5}')
            watching.prints("version 3: {'workers': 5}")
        client.delete("config")
        eventually("it says so", lambda: watching.lines.count("there is no configuration") == 2)
    cluster.wait_until_whole()
