"""Clients that write all the time, and remember what they were told."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from tests.cluster.processes import NodeProcess

COMMIT_UNKNOWN = "commit_unknown"


class WriteError(NamedTuple):
    """What a client got instead of 200."""

    code: str  # or the exception's name, where there was no answer
    node_id: str
    seconds: float  # that it took
    answered: bool = True

    def __str__(self) -> str:
        return f"{self.code} from {self.node_id} after {self.seconds:.2f} s"


@dataclass
class Record:
    """What one client saw. Keys are its own, so each is written once."""

    acknowledged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    acknowledged_at: list[tuple[float, str]] = field(default_factory=list)  # time, node id
    errors: list[WriteError] = field(default_factory=list)


class Front(Protocol):
    """Where clients may write: a cluster, or who is a member of it now."""

    @property
    def nodes(self) -> list[NodeProcess]:
        """Tried in turn."""


class Writers:
    """Threads that write fresh keys through all nodes, one request at a time each."""

    def __init__(self, cluster: Front, count: int, run: str, *, pause_seconds: float = 0.0) -> None:
        self._cluster = cluster
        self._pause_seconds = pause_seconds
        self._run = run
        self._stop = threading.Event()
        self.records = [Record() for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._write, args=(number,), daemon=True)
            for number in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def acknowledged(self) -> list[str]:
        """All keys whose write was answered 200."""
        return [key for record in self.records for key in record.acknowledged]

    @property
    def errors(self) -> list[WriteError]:
        """All that was said instead of 200."""
        return [error for record in self.records for error in record.errors]

    def acknowledged_after(self, moment: float, not_by: str) -> float | None:
        """When a write was first answered after ``moment``, by another node."""
        times = [
            at
            for record in self.records
            for at, node_id in record.acknowledged_at[-2000:]
            if at > moment and node_id != not_by
        ]
        return min(times, default=None)

    def _next(self, node: NodeProcess) -> NodeProcess:
        nodes = list(self._cluster.nodes)
        return nodes[(nodes.index(node) + 1) % len(nodes)] if node in nodes else nodes[0]

    def _write(self, number: int) -> None:
        record = self.records[number]
        connection: http.client.HTTPConnection | None = None
        node = self._cluster.nodes[number % len(self._cluster.nodes)]
        for sequence in itertools.count():
            if self._stop.is_set():
                break
            key = f"{self._run}/{number}/{sequence}"
            began = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=8)
                connection.request("PUT", f"/kv/{key}", key.encode())
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                seconds = time.monotonic() - began
                code = type(error).__name__
                record.errors.append(WriteError(code, node.node_id, seconds, answered=False))
                record.unknown.append(key)
                if connection is not None:
                    connection.close()
                connection = None
                node = self._next(node)
                self._stop.wait(0.02)  # nobody listens there: do not spin
                continue
            if response.status == 200:
                record.acknowledged.append(key)
                record.acknowledged_at.append((time.monotonic(), node.node_id))
            else:
                code = json.loads(body)["code"]
                record.errors.append(WriteError(code, node.node_id, time.monotonic() - began))
                if code == COMMIT_UNKNOWN:
                    record.unknown.append(key)
            if response.status == 410:  # it was removed: it will not take another
                connection.close()
                connection = None
                node = self._next(node)
            self._stop.wait(self._pause_seconds)
        if connection is not None:
            connection.close()


def missing(node: NodeProcess, keys: list[str]) -> list[str]:
    """Those of the keys that a linearizable read through this node does not find."""
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=10)
    lost = []
    try:
        for key in keys:
            connection.request("GET", f"/kv/{key}")
            response = connection.getresponse()
            if response.read() != key.encode() or response.status != 200:
                lost.append(key)
    finally:
        connection.close()
    return lost
