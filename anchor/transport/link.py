"""The connection to one member: its channel, and whether the member lives.

States: ``unknown`` → ``connected`` ⇄ ``lost``; ``LinkLog`` says so. Answers count: what comes on
our stream, to our votes, to our pings. What the member says by itself counts as long as none of
our attempts failed; after that it is a sign that trying again at once is worth while.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gevent.event import Event

from anchor.transport import channel as channels
from anchor.transport import codec
from anchor.transport.channel import Channel
from anchor.transport.codec import Malformed
from anchor.transport.link_log import LinkLog
from anchor.transport.rpc import CallFailed
from anchor.transport.rpc.failures import closed

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.raft.configuration import Member
    from anchor.transport.parts import Parts

_KICK_SECONDS = 0.25  # how often a sign of life may cut a back-off short
_REFUSED_BACKOFF_SECONDS = 0.25  # who refuses us is up, and may soon know better
_RENEW_AFTER = 2  # failures in a row on one channel
MISSED_ROUNDS = 3  # of looking round, and this process was paused


class Link:
    """What we know of the way to one member."""

    def __init__(self, member: Member, parts: Parts) -> None:
        self.member = member
        self.connected = False
        self.refused = False  # it answers, but will not have our stream
        self.retry = Event()  # set: wait no longer before the next attempt
        self.last_heard = time.monotonic()
        self.last_answer = 0.0
        self.on_lost: list[Callable[[], None]] = []  # what else to end when it is lost
        self._admission = parts.admission
        self._options = parts.options
        self._rng = parts.rng
        self._pump = parts.pump
        self._closed = False
        self._log = LinkLog(member.id, member.address)
        self._failures = 0
        self._channel: Channel | None = None
        self._channel_failures = 0
        self._last_kick = 0.0
        self._pinging = False
        self._pinged_at = 0.0
        self._next_ping = 0.0
        self._looked_round = self.last_heard
        self._forgiven = 0.0

    # --- the channel -------------------------------------------------------------------------

    def header(self) -> codec.Header:
        """Build the header for messages to it; the cluster id may have become known."""
        local, member = self._admission, self.member
        return codec.header(
            local.cluster_id, local.member_id, local.incarnation, member.id, member.incarnation
        )

    def is_from_it(self, header: codec.Header) -> bool:
        """Whether an answer comes from this member and is for us."""
        local = self._admission
        return (
            header.sender == self.member.id
            and header.recipient == local.member_id
            and header.cluster_id == local.cluster_id
            and self.member.incarnation in {0, header.sender_incarnation}
            and header.recipient_incarnation in {0, local.incarnation}
        )

    def channel(self) -> Channel:
        """Give the channel to it, a new one if this one failed twice in a row.

        After a partition the old connection sits in TCP's own back-off.
        """
        if self._closed:
            raise closed()
        old = self._channel
        if old is not None and self._channel_failures < _RENEW_AFTER:
            return old
        self._channel_failures = 0
        if old is not None:
            old.close()
        self._channel = Channel(self.member.address, self._options.max_message_bytes, self._pump)
        return self._channel

    @property
    def is_closed(self) -> bool:
        """Whether the member was taken off the list, or the transport stops."""
        return self._closed

    def retire(self) -> None:
        """Log and call nothing any more, and open nothing; ``close`` follows. Never switches."""
        self._closed = True

    def close(self) -> None:
        """End the channel and all that goes over it."""
        self._closed = True
        self.retry.set()
        self._end_dependents()
        if self._channel is not None:
            self._channel.close()

    # --- what happened -----------------------------------------------------------------------

    def answered(self) -> None:
        """Note that it answered us: all is well."""
        self.last_heard = self.last_answer = time.monotonic()
        if self._failures or not self.connected:
            self._failures = self._channel_failures = 0
            self._mark_connected()
            self.retry.set()

    def spoke(self) -> None:
        """Note that it said something by itself: it lives, so no attempt need wait."""
        now = self.last_heard = time.monotonic()
        if not self._failures:
            self._mark_connected()
        elif now - self._last_kick > _KICK_SECONDS:
            self._last_kick = now
            self._channel_failures = _RENEW_AFTER
            self._next_ping = 0.0
            self.retry.set()

    def failed(self, reason: str) -> None:
        """Note a failed attempt or a broken stream: it is lost."""
        self._failures += 1
        self._channel_failures += 1
        if self._closed:
            return
        self.connected = False
        self._log.failed(reason)
        self._end_dependents()

    def back_off(self) -> None:
        """Wait before the next attempt: capped exponential, full jitter; none after success."""
        if self._failures and not self._closed:
            cap = self._backoff_cap_seconds()
            self.retry.wait(self._rng.uniform(0.0, cap))
        self.retry.clear()

    def look_round(self, now: float) -> None:
        """Start judging anew if nobody looked round for long: it was we who did not listen."""
        if self._overslept(now):
            self.last_heard = self.last_answer = self._forgiven = now
        self._looked_round = now

    def _overslept(self, now: float) -> bool:
        return now - self._looked_round > MISSED_ROUNDS * self._options.round_seconds

    def _backoff_cap_seconds(self) -> float:
        options = self._options
        doubled_ms = options.backoff_min_ms << min(self._failures, 16)
        cap = min(options.backoff_max_ms, doubled_ms) / 1000
        return min(cap, _REFUSED_BACKOFF_SECONDS) if self.refused else cap

    def _mark_connected(self) -> None:
        if not self.connected and not self._closed:
            self.connected = True
            self._log.connected()

    def _end_dependents(self) -> None:
        for end in list(self.on_lost):
            end()

    # --- the ping ----------------------------------------------------------------------------

    def ping(self, now: float, timeout_seconds: float) -> None:
        """Ask whether it lives, unless that was asked already or is not due again."""
        if self._pinging or now < self._next_ping:
            return
        local = self._admission
        wire = codec.encode_identify(local.cluster_id, local.member_id, local.incarnation)
        self._pinging = True
        self._pinged_at = now
        try:
            self.channel().call_later(channels.IDENTIFY, wire, timeout_seconds, self._pinged)
        except CallFailed:
            self._pinging = False

    def _pinged(self, outcome: bytes | CallFailed) -> None:
        self._pinging = False
        if self._closed or (isinstance(outcome, CallFailed) and outcome.is_cancelled):
            return  # by us, with its channel
        now = time.monotonic()
        if isinstance(outcome, CallFailed) and outcome.is_timeout and self._slept_meanwhile(now):
            return  # whether it answered in time, nobody can tell: the next round asks again
        reason = self._what_is_wrong(outcome)
        if reason:
            self.failed(reason)
            self._next_ping = now + self._rng.uniform(0.0, self._backoff_cap_seconds())
            return
        self._next_ping = now + self._options.silence_timeout_ms / 3000
        self.last_heard = self.last_answer = now
        if not self.refused:
            self.answered()

    def _slept_meanwhile(self, now: float) -> bool:
        return self._overslept(now) or self._forgiven > self._pinged_at

    def _what_is_wrong(self, outcome: bytes | CallFailed) -> str:
        """Empty if the member we mean answered the ping; otherwise what is wrong."""
        if isinstance(outcome, CallFailed):
            return outcome.why
        try:
            it = codec.decode_identification(outcome)
        except Malformed as error:
            return str(error)
        if it.member_id != self.member.id:
            return f"{it.member_id[:64]!r} answers there"
        if self.member.incarnation not in {0, it.incarnation}:
            return "its data directory was made anew: remove it and let it join again"
        if it.cluster_id not in {"", self._admission.cluster_id}:
            return f"it belongs to another cluster, {it.cluster_id[:64]!r}"
        return ""
