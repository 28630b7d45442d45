"""Recovery of real directories: a new configuration, durably or not at all, and nothing lost."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anchor.fsm import StateMachine
from anchor.raft import Configuration, Entry, EntryKind, HardState, Member, Options, Raft, Role
from anchor.settings import NEWEST_PROTOCOL
from anchor.storage import (
    CorruptionError,
    DataDirectory,
    ForeignDirectoryError,
    LockedError,
    RocksLog,
    StorageError,
    restoring,
)
from anchor.storage.recovery import examine, mistakes_in, recover
from tests.fsm.entries import command, put
from tests.storage.building import copy_at_rest, opened

if TYPE_CHECKING:
    from pathlib import Path

ADDRESSES = {f"node{number}": f"127.0.0.1:700{number}" for number in (1, 2, 3)}
ALONE = {"node1": "127.0.0.1:7001"}


def three_members(directory: DataDirectory) -> Configuration:
    """Give a configuration of three voters, this node one of them."""
    members = {
        name: Member(name, address, address.replace(":7", ":8"), incarnation=number)
        for number, (name, address) in enumerate(ADDRESSES.items(), 1)
    }
    own = directory.identity
    members[own.node_id] = Member(
        own.node_id,
        ADDRESSES[own.node_id],
        ADDRESSES[own.node_id].replace(":7", ":8"),
        own.incarnation,
    )
    return Configuration(members, frozenset(members))


def follower(path: Path, node_id: str = "node1", last_index: int = 20) -> None:
    """Make the directory of a follower that has applied ten entries, in term 4 by now."""
    with opened(path, node_id) as directory:
        directory.set_cluster_id("old")
        payload = three_members(directory).encode()
        written = [Entry(1, 1, EntryKind.CONFIGURATION, payload)]
        written += [command(i, put(b"k", b"%d" % i)) for i in range(2, last_index + 1)]
        directory.log.append(written, HardState(4, "node2"))
        directory.log.sync()
        StateMachine(directory.state).apply(written[:10])


def speak(path: Path, protocol_version: int) -> None:
    """Let the cluster of :func:`follower` have agreed on a protocol, with its newest entry."""
    with opened(path) as directory:
        agreed = replace(three_members(directory), protocol_version=protocol_version)
        index = directory.log.last_index() + 1
        directory.log.append([Entry(index, 4, EntryKind.CONFIGURATION, agreed.encode())])
        directory.log.sync()


def elected(directory: DataDirectory) -> tuple[Raft, StateMachine]:
    """Let a node that was recovered alone do what it would do by itself, until it has applied."""
    machine = StateMachine(directory.state)
    node_id = directory.identity.node_id
    raft = Raft(
        node_id, directory.log, Options(), random.Random(1), applied_index=machine.applied_index
    )
    raft.campaign()
    while raft.has_ready():
        ready = raft.ready()
        assert not ready.messages
        assert not ready.messages_after_persist
        directory.log.append(ready.entries, ready.hard_state)
        directory.log.sync()
        raft.persisted(ready.number)
        if ready.committed:
            machine.apply(ready.committed)
            raft.applied(ready.committed[-1].index)
    return raft, machine


def test_what_is_there_is_shown_and_not_changed(tmp_path: Path) -> None:
    """Last entry, term, what is certainly committed, and the members; looked at twice."""
    follower(tmp_path / "d")
    for _ in range(2):
        remains = examine(tmp_path / "d")
        assert remains.identity.node_id == "node1"
        assert remains.identity.cluster_id == "old"
        assert (remains.term, remains.last_term, remains.last_index) == (4, 1, 20)
        assert (remains.first_index, remains.applied_index) == (1, 10)
        assert remains.configuration.voters == set(ADDRESSES)
        assert remains.configuration_index == 1


def test_a_node_recovered_alone_leads_and_has_all_it_had(tmp_path: Path) -> None:
    """It wins its election, commits its whole log, and is in a cluster of its own."""
    follower(tmp_path / "d")
    remains = examine(tmp_path / "d")
    after = recover(remains, ALONE, "new")
    assert after.identity.cluster_id == "new"
    assert after.identity.incarnation == remains.identity.incarnation
    assert after.configuration.voters == {"node1"}
    assert after.configuration.members["node1"] == remains.configuration.members["node1"]
    assert (after.last_index, after.configuration_index) == (21, 21)
    assert after.last_term == after.term > 4
    assert after.applied_index == 10
    with opened(tmp_path / "d") as directory:
        assert directory.log.hard_state() == HardState(after.term, "node1")
        raft, machine = elected(directory)
        assert raft.role is Role.LEADER
        assert raft.commit_index == machine.applied_index == 22
        found = machine.get(b"k")
        assert found is not None
        assert (found.value, found.mod_index) == (b"20", 20)
        assert raft.committed_configuration.members.keys() == {"node1"}


def test_a_recovered_node_moves_to_the_address_it_is_given(tmp_path: Path) -> None:
    """Its clients' port stays, and the host goes along."""
    follower(tmp_path / "d")
    after = recover(examine(tmp_path / "d"), {"node1": "10.0.0.9:7009"}, "new")
    member = after.configuration.members["node1"]
    assert (member.address, member.http_address) == ("10.0.0.9:7009", "10.0.0.9:8001")


