"""What a command line asks for: the one place where sources are merged and settings made.

:func:`plan_for` returns a value that says what to do and does nothing itself: :class:`RunNode`,
:class:`RunCluster`, :class:`RunVerb`, :class:`Show` (help, version) or :class:`Mistakes`. So it
can run before gevent patches the standard library, and ``__main__`` can see whether to patch.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anchor import usage, values
from anchor.options import (
    NODE_OPTIONS,
    OFFLINE_OPTIONS,
    OFFLINE_SWITCHES,
    VERB_OPTIONS,
    Given,
    read_environment,
    read_file,
    read_flags,
    unknown_variables,
)
from anchor.settings import (
    HTTP_PORT_OFFSET,
    VERSION,
    Settings,
    is_wildcard,
    join_address,
    split_address,
)
from anchor.values import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SWITCHES = ("--help", "-h", "--version")
DEFAULT_PORT = 7001
"""So that HTTP is at 8001, which is where the verbs look."""

CHANGE_TIMEOUT_MS = 35_000
"""Longer than the 30 s a node takes for a change of the members, so that its answer arrives."""

ELECTION_TO_HEARTBEAT = 3
"""An election timeout must outlast a few heartbeats, or one lost packet unseats a leader."""


@dataclass(frozen=True, slots=True)
class Show:
    """Print this and be done."""

    text: str


@dataclass(frozen=True, slots=True)
class Mistakes:
    """The command line cannot be obeyed. One line each; exit code 2."""

    lines: tuple[str, ...]
    hint: str = ""


@dataclass(frozen=True, slots=True)
class RunNode:
    """Run one node here."""

    settings: Settings
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunCluster:
    """Run several nodes as children. ``nodes`` have everything but their ``peers`` decided."""

    nodes: tuple[Settings, ...]
    directory: Path
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunVerb:
    """Talk to a cluster. ``operands`` are the arguments after the verb."""

    verb: str
    operands: tuple[str, ...]
    endpoints: tuple[str, ...] = ("localhost:8001",)
    timeout_ms: int = 10_000
    patience_ms: int = 1_500  # while nobody is there at all, unless a timeout was asked for
    consistency: str = "linearizable"
    as_json: bool = False
    as_learner: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunRecover:
    """Make a stopped node's directory the beginning of what goes on; ``show``: only look at it."""

    directory: Path
    members: Mapping[str, str]
    show: bool = False
    as_json: bool = False
    confirmed: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """Save a backup in ``file``, describe it, or restore it: ``action`` says which."""

    action: str
    file: Path
    source: RunVerb | None = None
    """Whom to ask for it; of save."""
    settings: Settings | None = None
    """Of the node to be; of restore."""
    as_json: bool = False
    warnings: tuple[str, ...] = ()


Plan = Show | Mistakes | RunNode | RunCluster | RunVerb | RunRecover | RunSnapshot


def plan_for(arguments: Sequence[str], environ: Mapping[str, str], program: str) -> Plan:
    """Decide what to do. ``arguments`` come without the program's name, which is ``program``."""
    verb = _verb_in(arguments)
    if verb in usage.OFFLINE_VERBS:
        from anchor import plan_offline  # noqa: PLC0415 - it builds on this module

        return plan_offline.plan_for(verb, arguments, environ, program)
    if verb is not None:
        return _plan_verb(verb, arguments, environ, program)
    problems: list[str] = []
    flags = read_flags(arguments, NODE_OPTIONS, SWITCHES, problems, _FLAGS_OF_VERBS)
    if flags.switches & {"--help", "-h"} or flags.positionals[:1] == ("help",):
        return Show(usage.overview(program))
    if "--version" in flags.switches:
        return Show(f"anchor {VERSION}")
    problems += [
        f"{printable(word, 60)}: is neither a flag nor a verb{_guess(word)}"
        for word in flags.positionals
    ]
    from_environment = read_environment(environ, NODE_OPTIONS, problems)
    config = flags.options.get("config") or from_environment.get("config")
    from_file: dict[str, Given] | None = {}
    if config is not None:
        path = config.value
        from_file = read_file(path, NODE_OPTIONS, problems) if isinstance(path, Path) else None
    all_read = from_file is not None and not flags.positionals and not flags.unknown
    given = {**(from_file or {}), **from_environment, **flags.options}
    sources = _Sources(given, problems, all_read)
    warnings = tuple(unknown_variables(environ))
    made = (_cluster if "cluster" in sources.given else _node)(sources, warnings)
    if problems:
        nothing = not (arguments or sources.given)
        return Mistakes(tuple(problems), usage.hint(program, first_time=nothing))
    return made


