"""What people write, turned into what programs use: one function per kind of value.

Each takes the raw text and raises ``ValueError`` with the reason, in words that fit behind the
name of the flag, variable or key at fault.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from anchor.settings import is_wildcard, join_address, parse_host, parse_port, split_address

if TYPE_CHECKING:
    from collections.abc import Callable

# Control characters, line and paragraph separators, bidirectional overrides, half surrogates:
# whatever could forge a line, hide one, or fail to encode.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}

_BYTE_UNITS = {"": 1, "b": 1, "kb": 10**3, "kib": 1 << 10, "mb": 10**6, "mib": 1 << 20}
_BYTE_UNITS |= {"gb": 10**9, "gib": 1 << 30}
_MILLISECOND_UNITS = {"ms": 1, "s": 1000, "m": 60_000}


def printable(text: str, limit: int | None = None) -> str:
    """Text that stays on its line whatever was in it, cut to ``limit`` characters."""
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _ESCAPES:
        return _ESCAPES[character]
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def node_id(text: str) -> str:
    """1 to 64 letters, digits, dots, dashes and underscores."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise ValueError("an id is 1 to 64 of the letters A-Z a-z, digits, '.', '_' and '-'")
    return text


def port(text: str) -> int:
    """Check a TCP port."""
    return parse_port(text)


def host(text: str) -> str:
    """Check a host to listen on."""
    return parse_host(text)


def address(text: str) -> str:
    """``host:port`` in its normal form."""
    return join_address(*split_address(text))


def yes_or_no(text: str) -> bool:
    """Read a switch, as the environment has it."""
    found = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text.lower() not in found:
        raise ValueError("is either yes or no")
    return found[text.lower()]


def advertised(text: str) -> str:
    """``host`` or ``host:port`` that others can dial; the port may be left out."""
    try:
        where, number = split_address(text)
    except ValueError:
        # No port: a bare host, or an IPv6 address with or without its brackets.
        if re.search(r"[^:\]]:[^:]*$", text) and text.count(":") == 1:
            raise
        where, number = parse_host(text), 0
    if is_wildcard(where):
        raise ValueError("nobody can dial every interface; name the one that others reach")
    return join_address(where, number) if number else where


def addresses(text: str) -> tuple[str, ...]:
    """Comma-separated addresses, each once, in order. Empty text is no address at all."""
    found: dict[str, None] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        try:
            found[address(part)] = None
        except ValueError as error:
            raise ValueError(f"{printable(part, 60)}: {error}") from None
    return tuple(found)


def endpoints(text: str) -> tuple[str, ...]:
    """Comma-separated ``host:port``, each perhaps written as a URL; at least one."""
    bare = ",".join(
        piece.strip().removeprefix("http://").removesuffix("/") for piece in text.split(",")
    )
    if "://" in bare:
        raise ValueError("only plain http is spoken; write HOST:PORT")
    found = addresses(bare)
    if not found:
        raise ValueError("names no endpoint; write HOST:PORT, several with commas between")
    return found


def members(text: str) -> dict[str, str]:
    """Read comma-separated ``id=host:port``; gives id to address. Names all that is wrong."""
    found: dict[str, str] = {}
    wrong: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, separator, where = part.partition("=")
        shown = printable(part, 80)
        if not separator:
            wrong.append(f"{shown}: a member is written ID=HOST:PORT, like node1=localhost:9001")
            continue
        if name in found:
            wrong.append(f"{shown}: {name} is there twice")
        try:
            found[node_id(name)] = address(where)
        except ValueError as error:
            wrong.append(f"{shown}: {error}")
    if wrong:
        raise ValueError("; ".join(wrong))
    if not found:
        raise ValueError("names no member; write ID=HOST:PORT, several with commas between")
    return found


def directory(text: str) -> Path:
    """Read a path; ``~`` is the home directory."""
    if not text:
        raise ValueError("the path is empty")
    if "\0" in text:
        raise ValueError("a path holds no NUL")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("cannot tell where '~' is; write the whole path") from None


def milliseconds(low: int, high: int, plain_unit_ms: int = 1) -> Callable[[str], int]:
    """Make a parser of durations between two bounds: ``250ms``, ``1.5s``, ``2m`` or a number."""

    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(ms|s|m)?", text.strip())
        if not match:
            plain = "1500" if plain_unit_ms == 1 else "3, which is seconds"
            raise ValueError(f"a duration is written like 1500ms, 1.5s or {plain}")
        unit = _MILLISECOND_UNITS[match[2]] if match[2] else plain_unit_ms
        exact = Decimal(match[1]) * unit
        if not low <= exact <= high or exact != int(exact):
            raise ValueError(f"must be whole milliseconds from {low}ms to {high}ms")
        return int(exact)

    return parse


def byte_count(low: int, high: int) -> Callable[[str], int]:
    """Make a parser of sizes between two bounds: ``1MiB``, ``512KiB``, ``64kB`` or a number."""

    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)", text.strip())
        if not match or match[2].lower() not in _BYTE_UNITS:
            raise ValueError("a size is written like 1MiB, 512KiB, 64KB or 65536")
        exact = Decimal(match[1]) * _BYTE_UNITS[match[2].lower()]
        if not low <= exact <= high or exact != int(exact):
            raise ValueError(f"must be whole bytes from {low} to {high}")
        return int(exact)

    return parse


def byte_rate(low: int, high: int) -> Callable[[str], int]:
    """Make a parser of bytes a second between two bounds, written like sizes; 0 is no limit."""
    count = byte_count(low, high)

    def parse(text: str) -> int:
        return 0 if text.strip() == "0" else count(text)

    return parse


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Make a parser of whole numbers between two bounds."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a number from {low} to {high}")
        return int(text)

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """Make a parser of a word out of several, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text.lower()

    return parse
