"""What a real server does with real bytes: framing, deadlines, hostility."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from tests.api.serving import Client, Server, eventually, serving

MIB = 1 << 20


def get(key: str = "k", *lines: str) -> bytes:
    """Return a plain GET."""
    return request("GET", f"/kv/{key}", *lines)


def put(key: str, value: bytes, *lines: str) -> bytes:
    """Return a plain PUT."""
    return request("PUT", f"/kv/{key}", f"Content-Length: {len(value)}", *lines) + value


def request(method: str, target: str, *lines: str) -> bytes:
    """Return the head of a request."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: h", *lines, "", ""]).encode("latin-1")


# --------------------------------------------------------------------------- framing


def test_a_value_is_written_and_read_on_one_connection(client: Client) -> None:
    """Requests follow each other on a connection that stays open."""
    assert client.ask(put("k", b"v\r\n\0")).body == b"OK"
    answer = client.ask(get())
    assert (answer.status, answer.body) == (200, b"v\r\n\0")
    assert "connection" not in answer.headers


def test_an_answer_leaves_in_one_piece(server: Server) -> None:
    """Head and body of a plain answer arrive together: two small sends would meet Nagle."""
    with server.client() as client:
        client.ask(put("k", b"value"))
        client.send(get())
        assert client.sock.recv(1 << 16).endswith(b"\r\n\r\nvalue")


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    """Whatever path each of them takes, also with a body in chunks between them."""
    chunked = request("PUT", "/kv/b", "Transfer-Encoding: chunked") + b"3\r\ntwo\r\n0\r\n\r\n"
    client.send(
        put("a", b"one") + chunked + get("a") + get("b") + request("GET", "/status") + get("a")
    )
    bodies = [client.read().body for _ in range(6)]
    assert bodies[:4] == [b"OK", b"OK", b"one", b"two"]
    assert b"node_id" in bodies[4]
    assert bodies[5] == b"one"


def test_a_thousand_pipelined_requests_are_all_answered(client: Client) -> None:
    """A turn given to others in between loses nothing."""
    client.ask(put("k", b"v"))
    client.send(get() * 1000)
    assert all(client.read().body == b"v" for _ in range(1000))


@pytest.mark.parametrize("cut", [1, 3, 10, 20, 40, 52, 60])
def test_a_request_may_arrive_in_pieces(client: Client, cut: int) -> None:
    """Wherever it is cut."""
    whole = put("pieces", b"0123456789")
    client.send(whole[:cut])
    time.sleep(0.02)
    client.send(whole[cut:] + get("pieces"))
    assert client.read().status == 200
    assert client.read().body == b"0123456789"


