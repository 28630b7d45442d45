"""The README's runbook for a quorum that is lost for good, followed word for word."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.processes import Cluster, command, eventually, running_cluster

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.xdist_group("runbook")

ROOT = Path(__file__).resolve().parent.parent.parent
KEYS = 50


def runbook() -> dict[str, list[str]]:
    """Give the commands of each step, as they stand in the README."""
    readme = (ROOT / "README.md").read_text()
    found = re.findall(
        r"^ *<!-- runbook: (\w+) -->\n *```sh\n(.*?)\n *```$", readme, re.MULTILINE | re.DOTALL
    )
    return {name: textwrap.dedent(block).splitlines() for name, block in found}


class Operator:
    """Sits in a directory with ``./anchor.pyz`` and ``./data``, and types what the README says.

    Only the ports are others than those in the README: nothing here has fixed ones.
    """

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self._cluster = cluster
        self._directory = directory
        program = directory / "anchor.pyz"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
        program.chmod(0o755)
        self._environ = {**os.environ, "PYTHONPATH": str(ROOT)}

    def follow(self, step: str) -> str:
        """Do all of a step; give what it printed."""
        output = ""
        for line in map(self._with_our_ports, runbook()[step]):
            if line.startswith("./anchor.pyz --id"):
                self._start_node(line)
            else:
                output += self._type(line)
        return output

    def _with_our_ports(self, line: str) -> str:
        for number, node in enumerate(self._cluster.nodes, 1):
            line = line.replace(f"900{number}", str(node.port))
            line = line.replace(f"800{number}", str(node.http_port))
        return line

    def _start_node(self, line: str) -> None:
        """In a terminal of its own, so to say."""
        node = self._cluster.nodes[int(line.split()[2].removeprefix("node")) - 1]
        with node.log_path.open("ab") as log:
            node.process = subprocess.Popen(
                ["sh", "-c", f"exec {line}"],
                cwd=self._directory,
                env=self._environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def _type(self, line: str) -> str:
        """Type a line on a terminal, and the node's id when it is asked for."""
        terminal, end = pty.openpty()
        with subprocess.Popen(
            ["sh", "-c", line],
            cwd=self._directory,
            env=self._environ,
            stdin=end,
            stdout=end,
            stderr=end,
        ) as process:
            os.close(end)
            output = b""
            while True:
                try:
                    output += os.read(terminal, 1 << 16)
                except OSError:  # nobody has the other end any more
                    break
                if output.endswith(b"to go on: "):
                    os.write(terminal, b"node1\n")
            os.close(terminal)
        assert process.returncode == 0, output.decode()
        return output.decode()


def put(cluster: Cluster, at: int, key: str, value: str) -> bool:
    """Write through a node; whether it was answered OK."""
    return cluster.nodes[at].request("PUT", f"/kv/{key}", value.encode())[0] == 200


def role_of(cluster: Cluster, at: int) -> Callable[[], str | None]:
    """Make a question to a node: what it is by now."""

    def ask() -> str | None:
        status = cluster.nodes[at].status()
        role = status and status["role"]
        return role if role in {"leader", "follower"} else None

    return ask


def test_the_runbook_brings_a_cluster_back_that_lost_two_of_three_disks(tmp_path: Path) -> None:
    """All that was written is there, writes are taken again, and the others have rejoined."""
    (tmp_path / "data").mkdir()
    with running_cluster(tmp_path / "data", 3) as cluster:
        for number in range(KEYS):
            assert put(cluster, number % 3, f"k{number}", f"v{number}")
        cluster.wait_until_caught_up()
        before = cluster.nodes[0].status()
        assert before is not None
        cluster.kill_all()
        for node in cluster.nodes[1:]:
            shutil.rmtree(node.directory)

        # By itself it does not come back.
        cluster.nodes[0].start()
        eventually("it runs", cluster.nodes[0].status)
        headers = {"X-Consistency": "linearizable"}
        assert cluster.nodes[0].request("GET", "/kv/k0", headers=headers)[0] == 503
        assert cluster.nodes[0].stop() == 0

        operator = Operator(cluster, tmp_path)
        shown = operator.follow("look")
        assert re.search(r"LAST TERM +LAST INDEX", shown)
        assert all(f"node{number}" in shown for number in (1, 2, 3))
        asked = operator.follow("recover")
        assert "LOST is every write after entry" in asked
        assert "Type node1 to go on: " in asked
        assert (tmp_path / "data" / "node1.before").is_dir()
        operator.follow("start")
        eventually("it leads", lambda: role_of(cluster, 0)() == "leader")
        for number in range(KEYS):
            code, _, body = cluster.nodes[0].request("GET", f"/kv/k{number}")
            assert (code, body) == (200, b"v%d" % number)
        assert put(cluster, 0, "after", "1")
        operator.follow("node2")
        eventually("node2 is in", role_of(cluster, 1))
        operator.follow("node3")
        cluster.wait_until_whole()
        listed = operator.follow("check")
        assert len(re.findall(r"^node\d", listed, re.MULTILINE)) == 3
        assert not (tmp_path / "data" / "node1.before").exists()

        cluster.wait_until_caught_up()
        assert put(cluster, 2, "after", "2")
        for node in cluster.nodes:
            assert node.request("GET", "/kv/after")[2] == b"2"
            status = node.status()
            assert status is not None
            assert status["cluster_id"] != before["cluster_id"]
        # It has quorums again: it can do without any one of them.
        cluster.nodes[0].kill()
        eventually("the others go on", lambda: put(cluster, 1, "after", "3"))


