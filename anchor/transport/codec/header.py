"""Who speaks to whom: the header of every message, and the checks all decoders share."""

from __future__ import annotations

from typing import NamedTuple

from anchor.settings import OLDEST_PROTOCOL
from anchor.transport import raft_pb2

# What a newer protocol adds to a message is left out until the whole cluster speaks it
# (anchor.node.versions), or may be passed over: so all is readable in the oldest one.
PROTOCOL_VERSION = OLDEST_PROTOCOL
LIMIT = 1 << 63  # no term and no index ever gets here

Header = raft_pb2.Header


class Malformed(Exception):  # noqa: N818 - named for what it is
    """These bytes are not a message that makes sense, whoever sent them."""


class Envelope(NamedTuple):
    """A header's content: who speaks to whom, of which cluster."""

    protocol_version: int
    cluster_id: str
    sender: str
    recipient: str
    sender_incarnation: int
    recipient_incarnation: int


def header(
    cluster_id: str,
    sender: str,
    sender_incarnation: int,
    recipient: str,
    recipient_incarnation: int,
) -> Header:
    """Build the header to put on every message to one recipient."""
    return Header(
        protocol_version=PROTOCOL_VERSION,
        cluster_id=cluster_id,
        sender=sender,
        recipient=recipient,
        sender_incarnation=sender_incarnation,
        recipient_incarnation=recipient_incarnation,
    )


def envelope(header: Header) -> Envelope:
    """Read a header."""
    return Envelope(
        header.protocol_version,
        header.cluster_id,
        header.sender,
        header.recipient,
        header.sender_incarnation,
        header.recipient_incarnation,
    )


def check_term(term: int) -> None:
    """Raise Malformed for a term no message may carry."""
    if not 0 < term < LIMIT:
        raise Malformed(f"term {term} is absurd")


def check_indexes(**indexes: int) -> None:
    """Raise Malformed for a number that no index ever reaches."""
    for name, index in indexes.items():
        if index >= LIMIT:
            raise Malformed(f"{name} {index} is absurd")
