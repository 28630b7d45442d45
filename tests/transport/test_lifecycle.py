"""Starting, stopping, changing members: what is left behind, and what is said about it."""

from __future__ import annotations

import logging
import socket
import threading
import time

import pytest

from anchor.raft.messages import RequestVote
from anchor.transport import (
    BindFailed,
    CallTimeout,
    JoinRequest,
    LocalMember,
    PortInUse,
    Transport,
    TransportError,
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
    for thread in threading.enumerate():
        if thread.name.startswith("transport"):  # a worker of gRPC's server, told to end
            thread.join(5)
            assert not thread.is_alive()


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
