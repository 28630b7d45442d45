"""Snapshots that others send us: one at a time, the newest transfer wins.

A transfer fills a sink chunk by chunk. Once the sink has verified the whole, the core is told
(``on_message``), and its answer, which comes by ``Transport.send``, ends the call.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import gevent
import grpc
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore

from anchor.transport import codec
from anchor.transport.admission import Rejection
from anchor.transport.codec import Malformed, SnapshotAnswer
from anchor.transport.errors import SnapshotRefused
from anchor.transport.inbound import malformed, too_many
from anchor.transport.snapshots import SnapshotPosition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anchor.raft.messages import InstallSnapshot, InstallSnapshotResponse
    from anchor.transport.parts import Parts
    from anchor.transport.rpc import ServerCall
    from anchor.transport.snapshots import SnapshotManifest, SnapshotReceiver, SnapshotSink

_SILENCE_SECONDS = 30.0  # between two chunks: the sender's disk may be slow
_TAKEOVER_SECONDS = 5.0  # for an older transfer to let go
_CORE_SECONDS = 60.0  # for the core to judge it, and for its installation


class _Transfer:
    """One call that brings a snapshot."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call
        self.heard_at = time.monotonic()
        self.replaced = False

    def cancel(self) -> None:
        """End the call, from any greenlet."""
        self._call.cancel()


class SnapshotReceiving:
    """Our side of the InstallSnapshot call."""

    def __init__(self, parts: Parts, receiver: SnapshotReceiver) -> None:
        self._admission = parts.admission
        self._handler = parts.handler
        self._receiver = receiver
        self._present: _Transfer | None = None
        self._free = BoundedSemaphore(1)
        self._waiting: dict[tuple[str, int], AsyncResult[InstallSnapshotResponse | None]] = {}
        self._closed = False

    def install(self, call: ServerCall) -> bytes:
        """Serve one call; raises Rejection, Malformed, or whatever ``on_message`` raises."""
        requests = call.messages()
        header, message, manifest = codec.decode_snapshot_manifest(_next(requests))
        envelope = codec.envelope(header)
        self._admission.check(envelope)
        transfer = _Transfer(call)
        self._take_over(transfer)
        try:
            answer = self._receive(transfer, message, manifest, requests)
        except SnapshotRefused as error:
            raise Rejection(
                grpc.StatusCode.FAILED_PRECONDITION, "snapshot", str(error)[:300]
            ) from None
        finally:
            self._free.release()
        local = self._admission
        return codec.encode_snapshot_answer(
            codec.header(
                local.cluster_id,
                local.member_id,
                local.incarnation,
                envelope.sender,
                envelope.sender_incarnation,
            ),
            answer,
        )

    def answer(self, response: InstallSnapshotResponse) -> None:
        """Give the core's answer to the call that waits for it."""
        waiting = self._waiting.get((response.recipient, response.session))
        if waiting is not None:
            waiting.set(response)

    def check(self, now: float) -> None:
        """End a transfer whose sender fell silent. Called by the monitor."""
        transfer = self._present
        if transfer is not None and now - transfer.heard_at > _SILENCE_SECONDS:
            transfer.cancel()

    def close(self) -> None:
        """End the transfer, and let nobody wait for the core any more."""
        self._closed = True
        for waiting in self._waiting.values():
            waiting.set(None)
        transfer = self._present
        if transfer is not None:
            transfer.cancel()

    # --- one at a time -------------------------------------------------------------------------

    def _take_over(self, transfer: _Transfer) -> None:
        older, self._present = self._present, transfer
        if older is not None:
            older.replaced = True
            older.cancel()
        if not self._free.acquire(timeout=_TAKEOVER_SECONDS):
            raise too_many("snapshots at once")

    # --- the transfer --------------------------------------------------------------------------

    def _receive(
        self,
        transfer: _Transfer,
        message: InstallSnapshot,
        manifest: SnapshotManifest,
        requests: Iterator[bytes],
    ) -> SnapshotAnswer:
        sink = self._receiver.receive(message, manifest)
        try:
            position = self._fill(transfer, sink, manifest, requests)
            if not manifest.is_complete(position):
                sink.suspend()
                return SnapshotAnswer(None, position)
        except BaseException:
            sink.suspend()
            raise
        sink.finish()
        transfer.heard_at = time.monotonic() + _CORE_SECONDS
        return SnapshotAnswer(self._judgement(message), position)

    def _fill(
        self,
        transfer: _Transfer,
        sink: SnapshotSink,
        manifest: SnapshotManifest,
        requests: Iterator[bytes],
    ) -> SnapshotPosition:
        """Write chunk after chunk to where the sink stands; where that is in the end."""
        position = manifest.settled(sink.position)
        for wire in requests:
            if transfer.replaced:
                raise Rejection(grpc.StatusCode.ABORTED, "replaced", "a newer snapshot came")
            transfer.heard_at = time.monotonic()
            where, content = codec.decode_snapshot_chunk(wire)
            if manifest.is_complete(position) or where != position:
                raise Malformed(f"a chunk of file {where.file} at {where.offset} out of turn")
            end = position.offset + len(content)
            if end > manifest.files[position.file].size_bytes:
                raise Malformed(f"file {position.file} is longer than its manifest says")
            sink.write(position, content)
            position = manifest.settled(SnapshotPosition(position.file, end))
        if transfer.replaced or self._closed:  # whose end looks like a good one
            raise Rejection(grpc.StatusCode.ABORTED, "replaced", "it was cut off")
        return position

    def _judgement(self, message: InstallSnapshot) -> InstallSnapshotResponse:
        """Hand it to the core and wait for its answer."""
        key = (message.sender, message.session)
        answer: AsyncResult[InstallSnapshotResponse | None] = AsyncResult()
        self._waiting[key] = answer
        try:
            self._handler.on_message(message)
            response = None if self._closed else answer.get(timeout=_CORE_SECONDS)
        except gevent.Timeout:
            response = None
        finally:
            self._waiting.pop(key, None)
        if response is None:
            raise Rejection(grpc.StatusCode.UNAVAILABLE, "", "the core gave no answer in time")
        return response


def _next(requests: Iterator[bytes]) -> bytes:
    for wire in requests:
        return wire
    raise malformed(ValueError("a snapshot without a manifest"))
