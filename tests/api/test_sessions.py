"""Sessions as resources: opened, kept, closed, and told apart when they are not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from falcon.testing import TestClient

from anchor.api.app import create_app
from anchor.api.limits import Limits
from anchor.api.sessions import SessionId, cluster_mark, parse_id
from anchor.node import errors
from anchor.node.consistency import Consistency
from anchor.settings import Settings
from tests.api.asking import problem
from tests.api.fakes import FakeStore

if TYPE_CHECKING:
    from anchor.fsm import KeyValue


@pytest.fixture
def store() -> FakeStore:
    """Return a store with the real state machine in it."""
    return FakeStore()


@pytest.fixture
def client(store: FakeStore) -> TestClient:
    """Return a client of an application around it."""
    return TestClient(create_app(store, Limits(request_timeout=1.5, max_sessions=3)))


def opened(client: TestClient, body: str = "") -> str:
    """Open a session and return its id."""
    answer = client.simulate_post("/sessions", body=body)
    assert answer.status_code == 201
    return str(answer.json["session"])


def kept(client: TestClient, session: str) -> int:
    """Return the status with which a session is kept."""
    return client.simulate_post(f"/sessions/{session}/keepalive").status_code


def test_a_session_is_opened(client: TestClient, store: FakeStore) -> None:
    """201, its id and its ttl, not to be cached; the store is asked once."""
    answer = client.simulate_post("/sessions")
    assert answer.status_code == 201
    assert set(answer.json) == {"session", "ttl_seconds"}
    assert re.fullmatch("[0-9a-f]{32}", answer.json["session"])
    assert answer.json["ttl_seconds"] == 60
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert store.asked == [("write", None, 1.5)]
    assert store.machine.session_count == 1


def test_two_sessions_are_never_the_same(client: TestClient) -> None:
    """Neither in their numbers nor in what is left to chance."""
    one, other = opened(client), opened(client)
    assert one[:16] != other[:16]
    assert one[16:24] == other[16:24] == f"{cluster_mark('c1u57e4'):08x}"
    assert one[24:] != other[24:]


@pytest.mark.parametrize(
    ("body", "ttl"),
    [
        ("{}", "60"), ('{"ttl_seconds": 1}', "1"), ('{"ttl_seconds": 86400}', "86400"),
        ('{"ttl_seconds": 1.5}', "1.5"), ('{"ttl_seconds": 2.0}', "2"),
        ('{"ttl_seconds": 3e1}', "30"),
    ],
)  # fmt: skip
def test_a_session_lives_as_long_as_asked(client: TestClient, body: str, ttl: str) -> None:
    """From a second to a day, in seconds, with or without a fraction."""
    answer = client.simulate_post("/sessions", body=body)
    assert answer.status_code == 201
    assert answer.text.endswith(f'"ttl_seconds": {ttl}}}\n')
    again = client.simulate_post(f"/sessions/{answer.json['session']}/keepalive")
    assert again.text == answer.text


@pytest.mark.parametrize(
    "body",
    [
        "[]", "60", "null", "{", '{"ttl_seconds": "60"}', '{"ttl_seconds": null}',
        '{"ttl_seconds": true}', '{"ttl_seconds": 0.999}', '{"ttl_seconds": 0}',
        '{"ttl_seconds": -5}', '{"ttl_seconds": 86400.01}', '{"ttl_seconds": 1e999}',
        '{"ttl_seconds": NaN}', '{"ttl_seconds": 1%s}' % ("0" * 5000), '{"ttl": 60}',
        '{"ttl_seconds": 60, "name": "x"}', '{"ttl_seconds": 60, "ttl_seconds": 60}',
        '{"ttl_seconds": [60]}',
    ],
)  # fmt: skip
def test_a_session_that_makes_no_sense_is_not_opened(
    client: TestClient, store: FakeStore, body: str
) -> None:
    """400 that says why, and the store never hears of it."""
    answer = client.simulate_post("/sessions", body=body)
    assert problem(answer) == (400, "bad_request")
    assert not store.asked


def test_a_session_that_is_kept_does_not_end(client: TestClient, store: FakeStore) -> None:
    """Each keepalive starts its ttl anew, and an empty object says as little as nothing."""
    session = opened(client, '{"ttl_seconds": 10}')
    for body in ("", "{}", ""):
        store.clock_ms += 9_900
        answer = client.simulate_post(f"/sessions/{session}/keepalive", body=body)
        assert answer.status_code == 200
        assert answer.json == {"session": session, "ttl_seconds": 10}
    store.clock_ms += 11_000
    answer = client.simulate_post(f"/sessions/{session}/keepalive")
    assert problem(answer) == (410, "session_expired")
    assert not answer.json["retryable"]


def test_a_write_keeps_a_session_as_well(client: TestClient, store: FakeStore) -> None:
    """There is no need to say so beside."""
    session = opened(client, '{"ttl_seconds": 10}')
    for sequence in range(1, 4):
        store.clock_ms += 9_900
        headers = {"X-Session": session, "X-Sequence": str(sequence)}
        assert client.simulate_put("/kv/k", body=b"v", headers=headers).status_code == 200


def test_keepalive_takes_no_body(client: TestClient, store: FakeStore) -> None:
    """Least of all a ttl that it would not heed."""
    session = opened(client)
    store.asked.clear()
    for body in ('{"ttl_seconds": 5}', "[]", "x"):
        answer = client.simulate_post(f"/sessions/{session}/keepalive", body=body)
        assert problem(answer) == (400, "bad_request")
    assert not store.asked


def test_a_session_is_closed_also_twice(client: TestClient, store: FakeStore) -> None:
    """200 OK, so that it is safe to ask again; then it is gone."""
    session = opened(client)
    for _ in range(2):
        answer = client.simulate_delete(f"/sessions/{session}")
        assert (answer.status_code, answer.text) == (200, "OK")
        assert store.machine.session_count == 0
    answer = client.simulate_post(f"/sessions/{session}/keepalive")
    assert problem(answer) == (410, "session_expired")


def test_the_session_unused_for_longest_makes_room(client: TestClient) -> None:
    """``--max-sessions`` bounds them, here at 3; what was kept is not the longest unused."""
    first, second, third = (opened(client) for _ in range(3))
    assert kept(client, first) == 200
    fourth = opened(client)
    assert [kept(client, each) for each in (first, second, third, fourth)] == [200, 410, 200, 200]


@pytest.mark.parametrize(
    "session",
    [
        "0" * 31, "0" * 33, "g" * 32, "0x" + "0" * 30, "%30" * 32, "0" * 31 + "%20", "_" * 32,
        "-" + "0" * 31, "1_" * 16, "%C2%B2" * 32, "null",
    ],
)  # fmt: skip
def test_a_malformed_id_is_no_session(client: TestClient, store: FakeStore, session: str) -> None:
    """400, whatever is asked, and the store never hears of it."""
    for answer in (
        client.simulate_post(f"/sessions/{session}/keepalive"),
        client.simulate_delete(f"/sessions/{session}"),
        client.simulate_put("/kv/k", headers={"X-Session": session, "X-Sequence": "1"}),
    ):
        assert problem(answer) == (400, "bad_session")
    assert not store.asked


def test_an_id_may_be_written_in_capitals(client: TestClient) -> None:
    """They are hexadecimal digits as well."""
    assert kept(client, opened(client).upper()) == 200


def made_up(store: FakeStore, *, index: int, cluster_id: str | None = None) -> str:
    """Return the id of a session that was never opened, at an index of the log."""
    mark = cluster_mark(store.cluster_id if cluster_id is None else cluster_id)
    return str(SessionId(index << 20 | 5, mark << 32 | 77))


@pytest.mark.parametrize(
    ("index", "cluster_id", "expected"),
    [
        (1, None, (410, "session_expired")),
        (9, None, (410, "session_expired")),
        (10**6, None, (404, "session_unknown")),
        (9, "another", (404, "session_foreign")),
        (10**6, "another", (404, "session_foreign")),
    ],
)
def test_a_session_that_is_not_there_is_told_apart(
    client: TestClient,
    store: FakeStore,
    index: int,
    cluster_id: str | None,
    expected: tuple[int, str],
) -> None:
    """Of another cluster, of an entry that is yet to come, or ended: for all that name it."""
    store.advance_to(9)
    session = made_up(store, index=index, cluster_id=cluster_id)
    before = store.content()
    assert problem(client.simulate_post(f"/sessions/{session}/keepalive")) == expected
    headers = {"X-Session": session, "X-Sequence": "1"}
    for answer in (
        client.simulate_put("/kv/k", body=b"v", headers=headers),
        client.simulate_post("/kv/k", body=b"v", headers=headers),
        client.simulate_delete("/kv/k", headers=headers),
    ):
        assert problem(answer) == expected
        assert not answer.json["retryable"]
    closed = client.simulate_delete(f"/sessions/{session}")
    if expected[0] == 410:
        assert closed.status_code == 200
    else:
        assert problem(closed) == expected
    assert store.content() == before


def test_the_index_of_an_id_is_compared_to_the_last_applied_one(
    client: TestClient, store: FakeStore
) -> None:
    """One that is just about to come is unknown; the one that was just applied has ended."""
    store.advance_to(9)
    for index, expected in ((10, 410), (12, 404)):  # asking is an entry too
        session = made_up(store, index=index)
        assert client.simulate_post(f"/sessions/{session}/keepalive").status_code == expected


def test_a_node_is_told_how_many_sessions_there_may_be() -> None:
    """By its settings."""
    settings = Settings("node1", 1, Path("x"), max_sessions=7)
    assert Limits.of(settings).max_sessions == 7
    assert Limits().max_sessions == 10_000


def test_a_session_with_another_token_is_not_this_one(client: TestClient) -> None:
    """Whoever has merely guessed its number gets nowhere near it."""
    session = opened(client)
    guessed = session[:24] + f"{int(session[24:], 16) ^ 1:08x}"
    assert kept(client, guessed) == 410
    assert client.simulate_delete(f"/sessions/{guessed}").status_code == 200
    assert kept(client, session) == 200


def test_a_restored_session_works_under_another_clusters_id(
    client: TestClient, store: FakeStore
) -> None:
    """Only one that is not found is asked where it is from."""
    session, other = opened(client), opened(client)
    client.simulate_delete(f"/sessions/{other}")
    store.cluster_id = "restored"
    assert kept(client, session) == 200
    assert client.simulate_delete(f"/sessions/{session}").status_code == 200
    answer = client.simulate_delete(f"/sessions/{other}")
    assert problem(answer) == (404, "session_foreign")


def test_no_session_is_opened_outside_of_a_cluster(client: TestClient, store: FakeStore) -> None:
    """It would be marked as somebody else's."""
    store.cluster_id = ""
    answer = client.simulate_post("/sessions")
    assert problem(answer) == (503, "no_leader")
    assert answer.json["retryable"]
    assert not store.asked


