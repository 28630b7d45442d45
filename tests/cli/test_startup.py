"""What stands against a start is one line: what, why, and what to do."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from anchor import cli, startup
from anchor.settings import LOCK_FILE, Settings
from anchor.startup import StartError
from anchor.storage import Room

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "::"])  # noqa: S104
def test_a_free_port_is_listened_on(host: str) -> None:
    """On names, both kinds of address, and wildcards."""
    with startup.listen(host, 0, "--http-port") as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("::1" if ":" in host else "127.0.0.1", port)).close()


def test_a_port_in_use_is_named_with_its_flag() -> None:
    """Whoever reads it knows what to change."""
    with startup.listen("127.0.0.1", 0, "--port") as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StartError) as failure:
            startup.check_port_free("127.0.0.1", port, "--port")
    assert failure.value.lines == (
        f"127.0.0.1:{port}: the port is in use. Stop what listens there, or give another --port.",
    )


def test_the_port_of_a_node_that_is_just_ending_is_waited_for(tmp_path: Path) -> None:
    """Killed and started again at once, it must not find its own former self in the way."""
    script = (
        "import fcntl, socket, sys\n"
        "lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "print(listener.getsockname()[1], flush=True); sys.stdin.read()\n"
        "lock.close(); print('unlocked', flush=True); import time; time.sleep(0.2)\n"
    )
    former = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / LOCK_FILE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert former.stdout is not None
    assert former.stdin is not None
    port = int(former.stdout.readline())
    naps: list[float] = []

    def end_it(seconds: float) -> None:
        assert former.stdin is not None
        naps.append(seconds)
        former.stdin.close()
        time.sleep(seconds)

    patience = startup.await_predecessor(tmp_path, end_it)
    startup.check_port_free("127.0.0.1", port, "--port", patience)
    assert naps
    former.stdout.close()
    assert former.wait() == 0


def test_a_directory_that_stays_locked_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens it says who has it."""
    monkeypatch.setattr(startup, "PREDECESSOR_SECONDS", 0.1)
    with (tmp_path / LOCK_FILE).open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert startup.await_predecessor(tmp_path) > 0


def test_where_no_node_ever_was_nobody_waits(tmp_path: Path) -> None:
    """A port in use there is a mistake, and said at once."""
    assert startup.await_predecessor(tmp_path) == 0


def test_a_port_left_in_time_wait_is_free() -> None:
    """A node that was just stopped can start again at once."""
    with startup.listen("127.0.0.1", 0, "--port") as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = listener.accept()
        served.close()  # the side that closes first keeps the TIME_WAIT
        client.close()
    startup.check_port_free("127.0.0.1", port, "--port")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EACCES, "x"), "no right to listen there. Give a --port of 1024 or above."),
        (OSError(errno.EADDRNOTAVAIL, "x"), "this machine has no such address"),
        (OSError(errno.EMFILE, "Too many open files"), "cannot listen: Too many open files"),
        (socket.gaierror(-2, "Name or service not known"), "the name means no address"),
    ],
)
def test_other_reasons_not_to_listen_are_told_too(
    monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    """Each with what to do."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(StartError, match=said):
        startup.listen("host", 80, "--port")


def test_an_address_of_another_machine_is_no_address_to_listen_on() -> None:
    """The kernel says so (192.0.2.0/24 is for documentation, RFC 5737)."""
    with pytest.raises(StartError, match="this machine has no such address"):
        startup.listen("192.0.2.1", 0, "--port")


def test_a_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """With its parents, and again without harm."""
    directory = tmp_path / "a" / "b"
    startup.check_directory(directory)
    startup.check_directory(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert list(directory.iterdir()) == []


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """Neither as the directory itself nor on the way to it."""
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(StartError, match="is not a directory"):
        startup.check_directory(path)
    with pytest.raises(StartError, match="part of the path is a file"):
        startup.check_directory(path / "x")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the file system is read-only"),
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EIO, "Check the disk"),
    ],
)
def test_a_directory_that_cannot_be_written_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    """One line, with the path."""

    def fail(directory: Path) -> None:
        raise OSError(number, os.strerror(number), str(directory))

    monkeypatch.setattr(startup, "write_nameless_file", fail)
    with pytest.raises(StartError, match=said) as failure:
        startup.check_directory(tmp_path)
    (line,) = failure.value.lines
    assert line.startswith(f"--dir {tmp_path}: ")


def test_a_file_system_without_nameless_files_is_judged_by_its_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems have none; a full disk is told all the same."""
    reasons = iter([errno.EOPNOTSUPP, errno.EOPNOTSUPP, errno.ENOSPC])

    def fail(*_: object) -> int:
        raise OSError(next(reasons), "x")

    monkeypatch.setattr(os, "open", fail)
    startup.check_directory(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StartError, match="permission denied"):
        startup.check_directory(tmp_path)
    with pytest.raises(StartError, match="the disk is full"):
        startup.check_directory(tmp_path)


def test_a_clock_that_stands_still_is_refused() -> None:
    """Without time there is no election; with it there is nothing to say."""
    with pytest.raises(StartError, match="stands still"):
        startup.check_clock(lambda: 1.0, lambda _: None)
    startup.check_clock()


def test_a_clock_that_cannot_be_read_is_refused() -> None:
    """The kernel's reason is told."""

    def fail() -> float:
        raise OSError(errno.EPERM, "Operation not permitted")

    with pytest.raises(StartError, match="cannot be read: Operation not permitted"):
        startup.check_clock(fail, lambda _: None)


class _StartedOver(Exception):  # noqa: N818 - it is what should happen
    """The process would be another one now."""


@pytest.mark.parametrize("looks", [[1 << 50], [0, 0, 1 << 50]])
def test_a_start_over_waits_although_there_seems_to_be_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[int]
) -> None:
    """A user's quota does not show in what is free: it would start over without end or pause."""
    slept: list[float] = []
    free = iter(looks)

    def start(*_: object) -> None:
        raise _StartedOver

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(os, "execv", start)
    monkeypatch.setattr(Room, "free_bytes", lambda _room: next(free))
    with pytest.raises(_StartedOver):
        cli._start_over(Settings("n", 7001, tmp_path))
    assert len(slept) == len(looks)
    assert min(slept) >= 1
