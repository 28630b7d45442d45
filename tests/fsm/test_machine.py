"""What entries do to the keys."""

from __future__ import annotations

import pytest

from anchor.fsm import (
    DIGESTS_KEPT,
    ORIGINS_KEPT,
    EntryKind,
    FsmError,
    MalformedPayloadError,
    MalformedStateError,
    OutOfOrderError,
    Result,
    StateMachine,
)
from anchor.raft.entry import EntryKind as LogEntryKind
from tests.fsm.entries import Operation, command, delete, entry, put
from tests.fsm.stores import DictStore


@pytest.fixture
def store() -> DictStore:
    """Give an empty store."""
    return DictStore()


@pytest.fixture
def machine(store: DictStore) -> StateMachine:
    """Give a state machine on the store."""
    return StateMachine(store)


def test_the_kinds_of_entries_are_those_of_the_log() -> None:
    """The state machine's numbers and the log's are the same, so raft.Entry can be applied."""
    assert {kind.name: kind.value for kind in EntryKind} == {
        kind.name: kind.value for kind in LogEntryKind
    }


def test_an_empty_state_has_applied_nothing(machine: StateMachine) -> None:
    """A new state machine waits for entry 1."""
    assert (machine.applied_index, machine.applied_term) == (0, 0)
    assert machine.configuration is None
    assert machine.get(b"k") is None
    assert machine.apply([]) == []


def test_a_key_knows_when_it_was_created_and_changed_and_how_often(machine: StateMachine) -> None:
    """create_index stays, mod_index and version follow each write."""
    machine.apply([command(1, put(b"k", b"a")), command(2, put(b"k", b"b"))])
    assert machine.get(b"k") == (b"b", 1, 2, 2)


def test_a_deleted_key_starts_over(machine: StateMachine) -> None:
    """Written again it has a new create_index and version 1."""
    outcomes = machine.apply(
        [command(1, put(b"k", b"a")), command(2, delete(b"k")), command(3, put(b"k", b"b"))]
    )
    assert machine.get(b"k") == (b"b", 3, 3, 1)
    results = [outcome.results for outcome in outcomes if outcome]
    assert results == [
        [Result(existed=False, create_index=1, mod_index=1, version=1)],
        [Result(existed=True, create_index=0, mod_index=2, version=0)],
        [Result(existed=False, create_index=3, mod_index=3, version=1)],
    ]


def test_deleting_what_is_not_there_says_so(machine: StateMachine, store: DictStore) -> None:
    """It is no error, and writes nothing under the key."""
    (outcome,) = machine.apply([command(1, delete(b"k"))])
    assert outcome is not None
    assert outcome.results == [Result(existed=False, create_index=0, mod_index=1, version=0)]
    assert not [key for key in store.records if key.startswith(b"k")]


def test_commands_of_one_batch_see_each_other(machine: StateMachine) -> None:
    """A later command finds what an earlier one of the same batch left."""
    machine.apply([command(1, put(b"k", b"a"), delete(b"k"), put(b"k", b"b"), put(b"k", b"c"))])
    assert machine.get(b"k") == (b"c", 1, 1, 2)


def test_keys_and_values_are_any_bytes(machine: StateMachine) -> None:
    """Empty, NUL and long ones, kept apart from the state machine's own records."""
    for index, key in enumerate((b"", b"\0", b"mapplied", b"\xff" * 5000), start=1):
        machine.apply([command(index, put(key, key[::-1]))])
    assert machine.get(b"") == (b"", 1, 1, 1)
    assert machine.get(b"\xff" * 5000) == (b"\xff" * 5000, 4, 4, 1)
    assert machine.applied_index == 4


def test_entries_given_together_are_one_write(machine: StateMachine, store: DictStore) -> None:
    """Data, origins, configuration, digest and applied index reach the store at once."""
    machine.apply(
        [
            entry(1, EntryKind.CONFIGURATION, b"conf"),
            entry(2, EntryKind.NOOP),
            command(3, put(b"k", b"v")),
        ]
    )
    assert store.writes == 1
    again = StateMachine(store)
    assert (again.applied_index, again.applied_term) == (3, 1)
    assert (again.configuration, again.configuration_index) == (b"conf", 1)
    assert again.digest == machine.digest
    assert again.get(b"k") == (b"v", 3, 3, 1)


def test_only_command_entries_have_outcomes(machine: StateMachine) -> None:
    """Outcomes stand at their entries' places."""
    outcomes = machine.apply([entry(1, EntryKind.NOOP), command(2, put(b"k", b"v"), origin=5)])
    assert outcomes[0] is None
    assert outcomes[1] is not None
    assert (outcomes[1].origin, outcomes[1].number, outcomes[1].replayed) == (5, 2, False)


