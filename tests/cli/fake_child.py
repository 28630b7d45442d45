"""A program that looks to the supervisor like a node: takes its flags, answers /status, stops.

What else it does is told by the environment: ``FAKE_node2=crash stubborn``…
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NoReturn


def main() -> None:
    """Be a node until told to stop."""
    flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
    directory = Path(flags["dir"])
    directory.mkdir(parents=True, exist_ok=True)
    tricks = os.environ.get(f"FAKE_{flags['id']}", "").split()

    def end(*_: object) -> NoReturn:
        say(flags, "stops")
        sys.stdout.flush()
        os._exit(3 if "sulky" in tricks else 0)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in tricks else end)
    signal.signal(signal.SIGINT, lambda *_: say(flags, "heard the terminal"))
    (directory / "pid").write_text(str(os.getpid()))
    say(flags, f"starts with peers {flags.get('peers', 'none')}")
    if "grandchild" in tricks:
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (directory / "grandchild").write_text(str(grandchild.pid))
    if "crash" in tricks:
        say(flags, "crashes")
        sys.exit(1)
    if "chatty" in tricks:
        sys.stdout.write("x" * 200_000 + "\n" + "no end of line")
        sys.stdout.flush()
    if "mute" in tricks:
        time.sleep(60)
    serve(flags, tricks)


def say(flags: dict[str, str], what: str) -> None:
    """Write one line, as a log would be."""
    os.write(2, f"{flags['id']} {what}\n".encode())


def serve(flags: dict[str, str], tricks: list[str]) -> None:
    """Answer /status as a member of a healthy cluster; crash later if that is the trick."""
    host, _, port = flags["http-advertise"].rpartition(":")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/crash":
                os._exit(7)
            peers = [{"id": name, "role": "follower"} for name in os.environ["FAKE_IDS"].split()]
            status = {"node_id": flags["id"], "role": "follower", "leader_id": "node1"}
            leader = None if "leaderless" in tricks else "node1"
            body = json.dumps({**status, "leader_id": leader, "peers": peers}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    HTTPServer((host, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
