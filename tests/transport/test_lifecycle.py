"""Starting, stopping, changing members: what is left behind, and what is said about it."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time

import greenlet
import pytest

from anchor.raft.messages import RequestVote
from anchor.transport import (
    BindFailed,
    CallTimeout,
    ForwardClosed,
    JoinRequest,
    LocalMember,
    PortInUse,
    Transport,
    TransportError,
    Unreachable,
)
from tests.transport.harness import CLUSTER, FakeNode, append, incarnation_of, net_of


def transport_at(address: str) -> Transport:
    """A transport that would listen there."""
    return Transport(LocalMember("a", 1, CLUSTER), address, FakeNode("a"))


def test_a_port_in_use_is_said_in_one_line() -> None:
    """Another listener, also another transport, makes start raise PortInUse."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port}: the port is in use"):
            transport_at(f"127.0.0.1:{port}").start()
    with net_of("b") as net:
        address = net.members["b"].address
        with pytest.raises(PortInUse):
            transport_at(address).start()


@pytest.mark.parametrize("address", ["203.0.113.7:0", "no such host:0", "nonsense", "127.0.0.1:x"])
def test_an_address_that_is_not_ours_cannot_be_had(address: str) -> None:
    """Another host's address, an unknown name or no address at all: BindFailed, one line."""
    with pytest.raises(BindFailed) as failed:
        transport_at(address).start()
    assert not isinstance(failed.value, PortInUse)
    assert "\n" not in str(failed.value)


def test_a_port_is_free_again_after_stop() -> None:
    """Stop gives the port back; a second stop does nothing."""
    with net_of("a") as net:
        port = net.nodes["a"].transport.port
        net.nodes["a"].transport.stop(0.1)
        net.nodes["a"].transport.stop(0.1)
        net.add("b", port)


def test_stop_leaves_nothing_running(caplog: pytest.LogCaptureFixture) -> None:
    """After stop no greenlet or thread of the transport is left, and nothing was complained of."""
    with caplog.at_level(logging.WARNING), net_of("a", "b", "c") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        a.transport.send([append("a", "b"), append("a", "c"), RequestVote(5, "a", "b", 1, 1)])
        a.transport.forward("b").read_index(1)
        b.transport.send([append("b", "a", term=2)])
        a.until(lambda: len(a.heard) == 4 and a.answers)
        a.transport.set_members([])
    assert not [record for record in caplog.records if record.name.startswith("grpc")]
    for node in net.nodes.values():
        node.until(lambda n=node: not n.transport._greenlets.running)  # type: ignore[misc]
        node.until(lambda n=node: n.transport._parts.pump.threads == 0)  # type: ignore[misc]


def test_stop_gives_calls_under_way_their_grace_and_no_more() -> None:
    """A call that takes longer than the grace is cut off; stop returns in time."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        let_go = threading.Event()

        b.before_join = lambda: let_go.wait(10)
        failures: list[TransportError] = []

        def join() -> None:
            try:
                a.transport.join(net.members["b"].address, JoinRequest("z", "", ""), 20)
            except TransportError as error:
                failures.append(error)

        joiner = threading.Thread(target=join)
        joiner.start()
        b.until(lambda: b.joins)
        started = time.monotonic()
        b.transport.stop(0.2)
        assert time.monotonic() - started < 2
        joiner.join(5)
        assert failures
        let_go.set()


def test_a_call_that_takes_too_long_times_out() -> None:
    """The caller's timeout is kept, whatever the other side does."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        let_go = threading.Event()

        b.before_join = lambda: let_go.wait(10)
        started = time.monotonic()
        with pytest.raises(CallTimeout):
            a.transport.join(net.members["b"].address, JoinRequest("z", "", ""), 0.2)
        assert time.monotonic() - started < 2
        let_go.set()


def test_a_member_that_moves_is_followed() -> None:
    """A member with a new address is spoken to there."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        a.transport.send([append("a", "b")])
        a.until(lambda: a.heard)
        b.transport.stop(0)
        moved = net.add("b")
        net.acquaint()
        a.transport.send([append("a", "b", 5)])
        moved.until(lambda: moved.heard)
        assert moved.heard == [append("a", "b", 5)]


def test_a_member_that_is_not_who_we_mean_is_never_connected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another node at its address, or its disk made anew: not connected, and it is said why."""
    with caplog.at_level(logging.INFO, "anchor.transport"), net_of("a", "b", "c") as net:
        a = net.nodes["a"]
        a.until(lambda: a.transport.connected("b") and a.transport.connected("c"))
        net.misremember(a, "b", incarnation=incarnation_of("b") + 1)
        a.until(lambda: "made anew" in caplog.text)
        assert not a.transport.connected("b")
        net.misremember(a, "b", address=net.members["c"].address)
        a.until(lambda: "'c' answers there" in caplog.text)
        assert not a.transport.connected("b")
        assert a.transport.connected("c")


