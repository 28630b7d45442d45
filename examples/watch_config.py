"""Follow a configuration that is kept in a key, and act on each change.

    python examples/watch_config.py localhost:8001,localhost:8002 KEY [SECONDS]

Meanwhile, from another terminal: ./anchor.pyz put KEY '{"workers": 4}'

It looks every SECONDS (1). A program that has its configuration goes on with it while the cluster
cannot be reached: what a moment of trouble must never do is to take the configuration away.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run it from a checkout

from anchor.client import Client, ClientError, Entry


def changes(client: Client, key: str, seconds: float) -> Iterator[Entry | None]:
    """Give what the key has now, then what it has after each change; None if it is not there.

    Reads are linearizable, so what comes is never older than what came before, whichever node
    answers. A value that was there for less than `seconds` may be skipped.
    """
    last = -1
    while True:
        try:
            entry = client.entry(key)
        except ClientError as error:
            print(f"going on with what we have: {error}", file=sys.stderr, flush=True)
        else:
            mod_index = entry.mod_index if entry else 0
            if mod_index != last:
                yield entry
            last = mod_index
        time.sleep(seconds)


def main(endpoints: str, key: str, seconds: str = "1") -> None:
    """Print each configuration; keep the last good one when a new one makes no sense."""
    with Client(endpoints) as client:
        for entry in changes(client, key, float(seconds)):
            if entry is None:
                print("there is no configuration", flush=True)
                continue
            try:
                configuration = json.loads(entry.value)
            except ValueError as error:
                print(f"version {entry.version} is no JSON, ignored: {error}", flush=True)
            else:
                print(f"version {entry.version}: {configuration}", flush=True)


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(0)
