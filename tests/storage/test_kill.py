"""What was acknowledged survives kill -9."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from anchor.raft import HardState
from tests.storage.building import entry, opened

if TYPE_CHECKING:
    from pathlib import Path


def test_nothing_acknowledged_is_missing_after_kill_9(tmp_path: Path) -> None:
    """Five lives of one directory, each ended in the middle of its writes."""
    path = tmp_path / "d"
    checked = 0
    for acknowledgements in (1, 2, 40, 500, 900):
        command = [sys.executable, "-m", "tests.storage.appender", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as appender:
            assert appender.stdout is not None
            acknowledged = [int(appender.stdout.readline()) for _ in range(acknowledgements)]
            appender.kill()
            acknowledged += [int(line) for line in appender.stdout if line.endswith(b"\n")]
        with opened(path) as directory:
            log = directory.log
            last = log.last_index()
            assert acknowledged[0] == checked + 1 or checked == 0
            assert acknowledged[-1] <= last <= acknowledged[-1] + 1
            assert log.entries(2, last, 1 << 30) == [entry(i, i) for i in range(2, last + 1)]
            assert log.hard_state() == HardState(last, f"node{last}")
        checked = last
