"""``GET /snapshot``: a backup of all there is, made while it is sent.

It is as of one entry, the one that ``X-Applied-Index`` names, and as fresh as ``X-Consistency``
asks: by default it holds every write that was answered before it was asked for. Its length is known
only once it has been read, so there is no Content-Length: an answer that breaks off lacks its last
chunk, and a file its end (:mod:`anchor.storage.backup_format`).

A node keeps what the backup sees as long as it is read, so a client that stops reading is given
``Limits.send_timeout`` for each piece, and no more than a few may read at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.api.kv import consistency_of

if TYPE_CHECKING:
    import falcon

    from anchor.api.limits import Limits
    from anchor.api.store import Store


class BackupOfAll:
    """``/snapshot``."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._timeout = limits.request_timeout

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Begin a backup and let it follow; of HEAD, only say what would."""
        asked = req.get_header("X-Consistency")
        consistency = consistency_of(None if asked is None else asked.encode("latin-1"))
        stream = self._store.backup(consistency, self._timeout)
        header = stream.header
        name = f"anchor-{header.cluster_id[:8]}-{header.last_included_index}.backup"
        resp.content_type = "application/octet-stream"
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("Content-Disposition", f'attachment; filename="{name}"')
        resp.set_header("X-Consistency", consistency.value)
        resp.set_header("X-Applied-Index", str(header.last_included_index))
        resp.set_header("X-Raft-Leader", self._store.leader_id or "")
        resp.set_header("X-Raft-Term", str(self._store.term))
        resp.stream = stream
        if req.method == "HEAD":
            stream.close()
            resp.stream = iter(())  # not none at all: that would have a length, of 0
