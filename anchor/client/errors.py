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


class PreconditionFailed(ClientError):  # noqa: N818 - reads better in an except
    """The key is not as the write expected it, and nothing was changed.

    ``mod_index`` is that of the key at that moment, None if it was not there.
    """

    def __init__(self, mod_index: int | None) -> None:
        now = "the key is not there" if mod_index is None else f"its mod_index is {mod_index}"
        super().__init__(f"not as expected: {now}")
        self.mod_index = mod_index


class Refused(ClientError):  # noqa: N818 - reads better in an except
    """A node answered with an error. ``code`` is the stable name of it, ``status`` HTTP's.

    A write that raises this had no effect.
    """

    def __init__(self, code: str, detail: str, status: int) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
        self.status = status
