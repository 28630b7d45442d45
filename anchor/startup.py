"""What is checked before a node or a cluster starts, so that it fails early and in one line.

Each check raises :class:`StartError`: what, why, and what to do.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import TYPE_CHECKING

from anchor.settings import join_address
from anchor.values import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BACKLOG = 2048


class StartError(Exception):
    """The start failed for reasons a person can mend; one line for each."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def listen(host: str, port: int, flag: str) -> socket.socket:
    """Bind and listen on a TCP port."""
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
        raise StartError(_cannot_listen(where, flag, error)) from None
    return listener


def check_port_free(host: str, port: int, flag: str) -> None:
    """Bind a port for a moment: gRPC would say less, and later."""
    listen(host, port, flag).close()


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