def test_the_largest_value_is_taken_on_both_paths(client: Client) -> None:
    """A value of exactly the limit is no error, in one piece and in chunks."""
    value = bytes(range(256)) * (MIB // 256)
    assert client.ask(put("big", value)).status == 200
    assert client.ask(get("big")).body == value
    chunked = request("PUT", "/kv/big", "Transfer-Encoding: chunked")
    assert client.ask(chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (MIB, value[::-1])).status == 200
    assert client.ask(get("big")).body == value[::-1]


def test_head_answers_as_get_does_but_without_the_body(client: Client) -> None:
    """The length is that of the body that a GET would get."""
    client.ask(put("k", b"value"))
    answer = client.ask(request("HEAD", "/kv/k"), head=True)
    assert answer.headers["content-length"] == "5"
    assert client.ask(request("HEAD", "/status"), head=True).status == 200
    assert client.ask(request("HEAD", "/kv/none"), head=True).status == 404
    assert client.ask(get()).body == b"value"


def test_http_1_0_is_served_and_closed(client: Client) -> None:
    """As its clients expect, and without Host."""
    client.ask(put("k", b"value"))
    answer = client.ask(b"GET /kv/k HTTP/1.0\r\n\r\n")
    assert (answer.status, answer.body) == (200, b"value")
    assert client.at_end()


def test_what_follows_the_last_request_does_not_reset_its_answer(server: Server) -> None:
    """A client that goes on after ``Connection: close`` still gets to read what it asked for."""
    for line in ("A: b", "TE: x"):
        with server.client() as client:
            client.send(get("none", "Connection: close", line))
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                client.send(b"x" * 100_000)
            assert client.read().status == 404


def test_connection_close_is_honoured(client: Client) -> None:
    """The answer says so too."""
    answer = client.ask(get("k", "Connection: close"))
    assert answer.headers["connection"] == "close"
    assert client.at_end()


def test_a_body_on_a_read_is_passed_over(client: Client) -> None:
    """And is not taken for the next request."""
    client.ask(put("k", b"value"))
    with_body = get("k", "Content-Length: 60") + get("smuggled").ljust(60, b"x")
    assert client.ask(with_body).body == b"value"
    assert client.ask(get()).body == b"value"


def test_a_large_body_on_a_read_closes_the_connection(client: Client) -> None:
    """It is not worth reading."""
    answer = client.ask(get("k", "Content-Length: 10000000"))
    assert answer.headers["connection"] == "close"
    assert client.at_end()


def test_absolute_targets_are_understood(client: Client) -> None:
    """RFC 9112 §3.2.2: a server must accept the absolute form."""
    client.ask(put("k", b"value"))
    assert client.ask(request("GET", "http://h/kv/k")).body == b"value"


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"GET /kv/k HTTP/1.1\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\n\r\n", 400),
        (b"GET /kv/k HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /kv/k HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /kv/k HTTP/1.1\r\nHost: a/kv\r\n\r\n", 400),
        (b"\0\0\0\0\r\n\r\n", 400),
        (b"GET /kv/k\r\n\r\n", 400),
        (b"GET /kv/\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /kv/k HTTP/3.0\r\nHost: h\r\n\r\n", 400),
        (b"get /kv/k HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /kv/k HTTP/1.1\nHost: h\n\n", 400),
        (request("GET", "/kv/k", "A: b\0c"), 400),
        (request("GET", "/kv/k", "A : b"), 400),
        (request("GET", "/kv/k", "A: b", " folded"), 400),
        (request("PUT", "/kv/k", "Expect: a miracle"), 417),
        (request("PUT", "/kv/k", "Content-Length: 5", "Content-Length: 6"), 400),
        (request("PUT", "/kv/k", "Content-Length: 5", "Content-Length: 5"), 400),
        (request("PUT", "/kv/k", "Content-Length: 5, 5"), 400),
        (request("PUT", "/kv/k", "Content-Length: +5"), 400),
        (request("PUT", "/kv/k", "Content-Length: -5"), 400),
        (request("PUT", "/kv/k", "Content-Length: 0x5"), 400),
        (request("PUT", "/kv/k", "Content-Length:"), 400),
        (request("PUT", "/kv/k", "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (request("PUT", "/kv/k", "Transfer-Encoding: chunked", "Content-Length: 5"), 400),
        (request("PUT", "/kv/k", "Transfer-Encoding: chunked, chunked"), 400),
        (request("PUT", "/kv/k", "Transfer-Encoding: chunked, identity"), 400),
        (request("PUT", "/kv/k", "Transfer-Encoding: \x0bchunked"), 400),
        (request("PUT", "/kv/k", "Transfer-Encoding: chunked") + b"zz\r\n", 400),
        (request("PUT", "/kv/k", "Transfer-Encoding: chunked") + b"3\r\nabcde\r\n0\r\n\r\n", 400),
        (request("PUT", "/kv/k", "Transfer-Encoding: chunked") + b"-3\r\nabc\r\n0\r\n\r\n", 400),
        (request("GET", "/kv/k", "A: " + "b" * 9000), 431),
        (request("GET", "/kv/k", *["A: b"] * 200), 431),
        (request("GET", "/kv/k", *["A: " + "b" * 8000] * 20), 431),
        (request("GET", "/" + "k" * 100_000), 414),
        (request("TRACE", "/kv/k"), 405),
        (request("BREW", "/kv/k"), 405),
        (request("OPTIONS", "*"), 405),
        (request("CONNECT", "h:80"), 405),
        (request("POST", "/status"), 405),
        (request("GET", "/join"), 405),
        (request("GET", "/"), 404),
        (request("GET", "/kv"), 404),
        (request("GET", "/%6bv/k"), 404),
        (request("GET", "//kv/k"), 404),
        (request("PUT", "/kv/k", "Content-Length: 100000000000"), 413),
        (request("PUT", "/kv/k", "Content-Length: " + "9" * 40), 413),
    ],
)
def test_what_makes_no_sense_is_refused(server: Server, payload: bytes, status: int) -> None:
    """With the right status, as a problem, and without harm to the next client."""
    answer = server.ask(payload)
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.problem["status"] == status
    assert server.ask(get("nothing-was-smuggled")).status == 404