def test_several_members_keep_the_cluster_for_the_others_to_follow(tmp_path: Path) -> None:
    """They know it by its id, and it knows them by their incarnations."""
    follower(tmp_path / "d")
    remains = examine(tmp_path / "d")
    after = recover(remains, {"node1": ADDRESSES["node1"], "node3": ADDRESSES["node3"]}, "new")
    assert after.identity.cluster_id == "old"
    assert after.configuration.voters == {"node1", "node3"}
    assert after.configuration.members["node3"] == remains.configuration.members["node3"]


def test_two_nodes_recovered_by_mistake_have_different_terms(tmp_path: Path) -> None:
    """Else their logs could differ at one index and term, and nobody would notice."""
    members = {name: ADDRESSES[name] for name in ("node1", "node3")}
    terms = []
    for name in members:
        follower(tmp_path / name, name)
        terms.append(recover(examine(tmp_path / name), members, "new").last_term)
    assert len(set(terms)) == 2
    assert min(terms) > 4


def test_a_node_can_be_recovered_twice(tmp_path: Path) -> None:
    """The newest configuration counts, in a newer term."""
    follower(tmp_path / "d")
    first = recover(examine(tmp_path / "d"), {"node1": "a:1"}, "new1")
    second = recover(examine(tmp_path / "d"), {"node1": "b:2"}, "new2")
    assert second.term > first.term
    assert second.last_index == first.last_index + 1
    assert second.configuration.members["node1"].address == "b:2"
    assert second.identity.cluster_id == "new2"


def test_a_node_that_was_let_out_is_not_left_out(tmp_path: Path) -> None:
    """Who is no member any more, or a learner, becomes the voter there is."""
    follower(tmp_path / "d")
    with opened(tmp_path / "d") as directory:
        others = Configuration({"node2": Member("node2")}, frozenset({"node2"}))
        entry = Entry(21, 4, EntryKind.CONFIGURATION, others.encode())
        directory.log.append([entry])
        directory.log.sync()
    remains = examine(tmp_path / "d")
    after = recover(remains, ALONE, "new")
    (member,) = after.configuration.members.values()
    assert member.incarnation == remains.identity.incarnation
    assert after.configuration.voters == {"node1"}


def test_snapshots_of_the_old_cluster_make_place_for_one_of_the_new(tmp_path: Path) -> None:
    """A log that does not begin at the beginning needs one for whoever joins."""
    follower(tmp_path / "d")
    with opened(tmp_path / "d") as directory:
        directory.log.record_snapshot(directory.create_snapshot().metadata)
        directory.log.drop_prefix(8)
        directory.log.sync()
    recover(examine(tmp_path / "d"), ALONE, "new")
    with opened(tmp_path / "d") as directory:
        (snapshot,) = directory.snapshots.all()
        assert snapshot.manifest.cluster_id == "new"
        assert snapshot.metadata == directory.log.snapshot()
        _, machine = elected(directory)
        assert machine.applied_index == 22


def test_all_mistakes_in_the_members_are_told(tmp_path: Path) -> None:
    """And nothing is done with them."""
    follower(tmp_path / "d")
    remains = examine(tmp_path / "d")
    members = {"node2": "h:1", "node9": "h:1"}
    assert mistakes_in(remains, members) == [
        f"node1 itself is missing: {tmp_path / 'd'} is its directory",
        "node9 is no member of this cluster: let it join when node1 runs again",
        "node2 and node9 have one address, h:1",
    ]
    with pytest.raises(ValueError, match="node1 itself is missing"):
        recover(remains, members, "new")
    assert examine(tmp_path / "d") == remains


def test_a_recovered_cluster_goes_on_speaking_the_protocol_it_spoke(tmp_path: Path) -> None:
    """It never falls: the log may hold what an older protocol does not know."""
    follower(tmp_path / "d")
    speak(tmp_path / "d", 2)
    remains = examine(tmp_path / "d")
    assert remains.configuration.protocol_version == 2
    after = recover(remains, ALONE, "new")
    assert after.configuration.protocol_version == 2


def test_a_cluster_of_a_newer_protocol_is_not_recovered_by_an_old_version(tmp_path: Path) -> None:
    """It could not run the node afterwards; nothing has changed."""
    follower(tmp_path / "d")
    speak(tmp_path / "d", NEWEST_PROTOCOL + 1)
    remains = examine(tmp_path / "d")
    (mistake,) = mistakes_in(remains, ALONE)
    assert f"speaks protocol {NEWEST_PROTOCOL + 1}" in mistake
    with pytest.raises(ValueError, match="speaks protocol"):
        recover(remains, ALONE, "new")
    assert examine(tmp_path / "d") == remains


