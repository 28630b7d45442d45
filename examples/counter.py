"""Count together: any number of programs add to one counter, and none is lost or counted twice.

    python examples/counter.py localhost:8001,localhost:8002 [KEY [TIMES]]

Start it in several terminals at once, and kill a node meanwhile. Each adds TIMES (100).
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run it from a checkout

from anchor.client import Client, CommitUnknown, PreconditionFailed

THREADS = 4


def increment(client: Client, key: str) -> int:
    """Add one, and return the count: no one else gets the same.

    Compare and set: the write is refused if anybody wrote the key since we read it. It goes in a
    session, so the client may send it again after a lost answer and it still counts once. Without
    that, a retry would find its own first try, take it for somebody else's, and count again.
    """
    while True:
        entry = client.entry(key)
        count, mod_index = (int(entry.value), entry.mod_index) if entry else (0, 0)
        try:
            client.put_if(key, str(count + 1), mod_index)
        except PreconditionFailed:
            continue  # somebody was faster: look again
        return count + 1


def main(endpoints: str, key: str = "visits", times: str = "100") -> int:
    """Add to the counter from several threads, and say where it got to."""
    with Client(endpoints) as client, ThreadPoolExecutor(THREADS) as pool:
        adding = [pool.submit(increment, client, key) for _ in range(int(times))]
        try:
            counts = [each.result() for each in adding]
        except CommitUnknown as error:  # no majority answered until the deadline
            print(f"one of ours may count or not: {error}", file=sys.stderr)
            return 1
    print(f"{key}: we added {len(counts)}, the last of them made it {max(counts)}")
    return 0


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
