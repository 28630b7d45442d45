"""Nodes as processes, started as a user starts them.

They run from the file named by ``FILE_UNDER_TEST`` (a built ``anchor.pyz``), else from the sources.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

READY_SECONDS = 30.0
POLL_SECONDS = 0.02


def command() -> list[str]:
    """How a node is started here."""
    file = os.environ.get("FILE_UNDER_TEST")
    return [sys.executable, file] if file else [sys.executable, "-m", "anchor"]


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, and which no outgoing connection is given.

    A node that is down for a moment finds its port taken otherwise.
    """
    chosen: list[int] = []
    while len(chosen) < count:
        port = random.SystemRandom().randrange(
            10_000, 30_000
        )  # the kernel gives out those from 32,768 on
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in chosen:
                chosen.append(port)
    return chosen


def eventually(what: str, look: Callable[[], T | None], seconds: float = READY_SECONDS) -> T:
    """Poll another process until it has what we wait for; it cannot tell us by itself."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(POLL_SECONDS)


class NodeProcess:
    """One node: its command line, its process while it runs, and how to talk to it."""

    def __init__(
        self, node_id: str, ports: tuple[int, int], directory: Path, peers: list[str], *flags: str
    ) -> None:
        self.node_id = node_id
        self.port, self.http_port = ports
        self.directory = directory
        self.log_path = directory.parent / f"{node_id}.log"
        self._peers = peers
        self._flags = flags
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What peers dial."""
        return f"127.0.0.1:{self.port}"

    def start(self, **environment: str) -> None:
        """Start it, with these variables beside those there are; does not wait."""
        arguments = ["--id", self.node_id, "--port", str(self.port)]
        arguments += ["--http-port", str(self.http_port), "--dir", str(self.directory)]
        if self._peers:
            arguments += ["--peers", ",".join(self._peers)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command(), *arguments, *self._flags],
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    @property
    def has_ended(self) -> bool:
        """Whether it ended by itself."""
        return self.process is not None and self.process.poll() is not None

    def kill(self) -> None:
        """Kill -9, as the power would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP), connections open; ``resume`` lets it go on."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        """The process that was started, and the one that it started: that is the node (Linux)."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert children, f"{self.node_id} has not come up yet"
        return [pid, *map(int, children)]

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(20)
        self.process = None
        return code

    def memory_bytes(self) -> int:
        """What the node holds in memory (Linux)."""
        status = Path(f"/proc/{self._pids()[-1]}/status").read_text()
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 10.0,
    ) -> tuple[int, dict[str, str], bytes]:
        """One HTTP request; raises OSError or HTTPException where there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def status(self) -> dict[str, Any] | None:
        """GET /status, or None where nobody answers."""
        try:
            code, _, body = self.request("GET", "/status", timeout=2.0)
        except (OSError, http.client.HTTPException):
            return None
        found: dict[str, Any] = json.loads(body)
        return found if code == 200 else None


class Cluster:
    """Nodes that know each other: the first founds the cluster, the others join it."""

    def __init__(self, directory: Path, count: int, *flags: str) -> None:
        ports = free_ports(2 * count)
        self.nodes: list[NodeProcess] = []
        for number in range(1, count + 1):
            pair = (ports[2 * number - 2], ports[2 * number - 1])
            peers = [node.address for node in self.nodes]
            node_id = f"node{number}"
            self.nodes.append(NodeProcess(node_id, pair, directory / node_id, peers, *flags))

    def start(self) -> None:
        """Start all and wait until all are voters."""
        for node in self.nodes:
            node.start()
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """One leader, known to all, and everybody a member in everybody's eyes."""
        eventually("the cluster is whole", self.is_whole)

    def is_whole(self) -> bool:
        """Whether it is so now."""
        statuses = [node.status() for node in self.nodes]
        if any(status is None for status in statuses):
            return False
        leaders = {status["leader_id"] for status in statuses if status}
        return (
            len(leaders) == 1
            and None not in leaders
            and all(
                status["role"] in {"leader", "follower"}
                and len(status["peers"]) == len(self.nodes) - 1
                and all(peer["role"] != "learner" for peer in status["peers"])
                for status in statuses
                if status
            )
        )

    def leader(self) -> NodeProcess:
        """Who leads, as soon as somebody does."""
        return eventually("somebody leads", self._find_leader)

    def _find_leader(self) -> NodeProcess | None:
        leading = [
            (status["term"], node)
            for node in self.nodes
            if node.process is not None
            and (status := node.status()) is not None
            and status["role"] == "leader"
        ]
        return max(leading, key=lambda pair: pair[0])[1] if leading else None

    def wait_until_caught_up(self) -> None:
        """All nodes have applied the same, and have the same digest."""
        eventually("all have applied the same", self._is_caught_up)

    def _is_caught_up(self) -> bool:
        statuses = [node.status() for node in self.nodes]
        if any(status is None for status in statuses):
            return False
        return len({(s["applied_index"], s["digest"]) for s in statuses if s}) == 1

    def logs(self) -> str:
        """The end of what each node printed, for a failed test to show."""
        return "\n".join(
            f"--- {node.node_id}\n{node.log_path.read_text(errors='replace')[-4000:]}"
            for node in self.nodes
            if node.log_path.exists()
        )

    def kill_all(self) -> None:
        """Kill -9 whatever runs."""
        for node in self.nodes:
            if node.process is not None:
                node.kill()


@contextmanager
def running_cluster(directory: Path, count: int, *flags: str) -> Iterator[Cluster]:
    """A whole cluster, gone at the end; its logs are printed if something goes wrong."""
    cluster = Cluster(directory, count, *flags)
    try:
        cluster.start()
        yield cluster
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.kill_all()
