"""Named points at which a process that is told to dies on the spot, as in a power cut.

``ANCHOR_CRASH_AT=append.after`` kills the process (SIGKILL) the first time it gets there,
``append.after:7`` the seventh time. For tests, so only from the sources: whatever was built or
installed ignores the variable, and says so (:func:`complaint`). Whether there is anything to do is
decided at import; where there is not, :func:`point` is a function that does nothing.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE = "ANCHOR_CRASH_AT"

POINTS = {
    "create.mark": "a new directory has its sync mark, and nothing else",
    "create.state": "… and its empty state",
    "create.database": "… and its database, which the sync mark does not count yet",
    "append.before": "entries or a vote are about to be written to the log",
    "append.after": "they are written, and not durable",
    "vote.before": "a term or a vote is about to be written",
    "vote.after": "it is written, and not durable",
    "mark.before": "the sync mark is about to be moved on",
    "mark.after": "it was moved on",
    "sync.before": "the log is about to be made durable",
    "sync.after": "it is durable, and nobody knows yet",
    "send.before": "entries were written here, and the others have not got them",
    "send.after": "the others have them, perhaps before this disk does",
    "promise.before": "what an acknowledgement or a vote promises is durable, and not sent",
    "promise.after": "it was sent",
    "apply.before": "committed entries are about to be applied",
    "apply.after": "they are applied, and their clients not answered",
    "flush.before": "the state is about to be made durable",
    "flush.after": "it is durable",
    "checkpoint.before": "a snapshot's directory is empty",
    "checkpoint.after": "it has the state's files, and no manifest",
    "manifest.before": "its files are durable, and the manifest is about to be written",
    "manifest.after": "the manifest is written, and not durable",
    "rename.before": "all of the snapshot is durable, under its provisional name",
    "rename.after": "it has its own name, perhaps not durably",
    "record.before": "the log is about to be told of the snapshot",
    "record.after": "it was told, not durably",
    "drop.before": "the log's beginning is about to be dropped",
    "drop.after": "it was dropped, not durably",
    "reclaim.before": "the space of what was dropped is about to be given back",
    "reclaim.after": "it was given back",
    "receive.before": "a piece of a snapshot has come, and is about to be kept",
    "receive.after": "it is kept, not durably",
    "install.before": "a snapshot was received whole, and is about to become a state",
    "install.placed": "its files are where the next state will be",
    "switch.before": "the next state is open, and the old one is live",
    "switch.after": "the next state is live, not durably",
    "switch.durable": "it is, and the old one still lies there",
}


def is_available(package: Path = Path(__file__).parent) -> bool:
    """Whether this process runs from the sources."""
    return (package.parent / "pyproject.toml").is_file()


def complaint(environ: Mapping[str, str], *, available: bool | None = None) -> str | None:
    """Say why the variable does nothing, if it is set and does nothing."""
    wanted = environ.get(VARIABLE, "")
    if not wanted:
        return None
    if not (is_available() if available is None else available):
        return f"{VARIABLE}: ignored: crash points work from the sources only"
    if _parse(wanted) is None:
        return (
            f"{VARIABLE}: ignored: is not a crash point's name, or NAME:NTH (see anchor/crash.py)"
        )
    return None


def _parse(wanted: str) -> tuple[str, int] | None:
    match = re.fullmatch(r"([a-z.]+)(?::([1-9][0-9]{0,8}))?", wanted)
    if match is None or match[1] not in POINTS:
        return None
    return match[1], int(match[2] or 1)


def _nothing(name: str) -> None:
    """Go on."""


class _Armed:
    """Counts down to the end."""

    def __init__(self, name: str, nth: int) -> None:
        self._name = name
        self._remaining = nth

    def __call__(self, name: str) -> None:
        if name != self._name:
            return
        self._remaining -= 1
        if self._remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _resolve(environ: Mapping[str, str]) -> Callable[[str], None]:
    wanted = environ.get(VARIABLE, "")
    parsed = _parse(wanted) if wanted and is_available() else None
    return _nothing if parsed is None else _Armed(*parsed)


point: Callable[[str], None] = _resolve(os.environ)
