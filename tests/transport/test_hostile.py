"""Hostile callers: each is refused with a status, and the core hears nothing of it."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import grpc
import pytest

from anchor.raft.configuration import Member
from anchor.raft.entry import Entry, EntryKind
from anchor.raft.messages import RequestVote, TimeoutNow
from anchor.transport import JoinRequest, TransportOptions, codec, raft_pb2
from anchor.transport import channel as channels
from anchor.transport.channel import Channel
from anchor.transport.outbox import Outbox
from anchor.transport.rpc import CallFailed, Pump
from tests.transport.harness import (
    CLUSTER,
    Answers,
    FakeNode,
    append,
    incarnation_of,
    net_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

A, B = incarnation_of("a"), incarnation_of("b")
HEADER = codec.header(CLUSTER, "a", A, "b", B)
ABSURD = 2**64 - 1


class Caller:
    """Somebody with a connection to b who sends whatever it likes."""

    def __init__(self, address: str) -> None:
        self.pump = Pump()
        self.channel = Channel(address, 64 << 20, self.pump)

    def open(self, path: str, *wires: bytes) -> tuple[Answers, Outbox[bytes]]:
        """Open a stream that says this and stays open."""
        outbox: Outbox[bytes] = Outbox(1000, 1 << 30)
        for wire in wires:
            outbox.put(wire)
        return Answers(self.channel, path, outbox), outbox

    def close(self) -> None:
        """Hang up."""
        self.channel.close()
        self.pump.close()

    def status_of(self, path: str, *wires: bytes) -> grpc.StatusCode:
        """How a stream that says this ends."""
        stream, outbox = self.open(path, *wires)
        try:
            list(stream)
        except CallFailed as error:
            return error.status
        finally:
            outbox.close()
        return grpc.StatusCode.OK

    def status_of_call(self, path: str, wire: bytes) -> grpc.StatusCode:
        """How a call with these bytes ends."""
        try:
            self.channel.call(path, wire, 5)
        except CallFailed as error:
            return error.status
        return grpc.StatusCode.OK


@dataclass
class Scene:
    """Node b, which knows a; and a hostile caller."""

    b: FakeNode
    caller: Caller
    others: list[Caller] = field(default_factory=list)

    def another(self) -> Caller:
        """One more caller, over a connection of its own."""
        self.others.append(Caller(self.caller.channel.address))
        return self.others[-1]


@contextmanager
def scene(options: TransportOptions | None = None) -> Iterator[Scene]:
    """Node b alone, knowing a member a that is not there."""
    with net_of("b", options=options or TransportOptions(silence_timeout_ms=60_000)) as net:
        net.add_remote("a", 1)
        net.acquaint()
        it = Scene(net.nodes["b"], Caller(net.members["b"].address))
        try:
            yield it
        finally:
            for caller in [it.caller, *it.others]:
                caller.close()


def headed(**wrong: object) -> bytes:
    """A fair append but for its header."""
    message = codec.header(CLUSTER, "a", A, "b", B)
    for name, value in wrong.items():
        setattr(message, name, value)
    return codec.encode_append(message, append("a", "b"))


def encoded(**wrong: object) -> bytes:
    """An append from a, wrong in this."""
    return codec.encode_append(HEADER, replace(append("a", "b", 4, term=3), **wrong))  # type: ignore[arg-type]


GAP = encoded(entries=(Entry(5, 4, EntryKind.NOOP, b""), Entry(6, 1, EntryKind.NOOP, b"")))


@pytest.mark.parametrize(
    ("status", "wire"),
    [
        ("INVALID_ARGUMENT", b"\xff\xffgarbage"),
        ("INVALID_ARGUMENT", encoded(term=ABSURD)),
        ("INVALID_ARGUMENT", encoded(term=2**63)),
        ("INVALID_ARGUMENT", encoded(term=0)),
        ("INVALID_ARGUMENT", encoded(commit_index=ABSURD)),
        ("INVALID_ARGUMENT", encoded(prev_log_index=ABSURD)),
        ("INVALID_ARGUMENT", GAP),
        ("INVALID_ARGUMENT", raft_pb2.AppendEntriesRequest(header=HEADER, term=3, entries=[b"?"])),
        ("FAILED_PRECONDITION", b""),
        ("FAILED_PRECONDITION", headed(protocol_version=99)),
        ("FAILED_PRECONDITION", headed(cluster_id="another")),
        ("FAILED_PRECONDITION", headed(cluster_id="")),
        ("FAILED_PRECONDITION", headed(recipient_incarnation=B + 1)),
        ("NOT_FOUND", headed(recipient="c")),
        ("PERMISSION_DENIED", headed(sender="z", recipient_incarnation=0)),
        ("PERMISSION_DENIED", headed(sender_incarnation=A + 1)),
        ("PERMISSION_DENIED", headed(sender="b")),
        (
            "RESOURCE_EXHAUSTED",
            encoded(entries=(Entry(5, 3, EntryKind.COMMAND, b"x" * (5 << 20)),)),
        ),
    ],
)
def test_a_hostile_append_is_refused_and_changes_nothing(
    status: str, wire: bytes | raft_pb2.AppendEntriesRequest
) -> None:
    """The stream ends with a status; the core hears nothing, and the next caller is served."""
    if not isinstance(wire, bytes):
        wire = wire.SerializeToString()
    with scene() as it:
        expected = "INVALID_ARGUMENT" if wire == b"" else status
        assert it.caller.status_of(channels.APPEND_ENTRIES, wire).name == expected
        assert it.b.heard == []
        stream, outbox = it.another().open(channels.APPEND_ENTRIES, encoded())
        assert next(iter(stream))
        outbox.close()
        assert it.b.heard == [append("a", "b", 4, term=3)]


@pytest.mark.parametrize(
    ("status", "path", "wire"),
    [
        ("INVALID_ARGUMENT", channels.REQUEST_VOTE, b"\xff\xffgarbage"),
        (
            "INVALID_ARGUMENT",
            channels.REQUEST_VOTE,
            codec.encode_vote(HEADER, RequestVote(ABSURD, "a", "b", 1, 1)),
        ),
        (
            "INVALID_ARGUMENT",
            channels.TIMEOUT_NOW,
            codec.encode_timeout_now(HEADER, TimeoutNow(ABSURD, "a", "b")),
        ),
        (
            "PERMISSION_DENIED",
            channels.REQUEST_VOTE,
            codec.encode_vote(
                codec.header(CLUSTER, "z", 1, "b", 0), RequestVote(9, "z", "b", 1, 1)
            ),
        ),
        (
            "FAILED_PRECONDITION",
            channels.TIMEOUT_NOW,
            codec.encode_timeout_now(
                codec.header("other", "a", A, "b", B), TimeoutNow(9, "a", "b")
            ),
        ),
        ("INVALID_ARGUMENT", channels.JOIN, b"\xff\xff"),
        ("INVALID_ARGUMENT", channels.REMOVE, b"\xff\xff"),
        ("INVALID_ARGUMENT", channels.IDENTIFY, b"\xff\xff"),
        ("INVALID_ARGUMENT", channels.COMPARE_DIGEST, b"\xff\xff"),
        ("RESOURCE_EXHAUSTED", channels.JOIN, b"\x0a" + b"x" * (5 << 20)),
        (
            "FAILED_PRECONDITION",
            channels.JOIN,
            codec.encode_join(codec.header("other", "z", 1, "", 0), JoinRequest("z", "", "")),
        ),
        ("UNIMPLEMENTED", "/anchor.v1.Peer/InstallSnapshot", b""),
        ("UNIMPLEMENTED", "/anchor.v1.Peer/Nothing", b""),
    ],
)
def test_a_hostile_call_is_refused_and_changes_nothing(status: str, path: str, wire: bytes) -> None:
    """Votes and handovers could raise our term: they never reach the core."""
    with scene() as it:
        assert it.caller.status_of_call(path, wire).name == status
        assert (it.b.heard, it.b.joins, it.b.removes) == ([], [], [])


@pytest.mark.parametrize("wire", [b"\xff\xff", b"", headed(cluster_id="other")])
def test_a_hostile_forward_is_refused(wire: bytes) -> None:
    """The same checks stand before forwarded questions."""
    with scene() as it:
        assert it.caller.status_of(channels.FORWARD_STREAM, wire) is not grpc.StatusCode.OK
        assert it.b.asked == []


def test_a_member_may_not_change_its_name_within_a_stream() -> None:
    """A stream belongs to who opened it."""
    with scene() as it:
        stranger = codec.header(CLUSTER, "z", 5, "b", B)
        second = codec.encode_append(stranger, append("z", "b"))
        status = it.caller.status_of(channels.APPEND_ENTRIES, encoded(), second)
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        assert len(it.b.heard) == 1


def test_a_member_that_was_replaced_is_cut_off_within_its_stream() -> None:
    """A verdict about a stream is no longer than the configuration it was made under."""
    with scene() as it:
        stream, outbox = it.caller.open(channels.APPEND_ENTRIES, encoded())
        answers = iter(stream)
        assert next(answers)
        it.b.transport.set_members([Member("a", "127.0.0.1:1", "", A + 1)])
        outbox.put(encoded())
        with pytest.raises(CallFailed, match="made anew"):
            next(answers)
        assert len(it.b.heard) == 1


def test_what_the_core_finds_to_be_nonsense_ends_the_stream() -> None:
    """InvalidMessage at once, or refuse() later: INVALID_ARGUMENT either way."""
    with scene() as it:
        it.b.finds_nonsense = True
        status = it.caller.status_of(channels.APPEND_ENTRIES, encoded())
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        vote = codec.encode_vote(HEADER, RequestVote(9, "a", "b", 1, 1))
        status = it.caller.status_of_call(channels.REQUEST_VOTE, vote)
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        it.b.finds_nonsense = False
        stream, _outbox = it.another().open(channels.APPEND_ENTRIES, encoded())
        answers = iter(stream)
        assert next(answers)
        it.b.transport.refuse("a", "it contradicts itself")
        with pytest.raises(CallFailed, match="contradicts") as failed:
            next(answers)
        assert failed.value.status is grpc.StatusCode.INVALID_ARGUMENT


def test_a_hostile_caller_is_logged_at_a_bounded_rate(caplog: pytest.LogCaptureFixture) -> None:
    """Ten refusals of one kind are one line, without a traceback."""
    with caplog.at_level(logging.INFO), scene() as it:
        for _ in range(10):
            it.another().status_of_call(
                channels.REQUEST_VOTE,
                codec.encode_vote(
                    codec.header("other", "a", A, "b", B), RequestVote(9, "a", "b", 1, 1)
                ),
            )
    lines = [record for record in caplog.records if record.getMessage().startswith("refused")]
    assert len(lines) == 1
    assert all(record.exc_info is None for record in caplog.records)
    assert not [record for record in caplog.records if record.name.startswith("grpc")]


def test_the_newest_stream_of_a_member_wins() -> None:
    """An older one, perhaps of a connection that hangs, is ended and says why."""
    with scene() as it:
        old, _outbox = it.caller.open(channels.APPEND_ENTRIES, encoded())
        old_answers = iter(old)
        assert next(old_answers)
        new, _new_outbox = it.another().open(channels.APPEND_ENTRIES, encoded())
        new_answers = iter(new)
        assert next(new_answers)
        with pytest.raises(CallFailed, match="newer stream") as failed:
            next(old_answers)
        assert failed.value.status is grpc.StatusCode.ABORTED


def test_streams_that_say_nothing_are_few_and_end_soon() -> None:
    """A caller that opens many streams gets a few, for a while; a member gets in at any time."""
    options = TransportOptions(silence_timeout_ms=2_000, first_message_timeout_ms=1_000)
    with scene(options) as it:
        ended: list[grpc.StatusCode] = []
        done = threading.Condition()

        def hold_open() -> None:
            status = it.caller.status_of(channels.APPEND_ENTRIES)
            with done:
                ended.append(status)
                done.notify_all()

        holders = [threading.Thread(target=hold_open) for _ in range(24)]
        for holder in holders:
            holder.start()
        with done:
            assert done.wait_for(lambda: len(ended) >= 8, 10)
            assert set(ended) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert done.wait_for(lambda: len(ended) == 24, 10)
        assert ended.count(grpc.StatusCode.DEADLINE_EXCEEDED) == 16
        for holder in holders:
            holder.join(5)
        stream, _outbox = it.another().open(channels.APPEND_ENTRIES, encoded())
        assert next(iter(stream))


def test_strangers_share_few_streams() -> None:
    """Whoever names our incarnation may speak, but only so many strangers at once."""
    with scene() as it:
        refused: list[grpc.StatusCode] = []
        streams = []
        for number in range(20):
            header = codec.header(CLUSTER, f"z{number}", 5, "b", B)
            wire = codec.encode_append(header, append(f"z{number}", "b"))
            stream, _outbox = it.caller.open(channels.APPEND_ENTRIES, wire)
            streams.append(stream)
            try:
                next(iter(stream))
            except CallFailed as error:
                refused.append(error.status)
        assert refused == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 4
        member, _outbox = it.another().open(channels.APPEND_ENTRIES, encoded())
        assert next(iter(member))


def test_bytes_that_are_no_http2_harm_nobody() -> None:
    """Somebody else's protocol on our port is hung up on."""
    with scene() as it:
        host, _, port = it.caller.channel.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"\0" * 4096)
            connection.settimeout(5)
            while connection.recv(4096):
                pass
        stream, _outbox = it.caller.open(channels.APPEND_ENTRIES, encoded())
        assert next(iter(stream))
