"""Client sessions: each write of one is applied once, and keeps its answer (thesis §6.3).

A session's record holds all there is of it, its newest answers included. Its sequence numbers
follow each other without a gap, so the answers it holds are those of the last few numbers, in
order.

A session ends when its ttl has passed, by the state machine's clock, since it was used last, or
since the last term began if that was later: while nobody leads, no client can use its session.

In memory lie the records, in the order in which the sessions were last used, which is the same on
all members: each use puts its place in the log (``used_at``) into the record. In the store, the
records of a few sessions that were opened one after the other share a *page*: a batch of many
sessions' writes then changes few records of the store, which is what such a write costs most.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from anchor.fsm.answers import (
    ANSWER_BYTES,
    LAYOUT,
    encode_answer,
    refusal,
    replay,
)
from anchor.fsm.commands import (
    PLACE_BITS,
    CloseSession,
    InSession,
    KeepAlive,
    OpenSession,
    Result,
    SessionResult,
    Status,
    Write,
)
from anchor.fsm.errors import MalformedStateError
from anchor.fsm.records import FORMAT, SESSION_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANSWERS_KEPT = 32
SESSIONS_IN_PAGE = 16
NEVER_MS = 2**63

_FORMAT = bytes((FORMAT,))
_HEADER_LAYOUT = ">QBQQQQQQ"  # see Session
_HEADER = struct.Struct(_HEADER_LAYOUT)
_HEADER_BYTES = _HEADER.size
# A client that waits for each answer before it writes again leaves one to keep.
_WITH_ONE_ANSWER = struct.Struct(_HEADER_LAYOUT + LAYOUT)


class Session(NamedTuple):
    """What a record says before its answers."""

    number: int
    answers: int
    token: int
    ttl_ms: int
    used_ms: int
    used_at: int
    sequence: int  # the highest
    acknowledged: int


class Sessions:
    """All sessions, the one unused for longest first."""

    def __init__(self, stored: Iterator[tuple[bytes, bytes]]) -> None:
        start = len(SESSION_PREFIX)
        self.pages: dict[int, tuple[int, ...]] = {}  # which sessions each has, the oldest first
        self.page_of: dict[int, int] = {}
        loaded: list[bytes] = []
        for key, page_record in stored:
            page = int.from_bytes(key[start:], "big")
            records = list(_records_in(page_record))
            loaded += records
            self.pages[page] = tuple(decode(record).number for record in records)
            self.page_of |= dict.fromkeys(self.pages[page], page)
        loaded.sort(key=lambda record: decode(record).used_at)
        self.records: dict[int, bytes] = {decode(record).number: record for record in loaded}
        # No session ends before that: most of the time there is nothing to look for.
        self.none_ends_before_ms = 0 if loaded else NEVER_MS

    def accept(self, draft: SessionsDraft) -> None:
        """Follow the store, which has the draft now."""
        for number in draft.ended:
            self.records.pop(number, None)
            self.page_of.pop(number, None)
        for number, record in draft.used.items():
            self.records.pop(number, None)
            self.records[number] = record
        for page, numbers in draft.pages.items():
            self.page_of |= dict.fromkeys(numbers, page)
            if numbers:
                self.pages[page] = numbers
            else:
                self.pages.pop(page, None)
        self.none_ends_before_ms = draft.none_ends_before_ms


class SessionsDraft:
    """What becomes of the sessions, before anything is changed.

    ``trace`` is what the present entry adds to the digest; ``clock_ms``, ``grace_ms`` and
    ``index`` belong to that entry.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._before = sessions
        self._records = sessions.records
        self.used: dict[int, bytes] = {}  # in the order of use
        self.ended: set[int] = set()
        self._unused = iter(sessions.records)  # all before it were used or ended meanwhile
        self.pages: dict[int, tuple[int, ...]] = {}  # those that have other sessions than before
        self._page_of: dict[int, int] = {}  # of those opened here
        # In the order in which they were begun: sessions are opened at ever later places.
        self._newest_page = next(reversed(sessions.pages), None)
        self._count = len(sessions.records)
        self.none_ends_before_ms = sessions.none_ends_before_ms
        self.clock_ms = self.grace_ms = self.index = 0
        self.trace: list[bytes] = []

    # ----------------------------------------------------------------- commands

    def write(
        self, write: Write, once: InSession, position: int, act: Callable[[Write], Result]
    ) -> Result:
        """Act if this is the session's next write; else give the first answer, or say why not."""
        number, token, sequence, acknowledged, fingerprint = once
        record = self.used.get(number)
        if record is None and number not in self.ended:
            record = self._records.get(number)
        if record is None:
            return refusal(Status.NO_SESSION)
        _, answers, its_token, ttl_ms, _, _, last, before = _HEADER.unpack_from(record)
        if token != its_token:
            return refusal(Status.NO_SESSION)
        if sequence != last + 1:
            if sequence > last:
                return refusal(Status.SEQUENCE_GAP)
            return _first_answer(record, once, decode(record))
        result = act(write)
        used_at = self.index << PLACE_BITS | position
        if acknowledged >= last:
            # Nothing is called here that need not be: every write of a session comes this way.
            existed, create_index, mod_index, version, status, _ = result
            record = _WITH_ONE_ANSWER.pack(
                number, 1, token, ttl_ms, self.clock_ms, used_at, sequence, last,
                fingerprint, status << 1 | existed, create_index, mod_index, version,
            )  # fmt: skip
        else:
            acknowledged = max(before, acknowledged)
            kept = min(last - acknowledged, answers, ANSWERS_KEPT - 1)
            header = _HEADER.pack(
                number, kept + 1, token, ttl_ms, self.clock_ms, used_at, sequence, acknowledged
            )
            newest = record[len(record) - kept * ANSWER_BYTES :]
            record = header + newest + encode_answer(fingerprint, result)
        self._use(number, record)
        return result

    def open(self, command: OpenSession, position: int) -> SessionResult:
        """Let there be one more, and end others if that is too many."""
        number = self.index << PLACE_BITS | position
        while self._count >= max(1, command.max_sessions):
            self._end(self._longest_unused())
        ttl_ms, token, _ = command
        record = encode(Session(number, 0, token, ttl_ms, self.clock_ms, number, 0, 0))
        self._count += 1
        self._put_on_a_page(number)
        self._use(number, record)
        self.none_ends_before_ms = min(self.none_ends_before_ms, self._end_ms(record))
        return SessionResult(number, ttl_ms)

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

    def finish(self, changes: dict[bytes, bytes | None]) -> None:
        """Add the pages that differ to the changes of the store."""
        used, before = self.used, self._before
        if self._page_of or self.ended:
            pages = {self._page(number) for number in (*used, *self.ended)}
        else:
            pages = {before.page_of[number] for number in used}
        for page in pages:
            numbers = self._numbers_on(page)
            records = [used.get(number) or before.records[number] for number in numbers]
            key = SESSION_PREFIX + page.to_bytes(8, "big")
            changes[key] = b"".join((_FORMAT, *records)) if records else None

    # ----------------------------------------------------------------- the records

    def _find(self, number: int, token: int) -> bytes | None:
        record = self.used.get(number)
        if record is None and number not in self.ended:
            record = self._records.get(number)
        return record if record is not None and decode(record).token == token else None

    def _use(self, number: int, record: bytes) -> None:
        if number in self.used:
            del self.used[number]  # it comes last now
        self.used[number] = record
        self.trace.append(record)

    def _end(self, number: int) -> None:
        page = self._page(number)
        self.pages[page] = tuple(each for each in self._numbers_on(page) if each != number)
        self.used.pop(number, None)
        self.ended.add(number)
        self._count -= 1
        self.trace.append(b"e%d " % number)

    def _alive(self) -> Iterator[tuple[int, bytes]]:
        for number, record in self._records.items():
            if number not in self.used and number not in self.ended:
                yield number, record
        yield from self.used.items()

    def _longest_unused(self) -> int:
        for number in self._unused:
            if number not in self.used and number not in self.ended:
                return number
        return next(iter(self.used))

    def _end_ms(self, record: bytes) -> int:
        session = decode(record)
        return max(session.used_ms, self.grace_ms) + session.ttl_ms

    # ----------------------------------------------------------------- the pages

    def _put_on_a_page(self, number: int) -> None:
        """On the newest page that is left if it has room, else on one of its own."""
        page = self._newest_page
        if page is None or not self._numbers_on(page):
            pages = {**self._before.pages, **self.pages}
            page = max((page for page, numbers in pages.items() if numbers), default=None)
        if page is None or len(self._numbers_on(page)) >= SESSIONS_IN_PAGE:
            page = number
        self._newest_page = page
        self.pages[page] = (*self._numbers_on(page), number)
        self._page_of[number] = page

    def _page(self, number: int) -> int:
        page = self._page_of.get(number)
        return self._before.page_of[number] if page is None else page

    def _numbers_on(self, page: int) -> tuple[int, ...]:
        numbers = self.pages.get(page)
        return self._before.pages.get(page, ()) if numbers is None else numbers


