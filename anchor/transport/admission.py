"""Who may speak: the checks of every header, and one log line about those who may not."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import grpc

from anchor.settings import NEWEST_PROTOCOL, OLDEST_PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anchor.raft.configuration import Member
    from anchor.transport.codec import Envelope
    from anchor.transport.options import LocalMember

_LOGGER = logging.getLogger("anchor.transport")
_QUIET_SECONDS = 10.0
_MAX_REMEMBERED = 256

NO_CLUSTER = "not in a cluster yet"
JOIN_SECONDS = 5.0  # for this long it is normal that a node that joins says so


class Rejection(Exception):  # noqa: N818 - named for what it is
    """This caller is refused. ``reason`` is a short stable word, for telling lines apart."""

    def __init__(self, status: grpc.StatusCode, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.sender = ""  # who it says it is, if that is a member's name


class Admission:
    """Knows who we are and who the members are; refuses everybody else.

    ``generation`` rises with each change, so that a stream's verdict can be remembered.
    """

    def __init__(self, local: LocalMember) -> None:
        self.member_id = local.member_id
        self.incarnation = local.incarnation
        self.cluster_id = local.cluster_id
        self.members: dict[str, Member] = {}
        self.generation = 0

    def set_cluster_id(self, cluster_id: str) -> None:
        """We are a node of this cluster."""
        self.cluster_id = cluster_id
        self.generation += 1

    def set_members(self, members: Iterable[Member]) -> None:
        """Replace the list of members."""
        self.members = {member.id: member for member in members if member.id != self.member_id}
        self.generation += 1

    def check(self, envelope: Envelope) -> None:
        """Raise Rejection unless this may be heard."""
        try:
            self.check_own_cluster(envelope)
            self._check_recipient(envelope)
            self._check_sender(envelope)
        except Rejection as rejection:
            rejection.sender = envelope.sender if envelope.sender in self.members else ""
            raise

    def check_protocol(self, envelope: Envelope) -> None:
        """The part that holds for strangers too: a protocol we speak, and no other cluster."""
        if not OLDEST_PROTOCOL <= envelope.protocol_version <= NEWEST_PROTOCOL:
            raise Rejection(
                grpc.StatusCode.FAILED_PRECONDITION,
                "protocol_version",
                f"protocol version {envelope.protocol_version}, "
                f"here it is {OLDEST_PROTOCOL} to {NEWEST_PROTOCOL}",
            )
        if envelope.cluster_id and self.cluster_id and envelope.cluster_id != self.cluster_id:
            raise Rejection(
                grpc.StatusCode.FAILED_PRECONDITION,
                "cluster",
                f"cluster {envelope.cluster_id[:64]!r}, here it is {self.cluster_id!r}",
            )

    def check_own_cluster(self, envelope: Envelope) -> None:
        """Raise Rejection unless the caller names our cluster; who it is does not matter."""
        self.check_protocol(envelope)
        if not self.cluster_id:
            raise Rejection(grpc.StatusCode.FAILED_PRECONDITION, "no_cluster", NO_CLUSTER)
        if envelope.cluster_id != self.cluster_id:
            raise Rejection(
                grpc.StatusCode.FAILED_PRECONDITION, "cluster", "the cluster id is missing"
            )

    def _check_recipient(self, envelope: Envelope) -> None:
        if envelope.recipient != self.member_id:
            raise Rejection(
                grpc.StatusCode.NOT_FOUND,
                "recipient",
                f"meant for {envelope.recipient[:64]!r}, this is {self.member_id!r}",
            )
        if envelope.recipient_incarnation not in {0, self.incarnation}:
            raise Rejection(
                grpc.StatusCode.FAILED_PRECONDITION,
                "recipient_incarnation",
                f"meant for another incarnation of {self.member_id!r}",
            )

    def _check_sender(self, envelope: Envelope) -> None:
        known = self.members.get(envelope.sender)
        if known is None:
            # Our configuration may be older than theirs, or empty while we join. Who names our
            # incarnation has it from a configuration of this cluster.
            if (
                not envelope.sender
                or envelope.sender == self.member_id
                or envelope.recipient_incarnation != self.incarnation
            ):
                raise Rejection(
                    grpc.StatusCode.PERMISSION_DENIED,
                    "sender",
                    f"{envelope.sender[:64]!r} is not a member",
                )
        elif not self.is_member(envelope.sender, envelope.sender_incarnation):
            raise Rejection(
                grpc.StatusCode.PERMISSION_DENIED,
                "sender_incarnation",
                f"this is not the {envelope.sender!r} that is a member: "
                "its data directory was made anew; remove it and join again",
            )

    def is_member(self, member_id: str, incarnation: int) -> bool:
        """Whether this is a member we know, in the incarnation we know."""
        known = self.members.get(member_id)
        return known is not None and known.incarnation in {0, incarnation}


class RefusalLog:
    """One line a caller and reason in ten seconds, however many are refused.

    A caller is a member's name, or else the host it calls from: names can be made up at will.
    That we are in no cluster yet is normal while we join: said only once that takes too long.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[tuple[str, str], tuple[float, int]] = {}
        self._joining_since = 0.0
        self._joining_last = -_QUIET_SECONDS
        self._joining_said = False

    def refused(self, who: str, reason: str, detail: str) -> None:
        """Note a refusal; maybe log it."""
        now = self._clock()
        if reason == "no_cluster":
            self._joining(now, who, detail)
            return
        key = (who[:64], reason)
        last, silent = self._last.pop(key, (now - _QUIET_SECONDS, 0))
        if now - last < _QUIET_SECONDS:
            self._last[key] = (last, silent + 1)
            return
        more = f" ({silent} more before)" if silent else ""
        _LOGGER.warning("refused %r: %s%s", key[0], detail, more)
        self._last[key] = (now, 0)
        if len(self._last) > _MAX_REMEMBERED:
            del self._last[next(iter(self._last))]

    def _joining(self, now: float, who: str, detail: str) -> None:
        """Note that we had to say that we are in no cluster, to whomever."""
        if now - self._joining_last >= _QUIET_SECONDS:  # the last time we joined is over
            self._joining_since, self._joining_said = now, False
            _LOGGER.debug("refused %r: %s", who[:64], detail)
        self._joining_last = now
        if now - self._joining_since > JOIN_SECONDS and not self._joining_said:
            self._joining_said = True
            seconds = now - self._joining_since
            _LOGGER.warning("refused %r for %.0f s: %s", who[:64], seconds, detail)
