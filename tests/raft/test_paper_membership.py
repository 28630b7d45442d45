"""§6 and thesis chapter 4: learners, simple changes, joint consensus, removal, transfer."""

from __future__ import annotations

import pytest

from anchor.raft import AppendEntries, Configuration, Role, TimeoutNow, UnknownMember
from tests.raft.harness import Cluster, configuration
from tests.raft.messages import sent
from tests.raft.network import between


def led(
    voters: int = 3, *, learners: tuple[str, ...] = (), joiners: tuple[str, ...] = ()
) -> Cluster:
    """Give a cluster that n1 leads, caught up, and some empty servers that want in."""
    cluster = Cluster(voters, learners=learners)
    cluster.elect("n1")
    cluster.run(2 * cluster.options.heartbeat_ticks)
    for joiner in joiners:
        cluster.add(joiner)
    return cluster


def in_force(cluster: Cluster) -> dict[str, Configuration]:
    """Give the configuration each server that is up goes by."""
    return {server.id: server.raft.configuration for server in cluster.up()}


def test_a_learner_gets_the_log_and_has_no_vote() -> None:
    """Thesis §4.2.1: a non-voting member is replicated to and counted in no majority."""
    cluster = led(2, learners=("n3",))
    cluster["n2"].crash()
    cluster["n1"].propose(b"x")
    cluster.run(3)
    assert cluster["n3"].raft.last_log_index == 3
    assert cluster["n1"].raft.commit_index == 2
    assert cluster["n3"].raft.is_learner


def test_a_learner_does_not_campaign() -> None:
    """Thesis §4.2.1: it waits for a leader, however long."""
    cluster = led(3, learners=("n4",))
    cluster.isolate("n4")
    cluster.run(100)
    assert cluster["n4"].raft.role is Role.FOLLOWER
    cluster["n4"].campaign()
    assert cluster["n4"].raft.role is Role.FOLLOWER


def test_a_new_server_is_added_as_learner_and_caught_up() -> None:
    """§6: new servers join first as non-voting members, so that the cluster stays available."""
    cluster = led(3, joiners=("n4",))
    cluster.commit(b"a", b"b")
    cluster["n1"].propose_configuration(configuration(["n1", "n2", "n3"], learners=["n4"]))
    cluster.run(5)
    assert cluster["n4"].commands == [b"a", b"b"]
    assert cluster["n4"].raft.configuration == cluster["n1"].raft.configuration
    assert cluster["n4"].raft.is_learner


def test_promoting_a_learner_is_one_simple_change() -> None:
    """Thesis §4.1: one voter more or less needs no joint configuration."""
    cluster = led(3, learners=("n4",))
    target = configuration(["n1", "n2", "n3", "n4"])
    cluster["n1"].propose_configuration(target)
    assert cluster["n1"].raft.configuration == target
    cluster.run(5)
    assert in_force(cluster) == dict.fromkeys(["n1", "n2", "n3", "n4"], target)
    assert not cluster["n4"].raft.is_learner
    assert cluster["n1"].raft.committed_configuration == target


def test_a_configuration_is_in_force_when_appended() -> None:
    """§6: a server uses the latest configuration in its log, committed or not."""
    cluster = led(3)
    target = configuration(["n1", "n2"])
    cluster["n1"].propose_configuration(target)
    assert cluster["n1"].raft.configuration == target
    assert cluster["n1"].raft.committed_configuration == cluster.initial
    cluster.deliver(between("n1", "n2"))
    assert cluster["n2"].raft.configuration == target
    assert cluster["n2"].raft.commit_index == 2


def test_a_change_is_committed_by_the_new_configuration() -> None:
    """Thesis §4.1: the new configuration's majority commits its own entry."""
    cluster = led(3, learners=("n4",))
    for other in ("n3", "n4"):
        cluster.network.cut("n1", other)
    cluster["n1"].propose_configuration(configuration(["n1", "n2", "n3", "n4"]))
    cluster.run(3)
    assert cluster["n1"].raft.commit_index == 2  # n1 and n2 are two of four
    cluster.heal()
    cluster.run(6)
    assert cluster["n1"].raft.commit_index == 3


