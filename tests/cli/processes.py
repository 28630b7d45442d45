"""The program as a process, started as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

COMMAND = [sys.executable, "-m", "anchor"]


def environment(**extra: str) -> dict[str, str]:
    """The environment without any setting of ours but these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANCHOR_")}
    return {**clean, "PYTHONPATH": str(ROOT), **extra}


def run(
    *arguments: str | bytes, stdin: bytes | None = None, cwd: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=60,
        cwd=cwd,
        env=environment(**environ),
        check=False,
    )
