"""A key with all that is known of it, as ``Accept: application/json`` gives it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anchor.client.answers import json_object, not_anchor

if TYPE_CHECKING:
    from anchor.client.connections import Answer


@dataclass(frozen=True, slots=True)
class Entry:
    """A key, its value, and when it came to it.

    ``create_index`` and ``mod_index`` are the indexes in the log of the write that made the key
    and of the last one; ``version`` counts the writes since it was made, itself included.
    """

    key: bytes
    value: bytes
    create_index: int
    mod_index: int
    version: int


def entry_of(answer: Answer) -> Entry:
    """Read an entry from an answer; raises Refused ``not_anchor``."""
    read = json_object(answer)
    try:
        return Entry(
            _bytes(read["key"], read["key_encoding"]),
            _bytes(read["value"], read["encoding"]),
            int(read["create_index"]),
            int(read["mod_index"]),
            int(read["version"]),
        )
    except (KeyError, TypeError, ValueError):
        raise not_anchor(answer) from None


def _bytes(text: Any, encoding: Any) -> bytes:  # noqa: ANN401 - as JSON has it
    if not isinstance(text, str) or encoding not in {"utf-8", "base64"}:
        raise ValueError(encoding)
    return text.encode() if encoding == "utf-8" else base64.b64decode(text, validate=True)
