"""A log that is written and applied as one goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.fsm import (
    ByKey,
    Condition,
    InSession,
    OpenSession,
    Result,
    SessionResult,
    StateMachine,
    Status,
    Write,
    fingerprint_of,
)
from tests.fsm.entries import entry_of
from tests.fsm.stores import DictStore

if TYPE_CHECKING:
    from anchor.fsm import Command
    from anchor.raft.entry import Entry

TOKEN = 77
TTL_MS = 10_000


class History:
    """One member that applies each entry as it comes."""

    def __init__(self) -> None:
        self.store = DictStore()
        self.machine = StateMachine(self.store)
        self.log: list[Entry] = []
        self.clock_ms = 1
        self.term = 1

    def do(self, *commands: Command) -> list[Result | SessionResult]:
        """One entry."""
        index = len(self.log) + 1
        self.log.append(entry_of(index, *commands, clock_ms=self.clock_ms, term=self.term))
        (outcome,) = self.machine.apply(self.log[-1:])
        assert outcome is not None
        return outcome.results

    def open(self, *, ttl_ms: int = TTL_MS, max_sessions: int = 100) -> int:
        """Open a session; give its number."""
        (result,) = self.do(OpenSession(ttl_ms, TOKEN, max_sessions))
        assert isinstance(result, SessionResult)
        assert result.status is Status.DONE
        return result.number

    def write(
        self,
        session: int,
        sequence: int,
        *,
        key: bytes = b"k",
        value: bytes | None = b"v",
        acknowledged: int = 0,
        condition: Condition | None = None,
        token: int = TOKEN,
    ) -> Result:
        """Write in a session."""
        fingerprint = fingerprint_of(key, value, condition)
        once = InSession(session, token, sequence, acknowledged, fingerprint)
        return self.write_once(Write(key, value, condition, once))

    def write_by_key(self, digest: bytes, *, key: bytes = b"k", value: bytes = b"v") -> Result:
        """Write with an idempotency key."""
        once = ByKey(digest.rjust(16), fingerprint_of(key, value, None))
        return self.write_once(Write(key, value, None, once))

    def write_once(self, write: Write) -> Result:
        """One write, one entry."""
        (result,) = self.do(write)
        assert isinstance(result, Result)
        return result

    def pass_time(self, ms: int) -> None:
        """Let the leader's clock go on, and say so in an entry of its own."""
        self.clock_ms += ms
        self.do()

    def version(self, key: bytes = b"k") -> int:
        """How often a key was written; 0 where it is not there."""
        found = self.machine.get(key)
        return 0 if found is None else found.version

    def unchanged_but_for_progress(self, before: dict[bytes, bytes]) -> bool:
        """Whether nothing but the applied record differs from before."""
        now = dict(self.store.records)
        return {**now, b"mapplied": b""} == {**before, b"mapplied": b""}
