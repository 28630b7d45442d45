"""Exactly once: what a session promises, claim by claim (thesis §6.3)."""

from __future__ import annotations

import pytest

from anchor.fsm import (
    ANSWERS_KEPT,
    CloseSession,
    Condition,
    KeepAlive,
    MalformedStateError,
    OpenSession,
    Result,
    SessionResult,
    StateMachine,
    Status,
    fingerprint_of,
)
from anchor.fsm.sessions import SESSIONS_IN_PAGE
from tests.fsm.history import TOKEN, TTL_MS, History


def test_a_write_sent_again_gets_its_first_answer_and_changes_nothing() -> None:
    """The same sequence number is the same write, however often it comes."""
    history = History()
    session = history.open()
    first = history.write(session, 1)
    before = dict(history.store.records)
    again = history.write(session, 1)
    assert again == first._replace(replayed=True)
    assert history.unchanged_but_for_progress(before)
    assert history.version() == 1


def test_a_failed_condition_is_an_answer_like_any_other() -> None:
    """Sent again it fails again, though it would hold by now."""
    history = History()
    session = history.open()
    failed = history.write(session, 1, condition=Condition(present=True))
    assert failed.status is Status.CONDITION_FAILED
    history.write(session, 2)
    again = history.write(session, 1, condition=Condition(present=True))
    assert again == failed._replace(replayed=True)
    assert history.version() == 1


def test_a_deletion_is_remembered_too() -> None:
    """Sent again after somebody else wrote the key, it does not delete that."""
    history = History()
    session, other = history.open(), history.open()
    history.write(other, 1)
    assert history.write(session, 1, value=None).existed
    history.write(other, 2)
    again = history.write(session, 1, value=None)
    assert (again.replayed, again.existed) == (True, True)
    assert history.version() == 1


@pytest.mark.parametrize(
    ("sequence", "status"),
    [
        pytest.param(4, Status.SEQUENCE_GAP, id="a gap"),
        pytest.param(2**63 - 1, Status.SEQUENCE_GAP, id="a wide gap"),
        pytest.param(1, Status.SEQUENCE_FORGOTTEN, id="acknowledged"),
        pytest.param(0, Status.SEQUENCE_FORGOTTEN, id="before all"),
        pytest.param(2, Status.REUSED, id="another request"),
    ],
)
def test_a_sequence_number_out_of_place_changes_nothing(sequence: int, status: Status) -> None:
    """No key, no session, no consumed number."""
    history = History()
    session = history.open()
    history.write(session, 1)
    history.write(session, 2, acknowledged=1)
    before = dict(history.store.records)
    result = history.write(session, sequence, value=b"other")
    assert result == Result(existed=False, create_index=0, mod_index=0, version=0, status=status)
    assert history.unchanged_but_for_progress(before)
    assert history.write(session, 3).status is Status.DONE


def test_the_newest_answers_are_kept_though_nobody_acknowledges_any() -> None:
    """And no more than that: a client that never acknowledges costs no more memory than others."""
    history = History()
    session = history.open()
    for sequence in range(1, ANSWERS_KEPT + 6):
        history.write(session, sequence, value=b"%d" % sequence)
    assert history.write(session, 5, value=b"5").status is Status.SEQUENCE_FORGOTTEN
    for sequence in range(6, ANSWERS_KEPT + 6):
        again = history.write(session, sequence, value=b"%d" % sequence)
        assert (again.replayed, again.version) == (True, sequence)


def test_what_was_not_done_cannot_be_acknowledged() -> None:
    """Acknowledging ahead forgets no answer that is yet to come."""
    history = History()
    session = history.open()
    history.write(session, 1, acknowledged=99)
    assert history.write(session, 1).replayed
    history.write(session, 2, acknowledged=0)
    assert history.write(session, 2).replayed


