"""Log lines: readable for people, JSON for programs, never forged."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import re
import sys
import warnings
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchor import logs

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Leave logging as it was found."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def json_lines(stream: io.StringIO) -> list[dict[str, object]]:
    """Read back what was logged."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_terminal_gets_one_readable_line() -> None:
    """Time, level, node, who, what."""
    stream = Terminal()
    logs.configure("node1", stream=stream, environ={"NO_COLOR": "1"})
    logging.getLogger("anchor.raft").info("became leader of term %d", 3)
    pattern = r"\d\d:\d\d:\d\d\.\d{3} INFO  node1 raft       became leader of term 3\n"
    assert re.fullmatch(pattern, stream.getvalue())


def test_anything_else_gets_json_lines() -> None:
    """With the time in RFC 3339 and what was added to the record."""
    stream = io.StringIO()
    logs.configure("node1", stream=stream, environ={})
    logging.getLogger("anchor.raft").warning("lost %s", "node2", extra={"term": 3, "key": b"\xff"})
    (line,) = json_lines(stream)
    moment = dt.datetime.fromisoformat(str(line.pop("time")))
    assert abs((dt.datetime.now(dt.UTC) - moment).total_seconds()) < 60
    assert line == {
        "level": "warning", "node": "node1", "logger": "anchor.raft", "message": "lost node2",
        "term": 3, "key": "\\xff",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "terminal", "coloured"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
        ({}, False, False),
        ({"ANCHOR_SUPERVISED": "colour"}, False, True),
        ({"ANCHOR_SUPERVISED": "plain"}, False, False),
    ],
)
def test_levels_are_coloured_where_that_is_welcome(
    environ: dict[str, str], *, terminal: bool, coloured: bool
) -> None:
    """On a terminal, unless NO_COLOR; under --cluster the parent decides."""
    stream = Terminal() if terminal else io.StringIO()
    logs.configure("n", log_format="text", stream=stream, environ=environ)
    logging.getLogger("anchor.x").error("e")
    assert ("\x1b[31mERROR\x1b[0m" in stream.getvalue()) is coloured


def test_the_node_is_not_named_twice_under_a_supervisor() -> None:
    """Its prefix names it already."""
    stream = io.StringIO()
    environ = {"ANCHOR_SUPERVISED": "plain"}
    logs.configure("node1", log_format="text", stream=stream, environ=environ)
    logging.getLogger("anchor.x").error("e")
    assert "node1" not in stream.getvalue()


def test_an_exception_is_a_field_in_json_and_indented_lines_in_text() -> None:
    """One JSON text for each record, whatever happened."""
    for log_format in ("json", "text"):
        stream = io.StringIO()
        logs.configure("n", log_format=log_format, stream=stream, environ={})
        try:
            int("bad\nforged: line")
        except ValueError:
            logging.getLogger("anchor.x").exception("failed")
        if log_format == "json":
            (line,) = json_lines(stream)
            assert str(line["traceback"]).endswith(r"'bad\nforged: line'")
            assert line["message"] == "failed"
        else:
            first, *rest = stream.getvalue().splitlines()
            assert first.endswith("failed")
            assert all(row.startswith("    ") for row in rest)


@given(st.text(), st.text())
def test_no_message_can_forge_a_line(message: str, extra: str) -> None:
    """Keys with CRLF, escapes for the terminal, half surrogates: one line, and encodable."""
    for formatter in (logs.TextFormatter("n", colour=False), logs.JsonFormatter("n")):
        record = logging.makeLogRecord(
            {"name": "a.b", "msg": "%s", "args": (message,), "what": extra}
        )
        line = formatter.format(record)
        assert len(line.splitlines()) == 1
        assert "\x1b" not in line
        line.encode()
        if isinstance(formatter, logs.JsonFormatter):
            assert json.loads(line)["message"] == message


def test_levels_below_the_one_asked_for_are_silent() -> None:
    """And libraries speak from warnings on."""
    stream = io.StringIO()
    logs.configure("n", "warning", "json", stream, {})
    logging.getLogger("anchor.x").info("no")
    logging.getLogger("anchor.x").warning("yes")
    logs.configure("n", "debug", "json", stream, {})
    logging.getLogger("anchor.x").debug("yes too")
    logging.getLogger("gunicorn.error").info("no")
    logging.getLogger("grpc._server").warning("library")
    assert [line["message"] for line in json_lines(stream)] == ["yes", "yes too", "library"]


def test_warnings_of_python_are_log_lines() -> None:
    """They would otherwise be written past the format."""
    stream = io.StringIO()
    logs.configure("n", log_format="json", stream=stream, environ={})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # catch_warnings has put the original back; configure's takes over again.
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("careful", UserWarning, stacklevel=1)
    (line,) = json_lines(stream)
    assert "careful" in str(line["message"])


def test_a_log_call_that_is_wrong_hurts_nobody() -> None:
    """It is logged as what it is."""
    stream = io.StringIO()
    logs.configure("n", log_format="json", stream=stream, environ={})
    logging.getLogger("anchor.x").error("%d", "x")
    assert "unformattable" in stream.getvalue()


def test_a_closed_stream_hurts_nobody() -> None:
    """The terminal is gone; the node goes on."""
    stream = io.StringIO()
    logs.configure("n", stream=stream, environ={})
    stream.close()
    logging.getLogger("anchor.x").error("lost")


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to results."""
    logs.configure("n", environ={})
    logging.getLogger("anchor.x").error("e")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["message"] == "e"
    assert sys.stderr is not None


def test_reserved_names_are_not_overwritten_by_extras() -> None:
    """A field named like ours gets an underscore."""
    record = logging.makeLogRecord({"msg": "m", "level": "x", "node": "y"})
    line = json.loads(logs.JsonFormatter("n").format(record))
    assert (line["level_"], line["node_"], line["node"]) == ("x", "y", "n")
