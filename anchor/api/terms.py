"""The terms of a write: only if the key is as expected, and only once however often it is sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from anchor.api.answers import Problem, bad_idempotency_key
from anchor.api.etags import condition_failed, condition_of
from anchor.api.sessions import SessionId, no_session, parse_id
from anchor.fsm import (
    ByKey,
    Condition,
    InSession,
    Result,
    Status,
    Write,
    digest_of_key,
    encode_delete,
    encode_in_session,
    encode_put,
    encode_write,
    fingerprint_of,
)

if TYPE_CHECKING:
    from anchor.api.asked import TermFields
    from anchor.api.store import Store

SEQUENCE_MAX = 2**63 - 1
_DIGITS_MAX = len(str(SEQUENCE_MAX))
# No comma: it is what two fields are joined by, and those are not one key.
_IDEMPOTENCY_KEY = re.compile(rb"[!-+\--~]{1,255}")

REPLAYED_LINE = b"X-Replayed: true\r\n"

_KEY_REUSED = "the Idempotency-Key was another request's; nothing was done"
_REFUSALS = {
    Status.SEQUENCE_GAP: (
        409, "sequence_gap", "an earlier write of the session is missing; nothing was done",
    ),
    Status.SEQUENCE_FORGOTTEN: (
        409, "sequence_forgotten", "this write was done before, and its answer is forgotten",
    ),
    Status.REUSED: (
        422, "sequence_reused", "the X-Sequence was another request's; nothing was done",
    ),
    Status.TOO_MANY_KEYS: (
        503, "overloaded", "too many idempotency keys are remembered already; nothing was done",
    ),
}  # fmt: skip


class Terms(NamedTuple):
    """What the fields of a write mean. At most one of ``session`` and ``key_digest`` is there."""

    condition: Condition | None
    session: SessionId | None
    sequence: int
    acknowledged: int
    key_digest: bytes | None

    def command(self, key: bytes, value: bytes | None) -> bytes:
        """Serialize the command that writes (None: deletes) on these terms."""
        condition, session, sequence, acknowledged, key_digest = self
        fingerprint = fingerprint_of(key, value, condition)
        if condition is None and session is not None:
            # Most writes on terms are this: the parts need not be put into objects first.
            write = encode_delete(key) if value is None else encode_put(key, value)
            return write + encode_in_session(*session, sequence, acknowledged, fingerprint)
        once: InSession | ByKey | None = None
        if session is not None:
            once = InSession(*session, sequence, acknowledged, fingerprint)
        elif key_digest is not None:
            once = ByKey(key_digest, fingerprint)
        return encode_write(Write(key, value, condition, once))

    def refusal(self, result: Result, store: Store) -> Problem:
        """Say for a client what a result means that is not DONE."""
        status = result.status
        if status is Status.CONDITION_FAILED:
            again = REPLAYED_LINE if result.replayed else b""
            return condition_failed(result.mod_index, again)
        if status is Status.NO_SESSION and self.session is not None:
            return no_session(self.session, store)
        if status is Status.REUSED and self.session is None:
            return Problem(422, "idempotency_key_reused", _KEY_REUSED)
        code_status, code, detail = _REFUSALS[status]
        return Problem(code_status, code, detail, retryable=code_status == 503)


def terms_of(fields: TermFields) -> Terms:
    """Read the fields of a write; raises a Problem."""
    if_match, if_none_match, session, sequence, acked, idempotency_key = fields
    condition = None
    if if_match is not None or if_none_match is not None:
        condition = condition_of(if_match, if_none_match)
    if session is None:
        if sequence is not None or acked is not None:
            raise _bad_sequence("X-Sequence and X-Acked say nothing without X-Session")
        digest = None if idempotency_key is None else _digest_of(idempotency_key)
        return Terms(condition, None, 0, 0, digest)
    if idempotency_key is not None:
        raise Problem(
            400, "session_and_key", "a write of a session needs no Idempotency-Key, nor takes one"
        )
    number = _sequence(sequence)
    return Terms(condition, parse_id(session), number, _acknowledged(acked, number), None)


def _sequence(value: bytes | None) -> int:
    if value is None:
        raise _bad_sequence("a write of a session needs X-Sequence")
    number = _whole_number(value)
    if not 1 <= number <= SEQUENCE_MAX:
        raise _bad_sequence(f"X-Sequence is not a whole number from 1 to {SEQUENCE_MAX}")
    return number


def _acknowledged(value: bytes | None, sequence: int) -> int:
    if value is None:
        return 0
    number = _whole_number(value)
    if not 0 <= number < sequence:
        raise Problem(400, "bad_acked", "X-Acked is not a whole number from 0 to X-Sequence less 1")
    return number


def _whole_number(value: bytes) -> int:
    """Read digits; -1 if there is anything else, or more of them than needed."""
    if not value.isdigit() or len(value) > _DIGITS_MAX or (value[:1] == b"0" and value != b"0"):
        return -1
    return int(value)


def _digest_of(idempotency_key: bytes) -> bytes:
    if not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        raise bad_idempotency_key()
    return digest_of_key(idempotency_key)


def _bad_sequence(detail: str) -> Problem:
    return Problem(400, "bad_sequence", detail)