def test_a_healthy_idle_cluster_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """One line a member when it is found, and not another while all is well."""
    with caplog.at_level(logging.DEBUG), net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        a.until(lambda: a.transport.connected("b") and b.transport.connected("a"))
        for index in range(20):
            a.transport.send([append("a", "b", index)])
            a.until(lambda n=index: len(a.heard) > n)  # type: ignore[misc]
        lines = [r.getMessage() for r in caplog.records if r.name.startswith("anchor")]
    assert sorted(lines) == sorted(
        f"connected to {name} at {net.members[name].address}" for name in "ab"
    )


def test_changing_members_never_switches_greenlets() -> None:
    """Nobody else runs while members go, come or move."""
    with net_of("a", "b", "c") as net:
        a = net.nodes["a"]
        a.transport.send([append("a", "b"), append("a", "c")])
        a.until(lambda: len(a.heard) == 2)
        switches: list[str] = []
        greenlet.settrace(lambda event, _greenlets: switches.append(event))
        try:
            a.transport.set_members([])
            a.transport.set_members(net.members.values())
            net.misremember(a, "b", incarnation=5)
        finally:
            greenlet.settrace(None)
        assert switches == []


def test_stop_closes_what_was_not_closed_yet() -> None:
    """A member taken off the list right before the stop is closed all the same."""
    with net_of("a", "b") as net:
        a = net.nodes["a"]
        a.until(lambda: a.transport.connected("b"))
        a.transport.set_members([])
        a.transport.stop(1.0)
        assert a.transport._greenlets.running == []


def test_an_orderly_stop_is_told_as_one(caplog: pytest.LogCaptureFixture) -> None:
    """Who stays says that the other stops, without a warning; who stops says nothing."""
    with caplog.at_level(logging.INFO, "anchor.transport"), net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        a.transport.send([append("a", "b")])
        b.transport.send([append("b", "a", term=2)])
        a.until(lambda: len(a.heard) == 2)
        b.until(lambda: len(b.heard) == 2)
        caplog.clear()
        b.transport.stop(0.2)
        a.until(lambda: not a.transport.connected("b"))
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("INFO", "b is stopping")]


def test_a_cluster_that_stops_says_nothing_of_its_members(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever is closed while we stop ourselves is no news, however busy all were."""
    with caplog.at_level(logging.INFO, "anchor.transport"), net_of("a", "b", "c") as net:
        a = net.nodes["a"]
        a.transport.send([append("a", "b"), append("a", "c")])
        a.until(lambda: len(a.heard) == 2)
        caplog.clear()
        a.transport.stop(0.2)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_member_that_is_being_closed_fails_calls_as_any_other() -> None:
    """Each public call raises nothing but a TransportError, also at that moment."""
    with net_of("a", "b") as net:
        a = net.nodes["a"]
        stream = a.transport.forward("b")
        a.transport._peers["b"].retire()
        with pytest.raises(Unreachable):
            a.transport.compare_digest("b", 7, b"", 1.0)
        with pytest.raises(ForwardClosed):
            stream.propose(1, [b"x"])
        with pytest.raises(ForwardClosed):
            a.transport.forward("b").read_index(2)
        a.transport.stop(0.2)
        with pytest.raises(TransportError):
            a.transport.forward("b")
        with pytest.raises(TransportError):
            a.transport.compare_digest("b", 7, b"", 1.0)


@pytest.mark.parametrize("address", ["", "\udc80:1", "a\0b:1", "x y:1", "127.0.0.1:1"])
def test_an_address_that_leads_nowhere_is_a_transport_error(address: str) -> None:
    """Nonsense for an address fails as an address where nobody is."""
    with net_of("a") as net, pytest.raises(TransportError):
        net.nodes["a"].transport.identify(address, 1.0)


def test_a_port_that_does_not_speak_grpc_is_recognised() -> None:
    """The HTTP port given instead of the node's is the usual mistake, and is named."""
    with net_of("a") as net, socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):  # the listener was closed
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        web = threading.Thread(target=answer, daemon=True)
        web.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Unreachable, match="does not speak gRPC; is that an HTTP port"):
            net.nodes["a"].transport.identify(address, 2.0)
        listener.shutdown(socket.SHUT_RDWR)
        web.join(5)
