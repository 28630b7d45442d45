"""The line that shows how far a transfer is."""

from __future__ import annotations

import io

import pytest

from anchor.progress import Progress, size_text


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        """It is."""
        return True


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Give it."""
        return self.now


def test_a_bar_shows_share_size_and_rate_and_is_gone_at_the_end() -> None:
    """Where the size of the whole is known."""
    terminal, clock = Terminal(), Clock()
    with Progress("restoring", 4 << 20, stream=terminal, clock=clock) as progress:
        clock.now = 2.0
        progress.add(1 << 20)
        shown = "restoring  [######..................]  25%  1.0 MiB of 4.0 MiB  512.0 KiB/s"
        assert terminal.getvalue() == "\r" + shown
    assert terminal.getvalue().endswith("\r" + " " * len(shown) + "\r")


def test_without_a_whole_there_is_size_and_rate() -> None:
    """No bar is made up."""
    terminal, clock = Terminal(), Clock()
    progress = Progress("saving", stream=terminal, clock=clock)
    clock.now = 1.0
    progress.add(2048)
    assert terminal.getvalue() == "\rsaving  2.0 KiB  2.0 KiB/s"


def test_a_shorter_line_leaves_nothing_of_a_longer_one() -> None:
    """It is filled up with blanks."""
    terminal, clock = Terminal(), Clock()
    progress = Progress("saving", stream=terminal, clock=clock)
    for now, size_bytes in ((1.0, 1_000_000), (100.0, 48_576)):
        clock.now = now
        progress.add(size_bytes)
    first, second = terminal.getvalue().split("\r")[1:]
    assert len(second) == len(first)


def test_it_is_not_drawn_more_often_than_anybody_can_see() -> None:
    """Many small steps cost nothing, and what is over at once has no line."""
    terminal, clock = Terminal(), Clock()
    with Progress("saving", stream=terminal, clock=clock) as progress:
        for _ in range(1000):
            clock.now += 0.00009
            progress.add(1)
    assert terminal.getvalue() == ""


def test_a_pipe_gets_nothing() -> None:
    """Logs of scripts stay readable."""
    pipe, clock = io.StringIO(), Clock()
    with Progress("saving", stream=pipe, clock=clock) as progress:
        clock.now = 5.0
        progress.add(1)
    assert pipe.getvalue() == ""


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 << 30, "5.0 GiB"),
        (1 << 60, "1048576.0 TiB"),
    ],
)
def test_sizes_are_written_for_people(size_bytes: int, text: str) -> None:
    """In the unit that fits."""
    assert size_text(size_bytes) == text
