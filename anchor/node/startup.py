"""Puts a node together from its settings, and starts it."""

from __future__ import annotations

import logging
import os
import random
import secrets
import uuid
from typing import TYPE_CHECKING

from anchor.fsm import StateMachine
from anchor.node.compaction import Thresholds
from anchor.node.joining import JoinOptions
from anchor.node.listener import Listener
from anchor.node.node import TICKS_PER_HEARTBEAT, Fatal, Node, Parts
from anchor.node.snapshot_receiving import SnapshotReceptions
from anchor.node.versions import why_too_old
from anchor.raft import Configuration, Member, Options, Raft
from anchor.settings import NEWEST_PROTOCOL
from anchor.storage import DataDirectory, StorageError
from anchor.transport import LocalMember, Transport, TransportOptions

if TYPE_CHECKING:
    from anchor.settings import Settings

_log = logging.getLogger("anchor.node")

# A lease ends this much earlier than anybody may campaign: the allowance for clocks that drift.
LEASE_SHARE = 0.8
# How much is applied before others have a turn: some milliseconds.
MAX_APPLIED_BYTES = 128 << 10


def open_node(settings: Settings, fatal: Fatal, version: str) -> Node:
    """Open the data directory, bind the peer port, and start a node.

    ``fatal`` is called, from any greenlet, with one line if the node must stop by itself. Raises
    StorageError or TransportError; then nothing is left open.
    """
    os.umask(0o077)  # what RocksDB creates in its directories is nobody else's to read
    directory = DataDirectory.open(settings.directory, settings.node_id)
    try:
        return _build(settings, directory, fatal, version)
    except BaseException:
        directory.close()
        raise


def _build(settings: Settings, directory: DataDirectory, fatal: Fatal, version: str) -> Node:
    itself = Member(
        settings.node_id,
        settings.address,
        settings.http_address,
        directory.identity.incarnation,
    )
    if directory.is_new and (not settings.peers or directory.log.last_index()):
        _bootstrap(directory, itself)
    machine = StateMachine(directory.state)
    raft = Raft(
        settings.node_id,
        directory.log,
        _options(settings),
        random.Random(secrets.randbits(64)),  # noqa: S311 - spreads timeouts, guards nothing
        applied_index=machine.applied_index,
    )
    _check_address(raft, itself)
    handler = Listener()
    receptions = SnapshotReceptions(directory)
    transport = Transport(
        LocalMember(settings.node_id, itself.incarnation, directory.identity.cluster_id),
        settings.bind_address,
        handler,
        TransportOptions(
            silence_timeout_ms=settings.election_timeout_ms,
            vote_timeout_ms=settings.election_timeout_ms,
        ),
        snapshot_receiver=receptions,
    )
    parts = Parts(
        directory=directory,
        raft=raft,
        machine=machine,
        transport=transport,
        itself=itself,
        origin=1 + secrets.randbelow(2**64 - 1),  # 0 is nobody
        peers=settings.peers,
        tick_seconds=settings.heartbeat_ms / TICKS_PER_HEARTBEAT / 1000,
        election_timeout_seconds=settings.election_timeout_ms / 1000,
        version=version,
        joining=JoinOptions(settings.learner, settings.replace, settings.bootstrap_expect),
        receptions=receptions,
        thresholds=Thresholds(settings.snapshot_entries, settings.snapshot_bytes),
        snapshot_rate=settings.snapshot_rate,
        quota_bytes=settings.quota_bytes,
    )
    node = Node(parts, fatal)
    handler.serve(node)
    transport.start()
    node.start()
    return node


def _bootstrap(directory: DataDirectory, itself: Member) -> None:
    """Found a cluster of one."""
    cluster_id = uuid.uuid4().hex
    if directory.log.last_index():  # it was stopped amid founding: see anchor.node.founding
        directory.set_cluster_id(cluster_id)
        _log.info("founded cluster %s, begun before the last stop", cluster_id)
        return
    configuration = Configuration(
        members={itself.id: itself},
        voters=frozenset({itself.id}),
        protocol_version=NEWEST_PROTOCOL,
    )
    directory.bootstrap(cluster_id, configuration)
    _log.info("founded cluster %s with %s as its only member", cluster_id, itself.id)


def _check_address(raft: Raft, itself: Member) -> None:
    """Raises StorageError if the others know this node at another address, or are too new.

    They would go on dialing the old one, and this node would wait for them for ever.
    """
    if (why := why_too_old(raft.configuration)) is not None:
        raise StorageError(why)
    known = raft.configuration.members.get(itself.id)
    if known is not None and known.address != itself.address:
        raise StorageError(
            f"{itself.id} is a member of its cluster at {known.address}, not at {itself.address}: "
            "start it there, or let the others remove it and let it join anew from an empty "
            "directory"
        )


def _options(settings: Settings) -> Options:
    election_timeout_ticks = max(
        2, settings.election_timeout_ms * TICKS_PER_HEARTBEAT // settings.heartbeat_ms
    )
    return Options(
        election_timeout_ticks=election_timeout_ticks,
        heartbeat_ticks=TICKS_PER_HEARTBEAT,
        lease_ticks=max(1, int(election_timeout_ticks * LEASE_SHARE)),
        max_committed_bytes=MAX_APPLIED_BYTES,
    )
