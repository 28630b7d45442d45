"""The short path and Gunicorn's must not differ in anything but hop-by-hop matters."""

from __future__ import annotations

import json
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


def request(method: str, target: str, *lines: str) -> bytes:
    """Return a request that has no body."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: h", *lines, "", ""]).encode()


def opened(client: Client) -> str:
    """Open a session and return its id."""
    answer = client.ask(request("POST", "/sessions"))
    assert answer.status == 201
    return str(json.loads(answer.body)["session"])


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
    plain("GET", "k", None, "Accept: */*"),
    plain("GET", "k", None, "Accept: application/json"),
    plain("HEAD", "k", None, "ACCEPT: application/json;q=0.5, text/html"),
    plain("GET", "none", None, "Accept: application/json"),
    plain("GET", "k", None, "Accept: \xff", "X-Session: x", "Idempotency-Key: x x", "X-Acked:"),
    plain("GET", "k", None, "If-None-Match: *"),
    plain("HEAD", "k", None, "If-None-Match:  *\t", "Accept: application/json"),
    plain("GET", "k", None, 'If-None-Match: "1", W/"x\xff"'),
    plain("GET", "none", None, "If-None-Match: *"),
    plain("GET", "k", None, 'If-Match: "1"'),
    plain("HEAD", "k", None, 'If-Match: "1"', "X-Consistency: lease"),
    plain("GET", "k", None, "If-Match: *"),
    plain("GET", "none", None, "If-Match: *"),
    plain("GET", "k", None, "If-None-Match: x"),
    plain("GET", "k", None, "if-match:"),
    plain("PUT", "k", b"v", "X-Session: x", "X-Sequence: 1"),
    plain("PUT", "k", b"v", f"X-Session: {'0' * 32}"),
    plain("PUT", "k", b"v", f"X-Session: {'0' * 32}", "X-Sequence: 0"),
    plain("PUT", "k", b"v", f"X-Session: {'0' * 32}", "X-Sequence: 1", "X-Acked: 1"),
    plain("POST", "k", b"v", f"X-Session: {'0' * 32}", "X-Sequence: 1", "Idempotency-Key: a"),
    plain("DELETE", "k", None, "X-Acked: 1"),
    plain("PUT", "k", b"v", "Idempotency-Key:"),
    plain("PUT", "k", b"v", "Idempotency-Key: \xe9"),
    plain("PUT", "k", b"v", "Idempotency-Key: " + "k" * 4000),
    plain("PUT", "k", b"v", "If-Match: 1"),
    plain("PUT", "k", b"v", 'If-None-Match: "1"'),
    plain("DELETE", "k", None, "If-Match: *", "If-None-Match: *"),
    plain("PUT", "k" * 4097, b"v", "If-Match: x"),
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


WITHOUT_TERMS: tuple[str, ...] = ()


@pytest.mark.parametrize("detour", DETOURS)
@pytest.mark.parametrize("terms", [WITHOUT_TERMS, ("If-Match: *",)])
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_both_paths_write_alike(
    client: Client, method: str, terms: tuple[str, ...], detour: Detour
) -> None:
    """The index goes up by one in between; everything else is the same."""
    payload = plain(method, "w", None if method == "DELETE" else b"some value", *terms)
    client.ask(plain("PUT", "w", b"before"))
    short = client.ask(payload)
    if terms:
        client.ask(plain("PUT", "w", b"before"))
    other = client.ask(detour(payload))
    assert (short.status, is_short(short), is_short(other)) == (200, True, False)
    index = int(short.headers["x-applied-index"])
    then = int(other.headers["x-applied-index"])
    lines, body = comparable(other)
    next_one = re.compile(rf'(X-Applied-Index: |ETag: "){then}\b')
    renumbered = [next_one.sub(rf"\g<1>{index}", line) for line in lines]
    assert (renumbered, body) == comparable(short)
    assert lines != renumbered


def without_index(answer: Response) -> tuple[list[str], bytes]:
    """Return what both paths owe where an answer's ETag is not that of its own entry."""
    lines, body = comparable(answer)
    return [line for line in lines if not line.startswith("X-Applied-Index: ")], body


