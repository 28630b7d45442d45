"""Where to ask: the endpoints that were given, and what the cluster said of itself.

Every ``/status`` that passes by teaches: who answers at that endpoint, which other members there
are, where they serve clients, and who leads; answers under ``/kv`` name the leader too. Members
that were not given are the last to be asked, unless they lead.

An address that a member advertises may mean something else from here: 127.0.0.1, or a host name
of another network. So such an endpoint is believed only once it has said itself that it is that
member of that cluster.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

from anchor.settings import join_address, split_address

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from anchor.client.connections import Answer


class Endpoints:
    """HTTP addresses, each ``host:port``, in the order of their promise; shared by threads."""

    def __init__(self, given: tuple[str, ...]) -> None:
        self.given = given
        self.told_at = -math.inf  # when a status was last asked for, see Calls
        self._lock = threading.Lock()
        self._answered_last = given[0]
        self._cluster_id: str | None = None
        self._leader_id: str | None = None
        self._ids: dict[str, str] = {}  # endpoint to member id, as the member itself says
        self._advertised: dict[str, str] = {}  # member id to endpoint, as others say

    def next(self, tried: AbstractSet[str]) -> str | None:
        """Choose where to try now: who answered last, then who leads, then the others."""
        with self._lock:
            return next((each for each in self._in_order() if each not in tried), None)

    def all(self) -> list[str]:
        """Every endpoint there is, those that were given first."""
        with self._lock:
            return [*self.given, *self._not_given()]

    def answered(self, endpoint: str) -> None:
        """Note that an endpoint settled a request: the next one goes there first."""
        with self._lock:
            self._answered_last = endpoint

    def heard(self, answer: Answer) -> None:
        """Note who leads, as any answer under ``/kv`` says."""
        leader_id = answer.headers.get("X-Raft-Leader")
        if leader_id:
            self._leader_id = leader_id

    def is_to_be_confirmed(self, endpoint: str) -> bool:
        """Whether nobody but other members has vouched for an endpoint."""
        with self._lock:
            return endpoint not in self.given and endpoint not in self._ids

    def learn(self, endpoint: str, status: dict[str, Any]) -> bool:
        """Take in what an endpoint said of itself and its peers; whether it belongs here."""
        node_id, cluster_id = status.get("node_id"), status.get("cluster_id")
        if not isinstance(node_id, str) or not isinstance(cluster_id, str):
            return endpoint in self.given
        peers = status.get("peers")
        told = [status, *(peers if isinstance(peers, list) else [])]
        with self._lock:
            if endpoint not in self.given:
                if cluster_id != self._cluster_id or self._advertised.get(node_id) != endpoint:
                    self._advertised = {
                        each: at for each, at in self._advertised.items() if at != endpoint
                    }
                    self._ids.pop(endpoint, None)
                    return False
            elif cluster_id != self._cluster_id:
                self._cluster_id = cluster_id
                self._ids.clear()
            self._ids[endpoint] = node_id
            self._advertised = dict(_advertised(told))
            leader_id = status.get("leader_id")
            if isinstance(leader_id, str):
                self._leader_id = leader_id
        return True

    def _in_order(self) -> Iterable[str]:
        yield self._answered_last
        leader = self._leader_id and self._endpoint_of(self._leader_id)
        if leader:
            yield leader
        # From the last one on, so that not all clients come down on the same next one.
        given = self.given
        at = given.index(self._answered_last) if self._answered_last in given else 0
        yield from given[at:] + given[:at]
        yield from self._not_given()

    def _endpoint_of(self, member_id: str) -> str | None:
        for endpoint in self.given:
            if self._ids.get(endpoint) == member_id:
                return endpoint
        return self._advertised.get(member_id)

    def _not_given(self) -> list[str]:
        reached = {self._ids.get(endpoint) for endpoint in self.given}
        return [
            endpoint
            for member_id, endpoint in self._advertised.items()
            if member_id not in reached and endpoint not in self.given
        ]


def parse_endpoints(endpoints: str | Iterable[str]) -> tuple[str, ...]:
    """Read ``"host1:8001,host2:8001"`` or several of them; raises ValueError."""
    parts = endpoints.split(",") if isinstance(endpoints, str) else endpoints
    named = (part.strip().removeprefix("http://").removesuffix("/") for part in parts)
    parsed = tuple(dict.fromkeys(join_address(*split_address(part)) for part in named if part))
    if not parsed:
        raise ValueError("a client needs at least one endpoint, like localhost:8001")
    return parsed


def _advertised(told: list[Any]) -> Iterable[tuple[str, str]]:
    """Pick the ids and addresses out of what a status says of members."""
    for each in told:
        if not isinstance(each, dict):
            continue
        member_id = each.get("id") or each.get("node_id")
        address = each.get("http_address")
        if not isinstance(member_id, str) or not isinstance(address, str):
            continue
        try:
            yield member_id, join_address(*split_address(address))
        except ValueError:
            continue
