"""The other tests of this directory once more, as a node runs: on gevent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gevent import monkey

HERE = Path(__file__).parent
RUNS_PATCHED = monkey.is_module_patched("socket")


@pytest.mark.skipif(RUNS_PATCHED, reason="this is the run on gevent")
@pytest.mark.parametrize(
    "names", [["failures"], ["exchange", "hostile", "lifecycle", "outbox", "snapshots"]]
)
def test_all_holds_on_gevent_too(names: list[str]) -> None:
    """What holds on threads holds on greenlets."""
    arguments = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    files = [HERE / f"test_{name}.py" for name in names]
    run = subprocess.run(
        [sys.executable, "-m", "tests.transport.patched", *arguments, *files],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
