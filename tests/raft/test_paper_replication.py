"""§5.3, §5.4, and the leader's rules of Figure 2: how entries get on every log, and committed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anchor.raft import AppendEntries, AppendEntriesResponse, EntryKind, NotLeader, Overloaded, Role
from tests.raft.harness import Cluster
from tests.raft.messages import acknowledgement, sent
from tests.raft.network import between
from tests.raft.server import OPTIONS


def led(size: int = 3, **keywords: object) -> Cluster:
    """Give a cluster that n1 leads, all quiet and caught up."""
    cluster = Cluster(size, **keywords)  # type: ignore[arg-type]
    cluster.elect("n1")
    cluster.run(2 * cluster.options.heartbeat_ticks)
    assert {server.raft.commit_index for server in cluster.up()} == {2}
    cluster.network.take_sent()
    return cluster


def test_a_new_leader_appends_a_noop_of_its_term() -> None:
    """§8: a leader commits a blank no-op at the start of its term."""
    cluster = Cluster(3)
    leader = cluster.elect("n1")
    entry = leader.disk.written.entries[-1]
    assert (entry.kind, entry.payload, entry.term) == (EntryKind.NOOP, b"", leader.raft.term)


def test_a_command_is_appended_with_the_leaders_term_and_the_next_index() -> None:
    """§5.3: each entry stores a command and the term when the leader received it."""
    cluster = led()
    proposed = cluster["n1"].propose(b"x", b"y")
    assert (proposed.first_index, proposed.last_index) == (3, 4)
    assert proposed.term == cluster["n1"].raft.term
    appended = cluster["n1"].disk.written.entries[-2:]
    assert [(e.index, e.term, e.payload) for e in appended] == [
        (3, proposed.term, b"x"),
        (4, proposed.term, b"y"),
    ]


def test_entries_are_sent_to_every_other_member_with_what_precedes_them() -> None:
    """§5.3: AppendEntries carry the index and term of the entry right before the new ones."""
    cluster = led()
    proposed = cluster["n1"].propose(b"x")
    messages = sent(cluster, AppendEntries)
    assert {m.recipient for m in messages} == {"n2", "n3"}
    for message in messages:
        assert (message.prev_log_index, message.prev_log_term) == (2, proposed.term)
        assert [e.payload for e in message.entries] == [b"x"]


def test_an_entry_on_a_majority_is_committed_and_applied() -> None:
    """§5.3: committed once replicated on a majority; the leader applies it then, not before."""
    cluster = led(5)
    leader = cluster["n1"]
    leader.propose(b"x")
    cluster.deliver(between("n1", "n2"))
    cluster.deliver(between("n2", "n1"))
    assert (leader.raft.commit_index, leader.commands) == (2, [])
    cluster.deliver(between("n1", "n3"))
    cluster.deliver(between("n3", "n1"))
    assert (leader.raft.commit_index, leader.commands) == (3, [b"x"])


def test_followers_learn_the_commit_index_from_later_appends() -> None:
    """§5.3: the highest committed index travels in AppendEntries, heartbeats included."""
    cluster = led()
    cluster["n1"].propose(b"x")
    cluster.deliver()
    assert cluster["n2"].commands == []
    cluster.run(cluster.options.heartbeat_ticks)
    assert cluster["n2"].commands == cluster["n3"].commands == [b"x"]


def test_a_follower_whose_client_waits_hears_of_the_commit_at_once() -> None:
    """want_commit: the member is told as soon as the index is committed, without a heartbeat."""
    cluster = led()
    proposed = cluster["n1"].propose(b"x")
    cluster["n1"].want_commit("n2", proposed.last_index)
    cluster.deliver()
    assert cluster["n2"].commands == [b"x"]
    assert cluster["n3"].commands == []


def test_a_follower_is_told_at_once_of_what_is_committed_already() -> None:
    """want_commit asked late: the answer leaves at once."""
    cluster = led()
    proposed = cluster["n1"].propose(b"x")
    cluster.deliver()
    cluster["n1"].want_commit("n3", proposed.last_index)
    cluster.deliver()
    assert cluster["n3"].commands == [b"x"]


def test_all_logs_become_the_leaders() -> None:
    """§5.3: in the end every server's log and state are the same."""
    cluster = led(5)
    for i in range(20):
        cluster["n1"].propose(b"%d" % i)
        cluster.run()
    cluster.run(5)
    assert len({server.state.digest for server in cluster.up()}) == 1
    assert {tuple(server.log_terms()) for server in cluster.up()} == {(1, *[2] * 21)}


