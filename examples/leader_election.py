"""Elect a leader among programs: a lease on a key, and a fencing token for what it guards.

    python examples/leader_election.py localhost:8001,localhost:8002 NAME [TTL_SECONDS]

Start it under two names; then kill the one that leads, or pause it (Ctrl-Z, fg).

The lease alone is NOT a safe lock: a leader that is paused just before it does its work believes
that it still leads, while another one does. No lock can prevent that. So what is guarded has to
check the token, which is higher for each new leader, and refuse what comes with an older one.
`write_as_leader` does that for a key; only that is safe.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run it from a checkout

from anchor.client import Client, ClientError, PreconditionFailed


class Deposed(Exception):
    """A later leader was here."""


def acquire(client: Client, key: str, name: str, ttl: float) -> int:
    """Wait until the lease is free, or not renewed for `ttl` seconds; take it, return our token.

    No clock is compared with another: we count how long we see it unchanged.
    """
    last, since = -1, 0.0
    while True:
        entry = client.entry(key)
        mod_index = entry.mod_index if entry else 0
        if mod_index != last:
            last, since = mod_index, time.monotonic()
        if entry is None or time.monotonic() > since + ttl:
            try:
                return client.put_if(key, name, mod_index, timeout=ttl)
            except PreconditionFailed:
                continue  # somebody else was faster
        time.sleep(ttl / 10)


def write_as_leader(client: Client, key: str, value: str, token: int) -> None:
    """Write a guarded key; raises Deposed if a later leader wrote it."""
    entry = client.entry(key)
    if entry and json.loads(entry.value)["token"] > token:
        raise Deposed("a later leader was here")
    guarded = json.dumps({"token": token, "value": value})
    client.put_if(key, guarded, entry.mod_index if entry else 0)  # unless it changes meanwhile


def main(endpoints: str, name: str, ttl_seconds: str = "3") -> None:
    """Lead whenever we may, and do some work then, until Ctrl-C."""
    ttl = float(ttl_seconds)
    with Client(endpoints) as client:
        while True:
            try:
                token = lease = acquire(client, "leader", name, ttl)
                print(f"{name} leads, token {token}", flush=True)
                while True:
                    write_as_leader(client, "work", f"done by {name}", token)
                    time.sleep(ttl / 4)
                    lease = client.put_if("leader", name, lease, timeout=ttl / 2)  # renew it
            except (ClientError, Deposed) as why:
                print(f"{name} does not lead: {why}", flush=True)
                time.sleep(ttl / 4)  # it may have come at once, and come again


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(0)
