"""A large answer, taken as it comes."""

from __future__ import annotations

import contextlib
import http.client
import time
from typing import TYPE_CHECKING, Self

from anchor.client.answers import TryAgain, judge, more_telling
from anchor.client.connections import Answer, NotSent, Request, connect, reason
from anchor.client.errors import ClientError, Unreachable

if TYPE_CHECKING:
    from types import TracebackType

    from anchor.client.client import Client
    from anchor.client.connections import Connection

RETRY_SECONDS = 0.25


class Download:
    """The body of an answer. Each wait for more of it ends after ``timeout`` seconds."""

    def __init__(
        self,
        endpoint: str,
        connection: Connection,
        response: http.client.HTTPResponse,
        timeout: float,
    ) -> None:
        self.endpoint = endpoint
        self._connection = connection
        self._response = response
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._response.close()
        self._connection.close()

    def read(self, size: int) -> bytes:
        """Give up to ``size`` bytes, none at the end; raises Unreachable if it breaks off."""
        try:
            self._connection.timed.deadline = time.monotonic() + self._timeout
            return self._response.read1(size)
        except TimeoutError:
            raise Unreachable(f"{self.endpoint} sends nothing more") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"{self.endpoint} broke off: {_reason(error)}") from None


def open_download(client: Client, request: Request) -> Download:
    """Ask the client's endpoints in turn until one begins to answer; raises a ClientError."""
    began = time.monotonic()
    deadline, give_up = began + client.timeout, began + min(client.timeout, client.patience)
    last: ClientError | None = None
    while True:
        for endpoint in client.endpoints:
            try:
                return _begin(endpoint, request, max(0.001, deadline - time.monotonic()))
            except NotSent as error:
                last = more_telling(last, Unreachable(str(error)))
            except TryAgain as again:
                last = more_telling(last, again.error)
                give_up = deadline
        if last is not None and time.monotonic() + RETRY_SECONDS >= give_up:
            raise last
        time.sleep(RETRY_SECONDS)


def _begin(endpoint: str, request: Request, timeout: float) -> Download:
    connection = connect(endpoint, timeout)
    try:
        connection.request(request.method, request.path, headers=dict(request.headers))
        response = connection.getresponse()
        if response.status != 200:  # then it is a problem, and judged by raising it
            judge(request, Answer(response.status, response.headers, response.read(1 << 16)))
        return Download(endpoint, connection, response, timeout)
    except TimeoutError:
        connection.close()
        raise TryAgain(Unreachable(f"{endpoint} did not answer in time")) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        raise TryAgain(Unreachable(f"{endpoint} broke off: {_reason(error)}")) from None
    except BaseException:
        with contextlib.suppress(OSError):
            connection.close()
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "it closed the connection in the middle"
    return reason(error)