@pytest.mark.parametrize(
    ("old_up", "new_up", "commits"),
    [(2, 1, False), (1, 2, False), (2, 2, True), (1, 1, False)],
)
def test_joint_consensus_needs_both_majorities(old_up: int, new_up: int, *, commits: bool) -> None:
    """§6: agreement needs separate majorities of the old and of the new configuration.

    Old: n1 n2 n3, new: n1 n4 n5. The counts say how many of each are up, n1 included.
    """
    cluster = led(3, joiners=("n4", "n5"))
    cluster["n1"].propose_configuration(configuration(["n1", "n2", "n3"], learners=["n4", "n5"]))
    cluster.run(6)
    base = cluster["n1"].raft.commit_index
    cluster.crash(*["n2", "n3"][old_up - 1 :], *["n4", "n5"][new_up - 1 :])
    cluster["n1"].propose_configuration(configuration(["n1", "n4", "n5"]))
    joint = cluster["n1"].raft.configuration
    assert joint.voters == {"n1", "n4", "n5"}
    assert joint.voters_outgoing == {"n1", "n2", "n3"}
    cluster.run(4)
    assert (cluster["n1"].raft.commit_index > base) is commits


def test_swapping_one_voter_for_another_is_a_joint_change() -> None:
    """Thesis §4.1: two voters change at once: old and new majorities need not share a member."""
    cluster = led(3, learners=("n4",))
    cluster["n1"].propose_configuration(configuration(["n1", "n2", "n4"]))
    assert cluster["n1"].raft.configuration.voters_outgoing == {"n1", "n2", "n3"}


def test_joint_consensus_ends_by_itself_in_the_new_configuration() -> None:
    """§6: once C_old,new is committed the leader appends C_new; old servers are then out."""
    cluster = led(3, joiners=("n4", "n5"))
    target = configuration(["n1", "n4", "n5"])
    cluster["n1"].propose_configuration(target)
    cluster.run(15)
    assert cluster["n1"].raft.committed_configuration == target
    assert cluster["n4"].raft.configuration == cluster["n5"].raft.configuration == target
    cluster.crash("n2", "n3")
    cluster.commit(b"x")
    assert cluster["n5"].commands == [b"x"]


def test_elections_during_the_joint_phase_need_both_majorities() -> None:
    """§6: so do elections: neither the old nor the new majority alone elects a leader."""
    cluster = led(3, joiners=("n4", "n5"))
    cluster["n1"].propose_configuration(configuration(["n1", "n2", "n3"], learners=["n4", "n5"]))
    cluster.run(6)
    cluster.network.hold(lambda m: isinstance(m, AppendEntries) and m.commit_index >= 4)
    cluster["n1"].propose_configuration(configuration(["n1", "n4", "n5"]))
    cluster.deliver()
    cluster.crash("n1")
    cluster.network.held.clear()
    cluster.network.release()
    for server in cluster.up():
        assert server.raft.configuration.voters_outgoing == {"n1", "n2", "n3"}
    cluster.isolate("n4", "n5")
    cluster.run(60)
    assert cluster.leaders() == []
    cluster.heal()
    cluster.run_until(cluster.leaders)
    cluster.run(10)
    assert cluster.leader().raft.configuration == configuration(["n1", "n4", "n5"])


def test_a_new_leader_finishes_a_joint_change_it_inherits() -> None:
    """§6: the change outlives the leader that began it."""
    cluster = led(3, joiners=("n4", "n5"))
    cluster["n1"].propose_configuration(configuration(["n1", "n2", "n3"], learners=["n4", "n5"]))
    cluster.run(6)
    cluster.network.hold(lambda m: isinstance(m, AppendEntries) and m.commit_index >= 4)
    cluster["n1"].propose_configuration(configuration(["n2", "n3", "n4"]))
    cluster.deliver()
    cluster.crash("n1")
    cluster.network.held.clear()
    cluster.network.release()
    cluster.run_until(cluster.leaders, ticks_max=100)
    cluster.run(15)
    assert cluster.leader().raft.committed_configuration == configuration(["n2", "n3", "n4"])


def test_a_second_change_waits_for_the_first() -> None:
    """Thesis §4.1: the next change only after the last one is committed."""
    cluster = led(3, learners=("n4",))
    leader = cluster["n1"]
    leader.propose_configuration(configuration(["n1", "n2", "n3", "n4"]))
    target = configuration(["n1", "n2", "n3"])
    assert cluster.refused(lambda: leader.propose_configuration(target)) == "ChangeInProgress"
    cluster.run(5)
    leader.propose_configuration(target)


