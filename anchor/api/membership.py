"""``POST /join`` and ``POST /remove``: what their bodies must look like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from anchor.api.answers import Answer, bad_request, ok
from anchor.api.bodies import parse_object

if TYPE_CHECKING:
    from anchor.api.limits import Limits
    from anchor.api.store import Store

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.%]{2,64}\]):([0-9]{1,5})")


class MembershipChange(Protocol):
    """Something a body may ask for."""

    def __call__(self, body: bytes) -> Answer:
        """Do what the body says; raises a Problem or a NodeError."""


class Join:
    """Make a node a member of the cluster."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    def __call__(self, body: bytes) -> Answer:
        """Do what the body says; raises a Problem or a NodeError."""
        asked = parse_object(body, {"id": str, "addr": str, "http_addr": str, "voter": bool})
        self._store.join(
            _member_id(asked),
            _address(asked, "addr"),
            _address(asked, "http_addr") if "http_addr" in asked else "",
            voter=bool(asked.get("voter", True)),
            timeout_seconds=self._limits.membership_timeout,
        )
        return ok()


class Remove:
    """Let a member go."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    def __call__(self, body: bytes) -> Answer:
        """Do what the body says; raises a Problem or a NodeError."""
        asked = parse_object(body, {"id": str})
        self._store.remove(_member_id(asked), self._limits.membership_timeout)
        return ok()


def _member_id(asked: dict[str, object]) -> str:
    member_id = _text(asked, "id")
    if not _ID.fullmatch(member_id):
        raise bad_request('the field "id" is not 1 to 64 letters, digits, dots, dashes or _')
    return member_id


def _address(asked: dict[str, object], name: str) -> str:
    address = _text(asked, name)
    parsed = _ADDRESS.fullmatch(address)
    if parsed is None or not 0 < int(parsed[1]) < 65536:
        raise bad_request(f'the field "{name}" is not host:port')
    return address


def _text(asked: dict[str, object], name: str) -> str:
    text = asked.get(name)
    if not isinstance(text, str):
        raise bad_request(f'the field "{name}" is missing')
    return text