def test_next_index_starts_after_the_leaders_last_entry() -> None:
    """Figure 2, leaders: nextIndex is initialized to the leader's last log index + 1.

    The first append may carry the new no-op already, but nothing older.
    """
    cluster = Cluster(3, logs={f"n{i}": (1, 1, 1, 1) for i in (1, 2, 3)})
    cluster.elect("n1")
    first = next(m for m in cluster.network.sent if isinstance(m, AppendEntries))
    assert first.prev_log_index in (4, 5)
    assert all(entry.index >= 5 for entry in first.entries)


def test_match_index_starts_at_zero_and_only_rises() -> None:
    """Figure 2, leaders: matchIndex is initialized to 0 and increases monotonically."""
    cluster = led()
    leader = cluster["n1"]
    session = sessions(cluster)["n2"]
    leader.propose(b"x")
    cluster.deliver()
    assert leader.raft.progress["n2"].match_index == 3
    leader.step(acknowledgement(leader.raft.term, 2, session=session))
    assert leader.raft.progress["n2"].match_index == 3
    assert leader.raft.progress["n2"].next_index == 4


def sessions(cluster: Cluster) -> dict[str, int]:
    """Give the session of the newest append to each member."""
    cluster.tick(cluster.options.heartbeat_ticks, only=["n1"])
    found = {m.recipient: m.session for m in cluster.network.sent if isinstance(m, AppendEntries)}
    cluster.deliver()
    return found


def test_a_refusal_moves_next_index_back_and_asks_again() -> None:
    """Figure 2, leaders: AppendEntries fails for inconsistency: decrement nextIndex and retry."""
    cluster = Cluster(3, logs={"n1": (1, 1, 1, 2, 2), "n2": (1, 1), "n3": (1, 1, 1, 2, 2)})
    cluster.elect("n1")
    cluster.deliver()
    refusals = [
        m for m in cluster.network.sent if isinstance(m, AppendEntriesResponse) and not m.success
    ]
    assert refusals
    assert all(m.sender == "n2" for m in refusals)
    assert cluster["n2"].log_terms() == [1, 1, 1, 2, 2, 3]


def test_lost_appends_are_sent_again_until_stored() -> None:
    """§5.3: the leader retries indefinitely, even after it has answered the client."""
    cluster = led()
    cluster.network.cut("n1", "n3")
    cluster.commit(b"x")
    assert cluster["n3"].raft.last_log_index == 2
    cluster.heal()
    cluster.run(4 * cluster.options.heartbeat_ticks)
    assert cluster["n3"].commands == [b"x"]


def test_lost_acknowledgements_are_made_up_for() -> None:
    """§5.5: a repeated append is acknowledged again, so a lost answer only costs time."""
    cluster = led()
    for follower in ("n2", "n3"):
        cluster.network.cut(follower, "n1")
    cluster["n1"].propose(b"x")
    cluster.deliver()
    assert cluster["n1"].raft.commit_index == 2
    cluster.heal()
    cluster.run(3 * cluster.options.heartbeat_ticks)
    assert cluster["n1"].raft.commit_index == 3


def test_reordered_and_repeated_appends_end_in_the_same_log() -> None:
    """§5.5: whatever the network does, the log is the leader's."""
    cluster = led()
    for i in range(6):
        cluster["n1"].propose(b"%d" % i)
    cluster.network.duplicate()
    cluster.network.reverse()
    cluster.deliver()
    cluster.run(4 * cluster.options.heartbeat_ticks)
    assert cluster["n2"].commands == [b"%d" % i for i in range(6)] == cluster["n3"].commands


