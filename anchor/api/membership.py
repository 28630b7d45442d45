"""Changes of the members and the leader: what their bodies must look like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from anchor.api.answers import Answer, bad_request, json_answer, ok
from anchor.api.bodies import check_object, parse, parse_object
from anchor.node.replacing import TargetMember

if TYPE_CHECKING:
    from anchor.api.limits import Limits
    from anchor.api.store import Membership

_MEMBER = {"id": str, "addr": str, "http_addr": str, "voter": bool}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.%]{2,64}\]):([0-9]{1,5})")


class MembershipChange(Protocol):
    """Something a body may ask for."""

    def __call__(self, body: bytes) -> Answer:
        """Do what the body says; raises a Problem or a NodeError."""


class Join:
    """Make a node a member of the cluster."""

    def __init__(self, membership: Membership, limits: Limits) -> None:
        self._membership = membership
        self._limits = limits

    def __call__(self, body: bytes) -> Answer:
        """Do what the body says; raises a Problem or a NodeError."""
        member = _member(parse_object(body, _MEMBER))
        self._membership.admit(
            member.id,
            member.address,
            member.http_address,
            voter=member.voter,
            timeout_seconds=self._limits.membership_timeout,
        )
        return ok()


class Remove:
    """Let a member go."""

    def __init__(self, membership: Membership, limits: Limits) -> None:
        self._membership = membership
        self._limits = limits

    def __call__(self, body: bytes) -> Answer:
        """Do what the body says; raises a Problem or a NodeError."""
        asked = parse_object(body, {"id": str})
        self._membership.expel(_member_id(asked), self._limits.membership_timeout)
        return ok()


class Replacement:
    """Make the members those of a list: ``[{…}, …]`` or ``{"members": […], "force": …}``."""

    def __init__(self, membership: Membership, limits: Limits) -> None:
        self._membership = membership
        self._limits = limits

    def __call__(self, body: bytes) -> Answer:
        """Do what the body says; raises a Problem or a NodeError."""
        parsed = parse(body)
        if isinstance(parsed, list):
            parsed = {"members": parsed}
        asked = check_object(parsed, {"members": list, "force": bool}, "the body")
        members = asked.get("members")
        targets = _members(members if isinstance(members, list) else [])
        self._membership.replace_members(
            targets,
            force=bool(asked.get("force", False)),
            timeout_seconds=self._limits.membership_timeout,
        )
        return ok()


class Promotion:
    """Give a member a vote."""

    def __init__(self, membership: Membership, limits: Limits) -> None:
        self._membership = membership
        self._limits = limits

    def __call__(self, member_id: str, body: bytes) -> Answer:
        """Promote it; raises a Problem or a NodeError. The body says nothing."""
        if body:
            parse_object(body, {})
        self._membership.promote(_member_id({"id": member_id}), self._limits.membership_timeout)
        return ok()


class Transfer:
    """Let another member lead."""

    def __init__(self, membership: Membership, limits: Limits) -> None:
        self._membership = membership
        self._limits = limits

    def __call__(self, body: bytes) -> Answer:
        """Do what the body says, and say who leads then; raises a Problem or a NodeError."""
        asked = parse_object(body, {"id": str}) if body else {}
        member_id = _member_id(asked) if asked else ""
        self._membership.transfer_leadership(member_id, self._limits.membership_timeout)
        return json_answer(self._membership.leader())


def _members(listed: list[object]) -> list[TargetMember]:
    targets = [_member(check_object(each, _MEMBER, "a member")) for each in listed]
    for name, values in (
        ("id", [target.id for target in targets]),
        ("addr", [target.address for target in targets]),
    ):
        if len(set(values)) < len(values):
            raise bad_request(f'two members have the same "{name}"')
    if not any(target.voter for target in targets):
        raise bad_request('the field "members" names no voter')
    return targets


def _member(asked: dict[str, object]) -> TargetMember:
    return TargetMember(
        _member_id(asked),
        _address(asked, "addr"),
        _address(asked, "http_addr") if "http_addr" in asked else "",
        voter=bool(asked.get("voter", True)),
    )


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
