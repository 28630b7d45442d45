"""Which requests are plain: the short path may only take what Gunicorn would take as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor.api import plain as plain_module
from anchor.api.asked import TERM_NAMES, Asked, TermFields
from anchor.api.plain import IncompleteError, Plain, recognise
from anchor.api.server import options

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 1000
PLAIN = b"PUT /kv/k HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"


def test_a_plain_request_is_recognised() -> None:
    """With what the answer depends on."""
    payload = b"PUT /kv/%2F HTTP/1.1\r\nhOst: h\r\nCONTENT-LENGTH: 5\r\nA: b\r\n\r\nvalue"
    assert recognise(payload, LIMIT) == Plain(
        b"PUT", b"/kv/%2F", Asked(), 5, len(payload) - 5, False
    )
    payload = b"GET /kv/a HTTP/1.1\r\nConnection: Close\r\nX-Consistency: lease\r\nHost:\r\n\r\n"
    assert recognise(payload, LIMIT) == Plain(
        b"GET", b"/kv/a", Asked(b"lease"), 0, len(payload), True
    )


SESSION = b"0123456789abcdef0123456789abcdef"
IN_SESSION = b"X-Session: " + SESSION + b"\r\nX-Sequence: 5\r\nX-Acked: 4"


def terms_of(*lines: bytes) -> Asked | None:
    """Return what a request with these lines asks for; None if it is not plain."""
    payload = b"\r\n".join([b"PUT /kv/k HTTP/1.1", b"A: b", *lines, b"Host: h", b"", b""])
    recognised = recognise(payload, LIMIT)
    return None if recognised is None else recognised.asked


@pytest.mark.parametrize("round_number", [1, 2])
def test_terms_are_recognised(round_number: int) -> None:
    """In whatever order and spelling; the first time, and when the rest of it is known."""
    assert round_number
    asked = TermFields(session=SESSION, sequence=b"5", acked=b"4")
    assert terms_of(IN_SESSION) == Asked(terms=asked)
    assert terms_of(IN_SESSION.lower()) == Asked(terms=asked)
    assert terms_of(*reversed(IN_SESSION.split(b"\r\n"))) == Asked(terms=asked)
    assert terms_of(IN_SESSION.replace(b": ", b":\t ").replace(b"\r", b" \t\r")) == Asked(
        terms=asked
    )
    assert terms_of(IN_SESSION, b"X-Consistency: x", b"accept: y") == Asked(b"x", terms=asked)
    assert terms_of(IN_SESSION, b"accept: application/json") == Asked(as_json=True, terms=asked)
    assert terms_of(IN_SESSION[:-12]) == Asked(terms=asked._replace(acked=None))
    assert terms_of(IN_SESSION, b'IF-MATCH: "7"') == Asked(terms=asked._replace(if_match=b'"7"'))
    assert terms_of(b"Idempotency-Key: a b ") == Asked(terms=TermFields(idempotency_key=b"a b"))
    assert terms_of(b"If-None-Match:*") == Asked(terms=TermFields(if_none_match=b"*"))
    assert terms_of(b"If-None-Match:") == Asked(terms=TermFields(if_none_match=b""))
    assert terms_of(b"X-If-Match: 1", b"A: X-Sequence: 4") == Asked()


@pytest.mark.parametrize("name", TERM_NAMES)
@pytest.mark.parametrize("respell", [str.lower, str.upper, str.title, str.swapcase])
def test_terms_given_twice_are_odd(name: str, respell: Callable[[str], str]) -> None:
    """Gunicorn makes a list of them, however they are spelled."""
    line = f"{name}: 1".encode()
    assert terms_of(line) is not None
    assert terms_of(line, f"{respell(name)}: 1".encode()) is None
    assert terms_of(IN_SESSION, line, f"{respell(name)}: 2".encode()) is None


def test_terms_have_the_limits_of_all_fields() -> None:
    """Gunicorn has some too, and an own way to say so."""
    assert terms_of(b"Idempotency-Key:" + b"k" * 4096) is not None
    assert terms_of(b"Idempotency-Key:" + b"k" * 4097) is None
    assert terms_of(b"X-Session: " + SESSION + b"\r\nX-Sequence: " + b"5" * 4096) is None
    assert terms_of(IN_SESSION, b" folded") is None
    assert terms_of(IN_SESSION + b"\0") is None
    assert terms_of(IN_SESSION + b"\n") is None


def test_what_changes_with_each_request_is_not_remembered() -> None:
    """Or nothing else would be for long; nor is there more remembered than there may be."""
    plain_module._remembered.clear()
    for number in range(2000):
        assert terms_of(b"X-Session: " + SESSION, b"X-Sequence: %d" % number) is not None
        assert terms_of(b"idempotency-key: %d" % number, b'If-Match: "%d"' % number) is not None
    assert len(plain_module._remembered) == 1
    for number in range(2000):
        assert terms_of(b"Other: %d" % number) is not None
    assert len(plain_module._remembered) <= 1024
    plain_module._remembered.clear()
    assert terms_of(b"Other: " + b"x" * 600) is not None
    assert not plain_module._remembered


def test_what_is_common_to_requests_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With terms or without, usual or not: this is what the short path's speed rests on."""
    read: list[bytes] = []
    read_common = plain_module._common_meaning

    def count(block: bytes) -> object:
        read.append(block)
        return read_common(block)

    plain_module._remembered.clear()
    monkeypatch.setattr(plain_module, "_common_meaning", count)
    for number in range(3):
        for lines in ((), (IN_SESSION,), (b"Idempotency-Key: %d" % number,)):
            assert terms_of(*lines) is not None
    assert len(read) == 1


