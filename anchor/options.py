"""The table of options, and how they are read from flags, environment and file.

Reading never stops at a mistake: it collects them, so that all are told at once. Each reader
yields :class:`Given` values and appends to a list of problems, each problem one line that names
the flag, variable or key at fault. Nothing here touches sockets, threads or logging: this runs
before gevent patches them.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from anchor import crash, values
from anchor.settings import MAX_VALUE_BYTES_LIMIT
from anchor.values import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can be told: ``--name``, ``ANCHOR_NAME``, ``name`` in the file.

    ``accepts`` says which TOML types besides a string are meant: "number", "list", "switch" (a
    boolean) or neither. A switch needs no value as a flag.
    """

    name: str
    metavar: str
    parse: Callable[[str], object]
    group: str
    help: str
    accepts: str = "text"

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone, without a value."""
        return self.accepts == "switch"

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """The option in the environment."""
        return "ANCHOR_" + self.name.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class Given:
    """A value somebody gave, and in which words: ``label`` names the source for messages.

    The value is None where it could not be used; that has been said already.
    """

    value: object
    label: str


_NODE, _NETWORK, _TIMING, _OTHER = "A node", "Network", "Timing and limits", "Logs and files"

NODE_OPTIONS: tuple[Option, ...] = (
    Option("id", "NAME", values.node_id, _NODE, "this node's name, unique in its cluster"),
    Option("port", "PORT", values.port, _NODE,
           "for the other nodes (default 7001)", "number"),
    Option("http-port", "PORT", values.port, _NODE,
           "for clients: HTTP (default: --port plus 1000)", "number"),
    Option("dir", "PATH", values.directory, _NODE,
           "where the data lives (default ./data/NAME)"),
    Option("peers", "HOST:PORT,...", values.addresses, _NODE,
           "nodes of the cluster to join; leave out on the very first node", "list"),
    Option("bootstrap-expect", "N", values.whole_number(2, 9), _NODE,
           "found one cluster together: wait until the N nodes that --peers names are there",
           "number"),
    Option("learner", "", values.yes_or_no, _NODE,
           "join without a vote, and stay so", "switch"),
    Option("replace", "", values.yes_or_no, _NODE,
           "take the place of the member of this --id, whose data is lost", "switch"),
    Option("cluster", "N", values.whole_number(2, 9), _NODE,
           "run N nodes at once on this machine, 2 to 9, to try things out", "number"),
    Option("host", "HOST", values.host, _NETWORK,
           "the interface to listen on (default 127.0.0.1)"),
    Option("advertise", "HOST[:PORT]", values.advertised, _NETWORK,
           "the address other nodes dial (default: --host and --port; needed with 0.0.0.0 or ::)"),
    Option("http-advertise", "HOST[:PORT]", values.advertised, _NETWORK,
           "the address clients are told (default: --advertise's host and --http-port)"),
    Option("election-timeout", "TIME", values.milliseconds(50, 600_000), _TIMING,
           "silence after which a new leader is sought (default 1s); the same on all nodes",
           "number"),
    Option("heartbeat", "TIME", values.milliseconds(10, 60_000), _TIMING,
           "how often the leader makes itself heard (default 100ms)", "number"),
    Option("request-timeout", "TIME", values.milliseconds(10, 600_000), _TIMING,
           "how long a client's request may wait, for a leader too (default 5s)", "number"),
    Option("max-value-bytes", "SIZE", values.byte_count(1, MAX_VALUE_BYTES_LIMIT), _TIMING,
           "the largest value taken (default 1MiB, at most 3MiB)", "number"),
    Option("max-sessions", "N", values.whole_number(1, 100_000), _TIMING,
           "sessions of clients; over it the one unused for longest ends (default 10000)",
           "number"),
    Option("snapshot-entries", "N", values.whole_number(10, 100_000_000), _TIMING,
           "entries of log after which a snapshot takes their place (default 10000)", "number"),
    Option("snapshot-bytes", "SIZE", values.byte_count(64 << 10, 1 << 40), _TIMING,
           "bytes of log after which a snapshot takes their place (default 64MiB)", "number"),
    Option("snapshot-rate", "SIZE", values.byte_rate(128 << 10, 1 << 40), _TIMING,
           "bytes a second of snapshots sent to other nodes (default 0: no limit)", "number"),
    Option("quota-bytes", "SIZE", values.byte_count(0, 1 << 60), _TIMING,
           "how much the data may take; deletions go through beyond it (default 0: no limit)",
           "number"),
    Option("log-level", "LEVEL", values.one_of("debug", "info", "warning", "error"), _OTHER,
           "debug, info, warning or error (default info)"),
    Option("log-format", "FORMAT", values.one_of("auto", "text", "json"), _OTHER,
           "text, json or auto: text on a terminal, else json (default auto)"),
    Option("config", "FILE", values.directory, _OTHER,
           'read options from this TOML file: port = 9001, peers = ["a:9001"] ...'),
)  # fmt: skip

VERB_OPTIONS: tuple[Option, ...] = (
    Option("endpoints", "HOST:PORT,...", values.endpoints, "Verbs",
           "HTTP addresses of nodes, tried in turn (default localhost:8001)", "list"),
    Option("timeout", "TIME", values.milliseconds(10, 3_600_000, plain_unit_ms=1000), "Verbs",
           "how long to try, like 500ms or 3s; a plain number is seconds (default 10s; 35s for "
           "changes of the members)"),
    Option("consistency", "LEVEL", values.one_of("linearizable", "lease", "stale"), "Verbs",
           "of get: linearizable, lease or stale (default linearizable)"),
)  # fmt: skip

# Of recover, beside --dir. They stand on the command line alone: no variable recovers a node.
OFFLINE_OPTIONS: tuple[Option, ...] = (
    Option("members", "ID=HOST:PORT,...", values.members, "Recovery",
           "of recover: all voters there shall be, this node among them; usually it alone",
           "list"),
)  # fmt: skip
OFFLINE_SWITCHES = ("--show", "--yes")

# Set by ``--cluster`` for its children (see anchor.cluster); not for people, and no mistake.
SUPERVISED_VARIABLE = "ANCHOR_SUPERVISED"


@dataclass(frozen=True, slots=True)
class Flags:
    """A command line taken apart: options, switches (flags without a value), the rest."""

    options: dict[str, Given]
    switches: frozenset[str]
    positionals: tuple[str, ...]
    unknown: tuple[str, ...] = ()


def read_flags(
    arguments: Sequence[str],
    options: Iterable[Option],
    switches: Iterable[str],
    problems: list[str],
    elsewhere: Mapping[str, str] = MappingProxyType({}),
) -> Flags:
    """Take a command line apart. A list may be given piecemeal, anything else once.

    ``elsewhere`` says of flags that are none here where they belong.
    """
    table = {option.flag: option for option in options}
    words = _sort_words(arguments, table, frozenset(switches))
    problems += [
        f"{name}: {elsewhere[name]}"
        if name in elsewhere
        else f"{printable(name, 60)}: no such flag{_did_you_mean(name, words.known)}"
        for name in words.unknown
    ]
    given: dict[str, Given] = {}
    for flag, texts in words.texts.items():
        option = table[flag]
        if not texts:
            problems.append(f"{flag}: needs a value: {flag} {option.metavar}")
            given[option.name] = Given(None, flag)
            continue
        if len(texts) > 1 and option.accepts != "list":
            problems.append(f"{flag}: given {len(texts)} times; give it once")
        text = ",".join(texts) if option.accepts == "list" else texts[-1]
        _accept(given, option, text, f"{flag} {_quoted(text)}", problems)
    unknown = tuple(name for name in words.unknown if name not in elsewhere)
    return Flags(given, frozenset(words.switches), tuple(words.positionals), unknown)


@dataclass(slots=True)
class _Words:
    """The words of a command line by what they are; flags with the texts given to each."""

    known: list[str]
    texts: dict[str, list[str]] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    positionals: list[str] = field(default_factory=list)


def _sort_words(
    arguments: Sequence[str], table: Mapping[str, Option], switches: frozenset[str]
) -> _Words:
    words = _Words([*table, *switches])
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, text = argument.partition("=")
        next_is_text = bool(rest) and not rest[0].startswith("--")
        if argument == "--":
            words.positionals += rest
            break
        if argument in switches:
            words.switches.add(argument)
        elif name in table:
            texts = words.texts.setdefault(name, [])
            if equals:
                texts.append(text)
            elif table[name].is_switch:
                texts.append("yes")
            elif next_is_text:
                texts.append(rest.pop(0))
        elif argument.startswith("-") and argument != "-":
            words.unknown.append(name)
            if not equals and next_is_text:
                rest.pop(0)  # its value, it seems: not worth a second complaint
        else:
            words.positionals.append(argument)
    return words


def read_environment(
    environ: Mapping[str, str],
    options: Iterable[Option],
    problems: list[str],
) -> dict[str, Given]:
    """Read the ``ANCHOR_*`` variables. An empty one counts as not set."""
    given: dict[str, Given] = {}
    for option in options:
        if text := environ.get(option.variable, ""):
            label = f"{option.variable}={printable(text, 80)}"
            _accept(given, option, text, label, problems)
    return given


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Warnings about ``ANCHOR_*`` variables that mean nothing, perhaps misspelt."""
    known = [option.variable for option in (*NODE_OPTIONS, *VERB_OPTIONS)]
    ours = {*known, SUPERVISED_VARIABLE, crash.VARIABLE}
    warnings = [
        f"{printable(name, 60)}: no such variable, ignored{_did_you_mean(name, known)}"
        for name in sorted(environ)
        if name.startswith("ANCHOR_") and name not in ours
    ]
    if (complaint := crash.complaint(environ)) is not None:
        warnings.append(complaint)
    return warnings


