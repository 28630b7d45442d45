"""How the real file starts, in environments kind and unkind."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

COLD_SECONDS_MAX = 2.0
WARM_SECONDS_MAX = 0.5
BUSY_FACTOR = 4  # other tests run at the same time, on two cores

Environment = dict[str, str]


def version(pyz: Path, environment: Environment, directory: Path | None = None) -> str:
    """What ``--version`` prints, which is a whole start; the interpreter is this one's base."""
    python = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    command: list[str | Path] = [python, pyz, "--version"]
    result = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def unpacked(root: Path) -> list[str]:
    """The unpacked builds below a directory."""
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


def own_directory(environment: Environment) -> Path:
    """Where it unpacks to if only TMPDIR is there."""
    return Path(environment["TMPDIR"], f"anchor-{os.geteuid()}")


def test_first_and_later_starts_are_quick(pyz: Path, bare_environment: Environment) -> None:
    """Cold within two seconds, warm within half of one, on a machine that is not busy."""
    environment = {**bare_environment, "HOME": bare_environment["TMPDIR"]}
    seconds = []
    for _ in range(4):
        started = time.monotonic()
        version(pyz, environment)
        seconds.append(time.monotonic() - started)
    assert seconds[0] <= COLD_SECONDS_MAX * BUSY_FACTOR
    assert min(seconds[1:]) <= WARM_SECONDS_MAX * BUSY_FACTOR


def test_it_starts_without_a_home(pyz: Path, bare_environment: Environment) -> None:
    """With HOME unset it unpacks to a directory of its own among the temporary files."""
    assert version(pyz, bare_environment).startswith("anchor ")
    assert len(unpacked(own_directory(bare_environment))) == 1


@pytest.mark.parametrize("home", ["/dev/null", "/proc", "/nonexistent/home", "relative"])
def test_it_starts_with_a_home_that_cannot_be_written(
    pyz: Path, bare_environment: Environment, home: str
) -> None:
    """An unusable home is passed over without a word."""
    version(pyz, {**bare_environment, "HOME": home})
    if home != "/nonexistent/home":  # root can make that one
        assert len(unpacked(own_directory(bare_environment))) == 1


def test_it_starts_from_another_directory_and_under_another_name(
    pyz: Path, bare_environment: Environment, tmp_path: Path
) -> None:
    """A relative path, a symbolic link and a copy all find the same build."""
    shutil.copy(pyz, tmp_path / "anchor.pyz")
    (tmp_path / "link").symlink_to(tmp_path / "anchor.pyz")
    version(Path("anchor.pyz"), bare_environment, tmp_path)
    version(tmp_path / "link", bare_environment)
    assert len(unpacked(own_directory(bare_environment))) == 1


def test_two_versions_live_side_by_side(
    pyz: Path, bare_environment: Environment, tmp_path: Path
) -> None:
    """Each build has a directory of its own; neither disturbs the other."""
    other = tmp_path / "anchor.pyz"
    rewrite(pyz, other, build_id="fedcba9876543210")
    version(pyz, bare_environment)
    version(other, bare_environment)
    version(pyz, bare_environment)
    names = unpacked(own_directory(bare_environment))
    assert len(names) == 2
    assert "anchor.pyz_fedcba9876543210" in names


def test_many_first_starts_at_once_all_succeed(pyz: Path, bare_environment: Environment) -> None:
    """One unpacks, the others wait for it."""
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: version(pyz, bare_environment), range(6)))
    assert len(set(answers)) == 1


def test_a_first_start_that_was_killed_is_completed_by_the_next(
    pyz: Path, bare_environment: Environment
) -> None:
    """Whenever it is killed, the next start works."""
    command = [sys.executable, str(pyz), "--version"]
    for delay_seconds in (0.1, 0.2, 0.3):
        with subprocess.Popen(command, env=bare_environment, stdout=subprocess.DEVNULL) as first:
            time.sleep(delay_seconds)  # the moment does not matter, any will do
            first.kill()
        version(pyz, bare_environment)
        shutil.rmtree(own_directory(bare_environment))


