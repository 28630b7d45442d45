"""What ``recover`` and ``snapshot`` are asked for: every mistake is told, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from anchor.plan import Mistakes, Plan, RunRecover, RunSnapshot, Show, plan_for
from anchor.values import members


def plan(*arguments: str, **environ: str) -> Plan:
    """Plan a command line."""
    return plan_for(arguments, environ, "anchor")


def lines(*arguments: str, **environ: str) -> tuple[str, ...]:
    """Give what is wrong with a command line."""
    made = plan(*arguments, **environ)
    assert isinstance(made, Mistakes)
    return made.lines


def test_recover_takes_a_directory_and_members() -> None:
    """The directory from the environment too; ``--yes`` before the verb as well as after it."""
    made = plan("recover", "--dir", "d", "--members", "n1=h:1,n2=[::1]:2", "--members", "n3=h:3")
    assert isinstance(made, RunRecover)
    assert made.directory == Path("d")
    assert made.members == {"n1": "h:1", "n2": "[::1]:2", "n3": "h:3"}
    assert (made.show, made.confirmed) == (False, False)
    made = plan("--yes", "recover", "--members", "n1=h:1", ANCHOR_DIR="e")
    assert isinstance(made, RunRecover)
    assert (made.directory, made.confirmed) == (Path("e"), True)
    made = plan("recover", "--show", "--dir", "d", "--json")
    assert isinstance(made, RunRecover)
    assert (made.show, made.as_json) == (True, True)


def test_no_variable_says_who_the_members_are() -> None:
    """What cannot be undone stands on the command line."""
    made = plan("recover", "--dir", "d", ANCHOR_MEMBERS="n1=h:1")
    assert isinstance(made, Mistakes)
    assert "--members: is missing" in made.lines[0]


def test_all_mistakes_of_recover_are_told_at_once() -> None:
    """Each in a line that names what is at fault."""
    assert lines("recover") == (
        "--dir: is missing; give the data directory of a stopped node",
        "--members: is missing; usually this node alone, like --members node1=localhost:9001",
    )
    assert lines("recover", "n1=h:1", "--members", "n1", "--port", "1") == (
        "--port: does not belong to recover",
        "--members n1: n1: a member is written ID=HOST:PORT, like node1=localhost:9001",
        "n1=h:1: recover takes no such word; several members have commas between",
        "--dir: is missing; give the data directory of a stopped node",
    )
    assert lines("recover", "--dir", "d", "--show", "--yes") == (
        "--show: only looks; leave out --members and --yes",
    )
    assert lines("recover", "--dir", "d", "--members", "n=h:1", "--json") == (
        "--json: belongs to --show",
    )


def test_all_that_is_wrong_with_members_is_told() -> None:
    """Not only the first of them."""
    with pytest.raises(ValueError, match="n1") as raised:
        members("n1=h:1,n1=h:2,n 2=h:3,n3=h,n4")
    told = str(raised.value).split("; ")
    assert told[0] == "n1=h:2: n1 is there twice"
    assert told[1].startswith("n 2=h:3: an id is 1 to 64")
    assert told[2].startswith("n3=h: has no port")
    assert told[-1].startswith("n4: a member is written")
    with pytest.raises(ValueError, match="names no member"):
        members(" , ")


def test_snapshot_save_asks_a_cluster() -> None:
    """As any verb that does, with the environment's help."""
    made = plan("snapshot", "save", "f", "--consistency", "stale", ANCHOR_ENDPOINTS="h:1")
    assert isinstance(made, RunSnapshot)
    assert (made.action, made.file) == ("save", Path("f"))
    assert made.source is not None
    assert made.source.endpoints == ("h:1",)
    assert made.source.consistency == "stale"
    made = plan("snapshot", "save", "f", "--timeout", "2")
    assert isinstance(made, RunSnapshot)
    assert made.source is not None
    assert (made.source.timeout_ms, made.source.patience_ms) == (2000, 2000)


