"""A member in a process of its own, to be killed and paused: ``python -m tests.transport.remote``.

Runs on gevent like a real node. Prints its port, then serves until its stdin ends.
"""

# ruff: noqa: E402 - patching comes first, or it is too late

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import logging
import sys

import gevent

from anchor.raft.configuration import Member
from anchor.transport import LocalMember, Transport
from tests.transport.harness import CLUSTER, OPTIONS, FakeNode, incarnation_of


def main(member_id: str, port: int, *others: str) -> None:
    """Serve as this member at this port; ``others`` are ``name=port``."""
    node = FakeNode(member_id)
    local = LocalMember(member_id, node.incarnation, CLUSTER)
    node.transport = Transport(local, f"127.0.0.1:{port}", node, OPTIONS)
    node.transport.start()
    print(node.transport.port, flush=True)
    members = [other.split("=") for other in others]
    node.transport.set_members(
        Member(name, f"127.0.0.1:{at}", "", incarnation_of(name)) for name, at in members
    )
    gevent.get_hub().threadpool.apply(sys.stdin.read)  # blocks a native thread, not the hub
    node.transport.stop(0.2)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
