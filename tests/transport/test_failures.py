"""A member that dies, hangs or comes back, in a process of its own."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anchor.raft.messages import AppendEntriesResponse
from anchor.transport import CallTimeout, JoinRequest, TransportOptions
from tests.transport.harness import OPTIONS, FakeNode, Net, append, net_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SILENCE_SECONDS = OPTIONS.silence_timeout_ms / 1000


class Remote:
    """Member r, in another process; ``net`` knows it under the same port all the time."""

    def __init__(self, net: Net) -> None:
        self._others = [f"{m.id}={m.address.rpartition(':')[2]}" for m in net.members.values()]
        self.port = 0
        self.start()
        net.add_remote("r", self.port)
        net.acquaint()

    def start(self) -> None:
        """Start it, again at the same port."""
        command = [sys.executable, "-m", "tests.transport.remote", "r", str(self.port)]
        self.process = subprocess.Popen(
            [*command, *self._others],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not said:
            self.end()
            pytest.fail("the remote member did not start")
        self.port = int(said)

    def signal(self, number: signal.Signals) -> None:
        """Kill, pause or resume it."""
        self.process.send_signal(number)

    def end(self) -> str:
        """End it, whatever state it is in, and close its pipes; what it logged."""
        self.process.kill()
        return self.process.communicate()[1]


@contextmanager
def leader_and_remote(
    options: TransportOptions = OPTIONS,
) -> Iterator[tuple[FakeNode, Remote]]:
    """Node a here and member r there, connected."""
    with net_of("a", options=options) as net:
        remote = Remote(net)
        try:
            a = net.nodes["a"]
            exchange(a)
            yield a, remote
        finally:
            remote.end()


def exchange(a: FakeNode) -> float:
    """Send what a leader would, every 20 ms, until it is answered; when that was."""
    count = len(a.heard)

    def answered() -> bool:
        a.transport.send([append("a", "r", count)])
        return any(
            isinstance(m, AppendEntriesResponse) and m.match_index == count + 1
            for m in a.heard[count:]
        )

    a.until(answered)
    return time.monotonic()


def heartbeat(a: FakeNode, until: float) -> None:
    """Go on sending what nobody may answer."""
    while time.monotonic() < until:
        a.transport.send([append("a", "r", 0, ())])
        time.sleep(0.02)  # a leader's heartbeat: time passing is what is tested


def test_a_killed_member_is_noticed_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """A broken connection needs no timer: lost, told once as a line, told to the core."""
    with caplog.at_level(logging.INFO, "anchor.transport"), leader_and_remote() as (a, remote):
        remote.signal(signal.SIGKILL)
        killed = time.monotonic()
        a.until(lambda: not a.transport.connected("r") and a.disconnected)
        assert time.monotonic() - killed < SILENCE_SECONDS
        heartbeat(a, time.monotonic() + 0.5)
        lines = [r.getMessage() for r in caplog.records if "lost r" in r.getMessage()]
        assert len(lines) == 1, lines


def test_a_killed_member_that_comes_back_is_served_at_once() -> None:
    """However long the back-off has become: who speaks to us is tried at once."""
    patient = replace(OPTIONS, backoff_min_ms=300_000, backoff_max_ms=600_000)
    with leader_and_remote(patient) as (a, remote):
        remote.signal(signal.SIGKILL)
        remote.end()
        heartbeat(a, time.monotonic() + 1.0)
        remote.start()
        back = time.monotonic()
        assert exchange(a) - back < 0.6  # 0.3 s, and as much for a busy machine
        assert a.transport.connected("r")


def test_a_paused_member_is_recognised_and_recovered(caplog: pytest.LogCaptureFixture) -> None:
    """Its connection stays open, so silence is judged here; resumed, it is served again soon."""
    with caplog.at_level(logging.INFO, "anchor.transport"), leader_and_remote() as (a, remote):
        before = len(a.disconnected)
        remote.signal(signal.SIGSTOP)
        paused = time.monotonic()
        heartbeat(a, paused + SILENCE_SECONDS / 2)
        assert len(a.disconnected) == before
        heartbeat(a, paused + 2 * SILENCE_SECONDS)
        assert not a.transport.connected("r")
        assert len(a.disconnected) > before
        assert "lost r" in caplog.text
        heartbeat(a, paused + 4 * SILENCE_SECONDS)
        remote.signal(signal.SIGCONT)
        resumed = time.monotonic()
        assert exchange(a) - resumed < 2.0
        assert a.transport.connected("r")


def test_an_idle_member_that_is_paused_is_lost_too() -> None:
    """Without a stream pings find out; a call to it ends with its own timeout."""
    with net_of("a") as net:
        remote = Remote(net)
        try:
            a = net.nodes["a"]
            a.until(lambda: a.transport.connected("r"))
            remote.signal(signal.SIGSTOP)
            a.until(lambda: not a.transport.connected("r"))
            with pytest.raises(CallTimeout):
                a.transport.join(net.members["r"].address, JoinRequest("z", "", ""), 0.2)
            remote.signal(signal.SIGCONT)
            a.until(lambda: a.transport.connected("r"))
            assert a.disconnected == []
        finally:
            remote.end()


def test_who_was_paused_itself_blames_nobody() -> None:
    """It heard nothing because it did not listen."""
    with net_of("a") as net:
        remote = Remote(net)
        try:
            a = net.nodes["a"]
            a.until(lambda: a.transport.connected("r"))
            remote.signal(signal.SIGSTOP)
            a.until(lambda: not a.transport.connected("r"))
            time.sleep(1.0)  # a pause longer than every timeout of the paused one
            remote.signal(signal.SIGCONT)
            a.until(lambda: a.transport.connected("r"))
            time.sleep(0.3)  # for its monitor to look round
        finally:
            logged = remote.end()
        assert "connected to a" in logged
        assert "lost a" not in logged


def test_a_lost_leader_breaks_the_forward_stream() -> None:
    """A paused leader cannot say that it is gone; what was asked is in doubt once it is lost."""
    with net_of("a") as net:
        remote = Remote(net)
        try:
            a = net.nodes["a"]
            stream = a.transport.forward("r")
            stream.read_index(1)
            a.until(lambda: a.answers)
            remote.signal(signal.SIGSTOP)
            stream.read_index(2)
            a.until(lambda: a.broken)
            assert a.broken == ["r"]
            assert stream.closed
        finally:
            remote.end()


def test_a_member_whose_disk_is_slow_is_not_lost() -> None:
    """It acknowledges nothing for a while, but answers pings: the stream stays."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        a.transport.send([append("a", "b")])
        a.until(lambda: a.heard)
        b.answers_appends = False
        deadline = time.monotonic() + 3 * SILENCE_SECONDS
        index = 1
        while time.monotonic() < deadline:
            a.transport.send([append("a", "b", index)])
            index += 1
            time.sleep(0.02)  # the disk's time, which is what is tested
        assert a.disconnected == []
        assert a.transport.connected("b")
        assert b.heard[-1].term == 1


def test_a_member_that_is_not_there_costs_few_attempts() -> None:
    """The back-off grows: many heartbeats are few attempts."""
    options = TransportOptions(silence_timeout_ms=600, backoff_min_ms=50, backoff_max_ms=400)
    with net_of("a", options=options) as net:
        net.add_remote("r", 1)
        net.acquaint()
        a = net.nodes["a"]
        heartbeat(a, time.monotonic() + 1.5)
        assert 2 <= len(a.disconnected) <= 30


def test_a_queue_for_a_member_that_does_not_read_is_bounded() -> None:
    """What cannot be sent is dropped, the oldest first; the newest arrives."""
    options = TransportOptions(silence_timeout_ms=60_000, max_queued_messages=16)
    with net_of("a", "b", options=options) as net:
        a, b = net.nodes["a"], net.nodes["b"]
        reading = threading.Event()
        b.before_hearing = lambda: reading.wait(10)
        for session in range(1, 3000):
            a.transport.send([append("a", "b", 0, (b"x" * 20_000,), session=session)])
        assert len(a.transport._peers["b"]._outbox) <= 16
        reading.set()
        b.until(lambda: b.heard and getattr(b.heard[-1], "session", 0) == 2999)
        assert len(b.heard) < 2900
