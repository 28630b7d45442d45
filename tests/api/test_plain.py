"""Which requests are plain: the short path may only take what Gunicorn would take as well."""

from __future__ import annotations

import pytest
from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor.api.asked import Asked
from anchor.api.plain import IncompleteError, Plain, recognise
from anchor.api.server import options

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


def as_gunicorn_reads(payload: bytes) -> tuple[bytes, bytes, int, list[str], bool]:
    """Return method, target, body length, consistencies, and whether to close; or raise."""
    cfg = Config()
    for name, value in options(0).items():
        if name.startswith(("limit_", "forward", "secure_")):
            cfg.set(name, value)
    request = Request(cfg, IterUnreader([payload]), ("127.0.0.1", 1))
    return (
        request.method.encode(),
        request.uri.encode(),
        len(request.body.read()),
        [value for name, value in request.headers if name == "X-CONSISTENCY"],
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
    consistency = plain.asked.consistency
    consistencies = [] if consistency is None else [consistency.decode("latin-1")]
    ours = (plain.method, plain.target, plain.body_bytes, consistencies, plain.close)
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
