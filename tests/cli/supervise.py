"""Runs the supervisor over fake children: what ``anchor --cluster`` is, but for the nodes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from anchor import cli, cluster

FAKE_CHILD = str(Path(__file__).parent / "fake_child.py")

if __name__ == "__main__":
    cluster.node_command = lambda: [sys.executable, FAKE_CHILD]
    cluster.STOP_SECONDS = float(os.environ.get("FAKE_STOP_SECONDS", "10"))
    from anchor.plan import plan_for

    sys.exit(cli.carry_out(plan_for(sys.argv[1:], os.environ, "anchor")))