REFUSED_BY_THE_STATE_MACHINE = [
    (("X-Session: {session}", "X-Sequence: 9"), 409),
    (("X-Session: {session}", "X-Sequence: 1"), 409),
    (("X-Session: {closed}", "X-Sequence: 1"), 410),
    (("X-Session: {unknown}", "X-Sequence: 1"), 404),
    (("X-Session: {foreign}", "X-Sequence: 1"), 404),
    (("X-Session: {session}", "X-Sequence: 2", "X-Acked: 1", 'If-Match: "1"'), 422),
    (("Idempotency-Key: {session}", "If-Match: *"), 422),
    (('If-Match: "1"',), 412),
    (("If-None-Match: *",), 412),
]


@pytest.mark.parametrize("detour", DETOURS)
@pytest.mark.parametrize(("terms", "status"), REFUSED_BY_THE_STATE_MACHINE)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_both_paths_refuse_alike(
    client: Client, method: str, terms: tuple[str, ...], status: int, detour: Detour
) -> None:
    """Whatever only the state machine can know."""
    session, closed = opened(client), opened(client)
    client.ask(request("DELETE", f"/sessions/{closed}"))
    ids = {
        "session": session,
        "closed": closed,
        "unknown": "7" + session[1:],
        "foreign": session[:16] + "00000000" + session[24:],
    }
    client.ask(plain("PUT", "k", b"1", f"X-Session: {session}", "X-Sequence: 1"))
    client.ask(plain("PUT", "k", b"2", f"X-Session: {session}", "X-Sequence: 2", "X-Acked: 1"))
    client.ask(plain("PUT", "k", b"3", f"Idempotency-Key: {session}"))
    lines = [line.format_map(ids) for line in terms]
    payload = plain(method, "k", None if method == "DELETE" else b"v", *lines)
    short, other = client.ask(payload), client.ask(detour(payload))
    assert (short.status, is_short(short), is_short(other)) == (status, True, False)
    assert without_index(short) == without_index(other)
    assert client.ask(plain("GET", "k")).body == b"3"


@pytest.mark.parametrize("first", [unchanged, by_te])
@pytest.mark.parametrize("detour", DETOURS)
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize("condition", [(), ("If-Match: *",), ("If-None-Match: *",)])
@pytest.mark.parametrize("with_session", [True, False])
def test_a_write_may_be_sent_again_on_the_other_path(
    client: Client,
    first: Detour,
    detour: Detour,
    method: str,
    condition: tuple[str, ...],
    with_session: bool,  # noqa: FBT001
) -> None:
    """Its first answer comes back, marked, done or refused, whichever way it went first."""
    session = opened(client)
    terms = (
        (f"X-Session: {session}", "X-Sequence: 1")
        if with_session
        else (f"Idempotency-Key: {session}",)
    )
    client.ask(plain("PUT", "k", b"before"))
    payload = plain(method, "k", None if method == "DELETE" else b"v", *terms, *condition)
    answer = client.ask(first(payload))
    assert answer.status == (412 if condition == ("If-None-Match: *",) else 200)
    assert "x-replayed" not in answer.headers
    client.ask(plain("PUT", "k", b"by somebody else"))
    short, other = client.ask(payload), client.ask(detour(payload))
    assert (is_short(short), is_short(other)) == (True, False)
    assert without_index(short) == without_index(other)
    lines, body = without_index(answer)
    assert without_index(short) == ([lines[0], *sorted([*lines[1:], "X-Replayed: true"])], body)
    assert client.ask(plain("GET", "k")).body == b"by somebody else"


@pytest.mark.parametrize("detour", [unchanged, *DETOURS])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_304_ends_with_its_head(client: Client, method: str, detour: Detour) -> None:
    """It has neither body nor length on the wire, and the connection serves what follows."""
    etag = client.ask(plain("PUT", "k", b"value")).headers["etag"]
    payload = detour(plain(method, "k", None, f"If-None-Match: {etag}"))
    client.send(payload + payload + plain("GET", "k"))
    for _ in range(2):
        answer = client.read()
        assert (answer.status, answer.headers["etag"]) == (304, etag)
        assert not {"content-length", "content-type", "transfer-encoding"} & set(answer.headers)
    assert client.read().body == b"value"


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
