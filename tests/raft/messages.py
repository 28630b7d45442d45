"""Messages made by hand, for a member whose peers exist in the test's imagination only."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from anchor.raft import (
    AppendEntries,
    AppendEntriesResponse,
    Entry,
    EntryKind,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anchor.raft import Message
    from tests.raft.harness import Cluster
    from tests.raft.server import Server

M = TypeVar("M", bound="Message")


def entries_from(index: int, terms: Sequence[int]) -> tuple[Entry, ...]:
    """Make entries from ``index`` on, with the payloads ``log_of`` gives them."""
    return tuple(
        Entry(i, term, EntryKind.COMMAND, b"%d@%d" % (i, term))
        for i, term in enumerate(terms, start=index)
    )


def append_entries(
    term: int,
    previous: tuple[int, int],
    terms: Sequence[int] = (),
    *,
    commit: int = 0,
    sender: str = "n2",
    recipient: str = "n1",
    session: int = 1,
    read_round: int = 0,
) -> AppendEntries:
    """Make an AppendEntries whose entries, of ``terms``, follow ``previous`` (index, term)."""
    return AppendEntries(
        term=term,
        sender=sender,
        recipient=recipient,
        prev_log_index=previous[0],
        prev_log_term=previous[1],
        entries=entries_from(previous[0] + 1, terms),
        commit_index=commit,
        read_round=read_round,
        session=session,
    )


def request_vote(
    term: int,
    last: tuple[int, int],
    *,
    sender: str = "n2",
    recipient: str = "n1",
    pre_vote: bool = False,
    transfer: bool = False,
) -> RequestVote:
    """Make a RequestVote of a candidate whose log ends with ``last`` (index, term)."""
    return RequestVote(
        term=term,
        sender=sender,
        recipient=recipient,
        last_log_index=last[0],
        last_log_term=last[1],
        pre_vote=pre_vote,
        leadership_transfer=transfer,
    )


def vote(
    term: int, *, granted: bool = True, sender: str = "n2", recipient: str = "n1", pre: bool = False
) -> RequestVoteResponse:
    """Make the answer to a RequestVote."""
    return RequestVoteResponse(
        term=term, sender=sender, recipient=recipient, vote_granted=granted, pre_vote=pre
    )


def acknowledgement(
    term: int,
    match: int,
    *,
    session: int,
    sender: str = "n2",
    recipient: str = "n1",
    read_round: int = 0,
) -> AppendEntriesResponse:
    """Make a success answer to AppendEntries."""
    return AppendEntriesResponse(
        term=term,
        sender=sender,
        recipient=recipient,
        success=True,
        match_index=match,
        rejected_index=0,
        conflict_index=0,
        conflict_term=0,
        read_round=read_round,
        session=session,
    )


def timeout_now(term: int, *, sender: str = "n2", recipient: str = "n1") -> TimeoutNow:
    """Make a TimeoutNow."""
    return TimeoutNow(term=term, sender=sender, recipient=recipient)


def answer(server: Server, message: Message, kind: type[M]) -> M:
    """Let ``server`` receive ``message``; gives its one answer, of type ``kind``."""
    server.network.take_sent()
    server.step(message)
    answers = [m for m in server.network.take_sent() if isinstance(m, kind)]
    assert len(answers) == 1, f"wanted one {kind.__name__}, got {answers}"
    server.network.in_flight.clear()
    return answers[0]


def asks_vote(server: Server, message: RequestVote) -> RequestVoteResponse:
    """Let ``server`` receive a RequestVote; gives its answer."""
    return answer(server, message, RequestVoteResponse)


def appends(server: Server, message: AppendEntries) -> AppendEntriesResponse:
    """Let ``server`` receive an AppendEntries; gives its answer."""
    return answer(server, message, AppendEntriesResponse)


def sent(cluster: Cluster, kind: type[M], *, recipient: str | None = None) -> list[M]:
    """Give what was sent of ``kind`` since last asked, leaving it in flight."""
    messages = [m for m in cluster.network.take_sent() if isinstance(m, kind)]
    return [m for m in messages if recipient is None or m.recipient == recipient]


def grants(server: Server, message: RequestVote) -> bool:
    """Let ``server`` receive a RequestVote; whether it says yes. It may also say nothing."""
    server.network.take_sent()
    server.step(message)
    return any(
        isinstance(m, RequestVoteResponse) and m.vote_granted for m in server.network.take_sent()
    )
