"""The core's messages and the nodes' questions as bytes, and back.

The only file that knows the generated protobuf classes. Decoding judges what can be judged
without state, and raises :class:`Malformed` for anything the core must never see: what is no
protobuf message of that kind, a term of zero or above 2⁶³, indexes past 2⁶³, entries that cannot
be read, whose terms fall or pass that of their message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from anchor.raft.entry import Entry
from anchor.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from anchor.transport import forward_pb2, raft_pb2
from anchor.transport.questions import (
    CompareDigest,
    ForwardRequest,
    ForwardResponse,
    Identification,
    JoinRequest,
    JoinResponse,
    RemoveRequest,
    RemoveResponse,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOL_VERSION = 1
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


def _check_term(term: int) -> None:
    if not 0 < term < LIMIT:
        raise Malformed(f"term {term} is absurd")


def _check_indexes(**indexes: int) -> None:
    for name, index in indexes.items():
        if index >= LIMIT:
            raise Malformed(f"{name} {index} is absurd")


# --- votes -----------------------------------------------------------------------------------


def encode_vote(header: Header, message: RequestVote) -> bytes:
    """Write a RequestVote."""
    return raft_pb2.RequestVoteRequest(
        header=header,
        term=message.term,
        last_log_index=message.last_log_index,
        last_log_term=message.last_log_term,
        pre_vote=message.pre_vote,
        leadership_transfer=message.leadership_transfer,
    ).SerializeToString()


def decode_vote(wire: bytes) -> tuple[Header, RequestVote]:
    """Read a RequestVote; raises Malformed."""
    try:
        request = raft_pb2.RequestVoteRequest.FromString(wire)
    except DecodeError:
        raise Malformed("not a RequestVote") from None
    _check_term(request.term)
    _check_indexes(last_log_index=request.last_log_index, last_log_term=request.last_log_term)
    return request.header, RequestVote(
        request.term,
        request.header.sender,
        request.header.recipient,
        request.last_log_index,
        request.last_log_term,
        request.pre_vote,
        request.leadership_transfer,
    )


def encode_vote_response(header: Header, message: RequestVoteResponse) -> bytes:
    """Write a RequestVoteResponse."""
    return raft_pb2.RequestVoteResponse(
        header=header,
        term=message.term,
        vote_granted=message.vote_granted,
        pre_vote=message.pre_vote,
    ).SerializeToString()


def decode_vote_response(wire: bytes) -> tuple[Header, RequestVoteResponse]:
    """Read a RequestVoteResponse; raises Malformed."""
    try:
        response = raft_pb2.RequestVoteResponse.FromString(wire)
    except DecodeError:
        raise Malformed("not a RequestVoteResponse") from None
    _check_indexes(term=response.term)
    return response.header, RequestVoteResponse(
        response.term,
        response.header.sender,
        response.header.recipient,
        response.vote_granted,
        response.pre_vote,
    )


def encode_timeout_now(header: Header, message: TimeoutNow) -> bytes:
    """Write a TimeoutNow."""
    return raft_pb2.TimeoutNowRequest(header=header, term=message.term).SerializeToString()


def decode_timeout_now(wire: bytes) -> tuple[Header, TimeoutNow]:
    """Read a TimeoutNow; raises Malformed."""
    try:
        request = raft_pb2.TimeoutNowRequest.FromString(wire)
    except DecodeError:
        raise Malformed("not a TimeoutNow") from None
    _check_term(request.term)
    return request.header, TimeoutNow(request.term, request.header.sender, request.header.recipient)


# --- appends ---------------------------------------------------------------------------------


def encode_append(header: Header, message: AppendEntries) -> bytes:
    """Write an AppendEntries."""
    return raft_pb2.AppendEntriesRequest(
        header=header,
        term=message.term,
        prev_log_index=message.prev_log_index,
        prev_log_term=message.prev_log_term,
        entries=[entry.encode() for entry in message.entries],
        commit_index=message.commit_index,
        read_round=message.read_round,
        session=message.session,
    ).SerializeToString()


def decode_append(wire: bytes) -> tuple[Header, AppendEntries]:
    """Read an AppendEntries; raises Malformed."""
    try:
        request = raft_pb2.AppendEntriesRequest.FromString(wire)
    except DecodeError:
        raise Malformed("not an AppendEntries") from None
    term, prev_log_index = request.term, request.prev_log_index
    _check_term(term)
    if prev_log_index >= LIMIT - len(request.entries) or request.commit_index >= LIMIT:
        raise Malformed(f"index {max(prev_log_index, request.commit_index)} is absurd")
    if request.prev_log_term > term:
        raise Malformed(f"prev_log_term {request.prev_log_term} is above term {term}")
    return request.header, AppendEntries(
        term,
        request.header.sender,
        request.header.recipient,
        prev_log_index,
        request.prev_log_term,
        _entries(request),
        request.commit_index,
        request.read_round,
        request.session,
    )


def _entries(request: raft_pb2.AppendEntriesRequest) -> tuple[Entry, ...]:
    """Decode the entries; their terms never fall and never pass that of the message."""
    entries: list[Entry] = []
    newest_term = request.prev_log_term or 1
    for index, encoded in enumerate(request.entries, request.prev_log_index + 1):
        try:
            entry = Entry.decode(index, encoded)
        except ValueError as error:
            raise Malformed(f"entry {index} cannot be read: {error}") from None
        if not newest_term <= entry.term <= request.term:
            raise Malformed(f"entry {index} has term {entry.term}, which cannot be")
        newest_term = entry.term
        entries.append(entry)
    return tuple(entries)


def encode_append_response(header: Header, message: AppendEntriesResponse) -> bytes:
    """Write an AppendEntriesResponse."""
    return raft_pb2.AppendEntriesResponse(
        header=header,
        term=message.term,
        success=message.success,
        match_index=message.match_index,
        rejected_index=message.rejected_index,
        conflict_index=message.conflict_index,
        conflict_term=message.conflict_term,
        read_round=message.read_round,
        session=message.session,
    ).SerializeToString()


def decode_append_response(wire: bytes) -> tuple[Header, AppendEntriesResponse]:
    """Read an AppendEntriesResponse; raises Malformed."""
    try:
        response = raft_pb2.AppendEntriesResponse.FromString(wire)
    except DecodeError:
        raise Malformed("not an AppendEntriesResponse") from None
    _check_term(response.term)
    _check_indexes(
        match_index=response.match_index,
        rejected_index=response.rejected_index,
        conflict_index=response.conflict_index,
        conflict_term=response.conflict_term,
    )
    return response.header, AppendEntriesResponse(
        response.term,
        response.header.sender,
        response.header.recipient,
        response.success,
        response.match_index,
        response.rejected_index,
        response.conflict_index,
        response.conflict_term,
        response.read_round,
        response.session,
    )


# --- forwarding ------------------------------------------------------------------------------


def encode_proposal(header: Header, number: int, batches: Sequence[bytes]) -> bytes:
    """Write a request to propose these batches."""
    proposal = forward_pb2.Proposal(batches=batches)
    request = forward_pb2.ForwardRequest(header=header, number=number, proposal=proposal)
    return request.SerializeToString()


def encode_read_index(header: Header, number: int, *, lease: bool) -> bytes:
    """Write a question for a read index."""
    question = forward_pb2.ReadIndex(lease=lease)
    request = forward_pb2.ForwardRequest(header=header, number=number, read_index=question)
    return request.SerializeToString()


def decode_forward(wire: bytes) -> tuple[Header, ForwardRequest]:
    """Read either of the two; raises Malformed."""
    try:
        request = forward_pb2.ForwardRequest.FromString(wire)
    except DecodeError:
        raise Malformed("not a ForwardRequest") from None
    question = request.WhichOneof("question")
    if question is None:
        raise Malformed("a ForwardRequest that asks nothing")
    return request.header, ForwardRequest(
        request.header.sender,
        request.number,
        tuple(request.proposal.batches),
        question == "read_index",
        request.read_index.lease,
    )


def encode_forward_response(header: Header, response: ForwardResponse) -> bytes:
    """Write the answer to one forwarded question."""
    return forward_pb2.ForwardResponse(
        header=header,
        number=response.number,
        error_code=response.error_code,
        leader_id=response.leader_id,
        term=response.term,
        read_index=response.read_index,
    ).SerializeToString()


def decode_forward_response(wire: bytes) -> tuple[Header, ForwardResponse]:
    """Read the answer to one forwarded question; raises Malformed."""
    try:
        response = forward_pb2.ForwardResponse.FromString(wire)
    except DecodeError:
        raise Malformed("not a ForwardResponse") from None
    _check_indexes(term=response.term, read_index=response.read_index)
    return response.header, ForwardResponse(
        response.number,
        response.error_code,
        response.leader_id,
        response.term,
        response.read_index,
    )


# --- membership and identity -----------------------------------------------------------------


def encode_join(header: Header, request: JoinRequest) -> bytes:
    """Write a JoinRequest."""
    return raft_pb2.JoinRequest(
        header=header,
        id=request.member_id,
        address=request.address,
        http_address=request.http_address,
        incarnation=request.incarnation,
        voter=request.voter,
        forwarded=request.forwarded,
    ).SerializeToString()


def decode_join(wire: bytes) -> tuple[Header, JoinRequest]:
    """Read a JoinRequest; raises Malformed."""
    try:
        request = raft_pb2.JoinRequest.FromString(wire)
    except DecodeError:
        raise Malformed("not a JoinRequest") from None
    return request.header, JoinRequest(
        request.id,
        request.address,
        request.http_address,
        request.incarnation,
        request.voter,
        request.forwarded,
    )


def encode_join_response(response: JoinResponse) -> bytes:
    """Write a JoinResponse."""
    return raft_pb2.JoinResponse(
        error_code=response.error_code,
        error_detail=response.error_detail,
        cluster_id=response.cluster_id,
        leader_id=response.leader_id,
        leader_address=response.leader_address,
        promoted=response.promoted,
    ).SerializeToString()


def decode_join_response(wire: bytes) -> JoinResponse:
    """Read a JoinResponse; raises Malformed."""
    try:
        response = raft_pb2.JoinResponse.FromString(wire)
    except DecodeError:
        raise Malformed("not a JoinResponse") from None
    return JoinResponse(
        response.error_code,
        response.error_detail,
        response.cluster_id,
        response.leader_id,
        response.leader_address,
        response.promoted,
    )


def encode_remove(header: Header, request: RemoveRequest) -> bytes:
    """Write a RemoveRequest."""
    return raft_pb2.RemoveRequest(
        header=header, id=request.member_id, forwarded=request.forwarded
    ).SerializeToString()


def decode_remove(wire: bytes) -> tuple[Header, RemoveRequest]:
    """Read a RemoveRequest; raises Malformed."""
    try:
        request = raft_pb2.RemoveRequest.FromString(wire)
    except DecodeError:
        raise Malformed("not a RemoveRequest") from None
    return request.header, RemoveRequest(request.id, request.forwarded)


def encode_remove_response(response: RemoveResponse) -> bytes:
    """Write a RemoveResponse."""
    return raft_pb2.RemoveResponse(
        error_code=response.error_code, error_detail=response.error_detail
    ).SerializeToString()


def decode_remove_response(wire: bytes) -> RemoveResponse:
    """Read a RemoveResponse; raises Malformed."""
    try:
        response = raft_pb2.RemoveResponse.FromString(wire)
    except DecodeError:
        raise Malformed("not a RemoveResponse") from None
    return RemoveResponse(response.error_code, response.error_detail)


def encode_identify(cluster_id: str, sender: str, sender_incarnation: int) -> bytes:
    """Write the question who answers there, which is also the ping."""
    return raft_pb2.IdentifyRequest(
        protocol_version=PROTOCOL_VERSION,
        cluster_id=cluster_id,
        sender=sender,
        sender_incarnation=sender_incarnation,
    ).SerializeToString()


def decode_identify(wire: bytes) -> Envelope:
    """Read that question; it has no recipient. Raises Malformed."""
    try:
        request = raft_pb2.IdentifyRequest.FromString(wire)
    except DecodeError:
        raise Malformed("not an IdentifyRequest") from None
    return Envelope(
        request.protocol_version,
        request.cluster_id,
        request.sender,
        "",
        request.sender_incarnation,
        0,
    )


def encode_identification(identification: Identification) -> bytes:
    """Write who we are."""
    return raft_pb2.IdentifyResponse(
        protocol_version=PROTOCOL_VERSION,
        id=identification.member_id,
        incarnation=identification.incarnation,
        cluster_id=identification.cluster_id,
        address=identification.address,
        http_address=identification.http_address,
        version=identification.version,
    ).SerializeToString()


def decode_identification(wire: bytes) -> Identification:
    """Read who they are; raises Malformed, also for another protocol version."""
    try:
        response = raft_pb2.IdentifyResponse.FromString(wire)
    except DecodeError:
        raise Malformed("not an IdentifyResponse") from None
    if response.protocol_version != PROTOCOL_VERSION:
        raise Malformed(f"it speaks protocol version {response.protocol_version}")
    return Identification(
        response.id,
        response.incarnation,
        response.cluster_id,
        response.address,
        response.http_address,
        response.version,
    )


def encode_compare_digest(header: Header, applied_index: int, majority_digest: bytes) -> bytes:
    """Write a question for the digest at an index."""
    return raft_pb2.CompareDigestRequest(
        header=header, applied_index=applied_index, majority_digest=majority_digest
    ).SerializeToString()


def decode_compare_digest(wire: bytes) -> tuple[Header, CompareDigest]:
    """Read a question for the digest at an index; raises Malformed."""
    try:
        request = raft_pb2.CompareDigestRequest.FromString(wire)
    except DecodeError:
        raise Malformed("not a CompareDigestRequest") from None
    _check_indexes(applied_index=request.applied_index)
    return request.header, CompareDigest(
        request.header.sender, request.applied_index, request.majority_digest
    )


def encode_digest(header: Header, digest: bytes | None) -> bytes:
    """Write a digest, or that it is not known."""
    return raft_pb2.CompareDigestResponse(
        header=header, known=digest is not None, digest=digest or b""
    ).SerializeToString()


def decode_digest(wire: bytes) -> tuple[Header, bytes | None]:
    """Read a digest, or that it is not known; raises Malformed."""
    try:
        response = raft_pb2.CompareDigestResponse.FromString(wire)
    except DecodeError:
        raise Malformed("not a CompareDigestResponse") from None
    return response.header, response.digest if response.known else None