def encode(session: Session) -> bytes:
    """Write the part of a record that comes before the answers."""
    return _HEADER.pack(*session)


def decode(record: bytes) -> Session:
    """Read that part."""
    return Session._make(_HEADER.unpack_from(record))


def _records_in(page_record: bytes) -> Iterator[bytes]:
    """Take a page apart; raises MalformedStateError."""
    if page_record[:1] != _FORMAT:
        raise MalformedStateError(
            f"a page of sessions is of format {page_record[:1].hex()}; this version knows {FORMAT}"
        )
    begin = len(_FORMAT)
    while begin < len(page_record):
        end = begin + _HEADER_BYTES
        if end <= len(page_record):
            end += ANSWER_BYTES * decode(page_record[begin:end]).answers
        if end > len(page_record):
            raise MalformedStateError(f"a page of sessions is cut at {len(page_record)} bytes")
        yield page_record[begin:end]
        begin = end


def _first_answer(record: bytes, once: InSession, session: Session) -> Result:
    first = session.sequence - session.answers + 1
    if once.sequence < first or once.sequence <= session.acknowledged:
        return refusal(Status.SEQUENCE_FORGOTTEN)
    offset = _HEADER_BYTES + (once.sequence - first) * ANSWER_BYTES
    return replay(record, offset, once.fingerprint)