def test_what_fails_after_the_recovery_says_that_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes it for undone would recover another node too."""
    follower(tmp_path / "d")
    with opened(tmp_path / "d") as directory:
        directory.log.record_snapshot(directory.create_snapshot().metadata)
        directory.log.drop_prefix(8)
        directory.log.sync()

    def fail(_directory: object) -> None:
        raise StorageError("no snapshot today")

    with monkeypatch.context() as patch:
        patch.setattr(DataDirectory, "create_snapshot", fail)
        with pytest.raises(StorageError, match=r"no snapshot today; the recovery itself is done"):
            recover(examine(tmp_path / "d"), ALONE, "new")
    assert examine(tmp_path / "d").configuration.voters == {"node1"}


def test_a_running_node_is_neither_looked_at_nor_changed(tmp_path: Path) -> None:
    """Its lock says which process has it."""
    follower(tmp_path / "d")
    remains = examine(tmp_path / "d")
    with opened(tmp_path / "d"):
        with pytest.raises(LockedError, match="is in use by process"):
            examine(tmp_path / "d")
        with pytest.raises(LockedError, match="is in use by process"):
            recover(remains, ALONE, "new")
    assert examine(tmp_path / "d") == remains


def test_what_has_gone_on_since_it_was_looked_at_is_not_changed(tmp_path: Path) -> None:
    """The person confirmed something else."""
    follower(tmp_path / "d")
    remains = examine(tmp_path / "d")
    with opened(tmp_path / "d") as directory:
        directory.log.append([command(21, put(b"k", b"21"))])
        directory.log.sync()
    with pytest.raises(StorageError, match="has changed since"):
        recover(remains, ALONE, "new")
    assert examine(tmp_path / "d").identity.cluster_id == "old"


def test_what_is_no_node_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Nothing there, something else there, or a node that was never in a cluster."""
    for name in ("missing", "empty"):
        if name == "empty":
            (tmp_path / name).mkdir()
        with pytest.raises(ForeignDirectoryError, match="holds no node's data"):
            examine(tmp_path / name)
    assert not (tmp_path / "missing").exists()
    assert not list((tmp_path / "empty").iterdir())
    with opened(tmp_path / "new"):
        pass
    with pytest.raises(ForeignDirectoryError, match="never been in a cluster"):
        examine(tmp_path / "new")


def test_a_damaged_directory_is_not_recovered(tmp_path: Path) -> None:
    """Whose log may have lost its end says so first."""
    follower(tmp_path / "d")
    mark = tmp_path / "d" / "synced"
    mark.write_bytes(mark.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptionError, match="synced: is damaged"):
        examine(tmp_path / "d")


def test_a_crash_in_the_middle_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the one write nothing has changed; after it, everything that matters has."""
    follower(tmp_path / "d")
    with opened(tmp_path / "d") as directory:
        directory.log.record_snapshot(directory.create_snapshot().metadata)
        directory.log.drop_prefix(8)
        directory.log.sync()
    remains = examine(tmp_path / "d")
    continue_as = DataDirectory.continue_as

    def crash_around(directory: DataDirectory, *arguments: object) -> None:
        copy_at_rest(tmp_path / "d", tmp_path / "before")
        continue_as(directory, *arguments)  # type: ignore[arg-type]
        copy_at_rest(tmp_path / "d", tmp_path / "after")

    monkeypatch.setattr(DataDirectory, "continue_as", crash_around)
    recover(remains, ALONE, "new")
    before = examine(tmp_path / "before")
    assert before.identity == remains.identity
    assert (before.term, before.last_index) == (remains.term, remains.last_index)
    assert before.configuration == remains.configuration
    after = examine(tmp_path / "after")
    assert after.identity.cluster_id == "new"
    assert after.configuration.voters == {"node1"}
    with ExitStack() as stack:
        directory = stack.enter_context(opened(tmp_path / "after"))
        assert directory.snapshots.newest("new") is None
        raft, _ = elected(directory)
        assert raft.role is Role.LEADER


def test_the_write_is_synced_before_it_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that cannot sync is an error, not a recovery."""
    follower(tmp_path / "d")

    def fail(_log: object) -> None:
        raise StorageError("the disk failed")

    monkeypatch.setattr(RocksLog, "sync", fail)
    with pytest.raises(StorageError, match="the disk failed"):
        recover(examine(tmp_path / "d"), ALONE, "new")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave files that others cannot use")
def test_root_leaves_no_files_of_its_own_in_a_directory_of_another_user(tmp_path: Path) -> None:
    """The node could not open them afterwards."""
    follower(tmp_path / "d")
    for found in (tmp_path / "d", *(tmp_path / "d").rglob("*")):
        os.chown(found, 65534, 65534)
    with pytest.raises(ForeignDirectoryError, match=r"belongs to user .*, and you are root"):
        examine(tmp_path / "d")
    with pytest.raises(ForeignDirectoryError, match="and you are root"):
        restoring.check_empty(tmp_path / "d")


def test_a_damaged_snapshot_of_the_old_cluster_stops_nothing(tmp_path: Path) -> None:
    """Nothing is lost with it; whoever wants it is told."""
    follower(tmp_path / "d")
    with opened(tmp_path / "d") as directory:
        manifest = directory.create_snapshot().path / "manifest.json"
    manifest.write_text("{}")
    recover(examine(tmp_path / "d"), ALONE, "new")
    with opened(tmp_path / "d") as directory:
        elected(directory)
