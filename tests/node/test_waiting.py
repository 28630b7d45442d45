"""How greenlets wait: no wake-up is lost, and none reaches the wrong greenlet."""

from __future__ import annotations

import gevent

from anchor.node.errors import NoLeader
from anchor.node.waiting import Signal, Waiter


def test_a_signal_set_before_the_wait_is_not_lost() -> None:
    """Whoever comes late does not sleep."""
    signal = Signal()
    signal.set()
    with gevent.Timeout(1):
        signal.wait()


def test_a_signal_wakes_once_for_many_sets() -> None:
    """What happens while the owner sleeps is seen in one go; the next wait sleeps again."""
    signal = Signal()
    woken: list[int] = []

    def own() -> None:
        while True:
            signal.wait()
            woken.append(len(woken))

    owner = gevent.spawn(own)
    gevent.idle()
    for _ in range(5):
        signal.set()
    gevent.idle()
    assert woken == [0]
    signal.set()
    gevent.idle()
    assert woken == [0, 1]
    owner.kill()


def test_a_waiter_gets_what_was_decided() -> None:
    """Before it sleeps or after."""
    early, late = Waiter(1.0), Waiter(1.0)
    early.resolve("early")
    sleeper = gevent.spawn(late.wait)
    gevent.idle()
    late.resolve("late")
    assert early.wait() == "early"
    assert sleeper.get(timeout=1) == "late"


def test_only_the_first_decision_counts() -> None:
    """A deadline that comes after the answer changes nothing."""
    waiter = Waiter(1.0)
    waiter.resolve("answer")
    waiter.resolve(NoLeader("too late"))
    assert waiter.wait() == "answer"


def test_an_error_is_raised_where_it_is_waited_for() -> None:
    """As the exception that it is."""
    waiter = Waiter(1.0)
    sleeper = gevent.spawn(waiter.wait)
    gevent.idle()
    waiter.resolve(NoLeader("nobody leads"))
    sleeper.join(timeout=1)
    assert isinstance(sleeper.exception, NoLeader)


def test_a_killed_waiter_is_not_woken_elsewhere() -> None:
    """Its greenlet may be asleep for another reason by then."""
    waiter = Waiter(1.0)
    steps: list[str] = []

    def wait_then_sleep() -> None:
        try:
            waiter.wait()
        except gevent.GreenletExit:
            steps.append("killed")
            gevent.sleep(0.05)  # a stray wake-up would end this at once
            steps.append("slept")

    sleeper = gevent.spawn(wait_then_sleep)
    gevent.idle()
    loop = gevent.get_hub().loop
    began = loop.now()
    sleeper.kill(block=False)
    waiter.resolve("answer")
    sleeper.join()
    assert steps == ["killed", "slept"]
    assert loop.now() - began >= 0.04
