"""What is remembered of a write, so that it can be sent again: its fingerprint and its result."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from anchor.fsm.commands import Result, Status

if TYPE_CHECKING:
    from collections.abc import Callable

# The request's fingerprint; twice the status, and 1 if it existed; the result's three numbers.
LAYOUT = "QBQQQ"
_ANSWER = struct.Struct(">" + LAYOUT)
ANSWER_BYTES = _ANSWER.size
_unpack: Callable[[bytes, int], tuple[int, ...]] = _ANSWER.unpack_from


def encode_answer(fingerprint: int, result: Result) -> bytes:
    """Write what is remembered, ANSWER_BYTES long."""
    existed, create_index, mod_index, version, status, _ = result
    return _ANSWER.pack(fingerprint, status << 1 | existed, create_index, mod_index, version)


def replay(record: bytes, offset: int, fingerprint: int) -> Result:
    """Give the first answer again, or say that it was another request's."""
    found, flags, create_index, mod_index, version = _unpack(record, offset)
    if found != fingerprint:
        return refusal(Status.REUSED)
    status = Status(flags >> 1)
    return Result(bool(flags & 1), create_index, mod_index, version, status, replayed=True)


def refusal(status: Status) -> Result:
    """Nothing happened, and this is why."""
    return _REFUSALS[status]


_REFUSALS = {status: Result(False, 0, 0, 0, status) for status in Status}
