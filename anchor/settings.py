"""Everything a node can be told, in one frozen value.

Where values come from, later ones winning: the defaults here, the file given by ``--config``
(TOML), the environment (``ANCHOR_*``), the flags. :mod:`anchor.cli` gathers them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """A node's settings. Units are in the names; addresses are ``host:port``."""

    node_id: str
    port: int
    directory: Path
    peers: tuple[str, ...] = ()
    http_port: int = 0
    host: str = "127.0.0.1"
    advertise: str = ""
    http_advertise: str = ""
    election_timeout_ms: int = 1000
    heartbeat_ms: int = 100
    request_timeout_ms: int = 5000
    max_value_bytes: int = 1 << 20
    max_key_bytes: int = 4096
    log_level: str = "info"