@pytest.mark.parametrize("form", [b"/kv/%s", b"http://h/kv/%s"])
@pytest.mark.parametrize("length", [4097, 20_000, 60_000, 300_000])
def test_a_key_over_the_limit_is_too_large_however_long(
    server: Server, length: int, form: bytes
) -> None:
    """Not only where the head still fits into what is read of one."""
    answer = server.ask(b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % (form % (b"k" * length)))
    assert (answer.status, answer.problem["code"]) == (400, "key_too_large")


def test_forwarding_headers_move_nothing(server: Server) -> None:
    """Gunicorn would believe a local proxy that moves the root of all paths."""
    for line in ("SCRIPT_NAME: /kv", "SCRIPT-NAME: /kv", "PATH_INFO: /x", "X-Forwarded-Proto: x"):
        assert server.ask(request("GET", "/status", line)).status == 200


@pytest.mark.parametrize("line", ["A: b", "TE: trailers"])
@pytest.mark.parametrize("size", [256, 4096, 4097, 8190, 10_000, 30_000])
def test_an_endless_idempotency_key_is_named_as_such(server: Server, line: str, size: int) -> None:
    """On either path, and beyond what Gunicorn takes for a field; of a read it is just too long."""
    key = f"Idempotency-Key: {'k' * size}"
    for method in ("PUT", "POST", "DELETE"):
        answer = server.ask(request(method, "/kv/never", line, key))
        assert (answer.status, answer.problem["code"]) == (400, "bad_idempotency_key")
    answer = server.ask(request("GET", "/kv/never", line, key))
    assert answer.status == (404 if size <= 8000 else 431)


# --------------------------------------------------------------------------- bodies


def test_a_declared_length_over_the_limit_is_refused_unread(client: Client) -> None:
    """413 comes before a byte of it was sent, and the connection closes."""
    answer = client.ask(request("PUT", "/kv/k", f"Content-Length: {MIB + 1}"))
    assert (answer.status, answer.problem["code"]) == (413, "value_too_large")
    assert answer.headers["connection"] == "close"
    assert client.at_end()


