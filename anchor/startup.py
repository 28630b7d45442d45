"""What is checked before a node or a cluster starts, so that it fails early and in one line.

Each check raises :class:`StartError`: what, why, and what to do.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from anchor.settings import LOCK_FILE, join_address
from anchor.values import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anchor.plan import RunCluster

BACKLOG = 2048
# What was killed a moment ago may take so long to end, and its ports so long to be free after that.
PREDECESSOR_SECONDS = 3.0
PORT_SECONDS = 1.0
POLL_SECONDS = 0.02
ADDRESSES_FILE = "cluster.json"  # where each node was first reached; ours, no node reads it


class StartError(Exception):
    """The start failed for reasons a person can mend; one line for each."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class PortInUse(StartError):  # noqa: N818 - named for what it is
    """Somebody listens there, at least at this moment."""


def await_predecessor(directory: Path, sleep: Callable[[float], None] = time.sleep) -> float:
    """Let a process that was killed a moment ago leave this data directory.

    Returns how many seconds to wait for its ports: none where there never was one.
    """
    try:
        file = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0.0
    try:
        deadline = time.monotonic() + PREDECESSOR_SECONDS
        while time.monotonic() < deadline:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            sleep(POLL_SECONDS)
    finally:
        os.close(file)
    return PORT_SECONDS


def listen(host: str, port: int, flag: str, patience_seconds: float = 0.0) -> socket.socket:
    """Bind and listen on a TCP port; one that is in use may become free for so long."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return _listen(host, port, flag)
        except PortInUse:
            if time.monotonic() >= deadline:
                raise
            time.sleep(POLL_SECONDS)


def _listen(host: str, port: int, flag: str) -> socket.socket:
    where = join_address(host, port)
    try:
        family, kind, protocol, _, address = _resolve(host, port)
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(_cannot_listen(where, flag, error)) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" means IPv4 too, as it does for gRPC, whatever the system's default is.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        kind_of_error = PortInUse if error.errno == errno.EADDRINUSE else StartError
        raise kind_of_error(_cannot_listen(where, flag, error)) from None
    return listener


def check_port_free(host: str, port: int, flag: str, patience_seconds: float = 0.0) -> None:
    """Bind a port for a moment: gRPC would say less, and later."""
    listen(host, port, flag, patience_seconds).close()


def _resolve(
    host: str, port: int
) -> tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # IPv4 first, as it is what "localhost" means to most clients and what gRPC binds too.
    return min(found, key=lambda entry: entry[0] != socket.AF_INET)


def _cannot_listen(where: str, flag: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{where}: the port is in use. Stop what listens there, or give another {flag}."
    if error.errno == errno.EACCES:
        return f"{where}: no right to listen there. Give a {flag} of 1024 or above."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where}: this machine has no such address. Give another --host."
    if isinstance(error, socket.gaierror):
        return f"{where}: the name means no address ({error.strerror}). Give another --host."
    return f"{where}: cannot listen: {error.strerror or error}. Give another {flag}."


def check_directory(directory: Path) -> None:
    """Make sure the data directory can be written; it is made if it is not there yet."""
    shown = printable(str(directory))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_nameless_file(directory)
    except FileExistsError:
        raise StartError(f"--dir {shown}: is not a directory. Give another --dir.") from None
    except OSError as error:
        raise StartError(f"--dir {shown}: {_why_unwritable(error)}") from None


def write_nameless_file(directory: Path) -> None:
    """Write a few bytes that leave no trace; where that cannot be done, look at the rights."""
    try:
        file = os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o600)
    except (AttributeError, OSError) as error:
        # Not this system, or not this file system: the other reasons come back below.
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
            raise
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "", str(directory)) from None
        return
    try:
        os.write(file, b"anchor")
    finally:
        os.close(file)


def _why_unwritable(error: OSError) -> str:
    at = f" ({printable(str(error.filename))})" if error.filename else ""
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"cannot be written: permission denied{at}. Change its owner, or give another --dir."
    if error.errno == errno.EROFS:
        return f"cannot be written: the file system is read-only{at}. Give another --dir."
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"cannot be written: the disk is full{at}. Make room, or give another --dir."
    if error.errno == errno.ENOTDIR:
        return f"cannot be made: part of the path is a file{at}. Give another --dir."
    return f"cannot be written: {error.strerror or error}{at}. Check the disk."


def check_clock(
    monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Make sure time passes: elections and leases are measured by the monotonic clock."""
    try:
        before = monotonic()
        sleep(0.002)
        after = monotonic()
    except OSError as error:
        raise StartError(f"clock: cannot be read: {error.strerror or error}. Mend it.") from None
    if after <= before:
        raise StartError(
            "clock: the monotonic clock stands still or runs backwards. Leave out what fakes it."
        )


def check_cluster(plan: RunCluster) -> None:
    """Raise all that stands against the start of a cluster in one go."""
    wrong: list[str] = []
    for node in plan.nodes:
        patience_seconds = await_predecessor(node.directory)
        for port in (node.port, node.http_port):
            flag = "--port" if port == node.port else "--http-port"
            _gather(wrong, check_port_free, node.host, port, flag, patience_seconds)
    _gather(wrong, check_directory, plan.directory)
    size = len(plan.nodes)
    extra = [n for n in range(size + 1, 10) if (plan.directory / f"node{n}").is_dir()]
    if extra:
        wrong.append(
            f"--cluster {size}: {plan.directory} holds the data of node{extra[-1]} too. "
            f"Give --cluster {extra[-1]}, or another --dir."
        )
    wrong += _moved(plan)
    if wrong:
        raise StartError(*wrong)
    _note_addresses(plan)


def _moved(plan: RunCluster) -> list[str]:
    """Say if nodes would start at other addresses than those under which they know each other."""
    known = _known_addresses(plan)
    for node in plan.nodes:
        if known.get(node.node_id, node.address) != node.address:
            line = (
                f"--port {plan.nodes[0].port}: {node.node_id} in {plan.directory} is known to the "
                f"others at {known[node.node_id]}, not at {node.address}. "
                "Give the --port and --host of the first start, or another --dir."
            )
            return [line]
    return []


def _known_addresses(plan: RunCluster) -> dict[str, str]:
    try:
        known = json.loads((plan.directory / ADDRESSES_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _note_addresses(plan: RunCluster) -> None:
    addresses = {**_known_addresses(plan), **{node.node_id: node.address for node in plan.nodes}}
    path = plan.directory / ADDRESSES_FILE
    try:
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(addresses, indent=2) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise StartError(f"{path}: cannot be written: {error.strerror}. Check the disk.") from None


def _gather(wrong: list[str], check: Callable[..., None], *arguments: object) -> None:
    try:
        check(*arguments)
    except StartError as error:
        wrong += error.lines
