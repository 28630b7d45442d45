"""The state machine itself.

One call of ``apply`` works on a :class:`_Draft`: the changes so far, seen by the entries after
them, and nothing of the state machine touched. Only when the store has taken the whole draft do
the state machine's own fields follow; an error on the way leaves everything as it was.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, Protocol

from anchor.fsm import records
from anchor.fsm.codec import decode_batch
from anchor.fsm.commands import (
    Command,
    InSession,
    KeepAlive,
    OpenSession,
    Result,
    SessionResult,
    Status,
    Write,
)
from anchor.fsm.errors import FsmError, MalformedPayloadError, OutOfOrderError
from anchor.fsm.records import Applied, KeyValue, Origin
from anchor.fsm.remembered_keys import NEVER_MS, KeysDraft, RememberedKeys
from anchor.fsm.sessions import Sessions, SessionsDraft

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ORIGINS_KEPT = 256
DIGESTS_KEPT = 4096

# What has run out ends with the first entry of each second of the clock.
EXPIRY_MS = 1000


class EntryKind(IntEnum):
    """The kinds of entries, by the same numbers as the log's own."""

    NOOP = 0
    COMMAND = 1
    CONFIGURATION = 2


class AppliedEntry(Protocol):
    """A committed log entry (``raft.Entry`` is one)."""

    @property
    def index(self) -> int:
        """Its place in the log."""
        ...

    @property
    def term(self) -> int:
        """The term of the leader that appended it."""
        ...

    @property
    def kind(self) -> int:
        """One of EntryKind's numbers."""
        ...

    @property
    def payload(self) -> bytes:
        """What its kind says it is."""
        ...


class StateStore(Protocol):
    """An ordered map of bytes that takes many changes at once, or none of them."""

    def get(self, key: bytes) -> bytes | None:
        """Give the record at ``key``."""
        ...

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Make all changes or none; None deletes, whether it was there or not."""
        ...

    def iterate(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Give all keys that start with ``prefix``, from ``start`` on, in order, with records."""
        ...


class BatchOutcome(NamedTuple):
    """What a batch did: a result for each command, in order; none if it was ``replayed``."""

    origin: int
    number: int
    results: list[Result | SessionResult]
    replayed: bool


class StateMachine:
    """Applies the log to a store, and reads from it. See the package's manual."""

    def __init__(self, store: StateStore) -> None:
        self.load(store)

    def load(self, store: StateStore) -> None:
        """Be as this store has it, and go on with it: a snapshot takes the place of the state."""
        self._store = store
        record = store.get(records.APPLIED_KEY)
        applied = Applied(0, 0, bytes(records.DIGEST_BYTES))
        if record is not None:
            applied = records.decode_applied(record)
        self._follow(applied)
        self.configuration: bytes | None = None
        self.configuration_index = 0
        record = store.get(records.CONFIGURATION_KEY)
        if record is not None:
            self.configuration_index, self.configuration = records.decode_configuration(record)
        # Ordered by the index of the last batch, the oldest first: an origin moves to the end
        # when a batch of it is applied.
        self._origins = _load_origins(store)
        self._sessions = Sessions(store.iterate(records.SESSION_PREFIX))
        self._keys = RememberedKeys(
            applied.remembered_keys, 0 if applied.remembered_keys else NEVER_MS
        )
        # The digest after index i stands at i % DIGESTS_KEPT, with i beside it.
        self._digests: list[tuple[int, bytes]] = [(-1, b"")] * DIGESTS_KEPT
        self._remember_digest(applied.last_index, applied.digest)

    def get(self, key: bytes) -> KeyValue | None:
        """Give what ``key`` holds after the last applied entry. A few µs."""
        record = self._store.get(b"k" + key)
        return None if record is None else records.decode_value(record)

    def last_number(self, origin: int) -> int:
        """Give the number of the last batch of an origin that was applied; 0 if none is known."""
        seen = self._origins.get(origin)
        return 0 if seen is None else seen.number

    @property
    def session_count(self) -> int:
        """How many sessions there are."""
        return len(self._sessions.records)

    @property
    def nothing_ends_before_ms(self) -> int:
        """No session and no idempotency key ends before the clock says so; a lower bound."""
        return min(self._sessions.none_ends_before_ms, self._keys.none_ends_before_ms)

    def digest_at(self, index: int) -> bytes | None:
        """Give the digest after the entry at ``index``, if that is among the last few thousand.

        After a restart only the newest is known.
        """
        found, digest = self._digests[index % DIGESTS_KEPT]
        return digest if found == index else None

    def apply(self, entries: Sequence[AppliedEntry]) -> list[BatchOutcome | None]:
        """Apply ``entries``, which follow the last applied one, as one change of the store.

        Gives an outcome for each command entry and None for the others. Raises FsmError when an
        entry cannot be applied, and whatever the store raises; nothing has changed then.
        """
        if not entries:
            return []
        draft = _Draft(self)
        outcomes = [draft.apply(entry) for entry in entries]
        self._store.write(draft.finish())
        self._accept(draft)
        return outcomes

    def _accept(self, draft: _Draft) -> None:
        """Follow the store, which has the draft now."""
        for index, digest in draft.digests:
            self._remember_digest(index, digest)
        self._follow(draft.applied)
        self._sessions.accept(draft.sessions)
        self._keys = draft.keys.known()
        if draft.configuration is not None:
            self.configuration_index, self.configuration = draft.configuration
        if draft.origins is not None:
            self._origins = draft.origins

    def _follow(self, applied: Applied) -> None:
        self.applied_index, self.applied_term, self.digest = applied[:3]
        self.clock_ms = applied.clock_ms
        self._grace_ms = applied.grace_ms

    def _remember_digest(self, index: int, digest: bytes) -> None:
        self._digests[index % DIGESTS_KEPT] = (index, digest)


