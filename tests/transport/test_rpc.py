"""gRPC for greenlets: it is real gRPC, it waits without blocking the hub, it leaves nothing."""

from __future__ import annotations

import gc
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import gevent
import grpc
import pytest
from gevent.event import Event

from anchor.transport.channel import Channel
from anchor.transport.outbox import Outbox
from anchor.transport.rpc import CallFailed, Method, Pump, RpcServer, Sending, ServerCall
from tests.transport.grpcio import FAIL, MANY, ONE
from tests.transport.harness import Answers

if TYPE_CHECKING:
    from collections.abc import Iterator

GRPCIO = [sys.executable, "-m", "tests.transport.grpcio"]
LIMIT = 4 << 20


@contextmanager
def grpcio_server() -> Iterator[str]:
    """An echo by grpcio's own server; its address."""
    with subprocess.Popen(
        [*GRPCIO, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@contextmanager
def our_server(max_calls: int = 10) -> Iterator[tuple[str, RpcServer]]:
    """The same echo by ours; its address."""
    pump = Pump()
    server = RpcServer(echo_methods(pump), [("grpc.so_reuseport", 0)], max_calls, pump)
    port = server.listen("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        server.stop(0.0)
        pump.close()
        with gevent.Timeout(5):
            while pump.threads:
                gevent.sleep(0.001)  # the server's thread is on its way out


@contextmanager
def channel_to(address: str) -> Iterator[Channel]:
    """A channel of ours."""
    pump = Pump()
    channel = Channel(address, LIMIT, pump)
    try:
        yield channel
    finally:
        channel.close()
        pump.close()


def echo_methods(pump: Pump) -> dict[str, Method]:
    """One message there and back, many, and a failure."""

    def one(call: ServerCall) -> None:
        for wire in call.messages():
            call.answer(b"one " + wire)
            return

    def many(call: ServerCall) -> None:
        outbox: Outbox[bytes] = Outbox(100, 1 << 20)
        Sending(call, outbox, bytes, call.finish, pump)
        for wire in call.messages():
            outbox.put(b"many " + wire)
        outbox.close()

    def fail(call: ServerCall) -> None:
        call.finish(grpc.StatusCode.FAILED_PRECONDITION, "not löw enough")

    return {
        ONE: Method(one, waits=True),
        MANY: Method(many, waits=True),
        FAIL: Method(fail),
    }


def stream_of(channel: Channel, *wires: bytes) -> tuple[Answers, Outbox[bytes]]:
    """A stream that says this."""
    outbox: Outbox[bytes] = Outbox(100, 1 << 20)
    answers = Answers(channel, MANY, outbox)
    for wire in wires:
        outbox.put(wire)
    return answers, outbox


def test_our_calls_reach_a_server_of_grpcio() -> None:
    """Calls, streams and failures arrive there and come back, byte for byte."""
    with grpcio_server() as address, channel_to(address) as channel:
        assert channel.call(ONE, b"\0x", 5) == b"one \0x"
        answers, outbox = stream_of(channel, b"a", b"b" * 100_000)
        outbox.close()
        assert list(answers) == [b"many a", b"many " + b"b" * 100_000]
        with pytest.raises(CallFailed, match="not löw enough") as failed:
            channel.call(FAIL, b"", 5)
        assert failed.value.status is grpc.StatusCode.FAILED_PRECONDITION


def test_a_client_of_grpcio_is_served_by_us() -> None:
    """The same the other way round; an unknown method is UNIMPLEMENTED."""
    with our_server() as (address, _):
        command = [*GRPCIO, "call", address]
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        assert run.stdout.splitlines() == [
            "b'one x'",
            "b'bbb'",
            "FAILED_PRECONDITION not löw enough",
            "UNIMPLEMENTED Method not found!",
        ]


def test_waiting_for_an_answer_lets_other_greenlets_run() -> None:
    """A call that takes its time holds up nobody."""
    turns = 0

    def count() -> None:
        nonlocal turns
        while True:
            gevent.sleep(0)
            turns += 1

    with our_server() as (address, _), channel_to(address) as channel:
        counter = gevent.spawn(count)
        channel.call(ONE, b"x", 5)
        counter.kill()
    assert turns > 10


def test_messages_of_a_stream_stay_in_order_however_fast_they_come() -> None:
    """Ten thousand messages there and back, each once."""
    with our_server() as (address, _), channel_to(address) as channel:
        outbox: Outbox[bytes] = Outbox(20_000, 1 << 30)
        answers = Answers(channel, MANY, outbox)
        for number in range(10_000):
            outbox.put(b"%d" % number)
            if number % 100 == 0:
                gevent.sleep(0)
        outbox.close()
        # The echo keeps the last hundred only while its client reads too slowly, which it is told.
        heard = [int(answer.split()[1]) for answer in answers]
        assert heard == sorted(set(heard))
        assert heard[-1] == 9_999


def test_more_calls_than_are_allowed_are_refused() -> None:
    """The one too many is RESOURCE_EXHAUSTED; when one has ended there is room again."""
    with our_server(max_calls=2) as (address, _), channel_to(address) as channel:
        first, outbox = stream_of(channel, b"a")
        second, _ = stream_of(channel, b"b")
        assert (next(first), next(second)) == (b"many a", b"many b")
        with pytest.raises(CallFailed) as failed:
            channel.call(ONE, b"x", 5)
        assert failed.value.status is grpc.StatusCode.RESOURCE_EXHAUSTED
        outbox.close()
        assert list(first) == []
        with gevent.Timeout(5):
            while True:
                try:
                    assert channel.call(ONE, b"x", 5) == b"one x"
                    break
                except CallFailed:
                    gevent.sleep(0.01)  # the end of the stream is on its way


def test_a_closed_channel_ends_its_calls_and_takes_no_more() -> None:
    """Whoever waits gets CANCELLED, and so does whoever comes late."""
    with our_server() as (address, _), channel_to(address) as channel:
        answers, _ = stream_of(channel, b"a")
        assert next(answers) == b"many a"
        channel.close()
        with pytest.raises(CallFailed) as failed:
            next(answers)
        assert failed.value.is_cancelled
        with pytest.raises(CallFailed):
            channel.call(ONE, b"x", 5)


def test_a_server_that_stops_cuts_off_what_outlasts_its_grace() -> None:
    """An open stream ends, the port is free, and no native thread is left."""
    with our_server() as (address, server), channel_to(address) as channel:
        answers, _ = stream_of(channel, b"a")
        assert next(answers) == b"many a"
        server.stop(0.05)
        with pytest.raises(CallFailed) as failed:
            next(answers)
        assert failed.value.is_breakdown


def test_calls_leave_nothing_behind() -> None:
    """A thousand calls and a hundred streams later nothing of them is alive."""
    with our_server() as (address, server), channel_to(address) as channel:
        for number in range(1_000):
            assert channel.call(ONE, b"%d" % number, 5)
        for _ in range(100):
            answers, outbox = stream_of(channel, b"a")
            outbox.close()
            assert list(answers) == [b"many a"]
        gone = Event()
        gevent.spawn_later(0, gone.set)
        gone.wait()
        gc.collect()
        alive = [o for o in gc.get_objects() if isinstance(o, ServerCall)]
        assert len(alive) <= 1
        assert server._due <= 2  # the next call's request; the end of the last one


def test_what_fails_on_the_hub_does_not_stop_the_pump(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next one is run."""
    pump = Pump()
    ran = Event()

    def fail(_: object) -> None:
        raise RuntimeError("for the test")

    pump.post(fail)
    pump.post(lambda _: ran.set())
    assert ran.wait(5)
    pump.close()
    assert "for the test" in caplog.text
