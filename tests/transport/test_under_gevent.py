"""Whatever has a transport in it, run as a node runs: in a process that gevent has patched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gevent import monkey

from tests.transport.conftest import ON_GEVENT

HERE = Path(__file__).parent
RUNS_PATCHED = monkey.is_module_patched("socket")
SLOW = "test_failures.py"


@pytest.mark.skipif(RUNS_PATCHED, reason="this is the run on gevent")
@pytest.mark.parametrize(
    "names", [[SLOW], [name for name in ON_GEVENT if name != SLOW]], ids=["failures", "others"]
)
def test_the_transport_holds_what_it_promises(names: list[str]) -> None:
    """Its own tests pass, in a process of their own: see ``python -m tests.transport.patched``."""
    arguments = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.transport.patched", *arguments, *(HERE / n for n in names)],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
