"""The server among clients that mean harm: what they are answered, what good ones wait, and what the server takes.

    python -m benchmarks.service.abuse [--clients 16] [--minutes 4] [--json abuse.json]
    python -m benchmarks.service.abuse --files
    python -m benchmarks.service.abuse --keep-alive

Starts `segrefiner serve` with its page and small limits. Every answer must be 200, 4xx or 503; what is none is printed,
and the command ends with 1. Clients and server share the machine's cores. Memory and files are told on Linux only.
"""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.common.tables import aligned
from benchmarks.service import abuse_requests as requests

_LIMITS = ["--max-megapixels", "4", "--max-upload-mb", "4", "--max-views", "40", "--queue", "16"]
_SAMPLE_SECONDS = 2.0
_AFTER_SECONDS = 5.0
"""Between the last request and the last look at memory."""

FILES = {
    "BMP: a jump of 2 GB": "BMP, one jump of 2 GB",
    "TIFF: 1,000 tags of the same 2 MB": "TIFF, 1,000 tags that share 2 MB",
    "PNG: EXIF heading 300,000 times": "PNG, EXIF heading 300,000 times",
    "JPEG: 20,000 empty scans": "JPEG, 20,000 empty scans",
}
"""The files of `--files`, by their names in `hostile.HOSTILE`."""


class Server:
    """`segrefiner serve` in a process of its own, with a folder for what it keeps.

    Args:
        folder: Where its temporary files and its log go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._log = folder / "tmp", folder / "log"
        self.folder.mkdir()
        arguments = [sys.executable, "-m", "segrefiner", "serve", "--port", "0", *_LIMITS]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(arguments, stderr=log, env=os.environ | {"TMPDIR": str(self.folder)})
        while "http" not in (told := self._log.read_text()):
            if self.process.poll() is not None:
                raise click.ClickException(f"the server did not start: {told}")
            time.sleep(0.1)
        self._told = self.log_bytes
        self.port = int(told.split(": ")[0].rpartition(":")[2])

    @property
    def log_bytes(self) -> int:
        """Of its log, since it answers."""
        return self._log.stat().st_size - getattr(self, "_told", 0)

    def log(self) -> str:
        """All that it wrote."""
        return self._log.read_text(errors="replace")

    def resident(self) -> tuple[float, float]:
        """Memory of the process, and of its children, in MiB."""
        return _resident(self.process.pid), sum(map(_resident, _children(self.process.pid)))

    def open_files(self) -> int:
        """How many files and connections it has open."""
        try:
            return len(os.listdir(f"/proc/{self.process.pid}/fd"))
        except OSError:
            return 0

    def end(self) -> tuple[int, list[str]]:
        """The exit status after a signal to stop, and what is left in its folder."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        left = [str(path.relative_to(self.folder)) for path in self.folder.rglob("*")]
        return self.process.returncode, left


def _resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return 0.0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in map(int, listed.read_text().split()):
                found += [child, *_children(child)]
        except OSError:
            continue
    return found


class Load:
    """Clients that ask one after the other, some of them for harm.

    Attributes:
        counts: Statuses by kind of request.
        seconds: That good requests took which were answered.
    """

    def __init__(self, server: Server, share: float, seed: int) -> None:
        self.server, self.share, self.seed = server, share, seed
        self.counts: dict[str, Counter[int]] = defaultdict(Counter)
        self.seconds: list[float] = []
        self.violations: list[str] = []

    def run(self, clients: int, seconds: float) -> None:
        """Until the time is over."""
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self._ask, args=(number, until)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask(self, number: int, until: float) -> None:
        draw = random.Random(self.seed * 1000 + number)
        while time.monotonic() < until and self.server.process.poll() is None:
            kind = draw.choice(list(requests.HARM)) if draw.random() < self.share else "good"
            begun = time.perf_counter()
            try:
                status = self._one(kind, draw)
            except OSError as error:
                self.violations.append(f"{kind}: no connection ({error})")
                continue
            if kind == "good" and status == 200:
                self.seconds.append(time.perf_counter() - begun)
            if kind == "good" and status == 503:
                time.sleep(0.5)
            self.counts[kind][status] += 1

    def _one(self, kind: str, draw: random.Random) -> int:
        if kind == "good":
            status, due = requests.good(self.server.port), True
        else:
            harm, due = requests.HARM[kind]
            status = harm(self.server.port, draw)
        allowed = status in (200, 503) if kind == "good" else status in (200, 503) or 400 <= status < 500
        if not allowed and (due or status > 0):
            self.violations.append(f"{kind}: {_named(status)}")
        return status


