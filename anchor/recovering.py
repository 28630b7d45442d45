"""The verb ``recover``: shows what a stopped node has, asks, and goes on with that.

What it does to the directory, and why that is safe, is in :mod:`anchor.storage.recovery`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
import uuid
from typing import TYPE_CHECKING

from anchor.storage import StorageError
from anchor.storage.recovery import examine, mistakes_in, recover
from anchor.usage import WIDTH
from anchor.values import printable
from anchor.verbs import table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anchor.plan import RunRecover
    from anchor.storage.recovery import Remains

OK, ERROR, USAGE = 0, 1, 2


def run(plan: RunRecover) -> int:
    """Do it and return the exit code."""
    os.umask(0o077)
    try:
        remains = examine(plan.directory)
        if plan.show:
            print(_as_json(remains) if plan.as_json else _described(remains), flush=True)
            return OK
        if mistakes := mistakes_in(remains, plan.members):
            return _fail(USAGE, (f"--members: {mistake}" for mistake in mistakes))
        if not plan.confirmed and not sys.stdin.isatty():
            return _fail(USAGE, ["it asks before it does anything: give --yes without a terminal"])
        print(_described(remains), _warning(remains, plan), sep="\n\n", flush=True)
        if not plan.confirmed and not _is_confirmed(remains):
            return _fail(ERROR, ["not confirmed; nothing was changed"])
        after = recover(remains, plan.members, uuid.uuid4().hex)
    except StorageError as error:
        return _fail(ERROR, [str(error)])
    print("\n" + _what_now(after), flush=True)
    return OK


def _is_confirmed(remains: Remains) -> bool:
    node_id = remains.identity.node_id
    try:
        return input(f"\nType {node_id} to go on: ").strip() == node_id
    except EOFError:
        return False


def _as_json(remains: Remains) -> str:
    configuration = remains.configuration
    fields = {
        "directory": str(remains.path),
        "node_id": remains.identity.node_id,
        "cluster_id": remains.identity.cluster_id,
        "term": remains.term,
        "last_log_term": remains.last_term,
        "last_log_index": remains.last_index,
        "first_log_index": remains.first_index,
        "applied_index": remains.applied_index,
        "configuration_index": remains.configuration_index,
        "members": [
            {"id": member.id, "address": member.address, "role": _role(remains, member.id)}
            for _, member in sorted(configuration.members.items())
        ],
    }
    return json.dumps(fields, indent=2)


def _role(remains: Remains, member_id: str) -> str:
    configuration = remains.configuration
    if member_id in configuration.learners:
        return "learner"
    return "voter" if member_id in configuration.voters else "leaving"


def _described(remains: Remains) -> str:
    identity = remains.identity
    members = [
        (
            member.id,
            member.address,
            _role(remains, member.id),
            "this node" if member.id == identity.node_id else "",
        )
        for _, member in sorted(remains.configuration.members.items())
    ]
    certain = f"to {remains.applied_index} for certain"
    return "\n".join(
        (
            printable(f"{identity.node_id} of cluster {identity.cluster_id}, in {remains.path}"),
            "",
            table(
                ("LAST TERM", "LAST INDEX", "COMMITTED", "CURRENT TERM"),
                [(remains.last_term, remains.last_index, certain, remains.term)],
            ),
            table(("MEMBER", "ADDRESS", "PART", ""), members).rstrip(),
        )
    )


def _warning(remains: Remains, plan: RunRecover) -> str:
    """What will be done, and what may be lost by it."""
    index, term, certain = remains.last_index, remains.last_term, remains.applied_index
    out = sorted(remains.configuration.members.keys() - plan.members.keys())
    those = f"{_listed(out)} are out" if len(out) > 1 else f"{_listed(out)} is out"
    lines = [
        "From now on the members are " + _listed(f"{i} at {a}" for i, a in plan.members.items())
        if len(plan.members) > 1
        else f"From now on {remains.identity.node_id} is the only member, of a new cluster.",
        (
            f"LOST is every write after entry {index} of term {term}: others may hold more, and "
            "some of it may have been answered OK. Look at each node that is left with --show; "
            "take the one with the highest last term, of those the one with the highest last index."
        ),
    ]
    if index > certain:
        lines.append(
            f"Entries {certain + 1} to {index} may never have been committed. They will be now."
        )
    if out and len(plan.members) > 1:
        lines.append(
            f"{those}, and must NEVER be started again with the data they have: wipe them. "
            "Recover none of the other members: they follow this one."
        )
    elif out:
        lines.append(
            f"{those}: they cannot get into the new cluster with the data they have. Wipe them, "
            "then let them join."
        )
    return "\n".join(textwrap.fill(line, WIDTH, break_long_words=False) for line in lines)


def _what_now(after: Remains) -> str:
    members = after.configuration.members
    own = members[after.identity.node_id]
    return textwrap.fill(
        f"Done: {_listed(sorted(members))} in cluster {after.identity.cluster_id}, "
        f"by entry {after.last_index} of term {after.last_term}. "
        f"Start {own.id} so that others reach it at {own.address}.",
        WIDTH,
        break_long_words=False,
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _fail(code: int, lines: Iterable[str]) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in lines:
            print(f"anchor: recover: {printable(line, 500)}", file=sys.stderr)
    return code
