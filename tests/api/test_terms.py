"""Writes on terms: only once, and only if nothing changed. Reads with conditions, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from falcon.testing import TestClient

from anchor.api.app import create_app
from anchor.api.etags import TAGS_MAX
from anchor.api.limits import Limits
from anchor.fsm import ANSWERS_KEPT, KEPT_MS, remembered_keys
from anchor.node import errors
from tests.api.asking import problem
from tests.api.fakes import FakeStore

if TYPE_CHECKING:
    from falcon.testing import Result

WRITES = ["PUT", "POST", "DELETE"]


@pytest.fixture
def store() -> FakeStore:
    """Return a store with the real state machine in it."""
    return FakeStore()


@pytest.fixture
def client(store: FakeStore) -> TestClient:
    """Return a client of an application around it."""
    return TestClient(create_app(store, Limits()))


@pytest.fixture
def session(client: TestClient) -> str:
    """Return the id of an open session."""
    return str(client.simulate_post("/sessions").json["session"])


def write(client: TestClient, method: str, body: bytes = b"v", /, **headers: str | int) -> Result:
    """Write the key ``k``; names of headers have ``_`` for ``-``."""
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return client.simulate_request(
        method, "/kv/k", headers=named, body=None if method == "DELETE" else body
    )


def etag_of(answer: Result) -> str | None:
    """Return the ETag of an answer, as it stands."""
    etag: str | None = answer.headers.get("etag")
    return etag


# --------------------------------------------------------------------------- in a session


@pytest.mark.parametrize("method", WRITES)
def test_a_write_sent_again_gets_its_first_answer(
    client: TestClient, store: FakeStore, session: str, method: str
) -> None:
    """Marked as such, with the same ETag, and nothing changes, however often it is sent."""
    client.simulate_put("/kv/k", body=b"before")
    first = write(client, method, X_Session=session, X_Sequence=1)
    assert (first.status_code, first.content) == (200, b"OK")
    assert "x-replayed" not in first.headers
    client.simulate_put("/kv/k", body=b"by somebody else")
    before = store.content()
    for _ in range(3):
        again = write(client, method, X_Session=session, X_Sequence=1)
        assert (again.status_code, again.content) == (200, b"OK")
        assert again.headers["x-replayed"] == "true"
        assert etag_of(again) == etag_of(first)
        assert (etag_of(first) is None) == (method == "DELETE")
    assert store.content() == before


def test_put_and_post_are_one_request(client: TestClient, session: str) -> None:
    """They do the same, so one may be sent again as the other."""
    assert write(client, "PUT", X_Session=session, X_Sequence=1).status_code == 200
    assert write(client, "POST", X_Session=session, X_Sequence=1).headers["x-replayed"] == "true"


def test_sequences_follow_each_other_from_1(client: TestClient, store: FakeStore) -> None:
    """Each session has its own."""
    for _ in range(2):
        session = client.simulate_post("/sessions").json["session"]
        for sequence in (1, 2, 3):
            answer = write(client, "PUT", b"%d" % sequence, X_Session=session, X_Sequence=sequence)
            assert answer.status_code == 200
            assert "x-replayed" not in answer.headers
    assert store.values[b"k"].version == 6


@pytest.mark.parametrize("method", WRITES)
def test_a_gap_in_the_sequence_is_refused(
    client: TestClient, store: FakeStore, session: str, method: str
) -> None:
    """409, nothing changes, and the one that was missing goes through after it."""
    for first, gap in ((1, 3), (2, 2**63 - 1)):
        before = store.content()
        if first == 1:
            answer = write(client, method, X_Session=session, X_Sequence=2)
            assert problem(answer) == (409, "sequence_gap")
        answer = write(client, method, X_Session=session, X_Sequence=gap)
        assert problem(answer) == (409, "sequence_gap")
        assert store.content() == before
        assert write(client, method, X_Session=session, X_Sequence=first).status_code == 200


def test_what_was_acknowledged_is_forgotten(
    client: TestClient, store: FakeStore, session: str
) -> None:
    """409, and not applied anew; what was not acknowledged is answered still."""
    for sequence in range(1, 6):
        write(client, "PUT", b"%d" % sequence, X_Session=session, X_Sequence=sequence)
    write(client, "PUT", b"6", X_Session=session, X_Sequence=6, X_Acked=4)
    before = store.content()
    for sequence in (1, 3, 4):
        answer = write(client, "PUT", b"%d" % sequence, X_Session=session, X_Sequence=sequence)
        assert problem(answer) == (409, "sequence_forgotten")
    for sequence in (5, 6):
        answer = write(client, "PUT", b"%d" % sequence, X_Session=session, X_Sequence=sequence)
        assert answer.headers["x-replayed"] == "true"
    assert store.content() == before


def test_a_session_remembers_its_last_answers(
    client: TestClient, store: FakeStore, session: str
) -> None:
    """32 of them, acknowledged or not."""
    for sequence in range(1, ANSWERS_KEPT + 2):
        write(client, "PUT", X_Session=session, X_Sequence=sequence)
    before = store.content()
    answer = write(client, "PUT", X_Session=session, X_Sequence=1)
    assert problem(answer) == (409, "sequence_forgotten")
    assert write(client, "PUT", X_Session=session, X_Sequence=2).headers["x-replayed"] == "true"
    assert store.content() == before


@pytest.mark.parametrize("once", ["session", "key"])
def test_another_request_does_not_get_that_answer(
    client: TestClient, store: FakeStore, session: str, once: str
) -> None:
    """422 for another value, another key, another method, another condition; nothing changes."""
    terms: dict[str, str | int] = (
        {"X_Session": session, "X_Sequence": 1} if once == "session" else {"Idempotency_Key": "a"}
    )
    code = "sequence_reused" if once == "session" else "idempotency_key_reused"
    assert write(client, "PUT", b"v", **terms).status_code == 200
    before = store.content()
    headers = {name.replace("_", "-"): str(value) for name, value in terms.items()}
    for answer in (
        write(client, "PUT", b"w", **terms),
        write(client, "PUT", b"", **terms),
        write(client, "DELETE", **terms),
        write(client, "PUT", b"v", If_None_Match="*", **terms),
        write(client, "PUT", b"v", If_Match="*", **terms),
        write(client, "PUT", b"v", If_Match='"2"', **terms),
        client.simulate_put("/kv/other", body=b"v", headers=headers),
    ):
        assert problem(answer) == (422, code)
        assert not answer.json["retryable"]
    assert store.content() == before
    assert write(client, "PUT", b"v", **terms).headers["x-replayed"] == "true"


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize("how", ["time", "closed"])
def test_a_write_of_an_ended_session_is_never_done(
    client: TestClient, store: FakeStore, session: str, method: str, how: str
) -> None:
    """410, also where it was done before and is sent again."""
    assert write(client, method, X_Session=session, X_Sequence=1).status_code == 200
    if how == "time":
        store.clock_ms += 61_000
        client.simulate_put("/kv/other", body=b"so that time passes")
    else:
        client.simulate_delete(f"/sessions/{session}")
    before = store.content()
    for sequence in (1, 2, 3):
        answer = write(client, method, X_Session=session, X_Sequence=sequence)
        assert problem(answer) == (410, "session_expired")
    assert store.content() == before


NO_SEQUENCES = [
    "", "0", "-1", "+1", "01", "1.0", "1e3", "0x1", "one", "1 1", "1,1", "²", "1_0", f"{2**63}",
    "9" * 5000,
]  # fmt: skip
NO_ACKED = ["", "1", "2", "-1", "+0", "00", "0.0", "none", "²", f"{2**63}", "9" * 5000]
NO_KEYS = ["", "two,keys", " ", "a b", "a\tb", "é", "\x7f", "k" * 256, "k" * 10_000]
BAD_TERMS: list[tuple[dict[str, str], str]] = [
    ({"X_Session": "SID"}, "bad_sequence"),
    *[({"X_Session": "SID", "X_Sequence": value}, "bad_sequence") for value in NO_SEQUENCES],
    ({"X_Sequence": "1"}, "bad_sequence"),
    ({"X_Acked": "0"}, "bad_sequence"),
    ({"X_Sequence": "1", "X_Acked": "0"}, "bad_sequence"),
    ({"X_Sequence": "1", "Idempotency_Key": "a"}, "bad_sequence"),
    ({"X_Session": "SID", "X_Acked": "0"}, "bad_sequence"),
    *[
        ({"X_Session": "SID", "X_Sequence": "1", "X_Acked": value}, "bad_acked")
        for value in NO_ACKED
    ],
    ({"X_Session": "", "X_Sequence": "1"}, "bad_session"),
    ({"X_Session": "x" * 10_000, "X_Sequence": "1"}, "bad_session"),
    ({"X_Session": "SID,SID", "X_Sequence": "1"}, "bad_session"),
    *[({"Idempotency_Key": value}, "bad_idempotency_key") for value in NO_KEYS],
    ({"Idempotency_Key": "a", "X_Session": "SID"}, "session_and_key"),
    ({"Idempotency_Key": "a", "X_Session": "SID", "X_Sequence": "1"}, "session_and_key"),
    ({"Idempotency_Key": "", "X_Session": "SID", "X_Sequence": "1"}, "session_and_key"),
    ({"If_Match": "5"}, "bad_etag"),
    ({"If_Match": ""}, "bad_etag"),
    ({"If_Match": '"5'}, "bad_etag"),
    ({"If_Match": ",".join(['"5"'] * (TAGS_MAX + 1))}, "bad_etag"),
    ({"If_None_Match": '"5"'}, "bad_etag"),
    ({"If_None_Match": ""}, "bad_etag"),
    ({"If_Match": '"5"', "If_None_Match": "*"}, "conflicting_conditions"),
    ({"If_Match": "*", "If_None_Match": "*"}, "conflicting_conditions"),
    ({"X_Session": "SID", "X_Sequence": "1", "If_Match": "x"}, "bad_etag"),
    ({"Idempotency_Key": "a", "If_None_Match": "x"}, "bad_etag"),
]


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize(("terms", "code"), BAD_TERMS)
def test_terms_that_make_no_sense_are_refused(
    client: TestClient,
    store: FakeStore,
    session: str,
    method: str,
    terms: dict[str, str],
    code: str,
) -> None:
    """400 with a code of their own, and the store never hears of it."""
    store.asked.clear()
    named = {name: value.replace("SID", session) for name, value in terms.items()}
    answer = write(client, method, **named)
    assert problem(answer) == (400, code)
    assert not answer.json["retryable"]
    assert not store.asked


def test_the_highest_sequence_is_one(client: TestClient, session: str) -> None:
    """2^63-1 is a sequence, if a far one; and so is what may be acknowledged below it."""
    top = 2**63 - 1
    answer = write(client, "PUT", X_Session=session, X_Sequence=top, X_Acked=top - 1)
    assert problem(answer) == (409, "sequence_gap")


def test_a_refused_sequence_is_not_consumed(client: TestClient, session: str) -> None:
    """A request with a mistake in it may be sent again without."""
    client.simulate_put("/kv/" + "k" * 5000, headers={"X-Session": session, "X-Sequence": "1"})
    write(client, "PUT", X_Session=session, X_Sequence=1, If_Match="x")
    answer = write(client, "PUT", X_Session=session, X_Sequence=1)
    assert (answer.status_code, "x-replayed" in answer.headers) == (200, False)


# --------------------------------------------------------------------------- idempotency keys


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize("key", ["a", "!~", "k" * 255, '"8e03978e-40d5"', "a;b"])
def test_a_key_does_the_same_for_one_request(
    client: TestClient, store: FakeStore, method: str, key: str
) -> None:
    """Its first answer, marked, and nothing changes."""
    client.simulate_put("/kv/k", body=b"before")
    first = write(client, method, Idempotency_Key=key)
    assert (first.status_code, "x-replayed" in first.headers) == (200, False)
    client.simulate_put("/kv/k", body=b"by somebody else")
    before = store.content()
    for _ in range(3):
        again = write(client, method, Idempotency_Key=key)
        assert (again.status_code, again.content) == (200, b"OK")
        assert again.headers["x-replayed"] == "true"
        assert etag_of(again) == etag_of(first)
    assert store.content() == before


def test_a_key_is_remembered_for_ten_minutes(client: TestClient, store: FakeStore) -> None:
    """Of replicated time; after that it is a new request."""
    write(client, "PUT", Idempotency_Key="a")
    store.clock_ms += KEPT_MS - 1
    assert write(client, "PUT", Idempotency_Key="a").headers["x-replayed"] == "true"
    store.clock_ms += 1
    assert "x-replayed" not in write(client, "PUT", Idempotency_Key="a").headers
    assert KEPT_MS == 10 * 60 * 1000


def test_too_many_keys_are_not_remembered(
    client: TestClient, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, to be tried again, and the write is not done either."""
    monkeypatch.setattr(remembered_keys, "KEYS_MAX", 1)
    write(client, "PUT", Idempotency_Key="a")
    before = store.content()
    answer = write(client, "PUT", b"w", Idempotency_Key="b")
    assert problem(answer) == (503, "overloaded")
    assert answer.json["retryable"]
    assert answer.headers["retry-after"] == "1"
    assert store.content() == before
    assert write(client, "PUT", Idempotency_Key="a").headers["x-replayed"] == "true"


