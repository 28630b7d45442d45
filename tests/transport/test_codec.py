"""Messages as bytes and back, and the bytes that are no messages."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchor.raft.entry import Entry, EntryKind
from anchor.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from anchor.transport import codec, raft_pb2
from anchor.transport.codec import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = codec.header("c", "a", 2**64 - 1, "b", 7)
TERM = st.integers(1, 2**63 - 1)
INDEX = st.integers(0, 2**62)
ANY = st.integers(0, 2**64 - 1)


@st.composite
def appends(draw: st.DrawFn) -> AppendEntries:
    """An AppendEntries that may exist."""
    terms = sorted(draw(st.lists(TERM, max_size=4)))
    prev_log_index = draw(INDEX)
    entries = tuple(
        Entry(index, term, draw(st.sampled_from(EntryKind)), draw(st.binary(max_size=20)))
        for index, term in enumerate(terms, prev_log_index + 1)
    )
    newest = terms[-1] if terms else 1
    return AppendEntries(
        draw(st.integers(newest, 2**63 - 1)),
        "a",
        "b",
        prev_log_index,
        draw(st.integers(0, terms[0] if terms else 1)),
        entries,
        draw(INDEX),
        draw(ANY),
        draw(ANY),
    )


@given(appends())
def test_an_append_survives_the_wire(message: AppendEntries) -> None:
    """Decode gives back what was encoded, and the header with it."""
    header, decoded = codec.decode_append(codec.encode_append(HEADER, message))
    assert decoded == message
    assert header == HEADER


BOOLEAN = st.booleans()


@given(
    st.builds(
        AppendEntriesResponse,
        *[TERM, st.just("a"), st.just("b"), BOOLEAN, INDEX, INDEX, INDEX, INDEX, ANY, ANY],
    )
)
def test_an_append_response_survives_the_wire(message: AppendEntriesResponse) -> None:
    """Decode gives back what was encoded."""
    wire = codec.encode_append_response(HEADER, message)
    assert codec.decode_append_response(wire) == (HEADER, message)


@given(
    st.builds(RequestVote, *[TERM, st.just("a"), st.just("b"), INDEX, INDEX, BOOLEAN, BOOLEAN]),
    st.builds(RequestVoteResponse, *[TERM, st.just("a"), st.just("b"), BOOLEAN, BOOLEAN]),
)
def test_votes_survive_the_wire(vote: RequestVote, answer: RequestVoteResponse) -> None:
    """Decode gives back what was encoded, question, answer and handover."""
    assert codec.decode_vote(codec.encode_vote(HEADER, vote)) == (HEADER, vote)
    wire = codec.encode_vote_response(HEADER, answer)
    assert codec.decode_vote_response(wire) == (HEADER, answer)
    handover = TimeoutNow(vote.term, "a", "b")
    wire = codec.encode_timeout_now(HEADER, handover)
    assert codec.decode_timeout_now(wire) == (HEADER, handover)


def raw_append(**fields: object) -> bytes:
    """An AppendEntriesRequest with these fields, sense or not."""
    fields = {"header": HEADER, "term": 5, "prev_log_index": 3, "prev_log_term": 2} | fields
    return raft_pb2.AppendEntriesRequest(**fields).SerializeToString()  # type: ignore[arg-type]


GOOD = Entry(4, 5, EntryKind.COMMAND, b"x").encode()


@pytest.mark.parametrize(
    ("why", "wire"),
    [
        ("not an AppendEntries", b"\xff garbage \x00"),
        ("term 0 is absurd", raw_append(term=0)),
        ("is absurd", raw_append(term=2**63)),
        ("is absurd", raw_append(term=2**64 - 1)),
        ("index .* is absurd", raw_append(prev_log_index=2**63)),
        ("index .* is absurd", raw_append(prev_log_index=2**63 - 1, entries=[GOOD])),
        ("index .* is absurd", raw_append(commit_index=2**63)),
        ("prev_log_term 9 is above term 5", raw_append(prev_log_term=9)),
        ("entry 4 cannot be read", raw_append(entries=[b""])),
        ("entry 4 cannot be read", raw_append(entries=[b"\x01short"])),
        ("entry 4 cannot be read", raw_append(entries=[b"\x63" + GOOD[1:]])),
        ("entry 4 has term 6", raw_append(entries=[Entry(4, 6, EntryKind.NOOP, b"").encode()])),
        ("entry 4 has term 1", raw_append(entries=[Entry(4, 1, EntryKind.NOOP, b"").encode()])),
        (
            "entry 5 has term 4",
            raw_append(entries=[GOOD, Entry(5, 4, EntryKind.NOOP, b"").encode()]),
        ),
    ],
)
def test_an_append_that_makes_no_sense_is_malformed(why: str, wire: bytes) -> None:
    """What can be judged without state is judged before the core sees it."""
    with pytest.raises(Malformed, match=why):
        codec.decode_append(wire)


DECODERS: list[Callable[[bytes], object]] = [
    codec.decode_append,
    codec.decode_append_response,
    codec.decode_compare_digest,
    codec.decode_digest,
    codec.decode_forward,
    codec.decode_forward_response,
    codec.decode_identification,
    codec.decode_identify,
    codec.decode_join,
    codec.decode_join_response,
    codec.decode_remove,
    codec.decode_remove_response,
    codec.decode_timeout_now,
    codec.decode_vote,
    codec.decode_vote_response,
]


@pytest.mark.parametrize("decode", DECODERS, ids=lambda decode: decode.__name__)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_malformed(
    decode: Callable[[bytes], object], wire: bytes
) -> None:
    """No bytes whatever make a decoder fail in another way."""
    with contextlib.suppress(Malformed):
        decode(wire)


@pytest.mark.parametrize("term", [0, 2**63, 2**64 - 1])
def test_absurd_terms_of_votes_and_handovers_are_malformed(term: int) -> None:
    """The same bounds hold for whoever could raise our term."""
    with pytest.raises(Malformed, match="absurd"):
        codec.decode_vote(codec.encode_vote(HEADER, RequestVote(term, "a", "b", 0, 0)))
    with pytest.raises(Malformed, match="absurd"):
        codec.decode_timeout_now(codec.encode_timeout_now(HEADER, TimeoutNow(term, "a", "b")))


def test_another_protocol_version_is_named() -> None:
    """Who answers in another version cannot be understood."""
    wire = raft_pb2.IdentifyResponse(protocol_version=9, id="z").SerializeToString()
    with pytest.raises(Malformed, match="version 9"):
        codec.decode_identification(wire)


def test_a_forward_request_must_ask_something() -> None:
    """An empty question is malformed."""
    with pytest.raises(Malformed, match="asks nothing"):
        codec.decode_forward(b"")