@pytest.mark.parametrize("length", range(len(PLAIN)))
def test_a_part_of_a_head_is_incomplete(length: int) -> None:
    """Wherever it was cut; an empty one too."""
    with pytest.raises(IncompleteError):
        recognise(PLAIN[:length], LIMIT)


@pytest.mark.parametrize(
    ("part", "odd"),
    [
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"HTTP/1.1", b"HTTP/1.2"),
        (b"PUT", b"PATCH"),
        (b"PUT", b"put"),
        (b"PUT", b"GET"),
        (b"PUT", b"DELETE"),
        (b"/kv/k", b"/kv"),
        (b"/kv/k", b"/status"),
        (b"/kv/k", b"http://h/kv/k"),
        (b"/kv/k", b"*"),
        (b"/kv/k", b"/kv/\xc3\xa9"),
        (b"/kv/k", b"/kv/" + b"k" * 20_000),
        (b"Host: h\r\n", b""),
        (b"Host: h\r\n", b"Host: h\r\nHost: h\r\n"),
        (b"Host: h\r\n", b"Host: h h\r\n"),
        (b"Host: h\r\n", b"Host: h\r\nA: b\x0bc\r\n"),
        (b"Host: h\r\n", b"Host: h\r\n" + b"A: b\r\n" * 100),
        (b"Host: h\r\n", b"Host: h\r\nA: " + b"b" * 5000 + b"\r\n"),
        (b": 5", b": 5\r\nContent-Length: 5"),
        (b": 5", b": 1001"),
        (b": 5", b": +5"),
        (b": 5", b": 5,5"),
        (b": 5", b": 0x5"),
        (b": 5", b": 5 5"),
        (b": 5", b":"),
        (b": 5", b": \xb2"),
        (b": 5", b": 00000000005"),
        (b": 5", b": 5\r\nTransfer-Encoding: chunked"),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 5", b"transfer-encoding: identity"),
        (b"Content-Length: 5", b"Content-Length : 5"),
        (b"Content-Length: 5", b"Content-Length: 5\r\n folded"),
        (b": 5", b": 5\r\nExpect: 100-continue"),
        (b": 5", b": 5\r\neXPECT: 100-continue"),
        (b": 5", b": 5\r\nConnection: upgrade"),
        (b": 5", b": 5\r\nUpgrade: h2c"),
        (b": 5", b": 5\r\nIf-Match: 1\r\nIF-match: 1"),
        (b": 5", b": 5\r\nIf-Modified-Since: 1"),
        (b": 5", b": 5\r\nContent-Range: bytes 0-1/2"),
    ],
)
def test_what_is_odd_is_not_plain(part: bytes, odd: bytes) -> None:
    """One change to a plain request, and it is left to Gunicorn."""
    assert recognise(PLAIN, LIMIT) is not None
    assert recognise(PLAIN.replace(part, odd, 1), LIMIT) is None


ASKED_NAMES = ("X-Consistency", *TERM_NAMES)


