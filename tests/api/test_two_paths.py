"""The short path and Gunicorn's must not differ in anything but hop-by-hop matters."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.api.serving import Client, Response, Server

# Each turns a plain request into one that only Gunicorn's parser takes, and means the same.
Detour = Callable[[bytes], bytes]
_OWN_TO_A_PATH = {"date", "server", "connection"}


def unchanged(payload: bytes) -> bytes:
    """Stay on the short path."""
    return payload


def by_te(payload: bytes) -> bytes:
    """Add a field that says what the client could take, and changes nothing."""
    return payload.replace(b"\r\n", b"\r\nTE: trailers\r\n", 1)


def by_target(payload: bytes) -> bytes:
    """Give the target in absolute form."""
    return payload.replace(b" /", b" http://h/", 1)


def in_chunks(payload: bytes) -> bytes:
    """Send the body in chunks of three bytes."""
    head, _, body = payload.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    if len(lines) == head.count(b"\r\n") + 1:
        return by_te(payload)
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(body[at : at + 3]), body[at : at + 3])
        for at in range(0, len(body), 3)
    )
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", chunks]) + b"0\r\n\r\n"


DETOURS = [by_te, by_target, in_chunks]


def plain(method: str, encoded_key: str, body: bytes | None = None, *lines: str) -> bytes:
    """Return a plain request."""
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    head = [f"{method} /kv/{encoded_key} HTTP/1.1", "Host: h", *lines, *length, "", ""]
    return "\r\n".join(head).encode("latin-1") + (body or b"")


def comparable(answer: Response) -> tuple[list[str], bytes]:
    """Return all that both paths owe, spelling included."""
    lines = answer.head.decode("latin-1").split("\r\n")
    owed = sorted(
        line for line in lines[1:] if line.partition(":")[0].lower() not in _OWN_TO_A_PATH
    )
    return [lines[0], *owed], answer.body


def is_short(answer: Response) -> bool:
    """Tell which path gave an answer: only Gunicorn names itself."""
    return "server" not in answer.headers


SAME_ON_BOTH = [
    plain("GET", "k"),
    plain("HEAD", "k"),
    plain("GET", "none"),
    plain("HEAD", "none"),
    plain("GET", "k", None, "X-Consistency: linearizable"),
    plain("GET", "k", None, "X-Consistency: lease"),
    plain("GET", "k", None, "x-consistency:   stale  "),
    plain("GET", "k", None, "X-Consistency: eventual"),
    plain("GET", "none", None, "X-Consistency: Stale"),
    plain("GET", "k", None, "X-Consistency:"),
    plain("GET", ""),
    plain("GET", "%zz"),
    plain("GET", "%"),
    plain("GET", "%4"),
    plain("GET", "a?b"),
    plain("GET", "a?"),
    plain("GET", "a#b"),
    plain("GET", "k" * 4096),
    plain("GET", "k" * 4097),
    plain("GET", "%00" * 4096),
    plain("GET", "%00" * 4097),
    plain("GET", "bug"),
    plain("PUT", "bug", b"v"),
    plain("PUT", "", b"v"),
    plain("POST", "%zz", b"v"),
    plain("PUT", "k" * 4097, b"v"),
    plain("PUT", "k?ttl=5", b"v"),
    plain("PUT", "k", b"v", "X-Consistency: none"),
    plain("DELETE", "%zz"),
    plain("DELETE", ""),
]


@pytest.mark.parametrize("detour", DETOURS)
@pytest.mark.parametrize("payload", SAME_ON_BOTH)
def test_both_paths_answer_alike(client: Client, payload: bytes, detour: Detour) -> None:
    """Status, headers, their spelling, and the body."""
    head = payload.startswith(b"HEAD")
    client.ask(plain("PUT", "k", b"value"))
    short = client.ask(payload, head=head)
    other = client.ask(detour(payload), head=head)
    assert is_short(short)
    assert not is_short(other)
    assert comparable(short) == comparable(other)


@pytest.mark.parametrize("detour", DETOURS)
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_both_paths_write_alike(client: Client, method: str, detour: Detour) -> None:
    """The index goes up by one in between; everything else is the same."""
    payload = plain(method, "w", None if method == "DELETE" else b"some value")
    short, other = client.ask(payload), client.ask(detour(payload))
    index = int(short.headers["x-applied-index"])
    lines, body = comparable(other)
    next_one = re.compile(rf'(X-Applied-Index: |ETag: "){index + 1}\b')
    renumbered = [next_one.sub(rf"\g<1>{index}", line) for line in lines]
    assert (renumbered, body) == comparable(short)
    assert lines != renumbered


@pytest.mark.parametrize(
    "line",
    [
        "Expect: 100-continue",
        "Upgrade: h2c",
        "Connection: upgrade",
        "Connection: close, keep-alive",
        "TE: trailers",
        "Trailer: x",
        "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT",
        "If-None-Match: *\r\nIf-None-Match: *",
        "Content-Length: 1",
        "X-Consistency: stale\r\nX-Consistency: lease",
    ],
)
def test_what_is_odd_takes_the_long_way(server: Server, line: str) -> None:
    """Anything that could change what the message means, or where it ends."""
    assert not is_short(server.ask(plain("GET", "none", None, line) + b"x"))


keys = st.binary(min_size=1, max_size=40) | st.sampled_from(
    [b"/", b"..", b"../../etc/passwd", b"\0", b"\r\nX: y", b"a/../b", b"\xff\xfe", b"%2F", b"a?b#c"]
)


def escaped(key: bytes, keep: str) -> str:
    """Percent-encode a key, keeping some characters as they are."""
    return quote_from_bytes(key, safe=keep)


@given(key=keys, value=st.binary(max_size=200), keep=st.sampled_from(["", "/", "/:@!$&'()*+,;=~"]))
@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_key_comes_back_byte_for_byte(
    server: Server, key: bytes, value: bytes, keep: str
) -> None:
    """However it is escaped, whichever path it takes, whatever it looks like."""
    with server.client() as client:
        for number, detour in enumerate([unchanged, *DETOURS]):
            written = value + bytes([number])
            assert client.ask(detour(plain("PUT", escaped(key, keep), written))).status == 200
            for back in (unchanged, by_te, by_target):
                answer = client.ask(back(plain("GET", escaped(key, ""))))
                assert (answer.status, answer.body) == (200, written)
        assert client.ask(plain("DELETE", "".join(f"%{byte:02x}" for byte in key))).status == 200
        assert client.ask(plain("GET", escaped(key, ""))).status == 404
