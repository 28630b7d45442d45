"""One call, many tries: endpoints in turn, under one deadline, until an answer settles it.

What may be sent again is sent again, whatever went wrong: a read, and a write that the cluster
recognizes by its number or key (:class:`~anchor.client.connections.Resending`). Then

- no endpoint gets more than SHARE of the time that is left, as long as there are others: one that
  is paused costs some time and never the call;
- once the fate of a write is open, nothing but the answer to that very write settles it. What
  another node says instead ("no leader", "too large here") says nothing of the earlier try.

A write that is not recognized is sent again only where it certainly had no effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anchor.client.answers import SessionLost, TryAgain, json_object, judge, more_telling
from anchor.client.clock import clock
from anchor.client.connections import Broken, NotHTTP, NotSent, Request, Resending
from anchor.client.errors import ClientError, CommitUnknown, Refused, Unreachable

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from anchor.client.connections import Answer, Connections
    from anchor.client.endpoints import Endpoints

BACKOFF_SECONDS = 0.05
BACKOFF_SECONDS_MAX = 1.0

CONNECT_SECONDS = 1.5
"""Where there are other endpoints, one that is not there must not take the whole deadline."""

SHARE = 0.6
"""This much of the time that is left is waited for one of several endpoints, but at least"""

SHARE_SECONDS_MIN = 0.2

MARGIN = 1.5
"""A write that certainly had no effect so far is sent again only if this many times what the last
try took is left, and"""

RESERVE = 0.2
"""this share of the whole time: cut short by the deadline, it would end as "unknown"."""

KEY_SECONDS = 300.0
"""So long after it was first sent a write is sent again with its key, which is remembered for
twice as long."""

ASK_SECONDS = 0.5
"""How long to wait for what an endpoint says of the cluster, and not more often than"""

ASK_AGAIN_SECONDS = 60.0
"""each minute while all goes well, or"""

ASK_AGAIN_IN_NEED_SECONDS = 5.0

STATUS = Request("GET", "/status")


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a call has, by the client's clock."""

    began: float
    deadline: float
    patience_ends: float
    """The end, as long as no endpoint accepts a connection."""

    @classmethod
    def of(cls, seconds: float, patience_seconds: float) -> Span:
        """Begin one now."""
        now = clock()
        return cls(now, now + seconds, now + min(seconds, patience_seconds))

    @property
    def left(self) -> float:
        """Seconds until the deadline, at least a millisecond: every call may try once."""
        return max(0.001, self.deadline - clock())

    @property
    def suffices(self) -> bool:
        """Whether there is time enough to begin with a write."""
        return self.left >= RESERVE * (self.deadline - self.began)


class Backoff:
    """Pauses with full jitter: anything from nothing to a bound that doubles each time."""

    def __init__(self, rng: random.Random, sleep: Callable[[float], None], until: float) -> None:
        self._rng = rng
        self._sleep = sleep
        self._until = until
        self._bound = BACKOFF_SECONDS

    def pause(self) -> None:
        """Take the next one; none goes past the end."""
        seconds = self._rng.uniform(0, self._bound)
        self._bound = min(BACKOFF_SECONDS_MAX, 2 * self._bound)
        self._sleep(min(seconds, max(0.0, self._until - clock())))


