"""The program as a whole: what it prints, how it ends, and what it does not load."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from anchor.settings import VERSION
from anchor.usage import program_name
from tests.cli.processes import ROOT, environment, run

if TYPE_CHECKING:
    from pathlib import Path

# What only a node needs; a verb must start fast and in little memory.
HEAVY = {"gevent", "grpc", "rocksdict", "falcon", "gunicorn", "asciimatics", "google.protobuf"}


def loaded_by(*arguments: str) -> set[str]:
    """Name the modules that are loaded once the program has done this."""
    program = (
        "import json, os, sys\n"
        f"sys.argv[1:] = {list(arguments)!r}\n"
        "from anchor.__main__ import main\n"
        "stdout, sys.stdout = sys.stdout, open(os.devnull, 'w')\n"
        "main()\n"
        "print(json.dumps(list(sys.modules)), file=stdout)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env=environment(),
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "arguments",
    [("--version",), ("--help",), ("--port", "x"), ("get", "k", "--timeout=10ms"), ("status",)],
)
def test_only_a_node_loads_what_a_node_needs(arguments: tuple[str, ...]) -> None:
    """Help, mistakes and verbs leave gevent, gRPC and RocksDB alone."""
    assert not loaded_by(*arguments) & HEAVY


def test_version_and_help_load_no_network_either() -> None:
    """They are a matter of milliseconds."""
    assert not loaded_by("--version") & {"ssl", "http.client", "logging", "subprocess"}


def test_version_is_one_word_after_the_name() -> None:
    """On standard output, exit code 0."""
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"anchor {VERSION}\n".encode(), b"")


def test_help_goes_to_standard_output() -> None:
    """So that it can be paged; also where the terminal knows ASCII alone."""
    done = run("--help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.startswith(b"anchor: a small")


def test_nothing_at_all_says_where_to_begin() -> None:
    """A newcomer's first try."""
    done = run()
    assert done.returncode == 2
    assert b"--id: is missing" in done.stderr
    assert b"--cluster 3" in done.stderr


def test_mistakes_are_told_one_to_a_line_with_exit_code_2() -> None:
    """All at once, on standard error."""
    done = run("--port", "x", "--heartbeat", "y", ANCHOR_ID="?")
    assert done.returncode == 2
    assert [line.split(b":")[1] for line in done.stderr.splitlines()[:3]] == [
        b" --port x", b" --heartbeat y", b" ANCHOR_ID=?",
    ]  # fmt: skip


@pytest.mark.parametrize("which", ["--port", "--http-port"])
def test_a_port_in_use_is_one_line_and_exit_code_1(tmp_path: Path, which: str) -> None:
    """Before anything of a node is loaded or written."""
    other = {"--port": "--http-port", "--http-port": "--port"}[which]
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port, free_port = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        done = run("--id=a", f"--dir={tmp_path}", f"{which}={port}", f"{other}={free_port}")
    assert done.returncode == 1
    assert done.stderr.decode() == (
        f"anchor: 127.0.0.1:{port}: the port is in use. "
        f"Stop what listens there, or give another {which}.\n"
    )


def test_a_directory_that_is_none_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    """Told before any port is touched."""
    path = tmp_path / "file"
    path.write_text("")
    done = run("--id=a", f"--dir={path}")
    assert done.returncode == 1
    said = f"anchor: --dir {path}: is not a directory. Give another --dir.\n"
    assert done.stderr.decode() == said


def test_the_program_is_named_as_it_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Examples in messages can be copied."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/opt/bin:/usr/bin")
    assert program_name(str(tmp_path / "anchor.pyz")) == "./anchor.pyz"
    assert program_name("anchor.pyz") == "anchor.pyz"
    assert program_name("/opt/bin/anchor") == "anchor"
    assert program_name("/elsewhere/anchor.pyz") == "/elsewhere/anchor.pyz"
    assert program_name("/site-packages/anchor/__main__.py") == "python -m anchor"
