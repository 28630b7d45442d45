"""Writes that are sent again, in clusters to which things happen meanwhile."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.cluster.counters import COUNTERS, Run, run
from tests.cluster.counting import Tally
from tests.cluster.membership import is_removed
from tests.cluster.processes import (
    Cluster,
    NodeProcess,
    command,
    eventually,
    free_ports,
    running_cluster,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("exactly-once")


class First(NamedTuple):
    """A write, and what was answered at first."""

    method: str
    key: str
    body: bytes | None
    headers: dict[str, str]
    status: int
    etag: str | None


def open_session(node: NodeProcess, ttl_seconds: float = 3600) -> str:
    """Give the id of a new one."""
    asked = json.dumps({"ttl_seconds": ttl_seconds}).encode()

    def look() -> str | None:
        code, _, body = node.request("POST", "/sessions", asked)
        found = json.loads(body)
        if code == 503 and found["code"] == "upgrade_in_progress":
            return None  # it has just been founded
        assert code == 201, found
        return str(found["session"])

    return eventually("sessions can be opened", look)


def write_first(node: NodeProcess, session: str) -> list[First]:
    """Make writes of every kind, and one that does not happen; the session's first three."""
    in_session = {"X-Session": session}
    asked: list[tuple[str, str, bytes | None, dict[str, str]]] = [
        ("PUT", "put", b"1", in_session | {"X-Sequence": "1"}),
        ("PUT", "put", b"2", in_session | {"X-Sequence": "2", "If-None-Match": "*"}),
        ("DELETE", "put", None, in_session | {"X-Sequence": "3"}),
        ("PUT", "by-key", b"1", {"Idempotency-Key": f"{session}-a"}),
        ("PUT", "by-key", b"2", {"Idempotency-Key": f"{session}-b", "If-Match": '"1"'}),
    ]
    done = []
    for method, key, body, headers in asked:
        code, found, _ = node.request(method, f"/kv/{key}", body, headers)
        assert "X-Replayed" not in found
        done.append(First(method, key, body, headers, code, found.get("ETag")))
    assert [first.status for first in done] == [200, 412, 200, 200, 412]
    return done


def check_again(node: NodeProcess, done: list[First]) -> None:
    """Send all of them again: each gets its first answer, and none does anything."""
    for first in done:
        code, found, _ = node.request(first.method, f"/kv/{first.key}", first.body, first.headers)
        assert (code, found.get("ETag")) == (first.status, first.etag)
        assert found["X-Replayed"] == "true"
    assert node.request("GET", "/kv/put")[0] == 404
    assert node.request("GET", "/kv/by-key")[1]["ETag"] == done[3].etag


def test_counters_are_exact_while_leaders_are_killed_and_paused(tmp_path: Path) -> None:
    """A slice of what ``tests.cluster.counters`` does for as long as it is told to."""
    outcome = run(tmp_path, 8, 1)
    assert outcome.wrong == []
    assert outcome.kills + outcome.pauses > 0
    assert outcome.done.total() > 20
    assert sum(tally.again + tally.replayed for tally in outcome.tallies) > 0


def test_the_count_finds_what_is_counted_twice_or_lost() -> None:
    """So that an exact run means something."""
    done = [(name, value, f'"{value + 5}"') for name in COUNTERS for value in (1, 2, 3)]
    exact = dict.fromkeys(COUNTERS, 3)
    assert Run(1, [Tally(done)], {"a": exact, "b": exact}, 0, 0, {}).wrong == []
    lost = exact | {COUNTERS[1]: 2}
    found = Run(1, [Tally(done)], {"a": exact, "b": lost}, 0, 0, {})
    assert found.off == 1
    assert found.wrong == [f"{COUNTERS[1]} is 2 on b; 3 were answered as done"]
    twice = [*done[:2], (COUNTERS[0], 2, '"9"'), *done[3:]]
    assert len(Run(1, [Tally(twice)], {"a": exact}, 0, 0, {}).wrong) == 1


@pytest.mark.parametrize("by", ["session", "key", "nothing"])
def test_a_write_whose_answer_was_lost_can_be_sent_again(cluster: Cluster, by: str) -> None:
    """Its client hangs up before the answer. Without a session or a key it happens twice."""
    node, other, _ = cluster.nodes
    session = open_session(node)
    headers = {
        "session": {"X-Session": session, "X-Sequence": "1"},
        "key": {"Idempotency-Key": session},
        "nothing": {},
    }[by]
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"PUT /kv/lost-{by} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: 1\r\n\r\n1"
    with socket.create_connection(("127.0.0.1", node.http_port)) as connection:
        connection.sendall(head.encode())

    def look() -> str | None:
        return node.request("GET", f"/kv/lost-{by}")[1].get("ETag")

    etag = eventually("it has happened", look)
    code, found, _ = other.request("PUT", f"/kv/lost-{by}", b"1", headers)
    assert code == 200
    if by == "nothing":
        assert found["ETag"] != etag
        assert "X-Replayed" not in found
    else:
        assert (found["ETag"], found["X-Replayed"]) == (etag, "true")
    assert look() == found["ETag"]
    assert node.request("DELETE", f"/sessions/{session}")[0] == 200


