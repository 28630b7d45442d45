"""gRPC for greenlets: the C core of grpcio, driven from the hub.

Why not grpcio's own Python layer
=================================

Under gevent it takes two trips through a thread pool and several locks for each message, about
four times the CPU of the C core itself; in native threads half of that, but then every stream
needs two threads that quarrel with the hub for the GIL. What is here is the thin layer grpcio has
for asyncio, for gevent instead.

How it works
============

The C core reports what happened through *completion queues*, each of which a native thread reads
with the GIL released: one thread for the server, one for each call of ours. A thread counts what is
under way, and notes that a message was sent (:mod:`.sending` says why that is safe); all else it
*posts* to the :class:`~.pump.Pump`, whose greenlet on the hub runs what was posted, in order. So
everything outside this package runs on the hub, in greenlets, and needs no locks.

Starting an operation (send, receive, cancel) never waits: the hub does it itself.

===================  ===========================================================================
:mod:`.native`       threads and locks that gevent has not patched, and the C core itself
:mod:`.pump`         from native threads to the hub
:mod:`.sending`      messages of an outbox, one after the other, onto a call
:mod:`.client`       connections and calls of ours
:mod:`.server`       the port we listen on, and the calls of others
===================  ===========================================================================

``grpc._cython`` promises nothing between releases: grpcio is pinned, and ``tests/transport`` runs
against grpcio's public client and server too, so a new release is tried before it is taken.
"""

from __future__ import annotations

from anchor.transport.rpc.client import ClientCall, Connection
from anchor.transport.rpc.failures import CallFailed
from anchor.transport.rpc.pump import Pump
from anchor.transport.rpc.sending import Sending
from anchor.transport.rpc.server import Method, RpcServer, ServerCall

__all__ = [
    "CallFailed",
    "ClientCall",
    "Connection",
    "Method",
    "Pump",
    "RpcServer",
    "Sending",
    "ServerCall",
]
