"""Settings and addresses: what is accepted, and what it is turned into."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchor.settings import (
    VERSION,
    Settings,
    is_wildcard,
    join_address,
    parse_host,
    split_address,
)

ROOT = Path(__file__).resolve().parent.parent


def test_version_is_the_one_of_the_project_file() -> None:
    """There is one version, whoever asks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_a_node_is_reached_where_it_listens_unless_it_advertises_something_else() -> None:
    """``address`` and ``http_address`` fall back to host and port."""
    plain = Settings("n", 9001, Path("d"), http_port=8001, host="::1")
    assert (plain.address, plain.http_address) == ("[::1]:9001", "[::1]:8001")
    assert plain.bind_address == "[::1]:9001"
    told = Settings("n", 9001, Path("d"), advertise="a:1", http_advertise="b:2")
    assert (told.address, told.http_address) == ("a:1", "b:2")


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("localhost:9001", ("localhost", 9001)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[::1]:1", ("::1", 1)),
        ("[fe80::1%eth0]:9001", ("fe80::1%eth0", 9001)),
        ("node_1.example-host.com:80", ("node_1.example-host.com", 80)),
    ],
)
def test_addresses_come_apart_and_go_together_again(address: str, parts: tuple[str, int]) -> None:
    """``join_address`` undoes ``split_address``."""
    assert split_address(address) == parts
    assert join_address(*parts) == address


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("localhost", "has no port"),
        ("", "has no port"),
        (":9001", "the host is missing"),
        ("localhost:", "a port is a number"),
        ("localhost:0", "a port is a number"),
        ("localhost:65536", "a port is a number"),
        ("localhost:+1", "a port is a number"),
        ("localhost:\u0661\u0662", "a port is a number"),
        ("::1:9001", "brackets"),
        ("[::1]", "has no port"),
        ("[::1:9001", "has no port"),
        ("[localhost]:9001", "only an IPv6 address"),
        ("[::g]:9001", "not an IP address"),
        ("300.1.1.1:9001", "not an IP address"),
        ("a b:9001", "not a host name"),
        ("-a:9001", "not a host name"),
        ("a/b:9001", "not a host name"),
        ("a\r\nX: y:9001", "brackets"),
        ("a\r\n:9001", "not a host name"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(address: str, why: str) -> None:
    """A wrong address raises ValueError whose text says what is wrong."""
    with pytest.raises(ValueError, match=why):
        split_address(address)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    """Nothing else escapes, and what is accepted survives a round trip."""
    try:
        host, port = split_address(text)
    except ValueError:
        return
    assert split_address(join_address(host, port)) == (host, port)


def test_brackets_come_off_an_ipv6_host() -> None:
    """``--host [::1]`` and ``--host ::1`` are the same."""
    assert parse_host("[::1]") == parse_host("::1") == "::1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0:0:0:0:0:0:0:0"])  # noqa: S104 - not bound
def test_wildcards_are_seen_in_any_spelling(host: str) -> None:
    """Every way to write "every interface" counts."""
    assert is_wildcard(host)
    assert not is_wildcard("localhost")
    assert not is_wildcard("127.0.0.1")
