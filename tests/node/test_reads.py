"""The life of a read, from asked to released, without greenlets or clocks."""

from __future__ import annotations

from anchor.node.errors import NoLeader, RequestTimeout, Stopping
from anchor.node.reads import ReadQueue
from tests.node.test_writes import Client


def test_one_question_is_asked_for_all_reads_that_wait() -> None:
    """And one answer releases them all."""
    queue = ReadQueue()
    clients = [Client(), Client()]
    for client in clients:
        queue.add(client)
    (question,) = queue.due("leader")
    queue.confirmed(question.number, index=5, applied_index=5)
    assert [client.outcomes for client in clients] == [[None], [None]]


def test_a_read_waits_until_its_index_is_applied() -> None:
    """Confirmed is not enough: this member must have applied as much."""
    queue = ReadQueue()
    client = Client()
    queue.add(client)
    (question,) = queue.due("leader")
    queue.confirmed(question.number, index=5, applied_index=4)
    queue.applied(4)
    assert client.outcomes == []
    queue.applied(6)
    assert client.outcomes == [None]


def test_a_read_never_joins_a_question_already_asked() -> None:
    """Its answer may be older than the read."""
    queue = ReadQueue(max_open=1)
    queue.add(Client())
    (question,) = queue.due("leader")
    late = Client()
    queue.add(late)
    assert queue.due("leader") == []
    queue.confirmed(question.number, index=1, applied_index=1)
    assert late.outcomes == []
    assert len(queue.due("leader")) == 1


def test_lease_reads_ask_their_own_question() -> None:
    """A linearizable read must not be answered from a lease."""
    queue = ReadQueue()
    queue.add(Client())
    queue.add(Client(), lease=True)
    assert sorted(question.lease for question in queue.due("leader")) == [False, True]


def test_an_aborted_question_is_asked_again() -> None:
    """Its reads go first in the next one, and a late answer to the old one counts for nothing."""
    queue = ReadQueue()
    client = Client()
    queue.add(client)
    (old,) = queue.due("leader")
    queue.aborted(old.number)
    (new,) = queue.due("leader")
    queue.confirmed(old.number, index=1, applied_index=1)
    assert client.outcomes == []
    queue.confirmed(new.number, index=1, applied_index=1)
    assert client.outcomes == [None]


def test_a_new_leader_is_asked_again() -> None:
    """What the old one would have answered does not matter."""
    queue = ReadQueue()
    client = Client()
    queue.add(client)
    (old,) = queue.due("old")
    (new,) = queue.due("new")
    assert new.leader == "new"
    queue.confirmed(old.number, index=1, applied_index=1)
    assert client.outcomes == []


def test_lost_touch_asks_everything_again() -> None:
    """A broken stream may have lost question or answer."""
    queue = ReadQueue()
    queue.add(Client())
    queue.due("leader")
    queue.lost_touch()
    assert len(queue.due("leader")) == 1


def test_late_reads_are_answered_wherever_they_wait() -> None:
    """Gathering, asked, or confirmed and not applied."""
    queue = ReadQueue(max_open=2)
    confirmed, asked, gathering = Client(1.0), Client(1.0), Client(1.0)
    queue.add(confirmed)
    (question,) = queue.due("leader")
    queue.confirmed(question.number, index=9, applied_index=1)
    queue.add(asked)
    queue.due("leader")
    queue.add(gathering)
    queue.expire(0.5, lambda: True)
    assert confirmed.outcomes == asked.outcomes == gathering.outcomes == []
    queue.expire(1.0, lambda: True)
    for client in (confirmed, asked, gathering):
        assert isinstance(client.error, RequestTimeout)


def test_a_question_that_is_never_answered_blocks_nobody() -> None:
    """Once its reads are late, the next ones are asked."""
    queue = ReadQueue(max_open=1)
    queue.add(Client(1.0))
    queue.due("leader")
    queue.add(Client(5.0))
    assert queue.due("leader") == []
    queue.expire(1.0, lambda: True)
    assert len(queue.due("leader")) == 1


def test_without_a_leader_a_late_read_says_so() -> None:
    """no_leader is what an operator has to look at."""
    queue = ReadQueue()
    client = Client(1.0)
    queue.add(client)
    queue.expire(1.0, lambda: False)
    assert isinstance(client.error, NoLeader)


def test_a_stopping_node_answers_everybody() -> None:
    """No read is left asleep."""
    queue = ReadQueue(max_open=1)
    clients = [Client(), Client(), Client()]
    queue.add(clients[0])
    queue.due("leader")
    queue.add(clients[1])
    queue.add_confirmed(clients[2], 100)
    queue.fail_all(Stopping, "bye")
    for client in clients:
        assert isinstance(client.error, Stopping)
