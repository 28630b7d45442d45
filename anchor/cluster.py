"""``--cluster N``: several nodes on this machine, as children of one supervisor.

Only a way to try things out: each child is an ordinary node with its own directory, and the same
command starts them again with their data. The supervisor itself knows nothing of Raft. It starts
the children, passes their output on, tells how to talk to them once all are ready, and stops all
when told to.

All that happens (a signal, a child's end, readiness) arrives as an event in one mailbox, and the
main thread alone decides.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anchor import startup
from anchor.children import Child, Mailbox, Printer, describe_exit
from anchor.client import Client, ClientError
from anchor.logs import wants_colour
from anchor.options import SUPERVISED_VARIABLE
from anchor.startup import StartError
from anchor.usage import program_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anchor.plan import RunCluster
    from anchor.settings import Settings

OK, ERROR = 0, 1
STOP_SECONDS = 10.0
SECOND_CTRL_C_SECONDS = 0.3
POLL_SECONDS = 0.1
SLOW_START_SECONDS = 15.0

_STOPPERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95")


def run(plan: RunCluster) -> int:
    """Run the nodes until told to stop, and return the exit code."""
    startup.check_cluster(plan)
    return Supervisor(plan, node_command()).run()


def node_command() -> list[str]:
    """Build the command line that starts this same program again."""
    program = sys.argv[0]
    if os.path.basename(program) == "__main__.py":  # noqa: PTH119 - argv may be anything, and is only compared
        return [sys.executable, "-m", "anchor"]
    return [sys.executable, program]


def arguments_for(node: Settings, peers: Sequence[str]) -> list[str]:
    """Write a node's settings as flags: all of them, so that nothing else can decide."""
    flags = {
        "id": node.node_id,
        "port": node.port,
        "http-port": node.http_port,
        "dir": node.directory,
        "host": node.host,
        "advertise": node.address,
        "http-advertise": node.http_address,
        "election-timeout": node.election_timeout_ms,
        "heartbeat": node.heartbeat_ms,
        "request-timeout": node.request_timeout_ms,
        "max-value-bytes": node.max_value_bytes,
        "max-sessions": node.max_sessions,
        "snapshot-entries": node.snapshot_entries,
        "snapshot-bytes": node.snapshot_bytes,
        "snapshot-rate": node.snapshot_rate,
        "quota-bytes": node.quota_bytes,
        "log-level": node.log_level,
        "log-format": "json" if node.log_format == "json" else "text",
    }
    if peers:
        flags["peers"] = ",".join(peers)
    return [f"--{name}={value}" for name, value in flags.items()]


def peers_of(node: Settings, nodes: Sequence[Settings]) -> list[str]:
    """Whom a node asks to be let in.

    The first node asks nobody, so that it founds the cluster; but not where its data is gone and
    others have theirs: then a second cluster under the same name would be the worst outcome.
    """
    others = [other for other in nodes if other is not node]
    first = node is nodes[0]
    if first and (_has_data(node) or not any(_has_data(other) for other in others)):
        return []
    return [other.address for other in others]


def _has_data(node: Settings) -> bool:
    try:
        return any(node.directory.iterdir())
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class _Told:
    """A signal came."""

    number: int


@dataclass(frozen=True, slots=True)
class _Ended:
    """A child ended."""

    child: Child


@dataclass(frozen=True, slots=True)
class _Ready:
    """All nodes are members and know one leader."""

    leader: str


@dataclass(frozen=True, slots=True)
class _Slow:
    """They still are not ready; ``why`` says what is missing."""

    why: str


@dataclass(frozen=True, slots=True)
class _OutputBroken:
    """Nobody reads our output any more."""


