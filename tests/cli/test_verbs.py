"""The verbs as processes: output, exit codes, one line on standard error."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess

import pytest

from anchor.verbs import table
from tests.cli.processes import COMMAND, environment, run
from tests.client.fakes import Act, FakeNode, Reply, Seen, json_reply, problem

STATUS = {
    "node_id": "n1", "role": "leader", "leader_id": "n1", "term": 3, "commit_index": 9,
    "applied_index": 9, "last_log_index": 9,
    "peers": [{"id": "n2", "role": "follower", "connected": True, "match_index": 7}],
    "replication_lag": {"n2": 2},
}  # fmt: skip
LEADERLESS = json_reply({**STATUS, "leader_id": None, "role": "follower", "replication_lag": {}})


def test_put_get_and_del_work_on_bytes() -> None:
    """What goes in by argument or standard input comes out byte for byte."""
    with FakeNode() as node:
        at = ("--endpoints", node.endpoint)
        assert run("put", "k", "värld", *at).stdout == b"OK\n"
        assert run("get", "k", *at).stdout == "värld".encode()
        for arguments in (("put", "k"), ("put", "k", "-")):
            assert run(*arguments, *at, stdin=b"\x00\r\n\xff").returncode == 0
            assert run("get", "k", *at).stdout == b"\x00\r\n\xff"
        assert run("put", "k", "", *at).returncode == 0
        assert run("get", "k", *at).stdout == b""
        assert run("del", "k", *at).stdout == b"OK\n"
        missing = run("get", "k", *at)
        assert (missing.returncode, missing.stdout) == (3, b"")
        assert missing.stderr == b"anchor: get k: not found\n"


def test_keys_and_values_may_be_any_bytes_an_argument_can_hold() -> None:
    """Also what is not UTF-8."""
    with FakeNode() as node:
        at = ("--endpoints", node.endpoint)
        assert run("put", b"\xff/k", b"\xfe", *at).returncode == 0
        assert node.store == {"/kv/%FF/k": b"\xfe"}
        assert run("get", b"\xff/k", *at).stdout == b"\xfe"
        gone = run("get", b"\xff\r\nforged", *at)
        assert gone.stderr == b"anchor: get \\xff\\r\\nforged: not found\n"


def test_get_ends_with_a_newline_on_a_terminal_only() -> None:
    """The prompt starts on a line of its own; a pipe gets the value and nothing else."""
    with FakeNode(Reply(200, b"value")) as node:
        terminal, end = pty.openpty()
        try:
            subprocess.run(
                [*COMMAND, "get", "k", "--endpoints", node.endpoint],
                stdout=end,
                env=environment(),
                check=True,
                timeout=60,
            )
            assert os.read(terminal, 100) == b"value\r\n"
        finally:
            os.close(terminal)
            os.close(end)


def test_endpoints_come_from_the_environment_too() -> None:
    """And a misspelt variable is warned of."""
    with FakeNode() as node:
        done = run("put", "k", "v", ANCHOR_ENDPOINTS=node.endpoint, ANCHOR_ENPOINTS="x")
        assert done.returncode == 0
        assert done.stderr == (
            b"anchor: warning: ANCHOR_ENPOINTS: no such variable, ignored; "
            b"did you mean ANCHOR_ENDPOINTS?\n"
        )


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        (problem(503, "no_leader", retryable=True), 5, b"no leader: why"),
        (problem(504, "commit_unknown"), 1, b"outcome unknown: why; read the key to see"),
        (problem(413, "value_too_large"), 1, b"refused: value_too_large: why"),
        (Act.CLOSE, 1, b"outcome unknown: "),
    ],
)
def test_what_went_wrong_is_one_line_and_an_exit_code(
    reply: Reply | Act, code: int, said: bytes
) -> None:
    """Scripts look at the code, people at the line."""
    with FakeNode(reply) as node:
        done = run("put", "k", "v", "--endpoints", node.endpoint, "--timeout", "1s")
    assert done.returncode == code
    assert done.stdout == b""
    assert done.stderr.startswith(b"anchor: put k: " + said)
    assert done.stderr.count(b"\n") == 1


def test_nobody_there_is_exit_code_7() -> None:
    """Soon, without waiting for the whole default timeout."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{bound.getsockname()[1]}"
        done = run("get", "k", "--endpoints", endpoint, "--timeout", "100ms")
        assert done.returncode == 7
        said = f"anchor: get k: unreachable: {endpoint}: connection refused\n"
        assert done.stderr.decode() == said
        done = run("status", "--endpoints", endpoint)
        assert done.returncode == 7
        assert b"connection refused" in done.stdout


