"""A small language for stories about a cluster, and the log each command leaves.

A transcript is text. ``# ...`` is the storyteller speaking, ``> ...`` a command, and the lines
below a command, up to the next blank line, comment or command, are what must happen because of
it. Everything happens in the order shown. The commands:

=============================  ================================================================
``cluster 3 [learners n4]``    three voters n1 n2 n3 (and learners), all freshly started
``cluster 3 uncached``         the same, and no entry stays in memory once it is stored
``elect n1``                   n1 is elected, its no-op applied everywhere; not shown
``add n4``                     one more server, which knows nothing and is no member
``tick n1 5``                  time passes for n1 alone (``all`` for everybody)
``tick n1 until candidate``    until it has that role
``deliver [n1 [n2]]``          messages (of n1, to n2) arrive, and what comes of them, until quiet
``run 5``                      five ticks for all, all messages arrive; messages are not shown
``cut n1 n2``, ``heal``        what n1 sends to n2 is lost (one way); all links whole again
``isolate n1``                 n1 is cut off both ways
``hold n1 n2``, ``release``    what n1 sends to n2 waits; it goes on
``lose``                       all messages under way are lost
``repeat``                     all messages under way arrive twice
``propose n1 x y``             n1 is asked to append the commands x and y
``read n1 why``, ``lease n1``  a read point, to be known as ``why``; whether a lease is valid
``transfer n1 n2``             n1 is asked to hand over to n2
``change n1 n1 n2 [learners]`` n1 is asked to make n1 and n2 the voters (and others learners)
``disk n1 slow`` / ``fast``    whether n1's disk waits for ``persist n1 [count]``
``crash n1``, ``restart n1``   the server loses what is not durable; it starts from its disk
``compact n1``                 n1 takes a snapshot and drops its log
``status``                     one line a server
=============================  ================================================================
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from anchor.raft import (
    AppendEntries,
    AppendEntriesResponse,
    EntryKind,
    InstallSnapshot,
    InstallSnapshotResponse,
    RaftError,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from tests.raft.harness import Cluster, configuration
from tests.raft.invariants import Checker
from tests.raft.network import between
from tests.raft.server import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anchor.raft import Configuration, Entry, Message, Ready
    from tests.raft.network import Which
    from tests.raft.server import Server


def entry_text(entry: Entry) -> str:
    """Say what an entry is: ``3@2 x`` is index 3, term 2, command x."""
    if entry.kind is EntryKind.COMMAND:
        text = entry.payload.decode()
    elif entry.kind is EntryKind.NOOP:
        text = "no-op"
    else:
        text = "configuration"
    return f"{entry.index}@{entry.term} {text}"


def configuration_text(agreed: Configuration) -> str:
    """Say who the members are."""
    text = " ".join(sorted(agreed.voters)) or "nobody"
    if agreed.voters_outgoing:
        text += " + outgoing " + " ".join(sorted(agreed.voters_outgoing))
    if agreed.learners:
        text += " + learners " + " ".join(sorted(agreed.learners))
    return text


def message_text(message: Message) -> str:
    """Say who says what to whom."""
    match message:
        case RequestVote():
            kind = "asks for a pre-vote" if message.pre_vote else "asks for a vote"
            by = ", as a transfer" if message.leadership_transfer else ""
            said = f"{kind} for term {message.term}, log ends {_last(message)}{by}"
        case RequestVoteResponse():
            kind = "pre-vote" if message.pre_vote else "vote"
            verb = "grants" if message.vote_granted else "refuses"
            said = f"{verb} the {kind}, term {message.term}"
        case AppendEntries():
            entries = ", ".join(entry_text(e) for e in message.entries) or "nothing"
            after = f"{message.prev_log_index}@{message.prev_log_term}"
            said = f"appends {entries} after {after}, commit {message.commit_index}"
        case AppendEntriesResponse(success=True):
            said = f"has all up to {message.match_index}"
        case AppendEntriesResponse():
            said = f"refuses what follows {message.rejected_index}, term {message.term}"
        case InstallSnapshot():
            at = message.snapshot
            said = f"sends a snapshot up to {at.last_included_index}@{at.last_included_term}"
        case InstallSnapshotResponse():
            said = f"has the snapshot, up to {message.match_index}"
        case TimeoutNow():
            said = "says: campaign now"
        case _:
            said = repr(message)
    return f"{message.sender} -> {message.recipient}: {said}"


def _last(message: RequestVote) -> str:
    return f"{message.last_log_index}@{message.last_log_term}"


class Chronicle(Checker):
    """Writes down what servers do, in words."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._known: dict[str, tuple[object, ...]] = {}

    def take(self) -> list[str]:
        """Give what was written since last asked."""
        lines, self.lines = self.lines, []
        return lines

    def ready(self, server: Server, ready: Ready) -> None:
        """Write what is to be written, installed and answered."""
        self._note_role(server)
        if ready.snapshot is not None:
            at = ready.snapshot.snapshot.last_included_index
            self.lines.append(f"  {server.id} installs the snapshot up to {at}")
        if ready.entries:
            entries = ", ".join(entry_text(e) for e in ready.entries)
            self.lines.append(f"  {server.id} writes {entries}")
        for read in ready.reads:
            self.lines.append(f"  {server.id} may serve {read.context} at {read.index}")
        for context in ready.aborted_reads:
            self.lines.append(f"  {server.id} cannot answer {context}")

    def applied(self, server: Server, entry: Entry) -> None:
        """Write what is applied."""
        self.lines.append(f"  {server.id} applies {entry_text(entry)}")

    def changed(self, server: Server) -> None:
        """Write who is what now."""
        self._note_role(server)

    def _note_role(self, server: Server) -> None:
        raft = server.raft
        role = raft.role.value.replace("_", "-")
        now = (role, raft.term, raft.leader_id)
        if self._known.get(server.id, now) != now:
            leader = f" of {raft.leader_id}" if raft.leader_id not in (None, server.id) else ""
            self.lines.append(f"  {server.id} is {role}{leader} in term {raft.term}")
        self._known[server.id] = now


