"""Real nodes with short logs: who is behind the log gets the state, while writes go on."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.cluster.load import Writers, missing
from tests.cluster.processes import NodeProcess, eventually, free_ports, running_cluster

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.processes import Cluster

FLAGS = ("--snapshot-entries", "50", "--snapshot-bytes", "256KiB")
VALUE_BYTES = 64 << 10
# More than a core keeps in memory of a log that is compacted on the disk.
VALUES = 400


def fill(cluster: Cluster, run: str) -> dict[str, bytes]:
    """Write so much that a member that misses it needs a snapshot."""
    chance = random.Random(run)
    values = {f"{run}/{number}": chance.randbytes(VALUE_BYTES) for number in range(VALUES)}
    leader = cluster.leader()
    for key, value in values.items():
        assert leader.request("PUT", f"/kv/{key}", value)[0] == 200
    return values


def has_installed(node: NodeProcess) -> bool:
    """Whether it says that it got a snapshot."""
    return "has the state as of entry" in node.log_path.read_text()


def assert_holds(node: NodeProcess, values: dict[str, bytes]) -> None:
    """It serves them from its own state."""
    for key, value in values.items():
        code, _, body = node.request("GET", f"/kv/{key}", headers={"X-Consistency": "stale"})
        assert (code, body) == (200, value), key


def disk_bytes(directory: Path) -> int:
    """How much a node takes on its disk, but for its ballast: snapshots share files with states."""
    sizes: dict[int, int] = {}
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):
            if path.name != "ballast":
                found = path.stat()
                sizes[found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


def await_short_log(node: NodeProcess) -> None:
    """Wait until it has a snapshot and not much more of the log than lies between two."""

    def is_short() -> bool:
        status = node.status()
        if status is None or not status["snapshot_index"] or not status["snapshot_time"]:
            return False
        return bool(status["last_log_index"] - status["first_log_index"] < 100)

    eventually(f"the log of {node.node_id} is short", is_short, seconds=90)


@pytest.mark.parametrize("crashes", [0, 3])
def test_a_member_that_was_away_is_caught_up_by_a_snapshot_while_writes_go_on(
    tmp_path: Path, crashes: int
) -> None:
    """Nothing acknowledged is missing on it afterwards; also if it is killed on its way."""
    with running_cluster(tmp_path, 3, *FLAGS) as cluster:
        leader = cluster.leader()
        away = next(node for node in cluster.nodes if node is not leader)
        away.kill()
        values = fill(cluster, "missed")
        with Writers(cluster, 2, "meanwhile") as writers:
            for _ in range(crashes):
                away.start()
                eventually("it is back", away.status)
                away.kill()
            away.start()
            eventually("it has got a snapshot", lambda: has_installed(away))
            eventually("it serves again", away.status)
            seen = len(writers.acknowledged)
            eventually("writes go on", lambda: len(writers.acknowledged) > seen + 20)
        cluster.wait_until_caught_up()
        assert_holds(away, values)
        assert missing(away, writers.acknowledged) == []
        for node in cluster.nodes:
            await_short_log(node)
            assert len(list((node.directory / "state").iterdir())) == 1
            assert 1 <= len(list((node.directory / "snapshots").glob("[0-9]*"))) <= 2
            assert "Traceback" not in node.log_path.read_text()
        away.kill()
        away.start()
        cluster.wait_until_caught_up()
        assert_holds(away, values)


def test_new_members_get_the_state_as_files_and_go_on_from_the_log(tmp_path: Path) -> None:
    """Two at once; each is promoted, and has what was written before and while it joined."""
    with running_cluster(tmp_path, 1, *FLAGS) as cluster:
        values = fill(cluster, "before")
        with Writers(cluster, 2, "meanwhile") as writers:
            ports = free_ports(4)
            for number in (2, 3):
                pair = (ports.pop(), ports.pop())
                peers = [cluster.nodes[0].address]
                node_id = f"node{number}"
                node = NodeProcess(node_id, pair, tmp_path / node_id, peers, *FLAGS)
                cluster.nodes.append(node)
                node.start()
            cluster.wait_until_whole()
        cluster.wait_until_caught_up()
        for node in cluster.nodes[1:]:
            assert has_installed(node)
            assert_holds(node, values)
            assert missing(node, writers.acknowledged) == []


def test_the_disk_stays_small_under_endless_overwrites(tmp_path: Path) -> None:
    """Twenty times what is kept was written, and a restart has little to replay."""
    with running_cluster(tmp_path, 1, *FLAGS) as cluster:
        (node,) = cluster.nodes
        value = random.Random(1).randbytes(VALUE_BYTES)
        for number in range(600):
            assert node.request("PUT", f"/kv/{number % 10}", value)[0] == 200

        await_short_log(node)
        # State, two snapshots, and a log of twice 256 KiB with what RocksDB has not merged yet: six
        # times the ten values, as a rule. Were anything kept for ever, it would be all 60.
        bound = 15 * 10 * VALUE_BYTES
        eventually("space has been given back", lambda: disk_bytes(node.directory) < bound)
        node.kill()
        node.start()
        status = eventually("it is back", node.status)
        assert status["first_log_index"] > 500
