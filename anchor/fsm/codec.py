"""Commands and batches as bytes: the one file that knows the protobuf code.

A batch is put together by hand, because its commands are encoded already; everything else is left
to protobuf. The tests hold both against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from anchor.fsm.errors import MalformedPayloadError
from anchor.fsm.fsm_pb2 import Batch as _Batch
from anchor.fsm.fsm_pb2 import Command as _Command
from anchor.fsm.fsm_pb2 import Delete as _Delete
from anchor.fsm.fsm_pb2 import Put as _Put

if TYPE_CHECKING:
    from collections.abc import Sequence

_DELETE_TAG = b"\x12"  # of a command: field 2, length-delimited
_COMMANDS_TAG = b"\x0a"  # field 1, length-delimited
_ORIGIN_TAG = b"\x11"  # field 2, fixed 64 bits
_NUMBER_TAG = b"\x18"  # field 3, varint


class Batch(NamedTuple):
    """A decoded batch. Each operation is a key and its new value, or None to delete it."""

    origin: int
    number: int
    operations: list[tuple[bytes, bytes | None]]


def encode_put(key: bytes, value: bytes) -> bytes:
    """One serialized command: ``key`` shall have ``value``."""
    return _Command(put=_Put(key=key, value=value)).SerializeToString()


def encode_delete(key: bytes) -> bytes:
    """One serialized command: ``key`` shall not be there."""
    return _Command(delete=_Delete(key=key)).SerializeToString()


def is_delete(command: bytes) -> bool:
    """Whether this serialized command frees space rather than taking it."""
    return command[:1] == _DELETE_TAG


def encode_batch(origin: int, number: int, commands: Sequence[bytes]) -> bytes:
    """Put serialized commands together as one entry's payload.

    ``origin`` (64 bits) is who gathered them, ``number`` (from 1) which of its batches this is.
    """
    parts: list[bytes] = []
    for command in commands:
        parts += (_COMMANDS_TAG, _varint(len(command)), command)
    if origin:
        parts += (_ORIGIN_TAG, origin.to_bytes(8, "little"))
    if number:
        parts += (_NUMBER_TAG, _varint(number))
    return b"".join(parts)


def decode_batch(payload: bytes) -> Batch:
    """Read what ``encode_batch`` wrote; raises MalformedPayloadError for anything else.

    Also for anything *more*: a field or an operation that a newer version added must not be
    passed over, or members of different versions would make different states of one log.
    """
    try:
        message = _Batch.FromString(payload)
    except DecodeError as error:
        raise MalformedPayloadError(f"not a batch: {error}") from None
    message.DiscardUnknownFields()
    if message.ByteSize() != len(payload):
        raise MalformedPayloadError("the batch has fields this version does not know")
    operations: list[tuple[bytes, bytes | None]] = []
    for command in message.commands:
        operation = command.WhichOneof("operation")
        if operation == "put":
            put = command.put
            operations.append((put.key, put.value))
        elif operation == "delete":
            operations.append((command.delete.key, None))
        else:
            raise MalformedPayloadError("the batch has an operation this version does not know")
    return Batch(message.origin, message.number, operations)


def check_batch(payload: bytes) -> None:
    """Raise MalformedPayloadError for what ``apply`` could not follow."""
    decode_batch(payload)


def _varint(number: int) -> bytes:
    """Write ``number`` in base 128, low digits first (protobuf's wire format)."""
    if number < 0x80:
        return number.to_bytes(1, "little")
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
