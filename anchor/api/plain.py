"""Recognising the plain request, the only kind that the short path serves.

Strict on purpose: what is not obviously plain is left to Gunicorn's parser, which knows what to
refuse and how. Nothing here may accept what that would not.

One regular expression reads a head as a whole. Its repetitions are possessive: whatever is sent,
it looks at each byte once (what backtracking could find would not be plain anyway).
"""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

from anchor.api.asked import TERM_NAMES, Asked, TermFields
from anchor.api.documents import wants_json
from anchor.api.keys import HOST

MAX_LINE_BYTES = 16 << 10  # a key of 4 KiB, each byte escaped, and some
MAX_FIELDS = 64
MAX_HEAD_BYTES = 32 << 10
_REMEMBERED_BYTES = 512
_REMEMBERED_MAX = 1024

_LINE = re.compile(rb"([A-Z]{3,6}+) (/kv/[!-~]*+) HTTP/1\.1\r\n")
# RFC 9110 §5.6.2 and §5.5: a token, and what is visible, blank or beyond ASCII. No line begins
# with a blank, so none continues the one before it.
_FIELDS = re.compile(
    rb"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t -~\x80-\xff]{0,4096}+){0,64}+\r\n\r\n"
)
# The lines of fields that differ from request to request, each after the end of a line.
_TERMS = re.compile(
    rb"\r\n(?=[IXix])(?i:(%s)):([\t -~\x80-\xff]{0,4096}+)(?=\r\n)"
    % "|".join(map(re.escape, TERM_NAMES)).encode()
)
# Of those the usual ones, as they are usually written; this is merely faster.
_IN_SESSION = re.compile(
    rb"\r\nX-Session: ([0-9a-f]{32})\r\nX-Sequence: ([0-9]{1,20}+)"
    rb"(?:\r\nX-Acked: ([0-9]{1,20}+))?+(?=\r\n)"
)
_BEGINNING = re.compile(rb"[A-Z]{0,6}+(?: (?:/[!-~]*+(?: [HTP/1.]*+\r?)?)?)?")

_CLOSES = {b"close": True, b"keep-alive": False}
_WITH_BODY = frozenset((b"PUT", b"POST"))
_METHODS = _WITH_BODY | {b"GET", b"HEAD", b"DELETE"}

# Names that mean something to the path a request takes. Any other changes nothing here.
_HOST, _LENGTH, _CONNECTION, _CONSISTENCY, _ACCEPT, _TYPE, _ODD = range(1, 8)
_MEANINGS = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"connection": _CONNECTION,
    b"x-consistency": _CONSISTENCY,
    b"accept": _ACCEPT,
    b"content-type": _TYPE,  # ignored, but not twice
    b"transfer-encoding": _ODD,
    b"trailer": _ODD,
    b"te": _ODD,
    b"expect": _ODD,
    b"upgrade": _ODD,
    b"content-range": _ODD,
    b"if-modified-since": _ODD,
    b"if-unmodified-since": _ODD,
}
_TERM_PLACES = {name.lower().encode(): place for place, name in enumerate(TERM_NAMES)}
_COMMON_SPELLINGS = {
    spelling: meaning
    for name, meaning in _MEANINGS.items()
    for spelling in (name, name.title(), name.upper())
}


class IncompleteError(Exception):
    """The head may become a plain one, but has not all arrived yet."""


class Plain(NamedTuple):
    """A plain request's head."""

    method: bytes
    target: bytes
    asked: Asked
    body_bytes: int
    head_bytes: int
    close: bool


class _Meaning(NamedTuple):
    """What the fields of a plain head mean together."""

    asked: Asked
    length: bytes | None
    close: bool


