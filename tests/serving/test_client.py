"""The client gives what a refiner on this machine gives, and tells what is wrong in one typed line."""

import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.serving import MASK, OTHER, PHOTO, encoded, refiner
from segrefiner.errors import ImageError, InputError, MaskError, SegRefinerError, ServerError, SizeMismatchError
from segrefiner.refinement.refiner import Refiner
from segrefiner.serving.client import Client

for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(package)
server_run = pytest.importorskip("segrefiner.serving.run")

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def tiny() -> Refiner:
    return refiner()


@pytest.fixture(scope="module")
def url(tiny: Refiner) -> Iterator[str]:
    """Of a server in this process; the app that the page gets tells it to stop."""
    urls: queue.Queue[str] = queue.Queue()
    apps: list[Any] = []
    options: dict[str, Any] = {"port": 0, "api_key": KEY, "page": apps.append, "on_ready": urls.put}
    options["limits"] = server_run.Limits(upload_bytes=1_000_000, masks=5)
    thread = threading.Thread(target=lambda: server_run.serve({"tiny": tiny, "other": refiner()}, **options))
    thread.start()
    yield urls.get(timeout=20)
    apps[0].state.service.stopping = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url + "/", KEY, timeout=20)


def test_masks_come_back_as_from_the_refiner(client: Client, tiny: Refiner) -> None:
    expected = tiny(PHOTO, MASK, seed=2, steps=3, max_shift=8, strength=0.9)
    got = client.refine(PHOTO, MASK, seed=2, steps=3, max_shift=8, strength=0.9)
    np.testing.assert_array_equal(got.mask, expected.mask)
    assert got.mask.dtype == bool and got.probability is None
    assert got.report["agreement"] == expected.report.agreement and got.report["steps"] == 3


def test_a_list_gives_a_list(client: Client, tiny: Refiner) -> None:
    got = client.refine(PHOTO, [MASK, OTHER])
    assert len(got) == 2
    for one, expected in zip(got, tiny.instances(PHOTO, [MASK, OTHER]), strict=True):
        np.testing.assert_array_equal(one.mask, expected.mask)
    boxes = np.array([[10, 5, 50, 40], [0, 10, 40, 48]])
    got = client.refine(PHOTO, [MASK, OTHER], boxes=boxes)
    for one, expected in zip(got, tiny.instances(PHOTO, [MASK, OTHER], boxes), strict=True):
        np.testing.assert_array_equal(one.mask, expected.mask)


def test_probabilities_come_on_demand(client: Client, tiny: Refiner) -> None:
    got = client.refine(PHOTO, MASK, soft=True)
    expected = tiny(PHOTO, MASK)
    np.testing.assert_array_equal(got.mask, expected.mask)
    assert got.probability is not None and got.probability.dtype == np.float32
    np.testing.assert_allclose(got.probability, expected.probability, atol=0.5 / 255 + 1e-6)


def test_photos_and_masks_may_be_whatever_the_refiner_takes(client: Client, tmp_path: Path) -> None:
    expected = client.refine(PHOTO, MASK).mask
    (tmp_path / "photo.png").write_bytes(encoded(PHOTO))
    (tmp_path / "mask.png").write_bytes(encoded(np.where(MASK, 200, 30).astype(np.uint8)))
    for photo in (tmp_path / "photo.png", str(tmp_path / "photo.png"), encoded(PHOTO), Image.fromarray(PHOTO)):
        np.testing.assert_array_equal(client.refine(photo, MASK).mask, expected)
    np.testing.assert_array_equal(client.refine(PHOTO, tmp_path / "mask.png", threshold=100).mask, expected)


def test_models_may_be_chosen(client: Client) -> None:
    assert client.models() == ["tiny", "other"]
    assert client.refine(PHOTO, MASK, model="other").mask.shape == MASK.shape


@pytest.mark.parametrize(
    ("photo", "mask", "options", "error", "said"),
    [
        (PHOTO, MASK, {"steps": 9}, InputError, "steps"),
        (PHOTO, MASK, {"model": "large"}, InputError, "tiny, other"),
        (PHOTO, MASK, {"device": "cuda"}, InputError, "device"),
        (PHOTO, MASK, {"boxes": [[1, 2, 3, 4]] * 2}, InputError, "2 boxes for 1"),
        (PHOTO, [MASK] * 6, {}, InputError, "at most 5"),
        (PHOTO, MASK[1:], {}, MaskError, "size"),
        (PHOTO, PHOTO, {}, MaskError, "several colours"),
        (b"GIF89a", MASK, {}, InputError, "JPEG"),
        (b"\xff\xd8\xff", MASK, {}, ImageError, "damaged"),
        (bytes(8_000_000), MASK, {}, InputError, "1 MB"),
        ("absent.png", MASK, {}, ImageError, "absent.png"),
    ],
)
def test_what_is_wrong_with_inputs_is_the_package_s_own_error(
    client: Client, photo: Any, mask: Any, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        client.refine(photo, mask, **options)
    assert "\n" not in str(caught.value)


def test_a_wrong_key_is_the_server_s_error(url: str) -> None:
    for key in (None, KEY[::-1]):
        with pytest.raises(ServerError, match="API key"):
            Client(url, key).refine(PHOTO, MASK)


@pytest.mark.parametrize("url", ["", "localhost:8000", "file:///etc/passwd", "ftp://localhost", "http://"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="expected one such as"):
        Client(url)


def test_nobody_there_is_told() -> None:
    with pytest.raises(ServerError, match="check that it runs"):
        Client("http://127.0.0.1:1").models()


class Other(BaseHTTPRequestHandler):
    """Something else than a segrefiner server: the URL's user part says what it answers."""

    status, content, location = 200, b"", ""
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        self.send_response(self.status)
        if self.location:
            self.send_header("Location", self.location)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"masks": []}'),
        (200, b'{"masks": [{"rle": {"size": [1, 1], "counts": "1"}, "report": {}}]}'),
        (404, b"<html>"),
        (500, b"{}"),
        (302, b""),
        (307, b""),
    ],
)
def test_other_servers_are_told_and_nobody_is_sent_elsewhere(status: int, content: bytes) -> None:
    Other.status, Other.content, Other.location, Other.asked = status, content, "/elsewhere", []
    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.serve_forever, args=(0.01,))
        thread.start()
        try:
            with pytest.raises(ServerError, match="check the URL"):
                Client(f"http://127.0.0.1:{other.server_port}", KEY).refine(PHOTO, MASK)
        finally:
            other.shutdown()
            thread.join()
    assert Other.asked == ["/v1/refine"]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("size-mismatch", SizeMismatchError),
        ("mask", MaskError),
        ("image", ImageError),
        ("parameter", InputError),
        ("busy", ServerError),
        ("failed", ServerError),
        ("of the future", ServerError),
    ],
)
def test_problems_are_told_in_the_server_s_words(kind: str, error: type[SegRefinerError]) -> None:
    Other.status, Other.location = 422, ""
    Other.content = f'{{"type": "urn:segrefiner:problem:{kind}", "detail": "give another one"}}'.encode()
    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        with pytest.raises(SegRefinerError, match="give another one") as caught:
            Client(f"http://127.0.0.1:{other.server_port}").models()
        thread.join()
    assert type(caught.value) is error
