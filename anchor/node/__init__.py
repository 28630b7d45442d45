"""A node of the cluster: the greenlets that drive the core, and what clients may ask of it.

The caller, :mod:`anchor.cli`, in order
=======================================

1. Monkey-patch with gevent, before anything here is imported.
2. ``open_node(settings, fatal, version)`` opens the data directory, binds the peer port and starts
   the node. Whatever cannot be mended by waiting raises a ``StorageError`` or ``TransportError``
   whose text is the line for the operator.
3. Serve clients: ``write``, ``read``, ``status``, and what ``membership`` offers. Each blocks the
   calling greenlet at most for the timeout it is given and raises a :class:`NodeError`.
4. ``stop(grace_seconds)``. If ``fatal(line)`` was called meanwhile, the node has stopped taking
   part already: say the line, and exit with 1.

The pieces: ``replica.py`` carries out what the core decides, without greenlets; ``writes.py`` and
``reads.py`` are what clients wait for; ``node.py`` has the greenlets; ``forwarding.py`` asks the
leader; ``snapshots.py`` takes snapshots of this node's state (``compaction.py``: when),
``snapshot_sending.py`` and ``snapshot_receiving.py`` bring them to members that are behind the log;
``membership.py`` knows who belongs, and lists the pieces that change it; ``digests.py`` compares
what they hold; ``space.py`` watches the disk and the quota, ``versions.py`` finds out what all
members speak; ``backups.py`` hands out all of it.
"""

from __future__ import annotations

from anchor.node.consistency import Consistency
from anchor.node.errors import (
    CommitUnknown,
    DiskFull,
    MembershipError,
    NodeError,
    NoLeader,
    Overloaded,
    QuotaExceeded,
    Removed,
    RequestTimeout,
    Stopping,
)
from anchor.node.node import Node
from anchor.node.startup import open_node

__all__ = [
    "CommitUnknown",
    "Consistency",
    "DiskFull",
    "MembershipError",
    "NoLeader",
    "Node",
    "NodeError",
    "Overloaded",
    "QuotaExceeded",
    "Removed",
    "RequestTimeout",
    "Stopping",
    "open_node",
]
