"""The supervisor of ``--cluster``, over children that only look like nodes."""

from __future__ import annotations

import os
import pty
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from anchor.cluster import arguments_for, peers_of, what_is_missing
from anchor.plan import RunCluster, RunNode, plan_for
from tests.cli.processes import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

SUPERVISE = [sys.executable, "-m", "tests.cli.supervise"]
SECONDS = 30.0


def free_ports(count: int) -> int:
    """Find the first of so many ports in a row that nobody listens on.

    They lie below those that the kernel hands out to connections, which come and go all the time.
    """
    while True:
        first = random.SystemRandom().randrange(11_000, 32_000)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


class Supervised:
    """A supervisor at work. ``until(text)`` waits for a line of its output."""

    def __init__(
        self,
        directory: Path,
        *flags: str,
        size: int = 3,
        first: int | None = None,
        **environ: str,
    ) -> None:
        self.directory = directory
        self.first = first or free_ports(2 * size)
        self.http_port = self.first + size
        self.lines: list[str] = []
        ids = " ".join(f"node{number + 1}" for number in range(size))
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            [
                *SUPERVISE, f"--cluster={size}", f"--port={self.first}",
                f"--http-port={self.http_port}", f"--dir={directory}", *flags,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=environment(FAKE_IDS=ids, **environ),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in self.pids():
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def until(self, text: str) -> str:
        """Return the first line with this text in it, once it is there."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._news:
            self._news.wait_for(lambda: found() or self._ended, SECONDS)
            assert found(), f"no {text!r} in {self.lines}"
            return found()[0]

    def end(self) -> int:
        """Wait for its exit code."""
        code = self.process.wait(SECONDS)
        self._reader.join()
        return code

    def pids(self) -> list[int]:
        """The processes of all children."""
        return [int(path.read_text()) for path in self.directory.glob("node*/pid")]


def is_alive(pid: int) -> bool:
    """Whether a process is there and not merely unburied."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_gone(pids: list[int]) -> None:
    """Other processes cannot tell us when they end."""
    deadline = time.monotonic() + SECONDS
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still alive: {pids}"
        time.sleep(0.01)


# --------------------------------------------------------------------- the plain course


def test_all_nodes_start_get_ready_and_stop_cleanly_by_one_signal(tmp_path: Path) -> None:
    """Prefixed lines, a welcome with what to type, exit code 0, nobody left."""
    with Supervised(tmp_path) as cluster:
        cluster.until("3 nodes are ready")
        cluster.until(f"curl -X POST http://127.0.0.1:{cluster.http_port}/kv/mykey -d 'myvalue'")
        cluster.until("status --endpoints 127.0.0.1:")
        pids = cluster.pids()
        assert len(pids) == 3
        cluster.process.send_signal(signal.SIGINT)
        assert cluster.end() == 0
        assert not any(is_alive(pid) for pid in pids)
        for node in ("node1", "node2", "node3"):
            assert f"{node} | {node} stops" in cluster.lines
    first, second = f"127.0.0.1:{cluster.first}", f"127.0.0.1:{cluster.first + 1}"
    assert "node1 | node1 starts with peers none" in cluster.lines
    assert f"node3 | node3 starts with peers {first},{second}" in cluster.lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_to_stop_are_obeyed_too(tmp_path: Path, number: signal.Signals) -> None:
    """A service manager's, and the terminal's last."""
    with Supervised(tmp_path, size=2) as cluster:
        cluster.until("ready")
        cluster.process.send_signal(number)
        assert cluster.end() == 0


def test_a_terminals_ctrl_c_reaches_each_child_once(tmp_path: Path) -> None:
    """It goes to the foreground group, which children are not in; they get SIGTERM from us."""
    terminal, end = pty.openpty()
    first = free_ports(4)
    process = subprocess.Popen(
        [
            *SUPERVISE,
            "--cluster=2",
            f"--port={first}",
            f"--http-port={first + 2}",
            f"--dir={tmp_path}",
        ],
        stdin=end,
        stdout=end,
        stderr=end,
        cwd=ROOT,
        env=environment(FAKE_IDS="node1 node2", TERM="xterm"),
        preexec_fn=lambda: _own_terminal(end),  # noqa: PLW1509 - the child touches no lock of ours
    )
    os.close(end)
    try:
        said = b""
        while b"ready" not in said:
            said += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        try:
            while chunk := os.read(terminal, 4096):
                said += chunk
        except OSError:  # the last process has closed its end
            pass
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert b"heard the terminal" not in said
    assert said.count(b" stops\r\n") == 2
    assert b"\x1b[36mnode1 |\x1b[0m " in said


def _own_terminal(end: int) -> None:
    import fcntl  # noqa: PLC0415
    import termios  # noqa: PLC0415

    os.setsid()
    fcntl.ioctl(end, termios.TIOCSCTTY, 0)


def test_the_same_command_starts_them_again(tmp_path: Path) -> None:
    """With the data, so the first node founds nothing new."""
    first = None
    for _ in range(2):
        with Supervised(tmp_path, size=2, first=first) as cluster:
            first = cluster.first
            cluster.until("2 nodes are ready")
            cluster.process.send_signal(signal.SIGTERM)
            assert cluster.end() == 0
            assert "node1 | node1 starts with peers none" in cluster.lines


# --------------------------------------------------------------------- trouble


def test_a_child_that_fails_before_all_are_ready_stops_all(tmp_path: Path) -> None:
    """Exit code 1, and its own words stand above ours."""
    with Supervised(tmp_path, FAKE_node2="crash") as cluster:
        assert cluster.end() == 1
        cluster.until("node2 | node2 crashes")
        cluster.until("anchor: node2 exited with 1 before all were ready; stopping")
        assert not any(is_alive(pid) for pid in cluster.pids())


def test_a_child_that_ends_later_leaves_the_others_running(tmp_path: Path) -> None:
    """It is said, with what it means for the majority; stopping is still clean."""
    with Supervised(tmp_path) as cluster:
        cluster.until("ready")
        crash(cluster.http_port + 1)
        cluster.until("anchor: node2 exited with 7; the others go on")
        crash(cluster.http_port + 2)
        cluster.until("anchor: node3 exited with 7; too few are left for a majority")
        cluster.process.send_signal(signal.SIGTERM)
        assert cluster.end() == 0


def test_when_no_child_is_left_the_supervisor_ends_too(tmp_path: Path) -> None:
    """There is nothing to wait for; exit code 1."""
    with Supervised(tmp_path, size=2) as cluster:
        cluster.until("ready")
        for pid in cluster.pids():
            os.kill(pid, signal.SIGKILL)
        assert cluster.end() == 1
        cluster.until("was killed by SIGKILL; none is left")


def crash(http_port: int) -> None:
    """Make a fake child end by itself."""
    with pytest.raises(OSError, match=r"."):
        urllib.request.urlopen(f"http://127.0.0.1:{http_port}/crash", timeout=SECONDS)


def test_a_child_that_will_not_stop_is_killed_after_a_while(tmp_path: Path) -> None:
    """With all that it started; the exit code tells."""
    with Supervised(
        tmp_path, size=2, FAKE_node1="stubborn grandchild", FAKE_STOP_SECONDS="0.3"
    ) as cluster:
        cluster.until("ready")
        grandchild = int((tmp_path / "node1/grandchild").read_text())
        cluster.process.send_signal(signal.SIGTERM)
        assert cluster.end() == 1
        cluster.until("killed what had not stopped")
        wait_until_gone([*cluster.pids(), grandchild])


def test_a_second_ctrl_c_kills_at_once(tmp_path: Path) -> None:
    """For whoever cannot wait."""
    with Supervised(tmp_path, size=2, FAKE_node1="stubborn") as cluster:
        cluster.until("ready")
        cluster.process.send_signal(signal.SIGINT)
        cluster.until("node2 stops")
        cluster.process.send_signal(signal.SIGINT)  # in vain, if it comes too soon
        while cluster.process.poll() is None:
            cluster.process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert cluster.end() == 1
        cluster.until("anchor: killed")


def test_a_signal_sent_twice_by_a_wrapper_is_one_stop(tmp_path: Path) -> None:
    """timeout(1) and process managers signal the process and then its group."""
    with Supervised(tmp_path, size=2) as cluster:
        cluster.until("ready")
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            cluster.process.send_signal(number)
        assert cluster.end() == 0


def test_a_child_that_fails_while_stopping_is_told(tmp_path: Path) -> None:
    """A stop that was not clean is no success."""
    with Supervised(tmp_path, size=2, FAKE_node2="sulky") as cluster:
        cluster.until("ready")
        cluster.process.send_signal(signal.SIGTERM)
        assert cluster.end() == 1
        cluster.until("anchor: node2 exited with 3 while stopping")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_children_do_not_outlive_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    """Even by kill -9, which it cannot see coming."""
    with Supervised(tmp_path) as cluster:
        cluster.until("ready")
        pids = cluster.pids()
        cluster.process.kill()
        wait_until_gone(pids)


def test_long_and_unfinished_lines_arrive(tmp_path: Path) -> None:
    """In pieces where they are very long."""
    with Supervised(tmp_path, size=2, FAKE_node1="chatty") as cluster:
        cluster.until("ready")
        cluster.process.send_signal(signal.SIGTERM)
        assert cluster.end() == 0
        assert sum(line.count("x") for line in cluster.lines if "xxxx" in line) == 200_000
        cluster.until("node1 | no end of line")


def test_a_reader_that_goes_away_stops_the_cluster(tmp_path: Path) -> None:
    """As in ``--cluster 3 | head``."""
    with Supervised(tmp_path, size=2) as cluster:
        cluster.until("ready")
        pids = cluster.pids()
        writer = subprocess.Popen(
            [*SUPERVISE, "--cluster=2", f"--port={(port := free_ports(4))}",
             f"--http-port={port + 2}", f"--dir={tmp_path / 'other'}"],
            stdout=subprocess.PIPE, cwd=ROOT, env=environment(FAKE_IDS="node1 node2"),
        )  # fmt: skip
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.stdout.close()
        assert writer.wait(SECONDS) == 0
        cluster.process.send_signal(signal.SIGTERM)
        assert cluster.end() == 0
        wait_until_gone(pids)


# --------------------------------------------------------------------- before the start


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is in use, with enough free ones behind it."""
    while True:
        first = free_ports(6)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", first + 1))
            except OSError:
                continue
            listener.listen()
            yield first
            return


def test_all_that_stands_against_a_start_is_told_at_once(tmp_path: Path, taken: int) -> None:
    """Ports in use and data of more nodes; nothing has been started."""
    (tmp_path / "node3").mkdir()
    done = subprocess.run(
        [*SUPERVISE, "--cluster=2", f"--port={taken}", f"--http-port={taken + 4}",
         f"--dir={tmp_path}"],
        capture_output=True, text=True, cwd=ROOT, env=environment(), check=False, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        (
            f"anchor: 127.0.0.1:{taken + 1}: the port is in use. "
            "Stop what listens there, or give another --port."
        ),
        (
            f"anchor: --cluster 2: {tmp_path} holds the data of node3 too. "
            "Give --cluster 3, or another --dir."
        ),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node3"]


def test_nodes_do_not_move_to_other_ports_between_starts(tmp_path: Path) -> None:
    """They know each other by address, and would look for each other in vain."""
    with Supervised(tmp_path, size=2) as cluster:
        cluster.until("ready")
        cluster.process.send_signal(signal.SIGTERM)
        assert cluster.end() == 0
    with Supervised(tmp_path, size=2) as again:
        assert again.end() == 1
    (line,) = again.lines
    assert line == (
        f"anchor: --port {again.first}: node1 in {tmp_path} is known to the others at "
        f"127.0.0.1:{cluster.first}, not at 127.0.0.1:{again.first}. "
        "Give the --port and --host of the first start, or another --dir."
    )


# --------------------------------------------------------------------- what children are told


def planned(*words: str) -> RunCluster:
    """Plan a cluster."""
    made = plan_for(["--cluster", "3", *words], {}, "anchor")
    assert isinstance(made, RunCluster)
    return made


def test_a_childs_flags_mean_exactly_the_settings_planned_for_it() -> None:
    """Whatever the supervisor was told reaches the child unchanged."""
    made = planned(
        "--heartbeat=50", "--max-value-bytes=2MiB", "--max-sessions=7", "--host=::",
        "--log-format=text",
    )  # fmt: skip
    node = made.nodes[1]
    again = plan_for(arguments_for(node, []), {}, "anchor")
    assert isinstance(again, RunNode)
    assert again.settings == node


def test_children_write_json_if_that_was_asked_for() -> None:
    """Else text, as the supervisor's prefix is for people."""
    assert "--log-format=json" in arguments_for(planned("--log-format=json").nodes[0], [])
    assert "--log-format=text" in arguments_for(planned().nodes[0], [])


def test_the_first_node_founds_the_cluster_unless_only_its_data_is_gone(tmp_path: Path) -> None:
    """Else it would found a second one beside that of the others."""
    nodes = planned(f"--dir={tmp_path}").nodes
    others = [nodes[1].address, nodes[2].address]
    assert peers_of(nodes[0], nodes) == []
    assert peers_of(nodes[2], nodes) == [nodes[0].address, nodes[1].address]
    (tmp_path / "node2").mkdir()
    assert peers_of(nodes[0], nodes) == []
    (tmp_path / "node2" / "x").write_text("")
    assert peers_of(nodes[0], nodes) == others
    (tmp_path / "node1").mkdir()
    (tmp_path / "node1" / "x").write_text("")
    assert peers_of(nodes[0], nodes) == []


def test_readiness_is_one_leader_and_every_node_a_voter() -> None:
    """What is missing is put in words."""

    def answer(leader: str | None, *ids: str, role: str = "follower") -> dict[str, object]:
        return {"leader_id": leader, "role": role, "peers": [{"id": each} for each in ids]}

    assert what_is_missing({"a": answer("a", "b"), "b": answer("a", "a")}) == ""
    assert what_is_missing({"a": answer("a", "b"), "b": None}) == "no answer from b"
    assert (
        what_is_missing({"a": answer("a", "b"), "b": answer(None, "a")}) == "no leader is seen by b"
    )
    assert "agree" in what_is_missing({"a": answer("a", "b"), "b": answer("b", "a")})
    said = what_is_missing({"a": answer("a"), "b": answer("a", "a")})
    assert said == "a does not count b as a voting member"
    learner = answer("a", "a", role="learner")
    assert "b does not count b" in what_is_missing({"a": answer("a", "b"), "b": learner})


def test_json_lines_of_children_stay_json(tmp_path: Path) -> None:
    """No prefix: each line names its node already."""
    with Supervised(tmp_path, "--log-format=json", size=2) as cluster:
        cluster.until("ready")
        cluster.process.send_signal(signal.SIGTERM)
        assert cluster.end() == 0
        assert "node1 stops" in cluster.lines
