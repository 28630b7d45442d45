"""One run of wrk, and its figures."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class Figures(NamedTuple):
    """Requests per second, the latency of the median and of the slowest hundredth, errors."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    errors: float


def run_wrk(url: str, script: str, threads: int, clients: int, seconds: int) -> Figures:
    """Let so many clients send what a Lua script says, for so long."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        arguments = ["wrk", f"-t{threads}", f"-c{clients}", f"-d{seconds}s", "--latency"]
        output = subprocess.run(
            [*arguments, "-s", str(Path(file.name)), url],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    latencies = dict(re.findall(r"^\s+(50|99)%\s+([\d.]+[mu]?s)", output, re.MULTILINE))
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    assert rate, output
    requests = re.search(r"(\d+) requests in", output)
    return Figures(
        int(requests[1]) if requests else 0,
        float(rate[1]),
        milliseconds(latencies["50"]),
        milliseconds(latencies["99"]),
        float(errors[1]) if errors else 0.0,
    )


def cpu_seconds(process_id: int) -> float:
    """What a process and its children have used so far."""
    # Behind the command's name, which is in parentheses and may hold anything.
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(cpu_seconds, map(int, children)))


def milliseconds(text: str) -> float:
    """Read one of wrk's durations."""
    match = re.fullmatch(r"([\d.]+)([mu]?s)", text)
    assert match, text
    number, unit = match[1], match[2]
    return float(number) * _UNITS[unit]
