"""Backups of real clusters: consistent under writes, whole or refused, restored to what was."""

from __future__ import annotations

import http.client
import json
import os
import pty
import subprocess
import threading
from pathlib import Path

import pytest

from anchor.storage.backup_format import BackupError
from anchor.storage.backup_reader import BackupReader
from tests.cluster.processes import (
    Cluster,
    NodeProcess,
    command,
    eventually,
    free_ports,
    running_cluster,
)

pytestmark = pytest.mark.xdist_group("backups")

ROOT = Path(__file__).resolve().parent.parent.parent
PAIRS = 20


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end."""
    return subprocess.run(
        [*command(), *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        timeout=60,
        check=False,
    )


def endpoints(cluster: Cluster) -> str:
    """Where the cluster's clients go."""
    return ",".join(f"127.0.0.1:{node.http_port}" for node in cluster.nodes)


class Writer:
    """Writes ``a<n>`` and then ``b<n>`` the same number, over and over, until told to end.

    So at each moment of the log ``b<n>`` is what ``a<n>`` is, or one less.
    """

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self._ended = threading.Event()
        self.rounds = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._node.http_port, timeout=10)
        while not self._ended.is_set():
            for name in ("a", "b"):
                for number in range(PAIRS):
                    value = b"%d" % (self.rounds + 1)
                    connection.request("PUT", f"/kv/{name}{number}", value)
                    response = connection.getresponse()
                    response.read()
                    assert response.status == 200
            self.rounds += 1
        connection.close()

    def end(self) -> None:
        """Let it end."""
        self._ended.set()
        self._thread.join()


def read_pairs(content: bytes) -> dict[str, int]:
    """Give the values of a backup, all checked."""
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        position += size
        return content[position - size : position]

    reader = BackupReader(read, "backup")
    return {
        key[1:].decode(): int(record[25:])
        for batch in reader.batches()
        for key, record in batch
        if key[:1] == b"k" and key[1:2] in {b"a", b"b"}
    }


def test_backups_under_writes_are_of_one_moment(cluster: Cluster) -> None:
    """From every node, over and over: never a later write without all that came before it."""
    writer = Writer(cluster.leader())
    try:
        eventually("writing is under way", lambda: writer.rounds > 2)
        for turn in range(12):
            node = cluster.nodes[turn % 3]
            code, headers, content = node.request("GET", "/snapshot")
            assert code == 200
            assert headers["Content-Type"] == "application/octet-stream"
            pairs = read_pairs(content)
            assert len(pairs) == 2 * PAIRS
            firsts = [pairs[f"a{number}"] for number in range(PAIRS)]
            seconds = [pairs[f"b{number}"] for number in range(PAIRS)]
            order = firsts + seconds  # as they are written
            assert order == sorted(order, reverse=True)
            assert order[0] - order[-1] <= 1
    finally:
        writer.end()


def test_a_backup_has_every_write_that_was_answered_before(cluster: Cluster) -> None:
    """Whichever node is asked; ``stale`` is as of what that node has."""
    for turn in range(9):
        value = b"%d" % (100 + turn)
        assert cluster.nodes[turn % 3].request("PUT", "/kv/a0", value)[0] == 200
        asked = cluster.nodes[(turn + 1) % 3]
        content = asked.request("GET", "/snapshot")[2]
        assert read_pairs(content)["a0"] == 100 + turn
    headers = {"X-Consistency": "stale"}
    code, found, _ = cluster.nodes[0].request("GET", "/snapshot", headers=headers)
    assert (code, found["X-Consistency"]) == (200, "stale")


def values_of(node: NodeProcess, keys: list[str]) -> dict[str, tuple[str, bytes]]:
    """Give ETag and value of keys."""
    found = {}
    for key in keys:
        code, headers, body = node.request("GET", f"/kv/{key}")
        assert code == 200
        found[key] = (headers["ETag"], body)
    return found


