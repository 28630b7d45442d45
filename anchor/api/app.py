"""The Falcon application: pure wiring, and the thin resources it wires."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import falcon

from anchor.api.answers import (
    TITLES,
    Answer,
    Problem,
    bad_request,
    json_answer,
    method_not_allowed,
    not_found,
    ok,
)
from anchor.api.asked import TERM_NAMES, Asked, TermFields
from anchor.api.bodies import read_body
from anchor.api.documents import wants_json
from anchor.api.keys import HOST, KEY_PREFIX, origin_form
from anchor.api.kv import KeyValues, value_too_large
from anchor.api.limits import Limits
from anchor.api.membership import (
    Join,
    MembershipChange,
    Promotion,
    Remove,
    Replacement,
    Transfer,
)
from anchor.api.sessions import Sessions
from anchor.api.snapshot import BackupOfAll

if TYPE_CHECKING:
    from falcon.routing import CompiledRouter

    from anchor.api.store import Store

App: TypeAlias = "falcon.App[falcon.Request, falcon.Response]"
Responder = Callable[..., None]

# Conditions by time, and those beside which they are to be ignored (RFC 9110 §13.1.3, §13.1.4).
_CONDITIONS = {"If-Modified-Since": "If-None-Match", "If-Unmodified-Since": "If-Match"}
_TERM_VARIABLES = [f"HTTP_{name.upper().replace('-', '_')}" for name in TERM_NAMES]


def create_app(
    store: Store, limits: Limits | None = None, key_values: KeyValues | None = None
) -> App:
    """Wire the API around a store. The worker brings its own ``key_values``, to share it."""
    limits = limits or Limits()
    key_values = key_values or KeyValues(store, limits)
    # Falcon takes any object with these two methods, but its annotations say CompiledRouter.
    router = cast("CompiledRouter", RawRouter(Keys(key_values, limits)))
    app: App = falcon.App(router=router, middleware=[HostRequired()])
    app.add_route("/status", Status(store))
    membership = store.membership
    app.add_route("/join", Change(Join(membership, limits), limits))
    app.add_route("/remove", Change(Remove(membership, limits), limits))
    replacement = Replacement(membership, limits)
    app.add_route("/members", SeenAndChanged(membership.members, replacement, limits))
    app.add_route("/members/{member_id}/promote", Promote(Promotion(membership, limits), limits))
    transfer = Transfer(membership, limits)
    app.add_route("/leader", SeenAndChanged(membership.leader, transfer, limits))
    app.add_route("/snapshot", BackupOfAll(store, limits))
    sessions = Sessions(store, limits)
    app.add_route("/sessions", Opening(sessions, limits))
    app.add_route("/sessions/{session}", Closing(sessions))
    app.add_route("/sessions/{session}/keepalive", Keeping(sessions, limits))
    app.add_route("/livez", Live())
    app.add_route("/readyz", Ready(store))
    app.add_error_handler(Exception, Failures(key_values))
    return app


class RawRouter:
    """Routes by the target as it was sent: Falcon's own router gets it decoded.

    The server must give it as ``RAW_URI``, as Gunicorn and Falcon's test client do.
    It also knows no unknown methods: any that a resource lacks is answered 405 with Allow.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._routes: dict[bytes, tuple[object, Methods]] = {}
        self._patterns: list[tuple[re.Pattern[bytes], object, Methods]] = []

    def add_route(self, uri_template: str, resource: object, **_: object) -> None:
        """Let a resource answer at a fixed path, or at one with a ``{name}`` in it."""
        pattern, names = re.subn(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(uri_template))
        if names:
            self._patterns.append((re.compile(pattern.encode()), resource, Methods(resource)))
        else:
            self._routes[uri_template.encode()] = (resource, Methods(resource))

    def find(
        self, _uri: str, req: falcon.Request
    ) -> tuple[object, Methods | AnyMethod, dict[str, Any], str] | None:
        """Return what Falcon asks of a router."""
        target = origin_form(req.env["RAW_URI"].encode("latin-1"))
        if target.startswith(KEY_PREFIX):
            return (self._keys, AnyMethod(self._keys.on_any), {"target": target}, "/kv/{key}")
        path = target.partition(b"?")[0]
        route = self._routes.get(path)
        if route is not None:
            return (*route, {}, "")
        for pattern, resource, methods in self._patterns:
            if found := pattern.fullmatch(path):
                names = {name: text.decode("latin-1") for name, text in found.groupdict().items()}
                return (resource, methods, names, "")
        if target == b"*" or req.method == "CONNECT":
            raise method_not_allowed(req.method, "GET, HEAD, PUT, POST, DELETE")
        raise not_found("there is no such route")


class Methods(dict[str, Responder]):
    """The methods of a resource, found by their names as in Falcon; HEAD is GET's shadow."""

    def __init__(self, resource: object) -> None:
        named = {
            method: getattr(resource, f"on_{method.lower()}", None)
            for method in ("GET", "POST", "DELETE")
        }
        super().__init__({name: responder for name, responder in named.items() if responder})
        if "GET" in self:
            self["HEAD"] = self["GET"]

    def __missing__(self, method: str) -> Responder:
        raise method_not_allowed(method, ", ".join(self))


class AnyMethod(dict[str, Responder]):
    """One responder for whatever method there is."""

    def __init__(self, responder: Responder) -> None:
        super().__init__()
        self._responder = responder

    def __missing__(self, method: str) -> Responder:
        return self._responder