def test_an_idle_session_ends_after_its_ttl_and_takes_no_write(cluster: Cluster) -> None:
    """Not before, soon after, on all nodes, and without anybody asking."""
    node = cluster.nodes[0]
    eventually("no other session is left", lambda: sessions(cluster) == [0, 0, 0])
    began = time.monotonic()
    session = open_session(node, ttl_seconds=1)
    eventually("all have it", lambda: sessions(cluster) == [1, 1, 1], 1)
    eventually("it has ended", lambda: 0 in sessions(cluster))
    assert time.monotonic() - began >= 1
    eventually("it has ended on all", lambda: sessions(cluster) == [0, 0, 0])
    headers = {"X-Session": session, "X-Sequence": "1"}
    for each in cluster.nodes:
        code, _, body = each.request("PUT", "/kv/ended", b"1", headers)
        assert (code, json.loads(body)["code"]) == (410, "session_expired")
    assert node.request("GET", "/kv/ended")[0] == 404
    cluster.wait_until_caught_up()


def sessions(cluster: Cluster) -> list[int]:
    """How many each node has."""
    return [status["sessions"] for node in cluster.nodes if (status := node.status())]


def test_a_write_sent_again_after_a_restore_gets_its_first_answer(
    tmp_path: Path, cluster: Cluster
) -> None:
    """In the new cluster, which was made of a backup of the old one."""
    node = cluster.nodes[1]
    session = open_session(node)
    done = write_first(node, session)
    backup = tmp_path / "backup"
    verb("snapshot", "save", backup, "--endpoints", f"127.0.0.1:{node.http_port}")
    ports = free_ports(2)
    new = NodeProcess("new", (ports[0], ports[1]), tmp_path / "new", [])
    verb("snapshot", "restore", backup, "--id", "new", "--port", new.port, "--dir", new.directory)
    new.start()
    try:
        eventually("it leads", lambda: (new.status() or {}).get("role") == "leader")
        check_again(new, done)
        headers = {"X-Session": session, "X-Sequence": "4"}
        assert new.request("PUT", "/kv/put", b"4", headers)[0] == 200  # it goes on
    finally:
        new.kill()
    assert node.request("DELETE", f"/sessions/{session}")[0] == 200


def verb(*arguments: object) -> None:
    """Run a verb to its end."""
    said = subprocess.run([*command(), *map(str, arguments)], capture_output=True, check=False)
    assert said.returncode == 0, said.stderr


def test_a_write_sent_again_after_everything_was_replaced_gets_its_first_answer(
    tmp_path: Path,
) -> None:
    """All nodes are killed and started again; then they leave, one by one, and others come."""
    flags = ("--snapshot-entries", "50")
    with running_cluster(tmp_path, 3, *flags) as cluster:
        old = list(cluster.nodes)
        done = write_first(old[0], open_session(old[0]))
        cluster.kill_all()
        for node in old:
            node.start()
        cluster.wait_until_whole()
        check_again(old[1], done)
        forget_the_log(cluster)
        ports = free_ports(6)
        for number, leaving in enumerate(old):
            replace(cluster, leaving, (ports[2 * number], ports[2 * number + 1]), *flags)
        assert not {node.node_id for node in old} & {node.node_id for node in cluster.nodes}
        for node in cluster.nodes:
            check_again(node, done)
        cluster.wait_until_caught_up()


def forget_the_log(cluster: Cluster) -> None:
    """Write until nobody has the log of before any more, nor keeps it in memory."""
    before = max(status["applied_index"] for node in cluster.nodes if (status := node.status()))
    node = cluster.nodes[0]

    def is_dropped() -> bool:
        assert node.request("PUT", "/kv/filler", b"x")[0] == 200
        statuses = [node.status() for node in cluster.nodes]
        return all(status and status["first_log_index"] > before for status in statuses)

    eventually("the log is dropped", is_dropped)


def replace(cluster: Cluster, leaving: NodeProcess, ports: tuple[int, int], *flags: str) -> None:
    """Let a new node in, by a snapshot, and another one go."""
    staying = [node for node in cluster.nodes if node is not leaving]
    peers = [node.address for node in cluster.nodes]
    directory = leaving.directory.with_name(f"{leaving.node_id}-next")
    new = NodeProcess(directory.name, ports, directory, peers, *flags)
    new.start()
    cluster.nodes.append(new)
    cluster.wait_until_whole()
    assert (new.status() or {})["first_log_index"] > 1  # what is before that came as files
    body = json.dumps({"id": leaving.node_id}).encode()
    assert staying[0].request("POST", "/remove", body, timeout=40)[0] == 200
    eventually("it is told", lambda: is_removed(leaving))
    leaving.kill()
    cluster.nodes.remove(leaving)
    cluster.wait_until_whole()
