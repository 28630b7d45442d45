"""gRPC for greenlets: it is real gRPC, it waits without blocking the hub, it leaves nothing."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import gevent
import grpc
import pytest
from gevent.event import AsyncResult, Event

from anchor.transport import channel as channels
from anchor.transport.channel import Channel
from anchor.transport.outbox import Outbox
from anchor.transport.rpc import (
    CallFailed,
    ClientCall,
    Connection,
    Method,
    Pump,
    RpcServer,
    Sending,
    ServerCall,
)
from tests.transport.grpcio import FAIL, MANY, ONE
from tests.transport.harness import Answers, net_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

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
def server_of(
    methods: Callable[[Pump], dict[str, Method]], max_calls: int = 10
) -> Iterator[tuple[str, RpcServer]]:
    """A server of ours; its address."""
    pump = Pump()
    server = RpcServer(methods(pump), [("grpc.so_reuseport", 0)], max_calls, pump)
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


def our_server(max_calls: int = 10) -> AbstractContextManager[tuple[str, RpcServer]]:
    """The same echo by ours; its address."""
    return server_of(echo_methods, max_calls)


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
        outbox: Outbox[bytes] = Outbox(20_000, 1 << 30)
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
    """A call that takes its time holds up nobody: here it ends because another greenlet ran."""
    ripe = Event()

    def answer_late(call: ServerCall) -> None:
        for wire in call.messages():
            ripe.wait()
            call.answer(wire)

    methods = {ONE: Method(answer_late, waits=True)}
    with server_of(lambda _: methods) as (address, _), channel_to(address) as channel:
        gevent.spawn_later(0.01, ripe.set)
        assert channel.call(ONE, b"x", 5) == b"x"


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
        assert [int(answer.split()[1]) for answer in answers] == list(range(10_000))


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
    """An open stream ends, what waits for its messages is ended, and the port is free."""
    with our_server() as (address, server), channel_to(address) as channel:
        answers, _ = stream_of(channel, b"a")
        assert next(answers) == b"many a"
        (greenlet,) = server._waiting.greenlets
        server.stop(0.05)
        with pytest.raises(CallFailed) as failed:
            next(answers)
        assert failed.value.is_breakdown
        assert greenlet.dead
        host, _, port = address.rpartition(":")
        socket.create_server((host, int(port))).close()


def test_calls_leave_nothing_behind() -> None:
    """A thousand calls and a hundred streams later none is alive; calls are not even garbage."""
    with our_server() as (address, server), channel_to(address) as channel:
        gc.collect()
        gc.disable()
        try:
            for number in range(1_000):
                assert channel.call(ONE, b"%d" % number, 5)
            eventually(lambda: not server._calls and not server._waiting.greenlets)
            assert len(calls_alive()) <= 1
        finally:
            gc.enable()
        for _ in range(100):
            answers, outbox = stream_of(channel, b"a")
            outbox.close()
            assert list(answers) == [b"many a"]
        eventually(lambda: not server._calls and not server._waiting.greenlets)
        gc.collect()
        assert len(calls_alive()) <= 2
        eventually(lambda: server._due == 1)  # the next call's request


def calls_alive() -> list[object]:
    """All calls there are, of ours and of others."""
    return [o for o in gc.get_objects() if isinstance(o, ServerCall | ClientCall)]


def eventually(what: Callable[[], object]) -> None:
    """Wait for something that nobody announces."""
    with gevent.Timeout(5):
        while not what():
            gevent.sleep(0.005)


def silent_call(channel: Channel, path: str) -> tuple[Outbox[bytes], Answers]:
    """A call that says nothing for now."""
    outbox: Outbox[bytes] = Outbox(10, 1 << 20)
    return outbox, Answers(channel, path, outbox)


def status_of(answers: Answers) -> grpc.StatusCode:
    """How it ends."""
    with pytest.raises(CallFailed) as failed:
        list(answers)
    return failed.value.status


@pytest.mark.parametrize("path", [ONE, MANY])
def test_a_call_that_says_nothing_holds_its_place_for_a_while_only(path: str) -> None:
    """It is ended with a status, and its place is free."""
    with our_server() as (address, server), channel_to(address) as channel:
        _, answers = silent_call(channel, path)
        eventually(lambda: server._calls)
        now = time.monotonic()
        server.check(now, first_message_seconds=60)
        assert len(server._calls) == 1
        server.check(now + 61, first_message_seconds=60)
        assert status_of(answers) is grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: not server._calls)


def test_silent_calls_make_room_for_who_speaks() -> None:
    """The oldest are let go when others come; those that may be about to speak are not."""
    with our_server(max_calls=8) as (address, server), channel_to(address) as channel:
        ends = [gevent.spawn(status_of, silent_call(channel, MANY)[1]) for _ in range(6)]
        eventually(lambda: len(server._calls) == 6)
        assert channel.call(ONE, b"x", 5) == b"one x"
        eventually(lambda: len(server._calls) == 6)
        for call in server._calls:
            call.since -= 60
        for _ in range(5):
            assert channel.call(ONE, b"x", 5) == b"one x"
        eventually(lambda: len(server._calls) == 1)
        gevent.wait(ends, count=5)
        assert [end.value for end in ends].count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 5
        assert channel.call(ONE, b"x", 5) == b"one x"
        eventually(lambda: len(server._calls) == 1)
    gevent.wait(ends)


def test_a_call_without_a_message_is_refused() -> None:
    """Half-closed at once: INVALID_ARGUMENT, not silence."""
    with net_of("b") as net, channel_to(net.members["b"].address) as channel:
        outbox, answers = silent_call(channel, channels.IDENTIFY)
        outbox.close()
        assert status_of(answers) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_client_that_does_not_read_cannot_keep_a_call_open() -> None:
    """Told to end while its answers are stuck, it is cut off."""
    pump, client_pump = Pump(), Pump()
    calls: list[ServerCall] = []
    outbox: Outbox[bytes] = Outbox(1000, 1 << 30)

    def flood(call: ServerCall) -> None:
        calls.append(call)
        Sending(call, outbox, bytes, call.finish, pump)
        for _ in range(100):
            outbox.put(b"x" * 1_000_000)

    server = RpcServer({MANY: Method(flood)}, [], 10, pump)
    port = server.listen("127.0.0.1:0")
    server.start()
    # With a window that does not grow, no whole message fits into what was not asked for.
    connection = Connection(f"127.0.0.1:{port}", [("grpc.http2.bdp_probe", 0)], client_pump)
    reading = Event()
    ended: AsyncResult[CallFailed | None] = AsyncResult()

    def read_late(_: bytes) -> None:
        reading.wait()

    ClientCall(connection, MANY, read_late, ended.set)
    eventually(lambda: calls and len(outbox) <= 97)  # two are read, the third is under way
    outbox.close(discard=True)
    calls[0].is_ending()
    server.check(time.monotonic() + 1, first_message_seconds=60)
    assert len(server._calls) == 1
    server.check(time.monotonic() + 60, first_message_seconds=600)
    eventually(lambda: not server._calls)
    assert calls[0].gone
    reading.set()
    failure = ended.get(timeout=5)
    assert failure is not None
    connection.close()
    server.stop(0.0)
    pump.close()
    client_pump.close()


def test_a_thread_that_cannot_be_had_fails_the_call_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A limit of the system is a CallFailed; the next call gets through."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with our_server() as (address, _), channel_to(address) as channel:
        with monkeypatch.context() as patch:
            patch.setattr("anchor.transport.rpc.pump.start_thread", refuse)
            with pytest.raises(CallFailed, match="thread"):
                channel.call(ONE, b"x", 5)
            with pytest.raises(CallFailed, match="thread"):
                silent_call(channel, MANY)
        assert channel.call(ONE, b"x", 5) == b"one x"


def test_an_upload_whose_messages_cannot_be_made_fails_with_that() -> None:
    """Whatever making them raised reaches who waits for the answer, and the call ends."""

    def failing() -> Iterator[bytes]:
        yield b"x"
        raise OSError("the disk is gone")

    with our_server() as (address, server), channel_to(address) as channel:
        with pytest.raises(OSError, match="the disk is gone"):
            channel.upload(MANY, failing()).result()
        eventually(lambda: not server._calls)


def test_what_fails_on_the_hub_does_not_stop_the_pump(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next one is run."""
    pump = Pump()
    ran = Event()

    def fail(_: object) -> None:
        raise RuntimeError("for the test")

    def time_out(_: object) -> None:
        raise gevent.Timeout(1)

    pump.post(fail)
    pump.post(time_out)
    pump.post(lambda _: ran.set())
    assert ran.wait(5)
    pump.close()
    assert "for the test" in caplog.text
