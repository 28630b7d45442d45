"""What a message costs here against a bare gRPC stream: ``python -m tests.transport.measure``.

Bare is grpcio's public API in native threads, an echo of bytes; ours is the whole transport on
gevent, an append and its acknowledgement. Each has a process on either side. Rounds of both kinds
alternate, since the machine's noise is larger than the difference; the medians are printed.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anchor.raft.messages import Message

ROUNDS = 7
MESSAGES = 1000
BODY = b"x" * 160
METHOD = "/bare.Stream/Echo"


def echo(requests: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
    """Answer each message with itself."""
    yield from requests


def serve_bare() -> None:
    """Be the other side of the bare stream, until stdin ends."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    handler = grpc.stream_stream_rpc_method_handler(echo)
    service = grpc.method_handlers_generic_handler("bare.Stream", {"Echo": handler})
    server.add_generic_rpc_handlers((service,))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()


def serve_ours() -> None:
    """Be the member that acknowledges, until stdin ends."""
    import gevent  # noqa: PLC0415 - only here

    from anchor.raft.configuration import Member  # noqa: PLC0415 - after the patching
    from tests.transport.harness import Net, acknowledge, incarnation_of  # noqa: PLC0415 - the same

    net = Net()
    node = net.add("b")
    node.transport.set_members([Member("a", "127.0.0.1:1", "", incarnation_of("a"))])

    def hear(message: Message) -> None:
        node.transport.send([acknowledge(message)])  # type: ignore[arg-type]

    node.on_message = hear  # type: ignore[method-assign]
    print(node.transport.port, flush=True)
    gevent.get_hub().threadpool.apply(sys.stdin.read)


def bare(port: int) -> Callable[[], None]:
    """One exchange over a bare stream."""
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    stream = grpc.insecure_channel(f"127.0.0.1:{port}").stream_stream(METHOD, bytes, bytes)
    answers: Any = stream(iter(requests.get, None))

    def exchange() -> None:
        requests.put(BODY)
        next(answers)

    return exchange


def ours(port: int) -> Callable[[], None]:
    """One append of one entry, and its answer."""
    from gevent.event import Event  # noqa: PLC0415 - only here

    from tests.transport.harness import Net, append  # noqa: PLC0415 - after the patching

    net = Net()
    node = net.add("a")
    net.add_remote("b", port)
    net.acquaint()
    answered = Event()
    index = 0

    def hear(_message: Message) -> None:
        answered.set()

    node.on_message = hear  # type: ignore[method-assign,assignment]

    def exchange() -> None:
        nonlocal index
        answered.clear()
        node.transport.send([append("a", "b", index, (BODY[:60],))])
        index += 1
        answered.wait(5)

    return exchange


def ask(exchange: Callable[[], None]) -> None:
    """Make a round for each line on stdin; prints its microseconds a message."""
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(MESSAGES):
            exchange()
        print((time.perf_counter() - started) / MESSAGES * 1e6, flush=True)


class Pair:
    """Both processes of one kind."""

    def __init__(self, kind: str) -> None:
        self._server = self._start("serve", kind)
        self._client = self._start("ask", kind, self._line(self._server))

    @staticmethod
    def _start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.transport.measure", *arguments]
        return subprocess.Popen(command, stdin=-1, stdout=-1, text=True)

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def round(self) -> tuple[float, float]:
        """Microseconds a message: how long it took, and the CPU of both sides."""
        before = self._cpu_seconds()
        assert self._client.stdin is not None
        self._client.stdin.write("\n")
        self._client.stdin.flush()
        passed_us = float(self._line(self._client))
        return passed_us, (self._cpu_seconds() - before) / MESSAGES * 1e6

    def _cpu_seconds(self) -> float:
        ticks = 0
        for process in (self._server, self._client):
            text = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii")
            fields = text.rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Stop both."""
        for process in (self._client, self._server):
            process.kill()
            process.communicate()


def main() -> None:
    """Measure both kinds in turn and compare."""
    pairs = {kind: Pair(kind) for kind in ("bare", "ours")}
    measured: dict[str, list[tuple[float, float]]] = {kind: [] for kind in pairs}
    try:
        for round_number in range(ROUNDS + 1):
            for kind, pair in pairs.items():
                result = pair.round()
                if round_number:  # the first one warms up
                    measured[kind].append(result)
    finally:
        for pair in pairs.values():
            pair.end()
    for column, what in enumerate(("round trip", "CPU of both sides")):
        plain, mine = (median(row[column] for row in measured[k]) for k in ("bare", "ours"))
        print(f"{what}: bare {plain:.0f} us, transport {mine:.0f} us, ratio {mine / plain:.2f}")


def start(what: str, kind: str, *port: str) -> None:
    """Be one of the processes."""
    if kind == "ours":
        from gevent import monkey  # noqa: PLC0415 - only here

        monkey.patch_all()
    if what == "serve":
        (serve_ours if kind == "ours" else serve_bare)()
    else:
        ask((ours if kind == "ours" else bare)(int(port[0])))
    os._exit(0)  # the streams are still open


if __name__ == "__main__":
    if sys.argv[1:]:
        start(*sys.argv[1:])
    else:
        main()
