"""What is answered, whoever carries it: the Falcon application and the code behind it."""

from __future__ import annotations

import json
import logging

import pytest
from falcon.testing import TestClient

from anchor.api.app import create_app
from anchor.api.limits import Limits
from anchor.node import errors
from anchor.node.consistency import Consistency
from anchor.node.replacing import TargetMember
from tests.api.asking import problem
from tests.api.fakes import FakeStore


@pytest.fixture
def store() -> FakeStore:
    """Return a store that can be told to fail."""
    return FakeStore()


@pytest.fixture
def client(store: FakeStore) -> TestClient:
    """Return a client of an application around it."""
    return TestClient(create_app(store, Limits(request_timeout=1.5, membership_timeout=2.5)))


# --------------------------------------------------------------------------- keys


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_write_is_answered_ok(client: TestClient, store: FakeStore, method: str) -> None:
    """PUT and POST alike, with the new ETag, and the time that the request may take."""
    answer = client.simulate_request(method, "/kv/k", body=b"\0value")
    assert (answer.status_code, answer.content) == (200, b"OK")
    assert answer.headers["etag"] == '"2"'
    assert store.values[b"k"].value == b"\0value"
    assert store.asked == [("write", b"k", 1.5)]


def test_a_read_gives_the_value_and_where_it_stands(client: TestClient, store: FakeStore) -> None:
    """Raw, with its ETag, and not to be cached: a cache would serve stale reads."""
    client.simulate_put("/kv/k", body=b"value")
    store.advance_to(9)
    answer = client.simulate_get("/kv/k")
    assert (answer.status_code, answer.content) == (200, b"value")
    assert answer.headers == {
        "content-type": "application/octet-stream",
        "cache-control": "no-store",
        "content-length": "5",
        "etag": '"2"',
        "x-applied-index": "9",
        "x-consistency": "linearizable",
        "x-raft-leader": "node1",
        "x-raft-term": "3",
    }


def test_an_empty_value_is_a_value(client: TestClient) -> None:
    """It is not the same as no value."""
    client.simulate_put("/kv/k", body=b"")
    assert client.simulate_get("/kv/k").status_code == 200
    assert client.simulate_get("/kv/other").status_code == 404


def test_a_delete_is_ok_also_when_there_is_nothing(client: TestClient) -> None:
    """So that it is safe to retry."""
    client.simulate_put("/kv/k", body=b"value")
    for _ in range(2):
        answer = client.simulate_delete("/kv/k")
        assert (answer.status_code, answer.content) == (200, b"OK")
        assert "etag" not in answer.headers
    assert problem(client.simulate_get("/kv/k")) == (404, "not_found")


@pytest.mark.parametrize("consistency", list(Consistency))
def test_a_read_is_as_fresh_as_asked(
    client: TestClient, store: FakeStore, consistency: Consistency
) -> None:
    """The header decides, and the answer repeats it, also where there is no value."""
    answer = client.simulate_get("/kv/k", headers={"X-Consistency": consistency.value})
    assert answer.headers["x-consistency"] == consistency.value
    assert store.asked == [("read", b"k", consistency, 1.5)]


def test_an_unknown_consistency_is_refused(client: TestClient, store: FakeStore) -> None:
    """Rather than taken for another."""
    answer = client.simulate_get("/kv/k", headers={"X-Consistency": "eventual"})
    assert problem(answer) == (400, "bad_request")
    assert "linearizable, lease, stale" in answer.json["detail"]
    assert not store.asked


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("leader", ["node1", None])
def test_every_answer_says_where_this_node_stands(
    client: TestClient, store: FakeStore, method: str, leader: str | None
) -> None:
    """Errors too, and also when no leader is known."""
    store.leader_id = leader
    store.error = errors.NoLeader("no leader was found in time")
    answer = client.simulate_request(method, "/kv/k")
    assert answer.headers["x-applied-index"] == "1"
    assert answer.headers["x-raft-leader"] == (leader or "")
    assert answer.headers["x-raft-term"] == "3"
    assert answer.json["leader"] == leader
    assert ("x-consistency" in answer.headers) == (method == "GET")


def test_a_new_leader_is_named_at_once(client: TestClient, store: FakeStore) -> None:
    """What is remembered of the last one is forgotten."""
    client.simulate_get("/kv/k")
    store.leader_id, store.term = "node2", 4
    answer = client.simulate_get("/kv/k")
    assert (answer.headers["x-raft-leader"], answer.headers["x-raft-term"]) == ("node2", "4")


