"""The life of a write, from gathered to applied, without greenlets or clocks."""

from __future__ import annotations

import pytest

from anchor.fsm import BatchOutcome, Result, encode_put
from anchor.node.errors import CommitUnknown, NodeError, NoLeader, Overloaded, Stopping
from anchor.node.writes import Batch, WriteQueue

RESULT = Result(existed=False, create_index=1, mod_index=1, version=1)


class Client:
    """Waits like a client does, and remembers what it was told."""

    def __init__(self, deadline: float = 10.0) -> None:
        self.deadline = deadline
        self.outcomes: list[object] = []

    def resolve(self, outcome: object) -> None:
        """Be told."""
        self.outcomes.append(outcome)

    @property
    def error(self) -> NodeError:
        """The one thing it was told, which must be an error."""
        (outcome,) = self.outcomes
        assert isinstance(outcome, NodeError)
        return outcome


def put(queue: WriteQueue, key: bytes, deadline: float = 10.0) -> Client:
    """Gather one write."""
    client = Client(deadline)
    queue.add(encode_put(key, b"v"), key, client)
    return client


def done(batch: Batch) -> BatchOutcome:
    """What the state machine says of a batch it applied."""
    return BatchOutcome(7, batch.number, [RESULT] * len(batch.commands), replayed=False)


def replayed(batch: Batch) -> BatchOutcome:
    """What it says of one it skipped."""
    return BatchOutcome(7, batch.number, [], replayed=True)


def test_writes_gather_into_one_batch() -> None:
    """What has gathered is handed out together, as one log entry."""
    queue = WriteQueue(7)
    clients = [put(queue, b"a"), put(queue, b"b")]
    (batch,) = queue.due("leader")
    assert len(batch.commands) == 2
    queue.applied(done(batch))
    assert [client.outcomes for client in clients] == [[RESULT], [RESULT]]


def test_a_key_is_never_written_twice_in_one_batch() -> None:
    """Two writes of one key get two entries, so that mod_index tells them apart."""
    queue = WriteQueue(7)
    for key in (b"a", b"b", b"a", b"a"):
        put(queue, key)
    batches = queue.due("leader")
    assert [len(batch.commands) for batch in batches] == [2, 1, 1]
    assert [batch.number for batch in batches] == [1, 2, 3]


def test_a_batch_stays_within_its_size() -> None:
    """A batch that would grow too large is closed, and a new one begun."""
    queue = WriteQueue(7, max_batch_bytes=20)
    for key in (b"a" * 8, b"b" * 8):
        put(queue, key)
    assert len(queue.due("leader")) == 2


def test_only_so_many_rounds_are_on_their_way() -> None:
    """While the window is full, writes gather; a whole round must land to open it."""
    queue = WriteQueue(7, max_rounds=1)
    put(queue, b"a")
    put(queue, b"a")
    first = queue.due("leader")
    put(queue, b"b")
    assert queue.due("leader") == []
    queue.applied(done(first[0]))
    assert queue.due("leader") == []
    queue.applied(done(first[1]))
    (second,) = queue.due("leader")
    assert second.number == 3


def test_more_than_may_wait_is_refused() -> None:
    """Memory is bounded: what does not fit is refused and has no effect."""
    queue = WriteQueue(7, max_waiting_bytes=10)
    put(queue, b"a")
    with pytest.raises(Overloaded):
        put(queue, b"b" * 10)
    (batch,) = queue.due("leader")
    assert len(batch.commands) == 1


def test_a_new_leader_gets_everything_undecided_again() -> None:
    """In the order of their numbers, old ones before new ones."""
    queue = WriteQueue(7)
    put(queue, b"a")
    (first,) = queue.due(("term 1", "n1"))
    put(queue, b"b")
    again = queue.due(("term 2", "n2"))
    assert again[0] is first
    assert [batch.number for batch in again] == [1, 2]
    assert queue.due(("term 2", "n2")) == []


def test_refused_batches_are_gathered_again() -> None:
    """In their order, to the same leader too; a spent number is not used again."""
    queue = WriteQueue(7)
    put(queue, b"a")
    put(queue, b"a")
    refused = queue.due("leader")
    put(queue, b"b")
    queue.refused(refused)
    again = queue.due("leader")
    assert [batch.commands for batch in again[:2]] == [batch.commands for batch in refused]
    assert [batch.number for batch in again] == [3, 4, 5]


def test_a_refused_batch_in_doubt_keeps_its_number() -> None:
    """Another leader may have it in its log: only the same number cannot be applied twice."""
    queue = WriteQueue(7)
    put(queue, b"a")
    queue.due("one leader")
    batches = queue.due("another leader")
    queue.refused(batches)
    assert queue.due("another leader") == batches


def test_what_was_answered_no_leader_is_never_written() -> None:
    """Refused, and late for one of its clients: the others' writes go on without it."""
    queue = WriteQueue(7)
    hurried = put(queue, b"a", deadline=1.0)
    put(queue, b"b", deadline=5.0)
    queue.refused(queue.due("leader"))
    queue.expire(1.0, lambda: False)
    assert isinstance(hurried.error, NoLeader)
    (batch,) = queue.due("leader")
    assert batch.commands == [encode_put(b"b", b"v")]


def test_lost_touch_hands_out_again() -> None:
    """A broken stream may have lost what was on it."""
    queue = WriteQueue(7)
    put(queue, b"a")
    (batch,) = queue.due("leader")
    queue.lost_touch()
    assert queue.due("leader") == [batch]


