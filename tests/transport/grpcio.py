"""The other side by grpcio's own public API, in a process that gevent has not touched.

``python -m tests.transport.grpcio serve`` echoes; ``call ADDRESS`` asks what ``echo_methods`` of
``test_rpc.py`` answer, and prints what came back.
"""

from __future__ import annotations

import sys
from concurrent import futures
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE, MANY, FAIL = "/test.Echo/One", "/test.Echo/Many", "/test.Echo/Fail"


def _one(wire: bytes, _context: grpc.ServicerContext) -> bytes:
    return b"one " + wire


def _many(wires: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
    for wire in wires:
        yield b"many " + wire


def _fail(_wire: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not löw enough")
    raise AssertionError


def serve() -> None:
    """Serve until stdin ends; prints the port."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    handlers = {
        "One": grpc.unary_unary_rpc_method_handler(_one),
        "Many": grpc.stream_stream_rpc_method_handler(_many),
        "Fail": grpc.unary_unary_rpc_method_handler(_fail),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(0)


def call(address: str) -> None:
    """Make one call of each kind; prints a line each."""
    with grpc.insecure_channel(address) as channel:
        print(channel.unary_unary(ONE, bytes, bytes)(b"x", timeout=5))
        print(
            list(
                channel.stream_stream(MANY, bytes, bytes)(iter([b"a", b"b" * 100_000]), timeout=5)
            )[1][-3:]
        )
        for path in (FAIL, "/test.Echo/Nothing"):
            try:
                channel.unary_unary(path, bytes, bytes)(b"x", timeout=5)
            except grpc.RpcError as error:
                print(error.code().name, error.details())


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        call(sys.argv[2])