def test_appends_are_pipelined() -> None:
    """Thesis §10.2.1: in the ordinary case the next append leaves before the last is answered."""
    cluster = led()
    for i in range(5):
        cluster["n1"].propose(b"%d" % i)
    to_n2 = sent(cluster, AppendEntries, recipient="n2")
    assert [m.prev_log_index for m in to_n2] == [2, 3, 4, 5, 6]


def test_the_window_bounds_what_is_in_flight_by_count() -> None:
    """Options.max_inflight_appends: a member that does not answer is not buried in appends."""
    cluster = led(options=replace(OPTIONS, max_inflight_appends=4))
    for i in range(20):
        cluster["n1"].propose(b"%d" % i)
    assert len(sent(cluster, AppendEntries, recipient="n2")) == 4
    cluster.deliver()
    assert cluster["n1"].raft.commit_index == 22


def test_the_window_bounds_what_is_in_flight_by_bytes() -> None:
    """Options.max_inflight_bytes: large entries wait for answers as well."""
    cluster = led(options=replace(OPTIONS, max_inflight_bytes=3000))
    for _ in range(20):
        cluster["n1"].propose(bytes(1000))
    messages = sent(cluster, AppendEntries, recipient="n2")
    assert 2 <= len(messages) <= 4
    cluster.deliver()
    assert cluster["n1"].raft.commit_index == 22


def test_an_append_is_bounded_in_bytes_but_holds_at_least_one_entry() -> None:
    """Options.max_append_bytes: many small entries are split, one large goes alone."""
    cluster = led(options=replace(OPTIONS, max_append_bytes=500))
    cluster["n1"].propose(*[bytes(100)] * 10, bytes(5000))
    cluster.deliver()
    appended = [m for m in sent(cluster, AppendEntries, recipient="n2") if m.entries]
    for message in appended:
        assert len(message.entries) == 1 or sum(e.size_bytes for e in message.entries) <= 500
    assert cluster["n1"].raft.commit_index == 13


def test_a_full_window_does_not_keep_heartbeats_back() -> None:
    """§5.2: heartbeats go on whatever is in flight, else a busy leader would be deposed."""
    cluster = led(options=replace(OPTIONS, max_inflight_appends=1))
    for i in range(5):
        cluster["n1"].propose(b"%d" % i)
    sent(cluster, AppendEntries)
    cluster.tick(cluster.options.heartbeat_ticks, only=["n1"])
    assert sent(cluster, AppendEntries, recipient="n2")


def test_a_heartbeat_does_not_commit_past_what_the_member_has() -> None:
    """Figure 2, AppendEntries 5: a heartbeat's commit index is bounded by what it verified."""
    cluster = led()
    cluster.network.cut("n1", "n3")
    cluster.commit(b"x", b"y")
    cluster.heal()
    cluster.tick(cluster.options.heartbeat_ticks, only=["n1"])
    cluster.deliver(between("n1", "n3"), count=1)
    assert cluster["n3"].raft.commit_index == 2


def test_a_follower_with_more_in_its_log_than_the_leader_commits_nothing_of_it() -> None:
    """Figure 2, AppendEntries 5: a heartbeat never commits what the follower alone holds."""
    cluster = Cluster(3, logs={"n3": (1, 1, 1, 1)}, terms={"n1": 3, "n2": 3})
    cluster["n3"].crash()
    leader = cluster.elect("n1")
    cluster.commit(b"a", b"b", b"c")
    cluster.restart("n3")
    cluster.run(5)
    assert cluster["n3"].log_terms() == leader.log_terms()
    assert cluster["n3"].commands == [b"a", b"b", b"c"]


@pytest.mark.parametrize("eager", [True, False])
def test_a_single_member_commits_by_itself(*, eager: bool) -> None:
    """§5.3: a majority of one: but only its disk makes it one."""
    cluster = Cluster(1, eager=eager)
    leader = cluster.elect("n1")
    leader.auto_persist = False
    leader.propose(b"x")
    assert leader.commands == []
    leader.persist()
    assert leader.commands == [b"x"]


