"""Strikes leaders, one after the other: kill -9 and start again, or SIGSTOP and SIGCONT."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.processes import Cluster, NodeProcess

PAUSE_SECONDS = (0.0, 2.5)  # after half a second in which it is seen to be paused
DOWN_SECONDS_MAX = 1.0
LOOK_SECONDS = 0.1


class Strikes:
    """Strikes whoever leads, ``every_seconds`` if somebody does by then, until told to end.

    A node that is down or paused comes back while the next one is struck, so now and then there is
    no majority for a while; with ``one_at_a_time`` there always is one.
    """

    def __init__(
        self,
        cluster: Cluster,
        seed: int,
        every_seconds: float = 2.0,
        *,
        one_at_a_time: bool = False,
    ) -> None:
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._every_seconds = every_seconds
        self._one_at_a_time = one_at_a_time
        self._stop = threading.Event()
        self._down: dict[NodeProcess, threading.Thread] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.log: list[tuple[float, str]] = []  # when, what
        self.kills = 0
        self.pauses = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """All nodes run again after that."""
        self._stop.set()
        self._thread.join(60)
        for thread in list(self._down.values()):
            thread.join(30)

    def _run(self) -> None:
        due = time.monotonic() + self._every_seconds
        while not self._stop.wait(LOOK_SECONDS):
            if time.monotonic() < due:
                continue
            if self._one_at_a_time and (self._down or not self._cluster.is_whole()):
                continue
            leader = self._find_leader()
            if leader is not None:
                due = time.monotonic() + self._every_seconds
                self._strike(leader)

    def _find_leader(self) -> NodeProcess | None:
        leading = [
            (status["term"], node.node_id)
            for node in self._cluster.nodes
            if node not in self._down
            and (status := _status(node)) is not None
            and status["role"] == "leader"
        ]
        if not leading:
            return None
        by_id = {node.node_id: node for node in self._cluster.nodes}
        return by_id[max(leading)[1]]

    def _strike(self, node: NodeProcess) -> None:
        if self._chance.random() < 0.5:
            self.kills += 1
            self._note(f"kill {node.node_id}")
            node.kill()
            self._come_back(node, self._chance.uniform(0, DOWN_SECONDS_MAX), node.start)
        else:
            self.pauses += 1
            self._note(f"pause {node.node_id}")
            node.pause()
            if _status(node) is not None:
                self.wrong.append(f"{node.node_id} was paused, and answered")
            self._come_back(node, self._chance.uniform(*PAUSE_SECONDS), node.resume)

    def _come_back(self, node: NodeProcess, after: float, back: Callable[[], None]) -> None:
        def come_back() -> None:
            time.sleep(after)
            self._note(f"{node.node_id} is back")
            back()
            del self._down[node]

        thread = threading.Thread(target=come_back, daemon=True)
        self._down[node] = thread
        thread.start()

    def _note(self, what: str) -> None:
        self.log.append((time.monotonic(), what))


def _status(node: NodeProcess) -> dict[str, object] | None:
    try:
        code, _, body = node.request("GET", "/status", timeout=0.5)
    except (OSError, http.client.HTTPException):
        return None
    found: dict[str, object] = json.loads(body)
    return found if code == 200 else None
