"""Timers and votes: when a member campaigns, whom it elects, and how votes are counted.

§5.2 and §5.4.1, with the pre-vote of thesis §9.6 before each campaign. All but the timers and the
count is the core's state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.raft.candidacy import Candidacy
from anchor.raft.interface import Role
from anchor.raft.messages import RequestVote, RequestVoteResponse, TimeoutNow

if TYPE_CHECKING:
    import random

    from anchor.raft.raft import Raft


class Elections:
    """Of one member, in any role."""

    def __init__(self, core: Raft, rng: random.Random) -> None:
        self._core = core
        self._options = core.options
        self._rng = rng
        self._candidacy = Candidacy()
        self._elapsed_ticks = 0
        self._timeout_ticks = 0
        self.start_timer()
        # §6, thesis §4.2.3: for an election timeout after it has heard a leader, a member gives
        # nobody its vote, itself included; leases count on it (§6.4.1), whatever term others
        # talk of meanwhile. It may have heard one just before it was restarted.
        self._withholding_ticks = self._options.election_timeout_ticks if core.term else 0

    # ----------------------------------------------------------------- time

    def start_timer(self) -> None:
        """§5.2: randomised, so that splits are rare and do not repeat."""
        least = self._options.election_timeout_ticks
        self._elapsed_ticks = 0
        self._timeout_ticks = self._rng.randrange(least, 2 * least)

    def heard_leader(self) -> None:
        """A leader sent something: no election for now, and no vote for others."""
        self.start_timer()
        self._withholding_ticks = self._options.election_timeout_ticks

    def tick(self) -> None:
        """Time passed; who leads holds no elections."""
        if self._withholding_ticks:
            self._withholding_ticks -= 1
        core = self._core
        if core.role is Role.LEADER:
            return
        self._elapsed_ticks += 1
        if self._elapsed_ticks >= self._timeout_ticks:
            if core.role is Role.FOLLOWER:
                core.leader_id = None  # also where it has no vote and cannot do more about it
            self.campaign()

    def _hasten_next(self) -> None:
        """Somebody has voted for another: this term may stay without a leader.

        Waiting a whole timeout for one would double the time a cluster is without. If somebody is
        elected after all, it is heard before, or the pre-vote disturbs nobody.
        """
        soon = self._elapsed_ticks + self._rng.randrange(self._options.election_timeout_ticks)
        self._timeout_ticks = min(self._timeout_ticks, soon)

    # ----------------------------------------------------------------- asking

    def campaign(self) -> None:
        """Try to become leader, if this member has a vote itself and may give it."""
        core = self._core
        self.start_timer()
        if core.role is Role.LEADER or not self._may_campaign():
            return
        if not self._withholding_ticks or core.configuration.is_quorum({core.id}):
            self._ask_for_pre_votes()

    def _may_campaign(self) -> bool:
        """Whether it has a vote, or loses it by a change that is not committed.

        Thesis §4.2.2: such a member may hold the only log that can win, and finishes the change.
        Its own vote then counts in no majority it is not part of. Without room it could not even
        append the entry that a new leader begins with.
        """
        core = self._core
        if core.is_told_removed or not core.has_room:
            return False
        if core.configuration.has_vote(core.id):
            return True
        is_pending = core.configuration_index > core.log.commit_index
        return is_pending and core.committed_configuration.has_vote(core.id)

    def _ask_for_pre_votes(self) -> None:
        core = self._core
        core.become_pre_candidate()
        self._candidacy = Candidacy()
        self._count_vote(core.id, granted=True)
        if core.role is Role.PRE_CANDIDATE:
            self._request_votes(core.term + 1, pre_vote=True)

    def _ask_for_votes(self, *, leadership_transfer: bool = False) -> None:
        core = self._core
        core.become_candidate()
        self._candidacy = Candidacy()
        self.start_timer()
        # Its own vote counts like any other: once it is on disk.
        core.promise(RequestVoteResponse(core.term, core.id, core.id, vote_granted=True))
        self._request_votes(core.term, pre_vote=False, leadership_transfer=leadership_transfer)

    def _request_votes(
        self, term: int, *, pre_vote: bool, leadership_transfer: bool = False
    ) -> None:
        core = self._core
        configuration = core.configuration
        # A candidate asks once its term and its own vote are on disk: otherwise it could lead,
        # crash, forget that, be elected in the same term again, and fill the same index twice.
        # A pre-vote changes nothing, so it need not wait.
        hand_out = core.send if pre_vote else core.promise
        for voter in sorted((configuration.voters | configuration.voters_outgoing) - {core.id}):
            hand_out(
                RequestVote(
                    term,
                    core.id,
                    voter,
                    core.log.last_index,
                    core.log.last_term,
                    pre_vote,
                    leadership_transfer,
                )
            )

    # ----------------------------------------------------------------- being asked, and answered

    def on_request_vote(self, message: RequestVote) -> None:
        """Figure 2, RequestVote; anybody may ask.

        Whether the candidate is a member, or this one itself, is not looked at: either of them
        may know a newer configuration than the other, and a vote withheld for that can block a
        cluster for good (thesis §4.2.2).
        """
        core = self._core
        withholds = self._withholding_ticks > 0 or core.role is Role.LEADER
        if withholds and not message.leadership_transfer:
            return  # §6, thesis §4.2.3: nobody may disturb a working leader, its term least
        if message.term > core.term and not message.pre_vote:
            core.become_follower(message.term, None)
        up_to_date = core.log.is_up_to_date(message.last_log_index, message.last_log_term)
        if message.pre_vote:
            # A promise of nothing, so nothing is remembered of it.
            granted = up_to_date and message.term > core.term
            term = message.term if granted else core.term
        else:
            free = core.voted_for in {None, message.sender}
            granted = up_to_date and message.term == core.term and free
            term = core.term
        if granted and not message.pre_vote:
            core.voted_for = message.sender
            self.start_timer()
        core.promise(RequestVoteResponse(term, core.id, message.sender, granted, message.pre_vote))

    def on_vote_response(self, message: RequestVoteResponse) -> None:
        """§5.2: count it, if it answers what is being asked now."""
        core = self._core
        granted_pre_vote = message.pre_vote and message.vote_granted
        if message.term > core.term and not granted_pre_vote:
            core.become_follower(message.term, None)
            return
        if message.pre_vote:
            asked_term = core.term + 1 if message.vote_granted else core.term
            expected = core.role is Role.PRE_CANDIDATE and message.term == asked_term
        else:
            expected = core.role is Role.CANDIDATE and message.term == core.term
        if expected:
            if core.role is Role.CANDIDATE and not message.vote_granted:
                self._hasten_next()
            self._count_vote(message.sender, granted=message.vote_granted)

    def _count_vote(self, voter: str, *, granted: bool) -> None:
        core = self._core
        self._candidacy.count(voter, granted=granted)
        if self._candidacy.is_won(core.configuration):
            if core.role is Role.PRE_CANDIDATE:
                self._ask_for_votes()
            else:
                core.become_leader()
        elif self._candidacy.is_lost(core.configuration):
            core.become_follower(core.term, None)

    def on_timeout_now(self, message: TimeoutNow) -> None:
        """Thesis §3.10: the leader asks for it, so no pre-vote, and voters need not wait."""
        core = self._core
        if message.term < core.term or core.role is Role.LEADER:
            return
        if message.term > core.term:
            core.become_follower(message.term, message.sender)
        if self._may_campaign():
            self._ask_for_votes(leadership_transfer=True)
