"""Snapshots between real transports: whole, broken and resumed, refused, hostile."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anchor.raft.configuration import Configuration, Member
from anchor.raft.messages import (
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    SnapshotMetadata,
)
from anchor.transport import (
    SnapshotFile,
    SnapshotManifest,
    SnapshotPosition,
    SnapshotRefused,
    Unreachable,
    codec,
    raft_pb2,
)
from anchor.transport import channel as channels
from anchor.transport.channel import Channel
from anchor.transport.codec import Malformed
from anchor.transport.rpc import CallFailed, Pump
from tests.transport.harness import CLUSTER, FakeNode, Net, incarnation_of, net_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIGURATION = Configuration({"b": Member("b", "h:1", "", 7)}, frozenset({"b"}))
MESSAGE = InstallSnapshot(3, "a", "b", SnapshotMetadata(90, 2, CONFIGURATION, 5), 4)
CONTENTS = (b"", b"small", bytes(range(256)) * 10_000, b"", b"x" * (1 << 20), b"")


def manifest_of(contents: tuple[bytes, ...]) -> SnapshotManifest:
    """Its files by number."""
    return SnapshotManifest(
        1,
        tuple(
            SnapshotFile(f"{number}.sst", len(content), hashlib.sha256(content).digest())
            for number, content in enumerate(contents)
        ),
    )


class Source:
    """Files in memory; ``before_read`` may get in the way."""

    def __init__(self, contents: tuple[bytes, ...] = CONTENTS) -> None:
        self.contents = contents
        self.reads: list[SnapshotPosition] = []
        self.before_read: Callable[[int], None] = lambda _count: None

    @property
    def manifest(self) -> SnapshotManifest:
        """What will be sent."""
        return manifest_of(self.contents)

    def read(self, position: SnapshotPosition, size_bytes: int) -> bytes:
        """Give that much."""
        self.reads.append(position)
        self.before_read(len(self.reads))
        return self.contents[position.file][position.offset : position.offset + size_bytes]


class Sink:
    """Keeps what arrives."""

    def __init__(self, manifest: SnapshotManifest) -> None:
        self.manifest = manifest
        self.files = [bytearray() for _ in manifest.files]
        self.position = SnapshotPosition()
        self.suspended = 0
        self.finished = 0

    def write(self, position: SnapshotPosition, content: bytes) -> None:
        """Keep it."""
        assert len(self.files[position.file]) == position.offset
        self.files[position.file] += content
        self.position = SnapshotPosition(position.file, position.offset + len(content))

    def finish(self) -> None:
        """Verify it."""
        for file, kept in zip(self.manifest.files, self.files, strict=True):
            if hashlib.sha256(kept).digest() != file.sha256:
                self.position = SnapshotPosition()
                self.files = [bytearray() for _ in self.manifest.files]
                raise SnapshotRefused(f"{file.name} is damaged")
        self.finished += 1

    def suspend(self) -> None:
        """Count it."""
        self.suspended += 1


class Receiver:
    """Goes on with the sink of the same snapshot."""

    def __init__(self) -> None:
        self.sinks: list[Sink] = []

    def receive(self, message: InstallSnapshot, manifest: SnapshotManifest) -> Sink:
        """Begin or go on."""
        if manifest.format_version != 1:
            raise SnapshotRefused(f"format {manifest.format_version} is not known here")
        assert message.snapshot == MESSAGE.snapshot
        if not self.sinks or self.sinks[-1].manifest != manifest:
            self.sinks.append(Sink(manifest))
        return self.sinks[-1]


class Follower(FakeNode):
    """Its core takes any snapshot."""

    judges = True

    def on_message(self, message: Message) -> None:
        """Install and answer."""
        super().on_message(message)
        if isinstance(message, InstallSnapshot) and self.judges:
            index = message.snapshot.last_included_index
            self.transport.send(
                [InstallSnapshotResponse(3, "b", "a", True, index, message.session)]
            )


@contextmanager
def scene() -> Iterator[tuple[Net, Follower, Receiver]]:
    """A leader a, and b that receives."""
    with net_of() as net:
        net.add("a")
        receiver = Receiver()
        b = Follower("b")
        net.add_node(b, snapshot_receiver=receiver)
        net.acquaint()
        yield net, b, receiver


def test_a_snapshot_arrives_whole_and_the_core_judges_it() -> None:
    """Every file arrives byte for byte, then the message, then the answer comes back."""
    with scene() as (net, b, receiver):
        a = net.nodes["a"]
        a.transport.send_snapshot(MESSAGE, Source())
        (sink,) = receiver.sinks
        assert [bytes(kept) for kept in sink.files] == list(CONTENTS)
        assert sink.finished == 1
        assert b.heard == [MESSAGE]
        (answer,) = a.heard
        assert isinstance(answer, InstallSnapshotResponse)
        assert (answer.success, answer.match_index, answer.session) == (True, 90, 4)
        assert (answer.sender, answer.recipient) == ("b", "a")


def test_a_broken_transfer_goes_on_where_it_broke() -> None:
    """Nothing that arrived is sent again."""
    with scene() as (net, _b, receiver):
        a = net.nodes["a"]
        source = Source()

        def break_once(count: int) -> None:
            if count == 3:
                sink_of(receiver, SnapshotPosition(2, 1 << 20))
                a.transport._peers["b"].link.failed("cut for the test")

        source.before_read = break_once
        a.transport.send_snapshot(MESSAGE, source)
        (sink,) = receiver.sinks
        assert [bytes(kept) for kept in sink.files] == list(CONTENTS)
        assert sink.suspended >= 1
        assert len(source.reads) <= len(set(source.reads)) + 1


def sink_of(receiver: Receiver, position: SnapshotPosition) -> None:
    """Wait until the sink has got that far."""
    deadline = time.monotonic() + 10
    while not receiver.sinks or receiver.sinks[-1].position < position:
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_damage_on_the_way_is_found_and_refused() -> None:
    """A file that does not match its checksum never reaches the core."""
    with scene() as (net, b, receiver):
        source = Source()
        damaged = replace(source.manifest.files[1], sha256=b"\0" * 32)
        files = (source.manifest.files[0], damaged, *source.manifest.files[2:])

        class Lying(Source):
            manifest = SnapshotManifest(1, files)

        with pytest.raises(SnapshotRefused, match=r"1\.sst is damaged"):
            net.nodes["a"].transport.send_snapshot(MESSAGE, Lying())
        assert receiver.sinks[-1].finished == 0
        assert b.heard == []


def test_a_format_that_is_not_known_is_refused() -> None:
    """The receiver's own words reach the sender."""
    with scene() as (net, _b, _receiver):

        class Newer(Source):
            manifest = SnapshotManifest(9, ())

        with pytest.raises(SnapshotRefused, match="format 9 is not known here"):
            net.nodes["a"].transport.send_snapshot(MESSAGE, Newer())


