"""Real transports on loopback, and a node's side of them that writes down what it hears."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from queue import Queue
from typing import TYPE_CHECKING, TypeVar

from anchor.raft.configuration import Member
from anchor.raft.entry import Entry, EntryKind
from anchor.raft.errors import InvalidMessage
from anchor.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Message,
    RequestVote,
    RequestVoteResponse,
)
from anchor.transport import (
    CompareDigest,
    ForwardRequest,
    ForwardResponse,
    Identification,
    JoinRequest,
    JoinResponse,
    LocalMember,
    RemoveRequest,
    RemoveResponse,
    SnapshotReceiver,
    Transport,
    TransportOptions,
)
from anchor.transport.rpc import CallFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from anchor.transport.channel import Channel
    from anchor.transport.outbox import Outbox

CLUSTER = "cluster-of-tests"
PATIENCE_SECONDS = 10.0
OPTIONS = TransportOptions(silence_timeout_ms=600, ping_interval_ms=300)

M = TypeVar("M")


def incarnation_of(member_id: str) -> int:
    """Each member's incarnation, told by its name."""
    return 1000 + sum(member_id.encode())


def append(
    sender: str,
    recipient: str,
    prev_log_index: int = 0,
    payloads: tuple[bytes, ...] = (b"x",),
    *,
    term: int = 1,
    session: int = 1,
    read_round: int = 0,
) -> AppendEntries:
    """An AppendEntries as a leader would send it."""
    entries = tuple(
        Entry(index, term, EntryKind.COMMAND, payload)
        for index, payload in enumerate(payloads, prev_log_index + 1)
    )
    prev_log_term = term if prev_log_index else 0
    return AppendEntries(
        term, sender, recipient, prev_log_index, prev_log_term, entries, 0, read_round, session
    )


def acknowledge(message: AppendEntries) -> AppendEntriesResponse:
    """What a follower that took it says."""
    return AppendEntriesResponse(
        message.term,
        message.recipient,
        message.sender,
        success=True,
        match_index=message.prev_log_index + len(message.entries),
        rejected_index=0,
        conflict_index=0,
        conflict_term=0,
        read_round=message.read_round,
        session=message.session,
    )


class FakeNode:
    """A TransportHandler that answers like a willing follower and remembers everything."""

    def __init__(self, member_id: str) -> None:
        self.member_id = member_id
        self.transport: Transport
        self.incarnation = incarnation_of(member_id)
        self.cluster_id = CLUSTER
        self.heard: list[Message] = []
        self.disconnected: list[str] = []
        self.asked: list[ForwardRequest] = []
        self.answers: list[ForwardResponse] = []
        self.broken: list[str] = []
        self.joins: list[JoinRequest] = []
        self.removes: list[RemoveRequest] = []
        self.answers_appends = True
        self.answers_votes = True
        self.finds_nonsense = False
        self.before_hearing: Callable[[], object] = lambda: None
        self.before_join: Callable[[], object] = lambda: None
        self._changed = threading.Condition()

    def until(self, what: Callable[[], M], patience_seconds: float = PATIENCE_SECONDS) -> M:
        """Wait until something holds; looks again after each thing heard."""
        deadline = time.monotonic() + patience_seconds
        with self._changed:
            while not (result := what()):
                left = deadline - time.monotonic()
                assert left > 0, f"{self.member_id} waited in vain; heard {self.heard[-3:]}"
                self._changed.wait(min(left, 0.02))
        return result

    def _note(self, into: list[M], what: M) -> None:
        with self._changed:
            into.append(what)
            self._changed.notify_all()

    def of_kind(self, kind: type[M]) -> list[M]:
        """What of this kind was heard, in order."""
        return [message for message in self.heard if isinstance(message, kind)]

    def on_message(self, message: Message) -> None:
        """Note it, and answer it as a willing follower would."""
        self.before_hearing()
        if self.finds_nonsense:
            raise InvalidMessage("nonsense, says the core")
        self._note(self.heard, message)
        if isinstance(message, AppendEntries) and self.answers_appends:
            self.transport.send([acknowledge(message)])
        if isinstance(message, RequestVote) and self.answers_votes:
            granted = RequestVoteResponse(
                message.term,
                message.recipient,
                message.sender,
                vote_granted=True,
                pre_vote=message.pre_vote,
            )
            self.transport.send([granted])

    def on_disconnected(self, member_id: str) -> None:
        """Note it."""
        self._note(self.disconnected, member_id)

    def on_forward(self, request: ForwardRequest, reply: Callable[[ForwardResponse], None]) -> None:
        """Answer read questions with 70 and their number, and refuse what asks for it."""
        self._note(self.asked, request)
        if request.read_index:
            reply(ForwardResponse(request.number, term=3, read_index=70 + request.number))
        elif request.batches == (b"refuse me",):
            reply(ForwardResponse(request.number, "not_leader", leader_id="somebody", term=3))

    def on_forward_response(self, leader_id: str, response: ForwardResponse) -> None:
        """Note it."""
        assert leader_id
        self._note(self.answers, response)

    def on_forward_broken(self, leader_id: str) -> None:
        """Note it."""
        self._note(self.broken, leader_id)

    def on_join(self, request: JoinRequest, timeout_seconds: float) -> JoinResponse:
        """Let everybody in."""
        assert 0 < timeout_seconds <= 60
        self._note(self.joins, request)
        self.before_join()
        return JoinResponse(cluster_id=self.cluster_id, leader_id=self.member_id, promoted=True)

    def on_remove(self, request: RemoveRequest, timeout_seconds: float) -> RemoveResponse:
        """Let nobody go."""
        assert 0 < timeout_seconds <= 60
        self._note(self.removes, request)
        return RemoveResponse("last_voter", "it is the last voter")

    def on_identify(self) -> Identification:
        """Tell the truth."""
        return Identification(self.member_id, self.incarnation, self.cluster_id, "", "", "test")

    def on_compare_digest(self, question: CompareDigest) -> bytes | None:
        """Know the digest of one index only."""
        return b"digest of 7" if question.applied_index == 7 else None


