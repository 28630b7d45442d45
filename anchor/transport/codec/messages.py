"""The core's messages as bytes, and back."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from anchor.raft.entry import Entry
from anchor.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from anchor.transport import raft_pb2
from anchor.transport.codec.header import (
    LIMIT,
    Header,
    Malformed,
    check_indexes,
    check_term,
)


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
    check_term(request.term)
    check_indexes(last_log_index=request.last_log_index, last_log_term=request.last_log_term)
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
    check_indexes(term=response.term)
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
    check_term(request.term)
    return request.header, TimeoutNow(request.term, request.header.sender, request.header.recipient)


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
    check_term(term)
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
        no_room=message.no_room,
    ).SerializeToString()


def decode_append_response(wire: bytes) -> tuple[Header, AppendEntriesResponse]:
    """Read an AppendEntriesResponse; raises Malformed."""
    try:
        response = raft_pb2.AppendEntriesResponse.FromString(wire)
    except DecodeError:
        raise Malformed("not an AppendEntriesResponse") from None
    check_term(response.term)
    check_indexes(
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
        response.no_room,
    )
