"""Short ways to write log entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.fsm import (
    Command,
    EntryKind,
    Write,
    clock_suffix,
    encode_batch,
    encode_delete,
    encode_put,
    encode_session_command,
    encode_write,
)
from anchor.raft.entry import Entry
from anchor.raft.entry import EntryKind as LogEntryKind

if TYPE_CHECKING:
    from collections.abc import Sequence

Operation = tuple[bytes, bytes | None]


def put(key: bytes, value: bytes) -> Operation:
    """Write a key."""
    return key, value


def delete(key: bytes) -> Operation:
    """Delete a key."""
    return key, None


def payload(operations: Sequence[Operation], *, origin: int = 7, number: int = 1) -> bytes:
    """Encode a batch of operations."""
    commands = [
        encode_delete(key) if value is None else encode_put(key, value) for key, value in operations
    ]
    return encode_batch(origin, number, commands)


def command(index: int, *operations: Operation, origin: int = 7, number: int = 0) -> Entry:
    """Make a command entry of term 1; its batch's number is its index unless given."""
    encoded = payload(operations, origin=origin, number=number or index)
    return Entry(index, 1, LogEntryKind.COMMAND, encoded)


def entry(index: int, kind: EntryKind, content: bytes = b"", *, term: int = 1) -> Entry:
    """Make an entry of any kind."""
    return Entry(index, term, LogEntryKind(kind), content)


def entry_of(
    index: int,
    *commands: Command,
    origin: int = 0,
    number: int = 0,
    clock_ms: int = 0,
    term: int = 1,
) -> Entry:
    """Make an entry of commands of any kind, with the time its leader put into it."""
    encoded = [
        encode_write(each) if isinstance(each, Write) else encode_session_command(each)
        for each in commands
    ]
    content = encode_batch(origin, number, encoded) + (clock_suffix(clock_ms) if clock_ms else b"")
    return Entry(index, term, LogEntryKind.COMMAND, content)