def test_a_read_that_ran_out_of_time_for_want_of_a_leader_is_exit_code_5() -> None:
    """A node waits for a leader longer than some callers do: it is not unreachable for that."""

    def script(seen: Seen) -> Reply | Act:
        return LEADERLESS if seen.target == "/status" else Act.HANG

    with FakeNode(script) as node:
        done = run("get", "k", "--endpoints", node.endpoint, "--timeout", "300ms")
    assert done.returncode == 5
    said = f"anchor: get k: no leader: {node.endpoint} did not answer in time\n"
    assert done.stderr.decode() == said


def test_the_port_for_nodes_is_told_from_the_one_for_clients() -> None:
    """Who asks where no HTTP is spoken learns so, and sees none of the bytes that came back."""
    with FakeNode(Act.GARBAGE) as node:
        done = run("get", "k", "--endpoints", node.endpoint, "--timeout", "300ms")
    assert done.returncode == 7
    assert done.stderr.decode() == (
        f"anchor: get k: unreachable: {node.endpoint} does not speak HTTP; "
        "is that its --port? HTTP is usually 1000 higher\n"
    )


def test_usage_mistakes_are_exit_code_2() -> None:
    """All of them at once, before anything is sent."""
    done = run("get", "--endpoints", "x", "--timeout", "y")
    assert done.returncode == 2
    assert done.stderr.count(b"anchor: ") == 3


def test_put_from_a_terminal_wants_a_value() -> None:
    """Waiting for typing that nobody expects would look like hanging."""
    terminal, end = pty.openpty()
    try:
        done = subprocess.run(
            [*COMMAND, "put", "k"],
            stdin=end,
            capture_output=True,
            env=environment(),
            check=False,
            timeout=60,
        )
    finally:
        os.close(terminal)
        os.close(end)
    assert done.returncode == 2
    assert b"give a VALUE" in done.stderr


def test_a_value_too_large_for_any_node_is_not_sent() -> None:
    """Standard input may be endless."""
    with FakeNode() as node:
        done = run("put", "k", "--endpoints", node.endpoint, stdin=b"x" * ((3 << 20) + 1))
        assert (done.returncode, node.seen) == (1, [])


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """As in ``get k | head -c 1``."""
    with FakeNode(Reply(200, b"x" * (1 << 20))) as node:
        process = subprocess.Popen(
            [*COMMAND, "get", "k", "--endpoints", node.endpoint],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, b"")


# --------------------------------------------------------------------- status and members


def test_status_is_a_row_for_each_endpoint() -> None:
    """Those that do not answer say why, and decide the exit code."""
    with FakeNode(lambda _: json_reply(STATUS)) as node, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{bound.getsockname()[1]}"
        done = run("status", "--endpoints", f"{node.endpoint},{dead}")
        heading, alive, missing = done.stdout.decode().splitlines()
    assert heading.split()[:3] == ["ENDPOINT", "NODE", "ROLE"]
    assert alive.split() == [node.endpoint, "n1", "leader", "n1", "3", "9", "9", "2"]
    assert missing.split(maxsplit=1) == [dead, "connection refused"]
    assert done.returncode == 7


def test_status_without_a_leader_is_exit_code_5() -> None:
    """Somebody answers, but nothing can be written."""
    with FakeNode(lambda _: LEADERLESS) as node:
        done = run("status", "--endpoints", node.endpoint)
    assert done.returncode == 5
    assert done.stdout.decode().splitlines()[1].split()[2:4] == ["follower", "-"]


def test_status_as_json_is_what_the_nodes_said() -> None:
    """By endpoint, for programs."""
    with (
        FakeNode(lambda _: json_reply(STATUS)) as node,
        FakeNode(lambda _: Reply(200, b"?")) as other,
    ):
        done = run("status", "--json", "--endpoints", f"{node.endpoint},{other.endpoint}")
        told = json.loads(done.stdout)
    assert told[node.endpoint] == STATUS
    assert "not_anchor" in told[other.endpoint]["error"]
    assert done.returncode == 1


