"""Making a backup of a state that goes on changing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.fsm import StateMachine
from anchor.raft import Configuration
from anchor.storage import rocks
from anchor.storage.backup_format import BackupHeader, encode_backup
from anchor.storage.errors import StorageError, translate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anchor.storage.stable import Identity
    from anchor.storage.state import RocksState


class StateView:
    """A state as it is now, however it goes on. A ``fsm.StateStore``.

    It is one iterator of RocksDB's, which sees what there was when it was made. (The binding's
    snapshots do not: with read options they iterate over what is there now.) It keeps nothing from
    being written, but what it sees stays on the disk until it is closed. Any thread, one at a time,
    and one iteration at a time.
    """

    def __init__(self, state: RocksState) -> None:
        self.path = state.path
        try:
            self._iterator = state.family().iter(rocks.passing_by())
        except Exception as error:  # noqa: BLE001 - the binding raises nothing narrower
            raise translate(error, self.path) from None

    def get(self, key: bytes) -> bytes | None:
        """Give the record at ``key``."""
        found, record = next(self.iterate(key), (b"", b""))
        return record if found == key else None

    def iterate(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Give all keys that start with ``prefix``, from ``start`` on, in order, with records."""
        iterator = self._iterator
        iterator.seek(max(prefix, start))
        while iterator.valid():
            key: bytes = iterator.key()
            if not key.startswith(prefix):
                return
            yield key, iterator.value()
            iterator.next()
        rocks.check_status(iterator, self.path)

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:  # noqa: ARG002
        """Nothing can be written to what was."""
        raise StorageError(f"{self.path}: a view of the state is not written to")

    def close(self) -> None:
        """Let go of it."""
        del self._iterator


class Backup:
    """One backup of a state, to be read piece by piece; ``header`` says what it is of.

    Making it takes some µs to ms and is hub-safe. ``read`` blocks for a ms or two and holds the GIL
    for most of them; any thread, one at a time.
    """

    def __init__(
        self, state: RocksState, identity: Identity, *, created: str, version: str
    ) -> None:
        self._view = StateView(state)
        machine = StateMachine(self._view)
        configuration = Configuration()
        if machine.configuration is not None:
            configuration = Configuration.decode(machine.configuration)
        self.header = BackupHeader(
            cluster_id=identity.cluster_id,
            node_id=identity.node_id,
            last_included_index=machine.applied_index,
            last_included_term=machine.applied_term,
            configuration=configuration,
            configuration_index=machine.configuration_index,
            digest=machine.digest.hex(),
            created=created,
            version=version,
        )
        self._pieces: Iterator[bytes] | None = encode_backup(self.header, self._view.iterate(b""))

    def read(self) -> bytes:
        """Give the next piece, some 64 KiB or one record; nothing at the end."""
        if self._pieces is None:
            raise StorageError("the backup was ended before its end")
        return next(self._pieces, b"")

    def close(self) -> None:
        """Let go of the state; may be called again. Not while a ``read`` is under way."""
        if self._pieces is not None:
            self._pieces = None  # it has an iterator, which refers to the state too
            self._view.close()
