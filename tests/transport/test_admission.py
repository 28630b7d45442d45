"""Who may speak, who may not, and how often that is worth a line."""

from __future__ import annotations

import logging

import pytest

from anchor.raft.configuration import Member
from anchor.settings import NEWEST_PROTOCOL
from anchor.transport.admission import Admission, RefusalLog, Rejection
from anchor.transport.codec import Envelope
from anchor.transport.options import LocalMember

OURS = 11
THEIRS = 22
FAIR = Envelope(1, "c", "a", "b", THEIRS, OURS)


def admission(*, cluster_id: str = "c", members: tuple[Member, ...] | None = None) -> Admission:
    """Member b, which knows a."""
    result = Admission(LocalMember("b", OURS, cluster_id))
    known = (Member("a", "h:1", "", THEIRS), Member("b", "h:2", "", OURS))
    result.set_members(known if members is None else members)
    return result


def test_a_member_that_says_who_it_is_may_speak() -> None:
    """Everything matches; the recipient's incarnation may be unknown to a known sender."""
    admission().check(FAIR)
    admission().check(FAIR._replace(recipient_incarnation=0))


@pytest.mark.parametrize(
    ("reason", "envelope"),
    [
        ("protocol_version", FAIR._replace(protocol_version=NEWEST_PROTOCOL + 1)),
        ("protocol_version", FAIR._replace(protocol_version=0)),
        ("cluster", FAIR._replace(cluster_id="d")),
        ("cluster", FAIR._replace(cluster_id="")),
        ("recipient", FAIR._replace(recipient="z")),
        ("recipient", FAIR._replace(recipient="")),
        ("recipient_incarnation", FAIR._replace(recipient_incarnation=12)),
        ("sender", FAIR._replace(sender="z", recipient_incarnation=0)),
        ("sender", FAIR._replace(sender="")),
        ("sender", FAIR._replace(sender="b")),
        ("sender_incarnation", FAIR._replace(sender_incarnation=23)),
        ("sender_incarnation", FAIR._replace(sender_incarnation=0)),
    ],
)
def test_everybody_else_is_refused(reason: str, envelope: Envelope) -> None:
    """One wrong field is enough, and the reason names it."""
    with pytest.raises(Rejection) as refused:
        admission().check(envelope)
    assert refused.value.reason == reason


def test_a_stranger_that_names_our_incarnation_may_speak() -> None:
    """Its configuration may be newer than ours, or ours empty while we join."""
    admission().check(FAIR._replace(sender="newcomer"))
    admission(members=()).check(FAIR)
    with pytest.raises(Rejection):
        admission(members=()).check(FAIR._replace(recipient_incarnation=0))


def test_before_the_cluster_is_known_nobody_may_speak() -> None:
    """A node in no cluster refuses, and says that this is why."""
    with pytest.raises(Rejection) as refused:
        admission(cluster_id="").check(FAIR)
    assert refused.value.reason == "no_cluster"


def test_strangers_may_call_unless_they_name_another_cluster() -> None:
    """Who wants to join knows no cluster id yet."""
    admission().check_protocol(FAIR._replace(cluster_id="", sender="z"))
    admission(cluster_id="").check_protocol(FAIR)
    with pytest.raises(Rejection):
        admission().check_protocol(FAIR._replace(cluster_id="d"))


def test_the_generation_rises_with_each_change() -> None:
    """A verdict about a stream holds only until something changes."""
    ours = admission()
    before = ours.generation
    ours.set_members([])
    ours.set_cluster_id("d")
    assert ours.generation == before + 2


def test_a_refusal_is_logged_once_in_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """One line a caller and reason; the next one counts what was silent."""
    now = 100.0
    log = RefusalLog(lambda: now)
    with caplog.at_level(logging.WARNING, "anchor.transport"):
        for _ in range(5):
            log.refused("z\n", "sender", "not a member")
        log.refused("z\n", "cluster", "another cluster")
        assert [r.getMessage() for r in caplog.records] == [
            "refused 'z\\n': not a member",
            "refused 'z\\n': another cluster",
        ]
        now = 111.0
        log.refused("z\n", "sender", "not a member")
    assert caplog.records[-1].getMessage() == "refused 'z\\n': not a member (4 more before)"


def test_the_refusal_log_remembers_no_more_than_it_may(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However many names a hostile caller has, the memory for them is bounded."""
    log = RefusalLog(lambda: 0.0)
    with caplog.at_level(logging.WARNING, "anchor.transport"):
        for number in range(1000):
            log.refused(f"z{number}", "sender", "x")
    assert len(log._last) <= 256


def test_a_node_that_joins_complains_only_once_it_takes_too_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in a cluster yet: normal for five seconds, then one warning; anew the next time."""
    now = 100.0
    log = RefusalLog(lambda: now)
    with caplog.at_level(logging.INFO, "anchor.transport"):
        for _ in range(20):
            log.refused("ipv4:127.0.0.1", "no_cluster", "not in a cluster yet")
            now += 0.25
        assert not caplog.records
        for _ in range(100):
            log.refused("ipv4:127.0.0.1", "no_cluster", "not in a cluster yet")
            now += 0.25
        assert [r.getMessage() for r in caplog.records] == [
            "refused 'ipv4:127.0.0.1' for 5 s: not in a cluster yet"
        ]
        now += 60
        log.refused("ipv4:127.0.0.1", "no_cluster", "not in a cluster yet")
        assert len(caplog.records) == 1
