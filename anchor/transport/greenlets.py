"""Greenlets of the transport, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gevent.pool import Group

if TYPE_CHECKING:
    from collections.abc import Callable

    from gevent import Greenlet


class Greenlets:
    """Starts greenlets and waits for their end."""

    def __init__(self) -> None:
        self._names: dict[Greenlet[..., None], str] = {}
        self._group = Group()

    @property
    def running(self) -> list[str]:
        """The names of those that run."""
        return list(self._names.values())

    def spawn(self, name: str, run: Callable[[], None]) -> None:
        """Start one, without letting it or another run first."""
        greenlet = self._group.spawn(run)
        self._names[greenlet] = name
        greenlet.link(self._names.pop)

    def join(self, timeout_seconds: float) -> bool:
        """Wait for all of them; False if some still run."""
        self._group.join(timeout_seconds)
        return not self._names
