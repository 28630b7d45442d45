"""``python -m tests.benchmarks.once``: what it costs to write exactly once.

Writes without terms, writes in sessions (one for each client) and writes with an idempotency key,
in turn, by the same clients of one cluster. Needs wrk. FILE_UNDER_TEST measures a built file.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.benchmarks.stores import KEYS, VALUE, Anchor
from tests.benchmarks.wrk import Figures, cpu_seconds, run_wrk

KINDS = ("plain", "session", "key")

# A thread of wrk has one connection here, so that its session's writes follow each other.
_LUA = f"""
local sessions = {{%(sessions)s}}
local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
  thread:set("session", sessions[threads] or "")
end
function init(args)
  math.randomseed(%(seed)d + number)
  headers = {{}}
  -- wrk asks its first thread for one request that it does not send.
  sequence = number == 1 and -1 or 0
end
function request()
  sequence = sequence + 1
  %(terms)s
  return wrk.format("PUT", "/kv/key" .. math.random(0, {KEYS - 1}), headers, "{VALUE}")
end
"""
_TERMS = {
    "plain": "",
    "session": 'headers["X-Session"] = session; headers["X-Sequence"] = sequence; '
    'headers["X-Acked"] = sequence - 1',
    "key": 'headers["Idempotency-Key"] = "%(seed)d-" .. number .. "-" .. sequence',
}


def open_sessions(url: str, count: int) -> list[str]:
    """Open so many sessions at a node."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    sessions = []
    for _ in range(count):
        connection.request("POST", "/sessions")
        response = connection.getresponse()
        assert response.status == 201, response.status
        sessions.append(str(json.loads(response.read())["session"]))
    connection.close()
    return sessions


class Run(NamedTuple):
    """One run of one kind. What the nodes spend does not depend on what else the machine does."""

    figures: Figures
    cpu_us: float  # of all three nodes together, for each write


def measure(store: Anchor, kind: str, arguments: argparse.Namespace, seed: int) -> Run:
    """One run of one kind."""
    url = store.leader_url()
    sessions = open_sessions(url, arguments.clients) if kind == "session" else []
    script = _LUA % {
        "sessions": ",".join(f'"{session}"' for session in sessions),
        "terms": _TERMS[kind] % {"seed": seed} if kind == "key" else _TERMS[kind],
        "seed": seed,
    }
    before = sum(map(cpu_seconds, store.node_processes()))
    figures = run_wrk(url, script, arguments.clients, arguments.clients, arguments.seconds)
    spent = sum(map(cpu_seconds, store.node_processes())) - before
    assert not figures.errors, f"{kind}: {figures}"
    return Run(figures, 1e6 * spent / figures.requests)


def report(kind: str, runs: list[Run], plain: list[Run]) -> None:
    """Print the medians, and the ratios to the plain writes beside them."""
    rates = sorted(a.figures.rate / b.figures.rate for a, b in zip(runs, plain, strict=True))
    costs = [a.cpu_us / b.cpu_us for a, b in zip(runs, plain, strict=True)]
    print(
        f"{kind:8} {median(each.figures.rate for each in runs):6.0f}/s  "
        f"p50 {median(each.figures.p50_ms for each in runs):6.2f} ms  "
        f"p99 {median(each.figures.p99_ms for each in runs):6.2f} ms  "
        f"rate {median(rates):.3f} ({rates[0]:.3f} to {rates[-1]:.3f})  "
        f"CPU {median(each.cpu_us for each in runs):4.0f} us a write, {median(costs):.3f}"
    )


def main() -> int:
    """Run all kinds in turn, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=64)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk is not installed")
        return 1
    found: dict[str, list[Run]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        store = Anchor(Path(name))
        try:
            store.start()
            for run in range(arguments.runs):
                # Each kind comes first, second and third in turn.
                for kind in KINDS[run % 3 :] + KINDS[: run % 3]:
                    found[kind].append(measure(store, kind, arguments, run * 10 + 1))
        finally:
            store.stop()
    for kind, runs in found.items():
        report(kind, runs, found["plain"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
