"""``snapshot save`` as a process, against answers of every kind: what is left behind, and said."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.cli.processes import run
from tests.client.fakes import Act, FakeNode, Reply, problem
from tests.storage.test_backup_format import RECORDS, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

WHOLE = Reply(200, written(RECORDS), {"Content-Type": "application/octet-stream"})


@pytest.fixture
def nobody() -> Iterator[str]:
    """Give an endpoint where nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


def save(directory: Path, *endpoints: str, timeout: str = "3s") -> CompletedProcess[bytes]:
    """Save to ``f`` in a directory."""
    at = ",".join(endpoints)
    return run("snapshot", "save", str(directory / "f"), "--endpoints", at, "--timeout", timeout)


def the_line(done: CompletedProcess[bytes]) -> str:
    """Give the only line of standard error."""
    (line,) = done.stderr.decode().splitlines()
    return line


def test_endpoints_are_tried_in_turn(tmp_path: Path, nobody: str) -> None:
    """One that is not there, or has no leader, keeps nobody from asking the next."""
    leaderless = problem(503, "no_leader", retryable=True)
    with FakeNode(leaderless) as first, FakeNode(WHOLE) as second:
        done = save(tmp_path, nobody, first.endpoint, second.endpoint)
        assert (done.returncode, done.stderr) == (0, b"")
        assert (tmp_path / "f").read_bytes() == WHOLE.body
        (asked,) = second.seen
        assert (asked.method, asked.target) == ("GET", "/snapshot")
        assert asked.headers["X-Consistency"] == "linearizable"


def test_exit_codes_tell_what_is_missing(tmp_path: Path, nobody: str) -> None:
    """A node, a leader, or the right to have it; nothing is left behind."""
    done = save(tmp_path, nobody, timeout="300ms")
    assert done.returncode == 7
    assert "connection refused" in the_line(done)
    with FakeNode(problem(503, "no_leader", retryable=True)) as node:
        done = save(tmp_path, node.endpoint, timeout="500ms")
        assert done.returncode == 5
        assert "--consistency stale does without one" in the_line(done)
        assert len(node.seen) > 1
    with FakeNode(problem(410, "removed")) as node:
        done = save(tmp_path, node.endpoint)
        assert done.returncode == 1
        assert the_line(done) == "anchor: snapshot save: refused: removed: why"
    for act in (Act.CLOSE, Act.GARBAGE, Act.HANG):
        with FakeNode(act) as node:
            done = save(tmp_path, node.endpoint, timeout="500ms")
            assert done.returncode == 7
            assert node.endpoint in the_line(done)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, WHOLE.body[:-1]),
        Reply(200, WHOLE.body[:40] + b"?" + WHOLE.body[41:]),
        Reply(200, b"<html>not a node</html>"),
        Act.TRUNCATE,
    ],
)
def test_what_is_no_whole_backup_takes_nobodys_place(tmp_path: Path, reply: Reply | Act) -> None:
    """The file that was there stays as it was."""
    (tmp_path / "f").write_bytes(b"the last good one")
    with FakeNode(reply) as node:
        done = save(tmp_path, node.endpoint)
        assert done.returncode == 1
        assert node.endpoint in the_line(done)
    assert (tmp_path / "f").read_bytes() == b"the last good one"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """In one line, with the path."""
    with FakeNode(WHOLE) as node:
        done = save(tmp_path / "missing", node.endpoint)
        assert done.returncode == 1
        assert str(tmp_path / "missing") in the_line(done)
        (tmp_path / "f").mkdir()
        done = save(tmp_path, node.endpoint)
        assert done.returncode == 1
        assert "Is a directory" in the_line(done)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_info_is_a_table_and_an_object(tmp_path: Path) -> None:
    """Of what the file says it is, once all of it was checked."""
    (tmp_path / "f").write_bytes(WHOLE.body)
    table = run("snapshot", "info", str(tmp_path / "f")).stdout.decode()
    assert "LAST INCLUDED INDEX  7\n" in table
    assert "KEYS                 9\n" in table
    (tmp_path / "f").write_bytes(WHOLE.body[:-1] + b"?")
    done = run("snapshot", "info", str(tmp_path / "f"), "--json")
    assert (done.returncode, done.stdout) == (1, b"")
    assert "f: is damaged" in the_line(done)
