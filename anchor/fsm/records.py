"""The records the state machine keeps, and their bytes (laid out in the package's manual)."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from anchor.fsm.errors import MalformedStateError

FORMAT = 1
APPLIED_FORMAT_WITH_CLOCK = 2
DIGEST_BYTES = 16

KEY_PREFIX = b"k"
ORIGIN_PREFIX = b"o"
SESSION_PREFIX = b"s"
ANSWER_PREFIX = b"i"
EXPIRY_PREFIX = b"j"
APPLIED_KEY = b"mapplied"
CONFIGURATION_KEY = b"mconfiguration"

_VALUE_HEADER = struct.Struct(">BQQQ")
_ORIGIN = struct.Struct(">BQQ")
_APPLIED = struct.Struct(f">BQQ{DIGEST_BYTES}s")
_APPLIED_WITH_CLOCK = struct.Struct(f">BQQ{DIGEST_BYTES}sQQQ")
_CONFIGURATION_HEADER = struct.Struct(">BQ")

pack_value_header = _VALUE_HEADER.pack
VALUE_HEADER_BYTES = _VALUE_HEADER.size


class KeyValue(NamedTuple):
    """What a key holds. The indexes are those of log entries; ``version`` counts its writes.

    A key that is deleted and written again starts over: a new ``create_index``, version 1.
    """

    value: bytes
    create_index: int
    mod_index: int
    version: int


class Applied(NamedTuple):
    """How far the log is applied, and what goes with every entry.

    ``digest`` is of all that was applied; ``clock_ms`` is the state machine's time, ``grace_ms``
    what it was when the last term began; so many idempotency keys are remembered.
    """

    last_index: int
    last_term: int
    digest: bytes
    clock_ms: int = 0
    grace_ms: int = 0
    remembered_keys: int = 0


class Origin(NamedTuple):
    """The last batch applied of one origin: its number, and the index of its entry."""

    number: int
    entry_index: int


def unpack_value_header(record: bytes) -> tuple[int, int, int]:
    """Give ``(create_index, mod_index, version)``."""
    try:
        found, create_index, mod_index, version = _VALUE_HEADER.unpack_from(record)
    except struct.error:
        raise MalformedStateError(f"a value's record of {len(record)} bytes") from None
    if found != FORMAT:
        raise MalformedStateError(
            f"a value's record of format {found}; this version knows {FORMAT}"
        )
    return create_index, mod_index, version


def decode_value(record: bytes) -> KeyValue:
    """Read a value's record."""
    create_index, mod_index, version = unpack_value_header(record)
    return KeyValue(record[VALUE_HEADER_BYTES:], create_index, mod_index, version)


def encode_origin(origin: Origin) -> bytes:
    """Write an origin's record."""
    return _ORIGIN.pack(FORMAT, *origin)


def decode_origin(record: bytes) -> Origin:
    """Read an origin's record."""
    return Origin(*_unpack(_ORIGIN, record, "an origin's record"))


def encode_applied(applied: Applied) -> bytes:
    """Write the applied record, as older versions know it while there is nothing new in it."""
    if not any(applied[3:]):
        return _APPLIED.pack(FORMAT, *applied[:3])
    return _APPLIED_WITH_CLOCK.pack(APPLIED_FORMAT_WITH_CLOCK, *applied)


def decode_applied(record: bytes) -> Applied:
    """Read the applied record."""
    if record[:1] == bytes((APPLIED_FORMAT_WITH_CLOCK,)):
        _check_size(_APPLIED_WITH_CLOCK, record, "the applied record")
        return Applied(*_APPLIED_WITH_CLOCK.unpack(record)[1:])
    return Applied(*_unpack(_APPLIED, record, "the applied record"))


def encode_configuration(index: int, payload: bytes) -> bytes:
    """Write the configuration's record."""
    return _CONFIGURATION_HEADER.pack(FORMAT, index) + payload


def decode_configuration(record: bytes) -> tuple[int, bytes]:
    """Read the configuration's record: the index of its entry, and its payload."""
    size = _CONFIGURATION_HEADER.size
    (index,) = _unpack(_CONFIGURATION_HEADER, record[:size], "the configuration's record")
    return index, record[size:]


def _unpack(layout: struct.Struct, record: bytes, what: str) -> tuple[Any, ...]:
    """Unpack a record of fixed size, less its format."""
    _check_size(layout, record, what)
    found, *fields = layout.unpack(record)
    if found != FORMAT:
        raise MalformedStateError(f"{what} is of format {found}; this version knows {FORMAT}")
    return tuple(fields)


def _check_size(layout: struct.Struct, record: bytes, what: str) -> None:
    if len(record) != layout.size:
        raise MalformedStateError(f"{what} has {len(record)} bytes, not {layout.size}")
