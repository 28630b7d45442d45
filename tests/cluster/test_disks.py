"""Disks that are full, that fail, and a quota: real processes on real, small file systems."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.crash import FLAGS, Crashes
from tests.cluster.processes import Cluster, NodeProcess, eventually, running_cluster
from tests.cluster.shims import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("disks")

MIB = 1 << 20


@contextmanager
def small_disk(path: Path, size_mib: int) -> Iterator[None]:
    """Make ``path`` a file system of its own; the test is skipped where that may not be done."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("may not mount a file system here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(node: NodeProcess) -> Path:
    """Use up all that is left of a node's disk, as another program would."""
    path = node.directory / "filling"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(MIB))
        except OSError:
            return path


def answer(node: NodeProcess, method: str, path: str, **headers: str) -> tuple[int, str]:
    """The status and, of an error, its code."""
    status, _, body = node.request(method, path, b"v" if method == "PUT" else None, headers)
    return status, json.loads(body)["code"] if status >= 400 else ""


def status_of(node: NodeProcess) -> dict[str, Any]:
    """What it says of itself."""
    return eventually("it answers", node.status)


def test_a_leader_with_a_full_disk_hands_over_serves_what_it_has_and_comes_back(
    tmp_path: Path,
) -> None:
    """507 for writes, stale reads as ever, a vote when it is needed, and all by itself."""
    flags = ("--request-timeout", "1s", "--election-timeout", "500ms")
    cluster = Cluster(tmp_path, 3, *flags)
    with ExitStack() as disks:
        for node in cluster.nodes:
            disks.enter_context(small_disk(node.directory, 160))
        disks.callback(cluster.kill_all)
        cluster.start()
        full = cluster.leader()
        assert answer(full, "PUT", "/kv/k") == (200, "")
        cluster.wait_until_caught_up()
        filling = fill(full)
        eventually(
            "another leads", lambda: status_of(full)["leader_id"] not in {None, full.node_id}
        )
        assert status_of(full)["disk"]["full"]
        code, headers, body = full.request("PUT", "/kv/k", b"v")
        problem = json.loads(body)
        assert (code, problem["code"], problem["retryable"]) == (507, "disk_full", True)
        assert headers["Content-Type"] == "application/problem+json"
        other = cluster.leader()
        assert answer(other, "PUT", "/kv/k2") == (200, "")
        assert answer(full, "GET", "/kv/k", **{"X-Consistency": "stale"}) == (200, "")
        # It has not got k2 and cannot: it says so rather than answer without it.
        assert answer(full, "GET", "/kv/k2") == (504, "timeout")
        # Its vote is one of the two that a new leader needs.
        other.kill()
        third = next(node for node in cluster.nodes if node not in {full, other})
        eventually("its vote elects", lambda: status_of(third)["role"] == "leader")
        assert status_of(full)["role"] == "follower"
        other.start()
        filling.unlink()
        cluster.wait_until_whole()
        cluster.wait_until_caught_up()
        assert answer(full, "PUT", "/kv/k3") == (200, "")
        assert answer(full, "GET", "/kv/k2") == (200, "")


def test_a_node_alone_with_a_full_disk_still_answers_reads(tmp_path: Path) -> None:
    """There is nobody to hand over to, and what it has it can vouch for."""
    cluster = Cluster(tmp_path, 1)
    (node,) = cluster.nodes
    with small_disk(node.directory, 160), ExitStack() as stack:
        stack.callback(cluster.kill_all)
        cluster.start()
        assert answer(node, "PUT", "/kv/k") == (200, "")
        filling = fill(node)
        eventually("it notices", lambda: answer(node, "PUT", "/kv/k") == (507, "disk_full"))
        for consistency in ("linearizable", "lease", "stale"):
            assert answer(node, "GET", "/kv/k", **{"X-Consistency": consistency}) == (200, "")
        filling.unlink()
        eventually("it has room again", lambda: answer(node, "PUT", "/kv/k") == (200, ""))


def test_a_quota_refuses_writes_lets_deletions_through_and_lifts_by_itself(tmp_path: Path) -> None:
    """Long before the disk is full; ``/status`` says how things are."""
    with running_cluster(tmp_path, 1, "--quota-bytes", "4MiB") as cluster:
        (node,) = cluster.nodes
        written = 0

        def refused() -> bool:
            nonlocal written
            code, _, body = node.request("PUT", f"/kv/{written}", random.randbytes(100_000))
            written += code == 200
            assert code == 200 or json.loads(body)["code"] == "quota_exceeded"
            return code == 507

        eventually("the quota is reached", refused)
        disk = status_of(node)["disk"]
        assert disk["over_quota"]
        assert disk["used_bytes"] >= disk["quota_bytes"] == 4 * MIB
        assert disk["free_bytes"] > 0
        assert node.request("GET", "/kv/0")[0] == 200
        for key in range(written):
            assert node.request("DELETE", f"/kv/{key}")[0] == 200
        eventually("it lifts", lambda: answer(node, "PUT", "/kv/again") == (200, ""))


@pytest.fixture(scope="module")
def failing_fsync(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to preload."""
    return compiled("fsync_fails", tmp_path_factory.mktemp("shim"))


def test_a_failed_fsync_stops_the_node_with_one_line(tmp_path: Path, failing_fsync: Path) -> None:
    """It is never retried: nobody knows what the disk holds. The others go on."""
    switch = tmp_path / "fsync-fails"
    with running_cluster(tmp_path, 3) as cluster:
        victim = cluster.leader()
        victim.kill()
        victim.start(LD_PRELOAD=str(failing_fsync), FSYNC_FAILS=str(switch))
        cluster.wait_until_whole()
        before = len(victim.log_path.read_text().splitlines())
        switch.touch()
        other = next(node for node in cluster.nodes if node is not victim)
        eventually("it stops", lambda: put(other) and victim.has_ended)
        assert victim.process is not None
        assert victim.process.returncode == 1
        lines = victim.log_path.read_text().splitlines()[before:]
        severe = [line for line in lines if '"critical"' in line]
        assert len(severe) == 1
        assert "an fsync failed" in severe[0]
        assert "raft.db" in severe[0]
        victim.process = None
        switch.unlink()
        victim.start()
        cluster.wait_until_whole()
        cluster.wait_until_caught_up()


def put(node: NodeProcess) -> bool:
    """Write something; whether that was done."""
    return answer(node, "PUT", "/kv/k") == (200, "")


def test_a_crash_at_a_named_point_loses_nothing(tmp_path: Path) -> None:
    """A slice of what ``python -m tests.cluster.crash`` does with all of them."""
    with running_cluster(tmp_path, 3, *FLAGS) as cluster:
        crashes = Crashes(cluster, random.Random(1))
        for name in ("sync.before", "vote.after", "rename.after"):
            crashes.crash_at(name, as_leader=False)
        crashes.crash_at("switch.after", as_leader=False)
        assert crashes.acknowledged > 0
