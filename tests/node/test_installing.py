"""A snapshot takes the place of a replica's state: what becomes of the clients that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.node.errors import CommitUnknown
from tests.node.replicas import DictStore, World, put
from tests.node.test_writes import Client

if TYPE_CHECKING:
    from anchor.raft import Ready


class Node:
    """n3 of a world, which falls behind and gets a snapshot of n1's state."""

    def __init__(self) -> None:
        self.world = World()
        self.leader = self.world.elect("n1")
        self.replica = self.world.replicas["n3"]
        self.installed: list[int] = []
        self.world.outsides["n3"].install = self._install  # type: ignore[method-assign]

    def _install(self, ready: Ready) -> None:
        """As the node does, with a log and a store in memory."""
        assert ready.snapshot is not None
        self.world.logs["n3"].install(ready.snapshot.snapshot, hard_state=ready.hard_state)
        store = DictStore()
        store.records = dict(self.world.stores["n1"].records)
        self.world.stores["n3"] = store
        self.replica.machine.load(store)
        self.installed.append(ready.snapshot.snapshot.last_included_index)

    def cut_off(self) -> None:
        """It hears nothing, and what the others do next, it misses."""
        self.world.cut = {"n3"}

    def come_back(self) -> None:
        """The leader's log has moved on: it is sent a snapshot."""
        self.world.compact("n1")
        self.world.cut = set()
        self.world.tick(20)
        self.world.run()
        assert self.installed


def value_of(node: Node, key: bytes) -> bytes | None:
    """What the replica holds."""
    found = node.replica.machine.get(key)
    return None if found is None else found.value


def test_a_member_goes_on_from_the_snapshot() -> None:
    """It has what it missed, and follows the log from there, like all others."""
    node = Node()
    node.cut_off()
    put(node.leader, b"missed")
    node.world.run()
    node.come_back()
    assert node.replica.raft.last_applied == node.replica.machine.applied_index
    put(node.leader, b"later")
    node.world.tick(10)
    assert value_of(node, b"missed") == value_of(node, b"later") == b"v"
    assert len({replica.machine.digest for replica in node.world.replicas.values()}) == 1


def test_a_write_whose_entry_the_snapshot_hides_is_unknown_and_not_repeated() -> None:
    """It was proposed and applied by others; gathered again it would be applied twice."""
    node = Node()
    node.cut_off()
    client = put(node.replica, b"k")
    node.replica.work()  # hands it to the leader, who gets it although n3 is cut off otherwise
    (_, _, batches) = node.world.forwarded.popleft()
    node.leader.propose_for("n3", [batch.payload for batch in batches])
    node.world.run()
    node.come_back()
    assert isinstance(client.error, CommitUnknown)
    assert len(node.replica.writes) == 0
    node.world.tick(50)
    found = node.replica.machine.get(b"k")
    assert found is not None
    assert found.version == 1


def test_reads_that_waited_for_what_the_snapshot_has_are_served() -> None:
    """They asked for an index that no entry of this member's log will ever reach."""
    node = Node()
    put(node.leader, b"k")
    node.cut_off()
    put(node.leader, b"missed")
    node.world.run()
    waiting = Client()
    node.replica.await_applied(waiting, node.leader.machine.applied_index)
    assert waiting.outcomes == []
    node.come_back()
    assert waiting.outcomes == [None]