# --------------------------------------------------------------------------- conditions


@pytest.mark.parametrize("method", WRITES)
def test_a_write_happens_only_if_nothing_changed(
    client: TestClient, store: FakeStore, method: str
) -> None:
    """412 with the current ETag once somebody else wrote; with that one it goes through."""
    stale = etag_of(client.simulate_put("/kv/k", body=b"1"))
    current = etag_of(client.simulate_put("/kv/k", body=b"2"))
    assert stale is not None
    assert current is not None
    before = store.content()
    for unmet in (stale, '"7", "8"', f"W/{current}", '"x"', f'"0{current.strip(chr(34))}"'):
        answer = write(client, method, If_Match=unmet)
        assert problem(answer) == (412, "precondition_failed")
        assert etag_of(answer) == current
        assert not answer.json["retryable"]
        assert "x-replayed" not in answer.headers
    assert problem(write(client, method, If_None_Match="*")) == (412, "precondition_failed")
    assert store.content() == before
    answer = write(client, method, If_Match=f'"1" ,{current}')
    assert answer.status_code == 200
    assert store.content() != before


@pytest.mark.parametrize("method", WRITES)
def test_a_key_that_is_not_there_has_no_etag(
    client: TestClient, store: FakeStore, method: str
) -> None:
    """412 without one, whatever was expected of it."""
    before = store.content()
    for unmet in ("*", '"1"', '"0"', '""'):
        answer = write(client, method, If_Match=unmet)
        assert problem(answer) == (412, "precondition_failed")
        assert etag_of(answer) is None
    assert store.content() == before
    assert write(client, method, If_None_Match="*").status_code == 200


