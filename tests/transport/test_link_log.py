"""What is said about a connection, at which level, and how often."""

from __future__ import annotations

import logging

import pytest

from anchor.transport.link_log import LinkLog

JOINING = "it refuses: not in a cluster yet"


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Tell it."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock()


@pytest.fixture
def log(clock: Clock, caplog: pytest.LogCaptureFixture) -> LinkLog:
    """The log about member b, of which everything is recorded."""
    caplog.set_level(logging.DEBUG, "anchor.transport")
    return LinkLog("b", "b:1", clock)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of each line, but for what only a debugger wants."""
    return [(r.levelname, r.getMessage()) for r in caplog.records if r.levelname != "DEBUG"]


def test_each_reason_is_said_once_until_it_is_over(
    log: LinkLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Reasons that take turns are two lines, not two every ten seconds; numbers do not count."""
    log.connected()
    for round_number in range(20):
        log.failed("connection refused")
        clock.now += 11
        log.failed(f"nothing heard for 1.{round_number} s")
        clock.now += 11
    assert said(caplog) == [
        ("INFO", "connected to b at b:1"),
        ("WARNING", "lost b at b:1: connection refused"),
        ("INFO", "cannot reach b at b:1: nothing heard for 1.0 s"),
    ]
    log.connected()
    log.failed("connection refused")
    assert said(caplog)[-1] == ("WARNING", "lost b at b:1: connection refused")


def test_reasons_made_up_at_will_are_bounded(
    log: LinkLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer whose every word is new does not fill the log."""
    for number in range(500):
        log.failed("x" * number)
        clock.now += 11
    assert len(said(caplog)) <= 16


def test_a_member_that_stops_is_no_warning(log: LinkLog, caplog: pytest.LogCaptureFixture) -> None:
    """An orderly stop is told as such."""
    log.connected()
    log.failed("stopping")
    log.failed("stopping")
    assert said(caplog)[1:] == [("INFO", "b is stopping")]


def test_a_member_that_joins_is_no_news(
    log: LinkLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """In no cluster yet, for as long as joining takes: not a line above debug."""
    log.connected()
    for _ in range(20):
        log.failed(JOINING)
        clock.now += 0.2
    log.connected()
    clock.now += 60
    log.failed(JOINING)
    assert said(caplog) == [("INFO", "connected to b at b:1")]


@pytest.mark.parametrize("connected_before", [True, False])
def test_a_member_that_joins_for_too_long_is_one_warning(
    log: LinkLog, clock: Clock, caplog: pytest.LogCaptureFixture, *, connected_before: bool
) -> None:
    """After five seconds it is said, once."""
    if connected_before:
        log.connected()
    caplog.clear()
    for _ in range(100):
        log.failed(JOINING)
        clock.now += 0.25
    what = "lost" if connected_before else "cannot reach"
    assert said(caplog) == [("WARNING", f"{what} b at b:1: {JOINING}")]