def _verb_in(arguments: Sequence[str]) -> str | None:
    """Find the verb: the first words that are no flags and no flags' values."""
    options = (*NODE_OPTIONS, *VERB_OPTIONS, *OFFLINE_OPTIONS)
    words = read_flags(arguments, options, (*SWITCHES, "--json", *OFFLINE_SWITCHES), [])
    for count in (2, 1):
        verb = " ".join(words.positionals[:count])
        if verb in {*usage.VERBS, *usage.OFFLINE_VERBS}:
            return verb
    return None


_FLAGS_OF_VERBS = {
    option.flag: "belongs to the verbs, such as get, put and status" for option in VERB_OPTIONS
} | {
    "--json": "belongs to status, members and leader",
    **{f"--{name}": "belongs to recover" for name in ("members", "show", "yes")},
}
_FLAGS_OF_NODES = {option.flag for option in NODE_OPTIONS}


def _guess(word: str) -> str:
    import difflib  # noqa: PLC0415 - only mistakes pay for it

    if re.search(r":[0-9]+$", word):
        return "; put commas between addresses"
    if word == "member":
        return "; say member add, member remove or member promote"
    close = difflib.get_close_matches(word, [*usage.VERBS, *usage.OFFLINE_VERBS], n=1)
    return f"; did you mean {close[0]}?" if close else ""


@dataclass(slots=True)
class _Sources:
    """The merged values, and the list that problems found later are added to."""

    given: dict[str, Given]
    problems: list[str] = field(default_factory=list)
    all_read: bool = True  # else what seems to be missing may stand in what was not understood

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - the table of options has the types
        """Return the value that won, or the default."""
        given = self.given.get(name)
        return default if given is None or given.value is None else given.value

    def label(self, name: str, default: object = "") -> str:
        """Name the source that won, with its value, for a message."""
        given = self.given.get(name)
        return f"--{name} (default {default})" if given is None else given.label

    def problem(self, line: str) -> None:
        """Add a line to what is wrong."""
        self.problems.append(line)


_TUNING = {
    "election-timeout": "election_timeout_ms",
    "heartbeat": "heartbeat_ms",
    "request-timeout": "request_timeout_ms",
    "max-value-bytes": "max_value_bytes",
    "max-sessions": "max_sessions",
    "snapshot-entries": "snapshot_entries",
    "snapshot-bytes": "snapshot_bytes",
    "snapshot-rate": "snapshot_rate",
    "quota-bytes": "quota_bytes",
    "log-level": "log_level",
    "log-format": "log_format",
}


def _tuning(sources: _Sources) -> dict[str, Any]:
    """Gather the settings a node has whichever way it is started."""
    election, heartbeat = sources.get("election-timeout", 1000), sources.get("heartbeat", 100)
    if election < ELECTION_TO_HEARTBEAT * heartbeat:
        sources.problem(
            f"{sources.label('election-timeout', '1s')}: must be at least "
            f"{ELECTION_TO_HEARTBEAT} times the heartbeat, "
            f"which is {heartbeat}ms; {ELECTION_TO_HEARTBEAT * heartbeat}ms or more"
        )
    tuned = {setting: sources.get(option) for option, setting in _TUNING.items()}
    return {
        "host": sources.get("host", "127.0.0.1"),
        **{setting: value for setting, value in tuned.items() if value is not None},
    }


