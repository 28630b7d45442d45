"""Recognising the plain request, the only kind that the short path serves.

Strict on purpose: what is not obviously plain is left to Gunicorn's parser, which knows what to
refuse and how. Nothing here may accept what that would not.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from gunicorn_h1c import ParseError

# This parser raises its own IncompleteError, which the package does not export, and its own
# ParseError next to the package's.
from gunicorn_h1c._parser_fast import IncompleteError, parse_request
from gunicorn_h1c._parser_fast import ParseError as FastParseError

from anchor.api.keys import HOST, KEY_PREFIX

__all__ = ["IncompleteError", "Plain", "recognise"]

MAX_LINE_BYTES = 16 << 10  # a key of 4 KiB, each byte escaped, and some
MAX_FIELDS = 64
MAX_FIELD_BYTES = 4096
MAX_HEAD_BYTES = 32 << 10

_CLOSES = {b"close": True, b"keep-alive": False}
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
    length = _body_bytes(fields.get(_LENGTH), method)
    close = _CLOSES.get(fields.get(_CONNECTION, b"keep-alive").lower())
    host = fields.get(_HOST)
    if length > max_body_bytes or close is None or host is None or not HOST.fullmatch(host):
        return None
    consistency = fields.get(_CONSISTENCY)
    return Plain(method, target, consistency, length, request.consumed, close)


def _fields(headers: tuple[tuple[bytes, bytes], ...]) -> dict[int, bytes] | None:
    """Return the fields that mean something, by meaning; None if there is an odd one."""
    found: dict[int, bytes] = {}
    for name, value in headers:
        meaning = _COMMON_SPELLINGS.get(name) or _MEANINGS.get(name.lower())
        if meaning is not None:
            if meaning == _ODD or meaning in found:
                return None
            found[meaning] = value
    return found


def _body_bytes(length: bytes | None, method: bytes) -> int:
    """Return the length of the body; one beyond all limits if it is not for us to say."""
    if length is None:
        return 0
    if not length.isdigit() or len(length) > 10 or method not in _WITH_BODY:
        return sys.maxsize
    return int(length)
