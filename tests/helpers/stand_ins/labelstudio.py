"""A Label Studio server as far as a backend meets it: photos for those who know the token, and ways to lead astray."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl"
"""A personal access token: it opens nothing itself."""


class FakeHost:
    """What answers at a port of this machine.

    Attributes:
        files: Content by path.
        redirects: Address by path.
        asked: Paths that were asked for, with the token that came along.
        brief: The token of some minutes for the personal one that is valid now.
    """

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.brief: str | None = None
        self.port = server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.let = threading.Event()


@contextmanager
def fake_host() -> Iterator[FakeHost]:
    """Runs one."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            token = self.headers.get("Authorization")
            host.asked.append((self.path, token))
            if self.path == "/never":
                host.let.wait(20)
                return
            if self.path == "/drips":
                self.send_response(200)
                self.end_headers()
                while not host.let.wait(0.05):
                    self.wfile.write(b"a")
                return
            if self.path in host.redirects:
                self.send_response(302)
                self.send_header("Location", host.redirects[self.path])
                self.end_headers()
                return
            content = host.files.get(self.path)
            known = token in (f"Token {TOKEN}", f"Bearer {host.brief}")
            # As Label Studio, whose photos go through a framework that renders JSON, negotiates.
            wanted = self.headers.get("Accept", "*/*")
            status = 404 if content is None else 406 if "*/*" not in wanted else 200 if known else 401
            self.send_response(status)
            if self.path.endswith(".gz"):
                self.send_header("Content-Encoding", "gzip")
            if not self.path.endswith("unannounced"):
                self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if status == 200:
                self.wfile.write((content or b"")[: -1 if self.path.endswith("cut") else None])

        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            host.asked.append((self.path, self.headers.get("Authorization")))
            known = self.path == "/api/token/refresh/" and given == {"refresh": PERSONAL}
            host.brief = f"brief-{len(host.asked)}"
            answer = json.dumps({"access": host.brief} if known else {"detail": "Token is invalid"}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    host = FakeHost(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.let.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def listener() -> Iterator[tuple[int, list[object]]]:
    """A port at which nobody should knock, and who did."""
    knocked: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as opened:
        opened.settimeout(0.02)
        done = threading.Event()

        def wait() -> None:
            while not done.is_set():
                try:
                    connection, address = opened.accept()
                except TimeoutError:
                    continue
                knocked.append(address)
                connection.close()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        try:
            yield opened.getsockname()[1], knocked
        finally:
            done.set()
            thread.join()
