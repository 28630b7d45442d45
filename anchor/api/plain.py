"""Recognising the plain request, the only kind that the short path serves.

Strict on purpose: what is not obviously plain is left to Gunicorn's parser, which knows what to
refuse and how. Nothing here may accept what that would not.
"""

from __future__ import annotations

from typing import NamedTuple

from gunicorn_h1c import ParseError

# This parser raises its own IncompleteError, which the package does not export, and its own
# ParseError next to the package's.
from gunicorn_h1c._parser_fast import IncompleteError, parse_request
from gunicorn_h1c._parser_fast import ParseError as FastParseError

from anchor.api.keys import KEY_PREFIX

__all__ = ["IncompleteError", "Plain", "recognise"]

MAX_LINE_BYTES = 16 << 10  # a key of 4 KiB, each byte escaped, and some
MAX_FIELDS = 64
MAX_FIELD_BYTES = 4096
MAX_HEAD_BYTES = 32 << 10

_WITH_BODY = frozenset((b"PUT", b"POST"))
_METHODS = _WITH_BODY | {b"GET", b"HEAD", b"DELETE"}

# Names that mean something to the path a request takes. Any other changes nothing here.
_HOST, _LENGTH, _CONNECTION, _CONSISTENCY, _ODD = range(1, 6)
_MEANINGS = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"connection": _CONNECTION,
    b"x-consistency": _CONSISTENCY,
    b"transfer-encoding": _ODD,
    b"trailer": _ODD,
    b"te": _ODD,
    b"expect": _ODD,
    b"upgrade": _ODD,
    b"content-range": _ODD,
    b"if-match": _ODD,
    b"if-none-match": _ODD,
    b"if-modified-since": _ODD,
    b"if-unmodified-since": _ODD,
}
_COMMON_SPELLINGS = {
    spelling: meaning
    for name, meaning in _MEANINGS.items()
    for spelling in (name, name.title(), name.upper())
}


class Plain(NamedTuple):
    """A plain request's head."""

    method: bytes
    target: bytes
    consistency: bytes | None
    body_bytes: int
    head_bytes: int
    close: bool


def recognise(buffer: bytes, max_body_bytes: int) -> Plain | None:
    """Read the head of a request; None if it is not plain, IncompleteError if there is more."""
    try:
        request = parse_request(buffer, 0, MAX_LINE_BYTES, MAX_FIELDS, MAX_FIELD_BYTES)
    except (ParseError, FastParseError):
        return None
    method = request.method
    target = request.path
    if (
        request.minor_version != 1
        or method not in _METHODS
        or not target.startswith(KEY_PREFIX)
        or not target.isascii()
    ):
        return None
    fields = _fields(request.headers)
    if fields is None:
        return None
    length, consistency, close = fields
    if length > max_body_bytes or (length and method not in _WITH_BODY):
        return None
    return Plain(method, target, consistency, length, request.consumed, close)


def _fields(headers: tuple[tuple[bytes, bytes], ...]) -> tuple[int, bytes | None, bool] | None:
    """Return body length, consistency and whether to close; None if a field is odd."""
    seen = 0
    length = 0
    consistency = None
    close = False
    for name, value in headers:
        meaning = _COMMON_SPELLINGS.get(name) or _MEANINGS.get(name.lower())
        if meaning is None:
            continue
        if meaning == _ODD or seen & (1 << meaning):
            return None
        seen |= 1 << meaning
        if meaning == _LENGTH:
            if not value.isdigit() or len(value) > 10:
                return None
            length = int(value)
        elif meaning == _CONSISTENCY:
            consistency = value
        elif meaning == _CONNECTION:
            option = value.lower()
            close = option == b"close"
            if not close and option != b"keep-alive":
                return None
    return (length, consistency, close) if seen & (1 << _HOST) else None
