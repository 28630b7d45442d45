"""What must hold at every instant of every cluster, each in a small checker of its own.

A checker sees everything: what leaves a server, each Ready, each applied entry, and each server
whenever it comes to rest. It remembers what it needs and raises :class:`Violation` (an
AssertionError) with the two facts that do not go together.

*Committed* means here: some server's ``commit_index`` got there. A client can have been answered
from then on, so from then on it must never be lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.raft import (
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    EntryKind,
    InstallSnapshot,
    InstallSnapshotResponse,
    RequestVote,
    RequestVoteResponse,
    Role,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from anchor.raft import Entry, Message, Ready
    from tests.raft.disk import Image
    from tests.raft.server import Server


class Violation(AssertionError):  # noqa: N818 - what it is
    """A property of Raft does not hold."""


def require(holds: object, claim: str, *facts: object) -> None:
    """Raise a Violation unless ``holds``."""
    if not holds:
        raise Violation(f"{claim}: " + "; ".join(str(fact) for fact in facts))


class Checker:
    """A checker overrides what it wants to see."""

    def before_send(self, server: Server, messages: Sequence[Message]) -> None:
        """``messages`` are about to leave ``server``."""

    def ready(self, server: Server, ready: Ready) -> None:
        """``server`` took ``ready`` and has not acted on it yet."""

    def applied(self, server: Server, entry: Entry) -> None:
        """``server`` applied ``entry``."""

    def changed(self, server: Server) -> None:
        """``server`` did something, and is at rest again."""


class ElectionSafety(Checker):
    """§5.2: at most one leader can be elected in a given term; not one server twice, either."""

    def __init__(self) -> None:
        self.leaders: dict[int, tuple[str, int]] = {}

    def changed(self, server: Server) -> None:
        """Compare with who led this term first."""
        if server.raft.role is not Role.LEADER:
            return
        me = (server.id, server.lives)
        first = self.leaders.setdefault(server.raft.term, me)
        require(first == me, f"two leaders in term {server.raft.term}", first, me)


class LeaderAppendOnly(Checker):
    """§5.3: a leader never overwrites or deletes entries in its log; it only appends."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[int, int, int, int]] = {}

    def changed(self, server: Server) -> None:
        """Look for what was the leader's last entry before."""
        if server.raft.role is not Role.LEADER:
            self._ends.pop(server.id, None)
            return
        term, written = server.raft.term, server.disk.written
        before = self._ends.get(server.id)
        if before is not None and before[:2] == (server.lives, term):
            kept = written.last_index >= before[2] and written.holds(before[2], before[3])
            require(kept, "a leader rewrote its log", server.id, before, written.last_index)
        end = written.last_index
        self._ends[server.id] = (server.lives, term, end, written.term(end))