def test_requests_that_differ_have_fingerprints_that_differ() -> None:
    """Whatever is put, put is not delete; and a condition is part of the request."""
    conditions = (None, Condition(), Condition(absent=True), Condition(mod_indexes=(1,)))
    requests = [
        (key, value, condition)
        for key in (b"", b"k", b"deleted", b"k" + repr(tuple(Condition())).encode())
        for value in (None, b"", b"v", b"deleted")
        for condition in conditions
    ]
    assert len({fingerprint_of(*request) for request in requests}) == len(requests)


def test_two_writes_of_a_session_may_share_a_batch() -> None:
    """The second one sees what the first one left."""
    history = History()
    session = history.open()
    other = History()
    assert other.open() == session
    history.write(session, 1, key=b"a")
    history.write(session, 2, key=b"b")
    log = history.log[1:]
    machine = StateMachine(other.store)
    assert [each and each.results[0].status for each in machine.apply(log)] == [Status.DONE] * 2
    assert machine.digest == history.machine.digest


@pytest.mark.parametrize("token", [0, TOKEN + 1])
def test_a_session_is_not_found_by_its_number_alone(token: int) -> None:
    """Numbers can be guessed, and another cluster has the same ones."""
    history = History()
    session = history.open()
    assert history.write(session, 1, token=token).status is Status.NO_SESSION
    assert history.version() == 0


def test_a_session_ends_when_it_is_closed() -> None:
    """Its writes are refused, not applied; closing it once more finds nothing."""
    history = History()
    session = history.open()
    history.write(session, 1)
    assert history.do(CloseSession(session, TOKEN)) == [SessionResult(session, 0)]
    assert history.machine.session_count == 0
    assert history.write(session, 2).status is Status.NO_SESSION
    for command in (CloseSession(session, TOKEN), KeepAlive(session, TOKEN)):
        assert history.do(command) == [SessionResult(session, 0, Status.NO_SESSION)]
    assert history.version() == 1


def test_a_session_ends_when_its_time_is_up() -> None:
    """Not a moment before, and at the latest a second of the clock after."""
    history = History()
    session = history.open()
    history.pass_time(TTL_MS - 1)
    assert history.machine.session_count == 1
    history.pass_time(1001)
    assert history.machine.session_count == 0
    assert history.write(session, 1).status is Status.NO_SESSION


@pytest.mark.parametrize("used_by", ["a write", "a sign of life"])
def test_a_session_in_use_does_not_end(used_by: str) -> None:
    """Each use starts its time anew."""
    history = History()
    session = history.open()
    for sequence in range(1, 6):
        history.pass_time(TTL_MS - 1000)
        if used_by == "a write":
            assert history.write(session, sequence).status is Status.DONE
        else:
            alive = history.do(KeepAlive(session, TOKEN))
            assert alive == [SessionResult(session, TTL_MS)]
    history.pass_time(TTL_MS + 1000)
    assert history.machine.session_count == 0


def test_keeping_a_session_alive_forgets_no_answer() -> None:
    """Its record is written anew, answers and all."""
    history = History()
    session = history.open()
    history.write(session, 1)
    history.do(KeepAlive(session, TOKEN))
    assert history.write(session, 1).replayed


def test_a_new_leader_gives_each_session_its_whole_time_again() -> None:
    """While nobody led, nobody could use it."""
    history = History()
    session = history.open()
    history.pass_time(TTL_MS - 1000)
    history.term = 2
    history.pass_time(TTL_MS - 1000)
    assert history.write(session, 1).status is Status.DONE


def test_the_clock_never_goes_back() -> None:
    """Whatever a leader says the time is."""
    history = History()
    session = history.open()
    history.pass_time(5000)
    history.clock_ms = 2
    history.do()
    assert history.machine.clock_ms == 5001
    history.clock_ms = 5001 + TTL_MS + 1000
    history.do()
    assert history.write(session, 1).status is Status.NO_SESSION


