"""Client sessions: each write of one is applied once, and keeps its answer (thesis §6.3).

A session's record holds all there is of it, its newest answers included. Its sequence numbers
follow each other without a gap, so the answers it holds are those of the last few numbers, in
order. The records lie in memory too, in the order in which the sessions were last used, which is
the same on all members: each use puts its place in the log (``used_at``) into the record.

A session ends when its ttl has passed, by the state machine's clock, since it was used last, or
since the last term began if that was later: while nobody leads, no client can use its session.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from anchor.fsm.answers import ANSWER_BYTES, encode_answer, refusal, replay
from anchor.fsm.commands import (
    CloseSession,
    InSession,
    KeepAlive,
    OpenSession,
    Result,
    SessionResult,
    Status,
)
from anchor.fsm.errors import MalformedStateError
from anchor.fsm.records import FORMAT, SESSION_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANSWERS_KEPT = 32
NEVER_MS = 2**63

# A session's number is where it was opened: the entry's index, and the place in its batch.
PLACE_BITS = 20

# Format, token, ttl_ms, used_ms, used_at, the highest sequence number, the acknowledged one.
_SESSION = struct.Struct(">BQQQQQQ")
_pack = _SESSION.pack
_HEADER_BYTES = _SESSION.size


class Session(NamedTuple):
    """What a record says before its answers."""

    token: int
    ttl_ms: int
    used_ms: int
    used_at: int
    sequence: int
    acknowledged: int


class Sessions:
    """All sessions, the one unused for longest first."""

    def __init__(self, stored: Iterator[tuple[bytes, bytes]]) -> None:
        start = len(SESSION_PREFIX)
        loaded = [(int.from_bytes(key[start:], "big"), record) for key, record in stored]
        loaded.sort(key=lambda item: decode(item[1]).used_at)
        self.records: dict[int, bytes] = dict(loaded)
        # No session ends before that: most of the time there is nothing to look for.
        self.none_ends_before_ms = 0 if loaded else NEVER_MS

    def accept(self, draft: SessionsDraft) -> None:
        """Follow the store, which has the draft now."""
        for number, record in draft.used.items():
            self.records.pop(number, None)
            if record is not None:
                self.records[number] = record
        self.none_ends_before_ms = draft.none_ends_before_ms


class SessionsDraft:
    """What becomes of the sessions, before anything is changed.

    ``changes`` are those of the store, ``trace`` what the present entry adds to the digest;
    ``clock_ms``, ``grace_ms`` and ``index`` belong to the present entry.
    """

    def __init__(self, sessions: Sessions, changes: dict[bytes, bytes | None]) -> None:
        self._records = sessions.records
        self._changes = changes
        self.used: dict[int, bytes | None] = {}  # in the order of use; None: it has ended
        self._count = len(sessions.records)
        self.none_ends_before_ms = sessions.none_ends_before_ms
        self.clock_ms = self.grace_ms = self.index = 0
        self.trace: list[bytes] = []

    # ----------------------------------------------------------------- commands

    def write(self, once: InSession, position: int, act: Callable[[], Result]) -> Result:
        """Act if this is the session's next write; else give the first answer, or say why not."""
        record = self._find(once.session, once.token)
        if record is None:
            return refusal(Status.NO_SESSION)
        _, token, ttl_ms, _, _, last, acknowledged = _SESSION.unpack_from(record)
        if once.sequence != last + 1:
            if once.sequence > last:
                return refusal(Status.SEQUENCE_GAP)
            return _first_answer(record, once, last, acknowledged)
        result = act()
        acknowledged = max(acknowledged, min(once.acknowledged, last))
        kept = b"" if acknowledged == last else _unacknowledged(record, last, acknowledged)
        used_at = self.index << PLACE_BITS | position
        header = _pack(FORMAT, token, ttl_ms, self.clock_ms, used_at, last + 1, acknowledged)
        self._use(once.session, header + kept + encode_answer(once.fingerprint, result))
        return result

    def open(self, command: OpenSession, position: int) -> SessionResult:
        """Let there be one more, and end others if that is too many."""
        number = self.index << PLACE_BITS | position
        while self._count >= max(1, command.max_sessions):
            self._end(self._longest_unused())
        record = _pack(FORMAT, command.token, command.ttl_ms, self.clock_ms, number, 0, 0)
        self._count += 1
        self._use(number, record)
        self.none_ends_before_ms = min(self.none_ends_before_ms, self._end_ms(record))
        return SessionResult(number, command.ttl_ms)

    def keep_alive(self, command: KeepAlive, position: int) -> SessionResult:
        """Start its ttl anew."""
        record = self._find(*command)
        if record is None:
            return SessionResult(command.session, 0, Status.NO_SESSION)
        session = decode(record)
        used_at = self.index << PLACE_BITS | position
        header = encode(session._replace(used_ms=self.clock_ms, used_at=used_at))
        self._use(command.session, header + record[_HEADER_BYTES:])
        return SessionResult(command.session, session.ttl_ms)

    def close(self, command: CloseSession) -> SessionResult:
        """Forget it."""
        if self._find(*command) is None:
            return SessionResult(command.session, 0, Status.NO_SESSION)
        self._end(command.session)
        return SessionResult(command.session, 0)

    def expire(self) -> None:
        """End those whose time is up."""
        if self.clock_ms < self.none_ends_before_ms:
            return
        ends = {number: self._end_ms(record) for number, record in self._alive()}
        for number in sorted(number for number, end_ms in ends.items() if end_ms <= self.clock_ms):
            del ends[number]
            self._end(number)
        self.none_ends_before_ms = min(ends.values(), default=NEVER_MS)

    # ----------------------------------------------------------------- the records

    def _find(self, number: int, token: int) -> bytes | None:
        record = self.used[number] if number in self.used else self._records.get(number)
        if record is None or int.from_bytes(record[1:9], "big") != token:
            return None
        return record

    def _use(self, number: int, record: bytes) -> None:
        self.used.pop(number, None)
        self.used[number] = record
        self._changes[SESSION_PREFIX + number.to_bytes(8, "big")] = record
        self.trace.append(record)

    def _end(self, number: int) -> None:
        key = SESSION_PREFIX + number.to_bytes(8, "big")
        self.used[number] = self._changes[key] = None
        self._count -= 1
        self.trace.append(key)

    def _alive(self) -> Iterator[tuple[int, bytes]]:
        """All that have not ended, the one unused for longest first."""
        for number, record in self._records.items():
            if number not in self.used:
                yield number, record
        for number, used in self.used.items():
            if used is not None:
                yield number, used

    def _longest_unused(self) -> int:
        return next(self._alive())[0]

    def _end_ms(self, record: bytes) -> int:
        session = decode(record)
        return max(session.used_ms, self.grace_ms) + session.ttl_ms


