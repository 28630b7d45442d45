"""Everything a node can be told, in one frozen value.

Where values come from, later ones winning: the defaults here, the file given by ``--config``
(TOML), the environment (``ANCHOR_*``), the flags. :mod:`anchor.plan` gathers them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "0.1.0"

# What members say to each other: this version reads and writes all of these protocols, and a
# cluster uses the newest that all its members speak (anchor.node.versions).
# 1: the first. 2: a member says when its disk has no room. 3: sessions, and what goes with them.
OLDEST_PROTOCOL = 1
NEWEST_PROTOCOL = 3

OUT_OF_ROOM = 75
"""How a node's process exits that met a full disk unprepared: it can start over once there is room.

The number is that of EX_TEMPFAIL in sysexits.h.
"""

MAX_VALUE_BYTES_LIMIT = 3 << 20
"""A value travels in one gRPC message of at most 4 MiB, with its key and what goes around it."""

LOCK_FILE = "lock"
"""In a data directory; whoever uses that has it locked (flock)."""

HTTP_PORT_OFFSET = 1000
"""A node's HTTP port is its Raft port plus this, unless said otherwise."""

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")


@dataclass(frozen=True, slots=True)
class Settings:
    """A node's settings. Units are in the names; addresses are ``host:port``.

    ``host`` is where to listen. ``advertise`` and ``http_advertise`` are what others dial; read
    them as :attr:`address` and :attr:`http_address`, which fall back to where the node listens.
    """

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
    max_sessions: int = 10_000
    snapshot_entries: int = 10_000
    snapshot_bytes: int = 64 << 20
    snapshot_rate: int = 0  # bytes a second; 0: as fast as it goes
    quota_bytes: int = 0
    log_level: str = "info"
    log_format: str = "auto"
    learner: bool = False
    replace: bool = False
    bootstrap_expect: int = 0

    @property
    def bind_address(self) -> str:
        """Where this node listens for other nodes."""
        return join_address(self.host, self.port)

    @property
    def address(self) -> str:
        """Where other nodes reach this one."""
        return self.advertise or join_address(self.host, self.port)

    @property
    def http_address(self) -> str:
        """Where clients reach this node."""
        return self.http_advertise or join_address(self.host, self.http_port)


def join_address(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Take ``host:port`` or ``[IPv6]:port`` apart.

    Raises:
        ValueError: what is wrong with it, in words for the person who wrote it.

    """
    _refuse_url(address)
    if re.search(r":[0-9]+[ \t]+\S", address):
        raise ValueError("holds a blank; put commas between addresses")
    host, separator, port = address.rpartition(":")
    if not separator or host.count("[") != host.count("]"):
        raise ValueError("has no port; an address is HOST:PORT, like localhost:9001")
    if ":" in host and not host.startswith("["):
        raise ValueError("an IPv6 address is written in brackets, like [::1]:9001")
    return parse_host(host), parse_port(port)


def parse_host(text: str) -> str:
    """Check a host name or address; brackets around an IPv6 address are taken off.

    Raises:
        ValueError: why nothing can be reached there.

    """
    _refuse_url(text)
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
        if ":" not in text:
            raise ValueError("only an IPv6 address goes in brackets, like [::1]")
    if not text:
        raise ValueError("the host is missing")
    if ":" in text or re.fullmatch(r"[0-9.]+", text):
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise ValueError(f"{text} is not an IP address") from None
    elif not _HOST_NAME.fullmatch(text):
        raise ValueError("is not a host name; letters, digits, '-' and '.' make one")
    return text


def _refuse_url(text: str) -> None:
    """Name this common mistake, before the colon in it is taken for one of IPv6."""
    if match := re.match(r"[A-Za-z]{1,10}://", text):
        raise ValueError(f"leave out {match[0]}; an address is HOST:PORT, like localhost:9001")


def parse_port(text: str) -> int:
    """Check a TCP port.

    Raises:
        ValueError: it is not one.

    """
    if re.fullmatch(r"[0-9]{1,5}", text) and 1 <= int(text) <= 65535:
        return int(text)
    raise ValueError("a port is a number from 1 to 65535")


def is_wildcard(host: str) -> bool:
    """Whether ``host`` means "every interface": fine to listen on, impossible to dial."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
