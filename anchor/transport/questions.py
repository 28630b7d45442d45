"""What nodes ask each other beside the core's own messages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identification:
    """Who answers at an address. ``cluster_id`` is empty while it is in no cluster.

    It speaks all protocols from the oldest to the newest.
    """

    member_id: str
    incarnation: int
    cluster_id: str
    address: str
    http_address: str
    version: str
    oldest_protocol: int = 1
    newest_protocol: int = 1
    # What it goes by: the encoded configuration in force, or empty bytes.
    configuration: bytes = b""
    configuration_index: int = 0
    configuration_committed: bool = False
    founders: tuple[str, ...] = ()  # while it is in no cluster: with whom it would found one


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Let this member in. ``incarnation`` 0: the leader learns it by dialing ``address``.

    ``forwarded`` marks one that was passed on to the leader already: it goes no further.
    ``replace`` lets it take the place of a member of its id whose data directory is gone. With an
    ``order`` it is no join at all, but something else an operator wants of the leader.
    """

    member_id: str
    address: str
    http_address: str
    incarnation: int = 0
    voter: bool = True
    forwarded: bool = False
    replace: bool = False
    order: bytes = b""


@dataclass(frozen=True, slots=True)
class JoinResponse:
    """``error_code`` is empty when the joiner is in the configuration.

    ``promoted``: it is what it asked to be, a voter or a learner for good.
    """

    error_code: str = ""
    error_detail: str = ""
    cluster_id: str = ""
    leader_id: str = ""
    leader_address: str = ""
    promoted: bool = False


@dataclass(frozen=True, slots=True)
class RemoveRequest:
    """Let this member go. ``forwarded`` as in a JoinRequest."""

    member_id: str
    forwarded: bool = False


@dataclass(frozen=True, slots=True)
class RemoveResponse:
    """``error_code`` is empty when the member is out."""

    error_code: str = ""
    error_detail: str = ""


@dataclass(frozen=True, slots=True)
class CompareDigest:
    """What is your digest at this applied index? The second round tells the majority's."""

    sender: str
    applied_index: int
    majority_digest: bytes = b""


@dataclass(frozen=True, slots=True)
class ForwardRequest:
    """A member's question to the leader: batches to propose, or else a read index."""

    sender: str
    number: int
    batches: tuple[bytes, ...] = ()
    read_index: bool = False
    lease: bool = False  # with read_index: answer from the lease, without a round


@dataclass(frozen=True, slots=True)
class ForwardResponse:
    """``error_code`` is empty when done; otherwise nothing was proposed, or no index is known."""

    number: int
    error_code: str = ""
    leader_id: str = ""
    term: int = 0
    read_index: int = 0
