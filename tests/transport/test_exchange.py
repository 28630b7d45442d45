"""Two or three real transports on loopback say everything they can to each other."""

from __future__ import annotations

import pytest

from anchor.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from anchor.transport import (
    CallRefused,
    ForwardClosed,
    JoinRequest,
    RemoveRequest,
    TransportOptions,
    Unreachable,
)
from tests.transport.harness import CLUSTER, append, incarnation_of, net_of


def test_an_append_arrives_and_its_answer_comes_back() -> None:
    """An AppendEntries arrives as it was sent, and so does its response."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        question = append("a", "b", 4, (b"one", b"\0two"), term=3, session=9, read_round=2)
        a.transport.send([question])
        b.until(lambda: b.heard)
        assert b.heard == [question]
        a.until(lambda: a.heard)
        (answer,) = a.of_kind(AppendEntriesResponse)
        assert (answer.match_index, answer.session, answer.read_round) == (6, 9, 2)
        assert (answer.sender, answer.recipient) == ("b", "a")


def test_appends_arrive_in_order_whether_joined_or_not() -> None:
    """Entries reach the member in log order, each exactly once."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        for index in range(0, 400, 2):
            a.transport.send([append("a", "b", index, (b"%d" % index, b"%d" % (index + 1)))])
        b.until(lambda: b.heard and b.of_kind(AppendEntries)[-1].entries[-1].index == 400)
        entries = [entry for message in b.of_kind(AppendEntries) for entry in message.entries]
        assert [entry.payload for entry in entries] == [b"%d" % n for n in range(400)]
        assert [entry.index for entry in entries] == list(range(1, 401))


def test_every_message_of_another_session_is_kept_apart() -> None:
    """Appends of two replication sessions are never joined into one."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        for session in range(1, 21):
            a.transport.send([append("a", "b", 0, (), session=session)])
        b.until(lambda: len(b.heard) == 20)
        assert [message.session for message in b.of_kind(AppendEntries)] == list(range(1, 21))


def test_a_leader_speaks_to_each_member_at_once() -> None:
    """Three members: a message goes to whom it is for, and nobody else."""
    with net_of("a", "b", "c") as net:
        a, b, c = (net.nodes[name] for name in "abc")
        a.transport.send([append("a", "b"), append("a", "c", 7)])
        b.until(lambda: b.heard)
        c.until(lambda: c.heard)
        a.until(lambda: len(a.heard) == 2)
        assert b.heard == [append("a", "b")]
        assert c.heard == [append("a", "c", 7)]


def test_a_vote_is_answered_over_its_own_call() -> None:
    """A RequestVote finds its recipient, and the core's answer its way back."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        question = RequestVote(5, "a", "b", 3, 2, leadership_transfer=True)
        a.transport.send([question])
        a.until(lambda: a.heard)
        assert b.heard == [question]
        assert a.heard == [RequestVoteResponse(5, "b", "a", vote_granted=True)]


def test_votes_and_pre_votes_are_told_apart() -> None:
    """A refused pre-vote carries another term, and still goes to who asked for a pre-vote."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        b.answers_votes = False
        a.transport.send([RequestVote(6, "a", "b", 3, 2, pre_vote=True)])
        b.until(lambda: len(b.heard) == 1)
        a.transport.send([RequestVote(6, "a", "b", 3, 2)])
        b.until(lambda: len(b.heard) == 2)
        b.transport.send([RequestVoteResponse(6, "b", "a", vote_granted=True)])
        b.transport.send([RequestVoteResponse(9, "b", "a", vote_granted=False, pre_vote=True)])
        a.until(lambda: len(a.heard) == 2)
        assert set(a.heard) == {
            RequestVoteResponse(6, "b", "a", vote_granted=True),
            RequestVoteResponse(9, "b", "a", vote_granted=False, pre_vote=True),
        }


def test_a_vote_that_the_core_ignores_ends_quietly() -> None:
    """No answer is no vote: the call ends with its deadline, and later votes work."""
    options = TransportOptions(silence_timeout_ms=600, vote_timeout_ms=100)
    with net_of("a", "b", options=options) as net:
        a, b = net.nodes["a"], net.nodes["b"]
        b.answers_votes = False
        a.transport.send([RequestVote(5, "a", "b", 3, 2)])
        b.until(lambda: b.heard)
        b.answers_votes = True
        a.transport.send([RequestVote(6, "a", "b", 3, 2)])
        a.until(lambda: a.heard)
        assert a.heard[-1].term == 6


def test_a_handover_arrives() -> None:
    """A TimeoutNow reaches the member it is for."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        a.transport.send([TimeoutNow(5, "a", "b")])
        b.until(lambda: b.heard)
        assert b.heard == [TimeoutNow(5, "a", "b")]


def test_what_is_for_nobody_we_know_is_dropped() -> None:
    """Sending to a stranger is no error: the core copes with loss."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        a.transport.send([append("a", "z"), RequestVote(5, "a", "z", 3, 2), append("a", "b")])
        b.until(lambda: b.heard)
        assert b.heard == [append("a", "b")]


def test_members_find_each_other_without_anything_to_say() -> None:
    """Idle members ping: each knows that the others live."""
    with net_of("a", "b", "c") as net:
        for name, node in net.nodes.items():
            for other in set("abc") - {name}:
                node.until(lambda n=node, o=other: n.transport.connected(o))  # type: ignore[misc]
        assert not net.nodes["a"].transport.connected("z")


def test_a_read_index_is_asked_and_answered() -> None:
    """Questions over a forward stream get their answers, by number."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        stream = a.transport.forward("b")
        stream.read_index(1)
        stream.read_index(2, lease=True)
        a.until(lambda: len(a.answers) == 2)
        assert [(r.number, r.read_index, r.term) for r in a.answers] == [(1, 71, 3), (2, 72, 3)]
        assert [(q.sender, q.read_index, q.lease) for q in b.asked] == [
            ("a", True, False),
            ("a", True, True),
        ]


