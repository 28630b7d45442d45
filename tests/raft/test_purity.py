"""The core knows no clock, no disk, no network and no chance (trap 14)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import anchor.raft

SOURCES = sorted(Path(anchor.raft.__file__).parent.glob("*.py"))
ALLOWED = {
    "__future__", "bisect", "collections", "dataclasses", "enum", "functools", "heapq",
    "itertools", "json", "math", "operator", "random", "struct", "types", "typing",
    "typing_extensions", "contextlib", "abc",
}  # fmt: skip


def imported(source: Path) -> set[str]:
    """Give the top-level names of all modules ``source`` imports, deferred ones included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_core_imports_nothing_that_touches_the_world(source: Path) -> None:
    """No time, os, socket, threading, logging, gevent; of anchor only itself."""
    for name in imported(source):
        own = name == "anchor.raft" or name.startswith("anchor.raft.")
        assert own or name.split(".")[0] in ALLOWED, f"{source.name} imports {name}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_core_draws_from_no_global_chance(source: Path) -> None:
    """``random`` is imported for its type only: chance is an argument."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "random" or node.attr == "Random"
