"""Damaged data stops the node that has it, and only that node: it is never served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anchor.fsm import records
from anchor.storage import DataDirectory
from tests.cluster.processes import Cluster, NodeProcess, eventually, running_cluster

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("damage")


def has_died(node: NodeProcess) -> bool:
    """Whether the node ended by itself."""
    assert node.process is not None
    return node.process.poll() is not None


def flip_a_byte(path: Path, position: int) -> None:
    """As a disk does that forgets."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def others_go_on(cluster: Cluster, damaged: NodeProcess) -> bool:
    """Two of three are enough."""
    return all(
        node.request("PUT", "/kv/goes-on", b"x")[0] == 200
        for node in cluster.nodes
        if node is not damaged
    )


def last_line(node: NodeProcess) -> str:
    """What the node said last."""
    return node.log_path.read_text().strip().splitlines()[-1]


def test_a_node_that_applied_something_else_stops(tmp_path: Path) -> None:
    """Its digest differs from the majority's: it says so and exits, the others go on."""
    with running_cluster(tmp_path, 3) as cluster:
        assert cluster.nodes[0].request("PUT", "/kv/k", b"v")[0] == 200
        victim = cluster.nodes[2]
        assert victim.stop() == 0
        directory = DataDirectory.open(victim.directory, victim.node_id)
        try:
            record = directory.state.get(records.APPLIED_KEY)
            assert record is not None
            applied = records.decode_applied(record)
            wrong = applied._replace(digest=b"?" * records.DIGEST_BYTES)
            directory.state.write({records.APPLIED_KEY: records.encode_applied(wrong)})
            directory.state.flush()
        finally:
            directory.close()
        victim.start()
        eventually("somebody notices", lambda: write_and_look(cluster, victim))
        assert victim.process is not None
        assert victim.process.returncode == 1
        assert "differs from the majority" in last_line(victim)
        assert others_go_on(cluster, victim)
        victim.process = None


def write_and_look(cluster: Cluster, victim: NodeProcess) -> bool:
    """Digests are compared where something was applied since."""
    assert cluster.nodes[0].request("PUT", "/kv/more", b"x")[0] == 200
    return has_died(victim)


def test_a_flipped_byte_in_a_table_is_never_served(tmp_path: Path) -> None:
    """Met at the start, by a read or by the scrub: one line that names the file, exit 1."""
    with running_cluster(tmp_path, 3) as cluster:
        for number in range(200):
            value = b"%d" % number * 100
            assert cluster.nodes[0].request("PUT", f"/kv/k{number}", value)[0] == 200
        cluster.wait_until_caught_up()
        victim = cluster.nodes[2]
        assert victim.stop() == 0
        (table,) = victim.directory.glob("state/*/*.sst")
        flip_a_byte(table, table.stat().st_size // 3)
        victim.start()
        eventually("the damage is met", lambda: read_or_dead(victim))
        assert victim.process is not None
        assert victim.process.wait(10) == 1
        assert table.name in last_line(victim)
        assert others_go_on(cluster, victim)
        victim.process = None


def read_or_dead(node: NodeProcess) -> bool:
    """Read everything, until the node has died of it; what is answered is right."""
    for number in range(200):
        if has_died(node):
            return True
        try:
            code, _, body = node.request(
                "GET", f"/kv/k{number}", headers={"X-Consistency": "stale"}
            )
        except OSError:
            return False  # not up yet, or no more
        if code == 200:
            assert body == b"%d" % number * 100
    return has_died(node)
