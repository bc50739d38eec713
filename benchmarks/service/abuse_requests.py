"""Requests of clients that mean harm, or know no better, as bytes on a socket; and good ones beside them."""

import json
import random
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from segrefiner.imaging.files import png_bytes

# The tests know small files that take decoders gigabytes or minutes.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from helpers.hostile import HOSTILE

REFINE, LABELS = "/v1/refine", "/v1/refine/labels"
_PAGE = "/gradio_api/"
_FORM = "Content-Type: multipart/form-data; boundary=x"
_JSON = "Content-Type: application/json"
_WAIT = 120.0
"""Seconds for an answer."""

NO_ANSWER, CUT_OFF = 0, -1
"""In place of a status: none came in time, or the connection was closed before one came."""


def photo_and_mask(side: int = 256) -> tuple[bytes, bytes]:
    """A smooth photo of a disc, and its mask moved a little, as PNGs."""
    rows, columns = np.indices((side, side))
    disc = np.hypot(rows - side / 2, columns - side / 2) < side / 4
    photo = np.where(disc[..., None], (200, 60, 40), (40, 90, 160)) + (rows % 7)[..., None]
    return png_bytes(photo.astype(np.uint8)), png_bytes(np.roll(disc, 3, axis=1))


def form(*parts: tuple[str, bytes, bool]) -> bytes:
    """A multipart body of names, contents, and whether each is a file."""
    body = b""
    for name, content, file in parts:
        told = f'--x\r\nContent-Disposition: form-data; name="{name}"{"; filename=a" if file else ""}\r\n\r\n'
        body += told.encode() + content + b"\r\n"
    return body + b"--x--\r\n"


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    """The header of a request, without the empty line behind it."""
    return "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: localhost", *lines)).encode("latin-1")


def whole(path: str, body: bytes, kind: str = _FORM) -> bytes:
    """A request with all of its body."""
    return head(path, kind, f"Content-Length: {len(body)}") + b"\r\n" + body


