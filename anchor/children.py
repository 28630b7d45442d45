"""Child processes that never outlive their parent, and their output line by line.

A child is the leader of its own process group, so that a terminal's Ctrl-C reaches the parent
alone, and so that a kill reaches whatever the child started itself. Where the kernel can do it
(Linux), a child is told to stop the moment its parent dies, even by ``kill -9``.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_PR_SET_PDEATHSIG = 1

OUTPUT_LINES_MAX = 10_000
"""Lines held for a terminal that does not take them; beyond that they are dropped, not waited
for: a node whose log blocks would miss its heartbeats."""

LINE_BYTES_MAX = 64 * 1024


class Child:
    """One child process; ``on_exit(child)`` and ``on_line(child, line)`` come from threads."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            # Safe here: children are started before any thread is.
            preexec_fn=_die_with_parent(os.getpid()),  # noqa: PLW1509 - no thread has been started yet
        )
        self.pid = self._process.pid
        self._reader: threading.Thread | None = None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number where one killed it."""
        return self._process.returncode

    def watch(
        self, on_line: Callable[[Child, bytes], None], on_exit: Callable[[Child], None]
    ) -> None:
        """Begin to report what the child says and when it ends."""
        output = self._process.stdout
        assert output is not None  # noqa: S101 - a pipe was asked for

        def read() -> None:
            with output:
                for line in _lines(output):
                    on_line(self, line)

        def wait() -> None:
            self._process.wait()
            # What it started has no parent now. It may finish; the last sweep is by kill().
            self._signal_group(signal.SIGTERM)
            on_exit(self)

        self._reader = threading.Thread(target=read, daemon=True, name=f"{self.name} output")
        self._reader.start()
        threading.Thread(target=wait, daemon=True, name=f"{self.name} end").start()

    def finish_output(self, timeout: float) -> None:
        """Wait until its last line is out; not for ever, as somebody may have inherited its end."""
        if self._reader is not None:
            self._reader.join(timeout)

    def stop(self) -> None:
        """Ask the child to end."""
        if self.exit_code is None:
            self._process.terminate()

    def kill(self) -> None:
        """End the child and all that it started, at once."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def describe_exit(code: int) -> str:
    """Put an exit code in words: ``exited with 1``, ``was killed by SIGKILL``."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _lines(output: IO[bytes]) -> Iterator[bytes]:
    while line := output.readline(LINE_BYTES_MAX):
        yield line.rstrip(b"\r\n")


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we could ask
            os.kill(os.getpid(), signal.SIGTERM)

    return ask_kernel


class Mailbox:
    """Events for one thread, from other threads and from signal handlers.

    A queue of the standard library would not do: a signal that arrives just before a thread goes
    to sleep on a lock does not wake it. Here the interpreter writes to a socket for each signal
    (``signal.set_wakeup_fd``), and that is what the thread sleeps on.
    """

    def __init__(self) -> None:
        self._events: collections.deque[object] = collections.deque()
        self._awake, self._wake = socket.socketpair()
        self._awake.setblocking(False)
        self._wake.setblocking(False)

    def listen_to_signals(self) -> None:
        """Be woken by signals too, whose handlers then ``put`` what they have to say."""
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    def put(self, event: object) -> None:
        """Leave an event; safe from any thread and any handler."""
        self._events.append(event)
        with contextlib.suppress(OSError):  # full: it is awake; closed: nobody waits any more
            self._wake.send(b"\0")

    def get(self, timeout: float | None) -> object | None:
        """Wait for an event; None if there is none within ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._events:
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                return None
            if select.select([self._awake], [], [], remaining)[0]:
                self._awake.recv(4096)
        return self._events.popleft()

    def close(self) -> None:
        """Let go of signals and sockets."""
        signal.set_wakeup_fd(-1)
        self._awake.close()
        self._wake.close()


class Printer:
    """Prints lines in its own thread, so that a stuck terminal holds up nobody else."""

    def __init__(self, stream: IO[bytes], on_broken: Callable[[], None]) -> None:
        self._stream = stream
        self._on_broken = on_broken
        self._queue: queue.Queue[bytes | None] = queue.Queue(OUTPUT_LINES_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, daemon=True, name="printer")

    def start(self) -> None:
        """Begin to print."""
        self._thread.start()

    def line(self, line: bytes) -> None:
        """Print a line soon; drop it where far too many are waiting."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def finish(self, timeout: float) -> None:
        """Print what is left, but not for ever."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=timeout)
        self._thread.join(timeout)

    def _run(self) -> None:
        broken = False
        while (line := self._queue.get()) is not None:
            if broken:
                continue  # keep emptying the queue until told to finish
            if self._dropped:
                line = b"... %d lines were dropped here\n" % self._dropped + line
                self._dropped = 0
            try:
                self._stream.write(line + b"\n")
                self._stream.flush()
            except (OSError, ValueError):
                broken = True
                self._on_broken()
