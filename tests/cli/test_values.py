"""What people write and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchor import values


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1s", 1000), ("1000ms", 1000), ("1000", 1000), ("1.5s", 1500), ("2 m", 120_000),
     ("0.25s", 250)],
)  # fmt: skip
def test_durations_are_written_with_a_unit_or_as_milliseconds(text: str, expected: int) -> None:
    """'1s', '1000ms' and '1000' are the same."""
    assert values.milliseconds(1, 600_000)(text) == expected


def test_a_plain_number_is_seconds_where_the_option_says_so() -> None:
    """``--timeout 3`` is three seconds, as for curl."""
    assert values.milliseconds(1, 600_000, plain_unit_ms=1000)("3") == 3000


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "1h", "1e3", "nan", "0.0001s", "9", "101", "1s1s", "0x10", "\u0661"]
)
def test_what_is_no_duration_within_bounds_is_refused(text: str) -> None:
    """Wrong units, fractions of a millisecond and values out of bounds raise ValueError."""
    with pytest.raises(ValueError, match=r"duration|milliseconds"):
        values.milliseconds(10, 100)(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1MiB", 1 << 20), ("1mib", 1 << 20), ("512KiB", 512 << 10), ("64KB", 64_000),
     ("65536", 65536), ("1.5 MiB", 3 << 19), ("100B", 100)],
)  # fmt: skip
def test_sizes_are_written_with_a_unit_or_as_bytes(text: str, expected: int) -> None:
    """KiB counts by 1024, KB by 1000."""
    assert values.byte_count(1, 3 << 20)(text) == expected


@pytest.mark.parametrize("text", ["", "1M", "-1", "0", "4MiB", "0.1", "1 TiB", "1e6"])
def test_what_is_no_size_within_bounds_is_refused(text: str) -> None:
    """An unknown unit, part of a byte or a value out of bounds raises ValueError."""
    with pytest.raises(ValueError, match=r"size|bytes"):
        values.byte_count(1, 3 << 20)(text)


@pytest.mark.parametrize("text", ["node1", "a", "A.b_c-9", "x" * 64])
def test_ids_are_plain_words(text: str) -> None:
    """Letters, digits, dots, dashes, underscores; 1 to 64 of them."""
    assert values.node_id(text) == text


@pytest.mark.parametrize("text", ["", "x" * 65, "a b", "a/b", "ä", "a\n", "\x00"])
def test_other_ids_are_refused(text: str) -> None:
    """Anything that would need quoting somewhere is no id."""
    with pytest.raises(ValueError, match="an id is"):
        values.node_id(text)


def test_lists_of_addresses_lose_blanks_and_repetitions() -> None:
    """Order stays, each address once."""
    assert values.addresses(" a:1, b:2 ,a:1,,[::1]:3") == ("a:1", "b:2", "[::1]:3")
    assert values.addresses("") == ()


def test_a_wrong_address_in_a_list_is_named() -> None:
    """Among several it must be clear which."""
    with pytest.raises(ValueError, match=r"^b: has no port"):
        values.addresses("a:1,b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("host", "host"), ("host:1", "host:1"), ("[::1]:1", "[::1]:1"), ("[::1]", "::1"),
     ("::1", "::1"), ("10.0.0.1", "10.0.0.1")],
)  # fmt: skip
def test_an_advertised_address_may_leave_its_port_out(text: str, expected: str) -> None:
    """The port is then the one listened on."""
    assert values.advertised(text) == expected


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0", "0.0.0.0:9001", "::", "[::]:9001", "", "a:b", "a:0"],  # noqa: S104 - not bound
)
def test_what_nobody_can_dial_is_not_advertised(text: str) -> None:
    """Wildcards and nonsense raise ValueError."""
    with pytest.raises(ValueError, match=r"dial|port|host|address"):
        values.advertised(text)


def test_endpoints_may_be_written_as_urls() -> None:
    """What was copied from a browser works; https does not."""
    assert values.endpoints("http://a:1/, b:2") == ("a:1", "b:2")
    with pytest.raises(ValueError, match="plain http"):
        values.endpoints("https://a:1")
    with pytest.raises(ValueError, match="names no endpoint"):
        values.endpoints(",")


def test_a_directory_may_start_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--dir=~/x`` reaches us unexpanded."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert values.directory("~/x") == Path("/home/somebody/x")
    for text in ("", "a\0b", "~no-such-user-here/x"):
        with pytest.raises(ValueError, match="path"):
            values.directory(text)


@given(st.text(max_size=200))
def test_printable_text_stays_on_one_line_and_can_be_encoded(text: str) -> None:
    """No control character and no half surrogate is left, whatever came in."""
    shown = values.printable(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in shown)


def test_printable_text_shows_what_was_there() -> None:
    """Escapes are the usual ones, a stray byte is shown as that byte, long text is cut."""
    assert values.printable("a\r\n\x1b[31m\x00\u202e\udcff") == r"a\r\n\x1b[31m\x00\u202e\xff"
    assert values.printable("x" * 100, 5) == "xxxx…"


def test_a_rate_is_a_size_or_no_limit_at_all() -> None:
    """One chunk takes so long at a lower rate that the transfer would count as broken."""
    rate = values.byte_rate(128 << 10, 1 << 30)
    assert (rate("0"), rate("10MB"), rate("128KiB")) == (0, 10_000_000, 128 << 10)
    for text in ("1", "127KiB", "2GiB", "fast"):
        with pytest.raises(ValueError, match=r"bytes|size"):
            rate(text)
