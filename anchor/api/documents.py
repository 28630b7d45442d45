"""A key as a JSON document, for those who ask for one (RFC 9110 §12.5.1)."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anchor.fsm import KeyValue

_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")

_JSON = "application/json"
# What covers a raw value, the most specific first.
_RAW = ("application/octet-stream", "application/*", "*/*")


def wants_json(accept: bytes | None) -> bool:
    """Tell whether this value of Accept names JSON, and likes it no less than the raw value."""
    if accept is None or accept == b"*/*":
        return False
    qualities: dict[str, float] = {}
    for element in accept.decode("latin-1").split(","):
        media_range, *parameters = (part.strip(" \t").lower() for part in element.split(";"))
        quality = _quality(parameters)
        if quality is not None:
            qualities[media_range] = max(quality, qualities.get(media_range, 0.0))
    liked = qualities.get(_JSON, 0.0)
    raw = next((qualities[name] for name in _RAW if name in qualities), 0.0)
    return liked > 0 and liked >= raw


def _quality(parameters: list[str]) -> float | None:
    """Return the weight (§12.4.2) among an element's parameters; None if it is malformed."""
    for parameter in parameters:
        if parameter.startswith("q="):
            return float(parameter[2:]) if _QUALITY.fullmatch(parameter[2:]) else None
    return 1.0


def document_of(key: bytes, found: KeyValue) -> bytes:
    """Write a key, its value and what is known of both as a JSON object."""
    key_text, key_encoding = _text_of(key)
    text, encoding = _text_of(found.value)
    content = {
        "key": key_text,
        "key_encoding": key_encoding,
        "value": text,
        "encoding": encoding,
        "create_index": found.create_index,
        "mod_index": found.mod_index,
        "version": found.version,
    }
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _text_of(content: bytes) -> tuple[str, str]:
    """Return bytes as text, and in which encoding."""
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(content).decode("ascii"), "base64"