def test_members_are_listed_with_how_far_they_are() -> None:
    """Columns that nobody knows anything for are left out."""
    with FakeNode(lambda _: json_reply(STATUS)) as node:
        at = ("--endpoints", node.endpoint)
        lines = run("members", *at).stdout.decode().splitlines()
        told = json.loads(run("members", "--json", *at).stdout)
    assert [line.split() for line in lines] == [
        ["ID", "ROLE", "CONNECTED", "MATCH", "LAG"],
        ["n1", "leader", "yes", "9", "-"],
        ["n2", "follower", "yes", "7", "2"],
    ]
    assert [member["id"] for member in told] == ["n1", "n2"]


def test_members_without_a_leader_are_listed_with_exit_code_5() -> None:
    """What a node last knew is shown, and said to be no more than that."""
    with FakeNode(lambda _: LEADERLESS) as node:
        for more in ((), ("--json",)):
            done = run("members", *more, "--endpoints", node.endpoint)
            assert done.returncode == 5
            assert b"n2" in done.stdout
            assert done.stderr == (b"anchor: members: no leader: this is what one node last knew\n")


# --------------------------------------------------------------------- changing the members

LEADER = {"leader_id": "n2", "http_address": "h:8002", "term": 4}


@pytest.mark.parametrize(
    ("words", "target", "body"),
    [
        (("member", "add", "n4", "h:7004"), "/join", {"id": "n4", "addr": "h:7004", "voter": True}),
        (
            ("member", "add", "n4", "h:7004", "--learner"),
            "/join",
            {"id": "n4", "addr": "h:7004", "voter": False},
        ),
        (("member", "remove", "n4"), "/remove", {"id": "n4"}),
        (("member", "promote", "n4"), "/members/n4/promote", {}),
    ],
)
def test_a_change_of_the_members_is_asked_for_and_said_to_be_done(
    words: tuple[str, ...], target: str, body: dict[str, object]
) -> None:
    """OK on standard output, nothing else."""
    with FakeNode(Reply()) as node:
        done = run(*words, "--endpoints", node.endpoint)
        (seen,) = node.seen
    assert (done.returncode, done.stdout, done.stderr) == (0, b"OK\n", b"")
    assert (seen.method, seen.target, json.loads(seen.body)) == ("POST", target, body)


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        (problem(404, "not_a_member"), 3, b"refused: not_a_member: why"),
        (problem(409, "quorum_would_be_lost"), 1, b"refused: quorum_would_be_lost: why"),
        (problem(503, "no_leader", retryable=True), 5, b"no leader: why"),
        (Act.CLOSE, 1, b"read the members to see"),
    ],
)
def test_a_change_that_is_refused_is_an_exit_code(reply: Reply, code: int, said: bytes) -> None:
    """As with all verbs."""
    with FakeNode(reply) as node:
        done = run("member", "promote", "n4", "--endpoints", node.endpoint, "--timeout", "500ms")
    assert (done.returncode, done.stdout) == (code, b"")
    assert said in done.stderr


def test_the_leader_is_shown_and_changed() -> None:
    """As a row, or as JSON."""
    with FakeNode(json_reply(LEADER)) as node:
        at = ("--endpoints", node.endpoint)
        lines = run("leader", *at).stdout.decode().splitlines()
        assert [line.split() for line in lines] == [
            ["LEADER", "HTTP", "TERM"],
            ["n2", "h:8002", "4"],
        ]
        assert json.loads(run("leader", "--json", *at).stdout) == LEADER
        assert run("leader", "transfer", "n2", *at).returncode == 0
        assert run("leader", "transfer", *at).stdout.decode().splitlines() == lines
        asked = [(seen.method, seen.target, seen.body) for seen in node.seen]
    assert asked[2:] == [("POST", "/leader", b'{"id": "n2"}'), ("POST", "/leader", b"{}")]
    with FakeNode(problem(503, "no_leader", retryable=True)) as node:
        done = run("leader", "--endpoints", node.endpoint, "--timeout", "300ms")
    assert done.returncode == 5


def test_a_table_cannot_be_forged_by_what_a_server_says() -> None:
    """Control characters are escaped."""
    text = table(("A", "B"), [("x\ny", "\x1b[2J"), ("z", None)])
    assert text == "A     B\nx\\ny  \\x1b[2J\nz     -\n"
    assert table(("A", "B"), []) == "A  B\n"
