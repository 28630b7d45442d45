"""This node's questions to its leader, and its answers to those who think it leads.

One stream to the leader at a time, opened when there is something to ask. What is unanswered when
it breaks is in doubt, and the replica asks again.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

from anchor.fsm import FsmError, check_batch
from anchor.node.errors import DiskFull
from anchor.raft import NoRoom, NotLeader, Refused
from anchor.transport import ForwardRequest, ForwardResponse, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anchor.node.replica import Replica
    from anchor.node.writes import Batch
    from anchor.transport import ForwardStream, Transport

_log = logging.getLogger("anchor.node")

MAX_REQUEST_BYTES = 1 << 20  # batches are joined up to this; a single one may be larger
MAX_REMEMBERED = 256  # accepted proposals are never answered: the oldest are forgotten


class Forwarding:
    """Both ends of the forward streams of one node."""

    def __init__(self, replica: Replica, transport: Transport) -> None:
        self._replica = replica
        self._transport = transport
        self._stream: ForwardStream | None = None
        self._number = 0
        # By the number of the request: the replica's question, or the batches handed over.
        self._questions: dict[int, int] = {}
        self._proposals: OrderedDict[int, Sequence[Batch]] = OrderedDict()

    # ----------------------------------------------------------------- as one who asks

    def writes(self, leader_id: str, batches: Sequence[Batch]) -> None:
        """Hand these to the leader, in as few messages as their size allows."""
        part: list[Batch] = []
        size_bytes = 0
        for batch in batches:
            if part and size_bytes + len(batch.payload) > MAX_REQUEST_BYTES:
                if not self._propose(leader_id, part):
                    # What comes later must not overtake it.
                    self._replica.writes_refused(batches[batches.index(batch) :])
                    return
                part, size_bytes = [], 0
            part.append(batch)
            size_bytes += len(batch.payload)
        if part:
            self._propose(leader_id, part)

    def _propose(self, leader_id: str, batches: Sequence[Batch]) -> bool:
        try:
            stream = self._open(leader_id)
            self._number += 1
            stream.propose(self._number, [batch.payload for batch in batches])
        except TransportError:
            self._replica.writes_refused(batches)
            return False
        self._proposals[self._number] = batches
        if len(self._proposals) > MAX_REMEMBERED:
            self._proposals.popitem(last=False)
        return True

    def read(self, leader_id: str, question: int, *, lease: bool) -> None:
        """Ask the leader for a read index."""
        try:
            stream = self._open(leader_id)
            self._number += 1
            stream.read_index(self._number, lease=lease)
        except TransportError:
            self._replica.read_aborted(question)
        else:
            self._questions[self._number] = question

    def _open(self, leader_id: str) -> ForwardStream:
        stream = self._stream
        if stream is not None and stream.leader_id == leader_id and not stream.closed:
            return stream
        if stream is not None:
            stream.close()
        self._forget()
        self._stream = self._transport.forward(leader_id)
        return self._stream

    def _forget(self) -> None:
        self._questions.clear()
        self._proposals.clear()

    def answered(self, leader_id: str, response: ForwardResponse) -> None:
        """The leader answered: a read index, or a refusal."""
        if self._stream is None or self._stream.leader_id != leader_id:
            return
        question = self._questions.pop(response.number, None)
        batches = self._proposals.pop(response.number, None)
        if question is not None and response.error_code:
            self._replica.read_aborted(question)
        elif question is not None:
            self._replica.read_confirmed(question, response.read_index)
        elif batches is not None:
            self._replica.writes_refused(batches, _reason(response.error_code))

    def broken(self, leader_id: str) -> None:
        """The stream to the leader is gone."""
        if self._stream is not None and self._stream.leader_id == leader_id:
            self._forget()
            self._stream = None
            self._replica.lost_touch()

    # ----------------------------------------------------------------- as one who is asked

    def asked(self, request: ForwardRequest, reply: Callable[[ForwardResponse], None]) -> None:
        """Another node asks this one as its leader."""
        if request.read_index:
            self._replica.read_index_for(
                request.sender,
                lambda index: reply(self._read_answer(request.number, index)),
                lease=request.lease,
            )
            return
        try:
            # A batch that nobody can apply would stop every member once it is committed.
            for batch in request.batches:
                check_batch(batch)
            self._replica.propose_for(request.sender, request.batches)
        except FsmError as error:
            self._transport.refuse(request.sender, str(error))
        except NotLeader:
            reply(self._refusal(request.number, "not_leader"))
        except NoRoom as error:
            # Without room of its own it is about to hand over: ask again.
            own = not self._replica.raft.has_room
            reply(self._refusal(request.number, "overloaded" if own else DiskFull.code))
            _log.debug("refused what %s forwarded: %s", request.sender, error)
        except Refused:
            reply(self._refusal(request.number, "overloaded"))

    def _read_answer(self, number: int, index: int | None) -> ForwardResponse:
        if index is None:
            return self._refusal(number, "not_leader")
        return ForwardResponse(number, term=self._replica.raft.term, read_index=index)

    def _refusal(self, number: int, code: str) -> ForwardResponse:
        raft = self._replica.raft
        return ForwardResponse(number, code, raft.leader_id or "", raft.term)


def _reason(code: str) -> DiskFull | None:
    """Why asking again soon is of no use, if the leader says so."""
    if code == DiskFull.code:
        return DiskFull("the disks of too many nodes are full; nothing was done")
    return None
