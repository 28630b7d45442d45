"""``python -m tests.benchmarks``: anchor and etcd in turn, the same load, and the ratios.

Needs wrk; without etcd on PATH only our own figures are printed. Set FILE_UNDER_TEST to measure a
built file instead of the sources.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.stores import Anchor, Etcd, Store

CASES = [("write", 1), ("write", 64), ("write", 256), ("read", 64), ("lease", 64), ("stale", 64)]
FILL_SECONDS = 120  # at most: it stops by itself
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def measure(store: Store, kind: str, clients: int, seconds: int, directory: Path) -> list[float]:
    """Requests per second, median and 99th percentile in milliseconds, errors."""
    script = directory / f"{store.name}-{kind}.lua"
    script.write_text(store.script(kind))
    arguments = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", str(script)]
    output = subprocess.run(
        [*arguments, store.leader_url()], check=True, capture_output=True, text=True
    ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    latencies = dict(re.findall(r"^\s+(50|99)%\s+([\d.]+[mu]?s)", output, re.MULTILINE))
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    assert rate, output
    return [
        float(rate[1]),
        milliseconds(latencies["50"]),
        milliseconds(latencies["99"]),
        float(errors[1]) if errors else 0.0,
    ]


def milliseconds(text: str) -> float:
    """Read one of wrk's durations."""
    match = re.fullmatch(r"([\d.]+)([mu]?s)", text)
    assert match, text
    number, unit = match[1], match[2]
    return float(number) * UNITS[unit]


def resident_mebibytes(process_id: int) -> float:
    """The resident memory of a process and its children."""
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    own = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process_id}/status").read_text())
    return (int(own[1]) if own else 0) / 1024 + sum(map(resident_mebibytes, map(int, children)))


def main() -> int:
    """Run all cases, alternating, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--only", help="a case, like write:64")
    parser.add_argument("--without-etcd", action="store_true")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk is not installed")
        return 1
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        stores: list[Store] = [Anchor(directory / "anchor")]
        if Etcd.is_there() and not arguments.without_etcd:
            stores.append(Etcd(directory / "etcd"))
        try:
            for store in stores:
                store.start()
            for store in stores:
                memory = [f"{resident_mebibytes(p):.0f}" for p in store.node_processes()]
                print(f"{store.name}: idle RSS of each node {', '.join(memory)} MiB", flush=True)
            # Reads find what they ask for: a miss costs something else.
            for store in stores:
                measure(store, "fill", 256, FILL_SECONDS, directory)
            for kind, clients in CASES:
                if arguments.only in {None, f"{kind}:{clients}"}:
                    compare(stores, kind, clients, arguments, directory)
        finally:
            for store in stores:
                store.stop()
    return 0


def compare(
    stores: list[Store], kind: str, clients: int, arguments: argparse.Namespace, directory: Path
) -> None:
    """Measure one case on all stores in turn, and print a line each and the ratio."""
    results: dict[str, list[list[float]]] = {store.name: [] for store in stores}
    for _ in range(arguments.runs):
        for store in stores:
            results[store.name].append(measure(store, kind, clients, arguments.seconds, directory))
    for store in stores:
        rate, p50, p99, errors = (
            statistics.median(values) for values in zip(*results[store.name], strict=True)
        )
        print(
            f"{kind:6} {clients:4} clients  {store.name:7} {rate:9.0f}/s  "
            f"p50 {p50:7.2f} ms  p99 {p99:7.2f} ms  errors {errors:.0f}",
            flush=True,
        )
    if len(stores) == 2:
        ratios = sorted(
            ours[0] / theirs[0]
            for ours, theirs in zip(*(results[store.name] for store in stores), strict=True)
        )
        median = statistics.median(ratios)
        print(f"{'':22}ratio {median:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
