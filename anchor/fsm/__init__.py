"""The replicated state machine: what the committed log makes of the keys.

Pure: no clock, no chance, no disk of its own. Whatever it keeps, it keeps in the
:class:`StateStore` it is given, and the same entries always leave the same bytes there, on every
member. This page is its manual.

The caller's duties, in order
=============================

1. **Before an entry**: gather commands with :func:`encode_put`, :func:`encode_delete` and
   :func:`encode_batch`; no key twice in one batch. What came from elsewhere goes through
   :func:`check_batch` *before* it is proposed: once committed, a payload nobody understands stops
   every member.
2. **Construct** ``StateMachine(store)``. It continues from the store's ``applied_index``.
3. **Apply** committed entries, each once and in order, from ``applied_index + 1`` on: anything else
   is refused (:class:`OutOfOrderError`). As many at a time as there are: one call is one
   ``store.write``, so data, origins, configuration, digest and applied index are there together or
   not at all. ``raft.Entry`` is what ``apply`` wants.
4. **An error is final.** :class:`FsmError` from ``apply`` means that this member cannot follow the
   log (a newer version's command, a damaged payload): stop the node, never skip. Whatever is
   raised, the state machine is as it was before the call; so a call that failed for want of disk
   space may be made again.
5. **Answer** the clients of the batches in which the outcome's ``origin`` is one's own.
   ``replayed`` says that this copy of the batch did nothing. If the same number was seen applied
   before, that was it, and its clients have their answer; if not, a later batch overtook it, and
   it never happened.
6. **Compare** ``digest_at(index)`` with other members' once in a while. Two that differ at the same
   index have diverged, and the one that differs from the majority must stop.

Reads (``get``) cost a store lookup and little else, and see exactly the applied entries.

The state, byte for byte
========================

One ordered key space, all integers big-endian:

=================  =============================================================================
``k`` + key        ``01``, create_index, mod_index, version (8 bytes each), value
``o`` + origin     ``01``, number of its last batch, index of the entry that held it
``mapplied``       ``01``, applied index, applied term, digest (16 bytes)
``mconfiguration`` ``01``, index of its entry, the newest configuration's payload
``s`` …            reserved for client sessions
=================  =============================================================================

Every record starts with its format. One this version does not know is an error, not a guess.
"""

from __future__ import annotations

from anchor.fsm.codec import check_batch, encode_batch, encode_delete, encode_put, is_delete
from anchor.fsm.errors import FsmError, MalformedPayloadError, MalformedStateError, OutOfOrderError
from anchor.fsm.machine import (
    DIGESTS_KEPT,
    ORIGINS_KEPT,
    AppliedEntry,
    BatchOutcome,
    EntryKind,
    Result,
    StateMachine,
    StateStore,
)
from anchor.fsm.records import KeyValue

__all__ = [
    "DIGESTS_KEPT",
    "ORIGINS_KEPT",
    "AppliedEntry",
    "BatchOutcome",
    "EntryKind",
    "FsmError",
    "KeyValue",
    "MalformedPayloadError",
    "MalformedStateError",
    "OutOfOrderError",
    "Result",
    "StateMachine",
    "StateStore",
    "check_batch",
    "encode_batch",
    "encode_delete",
    "encode_put",
    "is_delete",
]
