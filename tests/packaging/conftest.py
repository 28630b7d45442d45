"""The file under test, built once for all that look at it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent


def build(checkout: Path, output: Path) -> None:
    """Build the file from a checkout, with the interpreter that runs the tests."""
    # Not from within this environment: the build makes its own.
    python = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    command: list[str | Path] = [python, checkout / "build_zipapp.py", "--output", output]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that ``$PYZ_UNDER_TEST`` names, else one built for all workers of this run."""
    if given := os.environ.get("PYZ_UNDER_TEST"):
        yield Path(given)
        return
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    built = shared / "anchor.pyz"
    with (shared / "anchor.pyz.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            build(ROOT, built)
    yield built


@pytest.fixture
def bare_environment(tmp_path: Path) -> dict[str, str]:
    """An environment that tells of no cache directory but an empty temporary one."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    return {"PATH": os.environ["PATH"], "TMPDIR": str(temporary)}
