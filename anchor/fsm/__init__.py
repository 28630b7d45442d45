"""The replicated state machine: what the committed log makes of the keys.

Pure: no clock, no chance, no disk of its own. Whatever it keeps, it keeps in the
:class:`StateStore` it is given, and the same entries always leave the same bytes there, on every
member. This page is its manual.

The caller's duties, in order
=============================

1. **Before an entry**: gather commands with :func:`encode_write`,
   :func:`encode_session_command` and :func:`encode_batch`; no key twice in one batch. What came
   from elsewhere goes through :func:`check_batch` *before* it is proposed: once committed, a
   payload nobody understands stops every member. The leader that proposes a batch puts its
   :func:`clock_suffix` behind it: milliseconds that pass while it leads, counted on from the
   machine's ``clock_ms`` as it is once an entry of the leader's own term is applied.
2. **Construct** ``StateMachine(store)``. It continues from the store's ``applied_index``.
3. **Apply** committed entries, each once and in order, from ``applied_index + 1`` on: anything else
   is refused (:class:`OutOfOrderError`). As many at a time as there are: one call is one
   ``store.write``, so data, origins, configuration, digest and applied index are there together or
   not at all. ``raft.Entry`` is what ``apply`` wants.
4. **An error is final.** :class:`FsmError` from ``apply`` means that this member cannot follow the
   log (a newer version's command, a damaged payload): stop the node, never skip. Whatever is
   raised, the state machine is as it was before the call; so a call that failed for want of disk
   space may be made again.
5. **Let time pass**: when the leader's clock gets to ``nothing_ends_before_ms`` and no batch
   comes by, it proposes an empty one, so that what has run out ends.
6. **Answer** the clients of the batches in which the outcome's ``origin`` is one's own.
   ``replayed`` says that this copy of the batch did nothing. If the same number was seen applied
   before, that was it, and its clients have their answer; if not, a later batch overtook it, and
   it never happened.
7. **Compare** ``digest_at(index)`` with other members' once in a while. Two that differ at the same
   index have diverged, and the one that differs from the majority must stop.

Reads (``get``) cost a store lookup and little else, and see exactly the applied entries.

Once, and only if
=================

A write may carry a :class:`Condition`, judged when it is applied, so all members judge alike. It
may be :class:`InSession` or :class:`ByKey`: then only its first copy does anything, and the others
get that one's answer (``anchor.fsm.sessions``, ``anchor.fsm.remembered_keys``). Sessions and keys
end by the machine's own clock, which nothing but the log moves, and never back.

The state, byte for byte
========================

One ordered key space, all integers big-endian:

=====================  =========================================================================
``k`` + key            ``01``, create_index, mod_index, version (8 bytes each), value
``o`` + origin         ``01``, number of its last batch, index of the entry that held it
``s`` + page           ``01``, and for each session on it: its number, how many answers it has
                       (1 byte), token, ttl_ms, used_ms, used_at, sequence, acknowledged; the
                       answers
``i`` + key's digest   ``01``, expires_ms, answer
``j`` + expires_ms     + key's digest: ``01``
``mapplied``           ``01``, applied index, applied term, digest (16 bytes); or ``02``, the
                       same, clock_ms, grace_ms, number of idempotency keys
``mconfiguration``     ``01``, index of its entry, the newest configuration's payload
=====================  =========================================================================

An answer is a fingerprint of the request, 8 bytes; twice the status, plus 1 if the key existed, in
1 byte; create_index, mod_index, version.

Every record starts with its format. One this version does not know is an error, not a guess.
"""

from __future__ import annotations

from anchor.fsm.codec import (
    check_batch,
    clock_suffix,
    encode_batch,
    encode_delete,
    encode_in_session,
    encode_put,
    encode_session_command,
    encode_write,
    takes_space,
)
from anchor.fsm.commands import (
    PLACE_BITS,
    SESSIONS_MAX,
    TTL_MS_MAX,
    ByKey,
    CloseSession,
    Command,
    Condition,
    InSession,
    KeepAlive,
    OpenSession,
    Result,
    SessionResult,
    Status,
    Write,
    digest_of_key,
    fingerprint_of,
)
from anchor.fsm.errors import FsmError, MalformedPayloadError, MalformedStateError, OutOfOrderError
from anchor.fsm.machine import (
    DIGESTS_KEPT,
    EXPIRY_MS,
    ORIGINS_KEPT,
    AppliedEntry,
    BatchOutcome,
    EntryKind,
    StateMachine,
    StateStore,
)
from anchor.fsm.records import KeyValue
from anchor.fsm.remembered_keys import KEPT_MS, KEYS_MAX
from anchor.fsm.sessions import ANSWERS_KEPT

__all__ = [
    "ANSWERS_KEPT",
    "DIGESTS_KEPT",
    "EXPIRY_MS",
    "KEPT_MS",
    "KEYS_MAX",
    "ORIGINS_KEPT",
    "PLACE_BITS",
    "SESSIONS_MAX",
    "TTL_MS_MAX",
    "AppliedEntry",
    "BatchOutcome",
    "ByKey",
    "CloseSession",
    "Command",
    "Condition",
    "EntryKind",
    "FsmError",
    "InSession",
    "KeepAlive",
    "KeyValue",
    "MalformedPayloadError",
    "MalformedStateError",
    "OpenSession",
    "OutOfOrderError",
    "Result",
    "SessionResult",
    "StateMachine",
    "StateStore",
    "Status",
    "Write",
    "check_batch",
    "clock_suffix",
    "digest_of_key",
    "encode_batch",
    "encode_delete",
    "encode_in_session",
    "encode_put",
    "encode_session_command",
    "encode_write",
    "fingerprint_of",
    "takes_space",
]
