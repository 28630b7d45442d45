"""When the quorum is lost for good: what one member still has becomes all there is.

Theory of operation
===================

A majority of the voters has lost its disks, so nothing can be committed ever again, and Raft by
itself has no way out: what the survivors cannot know is what the lost ones had acknowledged. A
person decides to go on with what one survivor has. :func:`recover` appends a CONFIGURATION entry
with the members that person names, in a term higher than any this node has seen, as if the node had
been elected in that term by a quorum that is no more. It is one batch, synced: after a crash all of
it is there or nothing.

What holds afterwards, and why
------------------------------

- The node can win an election. The new configuration is in force, since it is the newest in the log
  (thesis §4.1), and of its members none has a log as up to date, since none has that term (§5.4.1).
- The log stays, uncommitted entries included: nobody here can tell which of them are committed, and
  a write that was answered must not be dropped for tidiness. They are committed with the first
  entry of the next term (§5.4.2). So writes that were never answered may happen now; to a client
  that was told ``commit_unknown``, either is right.
- State, applied index and digest are untouched: the new entry is applied like any other.

What it gives up
----------------

- **Durability, of what this node does not have.** Entries that lost members had acknowledged
  without it are gone. Choose the survivor with the highest term of the last entry, of those the one
  with the highest index: its log has all that any survivor knows to be committed (§5.4.1).
- **One cluster, if lost members come back.** They do not know that they were given up, and may be
  a quorum of the old configuration. So a node that is recovered *alone* gets a new cluster id, in
  the same batch: every message carries the id, so old members and new ones refuse each other
  (:mod:`anchor.transport.admission`), and two nodes recovered by mistake are two clusters. The
  others are wiped, and join.
- With *several* members the id has to stay, for the others to be known by it: they keep their
  directories, and follow once they are started. Then it is for the operator to see that no member
  left out is ever started again. Only one of them may be recovered; if two are, their terms differ
  (each node has its own among the numbers), so that their logs never disagree at an index and a
  term, and the higher one wins.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anchor.fsm import FsmError, StateMachine
from anchor.raft import Configuration, Entry, EntryKind, HardState, Member
from anchor.settings import LOCK_FILE, NEWEST_PROTOCOL, join_address, split_address
from anchor.storage import inspection, stable
from anchor.storage.directory import (
    MARK_FILE,
    RAFT_DATABASE,
    DataDirectory,
    generation_path,
)
from anchor.storage.directory_lock import DirectoryLock
from anchor.storage.errors import CorruptionError, ForeignDirectoryError, StorageError
from anchor.storage.files import check_owner
from anchor.storage.raft_database import RaftDatabase
from anchor.storage.rocks_log import RocksLog
from anchor.storage.state import RocksState
from anchor.storage.sync_mark import SyncMark

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anchor.raft import LogStorage
    from anchor.storage.stable import Identity


@dataclass(frozen=True, slots=True)
class Remains:
    """What a stopped node has. ``applied_index`` is certainly committed; more may be."""

    path: Path
    identity: Identity
    term: int
    last_index: int
    last_term: int
    first_index: int
    applied_index: int
    configuration: Configuration
    configuration_index: int


def examine(path: Path) -> Remains:
    """Look at a stopped node's directory, changing nothing of it. Blocking.

    Raises a StorageError: it is in use, damaged, or none.
    """
    try:
        with ExitStack() as resources:
            return _examine(path, resources)
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror}") from None


def _examine(path: Path, resources: ExitStack) -> Remains:
    raft_path = path / RAFT_DATABASE
    if not (path / LOCK_FILE).exists() or not raft_path.exists():
        raise ForeignDirectoryError(f"{path}: holds no node's data; give the --dir of a node")
    check_owner(path)
    resources.callback(DirectoryLock(path / LOCK_FILE).release)
    mark = resources.enter_context(closing(SyncMark(path / MARK_FILE)))
    with inspection.naming_the_file(raft_path), closing(_read_only(raft_path)) as database:
        node_id = inspection.read_identity(database).node_id
    identity = inspection.inspect_raft_database(raft_path, node_id, mark.counts)
    if not identity.cluster_id:
        raise ForeignDirectoryError(
            f"{path}: {node_id} has never been in a cluster; there is nothing to recover"
        )
    database = resources.enter_context(closing(_read_only(raft_path)))
    log = RocksLog(database, mark)
    configuration, configuration_index = configuration_in_force(log)
    return Remains(
        path,
        identity,
        log.hard_state().term,
        log.last_index(),
        log.term(log.last_index()),
        log.first_index(),
        _applied_index(generation_path(path, _generation(database))),
        configuration,
        configuration_index,
    )


def _read_only(raft_path: Path) -> RaftDatabase:
    return RaftDatabase(raft_path, read_only=True)


def _generation(database: RaftDatabase) -> int:
    try:
        return stable.decode_generation(database.get(stable.GENERATION) or b"")
    except ValueError as error:
        raise CorruptionError(database.path, str(error)) from None


def _applied_index(path: Path) -> int:
    with inspection.naming_the_file(path):
        state = RocksState(path, read_only=True)
    with closing(state):
        try:
            return StateMachine(state).applied_index
        except FsmError as error:
            raise CorruptionError(path, str(error)) from None


def configuration_in_force(log: LogStorage) -> tuple[Configuration, int]:
    """Give the newest configuration that a log has, and the index of its entry."""
    entries = log.configuration_entries()
    if entries:
        return Configuration.decode(entries[-1].payload), entries[-1].index
    snapshot = log.snapshot()
    if snapshot is not None:
        return snapshot.configuration, snapshot.configuration_index
    return Configuration(), 0


def mistakes_in(remains: Remains, members: Mapping[str, str]) -> list[str]:
    """Say what is wrong with these members (id to address), a line each."""
    node_id, wrong = remains.identity.node_id, []
    if node_id not in members:
        wrong.append(f"{node_id} itself is missing: {remains.path} is its directory")
    wrong += [
        f"{member_id} is no member of this cluster: let it join when {node_id} runs again"
        for member_id in members
        if member_id != node_id and member_id not in remains.configuration.members
    ]
    protocol_version = remains.configuration.protocol_version
    if protocol_version > NEWEST_PROTOCOL:
        wrong.append(
            f"the cluster speaks protocol {protocol_version}, and this version of anchor up to "
            f"{NEWEST_PROTOCOL}: recover with the version that {node_id} ran"
        )
    by_address: dict[str, str] = {}
    for member_id, address in members.items():
        if by_address.setdefault(address, member_id) != member_id:
            wrong.append(f"{by_address[address]} and {member_id} have one address, {address}")
    return wrong


def recover(remains: Remains, members: Mapping[str, str], new_cluster_id: str) -> Remains:
    """Make ``members`` (id to address) all the voters there are, durably. Blocking.

    ``new_cluster_id`` is taken if the node is alone. The module says what this means. Gives what is
    there afterwards; raises a StorageError, and then nothing has changed unless that says so.
    """
    node_id, cluster_id = remains.identity.node_id, remains.identity.cluster_id
    if mistakes := mistakes_in(remains, members):
        raise ValueError("; ".join(mistakes))
    if len(members) == 1:
        cluster_id = new_cluster_id
    configuration = _configuration(remains, members)
    with closing(DataDirectory.open(remains.path, node_id)) as directory:
        log = directory.log
        if (log.last_index(), log.hard_state().term) != (remains.last_index, remains.term):
            raise StorageError(f"{remains.path}: has changed since it was looked at; look again")
        term = _next_term(remains)
        payload = configuration.encode()
        entry = Entry(remains.last_index + 1, term, EntryKind.CONFIGURATION, payload)
        directory.continue_as(cluster_id, entry, HardState(term, voted_for=node_id))
    try:
        with closing(DataDirectory.open(remains.path, node_id)) as directory:
            if directory.log.first_index() > 1:
                # Who joins needs a snapshot, and those of the cluster that was are gone.
                directory.log.record_snapshot(directory.create_snapshot().metadata)
                directory.log.sync()
        return examine(remains.path)
    except StorageError as error:
        raise StorageError(
            f"{error}; the recovery itself is done, and durable: mend that, then start {node_id}"
        ) from None


def _configuration(remains: Remains, members: Mapping[str, str]) -> Configuration:
    known = {**remains.configuration.members}
    itself = Member(remains.identity.node_id, incarnation=remains.identity.incarnation)
    known[itself.id] = replace(
        known.get(itself.id, itself), incarnation=itself.incarnation, promote=False
    )
    new = {
        member_id: _at(replace(known[member_id], promote=False), address)
        for member_id, address in members.items()
    }
    # What the log holds already may be of this protocol: it never falls.
    return Configuration(
        members=new,
        voters=frozenset(new),
        protocol_version=remains.configuration.protocol_version,
    )


def _at(member: Member, address: str) -> Member:
    """Where it is now; its clients' port is thought to stay."""
    http_address = member.http_address
    if http_address and member.address != address:
        http_address = join_address(split_address(address)[0], split_address(http_address)[1])
    return replace(member, address=address, http_address=http_address)


def _next_term(remains: Remains) -> int:
    """A term after all that are known here, and none that another member would choose."""
    ids = sorted({remains.identity.node_id, *remains.configuration.members})
    term = max(remains.term, remains.last_term) + 1
    return term + (ids.index(remains.identity.node_id) - term) % len(ids)
