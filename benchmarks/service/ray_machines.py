"""Machines of a Ray cluster on this one: each with processes, an object store and an address of its own."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[2]
_STARTED_S = 600.0
"""For which a machine may take to start; Ray's own 30 s are too few beside busy processes."""
_STORE = 80_000_000
_AGENTS = (
    "--dashboard-agent-grpc-port", "--dashboard-agent-listen-port", "--runtime-env-agent-port", "--metrics-export-port",
)  # fmt: skip


class RayMachines:
    """A head, which begins with the `with` block, and one more machine, with a processor each; both end with it.

    Args:
        folder: For logs.

    Attributes:
        address: Of the cluster.
        environment: What a process needs that joins or uses the cluster.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = f"127.0.0.1:{_free_ports(1)[0]}"
        # Actors find the benchmarks and the package where this process does.
        paths = [str(ROOT), *(path for path in sys.path if path)]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_raylet_start_wait_time_s": f"{_STARTED_S:.0f}",
            "RAY_gcs_server_request_timeout_seconds": f"{_STARTED_S:.0f}",
            # Actors would wait behind all other processes of this computer.
            "RAY_worker_niceness": "0",
            "RAY_agent_register_timeout_ms": f"{1000 * _STARTED_S:.0f}",
        }
        self._head: subprocess.Popen[bytes] | None = None
        self._other: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "RayMachines":
        port = self.address.rpartition(":")[2]
        self._head = self._start("head", "--head", "--port", port, "--include-dashboard", "false")
        return self

    def __exit__(self, *raised: object) -> None:
        for process in (self._other, self._head):
            if process:
                _kill(process)

    def start_other(self) -> None:
        """Start the second machine, or another one in its place, when the head is there."""
        self._wait_for_head()
        self._other = self._start("other", "--address", self.address)

    def kill_other(self) -> int:
        """Kill all processes of the second machine as a loss of power would; returns how many."""
        assert self._other
        return _kill(self._other)

    def _start(self, name: str, *options: str) -> "subprocess.Popen[bytes]":
        place = "127.0.0.1" if name == "head" else "127.0.0.2"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address", place]
        command += ["--num-cpus", "1", "--object-store-memory", f"{_STORE}", "--disable-usage-stats", *options]
        # A machine waits for its agents to choose a port, and dies where they take 15 s to do so.
        for agent, port in zip(_AGENTS, _free_ports(len(_AGENTS)), strict=True):
            command += [agent, f"{port}"]
        if name == "head":
            command += ["--temp-dir", str(self._folder / "ray")]
        with open(self._folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=self.environment, cwd=ROOT)

    def _wait_for_head(self) -> None:
        host, _, port = self.address.rpartition(":")
        deadline = time.monotonic() + _STARTED_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                assert self._head and self._head.poll() is None, (self._folder / "head.log").read_text()
                time.sleep(0.2)
        raise TimeoutError((self._folder / "head.log").read_text())


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _kill(process: "subprocess.Popen[bytes]") -> int:
    """Kill a process and all that it has started."""
    below = _descendants(process.pid)
    for number in (process.pid, *below):
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    return 1 + len(below)


def _descendants(number: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, waiting = [], [number]
    while waiting:
        inner = children.get(waiting.pop(), [])
        found += inner
        waiting += inner
    return found
