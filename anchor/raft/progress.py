"""The leader's view of one member: how far it is, and how much may be on its way to it."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anchor.raft.interface import Options


class ProgressState(Enum):
    """How to talk to a member."""

    PROBE = "probe"  # where its log meets ours is not known: one append, then heartbeats only
    REPLICATE = "replicate"  # it follows: send ahead, as far as the window allows
    SNAPSHOT = "snapshot"  # what it needs is compacted: it gets a snapshot first


class Progress:
    """§5.3 ``matchIndex`` and ``nextIndex``, and the flow control around them.

    ``session`` is drawn anew whenever what was sent may be lost or was refused. Answers carry it
    back, so one that belongs to an earlier session changes nothing.
    """

    __slots__ = (
        "_inflight",
        "_inflight_bytes",
        "_options",
        "acked_round",
        "commit_sent",
        "commit_wanted",
        "has_room",
        "match_index",
        "must_send",
        "next_index",
        "paused",
        "recently_active",
        "session",
        "snapshot_index",
        "snapshot_term",
        "state",
    )

    def __init__(self, options: Options, next_index: int, session: int) -> None:
        self._options = options
        self._inflight: deque[tuple[int, int]] = deque()  # last index and size of each append
        self._inflight_bytes = 0
        self.state = ProgressState.PROBE
        self.match_index = 0
        self.next_index = next_index
        self.session = session
        self.paused = False  # PROBE: entries were sent once; heartbeats ask from here on
        self.must_send = True  # a heartbeat, a read round or news is due, entries or not
        self.has_room = True  # on its disk, for more entries
        self.recently_active = True  # since the last check of the quorum
        self.acked_round = 0
        self.snapshot_index = 0
        self.snapshot_term = 0
        self.commit_sent = 0
        self.commit_wanted = 0

    @property
    def inflight(self) -> int:
        """Appends sent and not acknowledged."""
        return len(self._inflight)

    def become_probe(self, session: int) -> None:
        """Find out where the logs meet; forget what is on its way."""
        if self.state is ProgressState.SNAPSHOT:
            self.next_index = max(self.match_index, self.snapshot_index) + 1
        else:
            self.next_index = self.match_index + 1
        self.state = ProgressState.PROBE
        self._start_session(session)

    def become_replicate(self) -> None:
        """The logs meet at the probe, though its disk may not have all of that yet: send ahead."""
        self.state = ProgressState.REPLICATE
        self.paused = False
        self.next_index = max(self.next_index, self.match_index + 1)
        self._forget_inflight()

    def hold(self, session: int) -> None:
        """It has no room: heartbeats only, until it has. What is on its way gets no answer."""
        if self.state is ProgressState.REPLICATE:
            self.become_probe(session)
        self.paused = True

    def become_snapshot(self, snapshot_index: int, snapshot_term: int, session: int) -> None:
        """Wait until it has installed that snapshot."""
        self.state = ProgressState.SNAPSHOT
        self.snapshot_index = snapshot_index
        self.snapshot_term = snapshot_term
        self._start_session(session)

    def _start_session(self, session: int) -> None:
        self.session = session
        self.paused = False
        self.must_send = True
        self._forget_inflight()

    def _forget_inflight(self) -> None:
        self._inflight.clear()
        self._inflight_bytes = 0

    @property
    def may_send_entries(self) -> bool:
        """Whether the window has room."""
        if self.state is ProgressState.REPLICATE:
            return (
                len(self._inflight) < self._options.max_inflight_appends
                and self._inflight_bytes < self._options.max_inflight_bytes
            )
        return self.state is ProgressState.PROBE and not self.paused

    def sent(self, last_index: int, size_bytes: int) -> None:
        """An append with entries up to there is on its way."""
        if self.state is ProgressState.PROBE:
            self.paused = True
            return
        self.next_index = last_index + 1
        self._inflight.append((last_index, size_bytes))
        self._inflight_bytes += size_bytes

    def matched(self, index: int) -> bool:
        """It has acknowledged up to there; whether that is news."""
        while self._inflight and self._inflight[0][0] <= index:
            self._inflight_bytes -= self._inflight.popleft()[1]
        if index <= self.match_index:
            return False
        self.match_index = index
        self.next_index = max(self.next_index, index + 1)
        return True
