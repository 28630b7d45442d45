"""The verb ``recover`` as a process: what it shows, what it asks, how it ends."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING

import pytest

from anchor.storage.recovery import examine
from tests.cli.processes import COMMAND, environment, run
from tests.storage.building import opened
from tests.storage.test_recovery import ADDRESSES, follower

if TYPE_CHECKING:
    from pathlib import Path

ALONE = f"node1={ADDRESSES['node1']}"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give what is left of one of three nodes: 20 entries, 10 of them applied."""
    follower(tmp_path / "d")
    return tmp_path / "d"


def typed(directory: Path, answer: bytes) -> tuple[int, str]:
    """Recover it on a terminal, where somebody answers."""
    terminal, end = pty.openpty()
    arguments = ["recover", "--dir", str(directory), "--members", ALONE]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=end, stdout=end, stderr=end, env=environment()
    ) as process:
        os.close(end)
        output = b""
        while True:
            try:
                output += os.read(terminal, 1 << 16)
            except OSError:
                break
            if output.endswith(b"to go on: "):
                os.write(terminal, answer)
        os.close(terminal)
    return process.returncode, output.decode()


def test_show_says_what_is_there(directory: Path) -> None:
    """For people, and for programs that compare several."""
    shown = run("recover", "--dir", str(directory), "--show")
    assert (shown.returncode, shown.stderr) == (0, b"")
    text = shown.stdout.decode()
    assert f"node1 of cluster old, in {directory}" in text
    assert "1          20          to 10 for certain  4" in text
    assert "node3" in text
    found = json.loads(run("recover", "--dir", str(directory), "--show", "--json").stdout)
    assert (found["last_log_term"], found["last_log_index"], found["term"]) == (1, 20, 4)
    assert [member["id"] for member in found["members"]] == list(ADDRESSES)


def test_it_tells_what_may_be_lost_and_wants_the_nodes_id(directory: Path) -> None:
    """Anything else changes nothing."""
    before = examine(directory)
    for answer in (b"yes\n", b"\n", b"\x04"):
        code, output = typed(directory, answer)
        assert code == 1
        assert "LOST is every write after entry 20 of term 1" in output
        assert "Entries 11 to 20 may never have been committed." in output
        assert "node2, node3 are out" in output
        assert "not confirmed; nothing was changed" in output
        assert examine(directory) == before
    code, output = typed(directory, b"node1\n")
    assert code == 0
    assert "Done: node1 in cluster " in output
    after = examine(directory)
    assert after.configuration.voters == {"node1"}
    assert after.identity.cluster_id in output


def test_without_a_terminal_it_wants_yes(directory: Path) -> None:
    """A script must say so; it is told what may be lost all the same."""
    before = examine(directory)
    asked = run("recover", "--dir", str(directory), "--members", ALONE)
    assert asked.returncode == 2
    assert asked.stderr == (
        b"anchor: recover: it asks before it does anything: give --yes without a terminal\n"
    )
    assert examine(directory) == before
    done = run("recover", "--dir", str(directory), "--members", ALONE, "--yes")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"LOST is every write" in done.stdout
    assert examine(directory).configuration.voters == {"node1"}


def test_several_members_come_with_a_warning(directory: Path) -> None:
    """Those left out must not come back: the cluster keeps its id."""
    both = f"{ALONE},node3={ADDRESSES['node3']}"
    done = run("recover", "--dir", str(directory), "--members", both, "--yes")
    assert done.returncode == 0
    assert b"must NEVER be started again" in done.stdout
    assert examine(directory).identity.cluster_id == "old"


def test_mistakes_that_only_the_directory_shows_are_told_at_once(directory: Path) -> None:
    """Exit code 2, as for any other mistake in what was typed."""
    done = run("recover", "--dir", str(directory), "--members", "node2=h:1,node8=h:2", "--yes")
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        f"anchor: recover: --members: node1 itself is missing: {directory} is its directory",
        (
            "anchor: recover: --members: node8 is no member of this cluster: let it join when "
            "node1 runs again"
        ),
    ]


def test_a_directory_that_cannot_be_recovered_is_an_error(directory: Path, tmp_path: Path) -> None:
    """In use, or none: one line, exit code 1."""
    with opened(directory):
        done = run("recover", "--dir", str(directory), "--show")
    assert done.returncode == 1
    assert b"is in use by process" in done.stderr
    missing = run("recover", "--dir", str(tmp_path / "no"), "--members", ALONE, "--yes")
    assert missing.returncode == 1
    (line,) = missing.stderr.decode().splitlines()
    assert line.endswith("holds no node's data; give the --dir of a node")
