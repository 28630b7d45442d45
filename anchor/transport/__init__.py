"""How members reach each other: gRPC, one channel a member, streams wherever it is hot.

:class:`Transport` carries the core's messages, the forwarded batches and read questions of
followers, and the few calls of membership. It checks *who* speaks before anybody listens; what is
said is judged by the core. This page is the manual of its caller, *the node*.

In order
========

1. Import this package before ``grpc``: it sets what gRPC's library reads from the environment. Use
   it from greenlets of one hub. How gRPC gets along with gevent: :mod:`anchor.transport.rpc`.
2. ``Transport(local, bind_address, handler, options)`` opens nothing. ``start()`` binds and serves,
   or raises :class:`PortInUse` / :class:`BindFailed`, whose text is the line for the operator.
3. ``set_cluster_id`` as soon as it is known: until then every member's message is refused.
4. ``set_members(configuration.members.values())`` whenever the configuration *in force* changes
   (appended, rolled back, installed). It never switches greenlets. Oneself may be in it. A member
   that was removed still needs the entry that removes it: keep it in the list until that entry is
   committed and sent.
5. ``send(messages)`` for what a Ready says to send. It never blocks and promises nothing: what
   cannot be delivered is dropped, the core copes.
6. ``stop(grace_seconds)`` refuses what is new, ends streams and channels, and returns within the
   grace, or a little later if something clings to life. After it nothing is called any more. A
   transport that was made wants it, also when ``start`` failed.

What comes back, through :class:`TransportHandler`
==================================================

All of it is called in greenlets of the transport, never in the caller's, and never from inside
``send``. ``on_message``, ``on_forward``, ``on_forward_response`` and ``on_disconnected`` sit on
hot paths: put it in your inbox and return. ``on_join`` and ``on_remove`` may block for as long as
they were given.

* ``on_message(message)``: a member that is who it says it is said this. Stateless nonsense (an
  absurd term, entries that cannot be read) never gets here. If the message turns out to be
  nonsense later, in the core, tell ``refuse(message.sender, why)``; raising
  :class:`anchor.raft.InvalidMessage` at once does the same.
* ``on_disconnected(member_id)``: the stream to it broke, and what was under way on it is lost:
  call ``Raft.disconnected``. Comes once a break, also for attempts that never got through.
* Answers of the core need no address: a ``RequestVoteResponse`` finds the call that waits for it,
  an ``AppendEntriesResponse`` goes back over the stream its question came by. So a member answers
  a leader it does not know yet.

Forwarding
==========

``forward(leader_id)`` opens one stream to the leader and returns at once. ``propose(number,
batches)`` and ``read_index(number)`` ask; ``on_forward_response(leader_id, response)`` answers. A
proposal is answered only when it is refused; success is seen in the log. When the stream is gone,
whatever the cause but our own ``close()``, ``on_forward_broken(leader_id)`` comes once, and
everything unanswered on it is in doubt: ask again, on a new stream. A second ``forward`` to the
same leader replaces the first, silently.

Calls
=====

``identify``, ``join``, ``remove`` (to an address) and ``compare_digest`` (to a member) block the
calling greenlet up to their timeout and raise :class:`Unreachable`, :class:`CallTimeout` or
:class:`CallRefused`, all :class:`TransportError`.

Snapshots
=========

The core's ``InstallSnapshot`` is not for ``send``: give it to ``send_snapshot(message, source)`` in
a greenlet of its own. The files go first, chunk by chunk, resumed where the receiver stands after
a break; when the receiver's sink has verified them all, its ``on_message`` gets the message, and
its core's ``InstallSnapshotResponse``, by ``send``, travels back to the sender's ``on_message``.
Without a ``snapshot_receiver`` a transport has no such call, and says so to whoever tries.

Who may speak
=============

Every message carries protocol version, cluster id, sender, recipient, and the incarnations of
both. A message is refused (a gRPC status for the sender, one log line a peer and reason per ten
seconds here, nothing for the core) unless

* protocol version and cluster id are ours, and the recipient is us;
* a sender we know has the incarnation we know: a wiped disk under an old id is somebody else;
* a recipient's incarnation, where the sender knew it, is ours;
* a sender we do *not* know names our incarnation exactly. Only members of the cluster have it
  from the configuration; ours may be older than theirs, or still empty while we join.

When is a peer gone
===================

A killed peer breaks its connection; a paused or unreachable one does not, and gRPC takes far too
long to notice. So silence is judged here: who was not heard for a third of
``silence_timeout_ms`` although it should speak is asked (a ping on the same connection); who does
not answer within ``silence_timeout_ms`` is *lost*: its streams are cancelled and reopened with
capped exponential back-off and full jitter, from the second failure on over a new connection. As
soon as a lost peer speaks to us by itself there is no more waiting. A slow disk over there is not
silence: the ping does not pass by the disk.
"""

from __future__ import annotations

import os

# Read by gRPC's library when it is loaded: no lines of its own on stderr, e.g. for each connection
# that ends; no threads started anew in a forked child that is about to become another program.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from anchor.transport.errors import (
    BindFailed,
    CallRefused,
    CallTimeout,
    ForwardClosed,
    PortInUse,
    SnapshotRefused,
    TransportError,
    Unreachable,
)
from anchor.transport.handler import TransportHandler
from anchor.transport.options import LocalMember, TransportOptions
from anchor.transport.questions import (
    CompareDigest,
    ForwardRequest,
    ForwardResponse,
    Identification,
    JoinRequest,
    JoinResponse,
    RemoveRequest,
    RemoveResponse,
)
from anchor.transport.snapshots import (
    SnapshotFile,
    SnapshotManifest,
    SnapshotPosition,
    SnapshotReceiver,
    SnapshotSink,
    SnapshotSource,
)
from anchor.transport.transport import ForwardStream, Transport

__all__ = [
    "BindFailed",
    "CallRefused",
    "CallTimeout",
    "CompareDigest",
    "ForwardClosed",
    "ForwardRequest",
    "ForwardResponse",
    "ForwardStream",
    "Identification",
    "JoinRequest",
    "JoinResponse",
    "LocalMember",
    "PortInUse",
    "RemoveRequest",
    "RemoveResponse",
    "SnapshotFile",
    "SnapshotManifest",
    "SnapshotPosition",
    "SnapshotReceiver",
    "SnapshotRefused",
    "SnapshotSink",
    "SnapshotSource",
    "Transport",
    "TransportError",
    "TransportHandler",
    "TransportOptions",
    "Unreachable",
]
