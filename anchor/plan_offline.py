"""What ``recover`` and ``snapshot`` were asked for: see :mod:`anchor.plan`, which this is part of.

``snapshot restore`` takes the options of a node, since it makes the directory of one.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from anchor import usage, values
from anchor.options import (
    NODE_OPTIONS,
    OFFLINE_OPTIONS,
    OFFLINE_SWITCHES,
    VERB_OPTIONS,
    Flags,
    read_environment,
    read_file,
    read_flags,
    unknown_variables,
)
from anchor.plan import (
    SWITCHES,
    Mistakes,
    Plan,
    RunRecover,
    RunSnapshot,
    RunVerb,
    Show,
    _node,
    _Sources,
)
from anchor.values import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anchor.options import Given, Option

_DIRECTORY = tuple(option for option in NODE_OPTIONS if option.name == "dir")
_ACTIONS = ("save", "info", "restore")
# How a node gets into a cluster. A file, or the environment, says it for the time after: no more of
# it than what is on the command line is meant for the restoring.
_JOINING = ("peers", "bootstrap-expect", "learner", "replace")


def plan_for(verb: str, arguments: Sequence[str], environ: Mapping[str, str], program: str) -> Plan:
    """Decide what to do."""
    problems: list[str] = []
    made: Plan | None
    if verb == "recover":
        made = _recover(arguments, environ, problems)
    else:
        made = _snapshot(arguments, environ, problems)
    if isinstance(made, Show):
        return Show(usage.of_offline_verb(verb, program))
    if problems or made is None:
        return Mistakes(tuple(problems), f"Try: {program} {verb} --help")
    return made


_HELP = Show("")


def _recover(
    arguments: Sequence[str], environ: Mapping[str, str], problems: list[str]
) -> Plan | None:
    options = (*_DIRECTORY, *OFFLINE_OPTIONS)
    flags = _read(arguments, options, ("--json", *OFFLINE_SWITCHES), problems, "recover")
    if flags.switches & {"--help", "-h"}:
        return _HELP
    sources = _Sources({**read_environment(environ, _DIRECTORY, problems), **flags.options})
    show, yes = "--show" in flags.switches, "--yes" in flags.switches
    problems += [
        f"{printable(word, 60)}: recover takes no such word; several members have commas between"
        for word in flags.positionals[1:]
    ]
    if "dir" not in sources.given:
        problems.append("--dir: is missing; give the data directory of a stopped node")
    if show and ("members" in sources.given or yes):
        problems.append("--show: only looks; leave out --members and --yes")
    if "--json" in flags.switches and not show:
        problems.append("--json: belongs to --show")
    if not show and "members" not in sources.given and not flags.unknown:
        problems.append(
            "--members: is missing; usually this node alone, like --members node1=localhost:9001"
        )
    if problems:
        return None
    return RunRecover(
        sources.get("dir"),
        MappingProxyType(sources.get("members", {})),
        show,
        "--json" in flags.switches,
        yes,
        tuple(unknown_variables(environ)),
    )


def _snapshot(
    arguments: Sequence[str], environ: Mapping[str, str], problems: list[str]
) -> Plan | None:
    everything = (*NODE_OPTIONS, *VERB_OPTIONS)
    words = read_flags(arguments, everything, (*SWITCHES, "--json"), [])
    if words.switches & {"--help", "-h"}:
        return _HELP
    action, *operands = words.positionals[1:] or ("",)
    if action not in _ACTIONS:
        given = f"{printable(action, 60)}: is none of" if action else "is followed by one of"
        problems.append(f"snapshot: {given} save, info and restore")
        return None
    if len(operands) != 1 and not words.unknown:
        problems.append(f"snapshot {action}: is written snapshot {action} FILE")
    try:
        file = values.directory(operands[0]) if operands else Path()
    except ValueError as error:
        problems.append(f"snapshot {action}: {error}")
        file = Path()
    make = {"save": _save, "info": _info, "restore": _restore}[action]
    return make(file, arguments, environ, problems)


def _save(
    file: Path, arguments: Sequence[str], environ: Mapping[str, str], problems: list[str]
) -> Plan | None:
    flags = _read(arguments, VERB_OPTIONS, (), problems, "snapshot save")
    sources = _Sources({**read_environment(environ, VERB_OPTIONS, problems), **flags.options})
    names = {"endpoints": "endpoints", "timeout": "timeout_ms", "consistency": "consistency"}
    given = {names[name]: sources.get(name) for name in sources.given}
    if "timeout_ms" in given:
        given["patience_ms"] = given["timeout_ms"]
    if problems:
        return None
    warnings = tuple(unknown_variables(environ))
    return RunSnapshot("save", file, source=RunVerb("snapshot", (), **given), warnings=warnings)


def _info(
    file: Path, arguments: Sequence[str], environ: Mapping[str, str], problems: list[str]
) -> Plan | None:
    flags = _read(arguments, (), ("--json",), problems, "snapshot info")
    as_json = "--json" in flags.switches
    return RunSnapshot("info", file, as_json=as_json, warnings=tuple(unknown_variables(environ)))


def _restore(
    file: Path, arguments: Sequence[str], environ: Mapping[str, str], problems: list[str]
) -> Plan | None:
    flags = _read(arguments, NODE_OPTIONS, (), problems, "snapshot restore")
    from_environment = read_environment(environ, NODE_OPTIONS, problems)
    config = flags.options.get("config") or from_environment.get("config")
    from_file: dict[str, Given] | None = {}
    if config is not None and isinstance(config.value, Path):
        from_file = read_file(config.value, NODE_OPTIONS, problems)
    given = {**(from_file or {}), **from_environment, **flags.options}
    if "cluster" in given:
        problems.append("--cluster: a backup is restored to one node; let the others join it")
    for name in _JOINING:
        given.pop(name, None)
        if name in flags.options:
            problems.append(f"--{name}: what is restored is a cluster of its own; leave it out")
    sources = _Sources(given, problems, from_file is not None and not flags.unknown)
    settings = _node(sources, ()).settings
    if problems:
        return None
    warnings = tuple(unknown_variables(environ))
    return RunSnapshot("restore", file, settings=settings, warnings=warnings)


def _read(
    arguments: Sequence[str],
    options: Sequence[Option],
    switches: Sequence[str],
    problems: list[str],
    verb: str,
) -> Flags:
    elsewhere = {
        option.flag: f"does not belong to {verb}"
        for option in (*NODE_OPTIONS, *VERB_OPTIONS)
        if option not in options
    }
    if "--json" not in switches:
        elsewhere["--json"] = f"does not belong to {verb}"
    return read_flags(arguments, options, (*SWITCHES, *switches), problems, elsewhere)
