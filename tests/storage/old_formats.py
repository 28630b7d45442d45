"""Directories as earlier versions of anchor left them: kept, so that later ones are tried on them.

``python -m tests.storage.old_formats`` writes that of the present format, once: when the format
changes, the file of the old one stays as it is.
"""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from anchor.fsm import StateMachine, encode_batch, encode_delete, encode_put
from anchor.raft import Entry, EntryKind, HardState
from anchor.storage.stable import DIRECTORY_FORMAT
from tests.storage.building import NODE_ID, configuration, copy_at_rest, opened

CLUSTER_ID = "old"
COMMANDS = 40  # entries 2 to 41, in terms 2 and 3
HARD_STATE = HardState(4, "node2")


def archive(format_version: int) -> Path:
    """Where the directory of this format lies."""
    return Path(__file__).with_name(f"format_{format_version}.tar.xz")


def commands() -> list[Entry]:
    """The entries after the first: each writes a key, some delete one."""
    made = []
    for index in range(2, COMMANDS + 2):
        command = encode_put(b"key%d" % (index % 7), b"value%d" % index)
        if index % 10 == 0:
            command = encode_delete(b"key%d" % (index % 7))
        payload = encode_batch(7, index, [command])
        made.append(Entry(index, 2 if index < 20 else 3, EntryKind.COMMAND, payload))
    return made


def build(path: Path) -> None:
    """Make a directory with some of everything: a snapshot, a state, a log, a vote."""
    with opened(path) as directory:
        directory.bootstrap(CLUSTER_ID, configuration("node1", "node2", "node3"))
        log = directory.log
        machine = StateMachine(directory.state)
        log.append(commands(), HARD_STATE)
        log.sync()
        machine.apply(log.entries(1, 25, 1 << 20))
        snapshot = directory.create_snapshot()
        log.record_snapshot(snapshot.metadata)
        log.drop_prefix(15)
        machine.apply(log.entries(26, 30, 1 << 20))
        directory.state.flush()
        machine.apply(log.entries(31, 35, 1 << 20))  # lost, as nothing flushes it
        log.sync()
        copy_at_rest(path, path.with_name("copy"))


def main() -> None:
    """Write the archive, unless there is one."""
    target = archive(DIRECTORY_FORMAT)
    if target.exists():
        raise SystemExit(f"{target} is there, and has to stay as it is")
    with tempfile.TemporaryDirectory() as temporary, tarfile.open(target, "w:xz") as packed:
        build(Path(temporary) / NODE_ID)
        packed.add(Path(temporary) / "copy", NODE_ID, filter=_without_notes)


def _without_notes(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave RocksDB's diary out, and whose files they were."""
    if Path(member.name).name.startswith("LOG"):
        return None
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