def test_what_was_saved_is_restored_as_a_new_cluster(tmp_path: Path, cluster: Cluster) -> None:
    """Values and their indexes are the same; the cluster is another one, and others can join it."""
    keys = [f"r{number}" for number in range(20)]
    for key in keys:
        for turn in range(2):
            assert cluster.nodes[0].request("PUT", f"/kv/{key}", b"%d" % turn)[0] == 200
    expected = values_of(cluster.nodes[0], keys)
    file = tmp_path / "all.backup"
    saved = run("snapshot", "save", file, "--endpoints", endpoints(cluster))
    assert (saved.returncode, saved.stderr) == (0, "")
    assert "all data as of entry" in saved.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["all.backup"]
    assert file.stat().st_mode & 0o077 == 0
    described = run("snapshot", "info", file, "--json")
    info = json.loads(described.stdout)
    status = cluster.nodes[0].status()
    assert status is not None
    assert info["cluster_id"] == status["cluster_id"]
    assert info["keys"] >= len(keys)
    assert {member["id"] for member in info["members"]} == {"node1", "node2", "node3"}
    assert "LAST INCLUDED INDEX" in run("snapshot", "info", file).stdout

    ports = free_ports(4)
    first = NodeProcess("new1", (ports[0], ports[1]), tmp_path / "new1", [])
    other = NodeProcess("new2", (ports[2], ports[3]), tmp_path / "new2", [first.address])
    flags = ("--id", "new1", "--port", first.port, "--http-port", first.http_port)
    restored = run("snapshot", "restore", file, *flags, "--dir", first.directory)
    assert (restored.returncode, restored.stderr) == (0, "")
    again = run("snapshot", "restore", file, *flags, "--dir", first.directory)
    assert again.returncode == 1
    assert "is not empty" in again.stderr
    try:
        first.start()
        eventually("it leads", lambda: (first.status() or {}).get("role") == "leader")
        assert values_of(first, keys) == expected
        found = first.status()
        assert found is not None
        assert found["cluster_id"] != status["cluster_id"]
        assert found["peers"] == []
        other.start()
        eventually("it has joined", lambda: (other.status() or {}).get("role") == "follower")
        assert values_of(other, keys) == expected
        assert first.request("PUT", "/kv/r0", b"new")[0] == 200
        assert (
            int(first.request("GET", "/kv/r0")[1]["ETag"].strip('"')) > info["last_included_index"]
        )
    finally:
        for node in (first, other):
            if node.process is not None:
                node.kill()


def test_a_truncated_or_altered_file_is_refused(tmp_path: Path, cluster: Cluster) -> None:
    """In one line, by info and by restore, which leaves no cluster behind."""
    file = tmp_path / "all.backup"
    assert run("snapshot", "save", file, "--endpoints", endpoints(cluster)).returncode == 0
    content = file.read_bytes()
    cut, altered = tmp_path / "cut", tmp_path / "altered"
    cut.write_bytes(content[: len(content) // 2])
    middle = len(content) // 2
    altered.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    for wrong in (cut, altered):
        for done in (
            run("snapshot", "info", wrong),
            run("snapshot", "restore", wrong, "--id", "n", "--dir", tmp_path / "n"),
        ):
            assert done.returncode == 1
            assert done.stdout == ""
            (line,) = done.stderr.splitlines()
            assert str(wrong) in line
    right = run("snapshot", "restore", file, "--id", "n", "--dir", tmp_path / "n")
    assert right.returncode == 0


def test_a_node_that_dies_while_it_sends_leaves_no_file(tmp_path: Path) -> None:
    """The client is told, and what it has is refused; a name is given to whole files only."""
    with running_cluster(tmp_path, 1) as cluster:
        node = cluster.nodes[0]
        for number in range(40):
            assert node.request("PUT", f"/kv/{number}", b"x" * (1 << 20))[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=10)
        connection.request("GET", "/snapshot")
        response = connection.getresponse()
        response.read(1 << 20)
        node.kill()
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            response.read()
        connection.close()


def test_a_stopped_node_ends_its_backups_and_itself(tmp_path: Path) -> None:
    """A client that does not read on keeps nobody from stopping in order, and gets no end."""
    with running_cluster(tmp_path, 1) as cluster:
        node = cluster.nodes[0]
        for number in range(40):
            assert node.request("PUT", f"/kv/{number}", b"x" * (1 << 20))[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=10)
        connection.request("GET", "/snapshot")
        response = connection.getresponse()
        begun = response.read(1 << 20)
        assert node.stop() == 0
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError, BackupError)):
            read_pairs(begun + response.read())
        connection.close()
        node.start()
        eventually("it is back", lambda: (node.status() or {}).get("role") == "leader")


def test_progress_is_shown_on_a_terminal_alone(tmp_path: Path) -> None:
    """A long transfer has a line that moves; it is gone at the end, and absent from a pipe."""
    with running_cluster(tmp_path, 1) as cluster:
        node = cluster.nodes[0]
        for number in range(60):
            assert node.request("PUT", f"/kv/{number}", os.urandom(1 << 20))[0] == 200
        arguments = ["snapshot", "save", str(tmp_path / "f"), "--endpoints", endpoints(cluster)]
        assert run(*arguments).stderr == ""
        terminal, end = pty.openpty()
        with subprocess.Popen(
            [*command(), *arguments], stdout=subprocess.DEVNULL, stderr=end, cwd=ROOT
        ) as process:
            os.close(end)
            output = b""
            while True:
                try:
                    output += os.read(terminal, 1 << 16)
                except OSError:
                    break
            os.close(terminal)
        assert process.returncode == 0
        assert b"\rsaving  " in output
        assert output.endswith(b" \r")
