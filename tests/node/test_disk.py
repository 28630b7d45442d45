"""A blocking call beside the hub: begun, waited for, failed, stopped."""

from __future__ import annotations

import threading
import time

import gevent
import pytest

from anchor.node.disk import Disk


def test_the_call_runs_in_a_native_thread_while_the_hub_goes_on() -> None:
    """Other greenlets run while it blocks."""
    release = threading.Event()
    threads: list[int] = []

    def call() -> None:
        threads.append(threading.get_ident())
        release.wait(5)

    disk = Disk(call)
    disk.begin()
    gevent.spawn(release.set)  # runs only if the hub does
    disk.wait()
    assert disk.stop(5)
    assert threads != [threading.get_ident()]
    assert release.is_set()


def test_each_begin_is_one_call() -> None:
    """However often."""
    calls: list[int] = []
    disk = Disk(lambda: calls.append(len(calls)))
    for _ in range(100):
        disk.begin()
        disk.wait()
    assert disk.stop(5)
    assert calls == list(range(100))


def test_what_the_call_raises_is_raised_where_it_is_waited_for() -> None:
    """A failed fsync must not go unseen."""

    def call() -> None:
        raise OSError("no")

    disk = Disk(call)
    disk.begin()
    with pytest.raises(OSError, match="no"):
        disk.wait()
    assert disk.stop(5)


def test_stop_waits_for_the_call_under_way() -> None:
    """Nothing is closed under a call that still uses it."""
    finished: list[bool] = []

    def call() -> None:
        time.sleep(0.05)  # a slow disk
        finished.append(True)

    disk = Disk(call)
    disk.begin()
    assert disk.stop(5)
    assert finished == [True]


def test_stop_does_not_wait_for_ever() -> None:
    """A disk that does not answer must not keep a node from ending."""
    release = threading.Event()
    disk = Disk(release.wait)  # type: ignore[arg-type]  # what it returns is dropped
    disk.begin()
    assert not disk.stop(0.02)
    release.set()