def test_followers_refuse_proposals_and_say_who_leads() -> None:
    """§5.1: followers redirect clients to the leader."""
    cluster = led()
    for member_id in ("n2", "n3"):
        follower = cluster[member_id]
        assert follower.raft.leader_id == "n1"
        with pytest.raises(NotLeader) as refused:
            follower.propose(b"x")
        assert refused.value.leader_id == "n1"


def test_a_deposed_leader_stops_counting() -> None:
    """§5.1: who discovers a newer term is a follower; late acknowledgements do nothing."""
    cluster = led()
    leader = cluster["n1"]
    term = leader.raft.term
    session = sessions(cluster)["n2"]
    leader.propose(b"x")
    leader.step(acknowledgement(term + 1, 0, session=0, sender="n3"))
    assert leader.raft.role is Role.FOLLOWER
    leader.step(acknowledgement(term, 3, session=session))
    assert leader.raft.commit_index == 2


def test_the_leader_refuses_more_than_it_can_hold_uncommitted() -> None:
    """Options.max_uncommitted_bytes: refused whole, nothing appended, possible later."""
    cluster = led(options=replace(OPTIONS, max_uncommitted_bytes=3000))
    leader = cluster["n1"]
    for _ in range(3):
        leader.propose(bytes(1000))
    with pytest.raises(Overloaded):
        leader.propose(bytes(1000))
    assert leader.raft.last_log_index == 5
    cluster.deliver()
    leader.propose(bytes(1000))


def test_one_proposal_larger_than_the_bound_is_still_taken_when_nothing_waits() -> None:
    """Options.max_uncommitted_bytes: a single large batch is not refused for ever."""
    cluster = led(options=replace(OPTIONS, max_uncommitted_bytes=100))
    cluster["n1"].propose(bytes(1000))
    cluster.deliver()
    assert cluster["n1"].raft.commit_index == 3


def test_committed_entries_are_handed_out_in_bounded_pieces() -> None:
    """Options.max_committed_bytes: a Ready hands out a bounded range; nothing is left behind."""
    cluster = led(options=replace(OPTIONS, max_committed_bytes=300))
    ranges: list[int] = []
    leader = cluster["n1"]
    original = leader._handle

    def measure(ready: object) -> None:
        committed = ready.committed  # type: ignore[attr-defined]
        ranges.append(sum(entry.size_bytes for entry in committed))
        original(ready)  # type: ignore[arg-type]

    leader._handle = measure  # type: ignore[method-assign]
    leader.propose(*[bytes(90)] * 20)
    cluster.deliver()
    assert len(leader.commands) == 20
    assert max(ranges) <= 300


def test_a_broken_stream_starts_over_with_a_probe() -> None:
    """disconnected(): what was in flight is in doubt; the leader asks anew, in a new session."""
    cluster = led()
    leader = cluster["n1"]
    old = sessions(cluster)["n2"]
    leader.propose(b"x")
    cluster.network.drop(between("n1", "n2"))
    leader.disconnected("n2")
    assert leader.raft.progress["n2"].state.value == "probe"
    assert sessions(cluster)["n2"] != old
    cluster.run(2 * cluster.options.heartbeat_ticks)
    assert leader.raft.progress["n2"].state.value == "replicate"
    assert cluster["n2"].commands == [b"x"]


def test_news_of_a_commit_wait_for_entries_the_window_keeps_back() -> None:
    """want_commit of an index the member has not been sent yet: said once, with the entries."""
    cluster = led(options=replace(OPTIONS, max_inflight_appends=1))
    leader = cluster["n1"]
    cluster.network.hold(between("n1", "n3"))
    for i in range(4):
        leader.propose(b"%d" % i)
    leader.want_commit("n3", leader.raft.last_log_index)
    cluster.deliver()
    assert leader.raft.commit_index == 6
    assert len(cluster.network.held) <= 3
    cluster.network.release()
    cluster.deliver()
    assert cluster["n3"].commands == [b"0", b"1", b"2", b"3"]
