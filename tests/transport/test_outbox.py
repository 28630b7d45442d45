"""What waits to be sent: order, bounds, and which neighbours may be joined."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from anchor.raft.messages import AppendEntries, AppendEntriesResponse
from anchor.transport.outbox import (
    Outbox,
    append_size_bytes,
    join_append_responses,
    join_appends,
)
from tests.transport.harness import append


def response(match_index: int, read_round: int = 0, **changed: int) -> AppendEntriesResponse:
    """A success; ``term`` and ``session`` may be changed, and ``success``."""
    return AppendEntriesResponse(
        changed.get("term", 1),
        "b",
        "a",
        success=bool(changed.get("success", 1)),
        match_index=match_index,
        rejected_index=0,
        conflict_index=0,
        conflict_term=0,
        read_round=read_round,
        session=changed.get("session", 1),
    )


def test_what_was_put_first_is_taken_first() -> None:
    """An outbox keeps the order."""
    outbox: Outbox[int] = Outbox(10, 100)
    for number in range(5):
        assert outbox.put(number)
    assert [outbox.take() for _ in range(5)] == list(range(5))


def test_past_either_bound_the_oldest_is_dropped() -> None:
    """Too many, or too many bytes: the newest stays, and the loss is counted."""
    outbox: Outbox[str] = Outbox(3, 100)
    for item in "abcd":
        outbox.put(item, 10)
    assert (len(outbox), outbox.dropped) == (3, 1)
    outbox.put("big", 85)
    assert [outbox.take(), outbox.take(), len(outbox)] == ["d", "big", 0]
    outbox.put("far too big", 1000)
    assert outbox.take() == "far too big"


def test_an_offer_past_a_bound_is_refused() -> None:
    """Offer drops nothing: it says no."""
    outbox: Outbox[str] = Outbox(2, 100)
    assert outbox.offer("a", 90)
    assert not outbox.offer("b", 20)
    assert outbox.offer("c", 5)
    assert not outbox.offer("d", 1)
    assert [outbox.take(), outbox.take()] == ["a", "c"]


def test_a_closed_outbox_takes_nothing_and_gives_what_it_has() -> None:
    """After close what is in it may still be taken, then None, without blocking."""
    outbox: Outbox[str] = Outbox(10, 100)
    outbox.put("a")
    outbox.close()
    assert not outbox.put("b")
    assert [outbox.take(), outbox.take()] == ["a", None]
    discarded: Outbox[str] = Outbox(10, 100)
    discarded.put("a")
    discarded.close(discard=True)
    assert discarded.take() is None


def test_who_waits_is_woken_by_a_put_and_by_the_end() -> None:
    """A taker blocks until there is something, or nothing will ever be."""
    outbox: Outbox[str] = Outbox(10, 100)
    taken: list[str | None] = []
    got_one = threading.Event()

    def take_all() -> None:
        while True:
            taken.append(outbox.take())
            got_one.set()
            if taken[-1] is None:
                return

    taker = threading.Thread(target=take_all)
    taker.start()
    outbox.put("a")
    assert got_one.wait(5)
    outbox.close()
    taker.join(5)
    assert not taker.is_alive()
    assert taken == ["a", None]


@given(st.lists(st.integers(min_value=0, max_value=3), min_size=1, max_size=12), st.integers(1, 6))
def test_joined_appends_say_the_same_as_the_separate_ones(sizes: list[int], bound: int) -> None:
    """Joining loses no entry and no order, and keeps within its bound."""
    unit = append_size_bytes(append("a", "b", 0, (b"12345678",)))
    outbox: Outbox[AppendEntries] = Outbox(100, 1 << 20, join_appends, bound * unit)
    index = 0
    for number, size in enumerate(sizes):
        message = append("a", "b", index, (b"12345678",) * size, read_round=number)
        outbox.put(message, append_size_bytes(message))
        index += size
    outbox.close()
    joined = list(iter(outbox.take, None))
    entries = [entry.index for message in joined for entry in message.entries]
    assert entries == list(range(1, index + 1))
    assert joined[-1].read_round == len(sizes) - 1
    for message in joined:
        assert message.entries == () or message.entries[0].index == message.prev_log_index + 1
        assert len(message.entries) <= max(bound * 2, *sizes)


def test_appends_are_joined_only_where_one_goes_on_from_the_other() -> None:
    """Another session, another term, a gap or an overlap stays apart."""
    first = append("a", "b", 3, (b"x", b"y"))
    joined = join_appends(first, append("a", "b", 5, (b"z",), read_round=7))
    assert joined is not None
    assert [entry.payload for entry in joined.entries] == [b"x", b"y", b"z"]
    assert (joined.prev_log_index, joined.read_round) == (3, 7)
    assert join_appends(first, append("a", "b", 5, session=2)) is None
    assert join_appends(first, append("a", "b", 5, term=2)) is None
    assert join_appends(first, append("a", "b", 6)) is None
    assert join_appends(first, append("a", "b", 4)) is None
    heartbeat = append("a", "b", 3, ())
    assert join_appends(heartbeat, heartbeat) == heartbeat


def test_only_successes_of_one_session_supersede_each_other() -> None:
    """The newest match and read round win; a refusal or another session stays apart."""
    assert join_append_responses(response(5, 1), response(7, 2)) == response(7, 2)
    assert join_append_responses(response(9, 1), response(7, 2)) == response(9, 2)
    assert join_append_responses(response(5), response(7, session=2)) is None
    assert join_append_responses(response(5), response(7, term=2)) is None
    assert join_append_responses(response(5, success=0), response(7)) is None
    assert join_append_responses(response(5), response(7, success=0)) is None
