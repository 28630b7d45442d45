"""A crash at each named point, again and again: ``python -m tests.cluster.crash --times 20``.

Three nodes write for clients; one of them dies at the point (:mod:`anchor.crash`), as leader or as
follower, and is started again. Then it has to hold what the majority holds, and every write that
was ever acknowledged has to be there.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anchor.crash import POINTS, VARIABLE
from tests.cluster.load import Writers, missing
from tests.cluster.processes import Cluster, eventually, running_cluster

if TYPE_CHECKING:
    from tests.cluster.processes import NodeProcess

CRASH_SECONDS = 90.0
UNSEATINGS = 3  # leaders asked to hand over until the victim leads, or dies of it
SAMPLE = 300  # keys of each round that are looked for
# Points that every write passes: they are passed some times before the crash.
HOT = ("append", "mark", "sync", "send", "promise", "apply")
# Points that a member passes when it takes a snapshot in, because the log it needs is gone.
LEFT_BEHIND = ("receive", "install", "switch")
# Points that no leader passes.
FOLLOWERS_ONLY = (*LEFT_BEHIND, "promise")
# Points that a node passes before it is a member: tests/storage has those.
NOT_HERE = ("create",)
# So that a few seconds of writes need several snapshots.
FLAGS = ("--snapshot-entries", "50", "--election-timeout", "500ms")


def points_of_a_member() -> list[str]:
    """Those that a member passes."""
    return [name for name in POINTS if not name.startswith(NOT_HERE)]


@dataclass
class Crashes:
    """One cluster, and the node that keeps dying."""

    cluster: Cluster
    chance: random.Random
    acknowledged: int = 0
    rounds: int = 0

    def crash_at(self, name: str, *, as_leader: bool) -> str:
        """Have a node die there under load, start it again, compare; returns its role."""
        self.rounds += 1
        victim = self._arm(name, patience=100 if as_leader else 10)
        with Writers(self.cluster, 3, f"{name}/{self.rounds}") as writers:
            unseat = as_leader and not name.startswith(FOLLOWERS_ONLY)
            role = self._die(victim, unseat=unseat or name.startswith("vote"))
            self._others_go_on(victim)
        victim.start()
        self.cluster.wait_until_whole()
        self.cluster.wait_until_caught_up()
        self._check(writers.acknowledged, victim)
        self.acknowledged += len(writers.acknowledged)
        return role

    def _arm(self, name: str, patience: int) -> NodeProcess:
        """Start a follower anew; it has some time to become leader if it needs ``patience``."""
        followers = [node for node in self.cluster.nodes if node is not self.cluster.leader()]
        victim = self.chance.choice(followers)
        nth = patience + self.chance.randrange(200) if name.startswith(HOT) else 1
        victim.kill()
        if name.startswith(LEFT_BEHIND):
            self._leave_behind(victim)
        victim.start(**{VARIABLE: f"{name}:{nth}"})
        return victim

    def _leave_behind(self, victim: NodeProcess) -> None:
        """Have the others write until they need what it lacks no more, and drop it."""
        others = [node for node in self.cluster.nodes if node is not victim]
        before = max(_status(node)["last_log_index"] for node in others)
        with Writers(self.cluster, 3, f"behind/{self.rounds}") as writers:
            eventually(
                "the log it needs is dropped",
                lambda: all(_status(node)["first_log_index"] > before for node in others),
            )
        self.acknowledged += len(writers.acknowledged)
        for node in others:  # a leader keeps in memory what its log has dropped
            node.kill()
            node.start()
        eventually("somebody leads", lambda: any(_leads(node) for node in others))

    def _die(self, victim: NodeProcess, *, unseat: bool) -> str:
        """Wait for its death; meanwhile the others may hand their leadership over."""
        deadline = time.monotonic() + CRASH_SECONDS
        role = "starting"
        attempts = UNSEATINGS if unseat else 0
        while not victim.has_ended:
            status = victim.status()
            assert time.monotonic() < deadline, f"the point was never reached: {status}"
            if status is not None:
                role = str(status["role"])
            if attempts and role == "follower" and self._unseat(victim):
                attempts -= 1
            time.sleep(0.02)
        assert victim.process is not None
        code, victim.process = victim.process.returncode, None
        said = victim.log_path.read_text()[-2000:]
        assert "ended by SIGKILL" in said, f"{victim.node_id} ended with {code}: {said}"
        return role

    def _unseat(self, victim: NodeProcess) -> bool:
        """Stop whoever leads, which hands over to another, maybe to the victim.

        False if the victim knows of no leader: it has just been started.
        """
        status = victim.status()
        for node in self.cluster.nodes:
            if status is not None and node.node_id == status["leader_id"] and node is not victim:
                assert node.stop() == 0
                node.start()
                eventually("it is back", lambda node=node: node.status())  # type: ignore[misc]
                return True
        return False

    def _others_go_on(self, victim: NodeProcess) -> None:
        node = next(node for node in self.cluster.nodes if node is not victim)
        eventually("the others go on", lambda: _put(node))

    def _check(self, acknowledged: list[str], victim: NodeProcess) -> None:
        """Through the victim all of them, through the others some."""
        for node in self.cluster.nodes:
            most = SAMPLE if node is victim else SAMPLE // 5
            keys = self.chance.sample(acknowledged, min(most, len(acknowledged)))
            keys += acknowledged[-20:]
            lost = missing(node, keys)
            assert not lost, f"{node.node_id} lost acknowledged writes: {lost[:5]}"


def _status(node: NodeProcess) -> dict[str, Any]:
    return eventually("it answers", node.status)


def _leads(node: NodeProcess) -> bool:
    status = node.status()
    return status is not None and status["role"] == "leader"


def _put(node: NodeProcess) -> bool:
    try:
        return node.request("PUT", "/kv/goes-on", b"x")[0] == 200
    except OSError:
        return False


def main() -> int:
    """Run the rounds asked for, each through all points, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="begin no round after")
    parser.add_argument("--points", default=",".join(points_of_a_member()))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    names = arguments.points.split(",")
    began = time.monotonic()
    roles: dict[str, Counter[str]] = {name: Counter() for name in names}
    with tempfile.TemporaryDirectory() as path, running_cluster(Path(path), 3, *FLAGS) as cluster:
        crashes = Crashes(cluster, random.Random(arguments.seed))
        for number in range(arguments.times):
            for name in names:
                if time.monotonic() - began > 60 * arguments.minutes:
                    break
                roles[name][crashes.crash_at(name, as_leader=number % 2 == 0)] += 1
            print(f"round {number + 1}: {time.monotonic() - began:.0f} s", flush=True)
    for name in names:
        seen = ", ".join(f"{count} as {role}" for role, count in sorted(roles[name].items()))
        print(f"{name:18} {roles[name].total():3} crashes ({seen}), all equal after")
    print(
        f"{crashes.rounds} crashes in {time.monotonic() - began:.0f} s, "
        f"{crashes.acknowledged} acknowledged writes, none missing"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