@pytest.mark.parametrize("method", WRITES)
def test_a_key_that_is_there_is_any_key(client: TestClient, method: str) -> None:
    """``If-Match: *``."""
    client.simulate_put("/kv/k", body=b"1")
    assert write(client, method, If_Match="*").status_code == 200


def test_only_one_creates(client: TestClient, store: FakeStore) -> None:
    """``If-None-Match: *``: the other one is told what there is."""
    first = write(client, "PUT", b"mine", If_None_Match="*")
    assert first.status_code == 200
    second = write(client, "PUT", b"mine too", If_None_Match="*")
    assert problem(second) == (412, "precondition_failed")
    assert etag_of(second) == etag_of(first)
    assert store.values[b"k"].value == b"mine"


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("once", ["session", "key"])
def test_a_412_is_an_answer_like_any_other(
    client: TestClient,
    store: FakeStore,
    session: str,
    once: str,
    there: bool,  # noqa: FBT001
) -> None:
    """It consumes its sequence, and is given again though the condition holds by now."""
    terms: dict[str, str | int] = (
        {"X_Session": session, "X_Sequence": 1} if once == "session" else {"Idempotency_Key": "a"}
    )
    if there:
        client.simulate_put("/kv/k", body=b"1")
    unmet = {"If_None_Match": "*"} if there else {"If_Match": "*"}
    first = write(client, "PUT", **terms, **unmet)
    assert problem(first) == (412, "precondition_failed")
    assert (etag_of(first) is not None) == there
    if there:
        client.simulate_delete("/kv/k")
    else:
        client.simulate_put("/kv/k", body=b"1")
    before = store.content()
    again = write(client, "PUT", **terms, **unmet)
    assert problem(again) == (412, "precondition_failed")
    assert etag_of(again) == etag_of(first)
    assert again.headers["x-replayed"] == "true"
    assert again.json == first.json
    assert store.content() == before
    if once == "session":
        assert write(client, "PUT", X_Session=session, X_Sequence=2).status_code == 200