def test_a_source_that_cannot_be_read_ends_the_transfer() -> None:
    """What the source raised is raised to whoever sends."""
    with scene() as (net, b, _receiver):
        source = Source()

        def fail(_count: int) -> None:
            raise OSError("the disk is gone")

        source.before_read = fail
        with pytest.raises(OSError, match="the disk is gone"):
            net.nodes["a"].transport.send_snapshot(MESSAGE, source)
        assert b.heard == []


def test_nobody_to_send_to_is_unreachable() -> None:
    """Neither a stranger nor a member that is gone gets a snapshot."""
    with scene() as (net, b, _receiver):
        a = net.nodes["a"]
        with pytest.raises(Unreachable):
            a.transport.send_snapshot(replace(MESSAGE, recipient="z"), Source())
        b.transport.stop(0)
        failures: list[Exception] = []

        def send() -> None:
            try:
                a.transport.send_snapshot(MESSAGE, Source())
            except Unreachable as error:
                failures.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        a.until(lambda: a.transport._sendings)
        a.transport.stop(0.1)
        sender.join(5)
        assert failures


def test_a_transport_without_a_receiver_has_no_such_call() -> None:
    """UNIMPLEMENTED is said to whoever tries."""
    with net_of("a", "b") as net, pytest.raises(SnapshotRefused, match=r"(?i)not found"):
        net.nodes["a"].transport.send_snapshot(MESSAGE, Source())


HEADER = codec.header(CLUSTER, "a", incarnation_of("a"), "b", incarnation_of("b"))
SMALL = manifest_of((b"12345", b"678"))
BEGIN = codec.encode_snapshot_manifest(HEADER, MESSAGE, SMALL)


