"""Forwarded questions, membership and identity as bytes, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from anchor.settings import NEWEST_PROTOCOL, OLDEST_PROTOCOL
from anchor.transport import forward_pb2, raft_pb2
from anchor.transport.codec.header import (
    PROTOCOL_VERSION,
    Envelope,
    Header,
    Malformed,
    check_indexes,
)
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
    check_indexes(term=response.term, read_index=response.read_index)
    return response.header, ForwardResponse(
        response.number,
        response.error_code,
        response.leader_id,
        response.term,
        response.read_index,
    )


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
        replace=request.replace,
        order=request.order,
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
        request.replace,
        request.order,
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
        oldest_protocol=identification.oldest_protocol,
        newest_protocol=identification.newest_protocol,
        configuration=identification.configuration,
        configuration_index=identification.configuration_index,
        configuration_committed=identification.configuration_committed,
        founders=identification.founders,
    ).SerializeToString()


def decode_identification(wire: bytes) -> Identification:
    """Read who they are; raises Malformed, also for another protocol version."""
    try:
        response = raft_pb2.IdentifyResponse.FromString(wire)
    except DecodeError:
        raise Malformed("not an IdentifyResponse") from None
    if not OLDEST_PROTOCOL <= response.protocol_version <= NEWEST_PROTOCOL:
        raise Malformed(f"it speaks protocol version {response.protocol_version}")
    return Identification(
        response.id,
        response.incarnation,
        response.cluster_id,
        response.address,
        response.http_address,
        response.version,
        response.oldest_protocol or 1,
        response.newest_protocol or 1,
        response.configuration,
        response.configuration_index,
        response.configuration_committed,
        tuple(response.founders),
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
    check_indexes(applied_index=request.applied_index)
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
