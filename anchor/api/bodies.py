"""Reading a body no further than it may go, and JSON no further than it makes sense."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn, Protocol

from anchor.api.answers import Problem, bad_request

if TYPE_CHECKING:
    from collections.abc import Mapping

PIECE_BYTES = 64 << 10
_DEEP = 64  # brackets; what is asked here has one pair


class Readable(Protocol):
    """A body on its way in; empty bytes mean its end. May raise a Problem."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""


def read_body(
    stream: Readable, declared_bytes: int | None, too_large: Problem, limit: int
) -> bytes:
    """Read a body whole, or raise ``too_large`` as soon as it is known to pass the limit.

    ``declared_bytes`` is its Content-Length, None where it comes in chunks.
    """
    if declared_bytes is not None and declared_bytes > limit:
        raise too_large
    body = bytearray()
    while piece := stream.read(PIECE_BYTES):
        body += piece
        if len(body) > limit:
            raise too_large
    if declared_bytes is not None and len(body) != declared_bytes:
        raise bad_request(f"the body ended after {len(body)} of {declared_bytes} bytes")
    return bytes(body)


def parse_object(body: bytes, fields: Mapping[str, type]) -> dict[str, object]:
    """Parse a JSON object that has no fields but these, of these types; float: any number.

    Raises a Problem that names what is wrong. That fields are missing is for the caller to see.
    """
    return check_object(parse(body), fields, "the body")


def parse(body: bytes) -> object:
    """Parse JSON in which nothing is there twice; raises a Problem."""
    if body.count(b"{") + body.count(b"[") > _DEEP:
        raise bad_request("the body is nested too deep")
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_without_repetition, parse_constant=_refuse
        )
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not JSON: {error}") from None


def check_object(parsed: object, fields: Mapping[str, type], what: str) -> dict[str, object]:
    """Make sure of the same as ``parse_object``, of something that was parsed already."""
    if not isinstance(parsed, dict):
        raise bad_request(f"{what} is not a JSON object")
    for name, value in parsed.items():
        expected = fields.get(name)
        if expected is None:
            raise bad_request(f"there is no field {_shown(name)}; there are {', '.join(fields)}")
        given = float if type(value) is int else type(value)
        if given is not expected:
            raise bad_request(f'the field "{name}" is not a {_NAMES[expected]}')
    return parsed


_NAMES = {str: "string", bool: "boolean", list: "list", float: "number"}


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise bad_request(f"the field {_shown(twice)} is there twice")
    return parsed


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _shown(name: str) -> str:
    return json.dumps(name if len(name) <= 40 else name[:40] + "...")
