"""A real server with a fake store: the program, and how a test runs and speaks to it.

``python -m tests.api.serving '{"idle_timeout": 1}'`` prints its port and serves. Keys that begin
with ``sleep-`` take as many seconds as they say.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anchor.api.store import Store

ROOT = Path(__file__).parents[2]
_HEADERS_END = b"\r\n\r\n"


class Response(NamedTuple):
    """An answer as a client sees it; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes

    @property
    def problem(self) -> dict[str, object]:
        """The body, which is JSON."""
        parsed: dict[str, object] = json.loads(self.body)
        return parsed


class Client:
    """A raw connection: says exactly what it is told to, and reads answers."""

    def __init__(self, host: str, port: int, timeout_seconds: float = 10.0) -> None:
        self.sock = socket.create_connection((host, port), timeout=timeout_seconds)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, payload: bytes) -> None:
        """Send these bytes."""
        self.sock.sendall(payload)

    def ask(self, payload: bytes, *, head: bool = False) -> Response:
        """Send these bytes and read one answer."""
        self.send(payload)
        return self.read(head=head)

    def read(self, *, head: bool = False) -> Response:
        """Read one answer; ``head``: it has no body whatever its length says."""
        while _HEADERS_END not in self._buffer:
            self._more()
        raw, _, self._buffer = self._buffer.partition(_HEADERS_END)
        status_line, *lines = raw.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        status = int(status_line.split()[1])
        if status == 100:
            return Response(status, headers, b"", raw)
        length = 0 if head or status == 304 else int(headers["content-length"])
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Response(status, headers, body, raw)

    def at_end(self) -> bool:
        """Wait for what comes next; true if the server closed and there was nothing left."""
        return not self._buffer and not self.sock.recv(1)

    def _more(self) -> None:
        received = self.sock.recv(1 << 16)
        if not received:
            raise EOFError(f"the server closed after {self._buffer!r}")
        self._buffer += received


class Server:
    """A server in a process of its own."""

    def __init__(self, environ: Mapping[str, str] | None = None, **limits: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.api.serving", json.dumps(limits)],
            cwd=ROOT,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
            | dict(environ or {}),
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read_log, args=(self.process.stderr,))
        self._reader.start()
        self.port = int(self.process.stdout.readline() or 0)
        self.host = (environ or {}).get("TEST_HOST", "127.0.0.1")

    def _read_log(self, lines: Iterator[str]) -> None:
        self.log.extend(line.rstrip() for line in lines)

    def client(self, timeout_seconds: float = 10.0) -> Client:
        """Connect."""
        return Client(self.host, self.port, timeout_seconds)

    def ask(self, payload: bytes) -> Response:
        """Ask on a connection of its own."""
        with self.client() as client:
            return client.ask(payload)

    @property
    def worker_pid(self) -> int:
        """The process id of the worker."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Stop it and return its status."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return its status."""
        try:
            return self.process.wait(timeout=10)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            for pipe in (self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()


@contextlib.contextmanager
def serving(environ: Mapping[str, str] | None = None, **limits: float) -> Iterator[Server]:
    """Run a server as long as the block lasts."""
    server = Server(environ, **limits)
    try:
        server.ask(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")  # it is up
        yield server
    finally:
        server.stop()
        print(*server.log, sep="\n")


def is_running(pid: int) -> bool:
    """Tell whether a process is there and not merely waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(claim: Callable[[], bool], within_seconds: float = 5.0) -> bool:
    """Wait until something is true; tell whether it became so."""
    deadline = time.monotonic() + within_seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _start_node() -> Store:
    import gevent  # noqa: PLC0415 - the worker's, after the fork

    from anchor.api import server  # noqa: PLC0415
    from tests.api.fakes import FakeStore  # noqa: PLC0415

    refusal = os.environ.get("TEST_START_ERROR")
    if refusal:
        raise RuntimeError(refusal)
    store = FakeStore()

    def before(key: bytes) -> None:
        if key == b"fatal":
            server.fatal("the disk failed")
        if key == b"bug":
            raise ZeroDivisionError("a secret")
        slow = re.fullmatch(rb"sleep-([0-9.]+)", key)
        if slow:
            gevent.sleep(float(slow[1]))

    def stop(grace_seconds: float) -> None:  # noqa: ARG001
        logging.getLogger("fake").info("the store stops")

    store.before = before
    store.stop = stop  # type: ignore[method-assign]
    return store


def main() -> int:
    """Serve."""
    from anchor.api.limits import Limits  # noqa: PLC0415
    from anchor.api.server import serve  # noqa: PLC0415

    logging.basicConfig(format="%(levelname)s %(message)s", level="INFO")
    host = os.environ.get("TEST_HOST", "127.0.0.1")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    print(listener.getsockname()[1], flush=True)
    return serve(Limits(**json.loads(sys.argv[1])), _start_node, listener)


if __name__ == "__main__":
    sys.exit(main())
