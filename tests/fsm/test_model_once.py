"""Sessions, keys and conditions against a model that does the same the simple way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchor.fsm import (
    ANSWERS_KEPT,
    KEPT_MS,
    ByKey,
    CloseSession,
    Command,
    Condition,
    InSession,
    KeepAlive,
    OpenSession,
    Result,
    SessionResult,
    StateMachine,
    Status,
    Write,
)
from anchor.fsm import sessions as sessions_module
from tests.fsm.entries import entry_of
from tests.fsm.stores import DictStore

if TYPE_CHECKING:
    from anchor.raft.entry import Entry

KEYS = st.sampled_from([b"a", b"b"])
VALUES = st.none() | st.sampled_from([b"", b"x"])
CONDITIONS = st.none() | st.builds(
    Condition,
    st.lists(st.integers(1, 12), max_size=2).map(tuple),
    st.booleans(),
    st.booleans(),
)
# Long enough to let sessions and keys end, in few steps.
STEPS_MS = st.sampled_from([0, 0, 1, 400, 1000, 5000, KEPT_MS - 1, KEPT_MS])
TTLS_MS = st.sampled_from([1000, 5000, 2 * KEPT_MS])


@dataclass
class ModelSession:
    """What one remembers."""

    ttl_ms: int
    used_ms: int
    used_at: tuple[int, int]
    answers: dict[int, tuple[int, Result]] = field(default_factory=dict)
    last: int = 0
    acknowledged: int = 0


@dataclass
class Model:
    """What the manual says, with nothing clever about it."""

    keys: dict[bytes, Result] = field(default_factory=dict)
    sessions: dict[int, ModelSession] = field(default_factory=dict)
    remembered: dict[bytes, tuple[int, int, Result]] = field(default_factory=dict)
    clock_ms: int = 0
    grace_ms: int = 0
    term: int = 0
    index: int = 0

    def apply(self, term: int, clock_ms: int, commands: list[Command]) -> list[object]:
        """Apply one entry."""
        self.index += 1
        if term != self.term:
            self.term, self.grace_ms = term, self.clock_ms
        before, self.clock_ms = self.clock_ms, max(self.clock_ms, clock_ms)
        if before // 1000 != self.clock_ms // 1000:
            self.sessions = {n: s for n, s in self.sessions.items() if not self.is_over(s)}
        return [self.do(position, command) for position, command in enumerate(commands)]

    def is_over(self, session: ModelSession) -> bool:
        """Whether its time is up."""
        return max(session.used_ms, self.grace_ms) + session.ttl_ms <= self.clock_ms

    def do(self, position: int, command: Command) -> object:
        """Do one command."""
        here = (self.index, position)
        if isinstance(command, Write):
            return self.write(here, command)
        if isinstance(command, OpenSession):
            while len(self.sessions) >= command.max_sessions:
                del self.sessions[min(self.sessions, key=lambda n: self.sessions[n].used_at)]
            number = self.index << 20 | position
            self.sessions[number] = ModelSession(command.ttl_ms, self.clock_ms, here)
            return SessionResult(number, command.ttl_ms)
        session = self.sessions.get(command.session)
        if session is None:
            return SessionResult(command.session, 0, Status.NO_SESSION)
        if isinstance(command, CloseSession):
            del self.sessions[command.session]
            return SessionResult(command.session, 0)
        session.used_ms, session.used_at = self.clock_ms, here
        return SessionResult(command.session, session.ttl_ms)

    def write(self, here: tuple[int, int], write: Write) -> Result:
        """Write once, if that is asked."""
        if write.once is None:
            return self.write_if(write)
        if isinstance(write.once, ByKey):
            return self.write_by_key(write, write.once)
        session = self.sessions.get(write.once.session)
        if session is None:
            return refused(Status.NO_SESSION)
        if write.once.sequence <= session.last:
            return first_answer(session, write.once)
        if write.once.sequence > session.last + 1:
            return refused(Status.SEQUENCE_GAP)
        result = self.write_if(write)
        session.acknowledged = max(session.acknowledged, min(write.once.acknowledged, session.last))
        session.last += 1
        session.answers[session.last] = (write.once.fingerprint, result)
        session.used_ms, session.used_at = self.clock_ms, here
        return result

    def write_by_key(self, write: Write, once: ByKey) -> Result:
        """Write once for each key."""
        if once.digest in self.remembered:
            expires_ms, fingerprint, first = self.remembered[once.digest]
            if expires_ms > self.clock_ms:
                return answer(once.fingerprint, fingerprint, first)
        result = self.write_if(write)
        self.remembered[once.digest] = (self.clock_ms + KEPT_MS, once.fingerprint, result)
        return result

    def write_if(self, write: Write) -> Result:
        """Write if the condition holds."""
        found = self.keys.get(write.key)
        mod_index = 0 if found is None else found.mod_index
        if write.condition is not None:
            wanted, absent, present = write.condition
            if (
                (wanted and mod_index not in wanted)
                or (absent and mod_index)
                or (present and not mod_index)
            ):
                known = found or refused(Status.DONE)
                return known._replace(
                    existed=found is not None, status=Status.CONDITION_FAILED, replayed=False
                )
        existed = found is not None
        if write.value is None:
            self.keys.pop(write.key, None)
            return Result(existed, 0, self.index, 0)
        create_index, version = (found.create_index, found.version) if found else (self.index, 0)
        self.keys[write.key] = Result(existed, create_index, self.index, version + 1)
        return self.keys[write.key]


def refused(status: Status) -> Result:
    """Nothing happened."""
    return Result(existed=False, create_index=0, mod_index=0, version=0, status=status)


def first_answer(session: ModelSession, once: InSession) -> Result:
    """What a session says to a write that it has seen, or forgotten."""
    kept = sorted(session.answers)[-ANSWERS_KEPT:]
    if once.sequence not in kept or once.sequence <= session.acknowledged:
        return refused(Status.SEQUENCE_FORGOTTEN)
    return answer(once.fingerprint, *session.answers[once.sequence])


def answer(fingerprint: int, remembered: int, first: Result) -> Result:
    """The first answer, if it is this request's."""
    if fingerprint != remembered:
        return refused(Status.REUSED)
    return first._replace(replayed=True)


