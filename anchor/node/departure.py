"""A node that was away while it was removed: how it finds out.

Whoever is there while it is removed gets the entry that does it. Whoever was down does not: nobody
speaks to it any more, and left to itself it would ask for pre-votes for ever. So a member that
hears no leader for a while asks the others what they go by (``Identify`` tells the configuration
in force, its index, and whether it is committed), and those that a newer configuration names too.

It concludes that it is out only if, for one configuration C at one index,

* it is no member of C, or C has its id with another incarnation;
* a quorum of C's voters (of both majorities if C is joint), each in the incarnation that C names,
  say that C at that index is what they go by now;
* at least one of them says that C is committed.

Why that is safe: C is committed, so it is part of the log for good. Had any later configuration
been committed before the first answer, its entry would be in the logs of a quorum of its own,
which shares a voter with every quorum of C (thesis §4.1, §4.3); that voter would go by the later
one and not by C. So when it asked, no committed configuration later than C was there, and C has it
not: it was out. One peer that lags behind, or many that are no quorum, prove nothing, and neither
does what they say of an index that others have gone past: no majority then goes by C.

It may be let in again a moment later, with the data it has. Then a leader speaks to it, and the
conclusion, which is kept in memory only, is dropped (``Raft.told_removed``). A conclusion costs
nobody else anything: a member that does not campaign still votes and still follows.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gevent

from anchor.raft import Configuration
from anchor.transport import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anchor.raft import Member, Raft
    from anchor.transport import Identification, Transport

_log = logging.getLogger("anchor.membership")

LOOK_SECONDS = 0.2
CALL_SECONDS = 1.0
PATIENCE_TIMEOUTS = 3.0  # election timeouts without a leader, then it asks
PAUSE_SECONDS_MAX = 10.0
HOPS_MAX = 4  # from configuration to configuration
REMOVED = (
    "this node was removed from its cluster: it takes part no more, and answers 410. Stop it; to "
    "let it back in, start it with an empty --dir, or join it again"
)


@dataclass(frozen=True, slots=True)
class Report:
    """What a node says it goes by."""

    member_id: str
    incarnation: int
    configuration: Configuration
    index: int
    committed: bool


class Departure:
    """Watches for the end of this node's membership, and says so once."""

    def __init__(
        self,
        raft: Raft,
        transport: Transport,
        itself: Member,
        cluster_id: Callable[[], str],
        election_timeout_seconds: float,
    ) -> None:
        self._raft = raft
        self._transport = transport
        self._itself = itself
        self._cluster_id = cluster_id
        self._patience_seconds = PATIENCE_TIMEOUTS * election_timeout_seconds

    def run(self) -> None:
        """Look at it for as long as the node runs."""
        said = suspected = False
        pause_seconds = self._patience_seconds
        ask_at = time.monotonic() + pause_seconds
        while True:
            gevent.sleep(LOOK_SECONDS)
            if self._raft.is_removed:
                if not said:
                    _log.warning("%s", REMOVED)
                said = True
            elif self._raft.leader_id is not None or not self._others():
                said = False
                pause_seconds = self._patience_seconds
                ask_at = time.monotonic() + pause_seconds
            elif self._itself.id not in self._raft.configuration.members and not suspected:
                suspected = True  # its log says so, though not that it is committed
                ask_at = time.monotonic()
            elif time.monotonic() >= ask_at:
                self._find_out()
                pause_seconds = min(2 * pause_seconds, max(PAUSE_SECONDS_MAX, pause_seconds))
                ask_at = time.monotonic() + pause_seconds

    def _others(self) -> dict[str, Member]:
        """Whom this node knows as members, by address."""
        known: dict[str, Member] = {}
        for configuration in (self._raft.committed_configuration, self._raft.configuration):
            known |= {member.address: member for member in configuration.members.values()}
        known.pop(self._itself.address, None)
        return known

    def _find_out(self) -> None:
        raft = self._raft
        before = (raft.term, raft.configuration_index)
        reports = self._ask()
        # Asking takes seconds, in which it may have been let in again.
        unchanged = raft.leader_id is None and before == (raft.term, raft.configuration_index)
        if unchanged and proves_departure(self._itself, reports):
            self._raft.told_removed()
            says = ", ".join(sorted(report.member_id for report in reports))
            _log.warning("was removed while it was away, as %s say", says)

    def _ask(self) -> list[Report]:
        """Ask all members this node knows of, and all that they know of."""
        asked: set[str] = {self._itself.address}
        reports: list[Report] = []
        known = set(self._others())
        for _ in range(HOPS_MAX):
            asking = [gevent.spawn(self._ask_one, address) for address in sorted(known - asked)]
            asked |= known
            gevent.joinall(asking)
            fresh = [greenlet.value for greenlet in asking if greenlet.value is not None]
            reports += fresh
            for report in fresh:
                known |= {member.address for member in report.configuration.members.values()}
            if known <= asked:
                break
        return reports

    def _ask_one(self, address: str) -> Report | None:
        try:
            found = self._transport.identify(address, CALL_SECONDS)
        except TransportError:
            return None
        return report_of(found, self._cluster_id())


def report_of(found: Identification, cluster_id: str) -> Report | None:
    """Read an answer; None if it says nothing about our cluster."""
    if found.cluster_id != cluster_id or not found.configuration:
        return None
    try:
        configuration = Configuration.decode(found.configuration)
    except ValueError:
        return None
    return Report(
        found.member_id,
        found.incarnation,
        configuration,
        found.configuration_index,
        found.configuration_committed,
    )


def proves_departure(itself: Member, reports: Sequence[Report]) -> bool:
    """Whether these prove that a node is no member; see the top of this file."""
    for witness in reports:
        configuration = witness.configuration
        agreeing = {
            report.member_id
            for report in reports
            if (report.index, report.configuration) == (witness.index, configuration)
            and _is_member(configuration, report.member_id, report.incarnation)
        }
        if (
            witness.committed
            and not _is_member(configuration, itself.id, itself.incarnation)
            and configuration.is_quorum(agreeing)
        ):
            return True
    return False


def _is_member(configuration: Configuration, member_id: str, incarnation: int) -> bool:
    member = configuration.members.get(member_id)
    return member is not None and member.incarnation in {0, incarnation}
