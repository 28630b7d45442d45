"""Answers, and what is answered instead of a result: problems (RFC 9457)."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

# RFC 9110's names; Python's depend on its version.
TITLES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    422: "Unprocessable Content",
}
_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {title}\r\n".encode() for status, title in TITLES.items()
}


class Answer(NamedTuple):
    """What to send. Both paths to it send the same.

    ``headers`` are complete lines, each with its CRLF; framing and Date are the sender's business.
    """

    status: int
    headers: bytes
    body: bytes


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """A request that gets no result. ``str()`` is one sentence for a person.

    ``lines`` are more of the answer's headers.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retryable: bool = False,
        lines: bytes = b"",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.retryable = retryable
        self.lines = lines

    def answer(self, leader_id: str | None) -> Answer:
        """Render it as problem+json. The type is ``about:blank``: ``code`` says what it is."""
        headers = b"Content-Type: application/problem+json\r\n" + self.lines
        if self.retryable and self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers += b"Retry-After: 1\r\n"
        body = {
            "type": "about:blank",
            "title": TITLES[self.status],
            "status": self.status,
            "detail": str(self),
            "code": self.code,
            "leader": leader_id,
            "retryable": self.retryable,
        }
        return Answer(self.status, headers, json.dumps(body).encode() + b"\n")


def ok() -> Answer:
    """Say that it is done."""
    return Answer(200, b"Content-Type: text/plain; charset=utf-8\r\n", b"OK")


def json_answer(content: Mapping[str, object]) -> Answer:
    """Give a JSON object that no cache may keep."""
    headers = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
    return Answer(200, headers, json.dumps(content).encode() + b"\n")


def bad_request(detail: str) -> Problem:
    """Refuse what makes no sense."""
    return Problem(400, "bad_request", detail)


def bad_idempotency_key() -> Problem:
    """Refuse a key that is none."""
    detail = "Idempotency-Key is not 1 to 255 visible ASCII characters without a comma"
    return Problem(400, "bad_idempotency_key", detail)


def not_found(detail: str) -> Problem:
    """Say that there is no such thing."""
    return Problem(404, "not_found", detail)


def method_not_allowed(method: str, allow: str) -> Problem:
    """Refuse a method, naming those that there are."""
    detail = f"{method[:20]} is not among {allow} here"
    return Problem(405, "method_not_allowed", detail, lines=f"Allow: {allow}\r\n".encode())


def on_the_wire(answer: Answer, date_line: bytes, *, without_body: bool, close: bool) -> bytes:
    """Turn an answer into the bytes of an HTTP/1.1 response."""
    status, headers, body = answer
    connection = b"Connection: close\r\n" if close else b""
    if status == 304:  # RFC 9110 §15.4.5: it ends with its header
        return b"%s%s%s%s\r\n" % (_STATUS_LINES[status], date_line, headers, connection)
    return b"%s%s%sContent-Length: %d\r\n%s\r\n%s" % (
        _STATUS_LINES[status],
        date_line,
        headers,
        len(body),
        connection,
        b"" if without_body else body,
    )
