"""The verbs ``snapshot save``, ``info`` and ``restore``: backups as files.

The file and its checks are in :mod:`anchor.storage.backup_format` and
:mod:`anchor.storage.backup_reader`; what a restored directory is, in
:mod:`anchor.storage.restoring`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import uuid
from typing import TYPE_CHECKING

from anchor.client import Client, ClientError, NoLeader, Unreachable
from anchor.client.connections import Request
from anchor.client.download import Download, open_download
from anchor.progress import Progress, size_text
from anchor.storage import StorageError
from anchor.storage.backup_reader import BackupReader
from anchor.storage.files import sync_directory
from anchor.storage.restoring import Founder, restore
from anchor.values import printable
from anchor.verbs import table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    from anchor.plan import RunSnapshot, RunVerb
    from anchor.settings import Settings

OK, ERROR, NO_LEADER, UNREACHABLE = 0, 1, 5, 7


def run(plan: RunSnapshot) -> int:
    """Do what was asked for and return the exit code."""
    os.umask(0o077)  # a backup has all there is to know, as a data directory has
    subject = f"snapshot {plan.action}"
    try:
        if plan.source is not None:
            _save(plan.file, plan.source)
        elif plan.settings is not None:
            _restore(plan.file, plan.settings)
        else:
            _describe(plan.file, as_json=plan.as_json)
    except NoLeader as error:
        hint = "--consistency stale does without one"
        return _fail(subject, f"no leader: {error}; {hint}", NO_LEADER)
    except Unreachable as error:
        return _fail(subject, f"unreachable: {error}", UNREACHABLE)
    except ClientError as error:
        return _fail(subject, f"refused: {error}", ERROR)
    except StorageError as error:
        return _fail(subject, str(error), ERROR)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(subject, f"{where}{error.strerror or error}", ERROR)
    return OK


# --------------------------------------------------------------------- save


def _save(file: Path, source: RunVerb) -> None:
    """Write a backup to a name of its own; it gets the right one when it is whole and durable."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    request = Request("GET", "/snapshot", headers={"X-Consistency": source.consistency})
    timeout, patience = source.timeout_ms / 1000, source.patience_ms / 1000
    with Client(source.endpoints, timeout=timeout, patience=patience, sessions=False) as client:
        try:
            with temporary.open("xb") as written, open_download(client, request) as download:
                backup = _receive(download, written)
                written.flush()
                os.fsync(written.fileno())
            temporary.replace(file)
            sync_directory(file.parent)
        finally:
            temporary.unlink(missing_ok=True)
    header = backup.header
    print(
        f"{printable(str(file))}: all data as of entry {header.last_included_index} of cluster "
        f"{header.cluster_id}, {backup.record_count} records, {size_text(backup.bytes_read)}",
        flush=True,
    )


def _receive(download: Download, written: BinaryIO) -> BackupReader:
    """Check what arrives while it is written."""
    with Progress("saving") as progress:

        def read(size: int) -> bytes:
            piece = download.read(size)
            written.write(piece)
            progress.add(len(piece))
            return piece

        backup = BackupReader(read, download.endpoint)
        backup.verify()
    return backup


# --------------------------------------------------------------------- info


def _describe(file: Path, *, as_json: bool) -> None:
    key_count = 0
    with file.open("rb") as content, _progress("checking", content) as progress:
        backup = BackupReader(_counted(content, progress), file)
        for batch in backup.batches():
            key_count += sum(key[:1] == b"k" for key, _ in batch)
    header = backup.header
    members = [
        {
            "id": member.id,
            "address": member.address,
            "voter": member.id in header.configuration.voters,
        }
        for _, member in sorted(header.configuration.members.items())
    ]
    fields = {
        "cluster_id": header.cluster_id,
        "node_id": header.node_id,
        "created": header.created,
        "version": header.version,
        "last_included_index": header.last_included_index,
        "last_included_term": header.last_included_term,
        "digest": header.digest,
        "keys": key_count,
        "bytes": backup.bytes_read,
    }
    if as_json:
        print(json.dumps({**fields, "members": members}, indent=2), flush=True)
        return
    listed = ", ".join(f"{member['id']} at {member['address']}" for member in members)
    rows = [(name.upper().replace("_", " "), value) for name, value in fields.items()]
    print(table(("MEMBERS", listed), rows), end="", flush=True)


# --------------------------------------------------------------------- restore


def _restore(file: Path, settings: Settings) -> None:
    founder = Founder(settings.node_id, settings.address, settings.http_address, uuid.uuid4().hex)
    with file.open("rb") as content, _progress("restoring", content) as progress:
        backup = BackupReader(_counted(content, progress), file)
        restore(backup, settings.directory, founder)
    print(
        f"{printable(str(settings.directory))}: {founder.node_id} is the only member of the new "
        f"cluster {founder.cluster_id}, with all data as of entry "
        f"{backup.header.last_included_index}. Start it without --peers, where others reach it at "
        f"{founder.address}.",
        flush=True,
    )


def _progress(label: str, content: BinaryIO) -> Progress:
    return Progress(label, os.fstat(content.fileno()).st_size)


def _counted(content: BinaryIO, progress: Progress) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        piece = content.read(size)
        progress.add(len(piece))
        return piece

    return read


def _fail(subject: str, why: str, code: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(f"anchor: {printable(subject, 200)}: {printable(why, 500)}", file=sys.stderr)
    return code