def test_sessions_wait_for_the_last_member_of_an_upgrade(
    client: TestClient, store: FakeStore
) -> None:
    """503, retryable, and the store is asked for no write."""
    session = opened(client)
    store.speaks_sessions = False
    store.asked.clear()
    for answer in (
        client.simulate_post("/sessions"),
        client.simulate_post(f"/sessions/{session}/keepalive"),
        client.simulate_delete(f"/sessions/{session}"),
    ):
        assert problem(answer) == (503, "upgrade_in_progress")
        assert answer.json["retryable"]
        assert answer.headers["retry-after"] == "1"
    assert {asked[0] for asked in store.asked} == {"read"}


def test_a_node_that_has_just_started_finds_out_what_the_members_speak(
    client: TestClient, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a read, which waits until it knows what is committed; then it does what was asked."""
    store.speaks_sessions = False
    read = store.read

    def find_out(key: bytes, consistency: Consistency, timeout_seconds: float) -> KeyValue | None:
        store.speaks_sessions = consistency is Consistency.LINEARIZABLE
        return read(key, consistency, timeout_seconds)

    monkeypatch.setattr(store, "read", find_out)
    assert client.simulate_post("/sessions").status_code == 201


def test_what_the_node_says_of_a_session_is_passed_on(client: TestClient, store: FakeStore) -> None:
    """Its own errors come first."""
    session = opened(client)
    store.error = errors.CommitUnknown("x")
    for answer in (
        client.simulate_post("/sessions"),
        client.simulate_post(f"/sessions/{session}/keepalive"),
        client.simulate_delete(f"/sessions/{session}"),
    ):
        assert problem(answer) == (504, "commit_unknown")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/sessions", "POST"),
        ("DELETE", "/sessions", "POST"),
        ("PUT", "/sessions", "POST"),
        ("GET", "/sessions/x", "DELETE"),
        ("POST", "/sessions/x", "DELETE"),
        ("DELETE", "/sessions/x/keepalive", "POST"),
        ("PATCH", "/sessions/x/keepalive", "POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(
    client: TestClient, method: str, path: str, allow: str
) -> None:
    """405 with Allow."""
    answer = client.simulate_request(method, path)
    assert problem(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/sessions/", "/sessions//keepalive", "/sessions/x/y"])
def test_other_paths_are_no_route(client: TestClient, path: str) -> None:
    """404, and nothing is guessed."""
    assert problem(client.simulate_post(path)) == (404, "not_found")


def test_an_id_reads_as_it_was_written() -> None:
    """Leading zeros included."""
    for session in (SessionId(0, 0), SessionId(1 << 20, 5), SessionId(2**64 - 1, 2**64 - 1)):
        assert parse_id(str(session).encode()) == session