@pytest.mark.parametrize(
    ("name", "beside"),
    [("If-Modified-Since", "If-None-Match"), ("If-Unmodified-Since", "If-Match")],
)
def test_a_time_is_not_looked_at_beside_a_tag(
    client: TestClient, store: FakeStore, name: str, beside: str
) -> None:
    """RFC 9110 §13.1.3 and §13.1.4: it is to be ignored then, and only then."""
    when = "Thu, 01 Jan 2026 00:00:00 GMT"
    client.simulate_put("/kv/k", body=b"v")
    store.asked.clear()
    assert problem(client.simulate_put("/kv/k", headers={name: when})) == (501, "not_implemented")
    assert not store.asked
    answer = client.simulate_put("/kv/k", headers={name: when, beside: "*"})
    assert answer.status_code == (412 if beside == "If-None-Match" else 200)


@pytest.mark.parametrize(
    "terms",
    [
        {"X_Session": "SID", "X_Sequence": "1"},
        {"Idempotency_Key": "a"},
        {"If_Match": "*"},
        {"If_None_Match": "*"},
    ],
)
@pytest.mark.parametrize("method", WRITES)
def test_terms_wait_for_the_last_member_of_an_upgrade(
    client: TestClient,
    store: FakeStore,
    session: str,
    method: str,
    terms: dict[str, str],
) -> None:
    """503, retryable, and the store is asked for no write; what was there before works as ever."""
    store.speaks_sessions = False
    store.asked.clear()
    named = {name: value.replace("SID", session) for name, value in terms.items()}
    answer = write(client, method, **named)
    assert problem(answer) == (503, "upgrade_in_progress")
    assert answer.json["retryable"]
    assert {asked[0] for asked in store.asked} == {"read"}
    assert write(client, "PUT").status_code == 200
    read = client.simulate_get(
        "/kv/k", headers={"If-None-Match": "*", "Accept": "application/json"}
    )
    assert read.status_code == 304
    assert write(client, "DELETE").status_code == 200


