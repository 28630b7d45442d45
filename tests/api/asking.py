"""What is common to those who ask an application."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from falcon.testing import Result


def problem(answer: Result) -> tuple[int, str]:
    """Return status and code of an answer that must be a well-formed problem."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json) == {
        "type", "title", "status", "detail", "code", "leader", "retryable",
    }  # fmt: skip
    assert answer.json["status"] == answer.status_code
    assert "\n" not in answer.json["detail"]
    return answer.status_code, answer.json["code"]
