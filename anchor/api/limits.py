"""What one client may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anchor.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on sizes and times. All times are in seconds."""

    max_key_bytes: int = 4096
    max_value_bytes: int = 1 << 20
    # As generous as for values, so that a body nested 100,000 deep is told what is wrong with it.
    max_json_bytes: int = 1 << 20
    max_head_bytes: int = 64 << 10
    max_header_fields: int = 100
    max_connections: int = 10_000
    # Of the whole cluster; over it, the one unused for longest ends.
    max_sessions: int = 10_000
    # Of all bodies together that are on their way in.
    max_arriving_bytes: int = 256 << 20

    request_timeout: float = 5.0
    membership_timeout: float = 30.0

    idle_timeout: float = 60.0
    head_timeout: float = 10.0
    # A body has this long, and longer by what the bytes it has brought take at the lowest rate.
    body_timeout: float = 10.0
    send_timeout: float = 30.0
    min_bytes_per_second: int = 16 << 10

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Take over what a node's settings say; the rest is as above."""
        return cls(
            max_key_bytes=settings.max_key_bytes,
            max_value_bytes=settings.max_value_bytes,
            max_sessions=settings.max_sessions,
            request_timeout=settings.request_timeout_ms / 1000,
        )