def _link(ids: Sequence[str]) -> Which:
    """Match what the first id sends, to the second where there is one."""
    sender, recipient, *_ = [*ids, None, None]
    return between(sender, recipient)


class Story:
    """A cluster that obeys a transcript's commands."""

    def __init__(self) -> None:
        self.cluster = Cluster(1)
        self.chronicle = Chronicle()
        self.verbs: dict[str, Callable[[list[str]], object]] = {
            "cluster": self._cluster,
            "elect": self._elect,
            "add": lambda ids: self._watch([self.cluster.add(i) for i in ids]),
            "tick": self._tick,
            "deliver": self._deliver,
            "run": lambda words: self.cluster.run(int(words[0])),
            "cut": lambda ids: self.cluster.network.cut(*ids),
            "heal": lambda _: self.cluster.heal(),
            "isolate": lambda ids: self.cluster.isolate(*ids),
            "hold": lambda ids: self.cluster.network.hold(_link(ids)),
            "release": lambda _: self.cluster.network.release(),
            "lose": lambda _: self.cluster.network.drop(),
            "repeat": lambda _: self.cluster.network.duplicate(),
            "propose": lambda words: self._server(words).propose(
                *[word.encode() for word in words[1:]]
            ),
            "read": self._read,
            "lease": self._lease,
            "transfer": lambda ids: self._server(ids).transfer_leadership(ids[1]),
            "change": self._change,
            "disk": lambda words: setattr(self._server(words), "auto_persist", words[1] == "fast"),
            "persist": lambda words: self._server(words).persist(*map(int, words[1:])),
            "crash": lambda ids: self.cluster.crash(*ids),
            "restart": lambda ids: self.cluster.restart(*ids),
            "compact": lambda ids: self._server(ids).compact(),
            "status": lambda _: self._status(),
        }

    def obey(self, command: str) -> list[str]:
        """Do what ``command`` says; gives what happened."""
        verb, *words = command.split()
        try:
            self.verbs[verb](words)
        except RaftError as error:
            self.chronicle.lines.append(f"  refused: {type(error).__name__}")
        return self.chronicle.take()

    def _server(self, words: Sequence[str]) -> Server:
        return self.cluster[words[0]]

    def _watch(self, servers: Sequence[Server]) -> None:
        for server in servers:
            server.watchers = [*server.watchers, self.chronicle]
            self.chronicle.changed(server)

    def _cluster(self, words: list[str]) -> None:
        options = OPTIONS
        if words[-1] == "uncached":
            words, options = words[:-1], replace(OPTIONS, max_log_cache_bytes=0)
        self.cluster = Cluster(int(words[0]), learners=words[2:], options=options)
        self._watch(self.cluster.up())

    def _elect(self, words: list[str]) -> None:
        self.cluster.elect(words[0])
        self.cluster.run(4)
        self.chronicle.take()

    def _tick(self, words: list[str]) -> None:
        if words[0] == "all":
            self.cluster.tick(int(words[1]))
        elif words[1] == "until":
            server = self._server(words)
            for _ in range(100):
                if server.raft.role.value == words[2].replace("-", "_"):
                    return
                server.tick()
            raise AssertionError(f"{words[0]} never became {words[2]}")
        else:
            self._server(words).tick(int(words[1]))

    def _deliver(self, ids: list[str]) -> None:
        while (message := self.cluster.network.next(_link(ids))) is not None:
            self.chronicle.lines.append(message_text(message))
            self.cluster.hand_over(message)

    def _read(self, words: list[str]) -> None:
        server = self._server(words)
        self.cluster.invariants.reads.asked(server, words[1])
        server.read_index(words[1])

    def _lease(self, words: list[str]) -> None:
        valid = self.cluster.invariants.reads.lease(self._server(words))
        self.chronicle.lines.append(f"  {words[0]} has {'a' if valid else 'no'} lease")

    def _change(self, words: list[str]) -> None:
        leader, *members = words
        split = members.index("learners") if "learners" in members else len(members)
        target = configuration(members[:split], learners=members[split + 1 :])
        self.cluster[leader].propose_configuration(target)

    def _status(self) -> None:
        for server in self.cluster.servers.values():
            if not server.up:
                self.chronicle.lines.append(f"  {server.id} is down")
                continue
            raft, written = server.raft, server.disk.written
            log = " ".join(str(term) for term in server.log_terms()) or "empty"
            self.chronicle.lines.append(
                f"  {server.id} {raft.role.value.replace('_', '-')} term {raft.term}"
                f" log from {written.first_index}: {log}; commit {raft.commit_index};"
                f" {configuration_text(raft.configuration)}"
            )


def play(text: str) -> str:
    """Obey all commands of ``text``; gives the text as it should read."""
    story = Story()
    lines: list[str] = []
    in_log = False
    for line in text.splitlines():
        if line.startswith("> "):
            lines += [line, *story.obey(line[2:])]
            in_log = True
        elif not line or line.startswith("#"):
            lines.append(line)
            in_log = False
        else:
            assert in_log, f"neither command, comment nor log: {line!r}"
    return "\n".join(lines) + "\n"
