"""``GET /snapshot``: a long answer, in pieces, each with a deadline."""

from __future__ import annotations

import json
import time
from contextlib import suppress

from tests.api.fakes import PIECE_BYTES
from tests.api.serving import Client, Server, eventually, serving

HEAD = b"%s /snapshot%s HTTP/1.1\r\nHost: h\r\n%s\r\n"


def asked(method: bytes = b"GET", query: bytes = b"", fields: bytes = b"") -> bytes:
    """Make a request."""
    return HEAD % (method, query, fields)


def read_chunks(client: Client) -> tuple[str, list[bytes]]:
    """Read an answer in chunks: its head, and the chunks."""
    reader = client.sock.makefile("rb")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = reader.readline()
        assert line
        head += line
    chunks = []
    while size := int(reader.readline(), 16):
        chunks.append(reader.read(size))
        assert reader.readline() == b"\r\n"
    assert reader.readline() == b"\r\n"
    return head.decode(), chunks


def test_it_comes_in_chunks_and_says_what_it_is(client: Client) -> None:
    """With its entry and consistency; the connection serves what follows."""
    client.send(asked())
    head, chunks = read_chunks(client)
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    for line in (
        "Content-Type: application/octet-stream",
        "Transfer-Encoding: chunked",
        "X-Applied-Index: 7",
        "X-Consistency: linearizable",
        "X-Raft-Leader: node1",
        'Content-Disposition: attachment; filename="anchor-c1u57e4-7.backup"',
    ):
        assert line in head.splitlines()
    assert "Content-Length" not in head
    assert chunks == [b"1" * PIECE_BYTES, b"2" * PIECE_BYTES, b"3" * PIECE_BYTES]
    assert client.ask(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").status == 200


def test_head_begins_no_transfer(client: Client) -> None:
    """It says what would come, and no length, as nobody knows one."""
    answer = client.ask(asked(b"HEAD"), head=True)
    assert answer.status == 200
    assert answer.headers["x-applied-index"] == "7"
    assert "content-length" not in answer.headers
    assert client.ask(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").status == 200


def test_it_can_be_content_with_less(client: Client) -> None:
    """As a read can; nonsense is refused, and so is any other method."""
    client.send(asked(fields=b"X-Consistency: stale\r\n"))
    assert "X-Consistency: stale" in read_chunks(client)[0]
    refused = client.ask(asked(fields=b"X-Consistency: fresh\r\n"))
    assert (refused.status, refused.problem["code"]) == (400, "bad_request")
    refused = client.ask(asked(b"POST", fields=b"Content-Length: 0\r\n"))
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


def test_a_backup_that_cannot_begin_is_a_problem(client: Client) -> None:
    """No leader, too many at once: whatever the node says, in the usual form."""
    client.ask(b"PUT /kv/refuse-backups HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    refused = client.ask(asked())
    assert (refused.status, refused.problem["code"]) == (503, "overloaded")
    client.ask(b"DELETE /kv/refuse-backups HTTP/1.1\r\nHost: h\r\n\r\n")


def test_what_goes_wrong_on_the_way_breaks_the_answer_off(server: Server) -> None:
    """Without its last chunk, so that nobody takes it for whole; the log has one line."""
    with server.client() as client:
        client.ask(b"PUT /kv/break-backups HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        client.send(asked())
        received = b""
        with suppress(ConnectionResetError):  # as good as an end
            while piece := client.sock.recv(1 << 16):
                received += piece
        assert received.count(b"1") >= PIECE_BYTES
        assert not received.endswith(b"0\r\n\r\n")
    with server.client() as client:
        client.ask(b"DELETE /kv/break-backups HTTP/1.1\r\nHost: h\r\n\r\n")
    assert eventually(lambda: "ERROR an answer broke off: the disk failed" in server.log)
    assert not any("Traceback" in line for line in server.log)


def test_a_client_that_takes_nothing_is_cut_off() -> None:
    """It holds what the backup sees; others are served meanwhile."""
    with (
        serving(send_timeout=1.0, min_bytes_per_second=10_000_000) as server,
        server.client() as slow,
        server.client() as other,
    ):
        other.ask(b"PUT /kv/endless-backups HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        slow.send(asked())
        slow.sock.recv(1000)
        began = time.monotonic()
        while open_backups(other):
            assert time.monotonic() - began < 8.0
            time.sleep(0.02)
        assert time.monotonic() - began > 0.5


def test_a_client_that_goes_away_is_not_waited_for(server: Server) -> None:
    """What its backup held is let go of."""
    with server.client() as other:
        other.ask(b"PUT /kv/endless-backups HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        with server.client() as client:
            client.send(asked())
            client.sock.recv(1000)
            assert open_backups(other) == 1
        assert eventually(lambda: open_backups(other) == 0)
        other.ask(b"DELETE /kv/endless-backups HTTP/1.1\r\nHost: h\r\n\r\n")


def open_backups(client: Client) -> int:
    """Ask how many backups are open."""
    body = client.ask(b"GET /status HTTP/1.1\r\nHost: h\r\n\r\n").body
    found: int = json.loads(body)["open_backups"]
    return found
