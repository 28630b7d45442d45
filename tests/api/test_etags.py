"""Entity tags: what is read of them, and what of that a key has to be."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anchor.api.answers import Problem
from anchor.api.asked import TermFields
from anchor.api.etags import TAGS_MAX, ETags, condition_of, conditions_of, parse

etag_characters = st.sampled_from([0x21, *range(0x23, 0x7F), *range(0x80, 0x100)])
tags = st.lists(etag_characters, max_size=12).map(bytes)
blanks = st.sampled_from([b"", b" ", b"\t ", b"  "])


def code_of(if_match: bytes | None, if_none_match: bytes | None) -> str:
    """Return the code with which a write on these conditions is refused."""
    with pytest.raises(Problem) as refused:
        condition_of(if_match, if_none_match)
    assert refused.value.status == 400
    return refused.value.code


@given(st.binary(max_size=60) | st.text('"W/,* \t5a\x80\\', max_size=40).map(str.encode))
@example(b'"' * 4000)
@example(b"," * 4000)
@example(b'"a"' + b" " * 4000 + b"x")
def test_whatever_is_sent_is_tags_or_a_problem(value: bytes) -> None:
    """No other exception, and no time that grows with the square of its length."""
    refused: list[tuple[int, str]] = []
    for parsed in (
        lambda: parse(value, "If-Match"),
        lambda: condition_of(value, None),
        lambda: condition_of(None, value),
        lambda: conditions_of(TermFields(value, value)),
    ):
        try:
            parsed()
        except Problem as problem:
            refused.append((problem.status, problem.code))
    assert set(refused) <= {(400, "bad_etag")}


@given(st.lists(st.tuples(st.booleans(), tags), min_size=1, max_size=TAGS_MAX), st.data())
def test_a_list_gives_back_the_tags_it_was_made_of(
    listed: list[tuple[bool, bytes]], data: st.DataObject
) -> None:
    """Whatever stands between them, and however many elements are empty."""
    value = data.draw(st.sampled_from([b"", b",", b" ,\t,"]))
    for number, (weak, tag) in enumerate(listed):
        between = data.draw(st.sampled_from([b",", b", ,", b",,"])) if number else b""
        value += between + data.draw(blanks) + (b'W/"%s"' if weak else b'"%s"') % tag
        value += data.draw(blanks)
    assert parse(value, "If-Match") == ETags(
        tuple(tag for weak, tag in listed if not weak), tuple(tag for weak, tag in listed if weak)
    )


@given(st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=TAGS_MAX))
def test_a_condition_is_made_of_the_indexes_in_a_list(indexes: list[int]) -> None:
    """All of them, in order."""
    condition = condition_of(b", ".join(b'"%d"' % index for index in indexes), None)
    assert condition is not None
    assert condition.mod_indexes == tuple(indexes)
    assert all(condition.holds(index) for index in indexes)
    assert not condition.holds(0)


@pytest.mark.parametrize(
    "value",
    [
        b"", b",", b" ", b"5", b"'5'", b'"5', b'5"', b'""5""', b'"5""6"', b'"5" "6"', b'"5";"6"',
        b'w/"5"', b'W"5"', b"W/5", b'W/ "5"', b"W/*", b'"*', b"**", b'*, "5"', b'"5", *', b'"5 6"',
        b'"5\t"', b'"\x7f"', b'"5",x', b'x,"5"', b'"5"\\', b'"a\\"b"',
    ],
)  # fmt: skip
def test_what_is_no_list_of_tags_is_refused(value: bytes) -> None:
    """With a code of its own, for reads and writes."""
    assert code_of(value, None) == "bad_etag"
    with pytest.raises(Problem) as refused:
        conditions_of(TermFields(if_none_match=value))
    assert refused.value.code == "bad_etag"


def test_a_list_may_be_long_but_not_endless() -> None:
    """Each tag would travel to all members."""
    assert condition_of(b",".join([b'"5"'] * TAGS_MAX), None) is not None
    assert code_of(b",".join([b'"5"'] * (TAGS_MAX + 1)), None) == "bad_etag"


@pytest.mark.parametrize(
    "value",
    [b'""', b'"abc"', b'"0"', b'"05"', b'"+5"', b'W/"5"', b'"%d"' % 10**19,
     b'"\xb2"', b'"-5"', b'"5_0"', b'W/"5", "x"'],
)  # fmt: skip
def test_a_tag_that_no_key_can_have_matches_none(value: bytes) -> None:
    """Nor a key that is not there; a weak one never matches (RFC 9110 §13.1.1)."""
    condition = condition_of(value, None)
    assert condition is not None
    assert not any(condition.holds(mod_index) for mod_index in (0, 1, 5, 50, 10**19))


def test_a_star_means_any_and_none() -> None:
    """Of a write: there, or not there."""
    there, absent = condition_of(b"*", None), condition_of(None, b"*")
    assert there is not None
    assert absent is not None
    assert [there.holds(0), there.holds(5)] == [False, True]
    assert [absent.holds(0), absent.holds(5)] == [True, False]
    assert condition_of(None, None) is None


def test_a_write_has_one_condition() -> None:
    """Both at once make no sense, whatever they say; and If-None-Match is * or nothing."""
    assert code_of(b"*", b"*") == "conflicting_conditions"
    assert code_of(b'"5"', b"x") == "conflicting_conditions"
    for value in (b'"5"', b'W/"5"', b"", b"*,*", b'*, "5"'):
        assert code_of(None, value) == "bad_etag"


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "wanted"),
    [
        (None, b'"5"', False),
        (None, b'W/"5"', False),
        (None, b'"4", W/"5"', False),
        (None, b"*", False),
        (None, b'"4"', True),
        (None, b'"55"', True),
        (b'"5"', None, True),
        (b'"4","5"', None, True),
        (b"*", None, True),
        (b'"4"', None, None),
        (b'W/"5"', None, None),
        (b'"5"', b'"5"', False),
        (b'"5"', b'"4"', True),
        (b'"4"', b'"5"', None),
        (b'"4"', b'"4"', None),
    ],
)
def test_a_read_is_wanted_or_not_or_refused(
    if_match: bytes | None,
    if_none_match: bytes | None,
    wanted: bool | None,  # noqa: FBT001
) -> None:
    """RFC 9110 §13.2.2: If-Match first, compared strongly; If-None-Match weakly. None: 412."""
    conditions = conditions_of(TermFields(if_match, if_none_match))
    assert conditions is not None
    if wanted is None:
        with pytest.raises(Problem) as refused:
            conditions.want(5)
        assert (refused.value.status, refused.value.lines) == (412, b'ETag: "5"\r\n')
    else:
        assert conditions.want(5) is wanted
