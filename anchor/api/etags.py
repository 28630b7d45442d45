"""Entity tags: what a request expects a key to be (RFC 9110 §8.8.3, §13.1.1, §13.1.2).

A key's tag is the mod_index of its last write. A tag that no key could ever have is no mistake: it
matches nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from anchor.api.answers import Problem
from anchor.fsm import Condition

if TYPE_CHECKING:
    from anchor.api.asked import TermFields

TAGS_MAX = 64

# §8.8.3: W/ is case-sensitive. §5.6.1.2: empty elements of a list are passed over.
_TAG = rb'(W/)?"([!#-~\x80-\xff]*+)"'
_LIST = re.compile(rb"[\t ,]*+(?:" + _TAG + rb"[\t ]*+(?:,[\t ,]*+|\Z))++")
_TAGS = re.compile(_TAG)
_MOD_INDEX = re.compile(rb"[1-9][0-9]{0,18}")
_ONE_MOD_INDEX = re.compile(rb'"([1-9][0-9]{0,18})"')  # what nearly all clients send

# Holds for no key, whether it is there or not.
_NEVER = Condition(absent=True, present=True)


class ETags(NamedTuple):
    """The tags of a field, without their quotes; ``any`` for ``*``."""

    strong: tuple[bytes, ...] = ()
    weak: tuple[bytes, ...] = ()
    any: bool = False


class Conditions(NamedTuple):
    """The conditions of a read."""

    if_match: ETags | None
    if_none_match: ETags | None

    def want(self, mod_index: int) -> bool:
        """Tell whether the value is wanted (200) or not (304); raises a Problem (412)."""
        tag = b"%d" % mod_index
        expected, known = self
        # §13.2.2: in this order. §8.8.3.2: the first compares strongly, the second weakly.
        if expected is not None and not (expected.any or tag in expected.strong):
            raise condition_failed(mod_index)
        return known is None or not (known.any or tag in known.strong or tag in known.weak)


def parse(value: bytes, name: str) -> ETags:
    """Read the value of If-Match or If-None-Match, which is called ``name``; raises a Problem."""
    if value == b"*":
        return ETags(any=True)
    if not _LIST.fullmatch(value):
        raise _bad_etag(f'{name} is neither * nor a list of tags like "5"')
    found = _TAGS.findall(value)
    if len(found) > TAGS_MAX:
        raise _bad_etag(f"{name} has {len(found)} tags; at most {TAGS_MAX} make sense")
    return ETags(
        tuple(tag for weak, tag in found if not weak), tuple(tag for weak, tag in found if weak)
    )


def conditions_of(fields: TermFields) -> Conditions | None:
    """Read the conditions of a read; raises a Problem. Other fields mean nothing there."""
    if_match, if_none_match = fields.if_match, fields.if_none_match
    if if_match is None and if_none_match is None:
        return None
    return Conditions(
        None if if_match is None else parse(if_match, "If-Match"),
        None if if_none_match is None else parse(if_none_match, "If-None-Match"),
    )


def condition_of(if_match: bytes | None, if_none_match: bytes | None) -> Condition | None:
    """Say how a key has to be for a write with these fields to happen; raises a Problem."""
    if if_match is None:
        if if_none_match is None:
            return None
        if if_none_match != b"*":
            raise _bad_etag("If-None-Match of a write is * (write only what is not there)")
        return Condition(absent=True)
    if if_none_match is not None:
        raise Problem(
            400, "conflicting_conditions", "If-Match and If-None-Match do not go together"
        )
    usual = _ONE_MOD_INDEX.fullmatch(if_match)
    if usual is not None:
        return Condition((int(usual[1]),))
    tags = parse(if_match, "If-Match")
    if tags.any:
        return Condition(present=True)
    mod_indexes = tuple(int(tag) for tag in tags.strong if _MOD_INDEX.fullmatch(tag))
    return Condition(mod_indexes) if mod_indexes else _NEVER


def condition_failed(mod_index: int, lines: bytes = b"") -> Problem:
    """Refuse what expects a key to be otherwise; its mod_index is 0 if it is not there."""
    if mod_index:
        lines = b'ETag: "%d"\r\n%s' % (mod_index, lines)
    how = f"has the ETag {mod_index}" if mod_index else "is not there"
    return Problem(
        412, "precondition_failed", f"the key {how}, which was not expected", lines=lines
    )


def _bad_etag(detail: str) -> Problem:
    return Problem(400, "bad_etag", detail)