class Answers(Iterator[bytes]):
    """What comes back over a stream, to be waited for; raises CallFailed at a bad end."""

    def __init__(self, channel: Channel, path: str, outbox: Outbox[bytes]) -> None:
        self._heard: Queue[bytes | BaseException] = Queue()
        self._stream = channel.stream(path, outbox, bytes, self._heard.put)
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        try:
            self._stream.wait()
        except CallFailed as error:
            self._heard.put(error)
        else:
            self._heard.put(StopIteration())

    def __next__(self) -> bytes:
        outcome = self._heard.get(timeout=PATIENCE_SECONDS)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


class Net:
    """Some transports that know each other."""

    def __init__(self, options: TransportOptions = OPTIONS) -> None:
        self.options = options
        self.nodes: dict[str, FakeNode] = {}
        self.members: dict[str, Member] = {}

    def add(self, member_id: str, port: int = 0) -> FakeNode:
        """Start one more; ``acquaint`` makes it known."""
        return self.add_node(FakeNode(member_id), port)

    def add_node(
        self, node: FakeNode, port: int = 0, snapshot_receiver: SnapshotReceiver | None = None
    ) -> FakeNode:
        """Start one more, which is something special."""
        member_id = node.member_id
        local = LocalMember(member_id, node.incarnation, CLUSTER)
        node.transport = Transport(
            local, f"127.0.0.1:{port}", node, self.options, snapshot_receiver
        )
        node.transport.start()
        self.nodes[member_id] = node
        address = f"127.0.0.1:{node.transport.port}"
        self.members[member_id] = Member(member_id, address, "", node.incarnation)
        return node

    def add_remote(self, member_id: str, port: int) -> None:
        """One that lives in another process."""
        self.members[member_id] = Member(
            member_id, f"127.0.0.1:{port}", "", incarnation_of(member_id)
        )

    def acquaint(self) -> None:
        """Everybody knows everybody."""
        for node in self.nodes.values():
            node.transport.set_members(self.members.values())

    def misremember(self, node: FakeNode, member_id: str, **wrong: object) -> None:
        """Let one node know a member wrongly."""
        members = dict(self.members)
        members[member_id] = replace(members[member_id], **wrong)  # type: ignore[arg-type]
        node.transport.set_members(members.values())

    def stop(self) -> None:
        """Stop them all."""
        for node in self.nodes.values():
            node.transport.stop(0.2)


@contextmanager
def net_of(*member_ids: str, options: TransportOptions = OPTIONS) -> Iterator[Net]:
    """Transports by these names that know each other, stopped at the end."""
    net = Net(options)
    try:
        for member_id in member_ids:
            net.add(member_id)
        net.acquaint()
        yield net
    finally:
        net.stop()