class Calls:
    """Makes calls. ``looks_around`` is for a client that stays: it keeps up with the members."""

    def __init__(
        self,
        endpoints: Endpoints,
        connections: Connections,
        rng: random.Random,
        sleep: Callable[[float], None],
        *,
        looks_around: bool,
    ) -> None:
        self._endpoints = endpoints
        self._connections = connections
        self._rng = rng
        self._sleep = sleep
        self._looks_around = looks_around

    def backoff(self, span: Span) -> Backoff:
        """Begin to count the pauses of a call."""
        return Backoff(self._rng, self._sleep, span.deadline)

    def call(self, request: Request, span: Span) -> Answer:
        """Try until an answer settles it, or the time is up.

        Raises:
            SessionLost: nothing was done, see there.
            ClientError: nothing was done, unless it is CommitUnknown.

        """
        if request.resending is not Resending.HARMLESS and not span.suffices:
            raise Unreachable("no time is left to begin with the write")
        tries = _Tries(request, span)
        backoff = self.backoff(span)
        while True:
            tried: set[str] = set()
            while endpoint := self._endpoints.next(tried | tries.barred):
                tried.add(endpoint)
                began = clock()
                try:
                    answer = self._try(endpoint, request, tries)
                except (TryAgain, Refused, SessionLost) as turn:
                    tries.go_on_after(turn, endpoint, began)
                else:
                    self._settled(endpoint, request, answer, span)
                    return answer
            tries.end_round()
            if tries.answered:
                self._look_around(tries.answered[-1], ASK_AGAIN_IN_NEED_SECONDS, span)
            backoff.pause()
            tries.check_time()
            tries.answered.clear()

    def ask(self, endpoint: str, request: Request, seconds: float) -> Answer:
        """Ask this endpoint alone, once. Raises NotSent, Broken, and what ``judge`` does."""
        answer = judge(request, self._connections.exchange(endpoint, request, seconds, seconds))
        if request.path == STATUS.path:
            self._endpoints.learn(endpoint, json_object(answer))
        return answer

    def _try(self, endpoint: str, request: Request, tries: _Tries) -> Answer:
        try:
            self._confirm(endpoint, min(SHARE * tries.span.left, ASK_SECONDS))
            limit = connect_limit = tries.span.left
            if len(self._endpoints.all()) > 1:
                connect_limit = CONNECT_SECONDS
                if request.resending is not Resending.UNSAFE:
                    limit = max(SHARE * limit, min(SHARE_SECONDS_MIN, limit))
            answer = self._connections.exchange(endpoint, request, limit, connect_limit)
        except NotSent as error:
            raise TryAgain(Unreachable(str(error)), connected=False) from None
        except Broken as error:
            # Where something else listens: that will not change while we wait.
            connected = not isinstance(error, NotHTTP)
            fate_open = request.resending is not Resending.HARMLESS
            unreachable = Unreachable(str(error))
            raise TryAgain(unreachable, connected=connected, fate_open=fate_open) from None
        tries.answered.append(endpoint)
        if request.path.startswith("/kv/"):
            self._endpoints.heard(answer)
        return judge(request, answer)

    def _confirm(self, endpoint: str, seconds: float) -> None:
        """See that who was not given to us is the member that others said is there."""
        if not self._endpoints.is_to_be_confirmed(endpoint):
            return
        try:
            self.ask(endpoint, STATUS, seconds)
        except (Broken, TryAgain, ClientError) as error:
            raise NotSent(f"{endpoint} does not say who it is: {error}") from None
        if self._endpoints.is_to_be_confirmed(endpoint):
            raise NotSent(f"{endpoint} is not who others said")

    def _settled(self, endpoint: str, request: Request, answer: Answer, span: Span) -> None:
        self._endpoints.answered(endpoint)
        if request.path == STATUS.path:
            self._endpoints.told_at = clock()
            self._endpoints.learn(endpoint, json_object(answer))
        elif self._looks_around and request.path.startswith("/kv/"):
            self._look_around(endpoint, ASK_AGAIN_SECONDS, span)

    def _look_around(self, endpoint: str, not_within_seconds: float, span: Span) -> None:
        """Have an endpoint tell who else is there, unless one did lately."""
        now = clock()
        if now < self._endpoints.told_at + not_within_seconds:
            return
        self._endpoints.told_at = now
        try:
            self.ask(endpoint, STATUS, min(span.left, ASK_SECONDS))
        except (NotSent, Broken, TryAgain, ClientError):
            return  # it was only good to know


class _Tries:
    """What the tries of one call came to so far."""

    def __init__(self, request: Request, span: Span) -> None:
        self.barred: set[str] = set()  # endpoints that would only say the same again
        self.answered: list[str] = []  # in this round
        self.span = span
        self._request = request
        self._last: ClientError | None = None
        self._ends = span.patience_ends
        self._forgotten_at = math.inf  # when the cluster may no longer recognize it
        self._fate_is_open = False
        self._needs = 0.0  # seconds that one more try should have

    def go_on_after(
        self, turn: TryAgain | Refused | SessionLost, endpoint: str, began: float
    ) -> None:
        """Take in how a try went; raises what the call comes to, if it is over."""
        if isinstance(turn, TryAgain):
            self._note(turn, endpoint, began)
        elif not self._fate_is_open:
            raise turn
        elif isinstance(turn, SessionLost):
            # The earlier try was done and forgotten, or never will be: no answer will tell.
            raise self._unknown(turn.error) from None
        else:
            self._last = turn
        self.check_time()

    def check_time(self) -> None:
        """Raise what stands if no time is left for another try."""
        ends = min(self._ends, self._forgotten_at)
        needs = 0.0 if self._fate_is_open else self._needs
        if self._last is not None and clock() + needs >= ends:
            raise self._error(self._last) from None

    def end_round(self) -> None:
        """Raise what stands if those that answered would only say it again."""
        settled = self.barred and self.barred.issuperset(self.answered)
        if settled and self._last is not None:
            raise self._error(self._last)

    def _note(self, again: TryAgain, endpoint: str, began: float) -> None:
        self._last = more_telling(self._last, again.error)
        if again.connected:
            self._ends = self.span.deadline
        if again.fate_open:
            self._open_fate(again.error, began)
        elif self._request.resending is not Resending.HARMLESS and again.connected:
            took = clock() - began
            whole = self.span.deadline - self.span.began
            self._needs = max(self._needs, MARGIN * took, RESERVE * whole)
        if again.elsewhere and not self._fate_is_open:
            self.barred.add(endpoint)

    def _open_fate(self, error: ClientError, began: float) -> None:
        if self._request.resending is Resending.UNSAFE:
            raise self._unknown(error) from None
        self._fate_is_open = True
        self.barred.clear()
        if "Idempotency-Key" in self._request.headers:
            self._forgotten_at = min(self._forgotten_at, began + KEY_SECONDS)

    def _error(self, last: ClientError) -> ClientError:
        return self._unknown(last) if self._fate_is_open else last

    def _unknown(self, last: ClientError) -> CommitUnknown:
        if isinstance(last, CommitUnknown):
            return last
        what = "the write" if isinstance(last, Unreachable) else "an earlier try"
        return CommitUnknown(f"{last}; {what} may have happened")
