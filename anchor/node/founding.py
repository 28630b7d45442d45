"""``--bootstrap-expect N``: nodes that were started alike found one cluster, never two.

The protocol
============

Every node is given the others' addresses, or a name that resolves to all. While it is in no
cluster it asks all of them, again and again, who they are (``Identify``).

1. If any of them is in a cluster, there is one: ask to be let in, and found nothing.
2. If every address has answered, none of them is in a cluster, and with itself they are at least N
   nodes of different names, then these are its *view*: the sorted names. Otherwise it has none.
   What a node's view is, is part of its own answer.
3. The node whose name is the first of its view founds the cluster, alone, as its only member,
   once every other node of the view has told exactly the same view. All others wait until they
   see that it is in a cluster, and then 1. holds.

A cluster grows from one member through Raft alone, so there are as many clusters as founders.

Why there is one
================

Take two founders F and G with the views V and W, F having founded first.

* If N nodes exist, both views are all of them, and both F and G are the first name: F is G. If it
  founded twice, its disk was wiped in between, and all others told it afterwards that they are in
  no cluster: the first one had no member but that lost disk.
* If more than N exist, or their lists differ: V and W share a node M (if they do not, nobody knows
  anybody of the other side, and no protocol can help). M told F the view V and later G the view W,
  so it heard F's answer for V. Had it F's address still when it made W, F would have answered with
  its cluster, or not at all, and either way W would not be a view. So M's addresses have changed
  between: different command lines, or a name that resolves to some of the nodes only, among more
  than N. Do not do that.

A founder's crash is safe at each step. Before the first entry is durable, nothing has happened.
After that, and before the cluster's id is, nobody could have been let in yet: the next start goes
on with the same single member. After that it is a cluster like any other. A node that waits and
restarts has lost nothing: nothing it said was a promise.

It takes all N at once to begin. Afterwards any majority does.
"""

from __future__ import annotations

import logging
import socket
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gevent

from anchor.raft import Configuration
from anchor.settings import NEWEST_PROTOCOL, join_address, split_address
from anchor.transport import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anchor.node.node import Parts
    from anchor.raft import Member
    from anchor.transport import Identification

_log = logging.getLogger("anchor.membership")

CALL_SECONDS = 1.0
PERSISTED_SECONDS = 0.01  # between two looks at whether the first entry is durable


@dataclass(frozen=True, slots=True)
class Outlook:
    """What one round of asking came to."""

    view: tuple[str, ...] = ()
    others: tuple[str, ...] = ()  # the addresses that are not our own
    in_cluster: tuple[str, ...] = ()  # those of them that are in a cluster
    founds: bool = False
    missing: str = ""  # why there is no view


def look(itself: Member, expect: int, answers: Mapping[str, Identification | None]) -> Outlook:
    """Judge one round: each address, and who answered there."""
    own = (itself.id, itself.incarnation)
    others = {
        address: answer
        for address, answer in answers.items()
        if answer is None or (answer.member_id, answer.incarnation) != own
    }
    addresses = tuple(sorted(others))
    clustered = tuple(a for a in addresses if (it := others[a]) is not None and it.cluster_id)
    silent = [address for address in addresses if others[address] is None]
    there = [answer for answer in others.values() if answer is not None]
    names = {answer.member_id: answer.incarnation for answer in there}
    doubles = [each for each in there if names[each.member_id] != each.incarnation]
    missing = ""
    if clustered:
        missing = f"{', '.join(clustered)} is in a cluster"
    elif silent:
        missing = f"no answer from {', '.join(silent)}"
    elif itself.id in names or doubles:
        name = itself.id if itself.id in names else doubles[0].member_id
        missing = f"two nodes are named {name}; give each an --id of its own"
    elif len(names) + 1 < expect:
        missing = f"{len(names) + 1} nodes of {expect} are there"
    if missing:
        return Outlook((), addresses, clustered, missing=missing)
    view = tuple(sorted({*names, itself.id}))
    founds = view[0] == itself.id and all(each.founders == view for each in there)
    return Outlook(view, addresses, (), founds=founds)


class Founding:
    """Finds the others, and founds the cluster if that is this node's part."""

    def __init__(
        self,
        parts: Parts,
        resolve: Callable[[str], Sequence[Sequence[str]]] | None = None,
    ) -> None:
        self._parts = parts
        self._expect = parts.joining.bootstrap_expect
        self._resolve = resolve or addresses_of
        self._said = ""
        self.view: tuple[str, ...] = ()
        self.others: tuple[str, ...] = tuple(parts.peers)

    def look_around(self) -> bool:
        """Ask everybody once. True if there is a cluster to join, or this node has founded it."""
        answers = self._ask([self._resolve(peer) for peer in self._parts.peers])
        outlook = look(self._parts.itself, self._expect, answers)
        self.view, self.others = outlook.view, outlook.others
        if outlook.in_cluster:
            return True
        if outlook.missing and outlook.missing != self._said:
            _log.info("waits for %d nodes to found a cluster: %s", self._expect, outlook.missing)
        self._said = outlook.missing
        if outlook.founds:
            self._found()
        return outlook.founds

    def _ask(self, resolved: Sequence[Sequence[Sequence[str]]]) -> dict[str, Identification | None]:
        """Ask at all addresses, and leave out those of a family that a name's nodes do not use."""
        addresses = {each for families in resolved for family in families for each in family}
        asking = {each: gevent.spawn(self._identify, each) for each in sorted(addresses)}
        gevent.joinall(list(asking.values()))
        answers = {address: greenlet.get() for address, greenlet in asking.items()}
        return used(resolved, answers)

    def _identify(self, address: str) -> Identification | None:
        try:
            return self._parts.transport.identify(address, CALL_SECONDS)
        except TransportError:
            return None

    def _found(self) -> None:
        """Become the only member of a new cluster: the first entry, then the cluster's id."""
        parts = self._parts
        itself = parts.itself
        only = Configuration(
            members={itself.id: itself},
            voters=frozenset({itself.id}),
            protocol_version=NEWEST_PROTOCOL,
        )
        last_index = parts.raft.found(only).last_index
        parts.raft.campaign()
        while parts.raft.commit_index < last_index:
            gevent.sleep(PERSISTED_SECONDS)
        cluster_id = uuid.uuid4().hex
        gevent.get_hub().threadpool.apply(parts.directory.set_cluster_id, (cluster_id,))
        parts.transport.set_cluster_id(cluster_id)
        _log.info(
            "founded cluster %s; lets in %s", cluster_id, ", ".join(self.view[1:]) or "nobody yet"
        )


def used(
    resolved: Sequence[Sequence[Sequence[str]]],
    answers: Mapping[str, Identification | None],
) -> dict[str, Identification | None]:
    """The answers that count: for each name those of one family of addresses.

    ``localhost`` has addresses of IPv4 and IPv6, and nodes mostly listen at one of them. The first
    family of which all answer is meant; if there is none, the first one.
    """
    counted: dict[str, Identification | None] = {}
    for families in resolved:
        whole = [family for family in families if all(answers[each] for each in family)]
        for family in (whole or families)[:1]:
            counted |= {each: answers[each] for each in family}
    return counted


def addresses_of(peer: str) -> list[list[str]]:
    """All the addresses a ``host:port`` means now, IPv4 and IPv6 apart."""
    host, port = split_address(peer)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return [[peer]]  # nobody will answer there, and that is what is to be seen
    families = [
        sorted({join_address(str(where[0]), port) for kind, *_, where in found if kind == family})
        for family in (socket.AF_INET, socket.AF_INET6)
    ]
    return [family for family in families if family]
