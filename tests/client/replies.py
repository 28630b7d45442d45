"""What goes in and out of a fake node."""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    target: str
    body: bytes
    headers: dict[str, str]
    connection: int  # which connection it came by, counted from 0


@dataclass(frozen=True)
class Reply:
    """What to answer."""

    status: int = 200
    body: bytes = b"OK"
    headers: dict[str, str] = field(default_factory=dict)


def problem(status: int, code: str, *, retryable: bool = False, detail: str = "why") -> Reply:
    """An error as nodes write it (RFC 9457)."""
    body = {"title": "t", "status": status, "detail": detail, "code": code, "retryable": retryable}
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/problem+json"})


def json_reply(value: object, status: int = 200) -> Reply:
    """A JSON answer."""
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})
