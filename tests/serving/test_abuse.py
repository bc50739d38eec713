"""A real server against clients that mean it harm: each gets its problem or is cut off, and the server goes on."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.serving import MASK, PHOTO, encoded, header_only
from segrefiner.errors import ServerError
from segrefiner.serving.client import Client

for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(package)

KEY = "0123456789abcdef"
PROGRAM = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from segrefiner.serving import run as server_run
from segrefiner.serving.limits import Limits
from helpers.serving import refiner
server_run._HEADER_SECONDS = server_run._WRITE_SECONDS = 1.0
limits = Limits(upload_bytes=1_000_000, pixels=1_000_000, masks=4, queue=8, idle_seconds=0.7, upload_seconds=2.0)
show = lambda url: print(url, flush=True)
server_run.serve({{"tiny": refiner()}}, port=0, limits=limits, api_key={KEY!r}, on_ready=show)
print("ended", flush=True)
"""
HEAD = f"POST /v1/refine HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n"
FORM = "Content-Type: multipart/form-data; boundary=x\r\n"
PHOTO_PART = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
FIRST_CHUNK = b"%x\r\n%s\r\n" % (len(PHOTO_PART), PHOTO_PART)
CHUNK = b"10000\r\n" + bytes(65536) + b"\r\n"


class Server:
    """The process, and raw connections to it."""

    def __init__(self, program: str = PROGRAM) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def send(self, *parts: str | bytes) -> tuple[int, dict[str, Any]]:
        """Status and problem that come back for these bytes, however far they could be sent."""
        with self.connect() as connection:
            with suppress(OSError):
                for part in parts:
                    connection.sendall(part.encode() if isinstance(part, str) else part)
            return answer(connection)

    def is_well(self) -> None:
        asking, until = Client(self.url, KEY, timeout=20), time.monotonic() + 20
        while True:
            assert self.process.poll() is None
            try:
                assert asking.refine(PHOTO, MASK).mask.shape == MASK.shape
                return
            except ServerError as error:  # It may still be at what the hostile ones asked for.
                assert "try again later" in str(error) and time.monotonic() < until
                time.sleep(0.1)

    def left(self) -> int:
        """How many clients went away before they were answered."""
        asked = urllib.request.Request(f"{self.url}/metrics", headers={"X-API-Key": KEY})
        with urllib.request.urlopen(asked, timeout=10) as answered:
            counts = re.findall(rb'requests_total{route="/v1/refine",status="499"} (\d+)', answered.read())
        return sum(map(int, counts))

    def memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            return 0, {}
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    length = int(headers[b"content-length"])
    while len(body) < length:
        body += connection.recv(65536)
    assert headers[b"content-type"] == b"application/problem+json"
    return int(head.split()[1]), json.loads(body[:length])


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    yield server
    server.process.kill()
    server.process.communicate()


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    yield running
    running.is_well()


def multipart(**files: bytes) -> bytes:
    parts = b"".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="../../{name}"\r\n\r\n'.encode() + content
        + b"\r\n"
        for name, content in files.items()
    )  # fmt: skip
    return parts + b"--x--\r\n"


def whole(body: bytes, head: str = HEAD) -> tuple[str, bytes]:
    return f"{head}{FORM}Content-Length: {len(body)}\r\n\r\n", body


@pytest.mark.slow
def test_an_upload_that_stalls_is_ended(server: Server) -> None:
    begun = time.monotonic()
    status, problem = server.send(HEAD, FORM, "Content-Length: 1000\r\n\r\n", PHOTO_PART)
    assert status == 408 and "0.7 s" in problem["detail"] and time.monotonic() - begun < 5


