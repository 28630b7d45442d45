"""Commands and batches as bytes: the one file that knows the protobuf code.

What every write passes is put together by hand, which takes a third of the time; everything else
is left to protobuf. The tests hold both against each other.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from anchor.fsm.commands import (
    PLACES,
    SESSIONS_MAX,
    TTL_MS_MAX,
    ByKey,
    CloseSession,
    Command,
    Condition,
    InSession,
    KeepAlive,
    OpenSession,
    Write,
)
from anchor.fsm.errors import MalformedPayloadError
from anchor.fsm.fsm_pb2 import Batch as _Batch
from anchor.fsm.fsm_pb2 import ByKey as _ByKey
from anchor.fsm.fsm_pb2 import CloseSession as _CloseSession
from anchor.fsm.fsm_pb2 import Command as _Command
from anchor.fsm.fsm_pb2 import Condition as _Condition
from anchor.fsm.fsm_pb2 import KeepAlive as _KeepAlive
from anchor.fsm.fsm_pb2 import OpenSession as _OpenSession

if TYPE_CHECKING:
    from collections.abc import Sequence

# Tags of length-delimited fields: those of a command, of a put and of a delete.
_PUT_TAG = b"\x0a"
_DELETE_TAG = b"\x12"
_IN_SESSION_TAG = b"\x3a"
_KEY_TAG = b"\x0a"
_VALUE_TAG = b"\x12"
# Tags of a batch.
_COMMANDS_TAG = b"\x0a"  # field 1, length-delimited
_ORIGIN_TAG = b"\x11"  # field 2, fixed 64 bits
_NUMBER_TAG = b"\x18"  # field 3, varint
_CLOCK_TAG = b"\x20"  # field 4, varint
DIGEST_OF_KEY_BYTES = 16
_IN_SESSION = struct.Struct(">QQQQQ")
_IN_SESSION_HEAD = _IN_SESSION_TAG + bytes((_IN_SESSION.size,))


class Batch(NamedTuple):
    """A decoded batch. ``clock_ms`` is 0 if its leader put no time into it."""

    origin: int
    number: int
    clock_ms: int
    commands: list[Command]


def encode_write(write: Write) -> bytes:
    """One serialized command."""
    key, value, condition, once = write
    command = encode_delete(key) if value is None else encode_put(key, value)
    if condition is not None:
        mod_indexes, absent, present = condition
        terms = _Condition(mod_indexes=mod_indexes, absent=absent, present=present)
        command += _Command(condition=terms).SerializeToString()
    if once is None:
        return command
    if isinstance(once, InSession):
        return command + encode_in_session(*once)
    digest, fingerprint = once
    by_key = _ByKey(digest=digest, fingerprint=fingerprint)
    return command + _Command(by_key=by_key).SerializeToString()


def encode_in_session(
    session: int, token: int, sequence: int, acknowledged: int, fingerprint: int
) -> bytes:
    """What makes a serialized put or delete one of a session's, behind it (see ``InSession``)."""
    return _IN_SESSION_HEAD + _IN_SESSION.pack(session, token, sequence, acknowledged, fingerprint)


def encode_put(key: bytes, value: bytes) -> bytes:
    """One serialized command: ``key`` shall have ``value``."""
    put = _field(_KEY_TAG, key) + _field(_VALUE_TAG, value)
    return _PUT_TAG + _varint(len(put)) + put


def encode_delete(key: bytes) -> bytes:
    """One serialized command: ``key`` shall not be there."""
    delete = _field(_KEY_TAG, key)
    return _DELETE_TAG + _varint(len(delete)) + delete


def encode_session_command(command: OpenSession | KeepAlive | CloseSession) -> bytes:
    """One serialized command about a session."""
    if isinstance(command, OpenSession):
        ttl_ms, token, max_sessions = command
        opened = _OpenSession(ttl_ms=ttl_ms, token=token, max_sessions=max_sessions)
        return _Command(open_session=opened).SerializeToString()
    session, token = command
    if isinstance(command, KeepAlive):
        kept = _KeepAlive(session=session, token=token)
        return _Command(keep_alive=kept).SerializeToString()
    closed = _CloseSession(session=session, token=token)
    return _Command(close_session=closed).SerializeToString()


