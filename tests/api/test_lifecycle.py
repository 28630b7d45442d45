"""Starting, stopping and dying: what the two processes owe whoever started them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.api.serving import Response, Server, eventually, is_running, serving

GET = b"GET /kv/none HTTP/1.1\r\nHost: h\r\n\r\n"
SLEEP = b"GET /kv/sleep-%s HTTP/1.1\r\nHost: h\r\n\r\n"

STOPPED = ["INFO stops, as it was told to", "INFO the store stops"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def port_is_free(port: int) -> bool:
    """Tell whether a server could bind it now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@pytest.mark.parametrize(
    "stop_signal", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP]
)
def test_a_stop_signal_ends_it_in_order(stop_signal: signal.Signals) -> None:
    """The node is stopped, the status is 0, the port is free, and little is said."""
    with serving() as server:
        assert server.ask(GET).status == 404
        began = time.monotonic()
        assert server.stop(stop_signal) == 0
        assert time.monotonic() - began < 2
        assert server.log == STOPPED
        assert port_is_free(server.port)


def test_ctrl_c_reaches_both_processes_and_ends_them_in_order() -> None:
    """A terminal sends SIGINT to the whole group."""
    with serving() as server:
        server.ask(GET)
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.wait() == 0
        assert server.log == STOPPED


@pytest.mark.parametrize("line", [b"", b"Expect: 100-continue\r\n"])
def test_what_is_under_way_is_finished_first(line: bytes) -> None:
    """On both paths; the answer says that the connection closes."""
    with serving() as server, server.client() as client, server.client() as idle:
        idle.ask(GET)
        client.send(SLEEP.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n") % b"1")
        time.sleep(0.3)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        answer = client.read()
        assert (answer.status, answer.headers["connection"]) == (404, "close")
        assert client.at_end()
        assert idle.at_end()
        assert server.wait() == 0
        assert time.monotonic() - began < 2


def test_new_requests_on_old_connections_are_answered_while_stopping() -> None:
    """And then the connection is closed, in the answer's own words."""
    with serving() as server, server.client() as client, server.client() as busy:
        client.ask(GET)
        busy.send(SLEEP % b"1.5")
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        answer = client.ask(GET)
        assert (answer.status, answer.headers["connection"]) == (404, "close")
        assert busy.read().status == 404
        assert server.wait() == 0


def test_a_request_that_never_ends_does_not_hold_up_the_stop() -> None:
    """Five seconds is all that a stop may take."""
    with serving() as server, server.client() as client:
        client.send(SLEEP % b"60")
        time.sleep(0.3)
        began = time.monotonic()
        assert server.stop() == 0
        assert 3 < time.monotonic() - began < 5


def test_it_serves_ipv6() -> None:
    """On both paths."""
    with serving({"TEST_HOST": "::1"}) as server:
        assert server.ask(GET).status == 404
        assert server.ask(b"GET /status HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").status == 200


def test_a_failed_start_is_one_line() -> None:
    """No traceback, no second try, status 1."""
    server = Server({"TEST_START_ERROR": "the directory belongs to another node"})
    assert server.wait() == 1
    assert server.log == ["CRITICAL the directory belongs to another node"]
    assert port_is_free(server.port)


def test_a_fatal_error_is_one_line() -> None:
    """The node says that it must not go on; both processes end with status 1."""
    with serving() as server, server.client() as client:
        client.send(b"GET /kv/fatal HTTP/1.1\r\nHost: h\r\n\r\n")
        assert server.wait() == 1
        assert server.log == ["CRITICAL the disk failed"]


def test_a_killed_worker_takes_its_parent_along() -> None:
    """Whoever started the node must see that it is gone; restarting it is theirs to decide."""
    with serving() as server:
        worker = server.worker_pid
        os.kill(worker, signal.SIGKILL)
        assert server.wait() == 1
        assert server.log == [
            f"CRITICAL the node's process {worker} was ended by SIGKILL; stopping"
        ]


def test_a_killed_parent_takes_the_worker_along() -> None:
    """``kill -9`` of the process that was started is ``kill -9`` of the node, port and all."""
    with serving() as server, server.client() as client:
        client.ask(GET)
        worker = server.worker_pid
        os.kill(server.process.pid, signal.SIGKILL)
        server.wait()
        assert eventually(lambda: not is_running(worker), 1)
        assert port_is_free(server.port)


@pytest.mark.parametrize(
    "ignored", [signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH]
)
def test_there_is_never_a_second_worker(ignored: signal.Signals) -> None:
    """Gunicorn's signals for more, fewer and newer workers do nothing."""
    with serving() as server:
        worker = server.worker_pid
        server.process.send_signal(ignored)
        time.sleep(0.3)
        assert server.worker_pid == worker
        assert server.ask(GET).status == 404
        assert server.stop() == 0
        assert server.log == STOPPED


def test_a_paused_server_loses_nobody() -> None:
    """A client is not to blame for what it sent while nobody listened."""
    with serving(idle_timeout=1, head_timeout=1) as server, server.client() as client:
        client.send(b"GET /kv/none HTTP/1.1\r\n")
        time.sleep(0.2)
        os.killpg(server.process.pid, signal.SIGSTOP)
        time.sleep(2.5)
        os.killpg(server.process.pid, signal.SIGCONT)
        assert client.ask(b"Host: h\r\n\r\n").status == 404


def test_many_clients_see_a_stop_as_answers_or_a_closed_connection() -> None:
    """Under load, each request is answered, or its connection closed before it was taken."""
    torn: list[Exception] = []
    answers: list[Response] = []

    def press(server: Server) -> None:
        try:
            with server.client() as client:
                while True:
                    answers.append(client.ask(GET))
        except EOFError as error:
            if "b''" not in str(error):
                torn.append(error)
        except OSError:
            pass

    with serving() as server:
        crowd = [threading.Thread(target=press, args=(server,)) for _ in range(8)]
        for thread in crowd:
            thread.start()
        time.sleep(0.5)
        assert server.stop() == 0
        for thread in crowd:
            thread.join()
    assert not torn
    assert {answer.status for answer in answers} == {404}


def test_the_parent_stays_small() -> None:
    """It knows nothing of what the node needs."""
    with serving() as server:
        server.ask(GET)
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
        for library in ("grpc", "rocksdict", "falcon", "google/"):
            assert library not in mapped


def test_file_descriptors_do_not_leak() -> None:
    """However connections end."""
    with serving(head_timeout=0.3, idle_timeout=0.3) as server:
        open_files = Path(f"/proc/{server.worker_pid}/fd")
        time.sleep(0.2)
        before = len(list(open_files.iterdir()))
        crowd = [server.client() for _ in range(40)]
        for number, client in enumerate(crowd):
            client.send([GET, b"", b"nonsense\r\n\r\n", GET[:9]][number % 4])
        time.sleep(0.2)
        for client in crowd[::2]:
            client.sock.close()
        assert eventually(lambda: len(list(open_files.iterdir())) == before, 6)
        for client in crowd:
            client.sock.close()
