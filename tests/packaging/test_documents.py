"""What a newcomer reads and copies is true."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from anchor.options import NODE_OPTIONS, VERB_OPTIONS
from anchor.plan import RunNode, plan_for
from tests.packaging.conftest import ROOT
from tests.packaging.smoke import free_ports

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text()
EXAMPLES = ROOT / "examples"


def test_readme_lists_every_flag_and_no_other() -> None:
    """The table of flags is the table of options."""
    listed = set(re.findall(r"^\| `(--[a-z-]+)[ `]", README, re.MULTILINE)) - {"--version"}
    assert listed == {option.flag for option in NODE_OPTIONS}
    assert {option.flag for option in VERB_OPTIONS} <= set(re.findall(r"`(--[a-z-]+) ", README))


def test_readme_names_the_two_commands_that_are_run_here() -> None:
    """.ci/run takes the command for the tests from the README, by its mark."""
    marked = re.findall(r"^<!-- (\w+) -->\n```sh\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)
    assert dict(marked).keys() == {"start", "tests"}
    assert dict(marked)["tests"] == "python3 -m tests"


def test_readme_links_only_to_what_is_there() -> None:
    """Files and directories named in backquotes or links exist."""
    for name in re.findall(r"\]\(([A-Za-z][^):]*)\)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`((?:tests|examples|anchor|\.ci)/[\w./]*)`", README):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md"])
def test_documents_keep_their_lines_short(document: str) -> None:
    """Readable in a terminal; commands and tables are what they are."""
    for line in (ROOT / document).read_text().splitlines():
        assert len(line) <= 100 or line.startswith(("|", "./")), line


def test_example_configuration_is_accepted() -> None:
    """Every key in examples/anchor.toml is an option, every value a good one."""
    plan = plan_for(["--config", str(EXAMPLES / "anchor.toml")], {}, "anchor")
    assert isinstance(plan, RunNode)
    assert plan.settings.node_id == "node1"
    assert plan.settings.election_timeout_ms == 2000
    assert plan.warnings == ()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_example_unit_is_understood_by_systemd(tmp_path: Path) -> None:
    """Systemd finds nothing wrong in examples/anchor.service."""
    program = tmp_path / "anchor.pyz"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = (EXAMPLES / "anchor.service").read_text()
    (tmp_path / "anchor.service").write_text(
        unit.replace("/usr/local/bin/anchor.pyz", str(program))
    )
    command: list[str | Path] = ["systemd-analyze", "verify", tmp_path / "anchor.service"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    complaints = [line for line in result.stderr.splitlines() if "anchor.service" in line]
    assert complaints == []


def test_example_that_kills_the_leader_works(pyz: Path) -> None:
    """examples/kill_the_leader.sh does what it says, from nothing to nothing."""
    command: list[str | Path] = [EXAMPLES / "kill_the_leader.sh", pyz, str(free_ports(3))]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as script:
        stopper = threading.Timer(120, script.terminate)  # it cleans up after itself
        stopper.start()
        output, _ = script.communicate()
        stopper.cancel()
    assert script.returncode == 0, output
    assert "motto: lose a node, keep the data" in output
    assert "answered-by: those that are left" in output