def chunk(file: int, offset: int, content: bytes) -> bytes:
    """A chunk as bytes."""
    return codec.encode_snapshot_chunk(SnapshotPosition(file, offset), content)


WHOLE = [chunk(0, 0, b"12345"), chunk(1, 0, b"678")]


@pytest.mark.parametrize(
    ("status", "wires"),
    [
        ("INVALID_ARGUMENT", []),
        ("INVALID_ARGUMENT", [b"\xff\xff"]),
        ("INVALID_ARGUMENT", [chunk(0, 0, b"1")]),
        ("INVALID_ARGUMENT", [BEGIN, BEGIN]),
        ("INVALID_ARGUMENT", [BEGIN, chunk(0, 1, b"2345")]),
        ("INVALID_ARGUMENT", [BEGIN, chunk(1, 0, b"678")]),
        ("INVALID_ARGUMENT", [BEGIN, chunk(0, 0, b"123456")]),
        (
            "INVALID_ARGUMENT",
            [BEGIN, *WHOLE, chunk(2, 0, b"9")],
        ),
        ("INVALID_ARGUMENT", [BEGIN, chunk(0, 0, b"")]),
        ("INVALID_ARGUMENT", [BEGIN, chunk(0, 0, b"x" * ((1 << 20) + 1))]),
        ("FAILED_PRECONDITION", [BEGIN, chunk(0, 0, b"12345"), chunk(1, 0, b"999")]),
    ],
)
def test_a_hostile_snapshot_is_refused_and_never_reaches_the_core(
    status: str, wires: list[bytes]
) -> None:
    """Chunks out of turn, too long, too many, or none that fit."""
    with scene() as (net, b, _receiver):
        pump = Pump()
        channel = Channel(net.members["b"].address, 8 << 20, pump)
        with pytest.raises(CallFailed) as failed:
            channel.upload(channels.INSTALL_SNAPSHOT, iter(wires)).result()
        channel.close()
        pump.close()
        assert failed.value.status.name == status
        assert b.heard == []


def test_the_newest_transfer_wins() -> None:
    """A second transfer ends one that hangs."""
    with scene() as (net, b, receiver):
        hang = threading.Event()

        def hanging() -> Iterator[bytes]:
            yield BEGIN
            yield chunk(0, 0, b"123")
            hang.wait(10)

        pump = Pump()
        channel = Channel(net.members["b"].address, 8 << 20, pump)
        upload = channel.upload(channels.INSTALL_SNAPSHOT, hanging())
        sink_of(receiver, SnapshotPosition(0, 3))
        net.nodes["a"].transport.send_snapshot(MESSAGE, Source((b"whole",)))
        assert b.heard == [MESSAGE]
        with pytest.raises(CallFailed):
            upload.result()
        hang.set()
        channel.close()
        pump.close()


def edited(**wrong: object) -> bytes:
    """A manifest's bytes, wrong in this."""
    request = raft_pb2.InstallSnapshotRequest.FromString(BEGIN)
    for name, value in wrong.items():
        setattr(request if name == "term" else request.manifest, name, value)
    return request.SerializeToString()


def with_file(name: str, size_bytes: int = 1, sha256: bytes = b"\0" * 32) -> bytes:
    """A manifest with one more file."""
    request = raft_pb2.InstallSnapshotRequest.FromString(BEGIN)
    request.manifest.files.add(name=name, size_bytes=size_bytes, sha256=sha256)
    return request.SerializeToString()


@pytest.mark.parametrize(
    "wire",
    [
        edited(term=0),
        edited(term=2**64 - 1),
        edited(last_included_index=2**63),
        edited(last_included_term=0),
        edited(last_included_term=4),
        edited(configuration_index=91),
        edited(configuration=b"{}"),
        edited(configuration=b"[" * 100_000),
        *(with_file(name) for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0", ".hidden"]),
        with_file("x" * 256),
        with_file("0.sst"),
        with_file("y", size_bytes=2**63),
        with_file("y", sha256=b"short"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_malformed(wire: bytes) -> None:
    """Absurd numbers, and names that could lead out of a directory."""
    with pytest.raises(Malformed):
        codec.decode_snapshot_manifest(wire)


def test_a_manifest_survives_the_wire() -> None:
    """Decode gives back what was encoded."""
    assert codec.decode_snapshot_manifest(BEGIN) == (HEADER, MESSAGE, SMALL)
