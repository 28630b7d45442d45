"""What a log entry may ask of the state machine, and what comes of it."""

from __future__ import annotations

from enum import IntEnum
from hashlib import blake2b
from typing import NamedTuple, TypeAlias
from zlib import crc32

_PUT, _DELETE = 1, 2


PLACE_BITS = 20
"""A session's number is where it was opened: the entry's index, and its place in the batch."""

PLACES = 1 << PLACE_BITS

SESSIONS_MAX = 100_000
"""More than that, and looking for those that have ended would hold everything else up."""

TTL_MS_MAX = 86_400_000


class Condition(NamedTuple):
    """How a key has to be for a write of it to happen; every part that is set has to hold."""

    mod_indexes: tuple[int, ...] = ()  # one of these is its mod_index
    absent: bool = False
    present: bool = False

    def holds(self, mod_index: int) -> bool:
        """Whether it holds for a key with this mod_index, 0 for one that is not there."""
        if self.mod_indexes and mod_index not in self.mod_indexes:
            return False
        return not (self.absent and mod_index) and not (self.present and not mod_index)


class InSession(NamedTuple):
    """A write of a session (thesis §6.3): applied once for each sequence number, in their order.

    The session is named by its number and by its token (64 bits each). Answers up to
    ``acknowledged`` may be forgotten. The ``fingerprint`` tells one request from another.
    """

    session: int
    token: int
    sequence: int
    acknowledged: int
    fingerprint: int


class ByKey(NamedTuple):
    """A write that is applied once for each key, of which this is the digest (16 bytes)."""

    digest: bytes
    fingerprint: int


class Write(NamedTuple):
    """``key`` shall have ``value``, or not be there if that is None."""

    key: bytes
    value: bytes | None
    condition: Condition | None = None
    once: InSession | ByKey | None = None


class OpenSession(NamedTuple):
    """Let there be one more session; over the maximum, the one unused for longest ends."""

    ttl_ms: int
    token: int
    max_sessions: int


class KeepAlive(NamedTuple):
    """The session is still used."""

    session: int
    token: int


class CloseSession(NamedTuple):
    """The session is not needed any more."""

    session: int
    token: int


Command: TypeAlias = Write | OpenSession | KeepAlive | CloseSession


class Status(IntEnum):
    """What became of a command. Whatever is not DONE changed no key.

    Only the first two are answers that are remembered; the others leave no trace at all. The
    numbers stand in records: they stay.
    """

    DONE = 0
    CONDITION_FAILED = 1
    NO_SESSION = 2  # it has ended, or there never was one with this number and token
    SEQUENCE_GAP = 3  # an earlier write of the session is missing
    SEQUENCE_FORGOTTEN = 4  # applied, and its answer was acknowledged or is too old
    REUSED = 5  # the sequence number, or the key, was another request's
    TOO_MANY_KEYS = 6  # are remembered already


class Result(NamedTuple):
    """What one write did. ``existed``: the key had a value before.

    ``create_index`` and ``version`` are the key's own now; both are 0 once it is deleted. If the
    condition failed, all four say how the key was, 0 if it was not there. ``replayed``: this copy
    of the write did nothing, and the answer is that of the first.
    """

    existed: bool
    create_index: int
    mod_index: int
    version: int
    status: Status = Status.DONE
    replayed: bool = False


class SessionResult(NamedTuple):
    """What a command about a session did: its number and how long it lives unused, or a status."""

    number: int
    ttl_ms: int
    status: Status = Status.DONE


def fingerprint_of(key: bytes, value: bytes | None, condition: Condition | None) -> int:
    """Fingerprint of a request, 64 bits: a client that sends another by mistake is told so.

    It guards against mistakes, not against malice, and is taken of every write of a session.
    """
    # With another start, the same bytes never have the same checksum.
    start = _PUT if value is not None else _DELETE
    if condition is not None:
        start = crc32(repr(tuple(condition)).encode(), start)
    return crc32(key, start) << 32 | crc32(value or b"")


def digest_of_key(idempotency_key: bytes) -> bytes:
    """Digest of what a client calls its request, 16 bytes."""
    return blake2b(idempotency_key, digest_size=16).digest()