def _named(status: int) -> str:
    return {requests.NO_ANSWER: "no answer", requests.CUT_OFF: "cut off"}.get(status, str(status))


class Watch(threading.Thread):
    """Looks at the server's memory and files until it is stopped; a row has MiB, MiB of children, and files."""

    def __init__(self, server: Server, seconds: float = _SAMPLE_SECONDS) -> None:
        super().__init__(daemon=True)
        self._server, self._seconds, self._over = server, seconds, threading.Event()
        self.rows = [self._row()]

    def _row(self) -> tuple[float, float, int]:
        return (*self._server.resident(), self._server.open_files())

    def run(self) -> None:
        """Called in the thread."""
        while not self._over.wait(self._seconds):
            self.rows.append(self._row())

    def stop(self) -> list[tuple[float, float, int]]:
        """All that was seen, with a last look."""
        self._over.set()
        self.join()
        return [*self.rows, self._row()]


def abused(folder: Path, clients: int, minutes: float, share: float, seed: int) -> dict[str, Any]:
    """The figures of a run."""
    server = Server(folder)
    for _ in range(4):
        requests.good(server.port)
    load, watch = Load(server, share, seed), Watch(server)
    watch.start()
    load.run(clients, 60 * minutes)
    time.sleep(_AFTER_SECONDS)
    still = [requests.good(server.port) if server.process.poll() is None else requests.CUT_OFF for _ in range(3)]
    rows, log = watch.stop(), server.log_bytes
    status, left = server.end()
    count = sum(sum(one.values()) for one in load.counts.values())
    violations = load.violations + [f"afterwards: {_named(one)}" for one in still if one != 200]
    violations += [] if status == 0 else [f"the server ended with {status}"]
    violations += [f"left behind: {name}" for name in left]
    p50, p95 = np.percentile(load.seconds, (50, 95)) if load.seconds else (float("nan"),) * 2
    return {
        "requests": count,
        "answers": {kind: {_named(s): n for s, n in sorted(one.items())} for kind, one in sorted(load.counts.items())},
        "good": {"p50_s": float(p50), "p95_s": float(p95), "count": len(load.seconds)},
        "server_mib": [row[0] for row in rows],
        "children_mib": [row[1] for row in rows],
        "open_files": [row[2] for row in rows],
        "log_bytes_per_request": log / max(1, count),
        "log": server.log()[-2000:],
        "violations": dict(Counter(violations)),
    }


def told(figures: dict[str, Any]) -> str:
    """The figures as tables."""
    answers = [["requests", "answers"]]
    for kind, one in figures["answers"].items():
        answers.append([kind, ", ".join(f"{count} x {name}" for name, count in one.items())])
    rows = [["", "start", "most", "end"]]
    for name in ("server_mib", "children_mib", "open_files"):
        values = figures[name]
        rows.append([name.replace("_", " "), *(f"{value:.0f}" for value in (values[0], max(values), values[-1]))])
    good = figures["good"]
    lines = [
        aligned(answers),
        aligned(rows),
        f"good requests: {good['count']} answered, p50 {good['p50_s']:.2f} s, p95 {good['p95_s']:.2f} s",
        f"log: {figures['log_bytes_per_request']:.2f} bytes for each of {figures['requests']} requests",
    ]
    return "\n\n".join([*lines, *(f"VIOLATION {count} x {what}" for what, count in figures["violations"].items())])


