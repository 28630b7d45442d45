"""Crash points: there where they are said to be, and only for who runs the sources."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from anchor import crash
from anchor.options import unknown_variables

SOURCES = Path(crash.__file__).parent


def test_every_point_is_passed_at_one_place_and_has_a_meaning() -> None:
    """The table is what the sources do."""
    passed = [
        name
        for path in sorted(SOURCES.rglob("*.py"))
        for name in re.findall(r"^ +point\(\"([a-z.]+)\"\)", path.read_text(), re.MULTILINE)
    ]
    assert sorted(passed) == sorted(crash.POINTS)


@pytest.mark.parametrize(("wanted", "passes"), [("sync.after", 0), ("sync.after:3", 2)])
def test_a_process_dies_at_the_point_it_was_told(wanted: str, passes: int) -> None:
    """The nth time it gets there, by SIGKILL, whatever else it passes."""
    program = (
        "from anchor.crash import point\n"
        "while True:\n"
        "    point('sync.before')\n"
        "    point('sync.after')\n"
        "    print('passed', flush=True)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {crash.VARIABLE: wanted},
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == b"passed\n" * passes


def test_without_the_variable_a_point_is_nothing() -> None:
    """Not even a comparison."""
    assert crash._resolve({}) is crash._nothing


def test_what_was_built_ignores_the_variable_and_says_so() -> None:
    """One line; nothing where it is not set."""
    line = crash.complaint({crash.VARIABLE: "sync.after"}, available=False)
    assert line == "ANCHOR_CRASH_AT: ignored: crash points work from the sources only"
    assert crash.complaint({}, available=False) is None
    assert crash.complaint({crash.VARIABLE: "sync.after"}) is None


def test_an_installed_package_has_no_points(tmp_path: Path) -> None:
    """What tells the sources is the project's own file beside the package."""
    assert crash.is_available()
    assert not crash.is_available(tmp_path / "site-packages" / "anchor")


@pytest.mark.parametrize("wanted", ["sync", "sync.after:0", "sync.after:x", "no.such"])
def test_a_name_that_is_none_is_said_to_be_ignored(wanted: str) -> None:
    """A test that waits for a crash should know why there is none."""
    (line,) = unknown_variables({crash.VARIABLE: wanted})
    assert "is not a crash point's name" in line
    assert crash._resolve({crash.VARIABLE: wanted}) is crash._nothing
