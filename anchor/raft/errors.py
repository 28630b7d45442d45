"""Why the core says no."""

from __future__ import annotations


class RaftError(Exception):
    """The root of everything the core raises on purpose."""


class InvalidMessage(RaftError):  # noqa: N818 - named for what it is, as the others are
    """``step`` got something no correct member sends. Nothing has changed."""


class Refused(RaftError):  # noqa: N818
    """What was asked for cannot be had now. Nothing has changed."""


class NotLeader(Refused):
    """Only the leader can do this; ``leader_id`` may be it."""

    def __init__(self, leader_id: str | None = None) -> None:
        super().__init__(f"not the leader; {leader_id or 'nobody known'} is")
        self.leader_id = leader_id


class TransferInProgress(Refused):
    """Leadership is being handed over; whoever gets it will take this."""


class Overloaded(Refused):
    """Too much is appended and not committed yet."""


class NoRoom(Refused):
    """This member, or too many of the others, have no room for another entry."""


class ChangeInProgress(Refused):
    """One change of membership at a time (thesis §4.1)."""


class NotReady(Refused):
    """A new leader must commit an entry of its own term first."""


class InvalidConfiguration(Refused):
    """Such a configuration cannot be."""


class UnknownMember(Refused):
    """No such member, or not one that can do this."""


class LogError(RaftError):
    """The log cannot give what was asked for."""


class Compacted(LogError):  # noqa: N818
    """The entry was there and has been dropped in favour of a snapshot."""


class Unavailable(LogError):  # noqa: N818
    """The entry is beyond the log's end."""
