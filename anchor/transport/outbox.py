"""What waits to be sent: many put, one takes, nobody who puts ever waits.

Bounded by number and size; past either bound the oldest is dropped, since the newest says most.
Neighbours may be joined while they wait, so that whatever gathered since the last send goes as
one message.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from gevent.event import Event

from anchor.raft.messages import AppendEntries, AppendEntriesResponse

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Outbox(Generic[T]):
    """A queue with one consumer. ``join(older, newer)`` gives both as one, or None.

    The consumer either pops whenever its ``listener`` is called (something was put, or the outbox
    was closed), or waits.
    """

    def __init__(
        self,
        max_items: int,
        max_bytes: int,
        join: Callable[[T, T], T | None] | None = None,
        max_joined_bytes: int = 0,
    ) -> None:
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._join = join
        self._max_joined_bytes = max_joined_bytes
        self._something = Event()
        self.listener: Callable[[], None] = self._something.set
        self.closed = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, size_bytes: int = 0) -> bool:
        """Add to the end; False once closed."""
        if self.closed:
            return False
        self._items.append((item, size_bytes))
        self._bytes += size_bytes
        while len(self._items) > 1 and (
            len(self._items) > self._max_items or self._bytes > self._max_bytes
        ):
            self._bytes -= self._items.popleft()[1]
            self.dropped += 1
        self.listener()
        return True

    def offer(self, item: T, size_bytes: int = 0) -> bool:
        """Add to the end unless that would pass a bound or it is closed: then False."""
        if len(self._items) >= self._max_items or self._bytes + size_bytes > self._max_bytes:
            return False
        return self.put(item, size_bytes)

    def pop(self) -> T | None:
        """Take the oldest, joined with what can be joined; None if there is nothing."""
        items = self._items
        if not items:
            return None
        item, size_bytes = items.popleft()
        self._bytes -= size_bytes
        if self._join is None:
            return item
        while items and size_bytes + items[0][1] <= self._max_joined_bytes:
            joined = self._join(item, items[0][0])
            if joined is None:
                break
            item, added_bytes = joined, items.popleft()[1]
            size_bytes += added_bytes
            self._bytes -= added_bytes
        return item

    def wait(self) -> bool:
        """Sleep until there is something, or return False once closed (and empty)."""
        while not self._items:
            if self.closed:
                return False
            self._something.clear()
            self._something.wait()
        return True

    def take(self) -> T | None:
        """Sleep for the oldest, joined with what can be joined; None once closed and empty."""
        self.wait()
        return self.pop()

    def close(self, *, discard: bool = False) -> None:
        """Accept nothing more; what is in it may still be taken unless ``discard``."""
        self.closed = True
        if discard:
            self._items.clear()
            self._bytes = 0
        self.listener()


def append_size_bytes(message: AppendEntries) -> int:
    """About how many bytes this is on the wire."""
    return 64 + sum(entry.size_bytes + 4 for entry in message.entries)


def join_appends(older: AppendEntries, newer: AppendEntries) -> AppendEntries | None:
    """Two appends as one, if the newer goes on exactly where the older ends.

    A follower does the same with the one as with the two, and its one answer acknowledges both.
    """
    entries = older.entries
    if (
        newer.session != older.session
        or newer.term != older.term
        or newer.prev_log_index != older.prev_log_index + len(entries)
        or newer.prev_log_term != (entries[-1].term if entries else older.prev_log_term)
    ):
        return None
    return AppendEntries(
        older.term,
        older.sender,
        older.recipient,
        older.prev_log_index,
        older.prev_log_term,
        entries + newer.entries if newer.entries else entries,
        max(older.commit_index, newer.commit_index),
        max(older.read_round, newer.read_round),
        older.session,
    )


def join_append_responses(
    older: AppendEntriesResponse, newer: AppendEntriesResponse
) -> AppendEntriesResponse | None:
    """Two successes of one session as one: the highest match and the newest read round."""
    if (
        not older.success
        or not newer.success
        or newer.session != older.session
        or newer.term != older.term
    ):
        return None
    if newer.match_index >= older.match_index and newer.read_round >= older.read_round:
        return newer
    return AppendEntriesResponse(
        newer.term,
        newer.sender,
        newer.recipient,
        success=True,
        match_index=max(older.match_index, newer.match_index),
        rejected_index=0,
        conflict_index=0,
        conflict_term=0,
        read_round=max(older.read_round, newer.read_round),
        session=newer.session,
    )
