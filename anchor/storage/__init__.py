"""Everything a node keeps on its disk, and how it keeps its word about it.

A :class:`DataDirectory` is opened by one process, whole or not at all. What belongs in it is in
``DESIGN.md``; this page is the manual of whoever uses it.

The caller's duties, in order
=============================

1. **Open** with ``DataDirectory.open(path, node_id)``. It makes the directory if there is nothing,
   and refuses it if anything is wrong with it. A ``StorageError`` is one line for the user: which
   file, what is wrong, what to do. Open after a fork, never before one: RocksDB has threads. Give
   the process a umask of ``0o077``: RocksDB makes files.
2. **Belong**: while ``is_new``, either ``bootstrap`` a cluster or, once let into one,
   ``set_cluster_id``. Both are durable when they return; the latter may run beside appends.
3. **Append, then sync.** ``log.append`` is one write into the page cache; ``log.sync``, in a native
   thread, makes durable what was appended before it was called. Promise nothing in between. Syncs
   may run beside appends, not beside each other. An error of either is final: close, stop.
4. **Apply only what is durable here.** The state has no log of its own, and RocksDB writes it to
   disk when it likes. Were it ahead of the log after a power cut, nobody could tell that from a
   log that lost its end, and so it is refused. ``anchor.raft`` hands out committed entries so.
5. **Compact**: ``create_snapshot`` (native thread), ``log.record_snapshot(snapshot.metadata)``,
   ``log.drop_prefix(index)`` with an index the snapshot includes, less a tail for those that are
   slow; later ``log.reclaim()`` (native thread). ``snapshots.hold`` keeps the files of one that is
   being read.
6. **Install** what another node sent: a ``Reception`` takes the files and makes a snapshot of them,
   ``prepare`` a state that is not live yet (native thread). ``switch`` is one write, in its turn
   among the appends; load the state machine from the new ``state`` at once. After the sync,
   ``retire`` the old one (native thread).
7. **Scrub**: from a native thread, ``scrub().step()`` every now and then; close the scrub before
   the directory, and before ``retire``. Snapshots, scrub, ``reclaim`` and ``retire`` take turns.
8. **Watch the space**: once RocksDB has failed to write for want of it, it takes no more writes
   until it is opened again. Nothing synced is lost, but the node is out. So refuse clients' writes
   while ``room.free_bytes()`` is less than ``reserve_bytes()``: :mod:`~anchor.storage.room`.

Beside a node
=============

- :mod:`~anchor.storage.backup` reads all of a state that goes on changing, as one consistent file
  (:mod:`~anchor.storage.backup_format`); :mod:`~anchor.storage.restoring` makes the directory of a
  new cluster of it.
- :mod:`~anchor.storage.recovery` makes a stopped member's directory all there is, when the others
  are lost for good.

What may be called where
========================

The binding keeps the GIL inside reads and writes and releases it inside syncs and flushes. So:

=====================  =========================================================================
hub-safe, some µs      ``log``: all but the following; ``state.get``, ``state.write``,
                       ``room``: all but ``hold``; ``free_bytes``, ``reserve_bytes``, ``switch``,
                       ``snapshots.hold``, ``snapshots.release``. A read that misses the caches
                       waits for the disk.
blocks, GIL released   ``Reception``, for most of its time
blocks, GIL released   ``log.sync``, ``log.reclaim``, ``state.flush``, ``state.compact``
blocks, GIL held for   ``open``, ``bootstrap``, ``set_cluster_id``, ``create_snapshot``,
some ms here or there  ``prepare``, ``retire``, ``install``, ``close``; ``Scrub.step`` for the time
                       it is given
=====================  =========================================================================

What is checked
===============

A torn end of the newest write-ahead log is what a crash leaves, and is accepted. Everything else is
damage, and damage stops the start, or the read or the scrub that meets it (``CorruptionError``):

- RocksDB checks the checksum of each log record at the start, and of each block of a table when it
  is read.
- It does not notice lengths that are wrong, holes, logs that are missing
  (:mod:`~anchor.storage.write_ahead_log`), and cannot know what it once had
  (:mod:`~anchor.storage.sync_mark`). We do, and look before RocksDB may repair
  (:mod:`~anchor.storage.inspection`).
- Identity, format, an unbroken log, a hard state not older than the log, and a state that this log
  can have made and can continue are checked at each opening.
"""

from __future__ import annotations

from anchor.storage.directory import DataDirectory, Installation
from anchor.storage.errors import (
    CorruptionError,
    DiskFullError,
    ForeignDirectoryError,
    LockedError,
    StorageError,
    UnsupportedFormatError,
    translate_os,
)
from anchor.storage.memory_log import MemoryLog
from anchor.storage.reception import Reception
from anchor.storage.rocks_log import RocksLog
from anchor.storage.room import Room
from anchor.storage.scrub import Scrub
from anchor.storage.snapshot_manifest import (
    SNAPSHOT_FORMAT,
    TABLE_SUFFIX,
    SnapshotManifest,
    checked_file,
)
from anchor.storage.snapshots import Snapshot, SnapshotStore
from anchor.storage.stable import Identity
from anchor.storage.state import RocksState

__all__ = [
    "SNAPSHOT_FORMAT",
    "TABLE_SUFFIX",
    "CorruptionError",
    "DataDirectory",
    "DiskFullError",
    "ForeignDirectoryError",
    "Identity",
    "Installation",
    "LockedError",
    "MemoryLog",
    "Reception",
    "RocksLog",
    "RocksState",
    "Room",
    "Scrub",
    "Snapshot",
    "SnapshotManifest",
    "SnapshotStore",
    "StorageError",
    "UnsupportedFormatError",
    "checked_file",
    "translate_os",
]
