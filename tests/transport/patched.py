"""Run pytest on gevent: ``python -m tests.transport.patched ARGUMENTS``.

Monkey-patching cannot be undone, so it happens in a process of its own.
"""

# ruff: noqa: E402 - patching comes first, or it is too late

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
