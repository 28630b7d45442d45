"""What can go wrong with a call, each error one line for the person who reads it."""

from __future__ import annotations


class ClientError(Exception):
    """The root of all."""


class Unreachable(ClientError):  # noqa: N818 - reads better in an except
    """No endpoint gave an answer in time. A write that raises this had no effect."""


class NoLeader(ClientError):  # noqa: N818 - reads better in an except
    """Endpoints answer, but the cluster has no leader. A write that raises this had no effect."""


class CommitUnknown(ClientError):  # noqa: N818 - reads better in an except
    """A write was sent and its fate is not known: it may have happened, may yet, or never will."""


class Refused(ClientError):  # noqa: N818 - reads better in an except
    """A node answered with an error. ``code`` is the stable name of it, ``status`` HTTP's."""

    def __init__(self, code: str, detail: str, status: int) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
        self.status = status
