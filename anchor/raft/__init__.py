"""The Raft consensus core: decides everything, touches nothing.

:class:`Raft` is a deterministic state machine. It knows no clock, no disk, no network and no
chance but the ``random.Random`` it is given; the same calls in the same order always give the
same output, so one seed replays a whole cluster. Somebody else, *the shell*, acts for it. This
page is the shell's manual.

Theory of operation
===================

The shell turns whatever happens into calls:

``tick(elapsed_ticks)``
    Time passed. The lease clock advances by all of it; election and heartbeat timers by one tick
    only, because a process that was paused heard nothing *because it was not listening*.
``step(message)``
    A message arrived. Who may speak to this member (cluster, identity, incarnation) has been
    checked outside; whether what it says makes sense is checked here.
``propose(payloads)``, ``propose_configuration(configuration)``, ``read_index(context)``,
``transfer_leadership(member_id)``, ``campaign()``, ``found(configuration)``
    Somebody wants something. Each raises a :class:`Refused` that says why not.
``persisted(number)``, ``applied(index)``, ``snapshot_sent(...)``, ``disconnected(member_id)``
    What the shell was told to do has been done, or went wrong.
``told_removed()``
    The shell found out, with proof, that this member was removed while it was away.

After any of them, while ``has_ready()``, it takes one ``ready()`` and owes it the following.

The shell's duties, in order
============================

1. **Persist** ``hard_state`` and ``entries`` of a Ready together, after those of every Ready
   before it. Appending ``entries`` first drops what the log holds from ``entries[0].index`` on.
   When they are durable (fsynced), and not before, call ``persisted(ready.number)``; numbers may
   be reported in one call, the highest covers all below it. A failed write or fsync is final:
   stop the node, never retry.
2. **Send at once** ``messages``: they promise nothing that is not already durable. A leader's
   entries are among them, so followers write while the leader's own disk still does (thesis
   §10.2.1); the leader counts itself only in ``persisted``.
3. **Send once persisted** ``messages_after_persist``: votes and acknowledgements are promises
   about this member's disk (paper, Figure 2: "updated on stable storage before responding").
   A Ready with nothing to persist has its messages in ``messages`` unless an earlier Ready is
   still being written; then they wait in ``messages_after_persist`` like the others, and the
   Ready counts as having something to persist (``must_persist``).
4. **Apply** ``committed``, in order, each exactly once, then call ``applied(index)``. Applying may
   lag behind; a Ready never repeats what an earlier one handed out.
5. **Install** ``snapshot`` if there is one, before anything else of that Ready, durably and
   atomically; then report ``persisted`` and ``applied`` as usual.
6. **Answer reads**: ``reads`` holds a ReadState for each question now confirmed; serve it from a
   state machine that has applied at least its ``index``. ``aborted_reads`` holds contexts whose
   question this member can no longer answer: ask again, elsewhere.
7. **Lease reads**: call ``tick`` with all the time that has passed, *then* ask ``lease_valid()``.
   A lease never asked about with fresh time is not a lease. It assumes clocks that drift from
   each other by less than ``Options.lease_ticks`` leaves of the election timeout.

8. **Say when the disk is full**: ``set_room(False)`` before it is, while there is room for what is
   under way and for terms and votes, which go on being written. Such a member acknowledges what it
   has, and appends no commands; it does not campaign, and if it leads it had better hand over.
   ``set_room(True)`` once there is room again, and it goes on by itself.

Messages may be lost, repeated, reordered and delayed at will: nothing here relies on delivery.

The pieces
==========

====================  ===========================================================================
``raft.py``           the machine itself: terms, roles, what each message means, the Ready
``leadership.py``     what a member does while it leads
``following.py``      what a member does with what a leader sends
``elections.py``      timers and votes; ``candidacy.py``: the votes of one campaign
``log.py``            the log: what is stored, what is still in memory, what is committed
``progress.py``       the leader's view of one member: probe, replicate, snapshot; the window
``configuration.py``  members, joint quorums, which change may follow which
``reads.py``          ReadIndex rounds and the lease
``messages.py``       everything members say to each other; ``validation.py``: what none may say
``interface.py``      options, storage, the Ready
====================  ===========================================================================

Sources: Ongaro & Ousterhout, *In Search of an Understandable Consensus Algorithm* ("paper");
Ongaro, *Consensus: Bridging Theory and Practice* ("thesis").
"""

from __future__ import annotations

from anchor.raft.configuration import Configuration, Member
from anchor.raft.entry import Entry, EntryKind
from anchor.raft.errors import (
    ChangeInProgress,
    Compacted,
    InvalidConfiguration,
    InvalidMessage,
    LogError,
    NoRoom,
    NotLeader,
    NotReady,
    Overloaded,
    RaftError,
    Refused,
    TransferInProgress,
    Unavailable,
    UnknownMember,
)
from anchor.raft.interface import (
    HardState,
    LogStorage,
    Options,
    Proposed,
    ReadState,
    Ready,
    Role,
)
from anchor.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    RequestVote,
    RequestVoteResponse,
    SnapshotMetadata,
    TimeoutNow,
)
from anchor.raft.progress import Progress, ProgressState
from anchor.raft.raft import Raft

__all__ = [
    "AppendEntries",
    "AppendEntriesResponse",
    "ChangeInProgress",
    "Compacted",
    "Configuration",
    "Entry",
    "EntryKind",
    "HardState",
    "InstallSnapshot",
    "InstallSnapshotResponse",
    "InvalidConfiguration",
    "InvalidMessage",
    "LogError",
    "LogStorage",
    "Member",
    "Message",
    "NoRoom",
    "NotLeader",
    "NotReady",
    "Options",
    "Overloaded",
    "Progress",
    "ProgressState",
    "Proposed",
    "Raft",
    "RaftError",
    "ReadState",
    "Ready",
    "Refused",
    "RequestVote",
    "RequestVoteResponse",
    "Role",
    "SnapshotMetadata",
    "TimeoutNow",
    "TransferInProgress",
    "Unavailable",
    "UnknownMember",
]