def test_a_proposal_is_answered_only_when_refused() -> None:
    """An accepted proposal is silent; a refused one says why, and who leads."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        stream = a.transport.forward("b")
        stream.propose(1, [b"batch one", b"batch two"])
        stream.propose(2, [b"refuse me"])
        a.until(lambda: a.answers)
        assert b.asked[0].batches == (b"batch one", b"batch two")
        assert not b.asked[0].read_index
        (refusal,) = a.answers
        assert (refusal.number, refusal.error_code, refusal.leader_id) == (
            2,
            "not_leader",
            "somebody",
        )


def test_a_closed_forward_stream_takes_nothing_and_says_nothing() -> None:
    """After close there is no on_forward_broken, and asking raises ForwardClosed."""
    with net_of("a", "b") as net:
        a = net.nodes["a"]
        stream = a.transport.forward("b")
        stream.read_index(1)
        a.until(lambda: a.answers)
        stream.close()
        assert stream.closed
        with pytest.raises(ForwardClosed):
            stream.propose(2, [b"late"])
        second = a.transport.forward("b")
        second.read_index(3)
        a.until(lambda: len(a.answers) == 2)
        assert a.broken == []


def test_a_leader_that_stops_breaks_the_forward_stream_once() -> None:
    """Whatever ends the stream but our own close is told once."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        stream = a.transport.forward("b")
        stream.read_index(1)
        a.until(lambda: a.answers)
        b.transport.stop(0.1)
        a.until(lambda: a.broken)
        assert a.broken == ["b"]
        assert stream.closed


def test_forwarding_to_a_stranger_is_refused_at_once() -> None:
    """There is no stream to somebody who is not a member."""
    with net_of("a") as net, pytest.raises(Unreachable, match="z is not a member"):
        net.nodes["a"].transport.forward("z")


def test_anybody_may_ask_who_answers() -> None:
    """Identify needs no cluster and no membership."""
    with net_of("a", "b") as net:
        found = net.nodes["a"].transport.identify(net.members["b"].address, 5)
        assert (found.member_id, found.incarnation) == ("b", incarnation_of("b"))
        assert (found.cluster_id, found.version) == (CLUSTER, "test")


def test_joining_and_removing_are_asked_at_an_address() -> None:
    """Join and Remove carry all their fields there, and their answers back."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        request = JoinRequest("z", "z:1", "z:2", 77, voter=False, forwarded=True)
        answer = a.transport.join(net.members["b"].address, request, 5)
        assert b.joins == [request]
        assert (answer.cluster_id, answer.leader_id, answer.promoted) == (CLUSTER, "b", True)
        refusal = a.transport.remove(net.members["b"].address, RemoveRequest("z"), 5)
        assert b.removes == [RemoveRequest("z")]
        assert refusal.error_code == "last_voter"


def test_digests_are_compared() -> None:
    """A member's digest is known at some indexes, and not at others."""
    with net_of("a", "b") as net:
        a = net.nodes["a"]
        assert a.transport.compare_digest("b", 7, b"", 5) == b"digest of 7"
        assert a.transport.compare_digest("b", 8, b"majority", 5) is None
        with pytest.raises(Unreachable):
            a.transport.compare_digest("z", 7, b"", 5)


def test_nobody_there_is_unreachable() -> None:
    """A call to a closed port says so at once, in a few words."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        b.transport.stop(0)
        with pytest.raises(Unreachable, match="connection refused"):
            a.transport.identify(net.members["b"].address, 5)


def test_a_follower_answers_a_leader_it_does_not_know_yet() -> None:
    """Our configuration may be older than theirs: naming our incarnation is enough."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        b.transport.set_members([])
        a.transport.send([append("a", "b")])
        a.until(lambda: a.heard)
        assert b.heard == [append("a", "b")]
        a.transport.send([RequestVote(5, "a", "b", 3, 2)])
        a.until(lambda: a.of_kind(RequestVoteResponse))


def test_a_joiner_hears_its_leader_once_it_knows_its_cluster() -> None:
    """Without a cluster id everything is refused; with it the leader gets through soon."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        b.transport.set_members([])
        b.transport.set_cluster_id("")
        a.transport.send([append("a", "b")])
        a.until(lambda: a.disconnected)
        assert b.heard == []
        b.transport.set_cluster_id(CLUSTER)

        def try_again() -> bool:
            a.transport.send([append("a", "b")])
            return bool(a.heard)

        a.until(try_again)
        assert b.heard[0] == append("a", "b")


def test_remove_needs_the_cluster_id() -> None:
    """A Remove from outside the cluster is refused."""
    with net_of("a", "b") as net:
        a, b = net.nodes["a"], net.nodes["b"]
        a.transport.set_cluster_id("another")
        with pytest.raises(CallRefused, match="cluster"):
            a.transport.remove(net.members["b"].address, RemoveRequest("z"), 5)
        assert b.removes == []
