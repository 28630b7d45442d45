"""What a message costs here against a bare gRPC stream: ``python -m tests.transport.measure``.

Two processes on gevent. Rounds of both kinds alternate, since the machine's noise is larger than
the difference; the medians and their ratio are printed.
"""

# ruff: noqa: E402 - patching comes first, or it is too late

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import gevent
import grpc

from anchor.raft.configuration import Member
from anchor.transport import use_gevent
from anchor.transport.channel import Channel
from anchor.transport.outbox import Outbox
from tests.transport.harness import Net, append, incarnation_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anchor.raft.messages import Message

ROUNDS = 7
MESSAGES = 1000
BODY = b"x" * 160


def echo(requests: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
    """Answer each message with itself."""
    yield from requests


def serve() -> None:
    """Be the other side of both kinds, until stdin ends."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    handler = grpc.stream_stream_rpc_method_handler(echo)
    service = grpc.method_handlers_generic_handler("bare.Stream", {"Echo": handler})
    server.add_generic_rpc_handlers((service,))
    bare_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    net = Net()
    node = net.add("b")
    node.transport.set_members([Member("a", "127.0.0.1:1", "", incarnation_of("a"))])
    print(bare_port, node.transport.port, flush=True)
    gevent.get_hub().threadpool.apply(sys.stdin.read)
    server.stop(0)
    net.stop()


def bare(port: int) -> Callable[[], None]:
    """One exchange over a bare stream."""
    outbox: Outbox[bytes] = Outbox(100, 1 << 20)
    requests = iter(outbox.take, None)
    answers = iter(Channel(f"127.0.0.1:{port}", 4 << 20).stream("/bare.Stream/Echo", requests))

    def exchange() -> None:
        outbox.put(BODY)
        next(answers)

    return exchange


def ours(port: int) -> Callable[[], None]:
    """One append of one entry, and its answer."""
    net = Net()
    node = net.add("a")
    net.add_remote("b", port)
    net.acquaint()
    answered = threading.Event()
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


def cpu_seconds(process_id: int) -> float:
    """All the CPU time a process has used."""
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure both kinds in turn and compare."""
    command = [sys.executable, "-m", "tests.transport.measure", "serve"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        bare_port, port = map(int, other.stdout.readline().split())
        use_gevent()
        kinds = {"bare": bare(bare_port), "transport": ours(port)}
        latency_us: dict[str, list[float]] = {name: [] for name in kinds}
        cpu_us: dict[str, list[float]] = {name: [] for name in kinds}
        for round_number in range(ROUNDS + 1):
            for name, exchange in kinds.items():
                cpu = cpu_seconds(os.getpid()) + cpu_seconds(other.pid)
                started = time.perf_counter()
                for _ in range(MESSAGES):
                    exchange()
                passed = time.perf_counter() - started
                cpu = cpu_seconds(os.getpid()) + cpu_seconds(other.pid) - cpu
                if round_number:  # the first one warms up
                    latency_us[name].append(passed / MESSAGES * 1e6)
                    cpu_us[name].append(cpu / MESSAGES * 1e6)
        for what, measured in (("round trip", latency_us), ("CPU of both sides", cpu_us)):
            plain, mine = median(measured["bare"]), median(measured["transport"])
            print(f"{what}: bare {plain:.0f} us, transport {mine:.0f} us, ratio {mine / plain:.2f}")
        other.terminate()
        os._exit(0)  # the streams are still open


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        use_gevent()
        serve()
    else:
        main()
