"""``python -m tests.benchmarks``: anchor and etcd in turn, the same load, and the ratios.

Needs wrk; without etcd on PATH only our own figures are printed. Set FILE_UNDER_TEST to measure a
built file instead of the sources.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.stores import Anchor, Etcd, Store
from tests.benchmarks.wrk import Figures, run_wrk

CASES = [("write", 1), ("write", 64), ("write", 256), ("read", 64), ("lease", 64), ("stale", 64)]
FILL_SECONDS = 120  # at most: it stops by itself


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
                run_wrk(store.leader_url(), store.script("fill"), 1, 256, FILL_SECONDS)
            for kind, clients in CASES:
                if arguments.only in {None, f"{kind}:{clients}"}:
                    compare(stores, kind, clients, arguments)
        finally:
            for store in stores:
                store.stop()
    return 0


def compare(stores: list[Store], kind: str, clients: int, arguments: argparse.Namespace) -> None:
    """Measure one case on all stores in turn, and print a line each and the ratio."""
    results: dict[str, list[Figures]] = {store.name: [] for store in stores}
    for _ in range(arguments.runs):
        for store in stores:
            url, script = store.leader_url(), store.script(kind)
            results[store.name].append(run_wrk(url, script, 1, clients, arguments.seconds))
    for store in stores:
        _, rate, p50, p99, errors = (
            statistics.median(values) for values in zip(*results[store.name], strict=True)
        )
        print(
            f"{kind:6} {clients:4} clients  {store.name:7} {rate:9.0f}/s  "
            f"p50 {p50:7.2f} ms  p99 {p99:7.2f} ms  errors {errors:.0f}",
            flush=True,
        )
    if len(stores) == 2:
        ratios = sorted(
            ours.rate / theirs.rate
            for ours, theirs in zip(*(results[store.name] for store in stores), strict=True)
        )
        median = statistics.median(ratios)
        print(f"{'':22}ratio {median:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
