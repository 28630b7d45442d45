"""Run pytest on gevent: ``python -m tests.transport.patched ARGUMENTS``.

Monkey-patching cannot be undone, so it happens in a process of its own.
"""

# ruff: noqa: E402 - patching comes first, or it is too late

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os
import sys

import pytest

# In a child that is about to become another program, gRPC's preparations for a fork start threads,
# which then miss the files that are being closed: the child dies now and then.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
