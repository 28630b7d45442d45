"""Watches the configurations that the nodes of a cluster go by, while they change."""

from __future__ import annotations

import http.client
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tests.cluster.processes import Cluster, NodeProcess

SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Seen:
    """What one node went by at one moment."""

    node_id: str
    index: int
    committed: bool
    removed: bool
    voters: frozenset[str]
    voters_outgoing: frozenset[str]
    learners: frozenset[str]

    @property
    def content(self) -> tuple[frozenset[str], ...]:
        """All but where and when."""
        return (self.voters, self.voters_outgoing, self.learners)

    def is_quorum(self, ids: set[str]) -> bool:
        """Whether these could decide in it, alone."""
        return all(
            len(ids & voters) > len(voters) // 2
            for voters in (self.voters, self.voters_outgoing)
            if voters
        )


def look_at(node: NodeProcess) -> Seen | None:
    """Ask a node; None where nobody answers."""
    try:
        code, _, body = node.request("GET", "/members", timeout=1.0)
    except (OSError, http.client.HTTPException):
        return None
    if code != 200:
        return None
    found = json.loads(body)
    roles = {member["id"]: member["role"] for member in found["members"]}
    return Seen(
        node.node_id,
        found["configuration_index"],
        found["committed"],
        roles.get(node.node_id, "removed") == "removed",
        frozenset(found["voters"]),
        frozenset(found["voters_outgoing"]),
        frozenset(found["learners"]),
    )


class ConfigurationWatch:
    """Samples all nodes all the time. ``wrong`` says what must not be, ``committed`` what was.

    * At one index, all nodes that know it as committed have the same configuration.
    * No two configurations are held at one moment by two groups of nodes that could each decide
      alone: majorities without a common member. Nodes are asked one after the other, so a finding
      counts only if the first group still says the same after the second was asked.
    * Of two that were committed one after the other, as far as they were seen, some voter is in
      both.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.committed: dict[int, tuple[frozenset[str], ...]] = {}
        self.wrong: list[str] = []
        self.samples = 0
        self.joint = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            nodes = [node for node in list(self._cluster.nodes) if node.process is not None]
            self.judge([seen for node in nodes if (seen := look_at(node)) is not None])

    def judge(self, seen: list[Seen]) -> None:
        """Take one sample of all nodes into account."""
        self.samples += 1
        self.joint += any(each.voters_outgoing for each in seen)
        for each in seen:
            if each.committed and each.index:
                known = self.committed.setdefault(each.index, each.content)
                if known != each.content:
                    self.wrong.append(f"two committed at {each.index}: {known}, {each}")
        self._judge_neighbours()
        groups: dict[int, list[Seen]] = {}
        for each in seen:
            if not each.removed:
                groups.setdefault(each.index, []).append(each)
        able = [g for g in groups.values() if g[0].is_quorum({each.node_id for each in g})]
        if len(able) > 1 and self._still(able[0]) and self._still(able[1]):
            self.wrong.append(f"two groups could decide, each alone: {able}")

    def _judge_neighbours(self) -> None:
        indexes = sorted(self.committed)[-2:]
        if len(indexes) == 2:
            before, after = (self.committed[index][0] for index in indexes)
            if not before & after:
                self.wrong.append(f"no voter in common: {before} at {indexes[0]}, then {after}")

    def _still(self, group: list[Seen]) -> bool:
        by_id = {node.node_id: node for node in self._cluster.nodes}
        again = [look_at(by_id[each.node_id]) for each in group]
        return again == group