def recognise(buffer: bytes, max_body_bytes: int) -> Plain | None:
    """Read the head of a request; None if it is not plain, IncompleteError if there is more."""
    line = _LINE.match(buffer)
    if line is None:
        if len(buffer) < MAX_LINE_BYTES and _BEGINNING.fullmatch(buffer):
            raise IncompleteError
        return None
    begin = line.end()
    head_bytes = buffer.find(b"\r\n\r\n", begin - 2) + 4
    if head_bytes < 4 and _may_go_on(buffer, begin):
        raise IncompleteError
    method, target = line.groups()
    if method not in _METHODS or begin > MAX_LINE_BYTES or not 4 <= head_bytes <= MAX_HEAD_BYTES:
        return None
    fields = buffer[begin - 2 : head_bytes]
    meaning = _remembered.get(fields) or _meaning(fields)
    if meaning is None:
        return None
    length = _body_bytes(meaning.length, method)
    if length > max_body_bytes:
        return None
    return Plain(method, target, meaning.asked, length, head_bytes, meaning.close)


def _may_go_on(buffer: bytes, begin: int) -> bool:
    """Whether what there is of the fields may be the beginning of plain ones."""
    return len(buffer) < MAX_HEAD_BYTES and b"\n\n" not in buffer[begin - 1 :]


# A client sends the same fields with each request, but for its terms: most need not be read again.
_remembered: dict[bytes, _Meaning] = {}


def _meaning(block: bytes) -> _Meaning | None:
    """Read all fields, each after the end of a line, and the empty line; None if not plain."""
    usual = _IN_SESSION.search(block)
    if usual is not None:
        known = _remembered.get(block[: usual.start()] + block[usual.end() :])
        if known is not None:  # so there are no other terms
            return _on_terms(known, TermFields(None, None, *usual.groups()))
    parts = _TERMS.split(block)  # what is common, a name, its value, what is common, ...
    if len(parts) == 1:
        return _common_meaning(block)
    terms: list[bytes | None] = [None] * len(TERM_NAMES)
    for name, value in zip(parts[1::3], parts[2::3], strict=True):
        place = _TERM_PLACES[name.lower()]
        if terms[place] is not None:
            return None
        terms[place] = value.strip()
    common = b"".join(parts[::3])
    meaning = _remembered.get(common) or _common_meaning(common)
    return None if meaning is None else _on_terms(meaning, TermFields(*terms))


def _on_terms(meaning: _Meaning, terms: TermFields) -> _Meaning:
    (consistency, as_json, _), length, close = meaning
    return _Meaning(Asked(consistency, as_json, terms), length, close)


def _common_meaning(block: bytes) -> _Meaning | None:
    """Read all fields but terms, and remember what they mean."""
    if not _FIELDS.fullmatch(block):
        return None
    fields = _fields(block[2:-4])
    if fields is None:
        return None
    close = _CLOSES.get(fields.get(_CONNECTION, b"keep-alive").lower())
    host = fields.get(_HOST)
    if close is None or host is None or not HOST.fullmatch(host):
        return None
    asked = Asked(fields.get(_CONSISTENCY), wants_json(fields.get(_ACCEPT)))
    meaning = _Meaning(asked, fields.get(_LENGTH), close)
    if len(block) <= _REMEMBERED_BYTES:
        if len(_remembered) >= _REMEMBERED_MAX:
            _remembered.clear()
        _remembered[block] = meaning
    return meaning


def _fields(lines: bytes) -> dict[int, bytes] | None:
    """Return the fields that mean something, by meaning; None if there is an odd one."""
    found: dict[int, bytes] = {}
    for line in lines.split(b"\r\n"):
        name, _, value = line.partition(b":")
        meaning = _COMMON_SPELLINGS.get(name) or _MEANINGS.get(name.lower())
        if meaning is not None:
            if meaning == _ODD or meaning in found:
                return None
            found[meaning] = value.strip(b" \t")
    return found


def _body_bytes(length: bytes | None, method: bytes) -> int:
    """Return the length of the body; one beyond all limits if it is not for us to say."""
    if length is None:
        return 0
    if not length.isdigit() or len(length) > 10 or method not in _WITH_BODY:
        return sys.maxsize
    return int(length)