def test_a_noexec_directory_is_passed_over(
    pyz: Path, bare_environment: Environment, tmp_path: Path
) -> None:
    """A cache mounted noexec could hold compiled modules but not load them."""
    mounted = tmp_path / "noexec"
    mounted.mkdir()
    options = ["-t", "tmpfs", "-o", "noexec,size=100m,mode=700", "none", str(mounted)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system is not allowed here")
    try:
        version(pyz, {**bare_environment, "XDG_CACHE_HOME": str(mounted)})
        assert unpacked(mounted / "anchor") == []
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    assert len(unpacked(own_directory(bare_environment))) == 1


def test_a_full_disk_is_passed_over(
    pyz: Path, bare_environment: Environment, tmp_path: Path
) -> None:
    """Where there is no room the next directory is tried."""
    mounted = tmp_path / "full"
    mounted.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(mounted)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system is not allowed here")
    try:
        version(pyz, {**bare_environment, "XDG_CACHE_HOME": str(mounted)})
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    assert len(unpacked(own_directory(bare_environment))) == 1


@pytest.mark.parametrize(
    ("what", "value", "complaint"),
    [
        ("python", [3, 9], "is built for CPython 3.9 on"),
        ("machine", "m68k", "m68k"),
        ("system", "plan9", "on plan9"),
        ("library", "x86_64-linux-musl", "(x86_64-linux-musl)"),
        ("name", "pypy", "is built for PyPy"),
    ],
)
def test_another_interpreter_or_platform_is_told_in_one_line(
    pyz: Path,
    bare_environment: Environment,
    tmp_path: Path,
    what: str,
    value: object,
    complaint: str,
) -> None:
    """Before anything is unpacked: what it is built for, and what this is."""
    other = tmp_path / "anchor.pyz"
    rewrite(pyz, other, **{what: value})
    command = [sys.executable, str(other), "--version"]
    result = subprocess.run(
        command, env=bare_environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert complaint in result.stderr
    assert f"; you run CPython 3.{sys.version_info.minor}" in result.stderr
    assert list(Path(bare_environment["TMPDIR"]).iterdir()) == []


def test_a_child_started_as_documented_finds_everything(
    pyz: Path, bare_environment: Environment, tmp_path: Path
) -> None:
    """``[sys.executable, sys.argv[0], …]`` works from whatever directory the child starts in."""
    program = (
        "import subprocess, sys; raise SystemExit(subprocess.run("
        f"[sys.executable, sys.argv[0], '--version'], cwd={str(tmp_path)!r}).returncode)"
    )
    copied = tmp_path / "copied"
    copied.mkdir()
    shutil.copy(pyz, copied / "anchor.pyz")
    module = tmp_path / "parent.py"
    module.write_text(f"def main():\n    import os\n    del os.environ['PARENT']\n    {program}\n")
    environment = {
        **bare_environment,
        "PYTHONPATH": str(tmp_path),
        "SHIV_ENTRY_POINT": "parent:main",
        "PARENT": "1",
    }
    answer = version(Path("anchor.pyz"), environment, copied)
    assert answer.startswith("anchor ")


def rewrite(pyz: Path, other: Path, **changes: object) -> None:
    """Copy the file with another build id, or as if built for something else."""
    with zipfile.ZipFile(pyz) as archive, zipfile.ZipFile(other, "w") as copy:
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename == "environment.json":
                settings = json.loads(content)
                content = json.dumps({**settings, **pick(changes, settings)}).encode()
            if entry.filename == "__main__.py":
                content = retarget(content.decode(), changes).encode()
            copy.writestr(entry, content, zipfile.ZIP_DEFLATED, 1)


def pick(changes: dict[str, object], known: dict[str, object]) -> dict[str, object]:
    """Those changes that are about something known."""
    return {name: value for name, value in changes.items() if name in known}


def retarget(source: str, changes: dict[str, object]) -> str:
    """Let the start believe that it was built for something else."""
    before, marker, rest = source.partition("BUILT_FOR = ")
    line, newline, after = rest.partition("\n")
    built_for = ast.literal_eval(line.partition("#")[0].strip())
    return f"{before}{marker}{ {**built_for, **pick(changes, built_for)}!r}{newline}{after}"
