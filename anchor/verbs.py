"""The verbs: talking to a cluster from a shell.

Results go to standard output, everything else to standard error in one line. The exit code says
what happened, so that scripts need not read.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from anchor.client import Client, ClientError, CommitUnknown, NoLeader, Refused, Unreachable
from anchor.settings import MAX_VALUE_BYTES_LIMIT
from anchor.values import printable

if TYPE_CHECKING:
    from anchor.plan import RunVerb

OK, ERROR, USAGE, NOT_FOUND, NO_LEADER, UNREACHABLE = 0, 1, 2, 3, 5, 7

LAST_QUESTION_SECONDS = 1.0
"""After a call that had no answer in time: to learn whether a leader is what was missing."""

Row = Sequence[object]


def run(plan: RunVerb) -> int:
    """Do what the verb says and return the exit code."""
    verbs: Mapping[str, Callable[[Client, RunVerb], int]] = {
        "get": _get, "put": _put, "del": _delete, "status": _status, "members": _members,
        "member add": _add, "member remove": _remove, "member promote": _promote,
        "leader": _leader, "leader transfer": _transfer,
    }  # fmt: skip
    subject = " ".join((plan.verb, *plan.operands[:1]))
    look = "the key" if plan.verb in {"put", "del"} else "the members"
    timeout, patience = plan.timeout_ms / 1000, plan.patience_ms / 1000
    with Client(plan.endpoints, timeout=timeout, patience=patience, sessions=False) as client:
        try:
            return verbs[plan.verb](client, plan)
        except NoLeader as error:
            return _fail(subject, f"no leader: {error}", NO_LEADER)
        except Unreachable as error:
            if _is_leaderless(client):
                # The node was still waiting for one when our patience ended.
                return _fail(subject, f"no leader: {error}", NO_LEADER)
            return _fail(subject, f"unreachable: {error}", UNREACHABLE)
        except CommitUnknown as error:
            return _fail(subject, f"outcome unknown: {error}; read {look} to see", ERROR)
        except Refused as error:
            code = NOT_FOUND if error.status == 404 else ERROR
            return _fail(subject, f"refused: {error}", code)


def _is_leaderless(client: Client) -> bool:
    """Whether nodes answer, and none of them knows a leader."""
    statuses = _statuses(client, min(client.timeout, LAST_QUESTION_SECONDS)).values()
    known = [status for status in statuses if isinstance(status, dict)]
    return bool(known) and not any(status.get("leader_id") for status in known)


def _statuses(
    client: Client, timeout: float | None = None
) -> dict[str, dict[str, Any] | ClientError]:
    """Ask all endpoints at once, so that a dead one costs its timeout only once."""

    def ask(endpoint: str) -> dict[str, Any] | ClientError:
        try:
            return client.status(endpoint, timeout=timeout)
        except ClientError as error:
            return error

    with ThreadPoolExecutor(len(client.endpoints)) as pool:
        return dict(zip(client.endpoints, pool.map(ask, client.endpoints), strict=True))


def _get(client: Client, plan: RunVerb) -> int:
    value = client.get(os.fsencode(plan.operands[0]), consistency=plan.consistency)
    if value is None:
        return _fail(f"get {plan.operands[0]}", "not found", NOT_FOUND)
    _write(value + b"\n" if sys.stdout.isatty() else value)
    return OK


def _put(client: Client, plan: RunVerb) -> int:
    if len(plan.operands) == 2 and plan.operands[1] != "-":
        value = os.fsencode(plan.operands[1])
    elif len(plan.operands) == 1 and sys.stdin.isatty():
        return _fail("put", "give a VALUE, or '-' to type it and end with Ctrl-D", USAGE)
    else:
        value = sys.stdin.buffer.read(MAX_VALUE_BYTES_LIMIT + 1)
        if len(value) > MAX_VALUE_BYTES_LIMIT:
            return _fail("put", "the value is over 3 MiB, more than any node takes", ERROR)
    client.put(os.fsencode(plan.operands[0]), value)
    _write(b"OK\n")
    return OK


def _delete(client: Client, plan: RunVerb) -> int:
    client.delete(os.fsencode(plan.operands[0]))
    _write(b"OK\n")
    return OK


def _status(client: Client, plan: RunVerb) -> int:
    answers = _statuses(client)
    if plan.as_json:
        shown = {
            endpoint: {"error": str(answer)} if isinstance(answer, ClientError) else answer
            for endpoint, answer in answers.items()
        }
        _write(json.dumps(shown, indent=2).encode() + b"\n")
    else:
        rows = [_status_row(endpoint, answer) for endpoint, answer in answers.items()]
        _write(table(_STATUS_HEADINGS, rows).encode())
    errors = [answer for answer in answers.values() if isinstance(answer, ClientError)]
    if errors:
        return UNREACHABLE if any(isinstance(error, Unreachable) for error in errors) else ERROR
    known = any(isinstance(answer, dict) and answer.get("leader_id") for answer in answers.values())
    return OK if known else NO_LEADER


_STATUS_HEADINGS = ("ENDPOINT", "NODE", "ROLE", "LEADER", "TERM", "COMMIT", "APPLIED", "MEMBERS")


def _status_row(endpoint: str, answer: dict[str, Any] | ClientError) -> Row:
    if isinstance(answer, ClientError):
        return (endpoint, str(answer).removeprefix(f"{endpoint}: ").removeprefix(f"{endpoint} "))
    peers = answer.get("peers")
    ids = {peer.get("id") for peer in peers} if isinstance(peers, list) else set()
    ids.add(answer.get("node_id"))
    return (
        endpoint, answer.get("node_id"), answer.get("role"), answer.get("leader_id"),
        answer.get("term"), answer.get("commit_index"), answer.get("applied_index"), len(ids),
    )  # fmt: skip


def _members(client: Client, plan: RunVerb) -> int:
    members = client.members()
    if plan.as_json:
        _write(json.dumps(members, indent=2).encode() + b"\n")
        return _members_code(members)
    rows = [
        (
            member.get("id"),
            member.get("role"),
            {True: "yes", False: "no"}.get(member.get("connected")),  # type: ignore[arg-type]
            member.get("match_index"),
            member.get("lag"),
            member.get("address"),
            member.get("http_address"),
        )
        for member in members
    ]
    headings = ("ID", "ROLE", "CONNECTED", "MATCH", "LAG", "ADDRESS", "HTTP")
    _write(table(*_without_unknown(headings, rows)).encode())
    return _members_code(members)


def _members_code(members: Sequence[Mapping[str, Any]]) -> int:
    """Only a leader knows the members for sure: say where none was seen."""
    if any(member.get("role") == "leader" for member in members):
        return OK
    return _fail("members", "no leader: this is what one node last knew", NO_LEADER)


def _add(client: Client, plan: RunVerb) -> int:
    client.join(plan.operands[0], plan.operands[1], voter=not plan.as_learner)
    _write(b"OK\n")
    return OK


def _remove(client: Client, plan: RunVerb) -> int:
    client.remove(plan.operands[0])
    _write(b"OK\n")
    return OK


def _promote(client: Client, plan: RunVerb) -> int:
    client.promote(plan.operands[0])
    _write(b"OK\n")
    return OK


def _leader(client: Client, plan: RunVerb) -> int:
    return _show_leader(client.leader(), plan)


def _transfer(client: Client, plan: RunVerb) -> int:
    return _show_leader(client.transfer_leadership(*plan.operands), plan)


def _show_leader(leader: Mapping[str, Any], plan: RunVerb) -> int:
    if plan.as_json:
        _write(json.dumps(leader, indent=2).encode() + b"\n")
    else:
        row = (leader.get("leader_id"), leader.get("http_address"), leader.get("term"))
        _write(table(("LEADER", "HTTP", "TERM"), [row]).encode())
    return OK


def _without_unknown(headings: Sequence[str], rows: Sequence[Row]) -> tuple[list[str], list[Row]]:
    """Leave out the columns that nobody knows anything for."""
    known = [at for at in range(len(headings)) if any(row[at] is not None for row in rows)]
    return [headings[at] for at in known], [[row[at] for at in known] for row in rows]


def table(headings: Sequence[str], rows: Sequence[Row]) -> str:
    """Lay out rows under headings; what is unknown is a dash. A short row's last cell runs on."""
    texts = [
        ["-" if cell is None or cell == "" else printable(str(cell)) for cell in row]
        for row in rows
    ]
    whole = [list(headings), *(row for row in texts if len(row) == len(headings))]
    short = [row[:-1] for row in texts if len(row) < len(headings)]
    widths = [
        max(len(row[at]) for row in (*whole, *short) if at < len(row))
        for at in range(len(headings))
    ]
    return "".join(
        "  ".join(f"{cell:<{widths[at]}}" for at, cell in enumerate(row)).rstrip() + "\n"
        for row in (headings, *texts)
    )


def _write(output: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


def _fail(subject: str, why: str, code: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(f"anchor: {printable(subject, 120)}: {printable(why, 300)}", file=sys.stderr)
    return code
