"""Which protocol the cluster speaks: the newest that all its members do, agreed on in the log.

Every member says what it speaks when it is asked who it is (``Identification``). The leader asks,
and once all of them speak something newer than the configuration says, it proposes a configuration
that says so. From the commitment of that entry on, ``Raft.cluster_speaks`` is true for good, on
every member: whoever speaks only what is older is not let in any more, and stops if it finds
itself in such a cluster. So a cluster is brought up to date one node at a time, and uses what is
new once the last one is.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import gevent

from anchor.node.errors import UNSUPPORTED_PROTOCOL, MembershipError
from anchor.raft import Refused
from anchor.settings import NEWEST_PROTOCOL
from anchor.transport import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.raft import Configuration, Member, Raft
    from anchor.transport import Identification, Transport

_log = logging.getLogger("anchor.membership")

ASK_SECONDS = 2.0
CALL_SECONDS = 1.0


class Protocols:
    """The leader's part in it, and who may not take part."""

    def __init__(
        self, raft: Raft, transport: Transport, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._raft = raft
        self._transport = transport
        self._clock = clock
        self._asked_at = float("-inf")

    def agree(self) -> bool:
        """As leader, propose the newest protocol that all speak; whether there is one to propose.

        Blocks for a call, to all members at once, at most every two seconds, and for none once
        the cluster speaks all that this version does.
        """
        configuration = self._raft.committed_configuration
        if configuration.protocol_version >= NEWEST_PROTOCOL:
            return False
        if self._clock() - self._asked_at < ASK_SECONDS:
            return False
        self._asked_at = self._clock()
        asking = [gevent.spawn(self._newest_of, member) for member in self._others(configuration)]
        gevent.joinall(asking)
        newest = min([NEWEST_PROTOCOL, *(greenlet.get() for greenlet in asking)])
        # What was asked about may have changed meanwhile.
        if newest <= configuration.protocol_version or self._raft.configuration != configuration:
            return False
        try:
            self._raft.propose_configuration(replace(configuration, protocol_version=newest))
        except Refused:
            return False
        _log.info("all members speak protocol %d: the cluster does from now on", newest)
        return True

    def _others(self, configuration: Configuration) -> list[Member]:
        members = configuration.members
        return [members[i] for i in sorted(members.keys() - {self._raft.id})]

    def _newest_of(self, member: Member) -> int:
        try:
            found = self._transport.identify(member.address, CALL_SECONDS)
        except TransportError:
            return 0  # who does not answer may be an old one
        itself = found.member_id == member.id and member.incarnation in {0, found.incarnation}
        return found.newest_protocol if itself else 0


def check_joiner(found: Identification, configuration: Configuration) -> None:
    """Raise MembershipError for a node too old for the cluster."""
    if found.newest_protocol < configuration.protocol_version:
        raise MembershipError(
            f"{found.member_id} speaks protocol {found.newest_protocol} and the cluster protocol "
            f"{configuration.protocol_version}: start it with a newer version of anchor",
            UNSUPPORTED_PROTOCOL,
        )


def why_too_old(configuration: Configuration) -> str | None:
    """Say why this version may not take part in such a cluster; None if it may."""
    if configuration.protocol_version <= NEWEST_PROTOCOL:
        return None
    return (
        f"the cluster speaks protocol {configuration.protocol_version}, this version of anchor "
        f"up to {NEWEST_PROTOCOL}: start this node with the version that the others run"
    )