def files_table(server: Server, copies: int) -> tuple[str, bool]:
    """For each of `FILES`, what a good request waits that comes right behind it; whether all were answered."""
    rows, well = [["file", "KB", "answer", "after s", "next good one after s", "MiB"]], True
    alone = [time.perf_counter()]
    for _ in range(5):
        well &= requests.good(server.port) == 200
        alone.append(time.perf_counter())
    rows.append(["(none)", "", "", "", f"{statistics.median(np.diff(alone)):.2f}", ""])
    for name, title in FILES.items():
        content = requests.hostile_file(name)
        request, ends, threads = requests.file_request(content, random.Random(3)), [], []
        watch = Watch(server, 0.02)
        watch.start()
        begun = time.perf_counter()

        def send(request: bytes = request, ends: list[Any] = ends) -> None:
            ends.append((requests.answered(server.port, [request]), time.perf_counter()))

        for _ in range(copies):
            threads.append(threading.Thread(target=send))
            threads[-1].start()
        time.sleep(0.05)
        asked = time.perf_counter()
        well &= requests.good(server.port) == 200
        waited = time.perf_counter() - asked
        for thread in threads:
            thread.join()
        seen = [own + children for own, children, _ in watch.stop()]
        status, last = _named(ends[0][0]), max(end for _, end in ends) - begun
        well &= all(400 <= one < 500 or one in (200, 503) for one, _ in ends)
        rows.append([title, f"{len(content) / 1e3:.0f}", status, f"{last:.2f}", f"{waited:.2f}",
                     f"{max(seen) - seen[0]:.0f}"])  # fmt: skip
    return aligned(rows), well


def keep_alive_table(server: Server, count: int) -> str:
    """Medians of milliseconds to the first and to the last byte of an answer, on new and on reused connections."""
    rows = [["GET /v1/models", "first byte, ms", "last byte, ms"]]
    ask = requests.head("/v1/models", method="GET") + b"\r\n"
    reused = requests.connect(server.port)
    for name in ("new connection", "reused connection"):
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            connection = requests.connect(server.port) if name.startswith("new") else reused
            connection.sendall(ask)
            received = connection.recv(1)
            first = time.perf_counter()
            while b"\r\n\r\n" not in received or not received.rstrip().endswith(b"}"):
                received += connection.recv(65536)
            times.append((first - begun, time.perf_counter() - begun))
            if connection is not reused:
                connection.close()
        rows.append([name, *(f"{1e3 * value:.2f}" for value in np.median(times, axis=0))])
    reused.close()
    return aligned(rows)


@click.command()
@click.option("--clients", default=16, show_default=True)
@click.option("--minutes", default=4.0, show_default=True)
@click.option("--share", default=0.4, show_default=True, help="Of the requests that mean harm.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all figures there.")
@click.option("--files", is_flag=True, help="Instead: four hostile files, and what the next good request waits.")
@click.option("--copies", default=4, show_default=True, help="Of each such file, sent at the same time.")
@click.option("--keep-alive", is_flag=True, help="Instead: new connections against a reused one.")
@click.option("--count", default=200, show_default=True, help="Requests on each kind of connection.")
def main(
    clients: int,
    minutes: float,
    share: float,
    seed: int,
    json_path: Path | None,
    files: bool,
    copies: int,
    keep_alive: bool,
    count: int,
) -> None:
    """Ask a server for harm, and print what becomes of it."""
    with tempfile.TemporaryDirectory() as name:
        if not (files or keep_alive):
            figures = abused(Path(name), clients, minutes, share, seed)
            click.echo(told(figures))
            if json_path:
                json_path.write_text(json.dumps(figures, indent=1))
            sys.exit(1 if figures["violations"] else 0)
        server = Server(Path(name))
        try:
            if files:
                table, well = files_table(server, copies)
                click.echo(table)
                sys.exit(0 if well else 1)
            click.echo(keep_alive_table(server, count))
        finally:
            server.end()


if __name__ == "__main__":
    main()