def test_a_change_waits_for_the_end_of_the_joint_phase() -> None:
    """§6: C_new has to be committed before the next change."""
    cluster = led(3, joiners=("n4", "n5"))
    leader = cluster["n1"]
    cluster.network.hold(between(recipient="n1"))
    leader.propose_configuration(configuration(["n1", "n4", "n5"]))
    cluster.deliver()
    assert (
        cluster.refused(lambda: leader.propose_configuration(cluster.initial)) == "ChangeInProgress"
    )


def test_the_leader_removes_itself_after_committing_the_change() -> None:
    """§6: a leader that is not in C_new steps down once C_new is committed, not counting itself."""
    cluster = led(3)
    leader = cluster["n1"]
    leader.propose_configuration(configuration(["n2", "n3"]))
    cluster.deliver(between("n1", "n2"))
    cluster.deliver(between("n2", "n1"))
    assert leader.raft.commit_index == 2  # n2 alone is no majority of n2 and n3
    assert cluster.leaders() == ["n1"]
    cluster.run(3)
    assert cluster.leaders() == []
    cluster.run_until(lambda: set(cluster.leaders()) - {"n1"})
    cluster.commit(b"x")
    assert cluster["n3"].commands == [b"x"]


def test_a_removed_server_is_told_and_stays_quiet() -> None:
    """§6, the third issue: a removed server must not disrupt: it knows, and does not campaign."""
    cluster = led(3)
    cluster["n1"].propose_configuration(configuration(["n1", "n2"]))
    cluster.run(6)
    cluster.network.take_sent()
    term = cluster["n1"].raft.term
    cluster.run(100)
    assert cluster["n1"].raft.term == term
    assert cluster.leaders() == ["n1"]


def test_a_removed_server_that_heard_nothing_disturbs_nobody() -> None:
    """§6: servers that believe a leader exists disregard RequestVote."""
    cluster = led(3)
    cluster.isolate("n3")
    cluster["n1"].propose_configuration(configuration(["n1", "n2"]))
    cluster.run(30)
    cluster.heal()
    term = cluster["n1"].raft.term
    cluster.run(100)
    assert cluster["n1"].raft.term == term
    assert cluster.leaders() == ["n1"]


def test_a_server_comes_back_after_removal() -> None:
    """§6: removed, then added again: it takes part as before."""
    cluster = led(3)
    cluster["n1"].propose_configuration(configuration(["n1", "n2"]))
    cluster.run(6)
    cluster["n1"].propose_configuration(cluster.initial)
    cluster.run(6)
    cluster.crash("n2")
    cluster.commit(b"x")
    assert cluster["n3"].commands == [b"x"]


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(configuration([]), id="no voter left"),
        pytest.param(configuration([], learners=["n1"]), id="only learners"),
        pytest.param(configuration(["n1"], outgoing=["n1", "n2"]), id="joint by hand"),
        pytest.param(configuration(["n1", "n2"], learners=["n2"]), id="voter and learner at once"),
        pytest.param(Configuration({}, frozenset({"n1"})), id="a voter that is no member"),
    ],
)
def test_a_nonsense_configuration_is_refused(target: Configuration) -> None:
    """InvalidConfiguration says why, and nothing is appended."""
    cluster = led(3)
    leader = cluster["n1"]
    before = leader.raft.last_log_index
    assert cluster.refused(lambda: leader.propose_configuration(target)) == "InvalidConfiguration"
    assert leader.raft.last_log_index == before


def test_followers_refuse_changes() -> None:
    """§6: only the leader changes the configuration."""
    cluster = led(3)
    assert (
        cluster.refused(lambda: cluster["n2"].propose_configuration(cluster.initial)) == "NotLeader"
    )


def test_a_server_whose_removal_is_not_committed_still_campaigns() -> None:
    """Thesis §4.2.2: it might be needed until C_new is committed: it may have the only full log.

    n1 appended its own removal and more, and n2 has none of it: only n1 can be elected, by
    n2's vote, and only to commit its own removal.
    """
    cluster = led(2)
    leader = cluster["n1"]
    cluster.isolate("n1")
    leader.propose_configuration(configuration(["n2"]))
    leader.propose(b"x")
    cluster.run(3 * cluster.options.election_timeout_ticks)
    assert cluster.leaders() == []
    cluster.heal()
    cluster.run(8 * cluster.options.election_timeout_ticks)
    assert cluster.leaders() == ["n2"]
    assert cluster["n2"].commands == [b"x"]
    assert cluster["n2"].raft.committed_configuration == configuration(["n2"])


