"""What a node answers instead of a result.

Each has a stable ``code`` for programs, an HTTP ``status``, and says whether the same request may
simply be sent again (``retryable``): true only where it certainly had no effect, or where having
it twice does no harm.
"""

from __future__ import annotations


class NodeError(Exception):
    """The root; ``str()`` is one sentence for a person."""

    code = "internal"
    status = 500
    retryable = False


class NoLeader(NodeError):  # noqa: N818 - named for what it is
    """No leader was known, or reachable, until the request's time was up. Nothing was done."""

    code = "no_leader"
    status = 503
    retryable = True


class RequestTimeout(NodeError):  # noqa: N818 - named for what it is
    """A read, or a change of membership, was not done in time."""

    code = "timeout"
    status = 504
    retryable = True


class CommitUnknown(NodeError):  # noqa: N818 - named for what it is
    """A write was handed to a leader and its fate is not known: it may yet happen, or never."""

    code = "commit_unknown"
    status = 504


class Overloaded(NodeError):  # noqa: N818 - named for what it is
    """More is waiting than this node is willing to hold. Nothing was done."""

    code = "overloaded"
    status = 503
    retryable = True


class DiskFull(NodeError):  # noqa: N818 - named for what it is
    """There is no room for a write, here or on too many nodes. Nothing was done."""

    code = "disk_full"
    status = 507
    retryable = True


class QuotaExceeded(NodeError):  # noqa: N818 - named for what it is
    """The data takes what it may: a write is refused until something is deleted."""

    code = "quota_exceeded"
    status = 507


class Stopping(NodeError):  # noqa: N818 - named for what it is
    """The node is on its way out. Nothing was done."""

    code = "stopping"
    status = 503
    retryable = True


class Removed(NodeError):  # noqa: N818 - named for what it is
    """This node was removed from its cluster; it has nothing true to say any more."""

    code = "removed"
    status = 410


class MembershipError(NodeError):
    """A change of membership was refused, and the configuration is as it was."""

    def __init__(self, detail: str, code: str = "membership_conflict") -> None:
        super().__init__(detail)
        self.code = code
        self.status = _STATUSES.get(code, 409)
        self.retryable = code in _PASSING


INCARNATION_CONFLICT = "incarnation_conflict"
LAST_VOTER = "last_voter"
QUORUM_WOULD_BE_LOST = "quorum_would_be_lost"
CHANGE_IN_PROGRESS = "change_in_progress"
UNREACHABLE = "unreachable"
WRONG_NODE = "wrong_node"
UNSUPPORTED_PROTOCOL = "unsupported_protocol"
NOT_A_MEMBER = "not_a_member"
NOT_A_VOTER = "not_a_voter"
TRANSFER_IN_PROGRESS = "transfer_in_progress"
TRANSFER_FAILED = "transfer_failed"

_STATUSES = {
    UNREACHABLE: 422,
    WRONG_NODE: 422,
    UNSUPPORTED_PROTOCOL: 422,
    NOT_A_VOTER: 422,
    NOT_A_MEMBER: 404,
    TRANSFER_FAILED: 503,
    "bad_request": 400,
}
_PASSING = {CHANGE_IN_PROGRESS, TRANSFER_IN_PROGRESS, TRANSFER_FAILED}
