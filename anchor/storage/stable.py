"""The records of the ``stable`` column family, and their bytes.

=====================  =========================================================================
``identity``           JSON: format of the directory, the oldest version of anchor that reads it,
                       node id, incarnation, cluster id
``hard_state``         ``01``, term (8 bytes, big-endian), ``00`` or ``01`` and the vote's id
``compacted``          ``01``, index and term of the last entry dropped from the log's beginning
``snapshot``           ``01``, last included index and term, index of the configuration's entry,
                       the encoded configuration: what the newest snapshot stands for
``generation``         ``01``, number of the live state generation
``configuration/``     + index: nothing; there is a configuration entry at that index of the log
=====================  =========================================================================
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

from anchor.raft import Configuration, HardState, SnapshotMetadata

# One number for all that is in a directory: records here and in the state, entries, manifests, the
# sync mark. Whoever changes any of it raises this, and names the version that can read the result.
DIRECTORY_FORMAT = 1
FORMAT_NEEDS = "0.1.0"
RECORD_FORMAT = 1

IDENTITY = b"identity"
HARD_STATE = b"hard_state"
COMPACTED = b"compacted"
SNAPSHOT = b"snapshot"
GENERATION = b"generation"
CONFIGURATION_PREFIX = b"configuration/"

_HARD_STATE = struct.Struct(">BQ?")
_POSITION = struct.Struct(">BQQ")
_SNAPSHOT = struct.Struct(">BQQQ")
_GENERATION = struct.Struct(">BQ")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose directory it is. ``cluster_id`` is empty until the node belongs to a cluster.

    ``incarnation`` (63 random bits) was drawn when the directory was made. ``needs`` is the oldest
    version of anchor that reads this format.
    """

    node_id: str
    incarnation: int
    cluster_id: str
    format_version: int = DIRECTORY_FORMAT
    needs: str = FORMAT_NEEDS


def encode_identity(identity: Identity) -> bytes:
    """Write the identity's record."""
    fields = {
        "format": identity.format_version,
        "needs": identity.needs,
        "node_id": identity.node_id,
        "incarnation": identity.incarnation,
        "cluster_id": identity.cluster_id,
    }
    return json.dumps(fields, sort_keys=True).encode()


def decode_identity(record: bytes) -> Identity:
    """Read it; of a newer format only that and what it needs mean anything. Raises ValueError."""
    try:
        fields = json.loads(record)
        return Identity(
            str(fields.get("node_id", "")),
            int(fields.get("incarnation", 0)),
            str(fields.get("cluster_id", "")),
            int(fields["format"]),
            str(fields.get("needs", "")),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not an identity: {error}") from None


def encode_hard_state(hard_state: HardState) -> bytes:
    """Write the hard state's record."""
    vote = hard_state.voted_for
    header = _HARD_STATE.pack(RECORD_FORMAT, hard_state.term, vote is not None)
    return header + (vote or "").encode()


def decode_hard_state(record: bytes) -> HardState:
    """Read it. Raises ValueError."""
    term, has_vote = _unpack(_HARD_STATE, record[: _HARD_STATE.size])
    vote = record[_HARD_STATE.size :].decode()
    if vote and not has_vote:
        raise ValueError("a vote where there is none")
    return HardState(term, vote if has_vote else None)


def encode_position(index: int, term: int) -> bytes:
    """Write a record of one entry's index and term."""
    return _POSITION.pack(RECORD_FORMAT, index, term)


def decode_position(record: bytes) -> tuple[int, int]:
    """Read it: index, term. Raises ValueError."""
    index, term = _unpack(_POSITION, record)
    return index, term


def encode_snapshot(snapshot: SnapshotMetadata) -> bytes:
    """Write what a snapshot stands for."""
    header = _SNAPSHOT.pack(
        RECORD_FORMAT,
        snapshot.last_included_index,
        snapshot.last_included_term,
        snapshot.configuration_index,
    )
    return header + snapshot.configuration.encode()


def decode_snapshot(record: bytes) -> SnapshotMetadata:
    """Read it. Raises ValueError."""
    index, term, configuration_index = _unpack(_SNAPSHOT, record[: _SNAPSHOT.size])
    configuration = Configuration.decode(record[_SNAPSHOT.size :])
    return SnapshotMetadata(index, term, configuration, configuration_index)


def encode_generation(generation: int) -> bytes:
    """Write the live generation's number."""
    return _GENERATION.pack(RECORD_FORMAT, generation)


def decode_generation(record: bytes) -> int:
    """Read it. Raises ValueError."""
    (generation,) = _unpack(_GENERATION, record)
    return generation


def _unpack(layout: struct.Struct, record: bytes) -> tuple[int, ...]:
    """Unpack a record, less its format; raises ValueError."""
    if len(record) != layout.size:
        raise ValueError(f"a record of {len(record)} bytes, not {layout.size}")
    found, *fields = layout.unpack(record)
    if found != RECORD_FORMAT:
        raise ValueError(f"a record of format {found}; this version knows {RECORD_FORMAT}")
    return tuple(fields)
