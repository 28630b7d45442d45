"""Only if nothing changed: what a condition decides, when it is applied."""

from __future__ import annotations

import pytest

from anchor.fsm import Condition, Result, Status, Write
from tests.fsm.history import History

ABSENT, PRESENT = Condition(absent=True), Condition(present=True)


@pytest.mark.parametrize("value", [b"new", None], ids=["put", "delete"])
@pytest.mark.parametrize(
    ("condition", "holds_when_there", "holds_when_not"),
    [
        pytest.param(Condition(mod_indexes=(1,)), True, False, id="this version"),
        pytest.param(Condition(mod_indexes=(9, 1)), True, False, id="one of these"),
        pytest.param(Condition(mod_indexes=(9,)), False, False, id="another version"),
        pytest.param(PRESENT, True, False, id="there"),
        pytest.param(ABSENT, False, True, id="not there"),
        pytest.param(Condition(), True, True, id="empty"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_a_write_happens_only_if_its_condition_holds(
    value: bytes | None,
    condition: Condition,
    holds_when_there: bool,  # noqa: FBT001 - a table
    holds_when_not: bool,  # noqa: FBT001
    there: bool,  # noqa: FBT001
) -> None:
    """Otherwise the answer says how the key is, and it stays so."""
    history = History()
    history.do(*([Write(b"k", b"old")] if there else []))
    before = history.machine.get(b"k")
    result = history.write_once(Write(b"k", value, condition))
    if holds_when_there if there else holds_when_not:
        assert result.status is Status.DONE
        assert result.mod_index == 2
        after = history.machine.get(b"k")
        assert (after and after.value) == value
    else:
        known = (True, 1, 1, 1) if there else (False, 0, 0, 0)
        assert result == Result(*known, Status.CONDITION_FAILED)
        assert history.machine.get(b"k") == before


def test_a_condition_sees_what_came_before_it_in_the_same_call() -> None:
    """Of two that expect the same version, one wins."""
    history = History()
    history.do(Write(b"k", b"v"))
    only_if = Condition(mod_indexes=(1,))
    first = history.write_once(Write(b"k", b"a", only_if))
    second = history.write_once(Write(b"k", b"b", only_if))
    assert (first.status, second.status) == (Status.DONE, Status.CONDITION_FAILED)
    assert second.mod_index == first.mod_index
