"""What several tests of the client need."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


class Naps:
    """Counts the pauses a client takes instead of taking them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        """Note a pause; take a tiny one, so that real deadlines are reached."""
        self.seconds.append(seconds)
        time.sleep(min(seconds, 0.001))


@pytest.fixture
def naps() -> Naps:
    """Pauses of a client under test."""
    return Naps()


class SleepingMachine:
    """Moves the clock that goes on in a sleep, and no other."""

    def __init__(self) -> None:
        self._slept_seconds = 0.0
        self._read = time.clock_gettime

    def clock_gettime(self, which: int) -> float:
        """Stand in for the function of that name."""
        return self._read(which) + self._slept_seconds * (which == time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Wake up later."""
        self._slept_seconds += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SleepingMachine:
    """The machine that the client is on."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        pytest.skip("no clock here goes on in a sleep")
    machine = SleepingMachine()
    monkeypatch.setattr(time, "clock_gettime", machine.clock_gettime)
    return machine


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An endpoint that refuses connections: bound, so nobody else gets it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"