def as_gunicorn_reads(payload: bytes) -> tuple[bytes, bytes, int, list[list[bytes]], bool, bool]:
    """Return method, target, body length, what is asked and how, and whether to close; or raise."""
    cfg = Config()
    for name, value in options(0).items():
        if name.startswith(("limit_", "forward", "secure_")):
            cfg.set(name, value)
    request = Request(cfg, IterUnreader([payload]), ("127.0.0.1", 1))
    return (
        request.method.encode(),
        request.uri.encode(),
        len(request.body.read()),
        [
            [value.encode("latin-1") for name, value in request.headers if name == asked.upper()]
            for asked in ASKED_NAMES
        ],
        any(name == "ACCEPT" and "json" in value for name, value in request.headers),
        request.should_close(),
    )


FIELDS = [
    b"Host: h", b"host:h:80", b"Host: ", b"HOST: [::1]:8",
    b"Content-Length: 3", b"content-length:0",
    b"Content-Length: 03", b"Content-Length: 3 ", b"Content-Length: \t3", b"Content-Length: 3,3",
    b"Content-Length: 1e0", b"Content_Length: 9", b"Transfer-Encoding: chunked", b"TE: x",
    b"Transfer-Encoding : chunked", b"transfer_encoding: chunked", b"Connection: close",
    b"Connection: CLOSE", b"connection: keep-alive", b"Connection: keep-alive, close",
    b"Connection:", b"X-Consistency: stale", b"x-consistency:  lease\t", b"X_Consistency: stale",
    b"X-Consistency:", b"Expect: 100-continue", b"Content-Type: a", b"Content-Type: b", b"A: \xff",
    b"Accept: */*", b"ACCEPT: a, application/json", b"X-Session: " + SESSION, b"X-Sequence: 5",
    b"x-sequence:6 ", b"X-Acked: 4", IN_SESSION, IN_SESSION + b" ", b"Idempotency-Key: \t a b\t",
    b'if-match: "5"', b"If-Match:", b"IF-NONE-MATCH: *", b"X_Session: 5", b"X-Sequence : 7",
    b"X-Session\t: 7",
    b"A: b\tc", b"A:", b" folded", b": no name", b"no colon", b"A\x00: b", b"A: b\rc", b"A: b\nc",
]  # fmt: skip
LINES = [
    b"%s %s HTTP/1.1" % (method, target)
    for method in (b"GET", b"PUT", b"POST", b"HEAD", b"DELETE")
    for target in (b"/kv/k", b"/kv/", b"/kv/%zz", b"/kv/a?b", b"/kv/a#b", b"/kv/..//x", b"/kv/[::")
]


@given(
    st.sampled_from(LINES),
    st.lists(st.sampled_from(FIELDS), max_size=5),
    st.sampled_from([b"", b"\r\n", b"\n"]),
    st.none() | st.tuples(st.integers(0, 80), st.binary(max_size=3)),
)
@settings(max_examples=1500, deadline=None)
def test_gunicorn_takes_what_is_plain_for_the_same(
    line: bytes, fields: list[bytes], before: bytes, noise: tuple[int, bytes] | None
) -> None:
    """No request is one thing here and another there: that is how smuggling begins."""
    payload = before + b"\r\n".join([line, *fields, b"", b"xyzGET /kv/next HTTP/1.1\r\n"])
    if noise is not None:
        at, what = noise
        payload = payload[:at] + what + payload[at + len(what) :]
    try:
        plain = recognise(payload, LIMIT)
    except IncompleteError:
        return
    if plain is None or len(payload) < plain.head_bytes + plain.body_bytes:
        return
    consistency, as_json, terms = plain.asked
    values = (consistency, *(terms or TermFields()))
    asked = [[] if value is None else [value] for value in values]
    ours = (plain.method, plain.target, plain.body_bytes, asked, as_json, plain.close)
    assert as_gunicorn_reads(payload) == ours


@given(st.binary(max_size=60), st.integers(0, len(PLAIN)), st.integers(0, 10))
def test_no_bytes_at_all_break_it(noise: bytes, at: int, instead_of: int) -> None:
    """Whatever arrives is plain, odd or incomplete; and what is plain ends where it says."""
    payload = PLAIN[:at] + noise + PLAIN[at + instead_of :]
    try:
        plain = recognise(payload, LIMIT)
    except IncompleteError:
        return
    if plain is not None:
        assert payload[: plain.head_bytes].endswith(b"\r\n\r\n")
        assert plain.body_bytes <= LIMIT