def test_the_one_unused_for_longest_makes_room() -> None:
    """Over the maximum, in an order that a restart does not change."""
    history = History()
    first, second, third = (history.open(max_sessions=3) for _ in range(3))
    history.write(first, 1)
    history.do(KeepAlive(third, TOKEN))
    history.machine = StateMachine(history.store)
    fourth = history.open(max_sessions=3)  # `second` goes
    fifth = history.open(max_sessions=3)  # then `first`
    statuses = {session: history.write(session, 2).status for session in (first, second, third)}
    assert statuses == {
        first: Status.NO_SESSION,
        second: Status.NO_SESSION,
        third: Status.SEQUENCE_GAP,
    }
    assert [history.write(session, 1).status for session in (fourth, fifth)] == [Status.DONE] * 2


def test_the_order_of_use_does_not_depend_on_how_the_log_is_cut() -> None:
    """Who goes is the same for those who apply many entries at once."""
    history = History()
    first, second = history.open(), history.open()
    for session, sequence in ((first, 1), (second, 1), (first, 2)):
        history.write(session, sequence)
    history.open(max_sessions=2)  # `second` goes
    for cut in (0, 2):
        whole = History()
        whole.machine.apply(history.log[:cut])
        whole.machine.apply(history.log[cut:])
        assert whole.store.records == history.store.records
        whole.log = history.log.copy()
        assert whole.write(first, 3).status is Status.DONE
        assert whole.write(second, 2).status is Status.NO_SESSION


def test_many_sessions_may_be_opened_and_lost_in_one_batch() -> None:
    """The order of use is that of the commands."""
    history = History()
    kept = history.open(max_sessions=2)
    results = history.do(*(OpenSession(TTL_MS, TOKEN, 2) for _ in range(4)))
    numbers = [each.number for each in results if isinstance(each, SessionResult)]
    assert len(set(numbers)) == 4
    assert history.machine.session_count == 2
    assert history.write(kept, 1).status is Status.NO_SESSION
    assert history.write(numbers[1], 1).status is Status.NO_SESSION
    assert history.write(numbers[2], 1).status is Status.DONE


def test_many_sessions_share_few_records_of_the_store() -> None:
    """Each keeps its own answers, whoever else is on its page, and whoever leaves it."""
    history = History()
    opened = [history.open() for _ in range(3 * SESSIONS_IN_PAGE)]
    for number in opened:
        history.write(number, 1, key=b"%d" % number)
    assert sum(key.startswith(b"s") for key in history.store.records) == 3
    for number in opened[1 : SESSIONS_IN_PAGE + 1] + opened[-SESSIONS_IN_PAGE + 1 :]:
        history.do(CloseSession(number, TOKEN))
    history.machine = StateMachine(history.store)
    left = [opened[0], *opened[SESSIONS_IN_PAGE + 1 : -SESSIONS_IN_PAGE + 1]]
    assert history.machine.session_count == len(left)
    assert all(history.write(number, 1, key=b"%d" % number).replayed for number in left)
    for number in left:
        history.do(CloseSession(number, TOKEN))
    assert not any(key.startswith(b"s") for key in history.store.records)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda record: record[:-1], id="cut"),
        pytest.param(lambda record: record[:20], id="cut short"),
        pytest.param(lambda record: b"\x09" + record[1:], id="of a newer format"),
    ],
)
def test_a_damaged_session_is_not_passed_over(spoil: object) -> None:
    """It could hold the answer that keeps a write from happening twice."""
    assert callable(spoil)
    history = History()
    history.write(history.open(), 1)
    (key,) = (key for key in history.store.records if key.startswith(b"s"))
    history.store.records[key] = spoil(history.store.records[key])
    with pytest.raises(MalformedStateError, match="session"):
        StateMachine(history.store)


def test_nothing_is_due_where_there_is_nothing() -> None:
    """A leader of an idle cluster has no reason to write entries."""
    history = History()
    assert history.machine.nothing_ends_before_ms > 10**15
    history.open()
    assert history.machine.nothing_ends_before_ms <= 1 + TTL_MS
    history.pass_time(TTL_MS + 1000)
    assert history.machine.nothing_ends_before_ms > 10**15
