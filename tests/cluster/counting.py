"""Clients that count: each adds one to a counter, if nobody else did meanwhile, over and over.

They speak HTTP by themselves: what they prove shares no code with them.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.processes import NodeProcess

# How long one attempt waits. A node's own patience is 5 s: who has less sends the same write
# through another node while the first copy is still on its way.
PATIENCE_SECONDS = (1.0, 3.0, 8.0)
SETTLING_SECONDS = 60.0
AGAIN_SHARE = 1 / 16  # of answered writes that are sent once more
NOBODY_LISTENS_SECONDS = 0.02


class Answer(NamedTuple):
    """What a node said."""

    status: int
    etag: str | None
    replayed: bool
    code: str  # of an error
    body: bytes

    def __str__(self) -> str:
        said = f"{self.status} {self.code} ETag {self.etag}"
        return f"{said}, replayed" if self.replayed else said

    @property
    def is_final(self) -> bool:
        """Whether it says what became of a request; sending it again makes no sense."""
        return self.status < 500


class Error(NamedTuple):
    """A 5xx that somebody got."""

    code: str
    node_id: str
    at: float
    seconds: float  # that it took


class Increment(NamedTuple):
    """One attempt to count, as it is sent, however often."""

    counter: str
    value: int
    etag: str  # that the counter had before
    sequence: int


@dataclass
class Tally:
    """What one client saw."""

    done: list[tuple[str, int, str]] = field(default_factory=list)  # counter, value, its ETag
    done_at: list[float] = field(default_factory=list)
    met: int = 0  # somebody else was faster: 412
    unanswered: int = 0  # attempts that ended without an answer
    errors: list[Error] = field(default_factory=list)
    replayed: int = 0  # first answers that came to a second attempt
    again: int = 0  # writes that were sent once more after their answer
    settled: int = 0  # that had no answer before the end
    wrong: list[str] = field(default_factory=list)


class Counting(threading.Thread):
    """One client. ``in_session=False``: it takes what is not known for not done."""

    def __init__(
        self,
        nodes: list[NodeProcess],
        number: int,
        seed: int,
        counters: list[str],
        history: Path,
        *,
        in_session: bool,
    ) -> None:
        super().__init__(daemon=True, name=f"client{number}")
        self.tally = Tally()
        self._nodes = nodes
        self._at = number % len(nodes)
        self._chance = random.Random(seed * 1000 + number)
        self._counters = counters
        self._in_session = in_session
        self._acknowledges = number % 2 == 0  # the others rely on the last answers being kept
        self._session = ""
        self._sequence = 0
        self._connection: http.client.HTTPConnection | None = None
        self._open: Increment | None = None
        self._history = (history / f"client{number}.log").open("w")
        self._ended = threading.Event()

    # ----------------------------------------------------------------- what a client does

    def run(self) -> None:
        """Count until told to end. What goes wrong is in the tally."""
        try:
            while not self._ended.is_set():
                self._count()
        except Exception as error:  # noqa: BLE001 - a client that dies must not be overlooked
            self.tally.wrong.append(f"{self.name}: {error!r}")

    def end(self) -> None:
        """Let it end after the attempt it is at; without an answer that stays open."""
        self._ended.set()

    def settle(self) -> None:
        """Send what is open until there is an answer, and say goodbye; all nodes are up."""
        self._ended.clear()
        deadline = time.monotonic() + SETTLING_SECONDS
        while self._open is not None and time.monotonic() < deadline:
            if self._try(self._open):
                self.tally.settled += 1
        if self._open is not None:
            self.tally.wrong.append(f"{self.name} got no answer to {self._open}")
        if self._connection is not None:
            self._connection.close()
        self._history.close()

    def _count(self) -> None:
        if self._in_session and not self._session:
            opened = self._ask("POST", "/sessions")
            if opened is not None and opened.status == 201:
                self._session = json.loads(opened.body)["session"]
            return
        if self._open is None:
            self._open = self._look()
        while self._open is not None and not self._ended.is_set():
            if not self._try(self._open) and not self._in_session:
                self._open = None  # whatever became of it

    def _look(self) -> Increment | None:
        counter = self._chance.choice(self._counters)
        found = self._ask("GET", f"/kv/{counter}")
        if found is None or found.status != 200 or found.etag is None:
            return None
        self._sequence += 1
        return Increment(counter, int(found.body) + 1, found.etag, self._sequence)

    def _try(self, increment: Increment) -> bool:
        """Send it; True if its fate is known then."""
        answer = self._send(increment)
        if answer is None or not answer.is_final:
            return False
        self._open = None
        self.tally.replayed += answer.replayed
        if answer.status == 200 and answer.etag is not None:
            self.tally.done.append((increment.counter, increment.value, answer.etag))
            self.tally.done_at.append(time.monotonic())
        elif answer.status == 412:
            self.tally.met += 1
        else:
            self.tally.wrong.append(f"{self.name} was answered {answer} to {increment}")
        if self._in_session and self._chance.random() < AGAIN_SHARE:
            self._ask_again(increment, answer)
        return True

    def _ask_again(self, increment: Increment, first: Answer) -> None:
        """Send what was answered once more, through any node: the answer is the first one."""
        self._at = self._chance.randrange(len(self._nodes))
        self._hang_up()
        second = self._send(increment)
        if second is None or not second.is_final:
            return
        self.tally.again += 1
        if not second.replayed or second[:2] != first[:2]:
            self.tally.wrong.append(f"{increment} was answered {first}, and then {second}")

    # ----------------------------------------------------------------- how it says so

    def _send(self, increment: Increment) -> Answer | None:
        headers = {"If-Match": increment.etag}
        if self._in_session:
            headers |= {"X-Session": self._session, "X-Sequence": str(increment.sequence)}
            if self._acknowledges:
                headers["X-Acked"] = str(increment.sequence - 1)
        path = f"/kv/{increment.counter}"
        answer = self._ask("PUT", path, str(increment.value).encode(), headers)
        self._note(f"{increment}: {answer}")
        return answer

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer | None:
        """One attempt at one node; without an answer the next attempt goes to the next node."""
        connection = self._connection or self._connect()
        self._connection = connection
        node_id, sent_at = self._nodes[self._at].node_id, time.monotonic()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            found = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._note(f"{method} {path}: {error!r}")
            self.tally.unanswered += 1
            self._move_on()
            time.sleep(NOBODY_LISTENS_SECONDS)
            return None
        code = json.loads(found)["code"] if response.status >= 400 else ""
        replayed = response.headers.get("X-Replayed") == "true"
        answer = Answer(response.status, response.headers.get("ETag"), replayed, code, found)
        if not answer.is_final:
            now = time.monotonic()
            self.tally.errors.append(Error(answer.code, node_id, now, now - sent_at))
            self._move_on()
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        patience = self._chance.choice(PATIENCE_SECONDS)
        port = self._nodes[self._at].http_port
        return http.client.HTTPConnection("127.0.0.1", port, timeout=patience)

    def _move_on(self) -> None:
        self._at = (self._at + 1) % len(self._nodes)
        self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _note(self, what: str) -> None:
        node_id = self._nodes[self._at].node_id
        self._history.write(f"{time.monotonic():.3f} {node_id} {self._session} {what}\n")
