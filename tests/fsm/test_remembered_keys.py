"""Idempotency keys: once for each, for ten minutes of the state machine's time."""

from __future__ import annotations

import pytest

from anchor.fsm import KEPT_MS, MalformedStateError, StateMachine, Status, digest_of_key
from anchor.fsm import remembered_keys as module
from tests.fsm.history import History


def test_a_request_sent_again_gets_its_first_answer_and_changes_nothing() -> None:
    """The same key and the same request."""
    history = History()
    first = history.write_by_key(b"once")
    before = dict(history.store.records)
    assert history.write_by_key(b"once") == first._replace(replayed=True)
    assert history.unchanged_but_for_progress(before)


def test_a_key_is_not_taken_for_another_request() -> None:
    """It is refused, and nothing changes."""
    history = History()
    history.write_by_key(b"once")
    before = dict(history.store.records)
    assert history.write_by_key(b"once", value=b"other").status is Status.REUSED
    assert history.unchanged_but_for_progress(before)


def test_a_key_is_forgotten_when_its_time_is_up() -> None:
    """Not before; and nothing of it stays."""
    history = History()
    history.write_by_key(b"once")
    history.pass_time(KEPT_MS - 1)
    assert history.write_by_key(b"once").replayed
    history.pass_time(1001)
    assert not [key for key in history.store.records if key[:1] in b"ij"]
    assert history.machine.nothing_ends_before_ms > 10**15
    assert not history.write_by_key(b"once").replayed
    assert history.version() == 2


def test_a_key_is_forgotten_to_the_moment_though_its_record_is_still_there() -> None:
    """Records go once a second; what they say ends when it ends. The second life is a whole one."""
    history = History()
    history.clock_ms = 100
    history.write_by_key(b"once")
    history.pass_time(KEPT_MS - 50)
    assert history.write_by_key(b"once").replayed
    history.clock_ms += 100  # the same second
    assert not history.write_by_key(b"once").replayed
    history.pass_time(KEPT_MS - 100)
    assert history.write_by_key(b"once").replayed
    history.pass_time(1100)
    assert not [key for key in history.store.records if key[:1] in b"ij"]


def test_no_more_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused, not done without being remembered; also after a restart."""
    monkeypatch.setattr(module, "KEYS_MAX", 2)
    history = History()
    history.write_by_key(b"a")
    history.write_by_key(b"b")
    history.machine = StateMachine(history.store)
    assert history.write_by_key(b"c").status is Status.TOO_MANY_KEYS
    assert history.write_by_key(b"a").replayed
    history.pass_time(KEPT_MS + 1000)
    assert history.write_by_key(b"c").status is Status.DONE


@pytest.mark.parametrize("cut", [0, 6, 9])
def test_keys_end_at_the_same_entry_however_the_log_is_cut(cut: int) -> None:
    """All in one call, or one by one: the same records, the same digest."""
    history = History()
    for number in range(6):
        history.write_by_key(b"%d" % number)
        history.pass_time(KEPT_MS // 3)
    whole = History()
    whole.machine.apply(history.log[:cut])
    whole.machine.apply(history.log[cut:])
    assert whole.store.records == history.store.records
    assert whole.machine.digest == history.machine.digest


def test_each_key_ends_in_its_own_second() -> None:
    """Having looked for those that are due, it misses none of those that come next."""
    history = History()
    for number in range(4):
        history.write_by_key(b"%d" % number)
        history.pass_time(1000)
    history.pass_time(KEPT_MS - 5000)
    left = []
    for _ in range(4):
        history.pass_time(1000)
        left.append(sum(key.startswith(b"i") for key in history.store.records))
    assert left == [3, 2, 1, 0]


def test_keys_are_counted_before_there_is_a_clock() -> None:
    """A leader says nothing of the time until it has applied an entry of its own."""
    history = History()
    history.clock_ms = 0
    history.write_by_key(b"once")
    assert StateMachine(history.store).nothing_ends_before_ms == 0


def test_a_damaged_record_is_not_passed_over() -> None:
    """It could hold the answer that keeps a write from happening twice."""
    history = History()
    history.write_by_key(b"once")
    key = b"i" + b"once".rjust(16)
    history.store.records[key] = history.store.records[key][:-1]
    with pytest.raises(MalformedStateError, match="idempotency"):
        history.write_by_key(b"once")


def test_keys_that_differ_have_digests_that_differ() -> None:
    """Sixteen bytes each."""
    digests = {digest_of_key(b"%d" % number) for number in range(100)}
    assert len(digests) == 100
    assert {len(digest) for digest in digests} == {16}
