"""Commands and batches as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchor.fsm import (
    SESSIONS_MAX,
    TTL_MS_MAX,
    ByKey,
    CloseSession,
    Condition,
    InSession,
    KeepAlive,
    MalformedPayloadError,
    OpenSession,
    Write,
    check_batch,
    clock_suffix,
    codec,
    encode_batch,
    encode_delete,
    encode_put,
    encode_write,
    takes_space,
)
from anchor.fsm import Command as AnyCommand
from anchor.fsm.codec import decode_batch
from anchor.fsm.fsm_pb2 import Batch, Command
from tests.fsm.entries import entry_of, payload

OPERATIONS = st.lists(st.tuples(st.binary(max_size=300), st.none() | st.binary(max_size=300)))
NUMBERS = st.integers(0, 2**64 - 1)
CONDITIONS = st.builds(
    Condition, st.lists(NUMBERS, max_size=3).map(tuple), st.booleans(), st.booleans()
)
ONCE = st.builds(InSession, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS) | st.builds(
    ByKey, st.binary(min_size=16, max_size=16), NUMBERS
)
WRITES = st.builds(
    Write, st.binary(), st.none() | st.binary(), st.none() | CONDITIONS, st.none() | ONCE
)
COMMANDS = (
    WRITES
    | st.builds(OpenSession, NUMBERS, NUMBERS, NUMBERS)
    | st.builds(KeepAlive, NUMBERS, NUMBERS)
    | st.builds(CloseSession, NUMBERS, NUMBERS)
)


@given(NUMBERS, NUMBERS, OPERATIONS)
def test_a_batch_is_read_as_it_was_written(
    origin: int, number: int, operations: list[tuple[bytes, bytes | None]]
) -> None:
    """What goes in comes out, whatever the bytes."""
    encoded = payload(operations, origin=origin, number=number)
    assert decode_batch(encoded) == (origin, number, 0, [Write(*each) for each in operations])


@given(NUMBERS, NUMBERS, OPERATIONS)
def test_a_batch_is_what_protobuf_would_write(
    origin: int, number: int, operations: list[tuple[bytes, bytes | None]]
) -> None:
    """The batch put together by hand is byte for byte protobuf's own."""
    encoded = payload(operations, origin=origin, number=number)
    assert Batch.FromString(encoded).SerializeToString() == encoded


@given(st.binary(max_size=80))
def test_bytes_of_any_kind_are_a_batch_or_malformed(noise: bytes) -> None:
    """No payload does anything but decode or raise MalformedPayloadError."""
    try:
        batch = decode_batch(noise)
    except MalformedPayloadError:
        return
    assert batch.number >= 0


def test_an_operation_of_a_newer_version_is_refused() -> None:
    """A command without an operation this version knows is not passed over."""
    unknown = b"\x4a\x03\x0a\x01k"  # field 9, some day
    for command in (unknown, b""):
        with pytest.raises(MalformedPayloadError, match="does not know"):
            check_batch(encode_batch(1, 1, [encode_put(b"k", b"v"), command]))


@pytest.mark.parametrize(
    "addition",
    [
        pytest.param(lambda batch: batch + b"\x28\x01", id="in the batch"),
        pytest.param(
            lambda _: encode_batch(1, 1, [b"\x0a\x05\x0a\x01k\x18\x09"]), id="in an operation"
        ),
    ],
)
def test_a_field_of_a_newer_version_is_refused(addition: object) -> None:
    """Ignoring a field could make another state than a member that knows it."""
    assert callable(addition)
    with pytest.raises(MalformedPayloadError, match="fields this version does not know"):
        check_batch(addition(encode_batch(1, 1, [encode_delete(b"k")])))


def test_a_good_batch_passes_the_check() -> None:
    """What the encoders write may be proposed."""
    check_batch(payload([(b"k", b"v"), (b"l", None)]))
    assert Command.FromString(encode_put(b"k", b"v")).put.value == b"v"


@pytest.mark.parametrize("key", [b"", b"k", b"\x12" * 200])
def test_a_deletion_is_told_from_a_write_by_its_first_byte(key: bytes) -> None:
    """Whatever the key."""
    assert not takes_space(encode_delete(key))
    assert takes_space(encode_put(key, b"value"))


@given(st.lists(COMMANDS, max_size=5), NUMBERS, NUMBERS, NUMBERS)
def test_commands_of_all_kinds_are_read_as_they_were_written(
    commands: list[AnyCommand], origin: int, number: int, clock_ms: int
) -> None:
    """With their terms, and the time that a leader puts behind them."""
    entry = entry_of(1, *commands, origin=origin, number=number, clock_ms=clock_ms)
    assert decode_batch(entry.payload) == (origin, number, clock_ms, commands)
    assert Batch.FromString(entry.payload).SerializeToString() == entry.payload


def test_nobody_but_its_leader_puts_a_time_into_a_batch() -> None:
    """What another node forwards may not say what time it is."""
    with pytest.raises(MalformedPayloadError, match="time"):
        check_batch(payload([(b"k", b"v")]) + clock_suffix(5))


def test_a_command_about_a_session_has_no_terms() -> None:
    """It would be passed over."""
    odd = Command(in_session=bytes(40))
    odd.keep_alive.session = 1
    with pytest.raises(MalformedPayloadError, match="terms"):
        check_batch(encode_batch(1, 1, [odd.SerializeToString()]))


def test_a_place_in_a_session_of_another_length_is_refused() -> None:
    """It is five numbers."""
    odd = Command(in_session=bytes(39))
    odd.put.key = b"k"
    with pytest.raises(MalformedPayloadError, match="39 bytes"):
        check_batch(encode_batch(1, 1, [odd.SerializeToString()]))


def test_a_digest_of_another_length_is_refused() -> None:
    """Records are found by it."""
    with pytest.raises(MalformedPayloadError, match="15 bytes"):
        check_batch(
            encode_batch(1, 1, [encode_write(Write(b"k", b"v", None, ByKey(bytes(15), 1)))])
        )


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(OpenSession(0, 1, 1), id="ended at once"),
        pytest.param(OpenSession(TTL_MS_MAX + 1, 1, 1), id="for ever"),
        pytest.param(OpenSession(1, 1, 0), id="one of none"),
        pytest.param(OpenSession(1, 1, SESSIONS_MAX + 1), id="one of too many"),
    ],
)
def test_a_session_that_no_node_would_open_is_refused(command: OpenSession) -> None:
    """What is forwarded could hold everybody up otherwise."""
    with pytest.raises(MalformedPayloadError, match="cannot be"):
        check_batch(entry_of(1, command).payload)
    check_batch(entry_of(1, OpenSession(TTL_MS_MAX, 1, SESSIONS_MAX)).payload)


def test_a_batch_has_no_more_commands_than_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sessions would get one number."""
    monkeypatch.setattr(codec, "PLACES", 2)
    check_batch(payload([(b"a", b"v"), (b"b", b"v")]))
    with pytest.raises(MalformedPayloadError, match="3 commands"):
        check_batch(payload([(b"a", b"v"), (b"b", b"v"), (b"c", b"v")]))


def test_a_batch_is_written_in_one_way_only() -> None:
    """A shorter one leaves room for what this version does not know."""
    unpacked = b"\x32\x02\x08\x05"  # one byte less than a packed list of one
    commands = [encode_put(key, b"v") + unpacked for key in (b"a", b"b")]
    unknown = b"\x28\x01"
    with pytest.raises(MalformedPayloadError, match="not written as batches are"):
        check_batch(encode_batch(1, 1, commands) + unknown)