def _node(sources: _Sources, warnings: tuple[str, ...]) -> RunNode:
    if "id" not in sources.given and sources.all_read:
        sources.problem("--id: is missing; give this node a name, like --id node1")
    node_id = sources.get("id", "")
    port = sources.get("port", DEFAULT_PORT)
    http_port = sources.get("http-port", port + HTTP_PORT_OFFSET)
    if http_port > 65535:
        sources.problem(
            f"{sources.label('port')}: plus {HTTP_PORT_OFFSET} is no port; give --http-port too"
        )
    if http_port == port:
        sources.problem(f"{sources.label('http-port')}: is the same as --port; each needs its own")
    host = sources.get("host", "127.0.0.1")
    advertise = _with_port(sources.get("advertise", ""), port)
    if is_wildcard(host) and "advertise" not in sources.given:
        sources.problem(
            f"{sources.label('host')}: listens everywhere, so nodes must be told what to dial; "
            "give --advertise HOST"
        )
    reachable = split_address(advertise)[0] if advertise and not sources.problems else host
    own = advertise or join_address(host, port)
    peers = tuple(
        peer for peer in sources.get("peers", ()) if peer != own and not _is_here(peer, host, port)
    )
    if sources.get("peers") and not peers:
        sources.problem(
            f"{sources.label('peers')}: names only this node itself; "
            "name others, or leave it out on the first node of a new cluster"
        )
    _check_joining(sources)
    settings = Settings(
        node_id=node_id,
        port=port,
        directory=sources.get("dir") or Path("data") / node_id,
        peers=peers,
        http_port=http_port,
        advertise=own,
        http_advertise=_with_port(sources.get("http-advertise", reachable), http_port),
        learner=sources.get("learner", False),
        replace=sources.get("replace", False),
        bootstrap_expect=sources.get("bootstrap-expect", 0),
        **_tuning(sources),
    )
    return RunNode(settings, warnings)


def _check_joining(sources: _Sources) -> None:
    """A node needs somebody to join, and cannot found a cluster in which it has no vote."""
    for name in ("bootstrap-expect", "learner", "replace"):
        if sources.get(name) and "peers" not in sources.given and sources.all_read:
            sources.problem(f"{sources.label(name)}: needs --peers: the addresses of the others")
    for name in ("learner", "replace"):
        if sources.get(name) and sources.get("bootstrap-expect"):
            sources.problem(
                f"{sources.label(name)}: contradicts {sources.label('bootstrap-expect')}: it is "
                "for a node that joins a cluster"
            )


def _is_here(address: str, host: str, port: int) -> bool:
    """Whether an address on this machine is the one listened on, however it is spelt."""
    where, number = split_address(address)
    if number != port:
        return False
    ours, theirs = _loopbacks(host), _loopbacks(where)
    return bool(ours & theirs) or (is_wildcard(host) and bool(theirs))


def _loopbacks(host: str) -> set[str]:
    """Which of this machine's own addresses a host means; none if it is another's."""
    if host.lower().rstrip(".") == "localhost":
        return {"127.0.0.1", "::1"}
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return set()
    return {str(address)} if address.is_loopback else set()


def _with_port(address: str, port: int) -> str:
    """Add the port where an address has none; an empty address stays empty."""
    if not address:
        return ""
    try:
        split_address(address)
    except ValueError:
        return join_address(address, port)
    return address


_NOT_WITH_CLUSTER = {
    "id": "the nodes are named node1, node2 and so on",
    "peers": "the nodes find each other",
    "bootstrap-expect": "the nodes find each other",
    "learner": "all its nodes have a vote",
    "replace": "its nodes are new, or have their data",
    "advertise": "all its nodes are on this machine",
    "http-advertise": "all its nodes are on this machine",
}