# Leadership transfer (thesis §3.10) --------------------------------------------------------


def test_leadership_goes_to_the_member_asked_for() -> None:
    """Thesis §3.10: the leader brings the target up to date and tells it to campaign at once."""
    cluster = led(3)
    cluster["n1"].transfer_leadership("n3")
    cluster.deliver()
    assert cluster.leaders() == ["n3"]
    assert cluster["n3"].raft.term == 3


def test_the_target_is_brought_up_to_date_first() -> None:
    """Thesis §3.10: TimeoutNow is sent only when the target's log is the leader's."""
    cluster = led(3)
    cluster.network.hold(between("n1", "n3"))
    cluster["n1"].propose(b"x")
    cluster.deliver()
    cluster["n1"].transfer_leadership("n3")
    cluster.deliver()
    sent_before = [m for m in cluster.network.sent if isinstance(m, TimeoutNow)]
    cluster.network.release()
    cluster.deliver()
    assert sent_before == []
    assert cluster.leaders() == ["n3"]
    assert cluster["n3"].commands == [b"x"]


def test_a_leader_takes_no_proposals_while_handing_over() -> None:
    """Thesis §3.10: it stops accepting client requests until the transfer is over."""
    cluster = led(3)
    cluster["n1"].transfer_leadership("n3")
    assert cluster["n1"].raft.transferring_to == "n3"
    assert cluster.refused(lambda: cluster["n1"].propose(b"x")) == "TransferInProgress"


def test_a_transfer_that_fails_is_given_up_after_an_election_timeout() -> None:
    """Thesis §3.10: if it takes an election timeout the leader aborts and serves again."""
    cluster = led(3)
    cluster.isolate("n3")
    cluster["n1"].transfer_leadership("n3")
    cluster.run(cluster.options.election_timeout_ticks + 1)
    assert cluster["n1"].raft.transferring_to is None
    assert cluster["n1"].is_leader
    cluster.commit(b"x")


def test_a_transfer_to_one_that_is_lost_is_given_up_at_once() -> None:
    """§3.10: whoever died will not take over; that another is lost changes nothing."""
    cluster = led(3)
    cluster.isolate("n2")
    cluster["n1"].transfer_leadership("n2")
    cluster["n1"].raft.disconnected("n3")
    assert cluster.refused(lambda: cluster["n1"].propose(b"x")) == "TransferInProgress"
    cluster["n1"].raft.disconnected("n2")
    cluster.commit(b"x")


def test_transfer_goes_to_voters_only() -> None:
    """Thesis §3.10: a learner or a stranger cannot lead, and to oneself is no transfer."""
    cluster = led(3, learners=("n4",))
    before = cluster.statuses()
    for target in ("n4", "stranger", "n1"):
        with pytest.raises(UnknownMember):
            cluster["n1"].transfer_leadership(target)
    assert cluster.refused(lambda: cluster["n2"].transfer_leadership("n3")) == "NotLeader"
    assert cluster.statuses() == before


def test_a_second_transfer_waits_for_the_first() -> None:
    """One at a time: the first target may campaign at any moment."""
    cluster = led(3)
    cluster.isolate("n3")
    cluster["n1"].transfer_leadership("n3")
    refused = cluster.refused(lambda: cluster["n1"].transfer_leadership("n2"))
    assert refused == "TransferInProgress"
    cluster.run(cluster.options.election_timeout_ticks + 1)
    cluster["n1"].transfer_leadership("n2")
    cluster.deliver()
    assert "n2" in cluster.leaders()


def test_timeout_now_is_ignored_by_who_cannot_lead() -> None:
    """Thesis §3.10: a learner told to campaign does not; nor a late one of an old term."""
    cluster = led(3, learners=("n4",))
    cluster["n4"].step(TimeoutNow(cluster["n1"].raft.term, "n1", "n4"))
    assert cluster["n4"].raft.role is Role.FOLLOWER
    cluster["n2"].step(TimeoutNow(1, "n1", "n2"))
    assert cluster["n2"].raft.role is Role.FOLLOWER


def test_a_transfer_needs_no_pre_vote_and_overrides_stickiness() -> None:
    """Thesis §4.2.3: the request says that it is a transfer, so voters do not disregard it."""
    cluster = led(5)
    cluster["n1"].transfer_leadership("n2")
    sent(cluster, TimeoutNow)
    ticks = cluster.run_until(lambda: cluster["n2"].is_leader)
    assert ticks <= 1
