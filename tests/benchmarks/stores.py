"""The two stores under load: how each is started, and how wrk speaks to it."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Protocol

from tests.cluster.processes import Cluster, free_ports

if TYPE_CHECKING:
    from pathlib import Path

VALUE = "v" * 18
KEYS = 100_000

_LUA_HEAD = """
local counter = 0
function init(args) math.randomseed(os.time() + tonumber(tostring({}):sub(8, 14), 16) % 100000) end
"""
# Writes each key once, in order, and stops when all are answered.
_LUA_FILL = f"""
local answered = 0
local function next_key() counter = counter + 1; return (counter - 1) % {KEYS} end
function response()
  answered = answered + 1
  if answered == {KEYS} then wrk.thread:stop() end
end
"""
_LUA_RANDOM_KEY = f"local function next_key() return math.random(0, {KEYS - 1}) end\n"


class Store(Protocol):
    """A three-node cluster that wrk can be pointed at."""

    name: str

    def start(self) -> None:
        """Start it, and return when it serves."""

    def stop(self) -> None:
        """End all of it."""

    def leader_url(self) -> str:
        """Where the leader answers."""

    def node_processes(self) -> list[int]:
        """The process of each node."""

    def script(self, kind: str) -> str:
        """A wrk script: ``fill``, ``write``, ``read`` (linearizable), ``lease`` or ``stale``."""


class Anchor:
    """Three nodes of ours."""

    name = "anchor"

    def __init__(self, directory: Path) -> None:
        self._cluster = Cluster(directory, 3)
        for node in self._cluster.nodes:
            node.directory.parent.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start three nodes."""
        self._cluster.start()

    def stop(self) -> None:
        """Stop them."""
        self._cluster.kill_all()

    def leader_url(self) -> str:
        """Where the leader answers."""
        return f"http://127.0.0.1:{self._cluster.leader().http_port}"

    def node_processes(self) -> list[int]:
        """The process of each node; its worker is its child."""
        return [node.process.pid for node in self._cluster.nodes if node.process]

    def script(self, kind: str) -> str:
        """PUT or GET of a random key, or of each."""
        head = _LUA_HEAD + (_LUA_FILL if kind == "fill" else _LUA_RANDOM_KEY)
        if kind in {"fill", "write"}:
            return (
                f'{head}\nfunction request()\n  return wrk.format("PUT", '
                f'"/kv/key" .. next_key(), nil, "{VALUE}")\nend\n'
            )
        consistency = {"read": "linearizable"}.get(kind, kind)
        return (
            f'{head}\nlocal headers = {{["X-Consistency"] = "{consistency}"}}\n'
            "function request()\n"
            '  return wrk.format("GET", "/kv/key" .. next_key(), headers)\nend\n'
        )


class Etcd:
    """Three nodes of etcd, through its JSON gateway."""

    name = "etcd"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        ports = free_ports(6)
        self._clients, self._peers = ports[:3], ports[3:]
        self._processes: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def is_there() -> bool:
        """Whether etcd is installed."""
        return shutil.which("etcd") is not None

    def start(self) -> None:
        """Start three nodes."""
        members = ",".join(f"n{i}=http://127.0.0.1:{port}" for i, port in enumerate(self._peers))
        self._directory.mkdir(parents=True, exist_ok=True)
        for i in range(3):
            client, peer = (
                f"http://127.0.0.1:{self._clients[i]}",
                f"http://127.0.0.1:{self._peers[i]}",
            )
            flags = {
                "name": f"n{i}",
                "data-dir": str(self._directory / f"n{i}"),
                "listen-client-urls": client,
                "advertise-client-urls": client,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": members,
                "log-level": "error",
            }
            with (self._directory / f"n{i}.log").open("ab") as log:
                self._processes.append(
                    subprocess.Popen(
                        ["etcd", *(f"--{name}={value}" for name, value in flags.items())],
                        stdout=log,
                        stderr=log,
                    )
                )
        deadline = time.monotonic() + 30
        while self._find_leader() is None:
            assert time.monotonic() < deadline, "etcd does not start"
            time.sleep(0.1)  # another process: it cannot tell us

    def stop(self) -> None:
        """Stop them."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()

    def node_processes(self) -> list[int]:
        """The process of each node."""
        return [process.pid for process in self._processes]

    def leader_url(self) -> str:
        """Where the leader answers."""
        found = self._find_leader()
        assert found is not None
        return found

    def _find_leader(self) -> str | None:
        for port in self._clients:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            try:
                connection.request("POST", "/v3/maintenance/status", b"{}")
                status = json.load(connection.getresponse())
            except (OSError, http.client.HTTPException):
                continue
            finally:
                connection.close()
            if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                return f"http://127.0.0.1:{port}"
        return None

    def script(self, kind: str) -> str:
        """Put or read a random key; etcd has no lease reads, and calls stale serializable."""
        head = _LUA_HEAD + (_LUA_FILL if kind == "fill" else _LUA_RANDOM_KEY) + _LUA_BASE64
        if kind in {"fill", "write"}:
            value = base64.b64encode(VALUE.encode()).decode()
            return (
                f"{head}\nfunction request()\n"
                f'  return wrk.format("POST", "/v3/kv/put", nil, \'{{"key":"\' .. '
                f"b64(string.format('key%06d', next_key())) .. "
                f'\'","value":"{value}"}}\')\nend\n'
            )
        serializable = "true" if kind == "stale" else "false"
        return (
            f"{head}\nfunction request()\n"
            f'  return wrk.format("POST", "/v3/kv/range", nil, \'{{"key":"\' .. '
            f"b64(string.format('key%06d', next_key())) .. "
            f'\'","serializable":{serializable}}}\')\nend\n'
        )


# Keys of nine bytes become twelve characters without padding.
_LUA_BASE64 = """
local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local function b64(s)
  local out = {}
  for i = 1, #s, 3 do
    local a, b, c = s:byte(i, i + 2)
    local n = a * 65536 + b * 256 + c
    for shift = 18, 0, -6 do
      local digit = math.floor(n / 2 ^ shift) % 64
      out[#out + 1] = alphabet:sub(digit + 1, digit + 1)
    end
  end
  return table.concat(out)
end
"""
