"""Who we are, and the limits of the transport."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LocalMember:
    """This node, as others must address it. ``cluster_id`` is empty until it is known."""

    member_id: str
    incarnation: int
    cluster_id: str = ""


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Limits and times. The defaults fit an election timeout of one second."""

    max_message_bytes: int = 4 << 20  # a larger one is refused before it is read
    max_merged_append_bytes: int = 1 << 20  # appends that wait are joined up to this
    max_queued_messages: int = 256  # for one member; the oldest is dropped
    max_queued_bytes: int = 32 << 20  # the same, by size
    max_concurrent_calls: int = 128  # a stream is one call for as long as it is open
    silence_timeout_ms: int = 1000  # unheard for this long: lost
    ping_interval_ms: int = 1000  # how often an idle member is asked whether it lives
    vote_timeout_ms: int = 1000  # how long a vote may take to be answered
    first_message_timeout_ms: int = 2000  # a stream must say who it is by then
    backoff_min_ms: int = 50
    backoff_max_ms: int = 2000

    @property
    def round_seconds(self) -> float:
        """How often silence is judged, everybody's: ten times in each silence timeout."""
        return self.silence_timeout_ms / 10_000
