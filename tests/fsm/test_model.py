"""The state machine against a dict that does the same the simple way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchor.fsm import EntryKind, OutOfOrderError, StateMachine
from tests.fsm.entries import Operation, command, entry
from tests.fsm.stores import DictStore

if TYPE_CHECKING:
    from anchor.raft.entry import Entry

KEYS = st.sampled_from([b"", b"a", b"b", b"\x00", b"kk"])
OPERATIONS: st.SearchStrategy[Operation] = st.tuples(KEYS, st.none() | st.binary(max_size=3))


@dataclass
class Model:
    """What the manual says, with nothing clever about it."""

    keys: dict[bytes, tuple[bytes, int, int, int]] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)

    def apply(self, index: int, origin: int, number: int, operations: list[Operation]) -> None:
        """Apply a batch."""
        if number <= self.numbers.get(origin, -1):
            return
        self.numbers[origin] = number
        for key, value in operations:
            if value is None:
                self.keys.pop(key, None)
                continue
            _, create_index, _, version = self.keys.get(key, (b"", index, 0, 0))
            self.keys[key] = (value, create_index, index, version + 1)


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Entry], Model]:
    """Draw a log, some of its batches sent twice, and what it amounts to."""
    model = Model()
    log: list[Entry] = []
    for index in range(1, draw(st.integers(1, 12)) + 1):
        if draw(st.integers(0, 4)) == 0:
            kind = draw(st.sampled_from([EntryKind.NOOP, EntryKind.CONFIGURATION]))
            log.append(entry(index, kind, draw(st.binary(max_size=2))))
            continue
        origin, number = draw(st.integers(1, 2)), draw(st.integers(1, 6))
        operations = draw(st.lists(OPERATIONS, max_size=5))
        log.append(command(index, *operations, origin=origin, number=number))
        model.apply(index, origin, number, operations)
    return log, model


@given(logs(), st.data())
def test_the_split_into_calls_and_restarts_changes_nothing(
    drawn: tuple[list[Entry], Model], data: st.DataObject
) -> None:
    """However a log is cut into calls of apply, the state is the same to the byte.

    And the keys are the model's.
    """
    log, model = drawn
    whole, pieces = DictStore(), DictStore()
    at_once = StateMachine(whole)
    at_once.apply(log)
    machine = StateMachine(pieces)
    position = 0
    while position < len(log):
        if data.draw(st.booleans(), label="restart"):
            machine = StateMachine(pieces)
        step = data.draw(st.integers(1, len(log) - position), label="entries")
        machine.apply(log[position : position + step])
        position += step
    assert {key: machine.get(key) for key in model.keys} == model.keys
    assert {key[1:] for key in pieces.records if key.startswith(b"k")} == set(model.keys)
    assert pieces.records == whole.records
    assert machine.digest == at_once.digest == machine.digest_at(len(log))


@given(logs(), st.data())
def test_no_entry_is_applied_a_second_time(
    drawn: tuple[list[Entry], Model], data: st.DataObject
) -> None:
    """A replay from any earlier applied index is refused, and changes nothing."""
    log, _ = drawn
    store = DictStore()
    StateMachine(store).apply(log)
    before = dict(store.records)
    again = data.draw(st.integers(0, len(log) - 1))
    with pytest.raises(OutOfOrderError):
        StateMachine(store).apply(log[again:])
    assert store.records == before
