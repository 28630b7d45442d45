"""Do all members hold the same? The leader asks them, and who differs from the majority stops.

Every state machine keeps a running digest over all it has applied. Now and then the leader asks
all voters for theirs at one index. With a majority for one digest, every member that has another
is told so, itself included, and stops: a state machine that went its own way (a flipped bit in
memory, a bug that depends on the machine) must not answer anybody. If all voters were asked and no
majority agrees, nobody can tell who is right, and all of them stop.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from anchor.transport import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anchor.fsm import StateMachine
    from anchor.raft import Raft
    from anchor.transport import CompareDigest, Transport

_log = logging.getLogger("anchor.node")

CALL_SECONDS = 1.0


def majority_digest(digests: Mapping[str, bytes], voters: int) -> bytes | None:
    """The digest that more than half of all voters have; None if there is none."""
    digest, count = Counter(digests.values()).most_common(1)[0]
    return digest if count > voters // 2 else None


class Digests:
    """Compares this node's digest with those of the others."""

    def __init__(
        self,
        raft: Raft,
        machine: StateMachine,
        transport: Transport,
        die: Callable[[str], None],
    ) -> None:
        self._raft = raft
        self._machine = machine
        self._transport = transport
        self._die = die
        self._compared_index = 0
        self._next_index = 0

    def asked(self, question: CompareDigest) -> bytes | None:
        """The leader asks for the digest at an index, or says what the majority has there."""
        own = self._machine.digest_at(question.applied_index)
        if question.sender == self._raft.leader_id:  # nobody else has a majority to speak for
            self._judge(question.applied_index, own, question.majority_digest)
        return own

    def _judge(self, index: int, own: bytes | None, right: bytes) -> None:
        if right and own is not None and own != right:
            self._die(
                f"what this node applied up to entry {index} differs from the majority "
                f"(digest {own.hex()} here, {right.hex()} there); it stops rather than answer "
                "wrongly: wipe its directory and let it join again"
            )

    def compare(self, voters: frozenset[str]) -> None:
        """As leader: ask all voters, and stop whoever differs. Blocks for a call or two.

        Compared is what was applied here at the last call, so that the others had time to get
        there too.
        """
        index, self._next_index = self._next_index, self._machine.applied_index
        own = self._machine.digest_at(index)
        if own is None or index <= self._compared_index:
            return
        digests = {self._raft.id: own, **self._ask(voters, index)}
        self._compared_index = index
        if len(set(digests.values())) < 2:
            return
        right = majority_digest(digests, len(voters))
        if right is None:
            _log.critical("no majority agrees on what was applied up to entry %d", index)
            if digests.keys() != voters:
                return  # those who are missing will decide it
            # A digest nobody has: all stop, since nobody can be vouched for.
            right = bytes(len(own))
        self._ask(frozenset(digests), index, right)
        self._judge(index, own, right)

    def _ask(self, voters: frozenset[str], index: int, right: bytes = b"") -> dict[str, bytes]:
        digests = {}
        for voter in sorted(voters - {self._raft.id}):
            if not self._transport.connected(voter):
                continue
            try:
                digest = self._transport.compare_digest(voter, index, right, CALL_SECONDS)
            except TransportError:
                continue  # asked again next time
            if digest is not None:
                digests[voter] = digest
        return digests
