"""A key as a JSON document: who gets one, and what is in it."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchor.api.documents import document_of, wants_json
from anchor.fsm import KeyValue


@pytest.mark.parametrize(
    "accept",
    [
        "application/json", "APPLICATION/Json", " application/json\t", "application/json;q=0.001",
        "application/json, */*", "application/json, text/plain, */*", "*/*, application/json",
        "application/json; charset=utf-8", "application/json;q=1.000", "application/json;Q=1",
        "application/json;q=0.5, application/octet-stream;q=0.5",
        "application/json;q=0.5, application/octet-stream;q=0.4, */*",
        "application/json, application/octet-stream;q=0.9", "application/json;q=0.5, */*;q=0.1",
        "application/json;q=0.2, application/*;q=0.1, */*", "text/html,application/json;v=1;q=0.3",
        "application/json;q=0.5, application/octet-stream;q=9", "application/json;q=0.3, x, ,;",
    ],
)  # fmt: skip
def test_json_is_given_to_those_who_name_it(accept: str) -> None:
    """And do not like the raw value better."""
    assert wants_json(accept.encode())


@pytest.mark.parametrize(
    "accept",
    [
        "", "*/*", "application/*", "text/html", "json", "application/jsonx", "text/json",
        "application/vnd.api+json", "application/json;q=0", "application/json;q=0.000",
        "application/json;q=0.5, */*", "application/json;q=0.5, application/*",
        "application/json;q=0.5, application/octet-stream", "application/json;q=0.5,*/*;q=0.6",
        "application/json;q=2", "application/json;q=", "application/json;q=0.1234",
        "application/json;q=-1", "application/json;q=1.001", "application/json;q=nan",
        "application / json", "application/json q=1", "x,application",
    ],
)  # fmt: skip
def test_others_get_the_value_as_it_is(accept: str) -> None:
    """Also those who take anything, who name it with no weight, or whose wish is malformed."""
    assert not wants_json(accept.encode())


@given(st.binary(max_size=80) | st.text("aplicton/js;q=0.1,* \t", max_size=60).map(str.encode))
def test_no_wish_is_an_error(accept: bytes) -> None:
    """RFC 9110 §12.5.1: one that cannot be honoured may be disregarded."""
    assert wants_json(accept) in {True, False}


@given(st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode(errors="ignore")))
def test_bytes_come_back_out_of_a_document(content: bytes) -> None:
    """As text where they are text, whatever it is; else in base 64."""
    parsed = json.loads(document_of(content, KeyValue(content, 3, 7, 4)))
    assert set(parsed) == {
        "key", "key_encoding", "value", "encoding", "create_index", "mod_index", "version",
    }  # fmt: skip
    assert (parsed["create_index"], parsed["mod_index"], parsed["version"]) == (3, 7, 4)
    for text, encoding in (("key", "key_encoding"), ("value", "encoding")):
        if parsed[encoding] == "utf-8":
            assert parsed[text].encode() == content
        else:
            assert parsed[encoding] == "base64"
            assert base64.b64decode(parsed[text], validate=True) == content
            with pytest.raises(UnicodeDecodeError):
                content.decode()


def test_key_and_value_are_encoded_each_for_itself() -> None:
    """One may be text where the other is not; a surrogate in UTF-8's clothing is not."""
    parsed = json.loads(document_of("é\0".encode(), KeyValue(b"\xed\xa0\x80", 1, 1, 1)))
    assert (parsed["key"], parsed["key_encoding"]) == ("é\0", "utf-8")
    assert (parsed["value"], parsed["encoding"]) == ("7aCA", "base64")
