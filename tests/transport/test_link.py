"""What a link makes of a ping that nobody answered, on a clock and a channel of the test's own."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import grpc
import pytest

from anchor.raft.configuration import Member
from anchor.transport.link import Link
from anchor.transport.options import TransportOptions
from anchor.transport.rpc import CallFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.transport.parts import Parts

OPTIONS = TransportOptions(silence_timeout_ms=1000)
TIMEOUT_SECONDS = 0.6
TOO_LATE = CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "")


class Pinged:
    """A link that asked whether its member lives, at second 100."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.asked: list[Callable[[bytes | CallFailed], None]] = []
        monkeypatch.setattr("anchor.transport.link.time.monotonic", lambda: self.now)
        admission = SimpleNamespace(cluster_id="c", member_id="me", incarnation=1)
        parts = SimpleNamespace(
            admission=admission, options=OPTIONS, rng=random.Random(1), pump=None
        )
        self.link = Link(Member("r", "127.0.0.1:1"), cast("Parts", parts))
        channel = SimpleNamespace(
            call_later=lambda _path, _wire, _timeout, done: self.asked.append(done)
        )
        monkeypatch.setattr(self.link, "channel", lambda: channel)
        self.link.answered()
        self.link.ping(self.now, TIMEOUT_SECONDS)

    def look_round_until(self, end: float) -> None:
        """Look round as often as a transport does."""
        while self.now < end:
            self.now += OPTIONS.round_seconds
            self.link.look_round(self.now)


def test_who_does_not_answer_a_ping_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as this process listened all the time."""
    pinged = Pinged(monkeypatch)
    pinged.look_round_until(100 + TIMEOUT_SECONDS)
    pinged.asked[0](TOO_LATE)
    assert not pinged.link.connected


@pytest.mark.parametrize("looks_round_first", [True, False])
def test_a_ping_that_ran_out_while_this_process_was_paused_says_nothing(
    monkeypatch: pytest.MonkeyPatch, *, looks_round_first: bool
) -> None:
    """Whether waking up is noticed first, or that the deadline has passed."""
    pinged = Pinged(monkeypatch)
    pinged.now = 102.0
    if looks_round_first:
        pinged.link.look_round(pinged.now)
    pinged.asked[0](TOO_LATE)
    assert pinged.link.connected
    pinged.link.look_round(pinged.now)
    pinged.link.ping(pinged.now, TIMEOUT_SECONDS)
    assert len(pinged.asked) == 2  # it is asked again at once
    pinged.look_round_until(pinged.now + TIMEOUT_SECONDS)
    pinged.asked[1](TOO_LATE)
    assert not pinged.link.connected
