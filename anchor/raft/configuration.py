"""Who the members are, and what a majority of them is (§6; thesis chapter 4).

A configuration is in force from the moment it is appended, committed or not, and rolls back if
its entry is truncated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


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
    """

    members: Mapping[str, Member] = field(default_factory=dict)
    voters: frozenset[str] = frozenset()
    voters_outgoing: frozenset[str] = frozenset()
    learners: frozenset[str] = frozenset()
