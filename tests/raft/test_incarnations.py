"""What a member's past means: a wiped disk under an old id, and a removal before a restart."""

from __future__ import annotations

import random

from anchor.raft import (
    AppendEntriesResponse,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Member,
    Options,
    Raft,
)
from anchor.storage import MemoryLog


def configuration(*members: Member, learners: frozenset[str] = frozenset()) -> Configuration:
    """These members; those who are no learners vote."""
    ids = frozenset(member.id for member in members)
    return Configuration({m.id: m for m in members}, ids - learners, learners=learners)


def leader_with(log: MemoryLog) -> Raft:
    """A leader on its own vote, with everything it has to write written."""
    raft = Raft("n1", log, Options(), random.Random(1))
    raft.campaign()
    settle(raft, log)
    return raft


def settle(raft: Raft, log: MemoryLog) -> None:
    """Do what it says, and drop what it sends."""
    while raft.has_ready():
        ready = raft.ready()
        log.append(ready.entries, ready.hard_state)
        log.sync()
        raft.persisted(ready.number)
        if ready.committed:
            raft.applied(ready.committed[-1].index)


def test_another_data_directory_under_an_old_id_has_nothing() -> None:
    """What the first one acknowledged does not count for the second."""
    log = MemoryLog()
    first = configuration(Member("n1"))
    log.append([Entry(1, 1, EntryKind.CONFIGURATION, first.encode())], HardState(1))
    log.sync()
    raft = leader_with(log)
    learner = frozenset({"n2"})
    raft.propose_configuration(
        configuration(Member("n1"), Member("n2", incarnation=1), learners=learner)
    )
    settle(raft, log)
    progress = raft.progress["n2"]
    raft.step(AppendEntriesResponse(raft.term, "n2", "n1", True, 3, 0, 0, 0, 0, progress.session))
    assert raft.progress["n2"].match_index == 3
    raft.propose_configuration(
        configuration(Member("n1"), Member("n2", incarnation=2), learners=learner)
    )
    assert raft.progress["n2"].match_index == 0
    assert raft.progress["n2"].session != progress.session


def test_a_member_that_was_removed_knows_it_after_a_restart() -> None:
    """The log still holds the configuration it was in, and the one it is not in any more."""
    log = MemoryLog()
    both = configuration(Member("n1"), Member("n2"))
    alone = configuration(Member("n2"))
    log.append(
        [
            Entry(1, 1, EntryKind.CONFIGURATION, both.encode()),
            Entry(2, 1, EntryKind.CONFIGURATION, alone.encode()),
        ],
        HardState(1),
    )
    log.sync()
    raft = Raft("n1", log, Options(), random.Random(1), applied_index=2)
    assert raft.is_removed
    newcomer = Raft("n3", log, Options(), random.Random(1), applied_index=2)
    assert not newcomer.is_removed