def test_a_leader_cannot_forge_headers(client: TestClient, store: FakeStore) -> None:
    """Whatever its id is made of."""
    store.leader_id = "a\r\nX-Evil: 1 é"
    answer = client.simulate_get("/kv/k")
    assert answer.headers["x-raft-leader"] == "a??X-Evil:?1??"
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize(
    ("error", "status", "code", "retryable"),
    [
        (errors.NoLeader("x"), 503, "no_leader", True),
        (errors.RequestTimeout("x"), 504, "timeout", True),
        (errors.CommitUnknown("x"), 504, "commit_unknown", False),
        (errors.Overloaded("x"), 503, "overloaded", True),
        (errors.DiskFull("x"), 507, "disk_full", True),
        (errors.Stopping("x"), 503, "stopping", True),
        (errors.Removed("x"), 410, "removed", False),
        (errors.MembershipError("x", "unreachable"), 422, "unreachable", False),
        (errors.NodeError("x"), 500, "internal", False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_the_node_says_is_passed_on(
    client: TestClient,
    store: FakeStore,
    error: errors.NodeError,
    status: int,
    code: str,
    retryable: bool,  # noqa: FBT001
    method: str,
) -> None:
    """With its status, its code, and whether to try again."""
    store.error = error
    answer = client.simulate_request(method, "/kv/k")
    assert problem(answer) == (status, code)
    assert answer.json["retryable"] is retryable
    assert answer.json["detail"] == "x"
    assert ("retry-after" in answer.headers) == (status == 503)


def test_a_bug_is_logged_and_not_told(
    client: TestClient, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    """No traceback leaves this node."""
    store.error = ZeroDivisionError("a secret")
    with caplog.at_level(logging.ERROR):
        assert problem(client.simulate_get("/kv/k")) == (500, "internal")
        assert problem(client.simulate_post("/remove", body='{"id": "n"}')) == (500, "internal")
    assert "secret" not in client.simulate_get("/kv/k").text
    assert caplog.text.count("ZeroDivisionError('a secret')") >= 2


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since"])
def test_a_conditional_write_is_not_done_unconditionally(
    client: TestClient, store: FakeStore, method: str, name: str
) -> None:
    """RFC 9110 §13.2.1: a condition must be evaluated, not ignored."""
    answer = client.simulate_request(method, "/kv/k", headers={name: '"1"'}, body=b"v")
    assert problem(answer) == (501, "not_implemented")
    assert not store.asked


def test_a_part_of_a_value_cannot_be_put(client: TestClient, store: FakeStore) -> None:
    """RFC 9110 §14.5: Content-Range on a PUT is answered 400, or a part replaces the whole."""
    answer = client.simulate_put("/kv/k", headers={"Content-Range": "bytes 0-1/9"}, body=b"v")
    assert problem(answer) == (400, "bad_request")
    assert not store.asked


# --------------------------------------------------------------------------- routes


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", "/kv/k", "GET, HEAD, PUT, POST, DELETE"),
        ("TRACE", "/kv/k", "GET, HEAD, PUT, POST, DELETE"),
        ("OPTIONS", "/kv/k", "GET, HEAD, PUT, POST, DELETE"),
        ("POST", "/status", "GET, HEAD"),
        ("DELETE", "/status", "GET, HEAD"),
        ("GET", "/join", "POST"),
        ("PUT", "/remove", "POST"),
        ("DELETE", "/members", "GET, POST, HEAD"),
        ("GET", "/members/n1/promote", "POST"),
        ("PUT", "/leader", "GET, POST, HEAD"),
        ("POST", "/livez", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    client: TestClient, method: str, path: str, allow: str
) -> None:
    """405 with Allow, for unknown methods too."""
    answer = client.simulate_request(method, path)
    assert problem(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize(
    "path",
    [
        "/", "/kv", "/kvx/k", "/status/", "/favicon.ico", "/../kv/k", "/members/", "/members/n1",
        "/members//promote", "/members/n1/promote/", "/members/a/b/promote", "/xmembers/n1/promote",
    ],
)  # fmt: skip
def test_an_unknown_route_is_not_found(client: TestClient, path: str) -> None:
    """404, and nothing is guessed."""
    assert problem(client.simulate_get(path)) == (404, "not_found")


def test_status_is_what_the_node_says(client: TestClient) -> None:
    """As JSON, whatever the query."""
    for query in ("", "pretty=1"):
        answer = client.simulate_get("/status", query_string=query)
        said = {"node_id": "node1", "role": "leader", "term": 3, "open_backups": 0}
        assert answer.json == said
        assert answer.headers["content-type"] == "application/json"


def test_readiness_means_that_a_leader_is_known(client: TestClient, store: FakeStore) -> None:
    """While liveness means nothing but that this process answers."""
    assert client.simulate_get("/readyz").status_code == 200
    store.leader_id = None
    assert problem(client.simulate_get("/readyz")) == (503, "no_leader")
    assert client.simulate_get("/livez").status_code == 200


# --------------------------------------------------------------------------- membership


def test_join_asks_the_store(client: TestClient, store: FakeStore) -> None:
    """With what was said, and what was not."""
    answer = client.simulate_post("/join", body='{"id": "n2", "addr": "h:9002"}')
    assert (answer.status_code, answer.text) == (200, "OK")
    body = {"id": "n3", "addr": "[::1]:9003", "http_addr": "h.example:8003", "voter": False}
    assert client.simulate_post("/join", body=json.dumps(body)).status_code == 200
    assert store.asked == [
        ("join", "n2", "h:9002", "", True, 2.5),
        ("join", "n3", "[::1]:9003", "h.example:8003", False, 2.5),
    ]


def test_remove_asks_the_store(client: TestClient, store: FakeStore) -> None:
    """With what was said."""
    assert client.simulate_post("/remove", body='{"id": "n2"}').status_code == 200
    assert store.asked == [("remove", "n2", 2.5)]


def test_members_and_leader_are_what_the_node_says(client: TestClient, store: FakeStore) -> None:
    """As JSON, from any node; without a leader there is none to name."""
    assert client.simulate_get("/members").json == {"node_id": "node1", "members": []}
    told = client.simulate_get("/leader")
    assert told.json == {"leader_id": "node1", "http_address": "h:1", "term": 3}
    store.error = errors.NoLeader("no leader is known here")
    assert problem(client.simulate_get("/leader")) == (503, "no_leader")


def test_a_whole_configuration_is_a_list_or_an_object_with_one(
    client: TestClient, store: FakeStore
) -> None:
    """Voters unless said otherwise, and forced only where it says so."""
    listed = [{"id": "n1", "addr": "h:1"}, {"id": "n2", "addr": "h:2", "voter": False}]
    targets = (TargetMember("n1", "h:1"), TargetMember("n2", "h:2", voter=False))
    for body in (listed, {"members": listed}, {"members": listed, "force": True}):
        answer = client.simulate_post("/members", body=json.dumps(body))
        assert (answer.status_code, answer.text) == (200, "OK")
    assert store.asked == [
        ("replace", targets, False, 2.5),
        ("replace", targets, False, 2.5),
        ("replace", targets, True, 2.5),
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("3", "not a JSON object"),
        ("[3]", "a member is not a JSON object"),
        ("[]", "names no voter"),
        ("{}", "names no voter"),
        ('{"members": 3}', '"members" is not a list'),
        ('{"members": [], "forced": true}', 'no field "forced"'),
        ('[{"id": "n1", "addr": "h:1", "voter": false}]', "names no voter"),
        ('[{"id": "n1"}]', '"addr" is missing'),
        ('[{"id": "n1", "addr": "h:1"}, {"id": "n1", "addr": "h:2"}]', 'the same "id"'),
        ('[{"id": "n1", "addr": "h:1"}, {"id": "n2", "addr": "h:1"}]', 'the same "addr"'),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    client: TestClient, store: FakeStore, body: str, said: str
) -> None:
    """400 that says why, and the store never hears of it."""
    answer = client.simulate_post("/members", body=body)
    assert problem(answer) == (400, "bad_request")
    assert said in answer.json["detail"]
    assert not store.asked


def test_a_member_is_promoted_by_its_name_in_the_path(client: TestClient, store: FakeStore) -> None:
    """With no body, or an empty object."""
    for body in ("", "{}"):
        assert client.simulate_post("/members/n-1.x/promote", body=body).status_code == 200
    assert store.asked == [("promote", "n-1.x", 2.5)] * 2
    assert problem(client.simulate_post("/members/a%20b/promote")) == (400, "bad_request")
    assert problem(client.simulate_post("/members/n1/promote", body="[]")) == (400, "bad_request")


def test_a_transfer_may_name_who_shall_lead(client: TestClient, store: FakeStore) -> None:
    """And is answered with who leads then."""
    for body in ('{"id": "n2"}', "{}", ""):
        answer = client.simulate_post("/leader", body=body)
        assert (answer.status_code, answer.json["leader_id"]) == (200, "node1")
    assert [asked for asked in store.asked if asked[0] == "transfer"] == [
        ("transfer", "n2", 2.5),
        ("transfer", "", 2.5),
        ("transfer", "", 2.5),
    ]
    assert problem(client.simulate_post("/leader", body='{"to": "n2"}')) == (400, "bad_request")


def test_a_refused_change_says_why(client: TestClient, store: FakeStore) -> None:
    """409 and 422 are the store's to decide."""
    store.error = errors.MembershipError("n2 has another address", "id_in_use")
    answer = client.simulate_post("/join", body='{"id": "n2", "addr": "h:1"}')
    assert problem(answer) == (409, "id_in_use")
    assert answer.json["detail"] == "n2 has another address"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"id=n2", "not JSON"),
        (b'{"id": "n2"', "not JSON"),
        (b'{"id": "n2"} x', "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        ('{"id": "n2"}'.encode("utf-16"), "not JSON"),
        (b'{"id": NaN}', "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"id"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"id":' * 100_000, "nested too deep"),
        (b"[" * 60, "not JSON"),
        (b"{}", '"id" is missing'),
        (b'{"addr": "h:1"}', '"id" is missing'),
        (b'{"id": "n2"}', '"addr" is missing'),
        (b'{"id": 2, "addr": "h:1"}', '"id" is not a string'),
        (b'{"id": null, "addr": "h:1"}', '"id" is not a string'),
        (b'{"id": {"a": 1}, "addr": "h:1"}', '"id" is not a string'),
        (b'{"id": "n2", "addr": ["h:1"]}', '"addr" is not a string'),
        (b'{"id": "n2", "addr": "h:1", "voter": 1}', '"voter" is not a boolean'),
        (b'{"id": "n2", "addr": "h:1", "voter": "true"}', '"voter" is not a boolean'),
        (b'{"id": "n2", "addr": "h:1", "address": "x"}', 'no field "address"'),
        (b'{"id": "n2", "id": "n3", "addr": "h:1"}', 'field "id" is there twice'),
        (b'{"id": "", "addr": "h:1"}', '"id" is not'),
        (b'{"id": "a b", "addr": "h:1"}', '"id" is not'),
        (b'{"id": "a\\nb", "addr": "h:1"}', '"id" is not'),
        (b'{"id": "n\\ud800", "addr": "h:1"}', '"id" is not'),
        (b'{"id": "%s", "addr": "h:1"}' % (b"n" * 65), '"id" is not'),
        (b'{"id": "n2", "addr": "h"}', '"addr" is not host:port'),
        (b'{"id": "n2", "addr": "h:0"}', '"addr" is not host:port'),
        (b'{"id": "n2", "addr": "h:65536"}', '"addr" is not host:port'),
        (b'{"id": "n2", "addr": "h:\xd9\xa1"}', '"addr" is not host:port'),
        (b'{"id": "n2", "addr": "http://h:1"}', '"addr" is not host:port'),
        (b'{"id": "n2", "addr": ":1"}', '"addr" is not host:port'),
        (b'{"id": "n2", "addr": "h:1", "http_addr": ""}', '"http_addr" is not host:port'),
    ],
)
def test_a_join_that_makes_no_sense_is_refused(
    client: TestClient, store: FakeStore, body: bytes, said: str
) -> None:
    """400 that names the field, and the store never hears of it."""
    answer = client.simulate_post("/join", body=body)
    assert problem(answer) == (400, "bad_request")
    assert said in answer.json["detail"]
    assert not store.asked


def test_a_body_that_is_too_large_is_refused(client: TestClient, store: FakeStore) -> None:
    """Before it is parsed."""
    answer = client.simulate_post("/join", body=b" " * ((1 << 20) + 1))
    assert problem(answer) == (413, "body_too_large")
    answer = client.simulate_put("/kv/k", body=b" " * ((1 << 20) + 1))
    assert problem(answer) == (413, "value_too_large")
    assert not store.asked
