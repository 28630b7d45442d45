"""The composition root: turns a plan into a running node, a cluster, a verb or a text.

Everything heavy is imported only where it is used: a verb must not pay for a node, and a node's
gRPC objects must not exist before Gunicorn forks its worker.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from anchor import startup
from anchor.plan import (
    Mistakes,
    Plan,
    RunCluster,
    RunNode,
    RunRecover,
    RunSnapshot,
    RunVerb,
    Show,
)
from anchor.settings import OUT_OF_ROOM, VERSION
from anchor.startup import StartError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.node import Node
    from anchor.node.node import Fatal
    from anchor.settings import Settings

OK, ERROR, USAGE, INTERRUPTED = 0, 1, 2, 130

_START_OVER_SECONDS = 2.0  # between two looks for room on the disk


def carry_out(plan: Plan) -> int:
    """Do what was planned and return the exit code. Errors a person can mend take one line."""
    try:
        return _carry_out(plan)
    except StartError as error:
        for line in error.lines:
            complain(line)
        return ERROR
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain once more on exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def _carry_out(plan: Plan) -> int:
    if isinstance(plan, Show):
        print(printable_text(plan.text), flush=True)
        return OK
    if isinstance(plan, Mistakes):
        for line in plan.lines:
            complain(line)
        if plan.hint:
            print(plan.hint, file=sys.stderr)
        return USAGE
    for warning in plan.warnings:
        complain(f"warning: {warning}")
    if isinstance(plan, RunVerb | RunRecover | RunSnapshot):
        return _run_verb(plan)
    if isinstance(plan, RunCluster):
        from anchor import cluster  # noqa: PLC0415 - only the supervisor needs it

        return cluster.run(plan)
    return run_node(plan)


def _run_verb(plan: RunVerb | RunRecover | RunSnapshot) -> int:
    if isinstance(plan, RunRecover):
        from anchor import recovering  # noqa: PLC0415 - it brings RocksDB

        return recovering.run(plan)
    if isinstance(plan, RunSnapshot):
        from anchor import backups  # noqa: PLC0415 - the same

        return backups.run(plan)
    from anchor import verbs  # noqa: PLC0415 - only a verb needs it

    return verbs.run(plan)


def run_node(plan: RunNode) -> int:
    """Serve one node until told to stop."""
    import logging  # noqa: PLC0415 - a verb does without

    from anchor import logs  # noqa: PLC0415 - the same

    settings = plan.settings
    # gRPC's C core logs by itself, in its own format, straight to stderr.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # And it would prepare for life in the child of a fork, which is none of ours.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    logs.configure(settings.node_id, settings.log_level, settings.log_format)
    startup.check_clock()
    startup.check_directory(settings.directory)
    patience = startup.await_predecessor(settings.directory)
    startup.check_port_free(settings.host, settings.port, "--port", patience)
    listener = startup.listen(settings.host, settings.http_port, "--http-port", patience)
    logging.getLogger("anchor.cli").info(
        "starts: anchor %s, clients at http://%s, nodes at %s, data in %s",
        VERSION,
        settings.http_address,
        settings.address,
        settings.directory,
    )
    from anchor.api import server  # noqa: PLC0415 - heavy, and only for a node
    from anchor.api.limits import Limits  # noqa: PLC0415 - the same

    with contextlib.closing(listener):
        status = server.serve(Limits.of(settings), _node_starter(settings, server.fatal), listener)
    if status == OUT_OF_ROOM:
        _start_over(settings)
    return status


def _start_over(settings: Settings) -> NoReturn:
    """Wait for room on the disk, then be the same command anew: RocksDB has to be opened again."""
    import logging  # noqa: PLC0415 - a verb does without
    import signal  # noqa: PLC0415 - the same
    import time  # noqa: PLC0415 - the same

    from anchor.storage import Room  # noqa: PLC0415 - the same

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)  # what was Gunicorn's to handle ends us now
    room = Room(settings.directory)
    room.give_up()
    needed = room.reserve_bytes() * 5 // 4 + room.ballast_bytes
    log = logging.getLogger("anchor.cli")
    log.warning("waits until %d MiB are free on the disk, then starts again", needed >> 20)
    # Once at least: over a user's quota there seems to be room, and the next start ends here again.
    time.sleep(_START_OVER_SECONDS)
    while room.free_bytes() < needed:
        time.sleep(_START_OVER_SECONDS)
    log.info("there is room on the disk: starts again")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - as we were


def _node_starter(settings: Settings, fatal: Fatal) -> Callable[[], Node]:
    """Make the function that the HTTP worker calls, forked and patched, to bring the node up."""

    def start_node() -> Node:
        from anchor.node import open_node  # noqa: PLC0415 - it imports gRPC and RocksDB
        from anchor.storage import DiskFullError  # noqa: PLC0415 - the same

        try:
            return open_node(settings, fatal, VERSION)
        except DiskFullError as error:
            fatal(str(error), OUT_OF_ROOM)
            raise

    return start_node


def printable_text(text: str) -> str:
    """Replace what standard output has no character for: a name of ours may be in any bytes."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def complain(line: str) -> None:
    """Say what is wrong, in one line on standard error."""
    with contextlib.suppress(OSError, ValueError):
        print(f"anchor: {line}", file=sys.stderr, flush=True)
