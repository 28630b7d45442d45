"""What is installed is what was chosen, wherever it comes from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from anchor.settings import VERSION

ROOT = Path(__file__).resolve().parent.parent.parent
LOCKS = {path.stem: path.read_text() for path in (ROOT / ".build").glob("*.txt")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(lock: str) -> set[str]:
    """List the ``name==version`` of a lock file."""
    return set(re.findall(r"^(\S+==\S+)", LOCKS[lock], re.MULTILINE))


def test_every_dependency_of_the_project_is_locked_at_its_version() -> None:
    """The lock files follow pyproject.toml: whoever changes one runs .build/lock."""
    assert set(PROJECT["project"]["dependencies"]) <= pins("runtime")
    assert set(PROJECT["dependency-groups"]["build"]) <= pins("tools")
    assert set(PROJECT["dependency-groups"]["dev"]) <= pins("development")


def test_tests_run_with_what_the_file_carries() -> None:
    """The development environment holds every runtime dependency at the same version."""
    assert pins("runtime") <= pins("development")


@pytest.mark.parametrize("lock", sorted(LOCKS))
def test_every_locked_package_has_hashes(lock: str) -> None:
    """No package can be installed unless its file is one of those known."""
    assert pins(lock)
    for requirement in re.split(r"^(?=\S)", LOCKS[lock], flags=re.MULTILINE):
        if "==" in requirement:
            assert "--hash=sha256:" in requirement


@pytest.mark.parametrize("lock", sorted(LOCKS))
def test_locks_name_no_registry_and_no_path(lock: str) -> None:
    """Where packages come from is for pip's own configuration to say."""
    assert not re.search(r"://|--index|--find-links|--trusted|\s/", LOCKS[lock])


def test_the_program_tells_the_version_of_the_project() -> None:
    """``--version`` and the project's metadata agree, and the change log knows it."""
    assert PROJECT["project"]["version"] == VERSION
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()
