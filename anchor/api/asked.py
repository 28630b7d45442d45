"""What a request asks for in its header fields: either path gathers it."""

from __future__ import annotations

from typing import NamedTuple


class TermFields(NamedTuple):
    """On what terms a request shall be done; None for a field that is not there."""

    if_match: bytes | None = None
    if_none_match: bytes | None = None
    session: bytes | None = None
    sequence: bytes | None = None
    acked: bytes | None = None
    idempotency_key: bytes | None = None


TERM_NAMES = (
    "If-Match",
    "If-None-Match",
    "X-Session",
    "X-Sequence",
    "X-Acked",
    "Idempotency-Key",
)
"""The names of those fields, in their order."""


class Asked(NamedTuple):
    """What the fields say that mean something under ``/kv/``.

    Their values are as they were sent, less the blanks around them. ``terms`` is None where there
    is none of them, as in most requests.
    """

    consistency: bytes | None = None
    as_json: bool = False
    terms: TermFields | None = None
