"""Idempotency keys: a write that brings one is applied once for it, and its answer kept a while.

Clients draw them anew for each request and never say when they are done with one, so there may be
many: they lie in the store alone. A second record of each, ordered by the time at which it is
forgotten, tells which are due.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from anchor.fsm.answers import ANSWER_BYTES, encode_answer, refusal, replay
from anchor.fsm.commands import ByKey, Result, Status, Write
from anchor.fsm.errors import MalformedStateError
from anchor.fsm.records import ANSWER_PREFIX, EXPIRY_PREFIX, FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEPT_MS = 600_000
KEYS_MAX = 1_000_000
NEVER_MS = 2**63

_HEADER = struct.Struct(">BQ")  # format, expires_ms
_MARK = bytes((FORMAT,))


class RememberedKeys(NamedTuple):
    """What is known of them without a look into the store."""

    number: int
    none_ends_before_ms: int
    # All that were to end by then have ended: the store need not be looked through from its
    # beginning, where deleted records lie about for a while.
    ended_to_ms: int = 0


class KeysDraft:
    """What becomes of the keys, before anything is changed. See ``SessionsDraft``.

    ``record_of`` gives a record as the draft has it, ``iterate`` what the store has.
    """

    def __init__(
        self,
        known: RememberedKeys,
        record_of: Callable[[bytes], bytes | None],
        iterate: Callable[[bytes, bytes], Iterator[tuple[bytes, bytes]]],
        changes: dict[bytes, bytes | None],
    ) -> None:
        self.count, self.none_ends_before_ms, self._ended_to_ms = known
        self._record_of = record_of
        self._iterate = iterate
        self._changes = changes
        self._added: list[bytes] = []
        self.clock_ms = 0
        self.trace: list[bytes] = []

    def known(self) -> RememberedKeys:
        """What is known once the store has the draft."""
        return RememberedKeys(self.count, self.none_ends_before_ms, self._ended_to_ms)

    def write(self, write: Write, once: ByKey, act: Callable[[Write], Result]) -> Result:
        """Act if the key is new; else give the first answer, or say why not."""
        stored_key = ANSWER_PREFIX + once.digest
        known = self._record_of(stored_key)
        if known is not None:
            expires_ms = _decode_header(known)
            if expires_ms > self.clock_ms:
                return replay(known, _HEADER.size, once.fingerprint)
            self._forget(_expiry_key(expires_ms, once.digest))
        if self.count >= KEYS_MAX:
            return refusal(Status.TOO_MANY_KEYS)
        result = act(write)
        expires_ms = self.clock_ms + KEPT_MS
        record = _HEADER.pack(FORMAT, expires_ms) + encode_answer(once.fingerprint, result)
        expiry_key = _expiry_key(expires_ms, once.digest)
        self._changes[stored_key] = record
        self._changes[expiry_key] = _MARK
        self._added.append(expiry_key)
        self.count += 1
        self.none_ends_before_ms = min(self.none_ends_before_ms, expires_ms)
        self.trace.append(record)
        return result

    def expire(self) -> None:
        """Forget those whose time is up."""
        if self.clock_ms < self.none_ends_before_ms:
            return
        due: set[bytes] = set()
        self.none_ends_before_ms = NEVER_MS
        for expiry_key in self._remembered():
            expires_ms = _expires_ms(expiry_key)
            if expires_ms > self.clock_ms:
                self.none_ends_before_ms = min(self.none_ends_before_ms, expires_ms)
            else:
                due.add(expiry_key)
        for expiry_key in sorted(due):
            self._forget(expiry_key)
        self._ended_to_ms = self.clock_ms

    def _remembered(self) -> Iterator[bytes]:
        """All that may be due, and what comes after them, from the store and from this draft."""
        yield from (key for key in self._added if self._changes[key] is not None)
        for expiry_key, _ in self._iterate(EXPIRY_PREFIX, _expiry_key(self._ended_to_ms)):
            if self._changes.get(expiry_key, _MARK) is not None:
                yield expiry_key
                if _expires_ms(expiry_key) > self.clock_ms:
                    return

    def _forget(self, expiry_key: bytes) -> None:
        self._changes[expiry_key] = None
        self._changes[ANSWER_PREFIX + expiry_key[len(EXPIRY_PREFIX) + 8 :]] = None
        self.count -= 1
        self.trace.append(expiry_key)


def _expiry_key(expires_ms: int, digest: bytes = b"") -> bytes:
    return EXPIRY_PREFIX + expires_ms.to_bytes(8, "big") + digest


def _expires_ms(expiry_key: bytes) -> int:
    start = len(EXPIRY_PREFIX)
    return int.from_bytes(expiry_key[start : start + 8], "big")


def _decode_header(record: bytes) -> int:
    if len(record) != _HEADER.size + ANSWER_BYTES or record[:1] != _MARK:
        raise MalformedStateError(f"an idempotency key's record of {len(record)} bytes is not one")
    _, expires_ms = _HEADER.unpack_from(record)
    return int(expires_ms)
