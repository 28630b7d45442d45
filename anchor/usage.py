"""The help texts: what a newcomer reads first."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anchor.options import NODE_OPTIONS, OFFLINE_OPTIONS, VERB_OPTIONS, Option

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb: how it is written, how many operands it takes, what it does."""

    synopsis: str
    operands: tuple[int, int]
    summary: str
    details: str = ""
    switches: tuple[str, ...] = ()


VERBS = {
    "get": Verb(
        "get KEY", (1, 1), "print a value",
        "The value's bytes go to standard output as they are; on a terminal a newline follows.",
    ),
    "put": Verb(
        "put KEY [VALUE]", (1, 2), "store a value",
        "Without VALUE, or with '-', the value is read from standard input.",
    ),
    "del": Verb("del KEY", (1, 1), "delete a key", "A key that was not there is fine."),
    "status": Verb(
        "status", (0, 0), "ask every endpoint how it is",
        "One row for each endpoint. Exit code 7 if one could not be reached, 5 if none knows a "
        "leader.",
    ),
    "members": Verb(
        "members", (0, 0), "list the cluster's members as its leader sees them",
        "Exit code 5 if there is no leader: the list is then what one node last knew.",
    ),
    "member add": Verb(
        "member add ID ADDR", (2, 2), "let the node at ADDR in",
        "The node has to run at HOST:PORT under this --id. Returns once it is a voter and has "
        "caught up; with --learner it gets all data and no vote. Asking again does no harm.",
        ("--learner",),
    ),
    "member remove": Verb(
        "member remove ID", (1, 1), "let a member go",
        "Refused if too few of the others can be reached. One that is out already is fine.",
    ),
    "member promote": Verb(
        "member promote ID", (1, 1), "give a learner a vote",
        "Returns once it has caught up and votes. Exit code 3 if there is no such member.",
    ),
    "leader": Verb("leader", (0, 0), "print who leads"),
    "leader transfer": Verb(
        "leader transfer [ID]", (0, 1), "let another node lead",
        "Without ID, the voter whose log is furthest. Returns once it leads.",
    ),
}  # fmt: skip

# The verbs that work on files rather than on a cluster, or on both.
OFFLINE_VERBS = {
    "snapshot": Verb(
        "snapshot save|info|restore FILE", (2, 2), "back up all data, and restore it",
    ),
    "recover": Verb(
        "recover --dir PATH --members ID=HOST:PORT", (0, 0),
        "go on with what one node has, when the quorum is lost for good",
    ),
}  # fmt: skip

WITH_JSON = {"status", "members", "leader"}

WIDTH = 80
_LEFT = 28

_EXIT_CODES = "Exit codes: 0 done, 1 error, 2 usage, 3 not found, 5 no leader, 7 unreachable."

_OVERVIEW = """\
anchor: a small, strongly consistent key-value store on Raft, in one file.

Try it: three nodes on this machine, stopped by Ctrl-C, data kept in ./data
  {program} --cluster 3

Run it: node by node, the first one without --peers
  {program} --id node1 --port 9001 --http-port 8001
  {program} --id node2 --port 9002 --http-port 8002 \\
    --peers localhost:9001
On machines of their own, each also says where the others reach it:
    --host 0.0.0.0 --advertise node1.example

Use it: any node takes any request
  curl -X POST http://localhost:8001/kv/mykey -d 'myvalue'
  curl http://localhost:8002/kv/mykey
  {program} get mykey

Verbs, each with a --help of its own
{verbs}

{exit_codes}
"""

_EPILOGUE = """\
Every option can also stand in the environment (--http-port is ANCHOR_HTTP_PORT)
and, but for those of verbs, in a TOML file (http-port = 8001). Flags win over
the environment, and that over the file.
TIME is written 1500ms, 1.5s, 2m or 1500, which is milliseconds (of verbs: 3,
which is seconds).
SIZE is written 1MiB, 512KiB or 65536.
"""


def program_name(argv0: str) -> str:
    """Name this program as a person would type it, given ``sys.argv[0]``."""
    path = Path(argv0)
    if path.name in {"__main__.py", "-c", ""}:
        return "python -m anchor"
    if path.parent == Path() or str(path.parent) in os.environ.get("PATH", "").split(os.pathsep):
        return path.name
    here = Path.cwd()
    return f"./{path.relative_to(here)}" if path.is_relative_to(here) else str(path)


