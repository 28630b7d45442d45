"""The core's messages and the nodes' questions as bytes, and back.

The only package that knows the generated protobuf classes. Decoding judges what can be judged
without state, and raises :class:`Malformed` for anything the core must never see: what is no
protobuf message of that kind, a term of zero or above 2⁶³, indexes past 2⁶³, entries that cannot
be read, whose terms fall or pass that of their message.
"""

from __future__ import annotations

from anchor.transport.codec.header import (
    PROTOCOL_VERSION,
    Envelope,
    Header,
    Malformed,
    envelope,
    header,
)
from anchor.transport.codec.messages import (
    decode_append,
    decode_append_response,
    decode_timeout_now,
    decode_vote,
    decode_vote_response,
    encode_append,
    encode_append_response,
    encode_timeout_now,
    encode_vote,
    encode_vote_response,
)
from anchor.transport.codec.questions import (
    decode_compare_digest,
    decode_digest,
    decode_forward,
    decode_forward_response,
    decode_identification,
    decode_identify,
    decode_join,
    decode_join_response,
    decode_remove,
    decode_remove_response,
    encode_compare_digest,
    encode_digest,
    encode_forward_response,
    encode_identification,
    encode_identify,
    encode_join,
    encode_join_response,
    encode_proposal,
    encode_read_index,
    encode_remove,
    encode_remove_response,
)
from anchor.transport.codec.snapshots import (
    SnapshotAnswer,
    decode_snapshot_answer,
    decode_snapshot_chunk,
    decode_snapshot_manifest,
    encode_snapshot_answer,
    encode_snapshot_chunk,
    encode_snapshot_manifest,
)

__all__ = [
    "PROTOCOL_VERSION",
    "Envelope",
    "Header",
    "Malformed",
    "SnapshotAnswer",
    "decode_append",
    "decode_append_response",
    "decode_compare_digest",
    "decode_digest",
    "decode_forward",
    "decode_forward_response",
    "decode_identification",
    "decode_identify",
    "decode_join",
    "decode_join_response",
    "decode_remove",
    "decode_remove_response",
    "decode_snapshot_answer",
    "decode_snapshot_chunk",
    "decode_snapshot_manifest",
    "decode_timeout_now",
    "decode_vote",
    "decode_vote_response",
    "encode_append",
    "encode_append_response",
    "encode_compare_digest",
    "encode_digest",
    "encode_forward_response",
    "encode_identification",
    "encode_identify",
    "encode_join",
    "encode_join_response",
    "encode_proposal",
    "encode_read_index",
    "encode_remove",
    "encode_remove_response",
    "encode_snapshot_answer",
    "encode_snapshot_chunk",
    "encode_snapshot_manifest",
    "encode_timeout_now",
    "encode_vote",
    "encode_vote_response",
    "envelope",
    "header",
]