def test_a_batch_seen_twice_answers_once() -> None:
    """The second copy in the log finds nobody waiting."""
    queue = WriteQueue(7)
    client = put(queue, b"a")
    (batch,) = queue.due("leader")
    queue.applied(done(batch))
    queue.applied(replayed(batch))
    assert client.outcomes == [RESULT]
    assert len(queue) == 0


def test_an_overtaken_batch_is_numbered_anew() -> None:
    """Replayed while its clients still wait: it never happened, and is proposed again."""
    queue = WriteQueue(7)
    client = put(queue, b"a")
    (batch,) = queue.due("leader")
    queue.applied(replayed(batch))
    assert client.outcomes == []
    (fresh,) = queue.due("leader")
    assert fresh.number == 2
    assert fresh.commands == batch.commands
    queue.applied(done(fresh))
    assert client.outcomes == [RESULT]


def test_without_a_leader_a_late_write_promises_that_nothing_happened() -> None:
    """Never handed out: no_leader, not commit_unknown."""
    queue = WriteQueue(7)
    client = put(queue, b"a", deadline=1.0)
    queue.expire(0.9, lambda: False)
    assert client.outcomes == []
    queue.expire(1.0, lambda: False)
    assert isinstance(client.error, NoLeader)
    assert queue.due("leader") == []


def test_a_leader_that_only_refused_makes_it_overloaded() -> None:
    """Refused every time: nothing happened either."""
    queue = WriteQueue(7)
    client = put(queue, b"a", deadline=1.0)
    queue.refused(queue.due("leader"))
    queue.expire(1.0, lambda: True)
    assert isinstance(client.error, Overloaded)


def test_once_handed_out_the_fate_of_a_late_write_is_unknown() -> None:
    """Also when it was refused later on: the first copy may still be committed."""
    queue = WriteQueue(7)
    client = put(queue, b"a", deadline=1.0)
    queue.due("one leader")
    queue.refused(queue.due("another leader"))
    queue.expire(1.0, lambda: True)
    assert isinstance(client.error, CommitUnknown)
    assert len(queue) == 0


def test_an_expired_batch_makes_room_in_the_window() -> None:
    """What nobody waits for does not block what is waited for."""
    queue = WriteQueue(7, max_rounds=1)
    put(queue, b"a", deadline=1.0)
    queue.due("leader")
    put(queue, b"b")
    queue.expire(1.0, lambda: True)
    assert len(queue.due("leader")) == 1


def test_a_batch_with_patient_clients_stays() -> None:
    """Those in a hurry are answered, the others go on waiting."""
    queue = WriteQueue(7)
    hurried = put(queue, b"a", deadline=1.0)
    patient = put(queue, b"b", deadline=5.0)
    (batch,) = queue.due("leader")
    queue.expire(1.0, lambda: True)
    assert isinstance(hurried.error, CommitUnknown)
    assert patient.outcomes == []
    queue.applied(done(batch))
    assert patient.outcomes == [RESULT]


def test_late_commands_leave_a_gathering_batch() -> None:
    """Not handed out yet, a write answered no_leader must not be written afterwards."""
    queue = WriteQueue(7)
    put(queue, b"a", deadline=1.0)
    put(queue, b"b", deadline=5.0)
    queue.expire(1.0, lambda: False)
    (batch,) = queue.due("leader")
    assert len(batch.commands) == 1


def test_a_stopping_node_answers_everybody() -> None:
    """Those whose writes were handed out cannot be told that nothing happened."""
    queue = WriteQueue(7, max_rounds=1)
    handed_out = put(queue, b"a")
    queue.due("leader")
    gathering = put(queue, b"b")
    queue.fail_all(Stopping, "bye")
    assert isinstance(handed_out.error, CommitUnknown)
    assert isinstance(gathering.error, Stopping)
    assert len(queue) == 0


def test_a_snapshot_leaves_the_fate_of_what_it_may_include_unknown() -> None:
    """It is answered so and never handed out again; what still gathers is done as ever."""
    queue = WriteQueue(7, max_rounds=1)
    handed_out = put(queue, b"a")
    (batch,) = queue.due("leader")
    gathering = put(queue, b"b")
    queue.skipped(batch.number)
    assert isinstance(handed_out.error, CommitUnknown)
    queue.refused([batch])  # this answer comes too late to be of use
    queue.applied(replayed(batch))
    (next_batch,) = queue.due("other leader")
    assert len(next_batch.commands) == 1
    queue.applied(done(next_batch))
    assert gathering.outcomes == [RESULT]
    assert len(queue) == 0


def test_what_a_snapshot_cannot_include_goes_on() -> None:
    """A batch with a number above its origin's last one is handed out again, as it was."""
    queue = WriteQueue(7, max_rounds=1)
    waiter = put(queue, b"a")
    (batch,) = queue.due("leader")
    queue.skipped(batch.number - 1)
    assert queue.due("leader") == [batch]
    queue.applied(done(batch))
    assert waiter.outcomes == [RESULT]


def test_commands_without_a_key_share_a_batch() -> None:
    """Those about sessions write no key of a client's."""
    queue = WriteQueue(7)
    for _ in range(2):
        queue.add(b"open", None, Client(9.0))
    (batch,) = queue.due("leader")
    assert len(batch.commands) == 2
