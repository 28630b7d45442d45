"""Logs: one line each, for people on a terminal and as JSON for programs otherwise.

No line can be forged: control characters in messages (a key may hold CRLF) are escaped. A log
that cannot be written is lost in silence; it never stops a node.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

from anchor.options import SUPERVISED_VARIABLE
from anchor.values import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_RESERVED = frozenset({"time", "level", "node", "logger", "traceback"})

_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
_LEVELS = {"WARNING": "WARN", "CRITICAL": "FATAL"}

# Libraries speak only of what matters to an operator.
_LIBRARIES = {
    "gunicorn": logging.WARNING,
    "gunicorn.error": logging.WARNING,
    "gunicorn.access": logging.CRITICAL,
    "grpc": logging.WARNING,
    "asyncio": logging.WARNING,
    "concurrent": logging.WARNING,
}


def configure(
    node_id: str,
    level: str = "info",
    log_format: str = "auto",
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send everything logged to ``stream`` (stderr), replacing what was configured before."""
    stream = stream or sys.stderr
    terminal = _is_terminal(stream)
    supervised = environ.get(SUPERVISED_VARIABLE, "")
    if log_format == "text" or (log_format == "auto" and terminal):
        colour = (terminal and wants_colour(environ)) or supervised == "colour"
        formatter: logging.Formatter = TextFormatter("" if supervised else node_id, colour=colour)
    else:
        formatter = JsonFormatter(node_id)
    handler = _Handler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    for name, lowest in _LIBRARIES.items():
        logging.getLogger(name).setLevel(max(lowest, root.level))


def wants_colour(environ: Mapping[str, str]) -> bool:
    """Whether colours are welcome on a terminal (https://no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # none at all, or closed
        return False


class _Handler(logging.StreamHandler[TextIO]):
    """Writes whole lines; a log that cannot be written is nobody's failure."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a bad log call must not hurt the node
            line = f"unformattable log message {printable(repr(record.msg))}: {error!r}"
        try:
            self.stream.write(line + "\n")
            self.stream.flush()
        except (OSError, ValueError):
            pass


class TextFormatter(logging.Formatter):
    """``15:04:05.123 INFO  node1 raft      became leader of term 3``."""

    def __init__(self, node_id: str, *, colour: bool = False) -> None:
        super().__init__()
        self._node = f"{node_id} " if node_id else ""
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; a traceback follows on indented lines."""
        moment = dt.datetime.fromtimestamp(record.created).astimezone()
        level = f"{_LEVELS.get(record.levelname, record.levelname):<5}"
        if self._colour and record.levelname in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelname]}m{level}\x1b[0m"
        logger = _short_name(record.name)
        extra = "".join(f" {name}={_shown(value)}" for name, value in _extra(record).items())
        line = (
            f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03} {level} {self._node}{logger:<10} "
            f"{printable(record.getMessage())}{extra}"
        )
        traceback = _traceback(self, record)
        if traceback:
            line += "".join(f"\n    {printable(row)}" for row in traceback.split("\n"))
        return line


class JsonFormatter(logging.Formatter):
    """``{"time": …, "level": …, "node": …, "logger": …, "message": …, …}``."""

    def __init__(self, node_id: str) -> None:
        super().__init__()
        self._node = node_id

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; a traceback is one more field."""
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        fields: dict[str, object] = {
            "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z",
            "level": record.levelname.lower(),
            "node": self._node,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _extra(record).items():
            fields[f"{name}_" if name in _RESERVED else name] = value
        traceback = _traceback(self, record)
        if traceback:
            fields["traceback"] = traceback
        # ASCII alone: every control character and half surrogate leaves as \\u…
        return json.dumps(fields, default=_plain).replace("\x7f", "\\u007f")


def _short_name(name: str) -> str:
    """``anchor.raft`` is raft; a library keeps its own name."""
    parts = name.split(".")
    return parts[1] if parts[0] == "anchor" and len(parts) > 1 else parts[0]


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _shown(value: object) -> str:
    text = printable(str(_plain(value)))
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


def _plain(value: object) -> object:
    """Give what JSON has no word for as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str | int | float) else str(value)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.exc_text or ""
    if record.exc_info and not text:
        text = formatter.formatException(record.exc_info)
    if record.stack_info:
        text = "\n".join(filter(None, (text, record.stack_info)))
    return text
