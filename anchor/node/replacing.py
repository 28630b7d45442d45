"""A whole target configuration at once, by joint consensus (thesis §4.3).

In order, each step only once the one before it is committed, and each found done already when the
whole is asked for again:

1. Whoever is new is dialled: a wrong address costs nothing.
2. The resulting voters that are reachable now must be a majority of them, unless forced.
3. The new ones become learners and get all there is. The voters are the same as ever.
4. A leader that shall have no vote hands over to one that keeps its own, if there is one. The next
   leader goes on from here.
5. One change makes the configuration the target: directly where at most one voter differs, else
   through a joint configuration. All of it happens or nothing: whatever crashes, the log decides.

If it stops on the way (no time, no leader), those let in stay learners: ask again, or remove them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import gevent

from anchor.node.errors import CHANGE_IN_PROGRESS, MembershipError
from anchor.node.versions import check_joiner
from anchor.raft import Configuration, Member, NotLeader, Role
from anchor.transport import Identification, JoinRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anchor.node.admitting import Admitting
    from anchor.node.changing import Changes
    from anchor.node.leading import Leading
    from anchor.node.removing import Removing

CAUGHT_UP_ENTRIES = 64  # a learner this close to the commit index can vote


@dataclass(frozen=True, slots=True)
class TargetMember:
    """A member as it shall be. An empty ``http_address``: as it is, or as the node itself says."""

    id: str
    address: str
    http_address: str = ""
    voter: bool = True


class Replacing:
    """Makes the members those of a list."""

    def __init__(
        self, changes: Changes, admitting: Admitting, removing: Removing, leading: Leading
    ) -> None:
        self._changes = changes
        self._raft = changes.raft
        self._admitting = admitting
        self._removing = removing
        self._leading = leading

    def replace_as_leader(
        self, targets: Sequence[TargetMember], deadline: float, *, force: bool
    ) -> None:
        """Return once they are the members; raises NotLeader or a NodeError."""
        raft = self._raft
        if is_as_wished(raft.committed_configuration, targets) and is_as_wished(
            raft.configuration, targets
        ):
            return
        if raft.configuration_index > raft.commit_index or raft.configuration.is_joint:
            raise MembershipError("another change of the members is under way", CHANGE_IN_PROGRESS)
        with self._changes.exclusively("a change of the whole configuration"):
            self._replace(targets, deadline, force=force)

    def _replace(self, targets: Sequence[TargetMember], deadline: float, *, force: bool) -> None:
        raft = self._raft
        voters = frozenset(target.id for target in targets if target.voter)
        found = self._dial(targets, raft.configuration)

        def check(configuration: Configuration) -> None:
            if not force and voters != configuration.voters:
                self._removing.check_quorum(voters, "then", found)

        if not force and voters != raft.configuration.voters:
            self._removing.ask_for_quorum(voters, "then", found)
        newcomers = [_newcomer(t, found[t.id]) for t in targets if t.id in found]
        self._let_in(newcomers, found, deadline)
        self._await_caught_up(voters - raft.configuration.voters, deadline)
        if raft.id not in voters:
            grace = max(0.1, (deadline - time.monotonic()) / 2)
            self._leading.hand_over(grace, among=voters & raft.configuration.voters)
            if raft.role is not Role.LEADER:
                raise NotLeader(raft.leader_id)
            self._leading.check_successor(voters)

        def to_target(configuration: Configuration) -> Configuration:
            gone = [target.id for target in targets if target.id not in configuration.members]
            if gone:
                raise MembershipError(f"{gone[0]} was removed meanwhile", CHANGE_IN_PROGRESS)
            check(configuration)
            return target_of(configuration, targets)

        self._changes.change(to_target, lambda done: is_as_wished(done, targets), deadline)

    def _dial(
        self, targets: Sequence[TargetMember], configuration: Configuration
    ) -> Mapping[str, Identification]:
        """Who answers at the addresses of those that are no members yet, by id."""
        staying = {target.id for target in targets}
        newcomers = []
        for target in targets:
            known = configuration.members.get(target.id)
            if known is None:
                newcomers.append(target)
            elif known.address != target.address:
                raise MembershipError(
                    f"{known.id} is a member at {known.address}, not at {target.address}: give the "
                    "new node another id"
                )
            for other in configuration.members.values():
                if other.address == target.address and other.id in staying - {target.id}:
                    raise MembershipError(f"{target.address} is the address of {other.id}")
        asking = [gevent.spawn(self._dial_one, each) for each in newcomers]
        gevent.joinall(asking)
        found: dict[str, Identification] = {}
        for each, call in zip(newcomers, asking, strict=True):
            answer = call.get()
            if isinstance(answer, MembershipError):
                raise answer
            found[each.id] = answer
        return found

    def _dial_one(self, target: TargetMember) -> Identification | MembershipError:
        try:
            return self._admitting.dial(JoinRequest(target.id, target.address, ""))
        except MembershipError as error:
            return error  # for the greenlet that waits, not for this one's log

    def _let_in(
        self, newcomers: Sequence[Member], found: Mapping[str, Identification], deadline: float
    ) -> None:
        ids = {member.id for member in newcomers}

        def with_learners(configuration: Configuration) -> Configuration:
            for member_id in ids:
                check_joiner(found[member_id], configuration)
            fresh = {m.id: m for m in newcomers if m.id not in configuration.members}
            return replace(
                configuration,
                members={**configuration.members, **fresh},
                learners=configuration.learners | fresh.keys(),
            )

        self._changes.change(with_learners, lambda done: ids <= done.members.keys(), deadline)

    def _await_caught_up(self, joining: frozenset[str], deadline: float) -> None:
        raft = self._raft
        while True:
            if raft.role is not Role.LEADER:
                raise NotLeader(raft.leader_id)
            behind = sorted(i for i in joining if not is_caught_up(self._changes, i))
            if not behind:
                return
            self._changes.pause(
                deadline, f"let in, but not caught up yet: {', '.join(behind)}; ask again"
            )


def is_caught_up(changes: Changes, member_id: str) -> bool:
    """As leader: whether a member has room, and has nearly all that is committed.

    One without room would count among the voters and acknowledge nothing.
    """
    progress = changes.raft.progress.get(member_id)
    return (
        progress is not None
        and progress.recently_active
        and progress.has_room
        and progress.match_index > 0
        and progress.match_index + CAUGHT_UP_ENTRIES >= changes.raft.commit_index
    )


def _newcomer(target: TargetMember, found: Identification) -> Member:
    return Member(
        target.id, target.address, target.http_address or found.http_address, found.incarnation
    )


def target_of(configuration: Configuration, targets: Sequence[TargetMember]) -> Configuration:
    """The configuration that has these members and parts; all of them are members already."""
    known = configuration.members
    members = {
        target.id: replace(
            known[target.id],
            http_address=target.http_address or known[target.id].http_address,
            promote=False,
        )
        for target in targets
    }
    voters = frozenset(target.id for target in targets if target.voter)
    return Configuration(
        members,
        voters,
        learners=frozenset(members) - voters,
        protocol_version=configuration.protocol_version,
    )


def is_as_wished(configuration: Configuration, targets: Sequence[TargetMember]) -> bool:
    """Whether these are the members, at these addresses, in these parts."""
    if configuration.is_joint or configuration.members.keys() != {each.id for each in targets}:
        return False
    if any(configuration.members[each.id].address != each.address for each in targets):
        return False
    return target_of(configuration, targets) == configuration
