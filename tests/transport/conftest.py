"""What runs here only on gevent: everything that has a transport in it."""

from __future__ import annotations

from gevent import monkey

ON_GEVENT = [
    "test_ballots.py",
    "test_exchange.py",
    "test_failures.py",
    "test_hostile.py",
    "test_lifecycle.py",
    "test_outbox.py",
    "test_rpc.py",
    "test_snapshots.py",
]
# test_under_gevent.py runs these in processes that are patched.
collect_ignore = [] if monkey.is_module_patched("socket") else ON_GEVENT