def test_a_member_of_the_old_cluster_does_not_mix_with_the_new(tmp_path: Path) -> None:
    """Started again with its old data, it is refused by the new cluster, and leads nobody."""
    (tmp_path / "data").mkdir()
    with running_cluster(tmp_path / "data", 3) as cluster:
        assert put(cluster, 0, "k", "old")
        cluster.wait_until_caught_up()
        cluster.kill_all()
        operator = Operator(cluster, tmp_path)
        operator.follow("recover")
        operator.follow("start")
        eventually("it leads", lambda: role_of(cluster, 0)() == "leader")
        assert put(cluster, 0, "k", "new")
        cluster.nodes[1].start()
        eventually(
            "somebody says why",
            lambda: (
                "cluster" in refusals(cluster.nodes[0].log_path)
                or "cluster" in refusals(cluster.nodes[1].log_path)
            ),
        )
        old = cluster.nodes[1].status()
        assert old is not None
        assert old["leader_id"] is None
        status = cluster.nodes[0].status()
        assert status is not None
        assert status["peers"] == []
        assert cluster.nodes[0].request("GET", "/kv/k")[2] == b"new"


def test_a_log_that_was_compacted_is_no_obstacle(tmp_path: Path) -> None:
    """Who joins gets a snapshot of the new cluster: those of the old one are gone."""
    (tmp_path / "data").mkdir()
    with running_cluster(tmp_path / "data", 3, "--snapshot-entries", "20") as cluster:
        for number in range(4 * KEYS):
            assert put(cluster, number % 3, f"k{number}", f"v{number}")
        cluster.wait_until_caught_up()
        eventually("its log was compacted", lambda: has_compacted(cluster, 0))
        cluster.kill_all()
        for node in cluster.nodes[1:]:
            shutil.rmtree(node.directory)
        operator = Operator(cluster, tmp_path)
        for step in ("look", "recover", "start"):
            operator.follow(step)
        eventually("it leads", lambda: role_of(cluster, 0)() == "leader")
        operator.follow("node2")
        eventually("node2 is in", role_of(cluster, 1))
        operator.follow("node3")
        cluster.wait_until_whole()
        cluster.wait_until_caught_up()
        for number in range(4 * KEYS):
            assert cluster.nodes[2].request("GET", f"/kv/k{number}")[2] == b"v%d" % number


def has_compacted(cluster: Cluster, at: int) -> bool:
    """Whether a node has dropped the beginning of its log."""
    status = cluster.nodes[at].status()
    return status is not None and status["first_log_index"] > 1


def test_several_members_go_on_with_what_each_has(tmp_path: Path) -> None:
    """One is recovered with another's name; that one follows it with its own data, as it is."""
    (tmp_path / "data").mkdir()
    with running_cluster(tmp_path / "data", 4) as cluster:
        for number in range(KEYS):
            assert put(cluster, number % 4, f"k{number}", f"v{number}")
        cluster.wait_until_caught_up()
        before = cluster.nodes[1].status()
        assert before is not None
        cluster.kill_all()
        for node in cluster.nodes[2:]:
            shutil.rmtree(node.directory)
        members = ",".join(f"{node.node_id}={node.address}" for node in cluster.nodes[:2])
        operator = Operator(cluster, tmp_path)
        operator._type(f"./anchor.pyz recover --dir ./data/node1 --members {members}")
        del cluster.nodes[2:]
        for node in cluster.nodes:
            node.start()
        cluster.wait_until_whole()
        assert put(cluster, 1, "after", "1")
        cluster.wait_until_caught_up()
        for number in range(KEYS):
            code, _, body = cluster.nodes[1].request("GET", f"/kv/k{number}")
            assert (code, body) == (200, b"v%d" % number)
        status = cluster.nodes[1].status()
        assert status is not None
        assert status["cluster_id"] == before["cluster_id"]


def refusals(log_path: Path) -> str:
    """Give the lines of a log that warn."""
    lines = log_path.read_text().splitlines()
    return "\n".join(line for line in lines if '"warning"' in line and "refus" in line)
