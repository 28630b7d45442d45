"""How the file is built, and what is in it."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.packaging.conftest import ROOT, build

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE_BYTES_MAX = 25_000_000


@pytest.fixture(name="names")
def names_in_file(pyz: Path) -> list[str]:
    """Everything in the file."""
    with zipfile.ZipFile(pyz) as archive:
        return archive.namelist()


def test_file_is_small_and_can_be_run(pyz: Path) -> None:
    """At most 25 MB, executable, for whatever python3 the path has."""
    assert pyz.stat().st_size <= SIZE_BYTES_MAX
    assert pyz.stat().st_mode & 0o111 == 0o111
    with pyz.open("rb") as file:
        assert file.readline() == b"#!/usr/bin/env python3\n"


def test_built_twice_from_two_directories_it_is_the_same(pyz: Path, tmp_path: Path) -> None:
    """The bytes depend on the checkout's contents, not on where or when it is built."""
    elsewhere = tmp_path / "a checkout elsewhere"
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyz", ".git", ".cache", ".*_cache", "data")
    shutil.copytree(ROOT, elsewhere, ignore=unwanted)
    build(elsewhere, tmp_path / "again.pyz")
    assert differences(pyz, tmp_path / "again.pyz") == []
    assert pyz.read_bytes() == (tmp_path / "again.pyz").read_bytes()


def differences(one: Path, other: Path) -> list[str]:
    """Name the entries that differ, for a failure that can be understood."""

    def contents(path: Path) -> Iterator[tuple[str, int]]:
        with zipfile.ZipFile(path) as archive:
            yield from ((entry.filename, entry.CRC) for entry in archive.infolist())

    return sorted({name for name, _ in set(contents(one)) ^ set(contents(other))})


def test_nothing_but_what_runs_is_inside(names: list[str]) -> None:
    """No tests, sources, stubs or images, and no installer's notes."""
    for name in names:
        path = Path(name)
        assert path.suffix not in {".c", ".cpp", ".h", ".pyx", ".pxd", ".pyi"}, name
        assert path.name not in {"RECORD", "direct_url.json"}, name
        assert not {"tests", "testdata", "PIL", "pyfiglet", "setuptools", "pip"} & set(path.parts)


def test_every_module_is_compiled(names: list[str]) -> None:
    """A first start compiles nothing, and one from a read-only directory neither."""
    modules = {name for name in names if name.endswith(".py") and "/" in name}
    modules = {name for name in modules if name.startswith("site-packages/")}
    compiled = {Path(name) for name in names if name.endswith(".pyc")}
    sources = {path.parent.parent / f"{path.name.partition('.')[0]}.py" for path in compiled}
    assert {Path(name) for name in modules} == sources


def test_every_licence_comes_along(names: list[str]) -> None:
    """Whoever passes the file on passes on what its parts demand."""
    parts = {Path(name).parts[1] for name in names if ".dist-info/" in name}
    assert len(parts) >= 12
    licensed = {Path(name).parts[1] for name in names if "LICEN" in name or "METADATA" in name}
    assert parts <= licensed