def encode(session: Session) -> bytes:
    """Write the part of a record that comes before the answers."""
    return _pack(FORMAT, *session)


def decode(record: bytes) -> Session:
    """Read that part; raises MalformedStateError."""
    answers, odd = divmod(len(record) - _HEADER_BYTES, ANSWER_BYTES)
    if answers < 0 or odd:
        raise MalformedStateError(f"a session's record of {len(record)} bytes")
    found, *fields = _SESSION.unpack_from(record)
    if found != FORMAT:
        raise MalformedStateError(
            f"a session's record is of format {found}; this version knows {FORMAT}"
        )
    return Session(*fields)


def _first_answer(record: bytes, once: InSession, last: int, acknowledged: int) -> Result:
    first = last - (len(record) - _HEADER_BYTES) // ANSWER_BYTES + 1
    if once.sequence < first or once.sequence <= acknowledged:
        return refusal(Status.SEQUENCE_FORGOTTEN)
    offset = _HEADER_BYTES + (once.sequence - first) * ANSWER_BYTES
    return replay(record, offset, once.fingerprint)


def _unacknowledged(record: bytes, last: int, acknowledged: int) -> bytes:
    """The answers to keep beside the next one."""
    count = min(last - acknowledged, ANSWERS_KEPT - 1)
    return record[max(_HEADER_BYTES, len(record) - count * ANSWER_BYTES) :]
