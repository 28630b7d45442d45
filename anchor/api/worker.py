"""Gunicorn's gevent worker, with a node inside and a short path for the plain request.

The life of the worker: it boots, loads the application (which starts the node), serves until it is
told to stop, then in this order: no new connections; every answer closes its connection; the node
stops, handing its leadership over; what is still under way finishes; the process ends.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
import warnings
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import gevent
from gevent.monkey import MonkeyPatchWarning
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from anchor.api.connections import Connections
from anchor.api.conversation import Conversations

if TYPE_CHECKING:
    from anchor.api.server import NodeApplication

_log = logging.getLogger("anchor.api")

POLL_SECONDS = 0.1
# Of the five seconds that a stop may take: what is under way has this long before the node stops,
# the node this long, and all of it this long.
DRAIN_SECONDS = 0.5
NODE_STOP_SECONDS = 2.5
STOP_SECONDS = 3.6
_PR_SET_PDEATHSIG = 1


class NodeWorker(GeventWorker):  # type: ignore[misc]
    """The process that is the node."""

    app: NodeApplication
    alive: bool

    def init_process(self) -> None:
        """Tie this process's life to its parent's, then boot as Gunicorn does."""
        die_with_parent(self.ppid)
        super().init_process()

    def patch(self) -> None:
        """Make the standard library cooperative; nothing here uses the ssl it warns of."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MonkeyPatchWarning)
            super().patch()

    def load_wsgi(self) -> None:
        """Start the node, and put what Gunicorn's path needs around the application."""
        application = self.app.wsgi()
        connections = Connections(self.app.limits)
        self.conversations = Conversations(self, self.app.key_values, connections)
        self.wsgi = partial(self.conversations.call, application)

    def run(self) -> None:
        """Serve until told to stop."""
        gevent.spawn(self.conversations.connections.sweep_for_ever)
        gevent.spawn(self.conversations.keep_date)
        hold = self.conversations.hold
        servers = [
            StreamServer(listener, handle=partial(hold, listener), spawn="default")
            for listener in self.sockets
        ]
        for server in servers:
            server.start()
        while self.alive:
            self.notify()
            gevent.sleep(POLL_SECONDS)
        for server in servers:
            server.close()
        self._stop()

    def _stop(self) -> None:
        _log.info("stops, as it was told to")
        began = time.monotonic()
        self._drain(began + DRAIN_SECONDS)
        try:
            self.app.store.stop(NODE_STOP_SECONDS)
        except Exception as error:  # noqa: BLE001 - it is over, one way or the other
            _log.error("the node did not stop in order: %r", error, exc_info=error)
        self._drain(began + STOP_SECONDS)

    def _drain(self, until: float) -> None:
        while self.conversations.connections.any_serving() and time.monotonic() < until:
            gevent.sleep(0.01)

    # ----------------------------------------------------------------- signals

    def handle_quit(self, _sig: int, _frame: object) -> None:
        """Stop in order here too: Ctrl-C reaches this process as well as its parent."""
        self.alive = False

    handle_exit = handle_quit


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, however that happens (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died just before
        leave(1)


def leave(status: int) -> NoReturn:
    """End this process now, past everything that the parent's frames below would do."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
