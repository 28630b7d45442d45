"""The layers hold in a running interpreter too, where deferred imports would show."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What would give the pure packages a clock, a disk, a network, a thread or a log.
MACHINERY = frozenset(
    {
        "asyncio",
        "concurrent.futures",
        "fcntl",
        "logging",
        "multiprocessing",
        "select",
        "selectors",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "uuid",
    }
)
FRAMEWORKS = frozenset(
    {
        "asciimatics",
        "falcon",
        "gevent",
        "greenlet",
        "grpc",
        "gunicorn",
        "rocksdict",
        "wcwidth",
        "zope",
    }
)


def modules_loaded_by(statement: str) -> frozenset[str]:
    """Find all modules that a statement loads beyond those of an interpreter that runs nothing."""
    program = (
        "import sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "loaded = sorted(set(sys.modules) - before)\n"
        "import json; print(json.dumps(loaded))"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(json.loads(result.stdout))


def families(modules: frozenset[str]) -> frozenset[str]:
    """Name the packages that modules belong to: ``grpc._channel`` is of ``grpc``."""
    return frozenset(
        ".".join(parts[:length])
        for parts in (module.split(".") for module in modules)
        for length in range(1, len(parts) + 1)
    )


def test_core_loads_nothing_that_knows_time_or_the_machine() -> None:
    """Importing the core loads no I/O, no thread, no logging, no framework, no protobuf."""
    loaded = families(modules_loaded_by("import anchor.raft"))
    assert not loaded & (MACHINERY | FRAMEWORKS | {"google"})


def test_state_machine_loads_nothing_but_protobuf() -> None:
    """What the state machine loads beyond protobuf's own needs knows no framework either."""
    protobuf = modules_loaded_by("import google.protobuf.message, google.protobuf.descriptor_pool")
    generated = modules_loaded_by("import anchor.fsm.fsm_pb2")
    loaded = families(modules_loaded_by("import anchor.fsm") - protobuf - generated)
    assert not loaded & (MACHINERY | FRAMEWORKS)


def test_client_loads_the_standard_library_alone() -> None:
    """Whoever embeds the client gets no dependency with it, not even the core."""
    loaded = modules_loaded_by("import anchor.client")
    families_loaded = {module.partition(".")[0] for module in loaded}
    assert families_loaded - {"anchor"} <= sys.stdlib_module_names
    inner = {"anchor.raft", "anchor.fsm", "anchor.storage", "anchor.transport", "anchor.node"}
    assert not families(loaded) & inner


def test_dashboard_loads_nothing_of_a_node() -> None:
    """The dashboard speaks HTTP: no consensus, no storage, no gRPC comes with it."""
    loaded = families(modules_loaded_by("import anchor.tui"))
    assert not loaded & {"gevent", "grpc", "google", "rocksdict", "falcon", "gunicorn"}
    assert not loaded & {"anchor.raft", "anchor.fsm", "anchor.node", "anchor.storage"}


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_version_and_help_load_no_framework(arguments: list[str]) -> None:
    """What only prints is quick, because nothing of a node is loaded for it."""
    program = (
        f"import sys, anchor.__main__; sys.argv[1:] = {arguments}\n"
        "status = anchor.__main__.main()\n"
        "assert status == 0; print(*sorted(sys.modules), sep='\\n', file=sys.stderr)"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = families(frozenset(result.stderr.split()))
    assert not loaded & (FRAMEWORKS | {"google", "anchor.node", "anchor.api"})


def test_asciimatics_needs_neither_pillow_nor_pyfiglet() -> None:
    """anchor.pyz carries asciimatics without them; what the dashboard imports never asks."""
    loaded = modules_loaded_by("import asciimatics.screen, asciimatics.scene, asciimatics.widgets")
    assert not families(loaded) & {"PIL", "pyfiglet"}


def pyproject() -> dict[str, Any]:
    """Read the project file."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_import_contracts_name_every_package() -> None:
    """No package of the house is left out of the layers."""
    contracts = pyproject()["tool"]["importlinter"]["contracts"]
    (layers,) = (contract for contract in contracts if contract["type"] == "layers")
    assert layers["exhaustive"]
    named = {
        name.strip("() ")
        for layer in layers["layers"]
        for name in layer.replace(":", "|").split("|")
    }
    packages = {path.parent.name for path in (ROOT / "anchor").glob("*/__init__.py")}
    assert packages <= named