class LogMatching(Checker):
    """§5.3: logs that agree at an index agree before it.

    Checked by its induction step: an entry's index and term determine the entry and the term of
    the one before it, over all logs there ever were.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], tuple[int, EntryKind, bytes]] = {}

    def ready(self, server: Server, ready: Ready) -> None:
        """Compare each entry on its way to a disk with the first of its index and term."""
        if not ready.entries:
            return
        first = ready.entries[0].index
        if ready.snapshot is not None and ready.snapshot.snapshot.last_included_index == first - 1:
            before = ready.snapshot.snapshot.last_included_term
        else:
            before = server.disk.written.term(first - 1)
        for entry in ready.entries:
            fact = (before, entry.kind, entry.payload)
            first_fact = self._seen.setdefault((entry.index, entry.term), fact)
            same = first_fact == fact
            require(same, "logs differ at one index and term", server.id, entry, first_fact, fact)
            require(entry.term >= before, "terms fall in a log", server.id, entry, before)
            before = entry.term


class CommittedEntries(Checker):
    """What is committed: agreed by all, held durably by a quorum, in every later leader's log.

    The last is §5.4.3's leader completeness. A leader elected late in an old term by delayed
    votes need not hold what later terms committed (§5.4.1), so terms are compared.
    """

    def __init__(self, servers: dict[str, Server]) -> None:
        self.entries: dict[int, tuple[int, int]] = {}  # index → term, term it was committed in
        self.last_index = 0
        self._servers = servers
        self._commits: dict[tuple[str, int], int] = {}
        self._leading: dict[str, tuple[int, int]] = {}

    def changed(self, server: Server) -> None:
        """Follow the commit index, and look at the logs of new leaders."""
        self._check_new_leader(server)
        life = (server.id, server.lives)
        before, commit = self._commits.get(life, 0), server.raft.commit_index
        if commit == before:
            return
        require(commit > before, "the commit index fell", life, before, commit)
        self._commits[life] = commit
        written = server.disk.written
        for index in range(max(before + 1, written.first_index), commit + 1):
            term = written.term(index)
            known = self.entries.setdefault(index, (term, server.raft.term))
            require(known[0] == term, "two entries committed at one index", life, index, known)
        if commit > self.last_index:
            self.last_index = commit
            if server.raft.role is Role.LEADER:
                self._check_quorum(server, commit)

    def _check_quorum(self, leader: Server, commit: int) -> None:
        """A committed entry is on the disks of a quorum (§5.3), its leader's or not."""
        term = leader.disk.written.term(commit)
        require(term == leader.raft.term, "committed by counting an old term", leader.id, commit)
        holders = {s.id for s in self._servers.values() if s.disk.durable.holds(commit, term)}
        agreed = leader.raft.configuration
        for voters in (agreed.voters, agreed.voters_outgoing):
            majority = not voters or len(voters & holders) * 2 > len(voters)
            require(majority, "committed without a quorum", leader.id, commit, voters, holders)

    def _check_new_leader(self, server: Server) -> None:
        if server.raft.role is not Role.LEADER:
            return
        term = server.raft.term
        if self._leading.get(server.id) == (server.lives, term):
            return
        self._leading[server.id] = (server.lives, term)
        written = server.disk.written
        for index, (entry_term, committed_in) in self.entries.items():
            if committed_in < term:
                holds = written.holds(index, entry_term)
                require(holds, "a leader lacks a committed entry", server.id, term, index)


class StateMachineSafety(Checker):
    """§5.4.3: no two servers apply different entries at one index; none is applied early."""

    def __init__(self) -> None:
        self._digests: dict[int, int] = {}

    def applied(self, server: Server, entry: Entry) -> None:
        """Compare the digest with that of whoever applied this index first."""
        committed = server.raft.commit_index >= entry.index
        require(committed, "applied before it was committed", server.id, entry)
        digest = self._digests.setdefault(entry.index, server.state.digest)
        same = digest == server.state.digest
        require(same, "state machines differ", server.id, entry.index, digest)


class NeverBack(Checker):
    """Figure 2: the durable term never falls, a vote is never changed; commit ≤ last."""

    def __init__(self) -> None:
        self._votes: dict[str, tuple[int, str | None]] = {}

    def changed(self, server: Server) -> None:
        """Compare the disk with what it held before, and with the core."""
        stored = server.disk.durable.hard_state
        term, vote = self._votes.get(server.id, (0, None))
        require(stored.term >= term, "the durable term fell", server.id, term, stored)
        if stored.term == term:
            kept = vote in (None, stored.voted_for)
            require(kept, "a vote was changed", server.id, vote, stored)
        self._votes[server.id] = (stored.term, stored.voted_for)
        raft = server.raft
        require(raft.term >= stored.term, "behind its own disk", server.id, raft.term, stored)
        written = raft.last_log_index == server.disk.written.last_index
        require(written, "log and disk differ", server.id, raft.last_log_index)
        within = raft.last_applied <= raft.commit_index <= raft.last_log_index
        require(within, "applied ≤ committed ≤ last", server)


class PromisesAreDurable(Checker):
    """Figure 2: "updated on stable storage before responding to RPCs".

    Who speaks in a term as candidate or leader must hold it durably as well: else it could
    forget, and lead the same term a second time.
    """

    def before_send(self, server: Server, messages: Sequence[Message]) -> None:
        """Look on the disk for what the messages promise."""
        durable = server.disk.durable
        for message in messages:
            require(self._kept(message, durable), "promised before durable", server.id, message)

    def _kept(self, message: Message, durable: Image) -> bool:
        stored = durable.hard_state
        match message:
            case RequestVoteResponse(vote_granted=True, pre_vote=False):
                mine = stored.term == message.term and stored.voted_for == message.recipient
                return mine or stored.term > message.term
            case RequestVote(pre_vote=False) | AppendEntries() | InstallSnapshot():
                return stored.term >= message.term
            case AppendEntriesResponse(success=True):
                held = durable.last_index >= message.match_index
                return stored.term > message.term or (stored.term == message.term and held)
            case InstallSnapshotResponse(success=True):
                return durable.last_index >= message.match_index
            case _:
                return True