def test_a_batch_that_comes_twice_is_applied_once(machine: StateMachine) -> None:
    """Trap 13: the second copy does nothing and says so, also after a restart."""
    first, copy = command(1, put(b"k", b"v"), number=9), command(2, put(b"k", b"v"), number=9)
    (_, outcome) = machine.apply([first, copy])
    assert outcome is not None
    assert outcome.replayed
    assert outcome.results == []
    assert machine.get(b"k") == (b"v", 1, 1, 1)


def test_batches_seen_are_remembered_through_a_restart(
    machine: StateMachine, store: DictStore
) -> None:
    """What was applied before a restart is not applied again after it."""
    machine.apply([command(1, put(b"k", b"v"), number=9)])
    again = StateMachine(store)
    (old, new) = again.apply(
        [command(2, put(b"k", b"v"), number=8), command(3, put(b"k", b"w"), number=10)]
    )
    assert old is not None
    assert new is not None
    assert (old.replayed, new.replayed) == (True, False)


def test_the_origin_not_heard_of_for_longest_is_forgotten(
    machine: StateMachine, store: DictStore
) -> None:
    """Of more origins than are kept, the one with the oldest last batch goes."""
    for index in range(1, ORIGINS_KEPT + 1):
        machine.apply([command(index, origin=index)])
    machine.apply([command(ORIGINS_KEPT + 1, origin=1)])  # heard of again
    again = StateMachine(store)  # the order survives
    again.apply([command(ORIGINS_KEPT + 2, origin=9999)])
    origins = [key for key in store.records if key.startswith(b"o")]
    assert len(origins) == ORIGINS_KEPT
    (kept, forgotten) = again.apply(
        [
            command(ORIGINS_KEPT + 3, put(b"k", b"v"), origin=1, number=1),
            command(ORIGINS_KEPT + 4, put(b"k", b"v"), origin=2, number=2),
        ]
    )
    assert kept is not None
    assert forgotten is not None
    assert (kept.replayed, forgotten.replayed) == (True, False)


def test_the_newest_configuration_is_kept_with_its_index(machine: StateMachine) -> None:
    """The last configuration entry of those applied counts."""
    machine.apply(
        [entry(1, EntryKind.CONFIGURATION, b"a"), entry(2, EntryKind.CONFIGURATION, b"b")]
    )
    machine.apply([entry(3, EntryKind.NOOP)])
    assert (machine.configuration, machine.configuration_index) == (b"b", 2)


@pytest.mark.parametrize("index", [0, 1, 2, 4, 100])
def test_an_entry_out_of_order_is_refused(machine: StateMachine, index: int) -> None:
    """Nothing is applied twice, and nothing is left out."""
    machine.apply([entry(1, EntryKind.NOOP), entry(2, EntryKind.NOOP)])
    with pytest.raises(OutOfOrderError, match=f"entry {index} cannot"):
        machine.apply([entry(index, EntryKind.NOOP)])


def test_a_term_that_falls_is_refused(machine: StateMachine) -> None:
    """Terms never fall along a log."""
    machine.apply([entry(1, EntryKind.NOOP, term=3)])
    with pytest.raises(OutOfOrderError, match="of term 2"):
        machine.apply([entry(2, EntryKind.NOOP, term=2)])


def test_a_malformed_payload_is_refused_and_named(machine: StateMachine) -> None:
    """The message says which entry it was."""
    with pytest.raises(MalformedPayloadError, match=r"^entry 1: "):
        machine.apply([entry(1, EntryKind.COMMAND, b"\xff")])


def test_a_kind_of_a_newer_version_is_refused(machine: StateMachine) -> None:
    """An entry of unknown kind is not passed over."""

    class NewerEntry:
        index, term, kind, payload = 1, 1, 9, b""

    with pytest.raises(FsmError, match="kind 9"):
        machine.apply([NewerEntry()])


def test_what_cannot_be_applied_whole_changes_nothing(
    machine: StateMachine, store: DictStore
) -> None:
    """Neither the good entries before a bad one, nor what a full disk did not take."""
    machine.apply([command(1, put(b"k", b"v"))])
    before = (dict(store.records), machine.digest, machine.applied_index)
    good = [command(2, put(b"k", b"w"), origin=1), entry(3, EntryKind.CONFIGURATION, b"c")]
    with pytest.raises(MalformedPayloadError):
        machine.apply([*good, entry(4, EntryKind.COMMAND, b"\xff")])
    store.refuse_writes = True
    with pytest.raises(OSError, match="no space"):
        machine.apply(good)
    assert (store.records, machine.digest, machine.applied_index) == before
    assert machine.configuration is None
    store.refuse_writes = False
    outcomes = machine.apply(good)
    assert outcomes[0] is not None
    assert not outcomes[0].replayed


