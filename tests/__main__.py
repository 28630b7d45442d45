"""Run the tests: ``python3 -m tests`` on a machine that has only Python 3.11 or later.

The first run makes a virtual environment below ``.cache/`` and installs what the lock files in
``.build/`` list; it is made anew whenever one of them or the interpreter changes.

``python3 -m tests``                runs all tests, then checks that every branch of the pure
                                    packages was taken
``python3 -m tests ARGUMENT…``      hands the arguments to pytest instead: paths, -k, -x …
``python3 -m tests --environment``  only makes the environment and prints its interpreter's path
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from build_zipapp import (
    LOCKS,
    ROOT,
    BuildError,
    check_interpreter,
    create_environment,
    install,
)

if TYPE_CHECKING:
    from pathlib import Path

PURE_PACKAGES = ("raft", "fsm")


def main(arguments: list[str]) -> int:
    """Do what the arguments ask; the exit status of what was run."""
    try:
        python = environment()
    except BuildError as error:
        print(f"tests: {error}", file=sys.stderr)
        return 1
    if arguments == ["--environment"]:
        print(python)
        return 0
    return run_some(python, arguments) if arguments else run_all(python)


def environment() -> Path:
    """Make the environment where there is none that fits; the path of its interpreter."""
    lock = (LOCKS / "development.txt").read_bytes()
    made_for = hashlib.sha256(f"{sys.version} {sys.base_prefix}".encode() + lock).hexdigest()
    directory = ROOT / ".cache" / f"environment-{made_for[:12]}"
    finished = directory / "finished"
    if finished.exists():
        return directory / "bin" / "python"
    check_interpreter()
    print(f"tests: making {directory.relative_to(ROOT)} …", file=sys.stderr, flush=True)
    python = create_environment(directory)
    install(python, "tools")
    install(python, "development")
    finished.touch()
    return python


def run_some(python: Path, arguments: list[str]) -> int:
    """Hand the arguments to pytest."""
    return run(python, "pytest", *arguments)


def run_all(python: Path) -> int:
    """Run all tests on all cores, and look at the branches of the pure packages.

    Their tests run apart, so that nothing is traced where greenlets are: CPython 3.11 can spin for
    ever when it is traced while greenlet takes a dead thread apart.
    """
    workers = ["--numprocesses", str(min(os.cpu_count() or 1, 8)), "--durations=20"]
    coverage = [*(f"--cov=anchor.{name}" for name in PURE_PACKAGES), "--cov-report="]
    demand = ["--show-missing", "--skip-covered", "--fail-under=100"]
    pure = [f"tests/{name}" for name in PURE_PACKAGES]
    return (
        run(python, "pytest", *workers, *coverage, *pure)
        or run(python, "coverage", "report", *demand)
        or run(python, "pytest", *workers, *(f"--ignore={path}" for path in pure))
    )


def run(python: Path, module: str, *arguments: str) -> int:
    """Run a module of the environment in the checkout, showing all it says."""
    return subprocess.run([python, "-m", module, *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