def overview(program: str) -> str:
    """Write ``--help``."""
    verbs = _columns((verb.synopsis, verb.summary) for verb in {**VERBS, **OFFLINE_VERBS}.values())
    parts = [_OVERVIEW.format(program=program, verbs=verbs, exit_codes=_EXIT_CODES)]
    groups = dict.fromkeys(option.group for option in (*NODE_OPTIONS, *VERB_OPTIONS))
    for group in groups:
        options = [o for o in (*NODE_OPTIONS, *VERB_OPTIONS) if o.group == group]
        title = "Options of verbs" if group == "Verbs" else group
        parts.append(f"{title}\n{_options(options)}\n")
    parts.append("  --version, --help\n")
    parts.append(_EPILOGUE)
    return "\n".join(parts).rstrip()


def of_verb(name: str, program: str) -> str:
    """Write the ``--help`` of one verb."""
    verb = VERBS[name]
    options = [o for o in VERB_OPTIONS if o.name != "consistency" or name == "get"]
    lines = [f"{program} {verb.synopsis} [options]: {verb.summary}"]
    if verb.details:
        lines += ["", textwrap.fill(verb.details, WIDTH)]
    lines += ["", "Options", _options(options)]
    if verb.switches:
        lines.append(_columns([("--learner", "without a vote, and it stays so")]))
    if name in WITH_JSON:
        lines.append(_columns([("--json", "print JSON instead of a table")]))
    lines += ["", "ANCHOR_ENDPOINTS and ANCHOR_TIMEOUT stand in for the flags.", _EXIT_CODES]
    return "\n".join(lines)


_OF_SNAPSHOT = """\
{program} snapshot save FILE [--endpoints HOST:PORT,...]
  saves all data of a cluster in a file
{program} snapshot info FILE [--json]
  checks a backup, and says what it is of
{program} snapshot restore FILE --id NAME [options of a node]
  makes a new cluster of it

save asks any node, while it serves. The backup is as of one moment, no older
than the question; --consistency stale is content with what that node has, which
needs no leader. It is checked while it arrives, and the file appears once it is
whole.
restore makes the data directory of a node that is the only member of a new
cluster, with a new id. Give it the options that the node will be started with:
its --id, --port, --http-port, --host, --advertise, and its --dir, which must be
empty. Then start the node without --peers, and let others join it from empty
directories.

Options of save
{options}

{exit_codes}"""

_OF_RECOVER = """\
{program} recover --dir PATH --show [--json]
  shows what a stopped node has
{program} recover --dir PATH --members ID=HOST:PORT,... [--yes]
  goes on with that

For when a majority of the voters has lost its disks, and only then: what they
had acknowledged without this node is lost. Look with --show on each node that
is left. Take the one whose last entry has the highest term, of those the one
with the highest index. It shows what may be lost and asks; --yes answers.

With one member, the node itself, a new cluster begins, with a new id: members
of the old one cannot get in. Wipe the directories of the others, and let them
join. With several, the others keep their data and follow; members left out must
never be started again. Recover only one node.
README.md has all of it step by step: "When the quorum is lost for good".

Options
{options}

{exit_codes}"""


def of_offline_verb(name: str, program: str) -> str:
    """Write the ``--help`` of a verb that works on files."""
    if name == "snapshot":
        options = _options(VERB_OPTIONS)
        return _OF_SNAPSHOT.format(program=program, options=options, exit_codes=_EXIT_CODES)
    directory = [option for option in NODE_OPTIONS if option.name == "dir"]
    switches = [
        ("--show", "only show what is there, and change nothing"),
        ("--json", "of --show: as JSON"),
        ("--yes", "do it without asking"),
    ]
    options = f"{_options([*directory, *OFFLINE_OPTIONS])}\n{_columns(switches)}"
    return _OF_RECOVER.format(program=program, options=options, exit_codes=_EXIT_CODES)


def hint(program: str, *, first_time: bool) -> str:
    """Say where to go from a mistake."""
    if first_time:
        return f"New here? Try three nodes: {program} --cluster 3\nAll options: {program} --help"
    return f"Try: {program} --help"


def _options(options: Iterable[Option]) -> str:
    return _columns((f"{option.flag} {option.metavar}".rstrip(), option.help) for option in options)


def _columns(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=f"  {left:<{_LEFT}}  ",
            subsequent_indent=" " * (_LEFT + 4),
            break_on_hyphens=False,
        )
        for left, text in rows
    )