class HostRequired:
    """RFC 9112 §3.2: an HTTP/1.1 request with no Host, or a malformed one, is answered 400."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Look before anything else happens."""
        host = req.env.get("HTTP_HOST")
        if host is None and req.env.get("SERVER_PROTOCOL") == "HTTP/1.1":
            raise bad_request("the Host header is missing")
        if host is not None and HOST.fullmatch(host.encode("latin-1")) is None:
            raise bad_request("the Host header is not a host")


class Failures:
    """Makes every exception an answer."""

    def __init__(self, key_values: KeyValues) -> None:
        self._key_values = key_values

    def __call__(
        self, _req: falcon.Request, resp: falcon.Response, error: Exception, _params: object
    ) -> None:
        """Answer."""
        send(self._key_values.refuse(error), resp)


class Keys:
    """``/kv/{key}``."""

    def __init__(self, key_values: KeyValues, limits: Limits) -> None:
        self._key_values = key_values
        self._limit = limits.max_value_bytes

    def on_any(self, req: falcon.Request, resp: falcon.Response, target: bytes) -> None:
        """Leave it to the code that the short path uses too."""
        if req.method not in {"GET", "HEAD"}:
            refuse_conditions(req)
        answer = self._key_values.handle(
            req.method.encode(),
            target,
            asked_of(req.env),
            lambda: body_of(req, value_too_large(self._limit), self._limit),
        )
        send(answer, resp)


class Change:
    """``/join`` and ``/remove``."""

    def __init__(self, change: MembershipChange, limits: Limits) -> None:
        self._change = change
        self._limit = limits.max_json_bytes

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Ask for the change, and answer once it is in force."""
        send(self._change(json_body_of(req, self._limit)), resp)


class SeenAndChanged(Change):
    """``/members`` and ``/leader``: how it is, and how it shall be."""

    def __init__(
        self, look: Callable[[], Mapping[str, object]], change: MembershipChange, limits: Limits
    ) -> None:
        super().__init__(change, limits)
        self._look = look

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Say how it is, as far as this node knows."""
        send(json_answer(self._look()), resp)


class Promote:
    """``/members/{member_id}/promote``."""

    def __init__(self, promotion: Promotion, limits: Limits) -> None:
        self._promotion = promotion
        self._limit = limits.max_json_bytes

    def on_post(self, req: falcon.Request, resp: falcon.Response, member_id: str) -> None:
        """Ask for the change, and answer once it is in force."""
        send(self._promotion(member_id, json_body_of(req, self._limit)), resp)


class Opening:
    """``/sessions``."""

    def __init__(self, sessions: Sessions, limits: Limits) -> None:
        self._sessions = sessions
        self._limit = limits.max_json_bytes

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Open one."""
        send(self._sessions.open(json_body_of(req, self._limit)), resp)


class Closing:
    """``/sessions/{session}``."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def on_delete(self, _req: falcon.Request, resp: falcon.Response, session: str) -> None:
        """Close it."""
        send(self._sessions.close(session), resp)


class Keeping:
    """``/sessions/{session}/keepalive``."""

    def __init__(self, sessions: Sessions, limits: Limits) -> None:
        self._sessions = sessions
        self._limit = limits.max_json_bytes

    def on_post(self, req: falcon.Request, resp: falcon.Response, session: str) -> None:
        """Start its ttl anew."""
        send(self._sessions.keep_alive(session, json_body_of(req, self._limit)), resp)


class Status:
    """``/status``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Say how things are."""
        send(json_answer(self._store.status()), resp)


class Live:
    """``/livez``: this process answers."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Say so."""
        send(ok(), resp)


class Ready:
    """``/readyz``: requests have a fair chance here."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Say whether this node is a member and knows a leader."""
        if self._store.status().get("role") == "removed":
            raise Problem(503, "removed", "this node was removed from its cluster")
        if self._store.leader_id is None:
            raise Problem(503, "no_leader", "no leader is known here", retryable=True)
        send(ok(), resp)


def asked_of(environ: Mapping[str, str]) -> Asked:
    """Gather what a request asks for."""
    consistency, accept, *terms = (
        None if value is None else value.encode("latin-1")
        for value in map(environ.get, ("HTTP_X_CONSISTENCY", "HTTP_ACCEPT", *_TERM_VARIABLES))
    )
    given = any(value is not None for value in terms)
    return Asked(consistency, wants_json(accept), TermFields(*terms) if given else None)


def body_of(req: falcon.Request, too_large: Problem, limit: int) -> bytes:
    """Read a request's body whole, within a limit."""
    declared = req.env.get("CONTENT_LENGTH")
    return read_body(req.env["wsgi.input"], int(declared) if declared else None, too_large, limit)


def json_body_of(req: falcon.Request, limit: int) -> bytes:
    """Read a body that is JSON, or nothing, whole."""
    too_large = Problem(413, "body_too_large", f"at most {limit} bytes make sense here")
    return body_of(req, too_large, limit)


def refuse_conditions(req: falcon.Request) -> None:
    """Refuse a write on unknown conditions: RFC 9110 §13.2.1 forbids to do it without looking."""
    for name, better in _CONDITIONS.items():
        if req.get_header(name) is not None and req.get_header(better) is None:
            raise Problem(501, "not_implemented", f"{name} is not supported; nothing was done")
    if req.get_header("Content-Range") is not None:
        raise bad_request("a part of a value cannot be written: Content-Range")


def send(answer: Answer, resp: falcon.Response) -> None:
    """Hand an answer to Falcon."""
    resp.status = f"{answer.status} {TITLES[answer.status]}"  # Falcon has names of its own
    for line in answer.headers.decode("latin-1").splitlines():
        name, _, value = line.partition(": ")
        resp.set_header(name, value)
    resp.data = answer.body
