"""What no correct member sends is refused and changes nothing, the term least of all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anchor.raft import (
    AppendEntriesResponse,
    Configuration,
    Entry,
    EntryKind,
    InstallSnapshot,
    InstallSnapshotResponse,
    InvalidMessage,
    Message,
    RequestVoteResponse,
    SnapshotMetadata,
    TimeoutNow,
)
from tests.raft.harness import Cluster
from tests.raft.messages import append_entries, request_vote, timeout_now, vote

MAX = 2**63


def at(index: int, term: int, kind: EntryKind = EntryKind.COMMAND, payload: bytes = b"") -> Entry:
    """Make an entry."""
    return Entry(index, term, kind, payload)


def appending(*entries: Entry, term: int = 5, previous: tuple[int, int] = (1, 1)) -> Message:
    """Make an AppendEntries with just these entries."""
    return replace(append_entries(term, previous), entries=entries)


def snapshot(index: int, term: int, *, message_term: int = 5) -> Message:
    """Make an InstallSnapshot."""
    metadata = SnapshotMetadata(index, term, Configuration(), 0)
    return InstallSnapshot(message_term, "n2", "n1", metadata, session=1)


NONSENSE = {
    "term 0": append_entries(0, (1, 1)),
    "a negative term": append_entries(-1, (1, 1)),
    "term 2^63": append_entries(MAX, (1, 1)),
    "term 2^64-1": request_vote(2**64 - 1, (1, 1)),
    "a vote of term 2^64-1": vote(2**64 - 1),
    "timeout now of term 2^63": timeout_now(MAX),
    "a first entry that leaves a gap": appending(at(3, 5)),
    "a first entry that goes back": appending(at(1, 5)),
    "a gap inside": appending(at(2, 5), at(4, 5)),
    "one index twice": appending(at(2, 5), at(2, 5)),
    "falling terms": appending(at(2, 5), at(3, 4)),
    "a first term below the one before it": appending(at(3, 1), previous=(2, 3)),
    "an entry of a later term than the message": appending(at(2, 6)),
    "a previous entry of a later term than the message": append_entries(5, (1, 6)),
    "an entry of term 0": appending(at(1, 0), previous=(0, 0)),
    "an index without a term": append_entries(5, (3, 0)),
    "a term without an index": append_entries(5, (0, 3)),
    "a negative index": append_entries(5, (-1, 1)),
    "a negative commit index": append_entries(5, (1, 1), commit=-1),
    "an absurd commit index": append_entries(5, (1, 1), commit=MAX),
    "an absurd previous index": append_entries(5, (MAX, 1)),
    "a configuration that is none": appending(at(2, 5, EntryKind.CONFIGURATION, b"{}")),
    "a configuration of garbage": appending(at(2, 5, EntryKind.CONFIGURATION, b"\xff\x00")),
    "a configuration nested too deep": appending(at(2, 5, EntryKind.CONFIGURATION, b"[" * 100_000)),
    "a candidate whose log is ahead of its term": request_vote(5, (3, 6)),
    "a candidate with a negative log": request_vote(5, (-3, 1)),
    "a candidate with an absurd log": request_vote(5, (MAX, 1)),
    "a snapshot of nothing": snapshot(0, 0),
    "a snapshot of a later term than the message": snapshot(9, 6),
    "a snapshot at an absurd index": snapshot(MAX, 1),
    "a snapshot without members": snapshot(9, 3),
}


@pytest.mark.parametrize("message", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_refused_and_changes_nothing(message: Message) -> None:
    """InvalidMessage is raised; term, vote, log, role and commit index are as before."""
    cluster = Cluster(3)
    n1 = cluster["n1"]
    before = n1.status(), n1.disk.written.copy(), n1.raft.voted_for
    with pytest.raises(InvalidMessage):
        n1.step(message)
    assert (n1.status(), n1.disk.written, n1.raft.voted_for) == before
    assert cluster.network.take_sent() == []


def test_a_message_of_no_known_kind_is_refused() -> None:
    """A bare Message says nothing."""
    n1 = Cluster(3)["n1"]
    with pytest.raises(InvalidMessage):
        n1.step(Message(5, "n2", "n1"))
    assert n1.raft.term == 1


def test_two_leaders_in_one_term_are_refused() -> None:
    """§5.2: an append of the own term from somebody else, while leading, cannot be."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    with pytest.raises(InvalidMessage):
        leader.step(append_entries(leader.raft.term, (1, 1)))
    assert leader.is_leader


@pytest.mark.parametrize(
    "response",
    [
        AppendEntriesResponse(2, "n2", "n1", True, 99, 0, 0, 0, 0, 0),
        AppendEntriesResponse(2, "n2", "n1", True, -1, 0, 0, 0, 0, 0),
        AppendEntriesResponse(2, "n2", "n1", True, 2, 0, 0, 0, 99, 0),
        AppendEntriesResponse(2, "n2", "n1", False, 0, -5, 0, 0, 0, 0),
        AppendEntriesResponse(2, "n2", "n1", False, 0, 2, -1, 0, 0, 0),
        InstallSnapshotResponse(2, "n2", "n1", True, 99, 0),
        InstallSnapshotResponse(2, "n2", "n1", True, -1, 0),
    ],
    ids=[
        "an acknowledgement beyond the log",
        "a negative acknowledgement",
        "a round that never was",
        "a negative refusal",
        "a negative conflict",
        "a snapshot beyond the log",
        "a negative snapshot",
    ],
)
def test_answers_that_cannot_be_move_nothing(response: Message) -> None:
    """Whatever a member claims to have, the leader counts only what it has itself."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    cluster.run(4)
    session = leader.raft.progress["n2"].session
    leader.propose(b"x")
    cluster.network.drop()
    with pytest.raises(InvalidMessage):
        leader.step(replace(response, session=session))  # type: ignore[call-arg]
    assert leader.raft.commit_index == 2
    assert leader.raft.progress["n2"].match_index == 2


def test_answers_nobody_asked_for_are_ignored() -> None:
    """Votes and acknowledgements to a follower, or of strangers, do nothing."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.run(4)
    before = cluster.statuses()
    for message in (
        RequestVoteResponse(2, "n1", "n2", True),
        AppendEntriesResponse(2, "n3", "n2", True, 2, 0, 0, 0, 0, 1),
        InstallSnapshotResponse(2, "n3", "n2", True, 2, 1),
        AppendEntriesResponse(2, "stranger", "n1", True, 2, 0, 0, 0, 0, 1),
        InstallSnapshotResponse(2, "stranger", "n1", True, 2, 1),
        RequestVoteResponse(2, "stranger", "n1", True),
        TimeoutNow(2, "n2", "n1"),
    ):
        cluster[message.recipient].step(message)
    cluster.deliver()
    assert cluster.statuses() == before


def test_a_stranger_cannot_raise_the_term_by_asking_for_votes() -> None:
    """§6: who is no member, as far as this one can know, gets no vote and moves no term."""
    cluster = Cluster(3)
    cluster.elect("n1")
    cluster.run(4)
    cluster["n2"].step(request_vote(900, (99, 899), sender="stranger", recipient="n2"))
    assert cluster["n2"].raft.term == 2
