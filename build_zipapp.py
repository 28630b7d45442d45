"""Build ``anchor.pyz``: anchor and all it needs in one file that a Python can run.

``python3 build_zipapp.py [--output FILE]`` needs nothing but Python 3.11 or later with ``venv``.

How it goes:

1. A private virtual environment gets pip and the tools of ``.build/tools.txt``.
2. The dependencies go to a staging directory, each file checked against the hashes in
   ``.build/runtime.txt``. anchor itself is copied beside them, and what nobody needs at run
   time (tests, C sources, type stubs) is removed.
3. Everything is compiled. The compiled files are marked unchecked: the first start has nothing
   to compile, and a later one does not look at a single source file's time.
4. shiv packs the directory, and the result is written anew with ``.build/main.py`` and
   ``.build/launcher.py`` in front of shiv's own start, with times, modes and order fixed.

The same checkout, interpreter and platform give the same bytes, wherever and whenever it runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent
LOCKS = ROOT / ".build"
SHEBANG = "/usr/bin/env python3"
ENTRY_POINT = "anchor.__main__:main"

# Measured: 9 takes three times as long (9 s) for 0.6 % less, 1 gives 10 % more.
COMPRESSION_LEVEL = 6
# The earliest time a zip file can tell.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)

# Left out of the file: what only developers of these packages use, …
UNWANTED_TREES = (
    "bin",
    "falcon/bench",
    "falcon/testing",
    "gevent/libuv",  # needs cffi; anchor runs on libev
    "gevent/testing",
    "gevent/tests",
    "google/protobuf/testdata",
    "greenlet/tests",
    "include",
    "zope/interface/common/tests",
    "zope/interface/tests",
)
# … sources of what is compiled already, …
UNWANTED_SUFFIXES = frozenset(
    {".asm", ".c", ".cc", ".cmd", ".cpp", ".h", ".hpp", ".obj", ".pxd", ".pyi", ".pyx", ".typed"}
)
# … and what an installer notes for itself.
UNWANTED_NAMES = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})


class BuildError(Exception):
    """The build cannot go on; the message is for the person who started it."""


def main(arguments: list[str] | None = None) -> int:
    """Build the file and tell its size; a failure is one line and exit status 1."""
    parser = argparse.ArgumentParser(description="Build anchor.pyz.")
    parser.add_argument("--output", type=Path, default=ROOT / "anchor.pyz", metavar="FILE")
    output: Path = parser.parse_args(arguments).output.absolute()
    started = time.monotonic()
    try:
        build(output)
    except BuildError as error:
        print(f"build_zipapp.py: {error}", file=sys.stderr)
        return 1
    size_mb = output.stat().st_size / 1e6
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    print(f"{output}: {size_mb:.1f} MB in {time.monotonic() - started:.0f} s, sha256 {digest}")
    return 0


def build(output: Path) -> None:
    """Make the file at ``output``; it appears there whole or not at all."""
    check_interpreter()
    with tempfile.TemporaryDirectory(prefix="anchor-build-") as directory:
        staging, packed = Path(directory, "staging"), Path(directory, "packed.pyz")
        say("making a private virtual environment")
        python = create_environment(Path(directory, "environment"))
        install(python, "tools")
        say("fetching the dependencies")
        install(python, "runtime", target=staging)
        package = staging / "anchor"
        shutil.copytree(ROOT / "anchor", package, ignore=shutil.ignore_patterns("__pycache__"))
        prune(staging)
        say("packing")
        compile_all(python, staging)
        pack(python, staging, packed)
        finished = Path(directory, "finished.pyz")
        finish(packed, staging, finished)
        place(finished, output)


def say(what: str) -> None:
    """Tell how far it got."""
    print(f"build_zipapp.py: {what} …", flush=True)


def check_interpreter() -> None:
    """Refuse an interpreter that cannot do it, before anything is made."""
    if sys.version_info < (3, 11):
        raise BuildError(f"needs Python 3.11 or later; this is {sys.version.split()[0]}")
    if sys.implementation.name != "cpython":
        raise BuildError(f"needs CPython; this is {sys.implementation.name}")


# Virtual environments; tests/__main__.py uses these too.


def create_environment(directory: Path) -> Path:
    """Make a virtual environment with pip in it; the path of its interpreter."""
    try:
        run([sys.executable, "-m", "venv", "--clear", directory])
    except BuildError as error:
        hint = "needs Python's venv and ensurepip (on Debian: apt install python3-venv)"
        raise BuildError(f"{hint}\n{error}") from error
    return directory / "bin" / "python"


def install(python: Path, lock: str, *, target: Path | None = None) -> None:
    """Install what a lock file lists, refusing any file whose hash it does not list."""
    where = ("--target", target) if target else ()
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "-qq",
    ]
    hashes: list[str | Path] = ["--require-hashes", "--no-deps", "-r", LOCKS / f"{lock}.txt"]
    how = ["--retries", "10", "--no-compile", "--no-warn-script-location"]
    run([*pip, "install", *how, "--only-binary", ":all:", *where, *hashes])


def run(command: Sequence[str | Path]) -> None:
    """Run a command in a clean environment; its output is shown only if it fails."""
    unwanted = ("PYTHON", "PIP_TARGET", "PIP_USER", "PIP_PREFIX", "SHIV_", "SOURCE_DATE_EPOCH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    # A fixed hash seed gives sets, and so compiled files, one order.
    environment = {**kept, "PYTHONHASHSEED": "0"}
    result = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        words = " ".join(map(str, command))
        raise BuildError(f"{result.stdout.rstrip()}\nfailed ({result.returncode}): {words}")


# What goes into the file.


def prune(staging: Path) -> None:
    """Remove what is not needed at run time."""
    for tree in UNWANTED_TREES:
        shutil.rmtree(staging / tree, ignore_errors=True)
    for path in sorted(staging.rglob("*")):
        if path.suffix in UNWANTED_SUFFIXES or path.name in UNWANTED_NAMES:
            path.unlink()


def compile_all(python: Path, staging: Path) -> None:
    """Compile each module into its ``__pycache__``."""
    arguments: list[str | Path] = [
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        "-s",
        staging,
        staging,
    ]
    run([python, "-m", "compileall", *arguments])


def pack(python: Path, staging: Path, packed: Path) -> None:
    """Let shiv make an archive of it, with shiv's bootstrap."""
    options = ["--reproducible", "--uncompressed", "--entry-point", ENTRY_POINT]
    run([python, "-m", "shiv", *options, "--site-packages", staging, "--output-file", packed])