def takes_space(command: bytes) -> bool:
    """Whether this serialized command stores a value, rather than freeing what one took."""
    return command[:1] == _PUT_TAG


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


def clock_suffix(clock_ms: int) -> bytes:
    """What a leader puts behind a batch that has no time in it yet; alone it is one of its own."""
    return _CLOCK_TAG + _varint(clock_ms)


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
    commands = [_decode_command(command) for command in message.commands]
    return Batch(message.origin, message.number, message.clock_ms, commands)


def _decode_command(command: _Command) -> Command:
    operation = command.WhichOneof("operation")
    if operation == "put":
        put = command.put
        return Write(put.key, put.value, *_terms(command))
    if operation == "delete":
        return Write(command.delete.key, None, *_terms(command))
    if _terms(command) != (None, None):
        raise MalformedPayloadError("a command about a session has terms that only a write can")
    if operation == "open_session":
        opened = command.open_session
        return OpenSession(opened.ttl_ms, opened.token, opened.max_sessions)
    if operation == "keep_alive":
        return KeepAlive(command.keep_alive.session, command.keep_alive.token)
    if operation == "close_session":
        return CloseSession(command.close_session.session, command.close_session.token)
    raise MalformedPayloadError("the batch has an operation this version does not know")


def _terms(command: _Command) -> tuple[Condition | None, InSession | ByKey | None]:
    """On what terms a write shall happen: only if, and only once."""
    condition: Condition | None = None
    if command.HasField("condition"):
        found = command.condition
        condition = Condition(tuple(found.mod_indexes), found.absent, found.present)
    in_session = command.in_session
    if not command.HasField("by_key"):
        return condition, _in_session(in_session) if in_session else None
    by_key = ByKey(command.by_key.digest, command.by_key.fingerprint)
    if in_session or len(by_key.digest) != DIGEST_OF_KEY_BYTES:
        raise MalformedPayloadError(
            f"a write of a session and with a key, or a key's digest of {len(by_key.digest)} bytes"
        )
    return condition, by_key


def _in_session(encoded: bytes) -> InSession:
    try:
        return InSession._make(_IN_SESSION.unpack(encoded))
    except struct.error:
        raise MalformedPayloadError(
            f"a write's place in a session of {len(encoded)} bytes"
        ) from None


def check_batch(payload: bytes) -> None:
    """Raise MalformedPayloadError for what no honest node would gather, or could not be applied.

    Only the leader that proposes a batch puts its time into it. And there is one way to write a
    batch: a shorter one, where there is any, would leave room for what this version does not know.
    """
    batch = decode_batch(payload)
    known = _Batch.FromString(payload)
    known.DiscardUnknownFields()
    if known.SerializeToString() != payload:
        raise MalformedPayloadError("the batch is not written as batches are")
    if batch.clock_ms:
        raise MalformedPayloadError("a batch with a time that its leader did not put there")
    if len(batch.commands) > PLACES:
        raise MalformedPayloadError(f"a batch of {len(batch.commands)} commands")
    for command in batch.commands:
        if isinstance(command, OpenSession) and not (
            0 < command.ttl_ms <= TTL_MS_MAX and 0 < command.max_sessions <= SESSIONS_MAX
        ):
            raise MalformedPayloadError(f"a session that cannot be: {command}")


def _field(tag: bytes, content: bytes) -> bytes:
    """Write a field of bytes, or nothing where it is empty (protobuf's wire format)."""
    return tag + _varint(len(content)) + content if content else b""


def _varint(number: int) -> bytes:
    """Write ``number`` in base 128, low digits first (protobuf's wire format)."""
    if number < 0x80:
        return _SMALL[number]
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SMALL = [bytes((number,)) for number in range(0x80)]
