"""Deadlines, in time that the test makes pass."""

from __future__ import annotations

import socket

import pytest

from anchor.api.answers import Problem
from anchor.api.connections import SWEEP_SECONDS, Connection, Connections, TooSlow
from anchor.api.limits import Limits


@pytest.fixture
def connections() -> Connections:
    """Return nobody yet."""
    return Connections(Limits(send_timeout=2, min_bytes_per_second=1000, max_arriving_bytes=100))


def connect(connections: Connections) -> tuple[Connection, socket.socket]:
    """Return a watched connection, and its client's end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.settimeout(5)
    theirs.settimeout(5)
    connection = Connection(ours, None, connections)
    connections.add(connection)
    return connection, theirs


def let_pass(connections: Connections, seconds: float) -> None:
    """Sweep as often as it takes."""
    for _ in range(round(seconds / SWEEP_SECONDS)):
        connections.sweep(SWEEP_SECONDS)


def test_a_wait_ends_when_its_time_is_up(connections: Connections) -> None:
    """With the name of what did not come; one answer can still be sent."""
    connection, client = connect(connections)
    connection.awaited = "the body"
    connection.allow(1)
    let_pass(connections, 0.75)
    client.sendall(b"in time")
    assert connection.recv(100) == b"in time"
    let_pass(connections, 0.25)
    with pytest.raises(TooSlow, match="the body did not arrive in time") as raised:
        connection.recv(100)
    assert raised.value.status == 408
    connection.send(b"too late")
    assert client.recv(100) == b"too late"
    client.close()
    connection.sock.close()


def test_what_arrives_after_the_deadline_does_not_count(connections: Connections) -> None:
    """Otherwise the answer would depend on when the sweep came by."""
    connection, client = connect(connections)
    connection.allow(1)
    let_pass(connections, 1)
    client.sendall(b"late")
    with pytest.raises(TooSlow):
        connection.recv(100)
    client.close()
    connection.sock.close()


def test_no_deadline_no_end(connections: Connections) -> None:
    """While the store works nobody is late."""
    connection, client = connect(connections)
    let_pass(connections, 100)
    client.sendall(b"there")
    assert connection.recv(100) == b"there"
    client.close()
    connection.sock.close()


def test_a_send_that_nobody_reads_ends(connections: Connections) -> None:
    """Both ways at once: there is nothing left to say."""
    connection, client = connect(connections)
    connection.allow_to_send(100)
    let_pass(connections, 2)
    with pytest.raises(BrokenPipeError):
        connection.sock.sendall(b"x")
    assert client.recv(1) == b""
    client.close()
    connection.sock.close()


def test_a_large_answer_may_take_longer(connections: Connections) -> None:
    """By its size at the lowest rate."""
    connection, client = connect(connections)
    connection.allow_to_send(100_000)
    expired = []
    for seconds in (101, 1):
        let_pass(connections, seconds)
        expired.append(connection.expired)
    assert expired == [False, True]
    client.close()
    connection.sock.close()


def test_a_pause_of_this_process_ages_nobody(connections: Connections) -> None:
    """It could not have heard them."""
    connection, client = connect(connections)
    connection.allow(1)
    connections.sweep(3600)
    assert not connection.expired
    client.close()
    connection.sock.close()


def test_room_for_bodies_is_limited_and_given_back(connections: Connections) -> None:
    """To the byte."""
    connections.reserve(60)
    connections.reserve(40)
    with pytest.raises(Problem) as raised:
        connections.reserve(1)
    assert (raised.value.status, raised.value.code) == (503, "overloaded")
    connections.release(60)
    connections.reserve(60)


def test_those_that_are_served_are_known(connections: Connections) -> None:
    """So that a stop can wait for them."""
    connection, client = connect(connections)
    seen = [connections.any_serving()]
    connection.serving = True
    seen.append(connections.any_serving())
    connections.discard(connection)
    seen.append(connections.any_serving())
    assert seen == [False, True, False]
    client.close()
    connection.sock.close()