@dataclass(slots=True)
class Supervisor:
    """Starts the children and sees them to their end."""

    plan: RunCluster
    command: Sequence[str]
    _events: Mailbox = field(default_factory=Mailbox)
    _children: list[Child] = field(default_factory=list)
    _running: set[str] = field(default_factory=set)  # names of those not yet seen to end
    _printer: Printer = field(init=False)
    _colour: bool = False
    _started: float = field(default_factory=time.monotonic)
    _ready: bool = False
    _stopped_at: float = 0.0
    _stop_by: float | None = None
    _failed: bool = False

    def run(self) -> int:
        """Start, supervise, stop; return the exit code."""
        self._colour = sys.stdout.isatty() and wants_colour(os.environ)
        self._printer = Printer(sys.stdout.buffer, lambda: self._events.put(_OutputBroken()))
        for number in _STOPPERS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started to outlive its terminal (nohup)
            signal.signal(number, lambda number, _: self._events.put(_Told(number)))
        self._events.listen_to_signals()
        try:
            self._start()
            while self._running:
                self._handle(self._next_event())
        finally:
            for child in self._children:
                child.kill()
            for number in _STOPPERS:
                signal.signal(number, signal.SIG_IGN)  # all that is left to do is to end
            self._events.close()
            for child in self._children:
                child.finish_output(1.0)
            self._printer.finish(2.0)
        return ERROR if self._failed else OK

    def _start(self) -> None:
        environ = _environment_for_children(os.environ, colour=self._colour)
        decided = [(node, peers_of(node, self.plan.nodes)) for node in self.plan.nodes]
        for node, peers in decided:
            command = [*self.command, *arguments_for(node, peers)]
            try:
                self._children.append(Child(node.node_id, command, environ))
            except OSError as error:
                raise StartError(f"{command[0]}: cannot be started: {error}.") from None
            self._running.add(node.node_id)
        # Threads only now: a child must not be forked from a process that has several.
        self._printer.start()
        for child in self._children:
            child.watch(self._pass_on, lambda child: self._events.put(_Ended(child)))
        threading.Thread(target=self._await_readiness, daemon=True, name="readiness").start()

    def _next_event(self) -> object:
        timeout = None if self._stop_by is None else max(0.0, self._stop_by - time.monotonic())
        return self._events.get(timeout)

    def _handle(self, event: object) -> None:
        match event:
            case _Told() | _OutputBroken() if self._stop_by is None:
                self._stop("stopping; Ctrl-C once more kills")
            case _Told(signal.SIGINT) if self._is_second_thought():
                self._kill("killed")
            case None:
                self._kill(f"killed what had not stopped after {STOP_SECONDS:.0f} s")
            case _Ended(child):
                self._child_ended(child)
            case _Ready(leader) if self._stop_by is None:
                self._ready = True
                self._welcome(leader)
            case _Slow(why) if self._stop_by is None:
                self._say(f"not ready yet: {why}")

    def _stop(self, why: str) -> None:
        self._say(why)
        self._stopped_at = time.monotonic()
        self._stop_by = self._stopped_at + STOP_SECONDS
        for child in self._children:
            child.stop()

    def _is_second_thought(self) -> bool:
        """Whether a person pressed Ctrl-C again. Wrappers like timeout(1) send a signal twice."""
        return time.monotonic() > self._stopped_at + SECOND_CTRL_C_SECONDS

    def _kill(self, why: str) -> None:
        if self._running:
            self._say(why)
            self._failed = True
        self._stop_by = time.monotonic() + STOP_SECONDS
        for child in self._children:
            child.kill()

    def _child_ended(self, child: Child) -> None:
        self._running.discard(child.name)
        code = child.exit_code or 0
        if self._stop_by is not None:
            if code != 0 and not self._failed:
                self._failed = True
                self._say(f"{child.name} {describe_exit(code)} while stopping")
            return
        running = len(self._running)
        if not self._ready:
            self._failed = True
            self._stop(f"{child.name} {describe_exit(code)} before all were ready; stopping")
        elif running == 0:
            self._failed = True
            self._say(f"{child.name} {describe_exit(code)}; none is left")
        else:
            majority = len(self._children) // 2 + 1
            rest = "the others go on" if running >= majority else "too few are left for a majority"
            self._say(f"{child.name} {describe_exit(code)}; {rest}")

    # ----------------------------------------------------------------- readiness

    def _await_readiness(self) -> None:
        """Ask every node until all agree; runs in its own thread."""
        nodes = self.plan.nodes
        slow_at = self._started + SLOW_START_SECONDS
        with Client([node.http_address for node in nodes], sessions=False) as client:
            while True:
                answers = {node.node_id: _ask(client, node) for node in nodes}
                why = what_is_missing(answers)
                if not why:
                    leaders = {str(answer["leader_id"]) for answer in answers.values() if answer}
                    self._events.put(_Ready(leaders.pop()))
                    return
                if time.monotonic() > slow_at:
                    self._events.put(_Slow(why))
                    slow_at = time.monotonic() + SLOW_START_SECONDS
                time.sleep(POLL_SECONDS)

    def _welcome(self, leader: str) -> None:
        nodes = self.plan.nodes
        first, last = nodes[0].http_address, nodes[-1].http_address
        endpoints = ",".join(node.http_address for node in nodes)
        program = program_name(sys.argv[0])
        seconds = time.monotonic() - self._started
        for line in (
            f"anchor: {len(nodes)} nodes are ready after {seconds:.1f} s; {leader} leads. Try:",
            f"  curl -X POST http://{first}/kv/mykey -d 'myvalue'",
            f"  curl http://{last}/kv/mykey",
            f"  {program} put mykey myvalue --endpoints {first}",
            f"  {program} get mykey --endpoints {last}",
            f"  {program} status --endpoints {endpoints}",
            f"anchor: Ctrl-C stops them, the same command goes on with {self.plan.directory}/.",
        ):
            self._printer.line(line.encode(errors="backslashreplace"))

    # ----------------------------------------------------------------- output

    def _pass_on(self, child: Child, line: bytes) -> None:
        if self.plan.nodes[0].log_format == "json":
            self._printer.line(line)  # each line names its node, and stays a JSON text
            return
        self._printer.line(self._prefix(child.name) + line)

    def _prefix(self, name: str) -> bytes:
        width = len(self.plan.nodes[-1].node_id)
        text = f"{name:<{width}} |"
        if self._colour:
            names = [node.node_id for node in self.plan.nodes]
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            text = f"\x1b[{colour}m{text}\x1b[0m"
        return f"{text} ".encode()

    def _say(self, line: str) -> None:
        self._printer.line(f"anchor: {line}".encode(errors="backslashreplace"))