def finish(packed: Path, staging: Path, finished: Path) -> None:
    """Write shiv's archive anew: our start in front, compiled files in, all else fixed."""
    contents = read_archive(packed)
    for path in staging.rglob("*.pyc"):
        contents[f"site-packages/{path.relative_to(staging).as_posix()}"] = path.read_bytes()
    contents["__main__.py"] = main_source().encode()
    contents["launcher.py"] = (LOCKS / "launcher.py").read_bytes()
    settings = json.loads(contents.pop("environment.json"))
    settings["build_id"] = build_id(contents)
    contents["environment.json"] = json.dumps(settings, sort_keys=True).encode()
    write_archive(contents, finished)


def read_archive(path: Path) -> dict[str, bytes]:
    """All files of a zip archive by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}


def main_source() -> str:
    """``.build/main.py`` with the interpreter and platform of this build filled in."""
    platform = {
        "python": list(sys.version_info[:2]),
        "name": sys.implementation.name,
        "flags": sys.abiflags,
        "system": sys.platform,
        "machine": os.uname().machine,
        "library": getattr(sys.implementation, "_multiarch", ""),
    }
    source = (LOCKS / "main.py").read_text()
    before, placeholder, after = source.partition("BUILT_FOR = {}")
    if not placeholder:
        raise BuildError(".build/main.py has no line `BUILT_FOR = {}` to fill in")
    return f"{before}BUILT_FOR = {platform!r}{after}"


def build_id(contents: dict[str, bytes]) -> str:
    """Names the contents: two builds that differ never share an unpacked copy."""
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def write_archive(contents: dict[str, bytes], path: Path) -> None:
    """Write a zip archive that runs as a program, the same bytes for the same contents."""
    with path.open("wb") as file:
        file.write(f"#!{SHEBANG}\n".encode())
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in sorted(contents.items()):
                entry = zipfile.ZipInfo(name, date_time=ZIP_EPOCH)
                entry.external_attr = (0o100755 if name.endswith(".so") else 0o100644) << 16
                entry.create_system = 3  # Unix: the attributes are file modes
                archive.writestr(entry, content, zipfile.ZIP_DEFLATED, COMPRESSION_LEVEL)
    path.chmod(0o755)


def place(finished: Path, output: Path) -> None:
    """Put the file where it was asked for; one that is running is replaced, not overwritten."""
    beside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        shutil.copy(finished, beside)
        beside.replace(output)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise BuildError(f"cannot write {output}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
