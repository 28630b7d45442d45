"""Answers that are made while they are sent."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from anchor.api.connections import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anchor.api.connections import Connection

_log = logging.getLogger("anchor.api")


class Paced:
    """The pieces of an answer; the client has so much time to take each of them.

    Whatever goes wrong on the way breaks the connection off: the head has been sent, and an
    answer without its end is the only way left to say so. Gunicorn calls ``close`` in any case.
    """

    def __init__(self, pieces: Iterable[bytes], connection: Connection) -> None:
        self._pieces = pieces
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        """Give each piece once the one before it was sent."""
        connection = self._connection
        try:
            for piece in self._pieces:
                connection.allow_to_send(len(piece))
                yield piece
                connection.deadline = NEVER  # while the next is made, which is not the client's
        except Exception as error:  # noqa: BLE001 - whatever it is, there is one way to say it
            _log.error("an answer broke off: %s", error)
            raise ConnectionAbortedError from None
        connection.allow_to_send(0)

    def close(self) -> None:
        """Let go of what the pieces are made of."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
