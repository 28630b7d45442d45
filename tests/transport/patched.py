"""Run pytest on gevent: ``python -m tests.transport.patched ARGUMENTS``.

Monkey-patching cannot be undone, so it happens in a process of its own.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys

import grpc.experimental.gevent
import pytest

if __name__ == "__main__":
    grpc.experimental.gevent.init_gevent()
    sys.exit(pytest.main(sys.argv[1:]))
