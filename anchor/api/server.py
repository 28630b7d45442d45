"""The Gunicorn application: one small parent, one worker that is the node.

The parent only watches. Whatever ends the worker ends the parent, with the worker's status: a node
that failed is for whoever started it to see, and a stop signal is passed on and waited for. So
Gunicorn's ways to have two workers at once (reload, re-execution, more workers) are off: one data
directory has one node.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING, Any, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from anchor.api.kv import KeyValues
    from anchor.api.limits import Limits
    from anchor.api.store import Store

_log = logging.getLogger("anchor.api")

BACKLOG = 2048
GRACEFUL_SECONDS = 4  # a worker still there by then is killed: a stop takes at most five seconds
# What the node itself opens: RocksDB's files, gRPC's sockets, and some.
RESERVED_FILES = 1024


def serve(limits: Limits, start_node: Callable[[], Store], listener: socket.socket) -> int:
    """Serve until stopped; return the exit status. Takes the bound listening socket over."""
    limits = raise_file_limit(limits)
    try:
        NodeApplication(limits, start_node, listener).run()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


def fatal(message: str, status: int = 1) -> NoReturn:
    """End this process at once because it must not go on: one line, and the status."""
    from anchor.api.worker import leave  # noqa: PLC0415 - gevent is the worker's

    _log.critical("%s", message)
    leave(status)


def raise_file_limit(limits: Limits) -> Limits:
    """Allow as many open files as may be, and no more connections than that leaves room for."""
    import dataclasses  # noqa: PLC0415
    import resource  # noqa: PLC0415

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_connections + RESERVED_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft == resource.RLIM_INFINITY:
        return limits
    room = max(soft - RESERVED_FILES, soft // 2)
    return dataclasses.replace(limits, max_connections=min(limits.max_connections, room))


class NodeApplication(BaseApplication):  # type: ignore[misc]
    """What Gunicorn runs. In the worker it has a store; in the parent it has none."""

    store: Store
    key_values: KeyValues

    def __init__(
        self, limits: Limits, start_node: Callable[[], Store], listener: socket.socket
    ) -> None:
        self.limits = limits
        self._start_node = start_node
        self._listener = listener
        super().__init__()

    def load_config(self) -> None:
        """Settle every setting that matters here, so that no environment variable does."""
        for name, value in options(self._listener.detach()).items():
            self.cfg.set(name, value)

    def load(self) -> object:
        """Start the node and wire the API around it; this happens in the worker."""
        os.environ.pop("SCRIPT_NAME", None)  # Gunicorn would take it for a prefix of every path
        try:
            return self._load()
        except Exception as error:  # noqa: BLE001 - whatever it is, this node did not start
            _log.debug("the node did not start", exc_info=error)
            fatal(str(error) or type(error).__name__)

    def _load(self) -> object:
        from anchor.api.app import create_app  # noqa: PLC0415 - Falcon is the worker's
        from anchor.api.kv import KeyValues  # noqa: PLC0415

        self.store = self._start_node()
        self.key_values = KeyValues(self.store, self.limits)
        return create_app(self.store, self.limits, self.key_values)

    def run(self) -> None:
        """Run the parent."""
        NodeArbiter(self).run()


def options(listener_fd: int) -> dict[str, Any]:
    """Return Gunicorn's settings, each one on purpose."""
    return {
        "bind": f"fd://{listener_fd}",
        "backlog": BACKLOG,
        "workers": 1,
        "worker_class": "anchor.api.worker.NodeWorker",
        "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108
        "control_socket_disable": True,  # or two nodes on a host collide
        "preload_app": False,
        "max_requests": 0,
        # Never kill a worker that was silent for long: it was paused, or waits for a disk, and a
        # Raft node that is slow is no danger to its cluster, whereas a killed one is lost to it.
        "timeout": 0,
        "graceful_timeout": GRACEFUL_SECONDS,
        "http_parser": "python",  # the same one everywhere, whatever else is installed
        "limit_request_line": 0,  # Source bounds the head as a whole
        "limit_request_fields": 100,
        "limit_request_field_size": 8190,
        # There is no proxy to be believed: these would let a client move the path's root.
        "forwarded_allow_ips": "",
        "forwarder_headers": "",
        "secure_scheme_headers": {},
        "proc_name": "anchor",
        "logger_class": QuietLog,
        "accesslog": None,
    }


class QuietLog(Logger):  # type: ignore[misc]
    """Passes on what Gunicorn warns of; what it chats about becomes debug output."""

    def __init__(self, cfg: object) -> None:
        self.cfg = cfg
        self.error_log = logging.getLogger("anchor.api.gunicorn")
        self.access_log = self.error_log

    def setup(self, cfg: object) -> None:
        """Leave handlers and levels to the application."""
        self.cfg = cfg

    def info(self, msg: str, *args: object, **kwargs: Any) -> None:  # noqa: ANN401
        """Say nothing, as a rule."""
        self.error_log.debug(msg, *args, **kwargs)

    def debug(self, msg: str, *args: object, **kwargs: Any) -> None:  # noqa: ANN401
        """Say nothing at all: there is a page of it per start."""

    @property
    def access_log_enabled(self) -> bool:
        """There is no access log."""
        return False

    def reopen_files(self) -> None:
        """Leave files to the application."""


class NodeArbiter(Arbiter):  # type: ignore[misc]
    """Gunicorn's parent process, with one worker, once."""

    def __init__(self, app: NodeApplication) -> None:
        self._stopping = False
        self._survives_hangup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        super().__init__(app)

    def spawn_worker(self) -> int:
        """Fork; the child never comes back from here."""
        parent = os.getpid()
        try:
            pid: int = super().spawn_worker()
        except SystemExit as ended:
            if os.getpid() == parent:
                raise
            from anchor.api.worker import leave  # noqa: PLC0415

            leave(ended.code if isinstance(ended.code, int) else 1)
        return pid

    def reap_workers(self) -> None:
        """See whether the worker has ended; end with it, unless it was told to."""
        for pid in list(self.WORKERS):
            with contextlib.suppress(ChildProcessError):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if not ended:
                    continue
                self.WORKERS.pop(pid).tmp.close()
                if not self._stopping:
                    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1
                    raise HaltServer(_how_it_ended(pid, status), code or 1)

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT001, FBT002 - Gunicorn's signature
        """Stop the worker and wait for it."""
        self._stopping = True
        super().stop(graceful)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> NoReturn:
        """End this process."""
        self._stopping = True
        if reason:
            self.log.critical(reason)
        self.stop()
        raise SystemExit(exit_status)

    def handle_int(self) -> None:
        """Stop in order: Ctrl-C is how a person says so."""
        raise StopIteration

    handle_quit = handle_int

    def handle_hup(self) -> None:
        """Stop as the terminal is gone, unless started to outlive it (nohup)."""
        if not self._survives_hangup:
            raise StopIteration

    def handle_ttin(self) -> None:
        """There is one worker."""

    handle_ttou = handle_winch = handle_usr1 = handle_usr2 = handle_ttin


def _how_it_ended(pid: int, status: int) -> str | None:
    """Describe an unexpected end; None if the process has said itself what happened."""
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"the node's process {pid} was ended by {name}; stopping"
    if os.WEXITSTATUS(status) == 0:
        return f"the node's process {pid} ended without being told to; stopping"
    return None
