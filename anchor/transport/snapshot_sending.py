"""One snapshot to one member: ask where to go on, send from there, begin again after a break."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gevent.event import Event

from anchor.transport import channel as channels
from anchor.transport import codec
from anchor.transport.codec import Malformed
from anchor.transport.errors import CallRefused, SnapshotRefused, TransportError, Unreachable
from anchor.transport.rpc import CallFailed
from anchor.transport.snapshots import MAX_CHUNK_BYTES, SnapshotPosition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anchor.raft.messages import InstallSnapshot, InstallSnapshotResponse
    from anchor.transport.codec import SnapshotAnswer
    from anchor.transport.link import Link
    from anchor.transport.snapshots import SnapshotSource

_MAX_BREAKS = 6  # in a row, none of which brought it any further
_FIRST_PAUSE_SECONDS = 0.1


class SnapshotSending:
    """A transfer. ``run`` blocks until the member's core has judged the snapshot."""

    def __init__(self, link: Link, message: InstallSnapshot, source: SnapshotSource) -> None:
        self._link = link
        self._message = message
        self._source = source
        self._manifest = source.manifest
        self._closed = Event()
        self._upload: channels.Upload | None = None
        self._unreadable: Exception | None = None

    def run(self) -> InstallSnapshotResponse:
        """Send it all; raises TransportError, or whatever the source raised."""
        position: SnapshotPosition | None = None  # not asked yet
        farthest = SnapshotPosition()
        breaks = 0
        while True:
            try:
                answer = self._attempt(position)
            except CallFailed as error:
                breaks += 1
                if breaks >= _MAX_BREAKS or not error.is_breakdown or self._link.is_closed:
                    raise self._given_up(error) from None
                self._closed.wait(_FIRST_PAUSE_SECONDS * 2**breaks)
                position = None
            else:
                if answer.response is not None:
                    return answer.response
                position = answer.position
                if position > farthest:
                    farthest, breaks = position, 0
            if self._closed.is_set():
                raise Unreachable(f"{self._link.member.id}: the transport stops")

    def close(self) -> None:
        """End it: ``run`` raises."""
        self._closed.set()
        self._cut()

    def _attempt(self, position: SnapshotPosition | None) -> SnapshotAnswer:
        """Make one stream of the manifest and what comes at this position; None only asks."""
        link = self._link
        self._upload = link.channel().upload(channels.INSTALL_SNAPSHOT, self._stream(position))
        link.on_lost.append(self._cut)
        try:
            wire = self._upload.result()
        finally:
            link.on_lost.remove(self._cut)
            if self._unreadable is not None:
                raise self._unreadable
        try:
            header, answer = codec.decode_snapshot_answer(wire)
        except Malformed as error:
            raise CallRefused("malformed", str(error)) from None
        if not link.is_from_it(header):
            raise CallRefused("malformed", "the answer is not from it, or not for us")
        return answer

    def _stream(self, position: SnapshotPosition | None) -> Iterator[bytes]:
        """Yield what one stream says. Runs in the upload's greenlet."""
        yield codec.encode_snapshot_manifest(self._link.header(), self._message, self._manifest)
        if position is None:
            return
        manifest = self._manifest
        position = manifest.settled(position)
        while position.file < len(manifest.files) and not self._closed.is_set():
            left = manifest.files[position.file].size_bytes - position.offset
            try:
                content = self._source.read(position, min(left, MAX_CHUNK_BYTES))
            except Exception as error:  # noqa: BLE001 - raised again where it belongs, in run
                self._unreadable = error
                return
            yield codec.encode_snapshot_chunk(position, content)
            position = manifest.settled(
                SnapshotPosition(position.file, position.offset + len(content))
            )

    def _cut(self) -> None:
        upload = self._upload
        if upload is not None:
            upload.cancel()

    def _given_up(self, error: CallFailed) -> TransportError:
        if error.is_breakdown:
            return Unreachable(f"{self._link.member.id}: {error.why}")
        return SnapshotRefused(f"{self._link.member.id} refuses the snapshot: {error.why}")
