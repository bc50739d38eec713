"""Photos come from the one host that was named, within limits; no address leads anywhere else."""

import socket
from collections.abc import Iterator

import pytest

from helpers.stand_ins.labelstudio import PERSONAL, TOKEN, FakeHost, fake_host, listener
from segrefiner.errors import ImageError, InputError
from segrefiner.serving.labelstudio.images import ImageHost

NAMED = ImageHost.of("http://labels.example:8080")

ELSEWHERE = [
    "http://evil.example:8080/a.png",
    "http://labels.example.evil.example:8080/a.png",
    "http://evil.example/labels.example:8080/a.png",
    "http://labels.example:80/a.png",
    "http://labels.example/a.png",
    "http://labels.example:8081/a.png",
    "http://labels.example.:8080/a.png",
    "https://labels.example:8080/a.png",
    "HTTPS://labels.example:8080/a.png",
    "ftp://labels.example:8080/a.png",
    "file:///etc/passwd",
    "file://labels.example:8080/etc/passwd",
    "data:image/png;base64,iVBORw0KGgo=",
    "s3://bucket/a.png",
    "gs://bucket/a.png",
    "//evil.example/a.png",
    "///evil.example/a.png",
    "//labels.example:8080/a.png",
    "/\\evil.example/a.png",
    "\\\\evil.example\\a.png",
    "http:\\\\evil.example\\a.png",
    "http://labels.example:8080\\@evil.example/a.png",
    "http://labels.example:8080@evil.example/a.png",
    "http://me:secret@labels.example:8080/a.png",
    "http://@labels.example:8080/a.png",
    "http://labels.example:8080#@evil.example/a.png",
    "http://labels.example:8080/a.png#b",
    "http:///a.png",
    "http:a.png",
    "http:/a.png",
    "://labels.example:8080/a.png",
    "http://[::1]:8080/a.png",
    "http://[labels.example]:8080/a.png",
    "http://labels.example:8080:80/a.png",
    "http://labels.example:port/a.png",
    "http://\uff4cabels.example:8080/a.png",
    "http://labels.example\u3002evil:8080/a.png",
    "http://labels.example%00.evil.example:8080/a.png",
    "http://labels%2eexample:8080/a.png",
    "http://labels.example:8080%2f@evil.example/a.png",
    "a.png",
    "../a.png",
    "?a",
    "",
    " /a.png",
    "/a b.png",
    "/a.png\n",
    "/a.png\r\nHost: evil.example",
    "/a\t.png",
    "/a\0.png",
    "/../a.png",
    "/data/../../a.png",
    "/data/%2e%2E/a.png",
    "/data/./a.png",
    "/" + "a" * 3000,
]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_an_address_that_is_not_plainly_the_host_s_is_refused(address: str) -> None:
    with pytest.raises(ImageError, match=r"on http://labels\.example:8080: photos") as told:
        NAMED.path(address)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/data/upload/1/a.png", "/data/upload/1/a.png"),
        ("http://labels.example:8080/data/a.png", "/data/a.png"),
        ("HTTP://LABELS.example:8080/data/a.png", "/data/a.png"),
        ("/data/local-files/?d=cats/a%20b.png&x=http://evil.example", None),
        ("/data/größe.png", "/data/gr%C3%B6%C3%9Fe.png"),
        ("/data/a%2fb.png", "/data/a%2fb.png"),
        ("/data/http://evil.example/a.png", "/data/http://evil.example/a.png"),
        ("/tasks/7/resolve/?fileuri=czM6Ly9idWNrZXQvYQ==", "/tasks/7/resolve/?fileuri=czM6Ly9idWNrZXQvYQ=="),
    ],
)
def test_an_address_of_the_host_is_a_path_there(address: str, path: str | None) -> None:
    assert NAMED.path(address) == (path or address)


def test_a_server_below_a_path_is_asked_there() -> None:
    below = ImageHost.of("https://labels.example/studio/")
    assert (below.port, below.url) == (443, "https://labels.example/studio")
    for address in ("/data/a.png", "/studio/data/a.png", "https://labels.example/studio/data/a.png"):
        assert below.path(address) == "/studio/data/a.png"
    assert below.path("https://labels.example:443/data/a.png") == "/data/a.png"


@pytest.mark.parametrize(
    "url",
    ["", "labels.example", "ftp://labels.example", "http://", "http://me:secret@labels.example", "http://a/?b", "http://a/#b",
     "http://a b/", "http://a:0x50/", "http://a:99999/", "http://a\\b", "file:///etc", "http://\uff4cabels.example"],
)  # fmt: skip
def test_what_is_no_server_is_told_and_passwords_are_not(url: str) -> None:
    with pytest.raises(InputError, match="http://localhost:8080") as told:
        ImageHost.of(url)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "ä", "a\0"])