def test_snapshot_restore_takes_the_options_of_a_node() -> None:
    """From flags, environment and file, with the same defaults."""
    made = plan("snapshot", "restore", "f", "--id", "n1", "--port", "9001", ANCHOR_HTTP_PORT="80")
    assert isinstance(made, RunSnapshot)
    settings = made.settings
    assert settings is not None
    assert (settings.node_id, settings.address) == ("n1", "127.0.0.1:9001")
    assert settings.http_address == "127.0.0.1:80"
    assert settings.directory == Path("data") / "n1"


def test_snapshot_restore_reads_the_file_that_the_node_will_read(tmp_path: Path) -> None:
    """Peers in it are for later."""
    file = tmp_path / "anchor.toml"
    file.write_text('id = "n7"\nport = 9007\npeers = ["h:1"]\n')
    made = plan("snapshot", "restore", "f", "--config", str(file))
    assert isinstance(made, RunSnapshot)
    assert made.settings is not None
    assert (made.settings.node_id, made.settings.port) == ("n7", 9007)
    assert made.settings.peers == ()


@pytest.mark.parametrize("joining", ["bootstrap-expect = 3", "learner = true", "replace = true"])
def test_how_a_node_joins_is_for_later_too(tmp_path: Path, joining: str) -> None:
    """In the file or the environment; on the command line it is a mistake."""
    file = tmp_path / "anchor.toml"
    file.write_text(f'id = "n7"\npeers = ["h:1"]\n{joining}\n')
    made = plan("snapshot", "restore", "f", "--config", str(file))
    assert isinstance(made, RunSnapshot)
    settings = made.settings
    assert settings is not None
    assert (settings.bootstrap_expect, settings.learner, settings.replace) == (0, False, False)
    made = plan("snapshot", "restore", "f", "--id=n7", ANCHOR_BOOTSTRAP_EXPECT="3")
    assert isinstance(made, RunSnapshot)
    for flag in ("--bootstrap-expect=3", "--learner", "--replace"):
        name = flag.split("=")[0]
        assert lines("snapshot", "restore", "f", "--id=n7", flag) == (
            f"{name}: what is restored is a cluster of its own; leave it out",
        )


def test_all_mistakes_of_snapshot_are_told_at_once() -> None:
    """Whichever of its three it is."""
    assert lines("snapshot") == ("snapshot: is followed by one of save, info and restore",)
    assert lines("snapshot", "sve", "f") == ("snapshot: sve: is none of save, info and restore",)
    assert lines("snapshot", "info") == ("snapshot info: is written snapshot info FILE",)
    assert lines("snapshot", "info", "") == ("snapshot info: the path is empty",)
    assert lines("snapshot", "info", "f", "--endpoints", "h:1") == (
        "--endpoints: does not belong to snapshot info",
    )
    assert lines("snapshot", "save", "f", "--json") == ("--json: does not belong to snapshot save",)
    assert lines("snapshot", "restore", "--peers", "h:1", "--cluster", "3") == (
        "snapshot restore: is written snapshot restore FILE",
        "--cluster: a backup is restored to one node; let the others join it",
        "--peers: what is restored is a cluster of its own; leave it out",
        "--id: is missing; give this node a name, like --id node1",
    )


@pytest.mark.parametrize("verb", ["snapshot", "recover"])
def test_each_has_a_help_of_its_own(verb: str) -> None:
    """However little else was said."""
    for flag in ("--help", "-h"):
        made = plan(verb, flag)
        assert isinstance(made, Show)
        assert made.text.startswith(f"anchor {verb} ")
        assert all(len(line) <= 80 for line in made.text.splitlines())
    overview = plan("--help")
    assert isinstance(overview, Show)
    assert f"\n  {verb} " in overview.text


def test_their_flags_are_no_flags_of_a_node() -> None:
    """And it is said whose they are."""
    assert "--members: belongs to recover" in lines("--id", "n1", "--members", "n1=h:1")
    assert "--yes: belongs to recover" in lines("--id", "n1", "--yes")
