"""What no correct member ever says, whatever its state: refused before anything is looked at."""

from __future__ import annotations

from anchor.raft.configuration import Configuration
from anchor.raft.entry import EntryKind
from anchor.raft.errors import InvalidConfiguration, InvalidMessage
from anchor.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    RequestVote,
)

LIMIT = 1 << 63  # for terms and indexes: what fits everywhere as a signed number


def check(message: Message) -> None:
    """Raises InvalidMessage for nonsense."""
    if not 0 < message.term < LIMIT:
        raise InvalidMessage(f"{message.sender}: term {message.term} cannot be")
    match message:
        case AppendEntries():
            _check_append(message)
        case RequestVote():
            _check_position(message, message.last_log_index, message.last_log_term)
            if message.last_log_term > message.term:
                raise InvalidMessage(f"{message.sender}: its log is ahead of its term")
        case AppendEntriesResponse():
            for index in (message.match_index, message.rejected_index, message.conflict_index):
                _check_position(message, index, message.conflict_term)
        case InstallSnapshotResponse():
            _check_position(message, message.match_index, 0)
        case InstallSnapshot():
            _check_snapshot(message)


def _check_position(message: Message, index: int, term: int) -> None:
    if not (0 <= index < LIMIT and 0 <= term < LIMIT):
        raise InvalidMessage(f"{message.sender}: no entry is at {index} with term {term}")


def _check_snapshot(message: InstallSnapshot) -> None:
    snapshot = message.snapshot
    _check_position(message, snapshot.last_included_index, snapshot.last_included_term)
    if not snapshot.last_included_index or snapshot.last_included_term > message.term:
        raise InvalidMessage(f"{message.sender}: such a snapshot cannot be")
    try:
        snapshot.configuration.validate()
    except InvalidConfiguration as error:
        raise InvalidMessage(f"{message.sender}: {error}") from None


def _check_append(message: AppendEntries) -> None:
    _check_position(message, message.prev_log_index, message.prev_log_term)
    _check_position(message, message.commit_index, 0)
    index, term = message.prev_log_index, message.prev_log_term
    if (index == 0) != (term == 0):
        raise InvalidMessage(f"{message.sender}: no entry is at {index} with term {term}")
    for entry in message.entries:
        index += 1
        if entry.index != index:
            raise InvalidMessage(f"{message.sender}: entry {entry.index} where {index} belongs")
        if entry.term < max(term, 1):
            raise InvalidMessage(f"{message.sender}: terms fall at entry {index}")
        term = entry.term
        if entry.kind is EntryKind.CONFIGURATION:
            _check_configuration(message, entry.payload)
    if term > message.term:
        raise InvalidMessage(f"{message.sender}: entry {index} is of a term to come")


def _check_configuration(message: AppendEntries, payload: bytes) -> None:
    try:
        Configuration.decode(payload)
    except ValueError as error:
        raise InvalidMessage(f"{message.sender}: {error}") from None