def test_a_token_that_would_break_the_header_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(InputError) as told:
        ImageHost.of("http://a", token=token)
    assert not token or token not in str(told.value)


def test_the_token_is_in_no_text() -> None:
    assert TOKEN not in repr(ImageHost.of("http://a", token=TOKEN)) + str(ImageHost.of("http://a", token=TOKEN))


@pytest.fixture
def host() -> Iterator[FakeHost]:
    with fake_host() as running:
        yield running


def test_a_photo_is_fetched_with_the_token(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing in the environment takes the request, and the token, elsewhere.
    with listener() as (port, knocked):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        host.files |= {"/data/a%20b.png?x=1": b"photo", "/unannounced": b"p" * 200_000}
        images = ImageHost.of(host.url, token=TOKEN)
        assert images.fetch("/data/a%20b.png?x=1") == images.fetch(f"{host.url}/data/a%20b.png?x=1") == b"photo"
        assert images.fetch("/unannounced") == b"p" * 200_000
        assert host.asked[0] == ("/data/a%20b.png?x=1", f"Token {TOKEN}") and not knocked


def test_a_personal_access_token_is_exchanged_and_again_when_its_time_is_over(host: FakeHost) -> None:
    host.files |= {"/a.png": b"photo"}
    images = ImageHost.of(host.url, token=PERSONAL)
    for _ in range(2):
        assert images.fetch("/a.png") == b"photo"
    host.brief = "another"
    assert images.fetch("/a.png") == b"photo"
    exchanged = [(path, token) for path, token in host.asked if path != "/a.png"]
    assert exchanged == [("/api/token/refresh/", None)] * 2
    assert not any(PERSONAL in str(token) for _, token in host.asked) and PERSONAL not in repr(images)


def test_a_personal_access_token_that_is_none_any_more_is_told(host: FakeHost) -> None:
    host.files |= {"/a.png": b"photo"}
    wrong = PERSONAL[:-1] + "x"
    with pytest.raises(ImageError, match="give a token") as told:
        ImageHost.of(host.url, token=wrong).fetch("/a.png")
    assert wrong not in str(told.value) and "\n" not in str(told.value)


def test_redirects_stay_on_the_host(host: FakeHost) -> None:
    with listener() as (port, knocked):
        host.files["/a.png"] = b"photo"
        host.redirects = {
            "/one": "/two",
            "/two": f"{host.url}/a.png",
            "/loop": "/loop",
            "/away": f"http://127.0.0.1:{port}/a.png",
            "/share": f"//127.0.0.1:{port}/a.png",
            "/name": f"http://localhost:{host.port}/a.png",
            "/file": "file:///etc/passwd",
            "/user": f"http://127.0.0.1:{host.port}@127.0.0.1:{port}/a.png",
            "/relative": "a.png",
            "/nowhere": "",
        }
        images = ImageHost.of(host.url, token=TOKEN)
        assert images.fetch("/one") == b"photo"
        with pytest.raises(ImageError, match="from one address to the next"):
            images.fetch("/loop")
        assert len([path for path, _ in host.asked if path == "/loop"]) == 4
        for path in ("/away", "/share", "/name", "/file", "/user", "/relative", "/nowhere"):
            with pytest.raises(ImageError, match="photos are fetched from there alone"):
                images.fetch(path)
        assert not knocked


@pytest.mark.parametrize(
    ("path", "token", "words"),
    [
        ("/absent", TOKEN, "404"),
        ("/a.png", "wrong", "token"),
        ("/a.png", None, "token"),
        ("/large", TOKEN, "0.001 MB"),
        ("/large-unannounced", TOKEN, "0.001 MB"),
        ("/a.gz", TOKEN, "200"),
        ("/cut", TOKEN, "does not give"),
    ],
)
def test_what_cannot_be_had_is_one_line_without_the_token(
    path: str, token: str | None, words: str, host: FakeHost
) -> None:
    host.files |= {"/a.png": b"a", "/a.gz": b"a", "/cut": b"abc"}
    host.files |= dict.fromkeys(("/large", "/large-unannounced"), b"a" * 1001)
    with pytest.raises(ImageError, match=words) as told:
        ImageHost.of(host.url, token=token, most_bytes=1000).fetch(path)
    assert "\n" not in str(told.value) and (token or TOKEN) not in str(told.value)


@pytest.mark.parametrize("path", ["/never", "/drips"])
def test_a_host_that_takes_its_time_is_left(path: str, host: FakeHost) -> None:
    images = ImageHost("http", "127.0.0.1", host.port, token=TOKEN, seconds=0.4)
    with pytest.raises(ImageError, match="longer than"):
        images.fetch(path)


def test_a_host_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for token in (None, TOKEN, PERSONAL):
        with pytest.raises(ImageError, match="check that it runs"):
            ImageHost.of(f"http://127.0.0.1:{port}", token=token).fetch("/a.png")