def _cluster(sources: _Sources, warnings: tuple[str, ...]) -> RunCluster:
    for name, why in _NOT_WITH_CLUSTER.items():
        if name in sources.given and sources.get(name) != ():
            sources.problem(f"{sources.label(name)}: contradicts {sources.label('cluster')}: {why}")
    size = sources.get("cluster", 2)
    port = sources.get("port", DEFAULT_PORT)
    http_port = sources.get("http-port", port + HTTP_PORT_OFFSET)
    for name, first in (("port", port), ("http-port", http_port)):
        if first + size - 1 > 65535:
            sources.problem(
                f"{sources.label(name, first)}: {size} ports in a row from {first} end "
                "past 65535; begin lower"
            )
    if abs(http_port - port) < size:
        sources.problem(
            f"{sources.label('http-port', http_port)}: the {size} ports from {http_port} and the "
            f"{size} from {port} overlap; move one of them"
        )
    directory = sources.get("dir") or Path("data")
    host = sources.get("host", "127.0.0.1")
    reachable = host
    if is_wildcard(host):
        reachable = "::1" if ":" in host else "127.0.0.1"
    tuning = _tuning(sources)
    nodes = tuple(
        Settings(
            node_id=f"node{i + 1}",
            port=port + i,
            directory=directory / f"node{i + 1}",
            http_port=http_port + i,
            advertise=join_address(reachable, port + i),
            http_advertise=join_address(reachable, http_port + i),
            **tuning,
        )
        for i in range(size)
    )
    return RunCluster(nodes, directory, warnings)


def _wrong_operands(verb: str, operands: Sequence[str]) -> list[str]:
    """Say what no node would take."""
    if verb in {"get", "put", "del"}:
        if operands[:1] == ("",):
            return [f"{verb}: the key is empty; a key has at least one byte"]
        return []
    wrong = []
    for text, check in zip(operands, (values.node_id, values.address), strict=False):
        try:
            check(text)
        except ValueError as error:
            wrong.append(f"{verb}: {printable(text, 80)}: {error}")
    return wrong


def _plan_verb(
    verb: str, arguments: Sequence[str], environ: Mapping[str, str], program: str
) -> Plan:
    problems: list[str] = []
    elsewhere = dict.fromkeys(_FLAGS_OF_NODES, f"belongs to a node; {verb} takes --endpoints")
    switches = {*SWITCHES, "--json", *usage.VERBS[verb].switches}
    flags = read_flags(arguments, VERB_OPTIONS, switches, problems, elsewhere)
    if flags.switches & {"--help", "-h"}:
        return Show(usage.of_verb(verb, program))
    # A bad variable stops only the verb that would use it.
    used = [option for option in VERB_OPTIONS if option.name != "consistency" or verb == "get"]
    sources = _Sources({**read_environment(environ, used, problems), **flags.options}, problems)
    operands = flags.positionals[len(verb.split()) :]
    low, high = usage.VERBS[verb].operands
    # An unknown flag may have taken an operand for its value: one complaint is enough.
    if not low <= len(operands) <= high and not flags.unknown:
        problems.append(f"{verb}: is written {usage.VERBS[verb].synopsis}")
    if verb != "get" and "consistency" in flags.options:
        problems.append(f"--consistency: belongs to get, not to {verb}")
    if verb not in usage.WITH_JSON and "--json" in flags.switches:
        problems.append(f"--json: belongs to status, members and leader, not to {verb}")
    problems += _wrong_operands(verb, operands[:high])
    if problems:
        dash = "  A key or value that begins with '-' goes after '--'."
        dash = dash if high and flags.unknown else ""
        return Mistakes(tuple(problems), f"Try: {program} {verb} --help{dash}")
    given = {
        setting: sources.get(option)
        for option, setting in (
            ("endpoints", "endpoints"), ("timeout", "timeout_ms"), ("consistency", "consistency"),
        )
        if option in sources.given
    }  # fmt: skip
    if "timeout_ms" in given:
        given["patience_ms"] = given["timeout_ms"]
    elif verb.startswith("member "):
        given["timeout_ms"] = CHANGE_TIMEOUT_MS
    return RunVerb(
        verb,
        operands,
        as_json="--json" in flags.switches,
        as_learner="--learner" in flags.switches,
        warnings=tuple(unknown_variables(environ)),
        **given,
    )
