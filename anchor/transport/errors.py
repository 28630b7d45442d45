"""What can go wrong between members, each as one line for whoever reads it."""

from __future__ import annotations


class TransportError(Exception):
    """Any failure of the transport."""


class BindFailed(TransportError):  # noqa: N818 - named for what it is
    """The address to listen on cannot be had."""


class PortInUse(BindFailed):
    """Somebody else listens there already."""


class Unreachable(TransportError):  # noqa: N818 - named for what it is
    """Nobody answers at that address, or the member is not known."""


class CallTimeout(TransportError):  # noqa: N818 - named for what it is
    """No answer in time; whether the question arrived is unknown."""


class CallRefused(TransportError):  # noqa: N818 - named for what it is
    """The other side was reached and said no; ``code`` is gRPC's name for it, in lower case."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class ForwardClosed(TransportError):  # noqa: N818 - named for what it is
    """The forward stream is gone, or holds as much unsent as it may: nothing was sent."""


class SnapshotRefused(TransportError):  # noqa: N818 - named for what it is
    """The receiver will not have this snapshot; the text says why."""