class _Draft:
    """The changes that some entries make, before anything is changed."""

    def __init__(self, machine: StateMachine) -> None:
        # One thing in two classes: the draft sees what the machine keeps to itself.
        self._get_stored = machine._store.get  # noqa: SLF001
        self._known_origins = machine._origins  # noqa: SLF001
        self._changes: dict[bytes, bytes | None] = {}
        self.applied_index, self.applied_term = machine.applied_index, machine.applied_term
        self._index = 0  # of the present entry
        self._trace: list[bytes] = []  # what that does, for the digest
        self.digest = machine.digest
        self._clock_ms, self._grace_ms = machine.clock_ms, machine._grace_ms  # noqa: SLF001
        self.origins: dict[int, Origin] | None = None
        self.sessions = SessionsDraft(machine._sessions)  # noqa: SLF001
        self.keys = KeysDraft(
            machine._keys,  # noqa: SLF001
            self._record,
            machine._store.iterate,  # noqa: SLF001
            self._changes,
        )
        self.configuration: tuple[int, bytes] | None = None
        self.digests: list[tuple[int, bytes]] = []

    @property
    def applied(self) -> Applied:
        """How far it goes, and what goes with it."""
        return Applied(
            self.applied_index,
            self.applied_term,
            self.digest,
            self._clock_ms,
            self._grace_ms,
            self.keys.count,
        )

    def apply(self, entry: AppliedEntry) -> BatchOutcome | None:
        """Add what one entry does."""
        self._check_order(entry)
        outcome: BatchOutcome | None = None
        self._index, self._trace = entry.index, []
        if entry.term != self.applied_term:
            # No client could use its session while nobody led.
            self._grace_ms = self._clock_ms
        if entry.kind == EntryKind.COMMAND:
            outcome = self._apply_batch(entry.payload)
        elif entry.kind == EntryKind.CONFIGURATION:
            self.configuration = (entry.index, entry.payload)
        elif entry.kind != EntryKind.NOOP:
            raise FsmError(
                f"entry {entry.index} is of kind {entry.kind:d}, unknown to this version"
            )
        self._advance(entry)
        return outcome

    def finish(self) -> dict[bytes, bytes | None]:
        """Give all changes, with the records that say how far they go."""
        if self.configuration is not None:
            self._changes[records.CONFIGURATION_KEY] = records.encode_configuration(
                *self.configuration
            )
        self.sessions.finish(self._changes)
        self._changes[records.APPLIED_KEY] = records.encode_applied(self.applied)
        return self._changes

    def _check_order(self, entry: AppliedEntry) -> None:
        if entry.index != self.applied_index + 1:
            raise OutOfOrderError(
                f"entry {entry.index} cannot be applied after entry {self.applied_index}"
            )
        if entry.term < self.applied_term:
            raise OutOfOrderError(
                f"entry {entry.index} is of term {entry.term}, "
                f"the one before it of {self.applied_term}"
            )

    def _apply_batch(self, payload: bytes) -> BatchOutcome:
        try:
            origin, number, clock_ms, commands = decode_batch(payload)
        except MalformedPayloadError as error:
            raise MalformedPayloadError(f"entry {self._index}: {error}") from None
        self._set_clock(clock_ms)
        replayed = not self._is_new(origin, number)
        results: list[Result | SessionResult] = []
        if not replayed:
            results = [self._do(command, place) for place, command in enumerate(commands)]
        self._trace.append(b"r" if replayed else b"a")
        return BatchOutcome(origin, number, results, replayed)

    def _set_clock(self, clock_ms: int) -> None:
        """Let time pass; whatever a leader says, it does not go back."""
        before_ms = self._clock_ms
        self._clock_ms = max(before_ms, clock_ms)
        for part in (self.sessions, self.keys):
            part.clock_ms, part.trace = self._clock_ms, self._trace
        self.sessions.grace_ms, self.sessions.index = self._grace_ms, self._index
        if self._clock_ms // EXPIRY_MS != before_ms // EXPIRY_MS:
            self.sessions.expire()
            self.keys.expire()

    def _do(self, command: Command, place: int) -> Result | SessionResult:
        """Do one command, which has this place in its batch."""
        if isinstance(command, Write):
            once = command.once
            if once is None:
                return self._write(command)
            if isinstance(once, InSession):
                return self.sessions.write(command, once, place, self._write)
            return self.keys.write(command, once, self._write)
        if isinstance(command, OpenSession):
            return self.sessions.open(command, place)
        if isinstance(command, KeepAlive):
            return self.sessions.keep_alive(command, place)
        return self.sessions.close(command)

    def _write(self, write: Write) -> Result:
        """Write, if the key is as it shall be."""
        key, value, condition, _ = write
        stored_key = records.KEY_PREFIX + key
        previous = self._record(stored_key)
        if condition is not None:
            found = (0, 0, 0) if previous is None else records.unpack_value_header(previous)
            if not condition.holds(found[1]):
                return Result(previous is not None, *found, Status.CONDITION_FAILED)
        if value is None:
            return self._delete(stored_key, previous)
        return self._put(stored_key, value, previous)

    def _put(self, stored_key: bytes, value: bytes, previous: bytes | None) -> Result:
        index = self._index
        if previous is None:
            create_index, version = index, 1
        else:
            create_index, _, version = records.unpack_value_header(previous)
            version += 1
        header = records.pack_value_header(records.FORMAT, create_index, index, version)
        self._changes[stored_key] = header + value
        self._trace.append(header)
        return Result(previous is not None, create_index, index, version)

    def _delete(self, stored_key: bytes, previous: bytes | None) -> Result:
        if previous is not None:
            self._changes[stored_key] = None
            self._trace.append(previous[: records.VALUE_HEADER_BYTES])
        return Result(previous is not None, 0, self._index, 0)

    def _record(self, stored_key: bytes) -> bytes | None:
        """Give a record as the commands before this one leave it."""
        if stored_key in self._changes:
            return self._changes[stored_key]
        return self._get_stored(stored_key)

    def _is_new(self, origin: int, number: int) -> bool:
        """Whether this batch was not applied before; if so, remember that it is now."""
        if not origin:
            return True
        origins = self._known_origins if self.origins is None else self.origins
        seen = origins.get(origin)
        if seen is not None and number <= seen.number:
            return False
        if self.origins is None:
            origins = self.origins = origins.copy()
        origins.pop(origin, None)
        origins[origin] = Origin(number, self._index)
        self._changes[_origin_key(origin)] = records.encode_origin(origins[origin])
        if len(origins) > ORIGINS_KEPT:
            oldest = next(iter(origins))
            del origins[oldest]
            self._changes[_origin_key(oldest)] = None
        return True

    def _advance(self, entry: AppliedEntry) -> None:
        """Extend the digest's chain by the entry and by what it did."""
        chain = blake2b(self.digest, digest_size=records.DIGEST_BYTES)
        chain.update(b"%d %d %d %d " % (entry.index, entry.term, entry.kind, len(entry.payload)))
        chain.update(entry.payload)
        chain.update(b"".join(self._trace))
        self.digest = chain.digest()
        self.digests.append((entry.index, self.digest))
        self.applied_index, self.applied_term = entry.index, entry.term


def _origin_key(origin: int) -> bytes:
    return records.ORIGIN_PREFIX + origin.to_bytes(8, "big")


def _load_origins(store: StateStore) -> dict[int, Origin]:
    """Read the origins, the one heard of longest ago first."""
    start = len(records.ORIGIN_PREFIX)
    loaded = [
        (int.from_bytes(key[start:], "big"), records.decode_origin(record))
        for key, record in store.iterate(records.ORIGIN_PREFIX)
    ]
    return dict(sorted(loaded, key=lambda item: item[1].entry_index))