def _environment_for_children(environ: Mapping[str, str], *, colour: bool) -> dict[str, str]:
    """All but our own variables: the flags say it all, and ANCHOR_CLUSTER would contradict."""
    kept = {name: value for name, value in environ.items() if not name.startswith("ANCHOR_")}
    return {**kept, SUPERVISED_VARIABLE: "colour" if colour else "plain"}


def _ask(client: Client, node: Settings) -> dict[str, Any] | None:
    try:
        return client.status(node.http_address, timeout=1.0)
    except ClientError:
        return None


def what_is_missing(answers: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Say why the nodes are not one whole cluster yet; empty when they are."""
    silent = [name for name, answer in answers.items() if answer is None]
    if silent:
        return f"no answer from {', '.join(silent)}"
    known = {name: answer for name, answer in answers.items() if answer is not None}
    leaderless = [name for name, answer in known.items() if not answer.get("leader_id")]
    if leaderless:
        return f"no leader is seen by {', '.join(leaderless)}"
    if len({answer["leader_id"] for answer in known.values()}) > 1:
        return "they do not agree on a leader"
    for name, answer in known.items():
        absent = set(answers) - _voters(name, answer)
        if absent:
            return f"{name} does not count {', '.join(sorted(absent))} as a voting member"
    return ""


def _voters(name: str, answer: Mapping[str, Any]) -> set[str]:
    peers = answer.get("peers")
    found = {
        str(peer.get("id"))
        for peer in (peers if isinstance(peers, list) else [])
        if isinstance(peer, dict) and peer.get("role") != "learner"
    }
    return found | ({name} if answer.get("role") not in {"learner", "joining"} else set())
