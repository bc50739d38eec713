"""Downloads from a server on this machine that does everything that servers do wrong."""

import errno
import hashlib
import http.server
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny import TINY
from segrefiner import Refiner
from segrefiner.errors import CheckpointError
from segrefiner.model import downloads, weights
from segrefiner.model.cache import cache_folder
from segrefiner.model.downloads import Limits, fetch
from segrefiner.model.unet import DenoisingUNet

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Limits(timeout=5, pause=0.001, loopback_http=True)


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next of `answers`, the last one again and again."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.headers: dict[str, str] = {"ETag": '"one"'}
        self.answers: list[Callable[[Handler], None]] = [whole]
        self.asked: list[Any] = []

    def url(self, path: str = "/models/tiny.safetensors") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.headers)
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)

    def begin(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**self.server.headers, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def whole(handler: Handler) -> None:
    """As servers should: ranges, and If-Range."""
    content, start = handler.server.content, handler.headers.get("Range", "bytes=0-")[6:-1]
    same = handler.headers.get("If-Range") in (None, handler.server.headers.get("ETag"))
    if not same or start == "0":
        handler.begin(200, Content_Length=str(len(content)))
        handler.wfile.write(content)
    elif int(start) >= len(content):
        handler.begin(416, Content_Range=f"bytes */{len(content)}", Content_Length="0")
    else:
        rest = content[int(start) :]
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.begin(206, Content_Length=str(len(rest)), Content_Range=span)
        handler.wfile.write(rest)


def cut(size: int) -> Callable[[Handler], None]:
    """Promises all of the file, and hangs up after so many bytes."""

    def answer(handler: Handler) -> None:
        handler.begin(200, Content_Length=str(len(CONTENT)))
        handler.wfile.write(CONTENT[:size])

    return answer


def without_ranges(handler: Handler) -> None:
    handler.begin(200, Content_Length=str(len(handler.server.content)))
    handler.wfile.write(handler.server.content)


def says(status: int, body: bytes = b"", **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.begin(status, Content_Length=str(len(body)), **headers)
        handler.wfile.write(body)

    return answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    return message


def left(cache: Path) -> set[str]:
    """Names of what lies in the cache, but for locks and records."""
    return {path.name for path in cache.rglob("*") if path.is_file() and path.suffix not in (".lock", ".origin")}


def ranges(server: Server) -> list[str | None]:
    return [headers["Range"] for headers in server.asked]


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_a_file_is_fetched_once_and_kept(server: Server, tmp_path: Path, sha256: str | None) -> None:
    for _ in range(2):
        path = fetch(server.url(), sha256, cache_dir=tmp_path, limits=QUICK)
        assert path.read_bytes() == CONTENT and path.name == "tiny.safetensors"
    assert fetch(server.url(), sha256, cache_dir=tmp_path, limits=QUICK, local_files_only=True) == path
    assert len(server.asked) == 1 and left(tmp_path) == {"tiny.safetensors"}


def test_other_addresses_and_checksums_are_other_files(server: Server, tmp_path: Path) -> None:
    addresses = [server.url("/a/x.safetensors"), server.url("/b/x.safetensors"), server.url("/b/x.safetensors?v=2")]
    paths = {fetch(url, sha256, cache_dir=tmp_path, limits=QUICK) for url in addresses for sha256 in (None, SHA256)}
    assert len(paths) == 6
    for name in ("/", "/..", "/.hidden", "/%2e%2e%2fa", "/a b".replace(" ", "%20"), "/" + "x" * 300):
        path = fetch(server.url(name), cache_dir=tmp_path / "odd", limits=QUICK)
        assert path.parent.parent.parent == tmp_path / "odd" and len(path.name) <= 80


@pytest.mark.parametrize("sha256", [None, SHA256])
@pytest.mark.parametrize("sizes", [[1000], [300_000, 300_001], [900_000, 0, 950_000]])
def test_a_cut_connection_is_continued(server: Server, tmp_path: Path, sha256: str | None, sizes: list[int]) -> None:
    server.answers = [cut(sizes[0]), whole]
    assert fetch(server.url(), sha256, cache_dir=tmp_path, limits=QUICK).read_bytes() == CONTENT
    assert ranges(server) == [None, f"bytes={sizes[0]}-"]
    assert server.asked[1]["If-Range"] == '"one"'
    assert left(tmp_path) == {"tiny.safetensors"}


def test_a_connection_that_is_cut_again_and_again_gets_there_while_it_makes_progress(
    server: Server, tmp_path: Path
) -> None:
    def some(handler: Handler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.begin(206 if start else 200, Content_Length=str(len(CONTENT) - start),
                      Content_Range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")  # fmt: skip
        handler.wfile.write(CONTENT[start : start + 200_000])

    server.answers = [some]
    assert fetch(server.url(), cache_dir=tmp_path, limits=QUICK).read_bytes() == CONTENT
    assert len(server.asked) == 6


def test_what_one_call_left_the_next_one_continues(server: Server, tmp_path: Path) -> None:
    server.answers = [cut(400_000), says(503)]
    message = refusal(lambda: fetch(server.url(), cache_dir=tmp_path, limits=QUICK))
    assert "HTTP 503" in message and "0.4 MB of it are kept" in message and "3 attempts" in message
    assert left(tmp_path) == {"tiny.safetensors.part", "tiny.safetensors.part.tag"}
    server.answers, server.asked = [whole], []
    assert fetch(server.url(), cache_dir=tmp_path, limits=QUICK).read_bytes() == CONTENT
    assert ranges(server) == ["bytes=400000-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.answers = [cut(400_000), says(503)]
    refusal(lambda: fetch(server.url(), cache_dir=tmp_path, limits=QUICK))
    server.answers, server.headers, server.content = [whole], {"ETag": '"two"'}, CONTENT[::-1]
    assert fetch(server.url(), cache_dir=tmp_path, limits=QUICK).read_bytes() == CONTENT[::-1]


def test_without_a_version_and_a_checksum_nothing_is_continued(server: Server, tmp_path: Path) -> None:
    server.headers, server.answers = {"ETag": 'W/"weak"'}, [cut(400_000), whole]
    assert fetch(server.url(), cache_dir=tmp_path, limits=QUICK).read_bytes() == CONTENT
    assert ranges(server) == [None, None]
    server.answers, server.asked = [cut(400_000), whole], []
    assert fetch(server.url(), SHA256, cache_dir=tmp_path, limits=QUICK).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=400000-"]


def test_a_server_that_ignores_ranges_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    server.answers = [cut(400_000), without_ranges]
    assert fetch(server.url(), SHA256, cache_dir=tmp_path, limits=QUICK).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=400000-"]


@pytest.mark.parametrize("have", [len(CONTENT), len(CONTENT) + 10])
def test_a_part_that_is_complete_or_too_long(server: Server, tmp_path: Path, have: int) -> None:
    server.answers = [cut(1000), says(503)]
    refusal(lambda: fetch(server.url(), cache_dir=tmp_path, limits=QUICK))
    (part,) = tmp_path.rglob("*.part")
    part.write_bytes((CONTENT + bytes(10))[:have])
    server.answers, server.asked = [whole], []
    assert fetch(server.url(), cache_dir=tmp_path, limits=QUICK).read_bytes() == CONTENT
    # 416 both times: once there is nothing to send, once there is nothing to believe.
    assert ranges(server) == [f"bytes={have}-"] + [None] * (have > len(CONTENT))


def test_another_part_than_was_asked_for_is_not_taken(server: Server, tmp_path: Path) -> None:
    wrong = says(206, b"x" * 10, Content_Range="bytes 0-9/1024000")
    server.answers = [cut(400_000), wrong, whole]
    assert fetch(server.url(), cache_dir=tmp_path, limits=QUICK).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_stays(server: Server, tmp_path: Path) -> None:
    message = refusal(lambda: fetch(server.url(), "0" * 64, cache_dir=tmp_path, limits=QUICK))
    assert SHA256 in message and "0" * 64 in message and "do not use it" in message
    assert left(tmp_path) == set()


def test_damage_in_an_old_part_or_in_the_cache_is_mended(server: Server, tmp_path: Path) -> None:
    server.answers = [cut(400_000), says(503)]
    refusal(lambda: fetch(server.url(), SHA256, cache_dir=tmp_path, limits=QUICK))
    (part,) = tmp_path.rglob("*.part")
    part.write_bytes(b"\0" * 400_000)
    server.answers = [whole]
    path = fetch(server.url(), SHA256, cache_dir=tmp_path, limits=QUICK)
    assert path.read_bytes() == CONTENT
    path.write_bytes(CONTENT[:-1])
    assert fetch(server.url(), SHA256, cache_dir=tmp_path, limits=QUICK).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("answer", "words", "attempts"),
    [
        (says(404), "do not exist (HTTP 404)", 1),
        (says(410), "do not exist (HTTP 410)", 1),
        (says(401), "not for everyone", 1),
        (says(403), "not for everyone", 1),
        (says(418), "HTTP 418: I'm a Teapot", 1),
        (says(429), "HTTP 429", 3),
        (says(500), "HTTP 500", 3),
        (says(416), "HTTP 416", 1),
        (says(204), "another part", 3),
        (says(302, Location="/models/tiny.safetensors"), "HTTP 302", None),
        (says(200, b"<html>Sign in</html>", Content_Type="text/html; charset=utf-8"), "are a web page", 1),
        (cut(0), "ended after 0 of 1024000 bytes", 3),
    ],
)
def test_a_server_that_does_not_give_the_file(
    server: Server, tmp_path: Path, answer: Callable[[Handler], None], words: str, attempts: int | None
) -> None:
    server.answers = [answer]
    message = refusal(lambda: fetch(server.url("/a.safetensors?token=secret"), cache_dir=tmp_path, limits=QUICK))
    assert words in message and "secret" not in message and server.url("/a.safetensors") in message
    assert attempts in (None, len(server.asked))
    assert not [name for name in left(tmp_path) if name.endswith(".safetensors")]


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "create_connection", unknown)
    url = "https://weights.example/model.safetensors"
    message = refusal(lambda: fetch(url, SHA256, cache_dir=tmp_path, limits=QUICK))
    assert "Temporary failure in name resolution" in message and url in message
    # It says where to put the file by hand, and there it is found.
    place = Path(message.rpartition("put it at ")[2].strip("'"))
    place.write_bytes(CONTENT)
    assert fetch(url, SHA256, cache_dir=tmp_path, limits=QUICK) == place


def test_nobody_answers_or_says_a_word(server: Server, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a"
        assert "refused" in refusal(lambda: fetch(url, cache_dir=tmp_path, limits=QUICK))
    silent = threading.Event()
    server.answers = [lambda handler: silent.wait(5) and None]
    message = refusal(lambda: fetch(server.url(), cache_dir=tmp_path, limits=replace(QUICK, timeout=0.05)))
    silent.set()
    assert "timed out" in message


@pytest.mark.parametrize("told", [True, False])
def test_files_that_are_too_large_are_refused(server: Server, tmp_path: Path, told: bool) -> None:
    def endless(handler: Handler) -> None:
        handler.begin(200)
        handler.wfile.write(CONTENT)

    server.answers = [whole if told else endless]
    message = refusal(lambda: fetch(server.url(), cache_dir=tmp_path, limits=replace(QUICK, size=500_000)))
    assert "larger than the 0.0005 GB" in message and left(tmp_path) == set()


def test_a_full_disk_is_told_and_the_part_is_continued(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *arguments: Any, **others: Any) -> Any:
        stream = original(path, *arguments, **others)
        if path.suffix == ".part" and arguments[0] in ("wb", "ab"):
            write = stream.write

            def limited(chunk: bytes) -> int:
                if stream.tell() + len(chunk) > 600_000:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return write(chunk)

            return Limited(stream, limited)
        return stream

    class Limited:
        def __init__(self, stream: Any, write: Any) -> None:
            self.stream, self.write = stream, write

        def __enter__(self) -> "Limited":
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

    original = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        message = refusal(lambda: fetch(server.url(), cache_dir=tmp_path, limits=QUICK))
    assert "No space left on device" in message and str(tmp_path) in message and "make room" in message
    server.asked = []
    assert fetch(server.url(), cache_dir=tmp_path, limits=QUICK).read_bytes() == CONTENT
    assert ranges(server) == ["bytes=524288-"]


def test_a_cache_that_cannot_be_written_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("in the way")
    message = refusal(lambda: fetch(server.url(), cache_dir=tmp_path, limits=QUICK))
    assert "cannot be kept" in message and "SEGREFINER_CACHE" in message


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a",
        "http://127.0.0.1.example.com/a",
        "ftp://example.com/a",
        "file:///etc/passwd",
        "https:///a",
        "https://[::1/a",
        "https://example.com:port/a",
        "https://user:secret@example.com/a",
        "https://example.com/a b",
        "https://example.com/\u00e4",
        "a\nb",
    ],
)
def test_only_plain_https_addresses_are_asked(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("nobody is to be asked"))
    message = refusal(lambda: fetch(url, cache_dir=tmp_path, limits=QUICK))
    assert "secret" not in message


@pytest.mark.parametrize("target", ["http://example.com/a", "file:///etc/passwd", "ftp://example.com/a"])
def test_redirections_must_be_safe_too(server: Server, tmp_path: Path, target: str) -> None:
    server.answers = [says(302, Location=target)]
    message = refusal(lambda: fetch(server.url(), cache_dir=tmp_path, limits=QUICK))
    assert "https" in message or "HTTP 302" in message
    assert left(tmp_path) == set()


def test_redirections_on_this_machine_are_followed(server: Server, tmp_path: Path) -> None:
    server.answers = [says(302, Location="/elsewhere"), cut(400_000), says(302, Location="/elsewhere"), whole]
    path = fetch(server.url(), SHA256, cache_dir=tmp_path, limits=QUICK)
    assert path.read_bytes() == CONTENT and path.name == "tiny.safetensors"
    assert ranges(server) == [None, None, "bytes=400000-", "bytes=400000-"]


def test_without_the_argument_this_machine_needs_https_too(server: Server, tmp_path: Path) -> None:
    assert "https://" in refusal(lambda: fetch(server.url(), cache_dir=tmp_path))
    assert not server.asked


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    def slowly(handler: Handler) -> None:
        threading.Event().wait(0.1)
        whole(handler)

    server.answers = [slowly]
    found: list[bytes] = []

    def get() -> None:
        found.append(fetch(server.url(), cache_dir=tmp_path, limits=QUICK).read_bytes())

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 3 and len(server.asked) == 1


def test_the_cache_follows_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "segrefiner"
    for value in ("relative/path", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == Path.home() / ".cache" / "segrefiner"


# Through `weights.resolve`, whose addresses have https alone


@pytest.fixture
def published(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The checksum of weights behind https://example.com, which is the server on this machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights.save(DenoisingUNet(TINY), tmp_path / "a.safetensors")
    server.content = (tmp_path / "a.safetensors").read_bytes()
    original = downloads.fetch

    def rerouted(url: str, *arguments: Any, **others: Any) -> Path:
        return original(url.replace("https://example.com", server.url("")), *arguments, **others, limits=QUICK)

    monkeypatch.setattr(downloads, "fetch", rerouted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return weights.checksum(tmp_path / "a.safetensors")


def test_a_refiner_comes_from_a_web_address(server: Server, published: str) -> None:
    refiner = Refiner.from_pretrained(f"https://example.com/a.safetensors?token=secret#sha256={published.upper()}")
    assert refiner.name == f"https://example.com/a.safetensors#sha256={published.upper()}"
    path = weights.resolve(f"https://example.com/a.safetensors?token=secret#sha256={published}", local_files_only=True)
    assert weights.load(path).config == TINY and len(server.asked) == 1


@pytest.mark.parametrize(
    "content", [b"\n<!DOCTYPE html><html>Sign in</html>", b"version https://git-lfs", b"PK\x03\x04", b""]
)
def test_what_is_no_weights_file_is_not_kept(server: Server, published: str, tmp_path: Path, content: bytes) -> None:
    server.content = content
    message = refusal(lambda: weights.resolve("https://example.com/a.safetensors"))
    assert "cannot be used" in message
    assert left(tmp_path / "cache") == set()


def test_truncated_weights_of_unknown_length_are_not_kept(server: Server, published: str, tmp_path: Path) -> None:
    def some(handler: Handler) -> None:
        handler.begin(200)
        handler.wfile.write(handler.server.content[:-100])

    server.answers = [some]
    assert "is damaged" in refusal(lambda: weights.resolve("https://example.com/a.safetensors"))
    assert left(tmp_path / "cache") == set()


def test_addresses_and_checksums_that_mean_nothing(tmp_path: Path, published: str) -> None:
    path = tmp_path / "a.safetensors"
    assert weights.resolve(f"{path}#sha256={published}") == path
    assert "expected " + "1" * 64 in refusal(lambda: weights.resolve(f"{path}#sha256={'1' * 64}"))
    assert "64 hexadecimal digits" in refusal(lambda: weights.resolve(f"{path}#sha256=12"))
    assert "expected #sha256=" in refusal(
        lambda: weights.resolve(f"https://example.com/a.safetensors#sha265={published}")
    )
    assert "segrefiner convert" in refusal(lambda: weights.resolve("https://example.com/a.pth?download=1"))
    assert "revision" in refusal(lambda: weights.resolve("https://example.com/a.safetensors", revision="v1"))
    assert "https://" in refusal(lambda: weights.resolve("http://example.com/a.safetensors"))
    assert "not in the cache" in refusal(
        lambda: weights.resolve("https://example.com/other.safetensors", local_files_only=True)
    )