@pytest.mark.slow
def test_an_upload_that_trickles_is_ended(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall((HEAD + FORM + "Content-Length: 1000\r\n\r\n").encode() + PHOTO_PART)
        begun = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - begun < 2.6:
                connection.sendall(b"a")
                time.sleep(0.2)
        connection.settimeout(0.3)  # less than a stalled upload is waited for
        assert answer(connection)[0] == 408


@pytest.mark.slow
def test_who_sends_slowly_holds_no_place(server: Server) -> None:
    header = (HEAD + FORM + "Content-Length: 100000\r\n\r\n").encode() + PHOTO_PART
    slow = [server.connect() for _ in range(20)]
    try:
        for connection in slow:
            connection.sendall(header)
        answered = Client(server.url, KEY, timeout=20).refine(PHOTO, MASK)
        assert answered.mask.shape == MASK.shape
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/refine", "/v1/models"])
def test_after_an_error_the_connection_is_closed(server: Server, path: str) -> None:
    key = "" if path == "/v1/models" else f"X-API-Key: {KEY}\r\n"
    with server.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{key}\r\n".encode() * 3)
        received = b""
        while more := connection.recv(65536):
            received += more
    assert received.count(b"HTTP/1.1 ") == 1 and b"connection: close" in received.lower()


@pytest.mark.slow
def test_a_header_that_trickles_is_ended(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        begun = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - begun < 5:
                connection.sendall(b"X: y\r\n")
                time.sleep(0.2)
        assert time.monotonic() - begun < 4


def test_silent_connections_keep_nobody_out(server: Server) -> None:
    silent = [server.connect() for _ in range(100)]
    server.is_well()
    for connection in silent:
        connection.close()


def test_more_connections_than_there_may_be_close_the_longest_silent_one(server: Server) -> None:
    silent = [server.connect() for _ in range(560)]
    try:
        server.is_well()
    finally:
        for connection in silent:
            connection.close()


def test_connections_do_not_wait_for_the_clients_word() -> None:
    import asyncio

    import uvicorn
    from uvicorn.server import ServerState

    from segrefiner.serving.run import _Connection

    config = uvicorn.Config(lambda scope: None)
    config.load()
    made: list[_Connection] = []

    def connection() -> _Connection:
        made.append(_Connection(config, ServerState(), {}))
        return made[0]

    async def options() -> int:
        listening = await asyncio.get_running_loop().create_server(
            connection, sock=socket.create_server(("127.0.0.1", 0))
        )
        _, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        while not made or not hasattr(made[0], "_waits_since"):
            await asyncio.sleep(0.01)
        value = made[0].transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        made[0].transport.abort()
        listening.close()
        return int(value)

    assert asyncio.run(options())


@pytest.mark.slow
def test_who_does_not_read_is_cut_off(server: Server) -> None:
    ask = f"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n\r\n".encode()
    with server.connect() as connection:
        connection.settimeout(4)
        received, count = 0, 1500
        with suppress(OSError):
            connection.sendall(ask * count)
            time.sleep(2.5)
            while more := connection.recv(1 << 20):
                received += len(more)
    assert 0 < received < count * 15_000


@pytest.mark.parametrize("length", ["1000001", "9" * 30, "1" * 5000, "-1", "abc", "1e3"])
def test_false_lengths_are_refused_before_the_body(server: Server, length: str) -> None:
    status, _ = server.send(HEAD, FORM, f"Content-Length: {length}\r\n\r\n")
    assert status in (400, 413)


def test_more_than_was_announced_is_no_part_of_it(server: Server) -> None:
    status, _ = server.send(HEAD, FORM, "Content-Length: 10\r\n\r\n", multipart(image=bytes(100_000)))
    assert status == 400


def test_a_chunked_bomb_is_cut_off(server: Server) -> None:
    before = server.memory()
    status, problem = server.send(HEAD, FORM, "Transfer-Encoding: chunked\r\n\r\n", FIRST_CHUNK, *[CHUNK] * 400)
    assert status == 413 and "1 MB" in problem["detail"]
    assert server.memory() - before < 20_000_000


@pytest.mark.slow
def test_an_endless_body_is_cut_off_after_its_answer(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall((HEAD + FORM + "Transfer-Encoding: chunked\r\n\r\n").encode() + FIRST_CHUNK)
        begun = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - begun < 8:
                connection.sendall(CHUNK)
                time.sleep(0.005)


@pytest.mark.parametrize("name", ["image", "mask"])
def test_a_picture_that_claims_to_be_huge_is_not_decoded(server: Server, name: str) -> None:
    files = {"image": encoded(PHOTO), "mask": encoded(MASK)} | {name: header_only(20_000, 20_000)}
    before = server.memory()
    status, problem = server.send(*whole(multipart(**files)))
    assert status == 413 and "20000x20000" in problem["detail"]
    assert server.memory() - before < 20_000_000


def test_ten_thousand_parts_are_refused(server: Server) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n1\r\n'
    for extra, name in ((b"", b"seed"), (b'; filename="a"', b"mask")):
        status, problem = server.send(*whole(part % (name, extra) * 10_000 + b"--x--\r\n"))
        assert status == 400 and "Too many" in problem["detail"]


@pytest.mark.parametrize(
    "files",
    [
        {"image": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", "mask": b"1"},
        {"image": encoded(PHOTO), "mask": b"%PDF-1.7"},
        {"image": encoded(PHOTO), "mask": b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(100)},
        {"image": encoded(PHOTO), "mask": b"II*\0" + b"\xff" * 1000},
        {"image": encoded(PHOTO), "../../../etc/passwd": encoded(MASK)},
        {"image": encoded(PHOTO), "/etc/passwd": b"x"},
    ],
)
def test_hostile_files_are_refused(server: Server, files: dict[str, bytes]) -> None:
    status, problem = server.send(*whole(multipart(**files)))
    assert status in (415, 422) and "root:" not in problem["detail"]


@pytest.mark.parametrize(
    "rle",
    [
        "[" * 50_000,
        '{"size":[48,64],"counts":' + "[1,-1]" * 9999 + "}",
        '{"size":[48,64],"counts":"' + "o" * 99_999 + '"}',
    ],
)
def test_malformed_encodings_are_refused(server: Server, rle: str) -> None:
    field = b'--x\r\nContent-Disposition: form-data; name="rle"\r\n\r\n' + rle.encode() + b"\r\n"
    assert server.send(*whole(field + multipart(image=encoded(PHOTO))))[0] == 422


def test_foreign_pages_hosts_and_keys_are_refused(server: Server) -> None:
    body = multipart(image=encoded(PHOTO), mask=encoded(MASK))
    assert server.send(*whole(body, HEAD + "Origin: http://evil.example\r\n"))[0] == 403
    assert server.send(*whole(body, HEAD.replace("localhost", "evil.example")))[0] == 421
    assert server.send(*whole(body, HEAD.replace(KEY, KEY[::-1])))[0] == 401
    assert server.send(*whole(body, HEAD.replace("Host: localhost\r\n", "")))[0] in (400, 421)


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9\r\n\r\n", b"\0" * 100, b"A" * 200_000 + b"\r\n\r\n"]
)
def test_what_is_no_http_is_told_so(server: Server, sent: bytes) -> None:
    with server.connect() as connection:
        with suppress(OSError):
            connection.sendall(sent + b"\r\n\r\n")
        with suppress(ConnectionResetError):
            assert answer(connection)[0] == 400


def test_chunks_that_are_none_are_told(server: Server) -> None:
    assert server.send(HEAD, FORM, "Transfer-Encoding: chunked\r\n\r\n", "zzz\r\nno chunk\r\n")[0] == 400


def test_who_leaves_in_the_middle_is_forgotten(server: Server) -> None:
    header, body = whole(multipart(image=encoded(PHOTO), mask=encoded(MASK)))
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(header.encode() + body[: len(body) // 2])
    server.is_well()
    before = server.left()
    for _ in range(6):
        with server.connect() as connection:
            connection.sendall(header.encode() + body)
    server.is_well()
    assert server.left() > before


def test_many_at_once_are_answered_or_told_to_come_back(server: Server) -> None:
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(Client(server.url, KEY, timeout=20).refine(PHOTO, MASK).mask.shape)
        except ServerError as error:
            answers.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 16 and MASK.shape in answers
    assert all(one == MASK.shape or "try again later (in about" in one for one in answers)


@pytest.mark.slow
def test_memory_does_not_grow_with_requests(server: Server) -> None:
    asking, photo = Client(server.url, KEY, timeout=20), encoded(PHOTO) + bytes(900_000)
    for _ in range(5):
        asking.refine(photo, MASK)
    before = server.memory()
    for _ in range(20):
        asking.refine(photo, MASK)
    assert server.memory() - before < 15_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_stopped_server_finishes_what_it_has_and_leaves(tmp_path: Path) -> None:
    server = Server()
    header, body = whole(multipart(image=encoded(np.tile(PHOTO, (2, 2, 1))), mask=encoded(np.tile(MASK, (2, 2)))))
    with server.connect() as inside, server.connect() as waiting:
        # The second half comes after the signal: this request is inside.
        inside.sendall(header.encode() + body[:1000])
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        waiting.sendall(header.encode() + body)
        assert answer(waiting)[0] == 503
        inside.sendall(body[1000:])
        received = b""
        while chunk := inside.recv(65536):
            received += chunk
        assert received.startswith(b"HTTP/1.1 200")
    output, errors = server.process.communicate(timeout=20)
    assert server.process.returncode == 0 and output == "ended\n" and errors == ""


STUCK = PROGRAM.replace(
    "show =",
    """
import os, time
from pathlib import Path
from segrefiner.serving.service import Service
server_run._LAST_SECONDS = 0.5
Service.check_ready = lambda self: (Path({sign!r}).touch(), {stuck})
show =""",
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("stuck", ["time.sleep(1000)", "sum(range(10**15))", "os.read(os.pipe()[0], 1)"])
def test_a_second_signal_ends_a_server_whose_loop_stands_still(stuck: str, tmp_path: Path) -> None:
    sign = tmp_path / "stuck"
    server = Server(STUCK.replace("{stuck}", stuck).replace("{sign!r}", repr(str(sign))))
    with server.connect() as connection:
        connection.sendall(f"GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n\r\n".encode())
        while not sign.exists():
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.7)
        server.process.send_signal(signal.SIGTERM)
        server.process.communicate(timeout=9)