def connect(port: int) -> socket.socket:
    """A new connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=_WAIT)


def answered(port: int, parts: Iterable[bytes], *, half_close: bool = False) -> int:
    """The status that comes back for these bytes, however far they could be sent."""
    with connect(port) as connection:
        with suppress(OSError):
            for part in parts:
                connection.sendall(part)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        return status_of(connection)


def status_of(connection: socket.socket) -> int:
    """The status of an answer that is read to its end, or until nothing comes."""
    received = b""
    try:
        while b"\r\n\r\n" not in received:
            more = connection.recv(65536)
            if not more:
                return CUT_OFF
            received += more
        fields, _, body = received.partition(b"\r\n\r\n")
        status = int(fields.split()[1])
        length = next((int(f[15:]) for f in fields.lower().split(b"\r\n") if f.startswith(b"content-length:")), 0)
        left = length - len(body)
        while left > 0 and (more := connection.recv(65536)):
            left -= len(more)
        return status
    except TimeoutError:
        return NO_ANSWER
    except OSError:
        return CUT_OFF


@cache
def _sound() -> tuple[bytes, bytes]:
    return photo_and_mask()


@cache
def hostile_file(name: str) -> bytes:
    """One of `hostile.HOSTILE`."""
    return HOSTILE[name]()


def good(port: int) -> int:
    """A request that should be answered."""
    photo, mask = _sound()
    return answered(port, [whole(REFINE, form(("image", photo, True), ("mask", mask, True)))])


def file_request(content: bytes, draw: random.Random) -> bytes:
    """A request whose photo, mask or label map is this file."""
    photo, mask = _sound()
    place = draw.choice(("image", "mask", "labels"))
    given = {"image": photo, "labels" if place == "labels" else "mask": mask} | {place: content}
    return whole(LABELS if place == "labels" else REFINE, form(*((name, one, True) for name, one in given.items())))


def _file(port: int, draw: random.Random) -> int:
    return answered(port, [file_request(hostile_file(draw.choice(list(HOSTILE))), draw)])


def _page_file(port: int, draw: random.Random) -> int:
    content = hostile_file(draw.choice(list(HOSTILE)))
    name = draw.choice(("../../x.png", "/etc/passwd", "a" * 3000, "\x1b[2J.png", "x.html"))
    part = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    return answered(port, [whole(_PAGE + "upload", part + content + b"\r\n--x--\r\n")])


def _trickle(port: int, draw: random.Random) -> int:
    """One byte every half second: of a header, or of a body."""
    beginning = head(REFINE, _FORM, "Content-Length: 100000") + (b"\r\n" if draw.random() < 0.7 else b"")
    with connect(port) as connection:
        begun = time.monotonic()
        connection.settimeout(0.5)
        with suppress(OSError):
            connection.sendall(beginning)
            while time.monotonic() - begun < 20:
                connection.sendall(b"a")
                with suppress(TimeoutError):
                    if connection.recv(1, socket.MSG_PEEK) is not None:
                        break
        connection.settimeout(30)
        return status_of(connection)


def _stall(port: int, draw: random.Random) -> int:
    """A body that stops in the middle."""
    return answered(port, [head(REFINE, _FORM, "Content-Length: 100000"), b"\r\n--x\r\n"])


def _endless(port: int, draw: random.Random) -> int:
    """Chunks without end, to a route that reads bodies or to one that does not."""
    path = draw.choice((REFINE, LABELS, _PAGE + "upload", _PAGE + "queue/join", "/v1/nothing", "/healthz"))
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    beginning = form(("image", b"", True))[: -len(b"\r\n--x--\r\n")]
    first = b"%x\r\n%s\r\n" % (len(beginning), beginning)
    lines = [_JSON if "join" in path else _FORM, "Transfer-Encoding: chunked"]

    def parts() -> Iterable[bytes]:
        yield head(path, *lines) + b"\r\n" + first
        until = time.monotonic() + 10
        while time.monotonic() < until:
            yield chunk

    return answered(port, parts())


def _huge_field(port: int, draw: random.Random) -> int:
    photo, mask = _sound()
    name, content = draw.choice(
        (
            ("boxes", b"[" + b"1," * 1_000_000 + b"1]"),
            ("boxes", b"[" * 15_000),
            ("rle", b"[" * 2_000_000),
            ("rle", b'{"size":[256,256],"counts":[' + b"1," * 900_000 + b"1]}"),
            ("rle", b'{"size":[256,256],"counts":"' + b"o" * 2_000_000 + b'"}'),
            ("rle", b"[" + b'{"size":[256,256],"counts":[65536]},' * 50_000 + b"0]"),
            ("seed", b"9" * 1_000_000),
            ("model", b"\x1b[2J" * 40),
            ("x" * 50_000, b"1"),
        )
    )
    masks = [] if name == "rle" else [("mask", mask, True)]
    return answered(port, [whole(REFINE, form(("image", photo, True), *masks, (name, content, False)))])


def _many_parts(port: int, draw: random.Random) -> int:
    return answered(port, [whole(REFINE, form(*[("mask", b"", draw.random() < 0.5)] * 5000))])


def _wrong_values(port: int, draw: random.Random) -> int:
    photo, mask = _sound()
    name = draw.choice(("steps", "seed", "max_shift", "strength", "model", "soft", "threshold", "boxes", "ignore"))
    value = draw.choice(("nan", "-1", "1e999", "", "[]", "{}", "\0", "null", "../x", "7" * 99, "[[1,2,3,NaN]]"))
    return answered(
        port, [whole(REFINE, form(("image", photo, True), ("mask", mask, True), (name, value.encode(), False)))]
    )


def _noise(port: int, draw: random.Random) -> int:
    """Label maps and masks in which every pixel is contour."""
    side, count = draw.choice((256, 600)), draw.choice((2, 99))
    labels = np.random.default_rng(draw.getrandbits(32)).integers(0, count, (side, side)).astype(np.uint8)
    photo = photo_and_mask(side)[0]
    return answered(port, [whole(LABELS, form(("image", photo, True), ("labels", png_bytes(labels), True)))])


_PATHS = ("/etc/passwd", "../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "http://127.0.0.1:1/x", "file:///etc/passwd",
          "//127.0.0.1/x", "a" * 20_000, "%00", "\\\\host\\x")  # fmt: skip


def _page_paths(port: int, draw: random.Random) -> int:
    route = draw.choice(
        (
            *("file=", "file/", "proxy=", "stream/", "component_server", "deep_link", "heartbeat/x", "queue/status"),
            *("queue/data?session_hash=", "call/x", "run/predict", "upload_progress?upload_id="),
        )
    )
    path = draw.choice((_PAGE + route, "/static/", "/assets/", "/theme.css?", "/config?", "/")) + draw.choice(_PATHS)
    return answered(port, [head(path, method=draw.choice(("GET", "GET", "HEAD", "POST", "TRACE"))) + b"\r\n"])


def _page_events(port: int, draw: random.Random) -> int:
    """Events of the page with foreign files, wrong values, and texts that would be kept."""
    values: list[Any] = [
        *({"path": path, "meta": {"_type": "gradio.FileData"}, "url": path} for path in _PATHS[:6]),
        *(None, True, 1e308, "a" * 100_000, [], {}, [[[[]]]], [{"path": "x"}] * 300),
    ]
    count = draw.choice((0, 1, 2, 3, 15))
    body = {"data": [draw.choice(values) for _ in range(count)], "fn_index": draw.choice((*range(25), None, "0"))}
    body |= {"session_hash": draw.choice(("a", "b" * 64, "x" * 65, "../x", None)), "event_data": draw.choice(values)}
    text = json.dumps(body).encode()
    if draw.random() < 0.2:
        text = b'{"data": ["' + b"a" * 3_000_000 + b'"], "fn_index": 0, "session_hash": "s%d"}' % draw.randrange(10**6)
    return answered(port, [whole(_PAGE + draw.choice(("queue/join", "queue/join", "cancel", "reset")), text, _JSON)])


def _no_http(port: int, draw: random.Random) -> int:
    return answered(
        port,
        [
            draw.choice(
                (
                    b"\x16\x03\x01\x02\0\x01\0" * 9 + b"\r\n\r\n",
                    b"GET / HTTP/9\r\n\r\n",
                    b"A" * 200_000 + b"\r\n\r\n",
                    head("/", *["X: y"] * 20_000, method="GET") + b"\r\n",
                    head(REFINE, "Content-Length: 5", "Transfer-Encoding: chunked") + b"\r\nzzz\r\n",
                    head(REFINE, _FORM, "Content-Length: " + "9" * 5000) + b"\r\n",
                    head(REFINE, _FORM, "Content-Length: -1") + b"\r\n",
                    head("/v1/models", "Host: evil.example", "Origin: http://evil.example") + b"\r\n",
                    head(REFINE, "Content-Type: multipart/form-data", "Content-Length: 3") + b"\r\nabc",
                    head(REFINE, _JSON, "Content-Length: 2") + b"\r\n{}",
                )
            )
        ],
    )


def _half_closed(port: int, draw: random.Random) -> int:
    """The half of the connection on which is sent is closed, in the middle of a request or behind it."""
    photo, mask = _sound()
    request = whole(REFINE, form(("image", photo, True), ("mask", mask, True)))
    return answered(port, [request[: len(request) // draw.choice((1, 2))]], half_close=True)


def _leaves(port: int, draw: random.Random) -> int:
    """A client that goes away: in the middle, behind its request, or with a reset; or one that listens to the page."""
    photo, mask = _sound()
    request = whole(REFINE, form(("image", photo, True), ("mask", mask, True)))
    request = draw.choice((request, request, head(_PAGE + "queue/data?session_hash=a", method="GET") + b"\r\n"))
    with connect(port) as connection:
        connection.sendall(request[: int(len(request) * draw.choice((0.5, 1, 1)))])
        time.sleep(draw.choice((0, 0.1, 1)))
        if draw.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return CUT_OFF


HARM: dict[str, tuple[Callable[[int, random.Random], int], bool]] = {
    "hostile files": (_file, True),
    "hostile files for the page": (_page_file, True),
    "senders of a byte": (_trickle, False),
    "senders that stop": (_stall, True),
    "endless bodies": (_endless, False),
    "huge fields": (_huge_field, True),
    "thousands of parts": (_many_parts, True),
    "wrong values": (_wrong_values, True),
    "noise": (_noise, True),
    "paths of the page": (_page_paths, True),
    "events of the page": (_page_events, True),
    "no HTTP": (_no_http, False),
    "half closed": (_half_closed, False),
    "leave": (_leaves, False),
}
"""What is sent, and whether an answer must come: some clients are gone, or are cut off while they still send."""