def test_what_the_node_says_of_a_write_is_passed_on(
    client: TestClient, store: FakeStore, session: str
) -> None:
    """On terms as without."""
    store.error = errors.CommitUnknown("x")
    for terms in ({"X_Session": session, "X_Sequence": "1"}, {"If_Match": "*"}):
        assert problem(write(client, "PUT", **terms)) == (504, "commit_unknown")


# --------------------------------------------------------------------------- reads


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_value_that_is_known_is_not_sent_again(client: TestClient, method: str) -> None:
    """304 with the ETag and what every answer says, and without a body, its type or its length."""
    etag = etag_of(client.simulate_put("/kv/k", body=b"value"))
    for known in (f"{etag}", f"W/{etag}", f'"x", {etag}', "*"):
        answer = client.simulate_request(method, "/kv/k", headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers == {
            "cache-control": "no-store",
            "etag": etag,
            "x-applied-index": "2",
            "x-consistency": "linearizable",
            "x-raft-leader": "node1",
            "x-raft-term": "3",
        }
    answer = client.simulate_request(method, "/kv/k", headers={"If-None-Match": '"9", W/"1"'})
    assert (answer.status_code, answer.headers["content-length"]) == (200, "5")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_read_may_expect_a_value(client: TestClient, method: str) -> None:
    """412 if it is another one, with the ETag it has and how it was read."""
    etag = etag_of(client.simulate_put("/kv/k", body=b"value"))
    for met in (f"{etag}", "*", f'"x",{etag}'):
        answer = client.simulate_request(method, "/kv/k", headers={"If-Match": met})
        assert answer.status_code == 200
    for unmet in ('"9"', f"W/{etag}"):
        answer = client.simulate_request(
            method, "/kv/k", headers={"If-Match": unmet, "X-Consistency": "stale"}
        )
        assert answer.status_code == 412
        assert etag_of(answer) == etag
        assert answer.headers["x-consistency"] == "stale"
        if method == "GET":
            assert problem(answer) == (412, "precondition_failed")


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("value", ["*", '"5"'])
def test_what_is_not_there_is_not_there(client: TestClient, name: str, value: str) -> None:
    """RFC 9110 §13.2.1: 404 comes before all conditions."""
    answer = client.simulate_get("/kv/k", headers={name: value})
    assert problem(answer) == (404, "not_found")


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("value", ["", "5", '"5', "*, *"])
def test_a_malformed_condition_of_a_read_is_refused(
    client: TestClient, store: FakeStore, name: str, value: str
) -> None:
    """As of a write, and nothing is read."""
    answer = client.simulate_get("/kv/k", headers={name: value})
    assert problem(answer) == (400, "bad_etag")
    assert not store.asked


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_key_is_given_as_json_to_those_who_ask(client: TestClient, method: str) -> None:
    """With the same ETag, and under the same conditions."""
    client.simulate_put("/kv/k%2F", body="é".encode())
    etag = etag_of(client.simulate_put("/kv/k%2F", body="ü".encode()))
    asked = {"Accept": "application/json"}
    answer = client.simulate_request(method, "/kv/k%2F", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert etag_of(answer) == etag
    if method == "GET":
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert answer.json == {
            "key": "k/", "key_encoding": "utf-8", "value": "ü", "encoding": "utf-8",
            "create_index": 2, "mod_index": 3, "version": 2,
        }  # fmt: skip
    else:
        whole = client.simulate_get("/kv/k%2F", headers=asked)
        assert answer.headers == whole.headers
    known = client.simulate_request(
        method, "/kv/k%2F", headers=asked | {"If-None-Match": f"{etag}"}
    )
    assert (known.status_code, known.content) == (304, b"")
    missing = client.simulate_request(method, "/kv/none", headers=asked)
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("accept", ["*/*", "application/json;q=0", "application/json;q=0.1, */*"])
def test_a_value_is_given_as_it_is_to_all_others(client: TestClient, accept: str) -> None:
    """Whatever curl and browsers send."""
    client.simulate_put("/kv/k", body=b"\xff")
    answer = client.simulate_get("/kv/k", headers={"Accept": accept})
    assert answer.content == b"\xff"
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_fields_that_mean_nothing_to_a_read_are_passed_over(
    client: TestClient, store: FakeStore, method: str
) -> None:
    """However malformed they are."""
    client.simulate_put("/kv/k", body=b"v")
    headers = {"X-Session": "x", "X-Sequence": "x", "X-Acked": "x", "Idempotency-Key": " x x"}
    before = store.content()
    assert client.simulate_request(method, "/kv/k", headers=headers).status_code == 200
    assert store.content() == before


def test_a_write_is_not_answered_as_json(client: TestClient) -> None:
    """What it accepts makes no difference to it."""
    answer = client.simulate_put("/kv/k", body=b"v", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.content) == (200, b"OK")