@st.composite
def commands(draw: st.DrawFn, model: Model) -> list[Command]:
    """Draw a batch that makes sense often enough; no key twice in it."""
    drawn: list[Command] = []
    free = [b"a", b"b"]
    numbers = st.sampled_from([*model.sessions, 1 << 20])
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["write"] * 5 + ["open", "open", "keep", "close"]))
        if kind == "open":
            drawn.append(OpenSession(draw(TTLS_MS), 5, draw(st.integers(1, 3))))
        elif kind == "keep":
            drawn.append(KeepAlive(draw(numbers), 5))
        elif kind == "close":
            drawn.append(CloseSession(draw(numbers), 5))
        elif free:
            key = free.pop(draw(st.integers(0, len(free) - 1)))
            once: InSession | ByKey | None = None
            fingerprint = draw(st.sampled_from([1, 1, 1, 2]))
            if draw(st.booleans()):
                number = draw(numbers)
                last = model.sessions[number].last if number in model.sessions else 0
                sequence = max(0, last + 1 + draw(st.sampled_from([0, 0, 0, -1, -2, 1])))
                acknowledged = draw(st.integers(0, max(0, sequence - 1)))
                once = InSession(number, 5, sequence, acknowledged, fingerprint)
            elif draw(st.booleans()):
                once = ByKey(draw(st.sampled_from([b"x" * 16, b"y" * 16])), fingerprint)
            drawn.append(Write(key, draw(VALUES), draw(CONDITIONS), once))
    return drawn


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three sessions need two pages of the store."""
    monkeypatch.setattr(sessions_module, "SESSIONS_IN_PAGE", 2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_machine_and_model_agree_however_the_log_is_cut(data: st.DataObject) -> None:
    """Each command has the model's result.

    And a member that gets the log in pieces, and starts over between them, has the same records.
    """
    model, store = Model(), DictStore()
    log: list[Entry] = []
    machine = StateMachine(store)
    term = clock_ms = 1
    for index in range(1, data.draw(st.integers(1, 12), label="entries") + 1):
        term += data.draw(st.sampled_from([0, 0, 0, 1]), label="terms")
        clock_ms += data.draw(STEPS_MS, label="ms")
        batch = data.draw(commands(model), label="commands")
        said_ms = clock_ms - data.draw(st.sampled_from([0, 0, 700]), label="behind")
        log.append(entry_of(index, *batch, term=term, clock_ms=max(0, said_ms)))
        expected = model.apply(term, max(0, said_ms), batch)
        (outcome,) = machine.apply(log[-1:])
        assert outcome is not None
        assert outcome.results == expected
    pieces = DictStore()
    other = StateMachine(pieces)
    position = 0
    while position < len(log):
        step = data.draw(st.integers(1, len(log) - position), label="entries at once")
        other.apply(log[position : position + step])
        other = StateMachine(pieces)
        position += step
    assert pieces.records == store.records
    assert other.session_count == machine.session_count == len(model.sessions)
