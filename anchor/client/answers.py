"""What an answer means: a result, a refusal, or that another try may do better.

A problem's ``code`` decides (RFC 9457, and the table in the README). For a write the question is
always the same: did this try certainly do nothing, or is its fate open?
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from anchor.client.connections import Resending
from anchor.client.errors import ClientError, CommitUnknown, NoLeader, Refused, Unreachable

if TYPE_CHECKING:
    from anchor.client.connections import Answer, Request

NOTHING_DONE = frozenset({"no_leader", "overloaded", "stopping", "request_timeout"})
"""The codes by which a node says that a request had no effect and may be sent again."""

NOT_HERE = frozenset({"removed", "disk_full"})
"""This node will not do it, and another one may."""

UPGRADING = "upgrade_in_progress"
"""Not all members know sessions, keys and conditions, or this node has not heard yet that they do.
A write that is recognized waits for that: it was found out before that they do."""

SESSION_LOST = frozenset(
    {
        "sequence_forgotten",
        "sequence_gap",
        "sequence_reused",
        "session_expired",
        "session_foreign",
        "session_unknown",
    }
)
"""This session is of no use to this write, and this try did nothing."""

_FAILED = (412, "precondition_failed")
_RESULTS = {"GET": {(404, "not_found")}, "PUT": {_FAILED}, "DELETE": {_FAILED}}

_JSON_BYTES_MAX = 1 << 20
_ETAG = re.compile(r'(?:W/)?"([1-9][0-9]{0,18})"')


class TryAgain(Exception):  # noqa: N818 - a turn of events, not an error
    """This try settled nothing; ``error`` stands if it was the last.

    ``connected`` is False where nobody was there to answer, ``fate_open`` is True where a write
    may have been done, and ``elsewhere`` is True where this endpoint would only say it again.
    """

    def __init__(
        self,
        error: ClientError,
        *,
        connected: bool = True,
        fate_open: bool = False,
        elsewhere: bool = False,
    ) -> None:
        self.error = error
        self.connected = connected
        self.fate_open = fate_open
        self.elsewhere = elsewhere


class SessionLost(Exception):  # noqa: N818 - a turn of events, not an error
    """This try did nothing, because its session is of no use to it; ``error`` says why."""

    def __init__(self, error: Refused) -> None:
        self.error = error


def more_telling(last: ClientError | None, now: ClientError) -> ClientError:
    """Choose what to report at the end: that one endpoint is down says less than an answer."""
    return last if last is not None and isinstance(now, Unreachable) else now


def judge(request: Request, answer: Answer) -> Answer:
    """Return what settles the request, be it 404 or 412; else raise what the answer means.

    Raises:
        Refused: it is settled, and nothing was done.
        TryAgain, SessionLost: it is not settled.

    """
    if 200 <= answer.status < 300:
        return answer
    problem = _problem(answer)
    code = str(problem.get("code") or "")
    if request.path.startswith("/kv/") and (answer.status, code) in _RESULTS[request.method]:
        return answer
    detail = str(problem.get("detail") or problem.get("title") or "")
    refused = Refused(code or f"http_{answer.status}", detail, answer.status)
    if code in SESSION_LOST and request.resending is Resending.RECOGNIZED:
        raise SessionLost(refused)
    waits = code == UPGRADING and request.resending is Resending.RECOGNIZED
    if code in NOTHING_DONE or waits:
        no_leader = code == "no_leader"
        raise TryAgain(NoLeader(detail or "the cluster has no leader") if no_leader else refused)
    if code in NOT_HERE or code == UPGRADING:
        raise TryAgain(refused, elsewhere=True)
    if request.resending is not Resending.HARMLESS:
        if _leaves_fate_open(answer, code):
            raise TryAgain(CommitUnknown(_open_fate(answer, code, detail)), fate_open=True)
    elif code == "commit_unknown":  # to open a session, say: nothing that matters was done
        raise TryAgain(NoLeader(detail))
    elif problem.get("retryable", answer.status in {502, 503, 504}):
        raise TryAgain(refused)
    raise refused


def _leaves_fate_open(answer: Answer, code: str) -> bool:
    """Whether the node cannot know, or it is not a node of ours: then nobody knows."""
    return code in {"commit_unknown", "internal"} or (answer.status >= 500 and not code)


def _open_fate(answer: Answer, code: str, detail: str) -> str:
    if code == "commit_unknown":
        return detail or "the write may have happened"
    return f"answered {answer.status} {code}".rstrip() + "; the write may have happened"


def _problem(answer: Answer) -> dict[str, Any]:
    """Read the problem (RFC 9457) in an answer; empty where there is none."""
    if len(answer.body) > _JSON_BYTES_MAX or "json" not in answer.headers.get("Content-Type", ""):
        return {}
    try:
        problem = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def json_object(answer: Answer) -> dict[str, Any]:
    """Read the JSON object that an answer is; raises Refused ``not_anchor``."""
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise not_anchor(answer)
    return value


def mod_index_of(answer: Answer) -> int | None:
    """Read the ETag: the index of the last write to the key."""
    found = _ETAG.fullmatch(answer.headers.get("ETag", ""))
    return int(found[1]) if found else None


def not_anchor(answer: Answer) -> Refused:
    """Say that a node would not answer like this."""
    detail = "the answer is not anchor's; is this the HTTP port?"
    return Refused("not_anchor", detail, answer.status)
