"""A process that appends, syncs and says so, until it is killed."""

from __future__ import annotations

import sys
from pathlib import Path

from anchor.fsm import StateMachine
from anchor.raft import HardState
from anchor.storage import DataDirectory
from tests.storage.building import NODE_ID, configuration, entry


def main() -> None:
    """Append one entry after another; print each index once it is durable."""
    directory = DataDirectory.open(Path(sys.argv[1]), NODE_ID)
    log = directory.log
    if directory.is_new:
        directory.bootstrap("c", configuration())
    machine = StateMachine(directory.state)
    while True:
        index = log.last_index() + 1
        log.append([entry(index, index)], HardState(index, f"node{index}"))
        log.sync()
        sys.stdout.write(f"{index}\n")
        sys.stdout.flush()
        if index % 50 == 0:
            directory.state.write({b"k": b"%d" % index})
        if index % 333 == 0:
            directory.state.flush()
        assert machine.applied_index == 0


if __name__ == "__main__":
    main()
