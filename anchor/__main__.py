"""The entry point: decides what to do, and patches the standard library first where it must.

Only a node needs gevent. Verbs, help and the supervisor of ``--cluster`` never import it, so
they start fast. The plan is made with modules that open no socket and hold no lock, which makes
it safe to patch after it.
"""

from __future__ import annotations

import os
import sys

from anchor.plan import RunNode, plan_for
from anchor.usage import program_name


def main() -> int:
    """Do what the command line asks and return the exit code."""
    plan = plan_for(sys.argv[1:], os.environ, program_name(sys.argv[0]))
    if isinstance(plan, RunNode):
        from gevent import monkey  # noqa: PLC0415 - only a node needs it

        monkey.patch_all()
    from anchor import cli  # noqa: PLC0415 - what it imports must come after the patch

    return cli.carry_out(plan)


if __name__ == "__main__":
    sys.exit(main())
