"""Backups that a node hands out: a few at a time, and ended when it ends."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import gevent
import gevent.event
import pytest

from anchor.node.backups import MAX_BACKUPS, Backups
from anchor.node.errors import NoLeader, Overloaded
from anchor.storage import StorageError
from anchor.storage.backup_reader import BackupReader
from tests.storage.building import opened
from tests.storage.test_snapshots import grow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anchor.storage import DataDirectory


@contextmanager
def backups_of(path: Path) -> Iterator[tuple[Backups, DataDirectory]]:
    """Give the backups of a node that has applied 30 entries."""
    with opened(path) as directory:
        grow(directory, 30)
        backups = Backups(directory, "1.2.3")
        yield backups, directory
        backups.end_all(timeout_seconds=5.0)


def verified(content: bytes) -> BackupReader:
    """Read a backup to its end."""
    rest = memoryview(content)

    def read(size: int) -> bytes:
        nonlocal rest
        piece, rest = bytes(rest[:size]), rest[size:]
        return piece

    reader = BackupReader(read, "backup")
    reader.verify()
    return reader


def test_its_pieces_are_a_backup(tmp_path: Path) -> None:
    """Of what was applied when it was begun, by whom and when it was made."""
    with backups_of(tmp_path / "d") as (backups, directory):
        stream = backups.begin()
        grow(directory, 40)
        reader = verified(b"".join(stream))
        stream.close()
        assert reader.header.last_included_index == 30
        assert reader.header.version == "1.2.3"
        assert reader.header.node_id == directory.identity.node_id
        assert reader.header.created.startswith("20")
        assert reader.header.created.endswith("Z")


def test_only_a_few_are_read_at_once(tmp_path: Path) -> None:
    """Each holds space on the disk; whoever ends makes room, and only once."""
    with backups_of(tmp_path / "d") as (backups, _):
        streams = [backups.begin() for _ in range(MAX_BACKUPS)]
        with pytest.raises(Overloaded, match="being read from this node already"):
            backups.begin()
        streams[0].close()
        streams[0].close()
        backups.begin()
        with pytest.raises(Overloaded):
            backups.begin()


def test_a_node_that_has_applied_nothing_has_no_backup(tmp_path: Path) -> None:
    """An empty one would be mistaken for its cluster's."""
    with opened(tmp_path / "d") as directory:
        backups = Backups(directory, "0")
        for _ in range(MAX_BACKUPS + 1):  # and it holds nothing
            with pytest.raises(NoLeader, match="knows nothing of its cluster's data"):
                backups.begin()


def test_the_end_of_the_node_is_the_end_of_them(tmp_path: Path) -> None:
    """Readers get an error, never what looks like an end; the directory can be closed."""
    with backups_of(tmp_path / "d") as (backups, _):
        stream = backups.begin()
        assert next(stream)
        backups.end_all(timeout_seconds=1.0)
        with pytest.raises(StorageError, match="ended before its end"):
            next(stream)
        stream.close()
    with opened(tmp_path / "d") as directory:
        assert directory.log.last_index() == 30


def test_a_piece_that_is_being_read_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RocksDB may not be closed under a reader."""
    with backups_of(tmp_path / "d") as (backups, _):
        stream = backups.begin()
        may_end, order = gevent.event.Event(), []
        read = stream._backup.read

        class SlowPool:
            """A thread pool whose call takes until a test says so."""

            def apply(self, call: object) -> bytes:
                """Call it."""
                assert call == read
                may_end.wait()
                order.append("read")
                return read()

        monkeypatch.setattr(gevent.get_hub(), "threadpool", SlowPool())
        reader = gevent.spawn(next, stream)
        gevent.sleep(0)

        def end() -> None:
            backups.end_all(timeout_seconds=5.0)
            order.append("ended")

        ender = gevent.spawn(end)
        gevent.sleep(0)
        may_end.set()
        piece = reader.get(timeout=5.0)
        ender.get(timeout=5.0)
        assert order == ["read", "ended"]
        assert piece.startswith(b"\x89anchor")
