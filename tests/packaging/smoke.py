"""Try one ``anchor.pyz`` as a user would: ``python3 tests/packaging/smoke.py anchor.pyz``.

Three nodes are started one by one, keys are written and read through each, the leader is killed
and comes back, verbs are tried, all are stopped. Then ``--cluster 3`` does the same in one go,
twice on the same data. Needs nothing but Python; prints what it did, and the nodes' logs if
something went wrong.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

READY_SECONDS = 20.0  # generous: the machine may be busy with other tests
STOP_SECONDS = 15.0


class SmokeError(Exception):
    """Something does not work; the message says what."""


@dataclass(slots=True)
class Program:
    """A started anchor.pyz, with its log in a file."""

    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start it, in a process group of its own so that nothing is left behind."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, signal_number: int) -> None:
        """Ask it to stop, and expect it to do so well."""
        self.process.send_signal(signal_number)
        started = time.monotonic()
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise SmokeError(f"{self.command[1:]} did not stop on {signal_number}") from error
        if status != 0:
            raise SmokeError(f"{self.command[1:]} stopped with exit status {status}")
        say(f"stopped in {time.monotonic() - started:.1f} s")

    def kill(self) -> None:
        """End it and its children at once, whatever state they are in."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def main(arguments: list[str]) -> int:
    """Try the file; exit status 0 if all went well."""
    if len(arguments) != 1:
        print("usage: smoke.py PATH_OF_PYZ", file=sys.stderr)
        return 2
    pyz = Path(arguments[0]).resolve()
    with tempfile.TemporaryDirectory(prefix="anchor-smoke-") as directory, ExitStack() as cleanup:
        try:
            try_version(pyz)
            try_three_nodes(pyz, Path(directory, "nodes"), cleanup)
            try_cluster(pyz, Path(directory, "cluster"), cleanup)
        except (SmokeError, OSError) as error:
            for log in sorted(Path(directory).glob("*/*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')}", file=sys.stderr)
            print(f"smoke: FAILED: {error}", file=sys.stderr)
            return 1
    say("all well")
    return 0


def say(what: str) -> None:
    """Tell what went well."""
    print(f"smoke: {what}", flush=True)


def try_version(pyz: Path) -> None:
    """Ask for the version, which unpacks the file where it is not yet."""
    for which in ("first", "warm"):
        started = time.monotonic()
        result = subprocess.run([pyz, "--version"], capture_output=True, text=True, check=False)
        if result.returncode != 0 or not result.stdout.startswith("anchor "):
            raise SmokeError(f"--version: {result}")
        say(f"{result.stdout.strip()}, {which} start in {time.monotonic() - started:.2f} s")


def try_three_nodes(pyz: Path, directory: Path, cleanup: ExitStack) -> None:
    """Start three nodes one by one, write, read, kill the leader, write, stop."""
    base = free_ports(3)
    names = ["node1", "node2", "node3"]
    http_ports = {name: base + 1000 + number for number, name in enumerate(names)}
    nodes: dict[str, Program] = {}
    for number, name in enumerate(names):
        peers = ",".join(f"localhost:{base + earlier}" for earlier in range(number))
        ports = ["--port", str(base + number), "--http-port", str(http_ports[name])]
        where = ["--dir", str(directory / name), *(["--peers", peers] if peers else [])]
        nodes[name] = start([str(pyz), "--id", name, *ports, *where], directory, name, cleanup)
        wait_for(f"{name} to be a voter", partial(is_voter, http_ports[name]))
    for name, port in http_ports.items():
        put(port, f"from-{name}", name.encode())
    expect_everywhere({f"from-{name}": name.encode() for name in names}, list(http_ports.values()))
    say("wrote through each node, read all through each")

    leader = wait_for("a leader", lambda: leader_id(http_ports.values()))
    nodes[leader].kill()
    started = time.monotonic()
    others = [port for name, port in http_ports.items() if name != leader]
    wait_for("a write after the leader's death", lambda: try_put(others[0], "after", b"kill"))
    say(f"killed the leader, wrote through another after {time.monotonic() - started:.1f} s")
    nodes[leader].start()
    wait_for(f"{leader} to be back", lambda: get(http_ports[leader], "after") == b"kill")
    expect_everywhere({"from-node1": b"node1", "after": b"kill"}, list(http_ports.values()))
    say("the killed node is back and has everything")

    try_verbs(pyz, http_ports["node2"])
    for node in nodes.values():
        node.stop(signal.SIGTERM)


def try_verbs(pyz: Path, port: int) -> None:
    """Use the shell's verbs against one node."""
    endpoint = ["--endpoints", f"localhost:{port}"]

    def verb(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(pyz), *words, *endpoint]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for words, status in [
        (("put", "by-verb", "value"), 0),
        (("get", "by-verb"), 0),
        (("del", "by-verb"), 0),
        (("get", "by-verb"), 3),
        (("status",), 0),
        (("members",), 0),
    ]:
        result = verb(*words)
        if result.returncode != status:
            raise SmokeError(f"{words}: exit status {status} expected, got {result}")
    say("verbs work")


def try_cluster(pyz: Path, directory: Path, cleanup: ExitStack) -> None:
    """Start three nodes in one go, stop them by one Ctrl-C, and find their data again."""
    base = free_ports(3)
    ports = [base + 1000 + number for number in range(3)]
    where = ["--cluster", "3", "--port", str(base), "--dir", str(directory / "data")]
    for turn in ("first", "second"):
        started = time.monotonic()
        cluster = start([str(pyz), *where], directory, f"cluster-{turn}", cleanup)
        wait_for("three voters", lambda: all(is_voter(port) for port in ports))
        wait_for("a write", partial(try_put, ports[2], f"{turn}-turn", b"kept"))
        say(f"--cluster 3 ready in {time.monotonic() - started:.1f} s ({turn} time)")
        expect_everywhere({"first-turn": b"kept", f"{turn}-turn": b"kept"}, ports)
        cluster.stop(signal.SIGINT)


def start(command: list[str], directory: Path, name: str, cleanup: ExitStack) -> Program:
    """Start a program whose log is kept, and which does not outlive this one."""
    directory.mkdir(parents=True, exist_ok=True)
    program = Program(command, directory / f"{name}.log")
    program.start()
    cleanup.callback(program.kill)
    return program


# HTTP, by the standard library alone.


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def put(port: int, key: str, value: bytes) -> None:
    """Write a key, or say why that failed."""
    status, body = ask(port, "POST", f"/kv/{key}", value)
    if status != 200:
        raise SmokeError(f"POST /kv/{key} on port {port}: {status} {body!r}")


def try_put(port: int, key: str, value: bytes) -> bool:
    """Write a key; False if that did not work."""
    return ask(port, "PUT", f"/kv/{key}", value)[0] == 200


def get(port: int, key: str) -> bytes | None:
    """Read a key; None where it is not, or not yet, to be had."""
    status, body = ask(port, "GET", f"/kv/{key}")
    return body if status == 200 else None


def expect_everywhere(values: dict[str, bytes], ports: list[int]) -> None:
    """Read each key through each node at once: a linearizable read has no excuse."""
    for port in ports:
        for key, value in values.items():
            found = get(port, key)
            if found != value:
                raise SmokeError(f"/kv/{key} on port {port}: {found!r} instead of {value!r}")


def status_of(port: int) -> dict[str, Any]:
    """Ask a node about itself."""
    status, body = ask(port, "GET", "/status")
    if status != 200:
        raise SmokeError(f"/status on port {port}: {status} {body!r}")
    answer: dict[str, Any] = json.loads(body)
    return answer


def is_voter(port: int) -> bool:
    """Whether a node knows a leader and takes part in votes."""
    status = status_of(port)
    return bool(status["leader_id"]) and status["role"] in ("leader", "follower")


def leader_id(ports: Iterable[int]) -> str | None:
    """Find the leader that all nodes agree on, if they do."""
    leaders = {status_of(port)["leader_id"] for port in ports}
    return leaders.pop() if len(leaders) == 1 else None


def wait_for(what: str, condition: Callable[[], T | None]) -> T:
    """Ask again and again until the answer is true; it is returned."""
    deadline = time.monotonic() + READY_SECONDS
    problem: object = "never true"
    while time.monotonic() < deadline:
        try:
            if answer := condition():
                return answer
        except (OSError, http.client.HTTPException) as error:
            problem = repr(error)
        time.sleep(0.05)
    raise SmokeError(f"waited {READY_SECONDS:.0f} s for {what}: {problem}")


def free_ports(count: int) -> int:
    """Find a port that is free, with its successors, and those 1,000 above them."""
    for base in random.sample(range(20_000, 30_000), 100):
        numbers = [base + above + number for above in (0, 1000) for number in range(count)]
        if all(is_free(number) for number in numbers):
            return base
    raise SmokeError("no free ports between 20000 and 31000")


def is_free(port: int) -> bool:
    """Whether a port can be listened on."""
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
