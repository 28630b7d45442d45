"""Which answer of the core belongs to which waiting vote."""

from __future__ import annotations

import threading

import pytest

from anchor.raft.messages import RequestVote, RequestVoteResponse
from anchor.transport.admission import Rejection
from anchor.transport.inbound import Ballots
from tests.transport.harness import FakeNode


def question(term: int, candidate: str = "a", *, pre_vote: bool = False) -> RequestVote:
    """A candidate's question."""
    return RequestVote(term, candidate, "b", 1, 1, pre_vote)


def answer(term: int, candidate: str = "a", *, pre_vote: bool = False) -> RequestVoteResponse:
    """Our core's answer."""
    return RequestVoteResponse(term, "b", candidate, vote_granted=False, pre_vote=pre_vote)


class Office:
    """Ballots with askers that wait in threads."""

    def __init__(self) -> None:
        self.node = FakeNode("b")
        self.node.answers_votes = False
        self.ballots = Ballots(self.node)
        self.results: dict[RequestVote, RequestVoteResponse | None] = {}
        self._askers: list[threading.Thread] = []

    def ask(self, vote: RequestVote, timeout: float = 10.0) -> None:
        """Start to wait for an answer."""
        count = len(self.node.heard)

        def wait() -> None:
            self.results[vote] = self.ballots.ask(vote, timeout)

        asker = threading.Thread(target=wait)
        self._askers.append(asker)
        asker.start()
        self.node.until(lambda: len(self.node.heard) > count)

    def close(self) -> dict[RequestVote, RequestVoteResponse | None]:
        """Let everybody go; who got what."""
        self.ballots.close()
        for asker in self._askers:
            asker.join(5)
            assert not asker.is_alive()
        return self.results


def test_an_answer_goes_to_the_question_of_its_term() -> None:
    """Of two questions of one candidate the one with the answer's term gets it."""
    office = Office()
    office.ask(question(5))
    office.ask(question(6))
    office.ballots.answer(answer(6))
    assert office.close() == {question(5): None, question(6): answer(6)}


def test_a_refusal_with_another_term_goes_to_the_oldest_question() -> None:
    """A refusal carries the voter's own term, which nobody asked about."""
    office = Office()
    office.ask(question(5))
    office.ask(question(6))
    office.ballots.answer(answer(9))
    assert office.close() == {question(5): answer(9), question(6): None}


def test_candidates_and_kinds_are_kept_apart() -> None:
    """An answer never goes to another candidate, nor a pre-vote's to a vote."""
    office = Office()
    office.ask(question(5, "a"))
    office.ask(question(5, "c"))
    office.ask(question(5, "a", pre_vote=True))
    office.ballots.answer(answer(5, "c"))
    office.ballots.answer(answer(5, "a", pre_vote=True))
    assert office.close() == {
        question(5, "a"): None,
        question(5, "c"): answer(5, "c"),
        question(5, "a", pre_vote=True): answer(5, "a", pre_vote=True),
    }


def test_an_answer_nobody_waits_for_is_dropped() -> None:
    """The asker's patience may have ended first."""
    office = Office()
    office.ask(question(5), timeout=0.0)
    assert office.close() == {question(5): None}
    office.ballots.answer(answer(5))


def test_one_candidate_holds_few_ballots_and_few_candidates_hold_any() -> None:
    """The oldest of one candidate is let go; one candidate too many is refused."""
    office = Office()
    for term in range(5, 10):
        office.ask(question(term))
    for number in range(15):
        office.ask(question(5, f"c{number}"))
    with pytest.raises(Rejection):
        office.ballots.ask(question(5, "one too many"), 0.0)
    results = office.close()
    assert results[question(5)] is None
    assert len(results) == 20