def test_the_digest_tells_any_difference_of_the_log() -> None:
    """Term, kind and payload all go into it."""
    digests = {StateMachine(DictStore()).digest}
    for first in (
        entry(1, EntryKind.NOOP),
        entry(1, EntryKind.NOOP, term=2),
        entry(1, EntryKind.CONFIGURATION),
        entry(1, EntryKind.CONFIGURATION, b"c"),
        command(1, put(b"k", b"v")),
        command(1, put(b"k", b"w")),
        command(1, delete(b"k")),
    ):
        machine = StateMachine(DictStore())
        machine.apply([first])
        digests.add(machine.digest)
        machine.apply([entry(2, EntryKind.NOOP, term=2)])
        digests.add(machine.digest)
    assert len(digests) == 1 + 2 * 7


@pytest.mark.parametrize("operation", [put(b"k", b"v"), delete(b"k")])
def test_the_digest_tells_what_an_entry_found(operation: Operation) -> None:
    """The same log on a state that differs gives another digest, once it touches the difference."""
    digests = set()
    for record in (None, bytes([1]) + bytes(24), bytes([1]) + bytes(23) + b"\x05"):
        machine = StateMachine(DictStore({} if record is None else {b"kk": record}))
        machine.apply([command(1, operation)])
        digests.add(machine.digest)
    assert len(digests) == 3


def test_digests_of_the_last_entries_are_known(machine: StateMachine, store: DictStore) -> None:
    """The newest few thousand by index; after a restart the newest."""
    digests = [machine.digest]
    count = DIGESTS_KEPT + 5
    for index in range(1, count + 1):
        machine.apply([entry(index, EntryKind.NOOP)])
        digests.append(machine.digest)
    first = count - DIGESTS_KEPT + 1
    assert [machine.digest_at(index) for index in range(first, count + 1)] == digests[first:]
    assert machine.digest_at(first - 1) is None
    assert machine.digest_at(count + 1) is None
    again = StateMachine(store)
    assert again.digest_at(count) == digests[-1]
    assert again.digest_at(count - 1) is None


@pytest.mark.parametrize(
    ("key", "record"),
    [
        (b"mapplied", b"\x01"),
        (b"mapplied", b"\x02" + bytes(32)),
        (b"mconfiguration", b"\x01"),
        (b"mconfiguration", b"\x02" + bytes(8)),
        (b"o" + bytes(8), b"\x01" + bytes(3)),
    ],
)
def test_records_of_another_format_stop_the_start(key: bytes, record: bytes) -> None:
    """A state that is damaged, or a newer version's, is not guessed at."""
    with pytest.raises(MalformedStateError):
        StateMachine(DictStore({key: record}))


@pytest.mark.parametrize("record", [b"", b"\x02" + bytes(30)])
def test_a_value_of_another_format_is_not_served(record: bytes) -> None:
    """Nor written over."""
    machine = StateMachine(DictStore({b"kk": record}))
    with pytest.raises(MalformedStateError):
        machine.get(b"k")
    with pytest.raises(MalformedStateError):
        machine.apply([command(1, put(b"k", b"v"))])


def test_a_machine_that_loads_another_store_is_as_if_it_had_always_had_it() -> None:
    """Nothing of the state that a snapshot replaced is left in it."""
    machine = StateMachine(DictStore())
    machine.apply([command(1, put(b"old", b"v"), origin=5)])
    store = DictStore()
    ahead = StateMachine(store)
    ahead.apply([command(1, put(b"k", b"1")), command(2, put(b"k", b"2"))])
    machine.load(DictStore(dict(store.records)))
    assert machine.get(b"old") is None
    assert machine.get(b"k") == ahead.get(b"k")
    for both in (machine, ahead):
        both.apply([command(3, put(b"k", b"3"), origin=5)])
    assert (machine.applied_index, machine.digest) == (3, ahead.digest)
    assert machine.digest_at(1) is None


def test_the_last_batch_of_an_origin_is_known() -> None:
    """Also after a restart: whoever gathered it may ask."""
    store = DictStore()
    machine = StateMachine(store)
    machine.apply([command(1, put(b"k", b"v"), origin=7, number=3)])
    for each in (machine, StateMachine(store)):
        assert (each.last_number(7), each.last_number(8)) == (3, 0)