def read_file(
    path: Path, options: Iterable[Option], problems: list[str]
) -> dict[str, Given] | None:
    """Read a TOML file: the flags' names as keys, with ``-`` or ``_``. None if it is unreadable."""
    shown = printable(str(path), 80)
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        problems.append(f"--config {shown}: cannot be read: {error.strerror or error}")
        return None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError too
        problems.append(f"--config {shown}: is not TOML: {printable(str(error), 200)}")
        return None
    known = {option.name: option for option in options if option.name != "config"}
    given: dict[str, Given] = {}
    for key, value in table.items():
        option = known.get(key.replace("_", "-"))
        where = f"{shown}: {printable(key, 60)}"
        if option is None:
            guess = _did_you_mean(key.replace("_", "-"), list(known))
            problems.append(f"{where}: no such setting{guess}")
        elif option.name in given:
            problems.append(f"{where}: given twice, with '-' and with '_'; give it once")
        elif (text := _toml_text(option, value)) is None:
            problems.append(f"{where}: must be {_TOML_TYPES[option.accepts]}")
        else:
            _accept(given, option, text, f"{where} = {_quoted(text)}", problems)
    return given


_TOML_TYPES = {
    "text": "a string",
    "number": "a number or a string",
    "list": "a list of strings or a string",
    "switch": "true or false",
}


def _toml_text(option: Option, value: object) -> str | None:
    """Give the value as it would stand on the command line; None if it is of another type."""
    if isinstance(value, str):
        return value
    if option.accepts == "number" and isinstance(value, int | float) and value is not True:
        return None if value is False else str(value)
    if option.is_switch:
        return {True: "yes", False: "no"}.get(value) if isinstance(value, bool) else None
    if option.accepts == "list" and isinstance(value, list):
        return ",".join(value) if all(isinstance(item, str) for item in value) else None
    return None


def _accept(
    given: dict[str, Given], option: Option, text: str, label: str, problems: list[str]
) -> None:
    try:
        given[option.name] = Given(option.parse(text), label)
    except ValueError as error:
        problems.append(f"{label}: {error}")
        given[option.name] = Given(None, label)


def _quoted(text: str) -> str:
    """Show text in a message as it may be typed; quotes only where they help the eye."""
    shown = printable(text, 80)
    return f"'{shown}'" if not shown or " " in shown else shown


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    import difflib  # noqa: PLC0415 - only mistakes pay for it

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
