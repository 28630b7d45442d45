"""The records the state machine keeps, and their bytes (laid out in the package's manual)."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from anchor.fsm.errors import MalformedStateError

FORMAT = 1
DIGEST_BYTES = 16

KEY_PREFIX = b"k"
ORIGIN_PREFIX = b"o"
APPLIED_KEY = b"mapplied"
CONFIGURATION_KEY = b"mconfiguration"

_VALUE_HEADER = struct.Struct(">BQQQ")
_ORIGIN = struct.Struct(">BQQ")
_APPLIED = struct.Struct(f">BQQ{DIGEST_BYTES}s")
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
    """How far the log is applied, and the digest of all that was."""

    last_index: int
    last_term: int
    digest: bytes


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
    """Write the applied record."""
    return _APPLIED.pack(FORMAT, *applied)


def decode_applied(record: bytes) -> Applied:
    """Read the applied record."""
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
    if len(record) != layout.size:
        raise MalformedStateError(f"{what} has {len(record)} bytes, not {layout.size}")
    found, *fields = layout.unpack(record)
    if found != FORMAT:
        raise MalformedStateError(f"{what} is of format {found}; this version knows {FORMAT}")
    return tuple(fields)
