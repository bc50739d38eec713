"""What the page's addresses let nobody do: open other files, ask other hosts, reach Gradio's own routes."""
# ruff: noqa: E402 - what the page is made of is an extra

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.serving import MASK, PHOTO, encoded, refiner
from helpers.storage import RGB, png

for package in ("segrefiner.serving.page.page", "segrefiner.serving.api", "httpx2", "pymatting"):
    pytest.importorskip(package)

import gradio
from fastapi.testclient import TestClient
from starlette.routing import Mount

from segrefiner.errors import InputError
from segrefiner.serving.api import create_app
from segrefiner.serving.limits import Limits
from segrefiner.serving.page.files import PageFiles, remove_stale_folders
from segrefiner.serving.page.page import mount
from segrefiner.serving.page.routes import PageApi
from segrefiner.serving.page.sessions import Tabs
from segrefiner.serving.page.values import parse_body, reader_of
from segrefiner.serving.problems import ProblemError

JOIN, UPLOAD, FILE = "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/file="
META = {"_type": "gradio.FileData"}
INPUTS = {"image", "radio", "file", "imageeditor", "number", "slider", "checkbox", "dropdown"}
EVENTS = {
    "turn": 1, "to_canvas": 2, "sample": 1, "refine": 2, "describe": 3, "write": 3, "compare": 2, "divide": 1,
    "list_objects": 2,
}  # fmt: skip
"""How often the page ties each of its handlers to an event."""

GRADIO_ROUTES = {
    "/", "/assets/{path:path}", "/config", "/config/", "/favicon.ico", "/login", "/login/", "/logout",
    "/manifest.json", "/monitoring", "/monitoring/summary", "/monitoring/{key}", "/pwa_icon", "/pwa_icon/{size}",
    "/robots.txt", "/static/{path:path}", "/svelte/{path:path}", "/theme.css", "/gradio_api/deep_link",
}  # fmt: skip


class Heard:
    """What the process opened and asked of the network while it was listened to."""

    def __init__(self) -> None:
        self.on = False
        self.opened: list[str] = []
        self.asked: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            self.opened.append(os.fsdecode(arguments[0]))
        elif event in ("os.listdir", "os.scandir", "shutil.copyfile", "subprocess.Popen"):
            self.opened.append(str(arguments[0]))
        elif event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
            self.asked.append(f"{event} {arguments}")

    @contextmanager
    def listening(self) -> Iterator["Heard"]:
        self.opened, self.asked, self.on = [], [], True
        try:
            yield self
        finally:
            self.on = False


@pytest.fixture(scope="module")
def heard() -> Heard:
    return Heard()


class Page:
    """The page's app in this process, and its parts."""

    def __init__(self, client: Any, api: PageApi) -> None:
        self.client, self.api, self.files, self.actions = client, api, api._files, api._actions
        config = client.get("/").text.partition("window.gradio_config = ")[2].partition(";</script>")[0]
        self.config = json.loads(config)
        self.components = {one["id"]: one for one in self.config["components"]}
        self.dependencies = {one["id"]: one for one in self.config["dependencies"]}

    def values(self, index: int) -> list[Any]:
        """What an untouched page sends for an event."""
        return [self.components[one]["props"].get("value") for one in self.dependencies[index]["inputs"]]

    def join(self, index: Any, data: Any, event: Any = None, tab: str = "tab") -> Any:
        body = {"data": data, "event_data": event, "fn_index": index, "trigger_id": 5, "session_hash": tab}
        return self.client.post(JOIN, json=body)

    def told(self, tab: str = "tab") -> list[dict[str, Any]]:
        """All that a tab is told until nothing runs for it any more."""
        lines = self.client.get("/gradio_api/queue/data", params={"session_hash": tab}).text.splitlines()
        return [json.loads(line.removeprefix("data: ")) for line in lines if line]

    def done(self, index: int, data: list[Any], event: Any = None) -> Any:
        """What an event gives."""
        answer = self.join(index, data, event, tab="well")
        assert answer.status_code == 200, answer.text
        (last,) = [one for one in self.told("well") if one["msg"] == "process_completed"]
        assert last["success"], last["output"]
        return last["output"]["data"]

    def upload(self, name: str, content: bytes) -> str:
        answer = self.client.post(UPLOAD, files=[("files", (name, content))])
        assert answer.status_code == 200, answer.text
        return str(answer.json()[0])

    def index(self, handler: str) -> int:
        return next(index for index in self.actions if self.actions[index].handler.__name__ == handler)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    app = create_app({"tiny": refiner()}, limits=Limits(pixels=1_000_000, upload_bytes=2_000_000), page=mount)
    api = app.router.routes[-1].app  # type: ignore[attr-defined]
    with TestClient(app, base_url="http://localhost") as client:
        yield Page(client, api)


