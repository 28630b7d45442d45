"""Who the members are, and what a majority of them is (§6; thesis chapter 4).

A configuration is in force from the moment it is appended, committed or not, and rolls back if
its entry is truncated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from anchor.raft.errors import InvalidConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Member:
    """One member as all others know it. The core itself looks at the id alone.

    ``incarnation`` was drawn when its data directory was made: a wiped disk under an old id is
    somebody else. ``promote`` marks a learner that shall become a voter once caught up.
    """

    id: str
    address: str = ""
    http_address: str = ""
    incarnation: int = 0
    promote: bool = False


@dataclass(frozen=True, slots=True)
class Configuration:
    """A set of members and their parts.

    ``voters_outgoing`` is empty except in a joint configuration (C_old,new): then agreement
    needs a majority of ``voters`` *and* one of ``voters_outgoing``. Learners get the log and
    have no vote. Every id in the three sets is a key of ``members``.

    ``protocol_version`` is what all members speak to each other, and never falls: whoever was told
    that they do may have written what older ones cannot read.
    """

    members: Mapping[str, Member] = field(default_factory=dict)
    voters: frozenset[str] = frozenset()
    voters_outgoing: frozenset[str] = frozenset()
    learners: frozenset[str] = frozenset()
    protocol_version: int = 1

    @property
    def is_joint(self) -> bool:
        """Whether two majorities are needed (thesis §4.3)."""
        return bool(self.voters_outgoing)

    def has_vote(self, member_id: str) -> bool:
        """Whether its vote counts in one of the majorities."""
        return member_id in self.voters or member_id in self.voters_outgoing

    def is_quorum(self, member_ids: Collection[str]) -> bool:
        """Whether these are a majority, of both sets where there are two."""
        return all(
            sum(voter in member_ids for voter in voters) > len(voters) // 2
            for voters in self._majorities()
        )

    def quorum_value(self, value_of: Callable[[str], int]) -> int:
        """The greatest value that a quorum has reached: commit index, read round."""
        return min(
            # In descending order, all up to and including the middle one are a majority.
            sorted((value_of(voter) for voter in voters), reverse=True)[len(voters) // 2]
            for voters in self._majorities()
        )

    def _majorities(self) -> tuple[frozenset[str], ...]:
        if self.voters_outgoing:
            return (self.voters, self.voters_outgoing)
        return (self.voters,)

    def towards(self, target: Configuration) -> Configuration:
        """The next configuration on the way to ``target``.

        That is the target itself if it changes at most one voter: any two majorities then share
        a member (thesis §4.1). Else it is the joint one between the two (thesis §4.3).
        """
        target.validate()
        newest = max(self.protocol_version, target.protocol_version)
        target = replace(target, protocol_version=newest)
        if target.is_joint:
            raise InvalidConfiguration("a joint configuration is a way, not a target")
        if len(self.voters ^ target.voters) <= 1:
            return target
        staying = target.members.keys() | self.voters
        members = {**self.members, **target.members}
        return replace(
            target,
            # Old voters stay until the end; a learner that is not wanted any more leaves at once.
            members={i: member for i, member in members.items() if i in staying},
            voters_outgoing=self.voters,
        )

    def after_joint(self) -> Configuration:
        """C_new, once C_old,new is committed: who is in neither of its sets is out."""
        staying = self.voters | self.learners
        return replace(
            self,
            members={i: member for i, member in self.members.items() if i in staying},
            voters_outgoing=frozenset(),
        )

    def validate(self) -> None:
        """Raises InvalidConfiguration for what could never work."""
        if not self.voters:
            raise InvalidConfiguration("a configuration needs at least one voter")
        if self.voters & self.learners:
            raise InvalidConfiguration("a member is either voter or learner")
        named = self.voters | self.voters_outgoing | self.learners
        if named != self.members.keys():
            raise InvalidConfiguration("every member has a part, and every part a member")
        if any(member_id != member.id for member_id, member in self.members.items()):
            raise InvalidConfiguration("a member is listed under another's id")

    def encode(self) -> bytes:
        """The payload of its log entry: JSON, versioned, the same bytes for the same content."""
        content: dict[str, object] = {
            "format_version": FORMAT_VERSION,
            "members": [
                {
                    "id": member.id,
                    "address": member.address,
                    "http_address": member.http_address,
                    "incarnation": member.incarnation,
                    "promote": member.promote,
                }
                for _, member in sorted(self.members.items())
            ],
            "voters": sorted(self.voters),
            "voters_outgoing": sorted(self.voters_outgoing),
            "learners": sorted(self.learners),
        }
        if self.protocol_version > 1:  # members that speak only the first know no such field
            content["protocol_version"] = self.protocol_version
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, encoded: bytes) -> Configuration:
        """Read what ``encode`` wrote; raises ValueError for anything else."""
        try:
            content = json.loads(encoded)
            version = content["format_version"]
            if version != FORMAT_VERSION:
                raise ValueError(f"configuration format {version} is not known here")
            members = [_member(fields) for fields in content["members"]]
            configuration = cls(
                members={member.id: member for member in members},
                voters=_ids(content["voters"]),
                voters_outgoing=_ids(content["voters_outgoing"]),
                learners=_ids(content["learners"]),
                protocol_version=_version(content.get("protocol_version", 1)),
            )
            configuration.validate()
        except (KeyError, TypeError, RecursionError, InvalidConfiguration) as error:
            raise ValueError(f"not a configuration: {error}") from None
        return configuration


def _member(fields: dict[str, object]) -> Member:
    member = Member(**fields)  # type: ignore[arg-type]  # checked on the next lines
    for name, kind in (("id", str), ("address", str), ("http_address", str), ("promote", bool)):
        if type(getattr(member, name)) is not kind:
            raise TypeError(f"{name} is no {kind.__name__}")
    if type(member.incarnation) is not int:
        raise TypeError("incarnation is no int")
    return member


def _ids(ids: object) -> frozenset[str]:
    if not isinstance(ids, list) or not all(type(each) is str for each in ids):
        raise TypeError("ids are a list of strings")
    return frozenset(str(each) for each in ids)


def _version(version: object) -> int:
    if type(version) is not int or version < 1:
        raise TypeError("protocol_version is no version")
    return version


class Configurations:
    """The configurations the log holds: which one is in force, which one is committed.

    Kept from the newest committed one on, so that a truncated entry's predecessor comes back
    into force.
    """

    def __init__(self, base: Configuration, base_index: int) -> None:
        self._by_index: list[tuple[int, Configuration]] = [(base_index, base)]

    @property
    def in_force(self) -> Configuration:
        """The newest one in the log, committed or not."""
        return self._by_index[-1][1]

    @property
    def in_force_index(self) -> int:
        """Where the one in force was appended."""
        return self._by_index[-1][0]

    @property
    def committed(self) -> Configuration:
        """The newest one that is known to be committed."""
        return self._by_index[0][1]

    def append(self, index: int, configuration: Configuration) -> None:
        """Put one into force."""
        self._by_index.append((index, configuration))

    def truncate(self, first_dropped: int) -> None:
        """The log drops everything from there on; never what is committed."""
        while self._by_index[-1][0] >= first_dropped:
            self._by_index.pop()

    def commit(self, commit_index: int) -> list[Configuration]:
        """Forget what is older than the newest committed one; give those that are so newly."""
        committed = []
        while len(self._by_index) > 1 and self._by_index[1][0] <= commit_index:
            del self._by_index[0]
            committed.append(self._by_index[0][1])
        return committed
