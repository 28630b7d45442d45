"""Snapshots on their way as bytes, and back."""

from __future__ import annotations

import re
from typing import NamedTuple

from google.protobuf.message import DecodeError

from anchor.raft.configuration import Configuration
from anchor.raft.messages import (
    InstallSnapshot,
    InstallSnapshotResponse,
    SnapshotMetadata,
)
from anchor.transport import raft_pb2
from anchor.transport.codec.header import (
    Header,
    Malformed,
    check_indexes,
    check_term,
)
from anchor.transport.snapshots import (
    MAX_CHUNK_BYTES,
    SnapshotFile,
    SnapshotManifest,
    SnapshotPosition,
)

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")
_MAX_FILES = 100_000


class SnapshotAnswer(NamedTuple):
    """The core's answer to a snapshot, or None and where to go on."""

    response: InstallSnapshotResponse | None
    position: SnapshotPosition


def encode_snapshot_manifest(
    header: Header, message: InstallSnapshot, manifest: SnapshotManifest
) -> bytes:
    """Write what a snapshot stands for and the files it has."""
    snapshot = message.snapshot
    return raft_pb2.InstallSnapshotRequest(
        header=header,
        term=message.term,
        session=message.session,
        manifest=raft_pb2.SnapshotManifest(
            format_version=manifest.format_version,
            last_included_index=snapshot.last_included_index,
            last_included_term=snapshot.last_included_term,
            configuration=snapshot.configuration.encode(),
            configuration_index=snapshot.configuration_index,
            files=[
                raft_pb2.SnapshotFile(name=f.name, size_bytes=f.size_bytes, sha256=f.sha256)
                for f in manifest.files
            ],
        ),
    ).SerializeToString()


def decode_snapshot_manifest(wire: bytes) -> tuple[Header, InstallSnapshot, SnapshotManifest]:
    """Read the first message of a snapshot's stream; raises Malformed.

    File names are plain: nothing that could lead out of a directory, hidden files neither.
    """
    try:
        request = raft_pb2.InstallSnapshotRequest.FromString(wire)
    except DecodeError:
        raise Malformed("not an InstallSnapshot") from None
    if request.WhichOneof("part") != "manifest":
        raise Malformed("a snapshot that begins without its manifest")
    manifest = request.manifest
    check_term(request.term)
    check_indexes(last_included_index=manifest.last_included_index)
    if not 0 < manifest.last_included_term <= request.term:
        raise Malformed(f"a snapshot of term {manifest.last_included_term} cannot be")
    if not manifest.configuration_index <= manifest.last_included_index:
        raise Malformed("a snapshot older than its configuration")
    try:
        configuration = Configuration.decode(manifest.configuration)
    except ValueError as error:
        raise Malformed(f"its configuration cannot be read: {error}") from None
    message = InstallSnapshot(
        request.term,
        request.header.sender,
        request.header.recipient,
        SnapshotMetadata(
            manifest.last_included_index,
            manifest.last_included_term,
            configuration,
            manifest.configuration_index,
        ),
        request.session,
    )
    return request.header, message, SnapshotManifest(manifest.format_version, _files(manifest))


def _files(manifest: raft_pb2.SnapshotManifest) -> tuple[SnapshotFile, ...]:
    if len(manifest.files) > _MAX_FILES:
        raise Malformed(f"a snapshot of {len(manifest.files)} files")
    files = tuple(SnapshotFile(f.name, f.size_bytes, f.sha256) for f in manifest.files)
    for file in files:
        if not _PLAIN_NAME.fullmatch(file.name) or len(file.sha256) != 32:
            raise Malformed(f"a snapshot with a file {file.name[:64]!r}")
        check_indexes(size_bytes=file.size_bytes)
    if len({file.name for file in files}) != len(files):
        raise Malformed("a snapshot with two files of one name")
    return files


def encode_snapshot_chunk(position: SnapshotPosition, content: bytes) -> bytes:
    """Write a piece of one file; the stream's first message said who sends it."""
    chunk = raft_pb2.SnapshotChunk(file=position.file, offset=position.offset, content=content)
    return raft_pb2.InstallSnapshotRequest(chunk=chunk).SerializeToString()


def decode_snapshot_chunk(wire: bytes) -> tuple[SnapshotPosition, bytes]:
    """Read a piece of one file; raises Malformed."""
    try:
        request = raft_pb2.InstallSnapshotRequest.FromString(wire)
    except DecodeError:
        raise Malformed("not an InstallSnapshot") from None
    if request.WhichOneof("part") != "chunk":
        raise Malformed("a snapshot with two manifests")
    chunk = request.chunk
    if not 0 < len(chunk.content) <= MAX_CHUNK_BYTES:
        raise Malformed(f"a snapshot chunk of {len(chunk.content)} bytes")
    return SnapshotPosition(chunk.file, chunk.offset), chunk.content


def encode_snapshot_answer(header: Header, answer: SnapshotAnswer) -> bytes:
    """Write the core's answer, or where to go on."""
    response = answer.response
    wire = raft_pb2.InstallSnapshotResponse(
        header=header,
        incomplete=response is None,
        resume_file=answer.position.file,
        resume_offset=answer.position.offset,
    )
    if response is not None:
        wire.term = response.term
        wire.session = response.session
        wire.success = response.success
        wire.match_index = response.match_index
    return wire.SerializeToString()


def decode_snapshot_answer(wire: bytes) -> tuple[Header, SnapshotAnswer]:
    """Read the core's answer, or where to go on; raises Malformed."""
    try:
        answer = raft_pb2.InstallSnapshotResponse.FromString(wire)
    except DecodeError:
        raise Malformed("not an InstallSnapshotResponse") from None
    position = SnapshotPosition(answer.resume_file, answer.resume_offset)
    if answer.incomplete:
        return answer.header, SnapshotAnswer(None, position)
    check_term(answer.term)
    check_indexes(match_index=answer.match_index)
    response = InstallSnapshotResponse(
        answer.term,
        answer.header.sender,
        answer.header.recipient,
        answer.success,
        answer.match_index,
        answer.session,
    )
    return answer.header, SnapshotAnswer(response, position)
