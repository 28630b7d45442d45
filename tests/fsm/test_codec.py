"""Commands and batches as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchor.fsm import (
    MalformedPayloadError,
    Write,
    check_batch,
    encode_batch,
    encode_delete,
    encode_put,
    takes_space,
)
from anchor.fsm.codec import decode_batch
from anchor.fsm.fsm_pb2 import Batch, Command
from tests.fsm.entries import payload

OPERATIONS = st.lists(st.tuples(st.binary(max_size=300), st.none() | st.binary(max_size=300)))
NUMBERS = st.integers(0, 2**64 - 1)


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