class Reads(Checker):
    """§8: a confirmed read index covers all that was committed when the read was asked."""

    def __init__(self, committed: CommittedEntries) -> None:
        self._committed = committed
        self._asked: dict[tuple[str, int, Hashable], int] = {}
        self.confirmed = 0

    def asked(self, server: Server, context: Hashable) -> None:
        """Remember what the answer must cover; called by whoever asks, before asking."""
        self._asked[server.id, server.lives, context] = self._committed.last_index

    def ready(self, server: Server, ready: Ready) -> None:
        """Compare answers with what was committed at their asking; none comes twice."""
        for read in ready.reads:
            asked_at = self._asked.pop((server.id, server.lives, read.context), None)
            require(asked_at is not None, "answered a read nobody asked", server.id, read)
            covers = asked_at is not None and read.index >= asked_at
            require(covers, "a stale read was confirmed", server.id, read, asked_at)
            self.confirmed += 1
        for context in ready.aborted_reads:
            asked_at = self._asked.pop((server.id, server.lives, context), None)
            require(asked_at is not None, "aborted a read nobody asked", server.id, context)

    def lease(self, server: Server) -> bool:
        """Ask for the lease and check it; the caller has ticked the server to the present."""
        if not server.raft.lease_valid():
            return False
        fresh = server.raft.commit_index >= self._committed.last_index
        require(fresh, "a stale lease", server, self._committed.last_index)
        return True


class ConfigurationSafety(Checker):
    """§6: the newest in the log is in force; committed ones agree; one change at a time."""

    def __init__(self) -> None:
        self._committed: dict[int, Configuration] = {}
        self._decoded: dict[bytes, Configuration] = {}

    def changed(self, server: Server) -> None:
        """Compare the configuration in force with the log, the committed one with others'."""
        raft = server.raft
        expected, index = self._newest(server)
        require(raft.configuration == expected, "not the newest configuration", server.id, index)
        require(raft.configuration_index == index, "wrong place", raft.configuration_index, index)
        if raft.configuration_index <= raft.commit_index and index:
            known = self._committed.setdefault(index, expected)
            require(known == expected, "configurations differ", server.id, index)
        if raft.role is Role.LEADER and self._own_term_committed(server):
            pending = [e for e in self._entries(server) if e.index > raft.commit_index]
            require(len(pending) <= 1, "two changes at once", server.id, pending)

    def _entries(self, server: Server) -> list[Entry]:
        return server.disk.written.configurations

    def _newest(self, server: Server) -> tuple[Configuration, int]:
        entries = self._entries(server)
        snapshot = server.disk.written.snapshot
        if entries and (snapshot is None or entries[-1].index > snapshot.configuration_index):
            payload = entries[-1].payload
            if payload not in self._decoded:
                self._decoded[payload] = Configuration.decode(payload)
            return self._decoded[payload], entries[-1].index
        if snapshot is not None:
            return snapshot.configuration, snapshot.configuration_index
        return Configuration(), 0

    def _own_term_committed(self, server: Server) -> bool:
        written, commit = server.disk.written, server.raft.commit_index
        return commit >= written.first_index and written.term(commit) == server.raft.term


class Invariants(Checker):
    """All checkers as one watcher."""

    def __init__(self, servers: dict[str, Server]) -> None:
        self.elections = ElectionSafety()
        self.committed = CommittedEntries(servers)
        self.reads = Reads(self.committed)
        self.checkers: list[Checker] = [
            PromisesAreDurable(),
            self.elections,
            LeaderAppendOnly(),
            LogMatching(),
            self.committed,
            StateMachineSafety(),
            NeverBack(),
            ConfigurationSafety(),
            self.reads,
        ]

    def before_send(self, server: Server, messages: Sequence[Message]) -> None:
        """Tell all checkers."""
        for checker in self.checkers:
            checker.before_send(server, messages)

    def ready(self, server: Server, ready: Ready) -> None:
        """Tell all checkers."""
        for checker in self.checkers:
            checker.ready(server, ready)

    def applied(self, server: Server, entry: Entry) -> None:
        """Tell all checkers."""
        for checker in self.checkers:
            checker.applied(server, entry)

    def changed(self, server: Server) -> None:
        """Tell all checkers."""
        for checker in self.checkers:
            checker.changed(server)