def test_nothing_is_written_outside_of_the_page_s_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As where Gradio was imported before anybody could tell it of a folder.
    monkeypatch.setattr(gradio.routes, "DEFAULT_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    create_app({"tiny": refiner()}, limits=Limits(), page=mount)
    (own,) = tmp_path.iterdir()
    assert own.name.startswith("segrefiner-page-")


def file(path: Any, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": META, **more}


@pytest.fixture(scope="module")
def bait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside of the page's, with a picture that is none of a visitor's business, and a pipe."""
    folder = tmp_path_factory.mktemp("bait")
    (folder / "private.png").write_bytes(encoded(PHOTO))
    os.mkfifo(folder / "pipe")
    return folder


def paths(bait: Path, page: Page) -> list[Any]:
    own = page.upload("own.png", encoded(PHOTO))
    folder = page.files.folder
    link = folder / "link.png"
    if not link.is_symlink():
        link.symlink_to(bait / "private.png")
    return [
        str(bait / "private.png"), str(bait / "pipe"), "/dev/zero", "/dev/stdin", "/proc/self/environ", "/etc/passwd",
        "http://127.0.0.1:9/x.png", "http://example.com/x.png", "//example.com/x.png", "file:///etc/passwd",
        "ftp://example.com/x", "data:image/png;base64,iVBORw0KGgo=", "\\\\example.com\\x", str(link), "link.png",
        str(folder / own), f"{folder}/../{bait.name}/private.png", f"{own}/../../../../etc/passwd", own + "\0",
        own + "/", "../" + own, own.upper(), own.partition("/")[0], "", ".",
        "..", "~/.ssh/id_rsa", "\0", "\ud800", "a" * 5000,
        None, 5, True, 1.5, [], {}, [own], {"path": own}, bait.name,
    ]  # fmt: skip


def shapes(path: Any) -> list[Any]:
    """Ways to say a path that some component of Gradio understands, or understood."""
    one = file(path)
    return [
        one, path, [one], [path], [[one, "a"]], {"path": path}, {"name": path, "is_file": True, "data": None},
        file(path, url="http://example.com/x.png"), file(path, is_stream=True), file(path, orig_name="a.png", size=1),
        {"background": one}, {"layers": [one]}, {"composite": one}, {"background": None, "layers": [[one]]},
        {"id": path}, {"image": one, "caption": None}, {"video": one}, {"value": one}, {"props": {"value": one}},
        {"__type__": "update", "value": one}, {"meta": META, "file": one}, {"text": "", "files": [one]},
        {"path": {"path": path, "meta": META}, "meta": META}, {"a": {"b": {"c": [one]}}}, json.dumps(one),
    ]  # fmt: skip


# Every event, component and route


def test_every_event_is_answered_here_and_takes_only_components_that_have_a_reader(page: Page) -> None:
    """A new component, or a new event, is to be thought about before it is let in."""
    asked = {index for index, one in page.dependencies.items() if one["backend_fn"]}
    assert set(page.actions) == asked
    names = [page.actions[index].handler.__name__ for index in page.actions]
    assert {name: names.count(name) for name in names} == EVENTS
    kinds = {page.components[one]["type"] for index in asked for one in page.dependencies[index]["inputs"]}
    assert kinds == INPUTS
    assert not any(one["type"] == "state" for one in page.components.values())


def test_components_without_a_reader_cannot_be_inputs(page: Page) -> None:
    for kind in (gradio.Textbox, gradio.Video, gradio.Gallery, gradio.JSON, gradio.HTML):
        block = kind(render=False)
        with pytest.raises(TypeError, match=kind.__name__):
            reader_of(block, page.files)


class Spy:
    """In place of Gradio: remembers what reaches it."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert message["body"] == b"" and not message["more_body"]
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def routes_of(app: Any) -> set[str]:
    found = set()
    for route in app.routes:
        below = getattr(route, "original_router", None) or getattr(getattr(route, "app", None), "router", None)
        if isinstance(route, Mount):
            found |= {route.path + one for one in routes_of(route.app)} or {route.path}
        elif below is not None and hasattr(below, "routes"):
            found |= {getattr(route, "prefix", "") + one for one in routes_of(below)}
        elif hasattr(route, "path"):
            found.add(route.path)
    return found


def test_none_of_gradios_own_routes_is_reached_but_the_page_itself(page: Page, monkeypatch: Any) -> None:
    """All that this version of Gradio has, by its own list: what a new version adds is tried, too."""
    drawn, spy = page.api._drawn, Spy()
    found = routes_of(drawn)
    assert {"/", "/theme.css", "/config"} <= found and len(found) > 60
    monkeypatch.setattr(page.api, "_drawn", spy)
    names = {"path": "x", "path_or_url": "/etc/passwd", "url_path": "http://example.com", "api_name": "refine"}
    for template in sorted(found):
        path = template
        while "{" in path:
            name = path.partition("{")[2].partition("}")[0]
            path = path.replace("{" + name + "}", names.get(name.partition(":")[0], "x"))
        for method in ("GET", "HEAD", "POST", "PUT"):
            page.client.request(method, path, content=b"{}" * (method == "POST"))
    assert {scope["path"] for scope in spy.scopes} == {"/", "/theme.css"}
    assert {scope["method"] for scope in spy.scopes} == {"GET", "HEAD"}


def test_gradio_has_no_routes_that_nobody_has_looked_at(page: Page) -> None:
    """They are not reached; but a version that has others may draw the page by other means, too."""
    known = {one for one in routes_of(page.api._drawn) if not one.startswith("/gradio_api/")}
    assert known <= GRADIO_ROUTES | {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}


def test_the_page_is_drawn_from_a_request_in_which_nothing_is_the_clients(page: Page, monkeypatch: Any) -> None:
    spy = Spy()
    monkeypatch.setattr(page.api, "_drawn", spy)
    headers = {"Cookie": "access-token=1", "X-Gradio-Server": "http://example.com", "X-Forwarded-Host": "<script>",
               "Referer": "http://example.com", "X-Forwarded-Proto": "https"}  # fmt: skip
    answer = page.client.request(
        "GET", "/", params={"deep_link": "../x", "__theme": "dark", "page": "x"}, headers=headers, content=b"body"
    )
    assert answer.status_code == 200
    (scope,) = spy.scopes
    assert scope["query_string"] == b"" and scope["path"] == "/" and scope["root_path"] == ""
    assert dict(scope["headers"]) == {b"host": b"localhost", b"x-forwarded-proto": b"https"}


def test_what_the_page_shows_tells_no_path(page: Page) -> None:
    text = page.client.get("/").text
    assert str(page.files.folder) not in text and "segrefiner-page-" not in text
    samples = page.config["components"]
    photos = [
        one["image"]["url"] for block in samples if block["props"].get("elem_id") == "samples"
        for one in block["props"]["value"]
    ]  # fmt: skip
    assert len(photos) == 3 and all(page.client.get(url).headers["content-type"] == "image/jpeg" for url in photos)


def test_files_of_the_front_end_come_from_a_list(page: Page) -> None:
    script = next(path for path in page.api._assets if path.endswith(".js"))
    assert page.client.get(script).status_code == 200
    for path in (
        "/assets/../../../routes.py", "/assets/%2e%2e/%2e%2e/index.html", "/assets//etc/passwd",
        "/static/../index.html", "/assets/", "/assets", "/static/..%2findex.html", script + "/",
        script + "%00", "/svelte/x.js",
    ):  # fmt: skip
        assert page.client.get(path).status_code == 404, path


# Paths, devices, addresses


@pytest.mark.slow
def test_no_value_of_any_input_of_any_event_opens_a_path_that_it_names(page: Page, bait: Path, heard: Heard) -> None:
    page.client.get("/theme.css")
    secret = str(bait / "private.png")
    with heard.listening():
        for index in page.actions:
            values = page.values(index)
            for place in range(len(values)):
                for shape in shapes(secret):
                    answer = page.join(index, [*values[:place], shape, *values[place + 1 :]])
                    if isinstance(shape, str) and answer.status_code == 200:
                        block = page.components[page.dependencies[index]["inputs"][place]]
                        assert block["props"]["elem_id"] == "object"  # The title of what is looked at.
                        continue
                    assert answer.status_code == 400, (index, place, shape)
                    assert secret not in answer.text
            for shape in (secret, file(secret), [file(secret)]):
                assert page.join(index, [*values, shape]).status_code == 400
                assert page.join(index, shape).status_code == 400 or (index == page.index("sample"))
                assert page.join(shape, values).status_code == 400
    assert not heard.asked and not heard.opened


def test_the_events_own_data_opens_nothing(page: Page, bait: Path, heard: Heard) -> None:
    index = page.index("sample")
    with heard.listening():
        for shape in [*shapes(str(bait / "private.png")), -1, 3, "0", True, 10**400, {"index": -1}, {"index": True}]:
            assert page.join(index, [], shape).status_code == 400
            assert page.join(index, [], {"index": shape}).status_code == 400
    assert not heard.asked and not heard.opened
    photo = page.done(index, [], {"index": 1, "value": file("/etc/passwd", url="http://example.com")})[0]
    assert photo["orig_name"] == "man.jpg"


def test_no_reader_takes_a_path_that_is_no_name_of_the_page(page: Page, bait: Path, heard: Heard) -> None:
    hostile = paths(bait, page)
    readers = [reader for index in page.actions for reader in page.actions[index].readers]
    with heard.listening():
        for path in hostile:
            for shape in shapes(path):
                for reader in readers:
                    try:
                        read = reader(shape)
                    except ProblemError:
                        continue
                    # A text, a number, or nothing at all: some input takes each of them.
                    assert read in ([], None) or (read == shape and isinstance(shape, str | int | float)), shape
            assert page.files.find(path) is None
    assert not heard.asked and not heard.opened


def test_addresses_beside_a_file_of_the_page_are_never_asked_for(page: Page, heard: Heard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.png"
        own = page.upload("photo.png", encoded(PHOTO))
        index = page.index("to_canvas")
        with heard.listening():
            for address in (url, "http://example.com/x.png", "//example.com", "file:///etc/passwd"):
                (canvas,) = page.done(index, [file(own, url=address, orig_name=address), "I paint it"])
                assert canvas["background"]["url"].startswith("http://localhost/gradio_api/file=")
        assert not heard.asked
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_only_files_of_the_page_are_handed_out(page: Page, bait: Path, heard: Heard) -> None:
    own = page.upload("own.png", encoded(PHOTO))
    answer = page.client.get(FILE + own)
    assert answer.content == encoded(PHOTO) and answer.headers["content-type"] == "image/png"
    assert "sandbox" in answer.headers["content-security-policy"]
    with heard.listening():
        for path in paths(bait, page):
            if isinstance(path, str) and path != own and "\ud800" not in path:
                assert page.client.get(FILE + path.replace("\0", "%00").replace("?", "%3f")).status_code in (404, 422)
    assert not [path for path in heard.opened if not path.startswith(str(page.files.folder))] and not heard.asked


def test_what_a_browser_could_run_is_only_to_be_saved(page: Page) -> None:
    for content in (b"<html><script>alert(1)</script>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"", b"{}"):
        answer = page.client.get(FILE + page.upload("x.html", content))
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/cron.d/x", "..\\..\\x", "\0", "a\nb.png", ".", "é" * 300, ""]
)
def test_names_of_uploads_stay_in_the_pages_folder(page: Page, name: str) -> None:
    found = page.files.find(page.files.add("me", name, name.encode()).name)
    assert (
        found is not None and found.path.parent.parent == page.files.folder and len(os.fsencode(found.path.name)) < 255
    )


def test_a_link_in_place_of_a_file_is_not_followed(page: Page, bait: Path) -> None:
    own = page.files.add("me", "a.png", encoded(MASK))
    own.path.unlink()
    own.path.symlink_to(bait / "private.png")
    assert page.files.find(own.name) is None and page.client.get(FILE + own.name).status_code == 404


def test_a_visitor_is_served_from_upload_to_files(page: Page) -> None:
    photo, mask = (file(page.upload(name, encoded(one))) for name, one in (("a.png", PHOTO), ("m.png", MASK)))
    index = page.index("refine")
    values = page.values(index)
    assert page.done(index, [photo, values[1], [mask], *values[3:]]) == []
    described = page.done(page.index("describe"), [None, "Contour", "All"])
    assert described[2]["choices"] == [["m", "m"]]
    written = page.done(page.index("write"), ["m"])
    answers = [page.client.get(one["value"]["url"]) for one in written]
    assert [one.status_code for one in answers] == [200] * 6 and len(answers[3].json()["annotations"]) == 1
    assert len(answers[4].json()["shapes"]) == 1 and answers[5].text.startswith("0 ")
    names = ["a_mask.png", "a_soft.png", "a_cutout.png", "a_coco.json", "a_labelme.json", "a_yolo.txt"]
    assert [one["value"]["orig_name"] for one in written] == names


def annotations(photo: str) -> bytes:
    """A COCO file of two objects, whose texts name files and addresses of others."""
    box = [20, 10, 60, 10, 60, 40, 20, 40]
    return json.dumps({
        "images": [{"id": 1, "file_name": photo, "coco_url": "http://example.com/x.png", "width": PHOTO.shape[1],
                    "height": PHOTO.shape[0]}],
        "categories": [{"id": 1, "name": "<script>alert(1)</script>"}, {"id": 2, "name": "/etc/passwd"}],
        "annotations": [{"id": n, "image_id": 1, "category_id": n, "segmentation": [box]} for n in (1, 2)],
    }).encode()  # fmt: skip


def test_objects_of_an_annotation_file_are_listed_chosen_and_refined(page: Page) -> None:
    photo = file(page.upload("photo.png", encoded(PHOTO)))
    given = file(page.upload("labels.json", annotations("photo.png")))
    (offered,) = page.done(page.index("list_objects"), [photo, [given]])
    assert offered["visible"] and [value for _, value in offered["choices"]] == offered["value"] == ["0", "1"]
    values = page.values(page.index("refine"))
    page.done(page.index("refine"), [photo, values[1], [given], ["1"], *values[4:]])
    described = page.done(page.index("describe"), page.values(page.index("describe")))
    assert described[2]["choices"] == [["/etc/passwd", "/etc/passwd"]]
    coco = page.client.get(page.done(page.index("write"), [None])[3]["value"]["url"]).json()
    assert [one["name"] for one in coco["categories"]] == ["/etc/passwd"]
    # Pictures need no choice, and neither does an empty field.
    for masks in ([file(page.upload("m.png", encoded(MASK)))], None):
        (nothing,) = page.done(page.index("list_objects"), [photo, masks])
        assert not nothing["visible"] and nothing["choices"] == []


@pytest.mark.parametrize("choice", ["/etc/passwd", "http://example.com", "-1", "1.5", "12345", "", 0, None, ["0"], {}])
def test_objects_are_chosen_by_numbers_alone(page: Page, choice: Any) -> None:
    values = page.values(page.index("refine"))
    assert page.join(page.index("refine"), [*values[:3], [choice], *values[4:]]).status_code == 400


def test_what_annotation_files_name_is_never_opened(bait: Path, heard: Heard, tmp_path: Path) -> None:
    reading = pytest.importorskip("segrefiner.serving.page.reading")
    secret = str(bait / "private.png")
    labelme = {"shapes": [{"label": "a", "points": [[5, 5], [60, 5], [60, 40]], "shape_type": "polygon"}],
               "imagePath": secret, "imageData": secret, "imageHeight": PHOTO.shape[0],
               "imageWidth": PHOTO.shape[1]}  # fmt: skip
    given = [annotations(secret), annotations("http://example.com/x.png"), json.dumps(labelme).encode()]
    for number, content in enumerate(given):
        path = tmp_path / f"{number}.json"
        path.write_bytes(content)
        with heard.listening():
            names, masks = reading.read_objects(
                [path], PHOTO.shape[:2], 1_000_000, photo_name="private.png", chosen=[0]
            )
        assert len(names) == 1 and masks[0].any()
        assert not heard.asked and not [one for one in heard.opened if one != str(path)]


@pytest.mark.parametrize("bits", [8, 10])
def test_a_visitor_is_told_what_was_guessed(page: Page, bits: int) -> None:
    samples = PHOTO if bits == 8 else PHOTO.astype(np.uint16) * 1023 // 255
    photo = page.upload("deep.png", png(samples, 8 if bits == 8 else 16, RGB))
    values = page.values(page.index("refine"))
    values[0], values[2] = file(photo), [file(page.upload("mask.png", encoded(MASK)))]
    page.done(page.index("refine"), values)
    shown = json.dumps(page.done(page.index("describe"), page.values(page.index("describe"))))
    assert ("10 bits" in shown and "deep.png" in shown) == (bits == 10)


def test_faults_are_told_in_a_sentence_without_paths(page: Page) -> None:
    index = page.index("refine")
    values = page.values(index)
    broken = file(page.upload("holiday.jpg", b"no photo"))
    for photo, said in ((None, "there is no photo"), (broken, "holiday.jpg")):
        assert page.join(index, [photo, *values[1:]], tab="faults").status_code == 200
        (last,) = [one for one in page.told("faults") if one["msg"] == "process_completed"]
        assert not last["success"] and said in last["output"]["error"]
        assert str(page.files.folder) not in json.dumps(last) and "Traceback" not in json.dumps(last)


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"[" * 50_000,
        b'{"data": NaN}',
        b'{"a": 1}',
        b"\xff",
        b'{"data": [' + b"9" * 9999 + b"]}",
    ],
)
def test_bodies_that_are_none_are_refused(body: bytes) -> None:
    with pytest.raises(ProblemError) as caught:
        parse_body(body, frozenset({"data"}))
    assert caught.value.kind.status == 400


def test_bodies_of_events_are_bounded(page: Page) -> None:
    index = page.index("turn")
    assert page.join(index, ["x" * 200_000]).status_code == 413
    assert page.join(index, ["x" * 100_000]).status_code == 400
    for numbers in ([1e308], ["1"], [[1]], [{}], [None], [True], [float(10**18)]):
        assert page.join(page.index("divide"), numbers).status_code == 400


@pytest.mark.parametrize("name", ["", "a" * 65, "../x", "a b", "a\0", 5, None, ["a"], {"a": 1}])
def test_names_of_tabs_are_names(page: Page, name: Any) -> None:
    assert page.join(page.index("turn"), ["A file"], tab=name).status_code == 400


# Files and tabs have bounds


def test_quotas_delete_the_oldest_files_of_whom_they_belong_to() -> None:
    now = [0.0]
    files = PageFiles(all_bytes=100_000, client_bytes=60_000, kept_seconds=50, clock=lambda: now[0])
    try:
        stays = files.add(None, "sample.png", bytes(90_000))
        mine = [files.add("me", f"{i}", bytes([i]) * 20_000) for i in range(3)]
        theirs = files.add("you", "a", bytes(30_000))
        now[0] += 1
        assert files.find(mine[0].name)
        more = files.add("me", "more", b"m" * 20_000)
        assert files.find(mine[1].name) is None and not mine[1].path.exists()
        assert all(files.find(one.name) for one in (mine[0], mine[2], theirs, more, stays))
        third = files.add("they", "b", bytes(25_000))
        assert files.bytes_of("me") == 40_000 and files.find(theirs.name) and files.find(third.name)
        with pytest.raises(InputError, match="larger"):
            files.add("me", "x", bytes(60_001))
        now[0] += 51
        assert not files.find(theirs.name) and files.find(stays.name)
        for i in range(100):
            files.add("me", f"empty{i}", b"")
        assert len(list(files.folder.glob("*/empty*"))) <= 15
    finally:
        files.close()
    assert not files.folder.exists()


def test_folders_of_dead_processes_are_removed_and_those_of_living_ones_stay(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    living = PageFiles()
    dead, young, foreign = (tmp_path / f"segrefiner-page-{name}" for name in ("dead", "young", "link"))
    for folder in (dead, young):
        folder.mkdir()
        (folder / "a").write_bytes(b"1")
    other = tmp_path / "other"
    other.mkdir()
    foreign.symlink_to(other)
    long_ago = time.time() - 1000
    for folder in (dead, living.folder, other):
        os.utime(folder, (long_ago, long_ago))
    assert remove_stale_folders() == 1
    assert not dead.exists() and young.exists() and living.folder.exists() and other.exists()
    living.close()


class Result:
    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def test_results_of_tabs_are_bounded_and_the_longest_unused_go() -> None:
    tabs = Tabs(result_bytes=100)
    first, second, other = tabs.open("1", "me"), tabs.open("2", "me"), tabs.open("3", "you")
    for tab in (first, other, second):
        time.sleep(0.002)
        tabs.keep(tab, Result(40))
    assert first.result is None and second.result and other.result
    with pytest.raises(InputError):
        tabs.check_fits(51)
    for i in range(3000):
        tabs.open(f"many{i}", f"client{i % 40}")
    assert len(tabs._tabs) <= 512
    with pytest.raises(ProblemError):
        tabs.open("3", "somebody else") if "3" in tabs._tabs else tabs.find("3")


def test_a_tab_has_only_so_much_to_do_and_what_nobody_hears_ends(page: Page) -> None:
    index, gate = page.index("to_canvas"), threading.Event()
    own = file(page.upload("wait.png", encoded(PHOTO)))
    original = page.actions[index].handler

    async def waits(*_: Any) -> Any:
        import asyncio

        while not gate.is_set():
            await asyncio.sleep(0.01)
        return [None]

    action = page.actions[index]
    object.__setattr__(action, "handler", waits)
    try:
        answers = [page.join(index, [own, "A file"], tab="busy").status_code for _ in range(30)]
        assert answers.count(200) == 12 and set(answers) == {200, 503}
        body = {"session_hash": "busy", "event_id": "x", "fn_index": index}
        assert page.client.post("/gradio_api/cancel", json=body).json() == {"success": True}
        tab = page.api._tabs.find("busy")
        event = next(iter(tab.running))
        assert page.client.post("/gradio_api/cancel", json=body | {"event_id": event}).status_code == 200
        assert len(tab.running) == 11
    finally:
        gate.set()
        object.__setattr__(action, "handler", original)
    assert [one["msg"] for one in page.told("busy")].count("process_completed") == 12