def test_an_endless_chunked_body_is_cut_off(client: Client) -> None:
    """As soon as the limit is passed; the client gets to read why, though it still sends."""
    client.send(request("PUT", "/kv/k", "Transfer-Encoding: chunked"))
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    for _ in range(MIB // 0x10000 + 1):
        client.send(chunk)
    assert client.read().status == 413


def test_the_answer_survives_what_is_still_being_sent(client: Client) -> None:
    """Closing on unread bytes would reset the connection and lose the answer."""
    client.send(request("PUT", "/kv/k", f"Content-Length: {8 * MIB}"))
    client.send(b"x" * (4 * MIB))
    assert client.read().status == 413


def test_continue_is_sent_when_the_body_is_wanted(client: Client) -> None:
    """And only then."""
    expecting = request("PUT", "/kv/k", "Content-Length: 5", "Expect: 100-continue")
    assert client.ask(expecting).status == 100
    assert client.ask(b"value").status == 200
    too_large = request("PUT", "/kv/k", f"Content-Length: {MIB + 1}", "Expect: 100-continue")
    assert client.ask(too_large).status == 413
    assert client.at_end()


def test_a_body_on_impossible_terms_is_not_wanted(client: Client) -> None:
    """What is refused for its head is refused before the body is sent."""
    terms = ("X-Session: x", "X-Sequence: 1", "Expect: 100-continue")
    answer = client.ask(request("PUT", "/kv/k", "Content-Length: 5", *terms))
    assert (answer.status, answer.problem["code"]) == (400, "bad_session")
    assert client.at_end()


def test_a_session_is_opened_used_and_closed(client: Client) -> None:
    """On one connection, with bodies in one piece and in chunks."""
    opening = request("POST", "/sessions", "Content-Length: 20") + b'{"ttl_seconds": 9.5}'
    answer = client.ask(opening)
    assert (answer.status, answer.problem["ttl_seconds"]) == (201, 9.5)
    session = answer.problem["session"]
    first = put("in-session", b"1", f"X-Session: {session}", "X-Sequence: 1")
    etag = client.ask(first).headers["etag"]
    assert client.ask(first).headers["x-replayed"] == "true"
    second = request(
        "PUT", "/kv/in-session", f"X-Session: {session}", "X-Sequence: 2", "X-Acked: 1",
        f"If-Match: {etag}", "Transfer-Encoding: chunked",
    )  # fmt: skip
    assert client.ask(second + b"1\r\n2\r\n0\r\n\r\n").status == 200
    assert client.ask(first).problem["code"] == "sequence_forgotten"
    assert client.ask(get("in-session")).body == b"2"
    keeping = request("POST", f"/sessions/{session}/keepalive")
    assert client.ask(keeping).problem == {"session": session, "ttl_seconds": 9.5}
    closing = request("DELETE", f"/sessions/{session}")
    assert [client.ask(closing).body for _ in range(2)] == [b"OK", b"OK"]
    assert client.ask(keeping).problem["code"] == "session_expired"
    assert client.ask(first).status == 410


def test_a_body_unasked_for_after_expect_is_not_the_next_request(client: Client) -> None:
    """The client might send it or not: the connection closes."""
    expecting = request("PUT", "/kv/%zz", "Content-Length: 20", "Expect: 100-continue")
    answer = client.ask(expecting)
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert client.at_end()


@pytest.mark.parametrize(
    "head",
    [
        request("PUT", "/kv/slow", "Content-Length: 900"),
        request("PUT", "/kv/slow", "Content-Length: 900", "Expect: 100-continue"),
        request("POST", "/join", "Content-Length: 900"),
    ],
)
def test_a_slow_body_runs_out_of_time(
    impatient_server: Server, hurried_client: Client, head: bytes
) -> None:
    """One byte now and then is not enough: 408, and nothing is stored."""
    hurried_client.send(head)
    answers: list[int] = []

    def read() -> None:
        while 408 not in answers:
            answers.append(hurried_client.read().status)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(60):
        if 408 in answers:
            break
        hurried_client.send(b"x")
        time.sleep(0.05)
    reader.join()
    assert answers[-1] == 408
    assert impatient_server.ask(get("slow")).status == 404


def test_a_slow_chunked_body_runs_out_of_time(hurried_client: Client) -> None:
    """The same for chunks."""
    hurried_client.send(request("PUT", "/kv/slow", "Transfer-Encoding: chunked") + b"5\r\nab")
    answer = hurried_client.read()
    assert (answer.status, answer.problem["code"]) == (408, "request_timeout")


@pytest.mark.parametrize(
    "payload", [b"G", b"GET /kv/k HTTP/1.1\r\nHost", b"GET /st HTTP/1.1\r\nA:"]
)
def test_a_slow_head_runs_out_of_time(hurried_client: Client, payload: bytes) -> None:
    """From its first byte on."""
    assert hurried_client.ask(payload).status == 408
    assert hurried_client.at_end()


def test_a_slow_request_behind_another_is_told_so(hurried_client: Client) -> None:
    """Its predecessor's answer was not the last word."""
    hurried_client.send(get("none") + b"GET /kv/")
    assert hurried_client.read().status == 404
    assert hurried_client.read().status == 408


def test_an_idle_connection_is_closed_without_a_word(hurried_client: Client) -> None:
    """Whoever sees it close may send the request again: there was none."""
    hurried_client.ask(get())
    assert hurried_client.at_end()


@pytest.mark.parametrize("line", ["A: b", "TE: trailers"])
def test_a_slow_store_is_not_the_clients_fault(hurried_client: Client, line: str) -> None:
    """The deadline for the body ends with the body, on either path."""
    assert hurried_client.ask(put("sleep-1.5", b"value", line)).status == 200
    assert hurried_client.ask(get("none")).status == 404


def test_a_truncated_body_is_not_stored(server: Server) -> None:
    """A client that dies in the middle has written nothing."""
    for head in ("Content-Length: 20", "Transfer-Encoding: chunked"):
        with server.client() as client:
            client.send(request("PUT", "/kv/torn", head) + b"a\r\n0123")
            client.sock.shutdown(socket.SHUT_WR)
            client.sock.recv(1 << 16)
    assert server.ask(get("torn")).status == 404


def test_others_are_served_meanwhile(server: Server) -> None:
    """Slow, endless and idle clients cost nobody else anything."""
    crowd = [server.client() for _ in range(50)]
    for number, client in enumerate(crowd):
        client.send([b"", b"GET /k", request("PUT", "/kv/k", "Content-Length: 9")][number % 3])
    began = time.monotonic()
    for _ in range(20):
        assert server.ask(put("busy", b"v")).status == 200
    assert time.monotonic() - began < 2
    for client in crowd:
        client.sock.close()


def test_a_client_that_does_not_read_is_let_go() -> None:
    """Its answers are not kept for ever."""
    with (
        serving(send_timeout=0.3, min_bytes_per_second=100 * MIB) as server,
        server.client() as client,
    ):
        client.ask(put("big", b"x" * MIB))
        client.send(get("big") * 50)
        time.sleep(1)
        received = 0
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                received += len(client.read().body)
        assert received < 50 * MIB


def test_too_many_connections_are_turned_away() -> None:
    """Those that are there already go on."""
    with serving(max_connections=3) as server:
        crowd = [server.client() for _ in range(3)]
        assert all(client.ask(get("none")).status == 404 for client in crowd)
        with server.client() as one_more:
            answer = one_more.read()
            assert (answer.status, answer.problem["code"]) == (503, "overloaded")
            assert one_more.at_end()
        assert crowd[0].ask(get("none")).status == 404
        crowd[1].sock.close()
        assert eventually(lambda: server.ask(get("none")).status == 404)
        for client in crowd:
            client.sock.close()


@pytest.mark.parametrize("head", ["Content-Length: 600000", "Transfer-Encoding: chunked"])
def test_bodies_together_have_a_limit(head: str) -> None:
    """What many clients send at once must fit into memory; those that are let in are served."""
    with serving(max_arriving_bytes=MIB) as server, server.client() as first:
        first.send(request("PUT", "/kv/a", "Content-Length: 900000") + b"x" * 500_000)
        time.sleep(0.2)
        with server.client() as second:
            chunk = b"927c0\r\n" if "chunked" in head else b""
            answer = second.ask(request("PUT", "/kv/b", head) + chunk + b"x" * 500_000)
            assert (answer.status, answer.problem["code"]) == (503, "overloaded")
            assert answer.headers["connection"] == "close"
        assert server.ask(put("c", b"small")).status == 200
        assert first.ask(b"x" * 400_000).status == 200
        assert server.ask(put("b", b"x" * 900_000)).status == 200


def test_a_failing_request_gives_nothing_away(server: Server) -> None:
    """A bug here is 500 and a line in the log, on either path."""
    for extra in ((), ("Expect: 100-continue",)):
        answer = server.ask(get("bug", *extra))
        assert (answer.status, answer.problem["code"]) == (500, "internal")
        assert b"secret" not in answer.body
        assert b"ZeroDivision" not in answer.body
