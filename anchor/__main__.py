"""The entry point: decides what to do, then does it.

The plan is made from modules that open no socket, start no thread and hold no lock, and what it
leads to is imported after it. So verbs and help start fast; gevent is loaded, and the standard
library patched, only where a node runs: in the worker that Gunicorn forks (:mod:`anchor.api`).
"""

from __future__ import annotations

import os
import sys

from anchor.plan import plan_for
from anchor.usage import program_name


def main() -> int:
    """Do what the command line asks and return the exit code."""
    plan = plan_for(sys.argv[1:], os.environ, program_name(sys.argv[0]))
    from anchor import cli  # noqa: PLC0415 - a plan needs none of what this brings

    return cli.carry_out(plan)


if __name__ == "__main__":
    sys.exit(main())
