"""Label Studio's requests as it sends them, to a server that refines by a known rule: which region, what comes back.

The requests in `recorded` are what Label Studio 1.23.2 sent, with addresses and tokens exchanged, and projects cut
short; the answers are this server's.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers.annotated import disc
from helpers.serving import MASK, PHOTO, REPORT, encoded, form, header_only
from helpers.stand_ins.labelstudio import TOKEN, FakeHost, fake_host, listener
from segrefiner.formats.brush import decode_brush, encode_brush
from segrefiner.formats.labelstudio import result_instance
from segrefiner.formats.masks import decode_mask
from segrefiner.refinement.refiner import Result

for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "httpx2"):
    pytest.importorskip(package)
server = pytest.importorskip("segrefiner.serving.api")
testclient = pytest.importorskip("fastapi.testclient")
responses = pytest.importorskip("starlette.responses")

from segrefiner.serving.labelstudio.images import ImageHost  # noqa: E402
from segrefiner.serving.limits import Limits  # noqa: E402

RECORDED = Path(__file__).parent / "recorded"
KEY = "0123456789abcdef"
LIMITS = Limits(pixels=10_000, masks=6, upload_bytes=300_000)
SIZE = {"original_width": 64, "original_height": 48, "image_rotation": 0}
SQUARE = [[25, 25], [75, 25], [75, 75], [25, 75]]


def grown(mask: np.ndarray) -> np.ndarray:
    """What this test's refiner makes of a mask: one row more above it."""
    return mask | np.roll(mask, -1, axis=0)


class Grower:
    """In place of a refiner."""

    steps = 1

    def __init__(self) -> None:
        self.boxes: list[Any] = []

    def many(self, pairs: Any, *, on_progress: Any, **_: Any) -> Iterator[Result]:
        for _photo, mask in pairs:
            on_progress(SimpleNamespace())
            new = grown(mask)
            yield Result(new, new.astype(np.float32), replace(REPORT, confidence=0.75))

    def instances(self, photo: Any, masks: Sequence[Any], boxes: Any, **options: Any) -> Iterator[Result]:
        self.boxes.append(boxes)
        return self.many(((photo, mask) for mask in masks), **options)


@pytest.fixture(scope="module")
def host() -> Iterator[FakeHost]:
    with fake_host() as running:
        for number in (7, 8, 9):
            running.files[f"/data/upload/1/{number}.png"] = encoded(PHOTO)
        for name in ("keypoint", "rectangle", "batch"):
            running.files |= {task["data"]["image"]: encoded(PHOTO) for task in recorded(f"{name}.request")["tasks"]}
        yield running


@pytest.fixture(scope="module")
def grower() -> Grower:
    return Grower()


@pytest.fixture(scope="module")
def api(host: FakeHost, grower: Grower) -> Iterator[Any]:
    images = ImageHost.of(host.url, token=TOKEN, most_bytes=LIMITS.upload_bytes)
    app = server.create_app({"tiny": grower}, limits=LIMITS, labelstudio=images)
    with testclient.TestClient(app, base_url="http://localhost") as opened:
        yield opened


def recorded(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.json").read_text())


def told(answer: Any, version: str = "segrefiner-VERSION-tiny") -> Any:
    """An answer without the release, which changes."""
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text.replace(f"segrefiner-{server.__version__}-tiny", version))


@pytest.mark.parametrize("name", ["keypoint", "rectangle", "batch"])
def test_recorded_requests_get_the_recorded_answers(name: str, api: Any) -> None:
    assert told(api.post("/predict", json=recorded(f"{name}.request"))) == recorded(f"{name}.answer")


def mask_of(result: Any) -> np.ndarray:
    instance = result_instance("a", "a", result)
    assert instance is not None
    return decode_mask(instance.mask, (48, 64))[0]


def problem(answer: Any, status: int, words: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    detail: str = answer.json()["detail"]
    assert words in detail and "\n" not in detail and TOKEN not in answer.text
    return detail


def brush(name: str, mask: np.ndarray, label: str = "Dog") -> dict[str, Any]:
    value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label]}
    return {**SIZE, "id": name, "type": "brushlabels", "from_name": "brush", "to_name": "image", "value": value}


def polygon(name: str, points: Any = SQUARE, label: str = "Dog") -> dict[str, Any]:
    value = {"points": points, "closed": True, "polygonlabels": [label]}
    return {**SIZE, "id": name, "type": "polygonlabels", "from_name": "polygon", "to_name": "image", "value": value}


def point(x: float, y: float, positive: bool = True, label: str = "Dog") -> dict[str, Any]:
    """A keypoint at a pixel."""
    value = {"x": x * 100 / 64, "y": y * 100 / 48, "width": 0.5, "keypointlabels": [label]}
    return {**SIZE, "type": "keypointlabels", "is_positive": positive, "value": value}


def rectangle(x0: float, y0: float, x1: float, y1: float, **more: Any) -> dict[str, Any]:
    value = {"x": x0 * 100 / 64, "y": y0 * 100 / 48, "width": (x1 - x0) * 100 / 64, "height": (y1 - y0) * 100 / 48}
    return {**SIZE, "type": "rectanglelabels", "value": value | {"rectanglelabels": ["Dog"]} | more}


def of(*results: Any, updated: str = "2026-01-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    """A draft, annotation or prediction."""
    return {"result": list(results), "updated_at": updated, **more}


def asked(*context: Any, address: Any = "/data/upload/1/7.png", config: Any = None, **task: Any) -> dict[str, Any]:
    sent = {"tasks": [{"id": 7, "data": {"image": address}, **task}], "label_config": config}
    return sent | {"params": {"context": {"result": list(context)} if context else None}}


def refined(api: Any, body: Any) -> Any:
    """The one result of a request."""
    answer = told(api.post("/predict", json=body))
    ((result,),) = [one["result"] for one in answer["results"]]
    return result


SMALL, LARGE, AWAY = disc(5), disc(15), disc(6, 10, 54)


def test_a_brush_comes_back_as_a_brush_under_another_id(api: Any) -> None:
    given = brush("a", LARGE, "Cat")
    result = refined(api, asked(point(30, 24), drafts=[of(given)]))
    np.testing.assert_array_equal(decode_brush(result["value"]["rle"], (48, 64)), grown(LARGE))
    kept = ("type", "from_name", "to_name", *SIZE)
    assert {name: result[name] for name in kept} == {name: given[name] for name in kept}
    assert result["value"]["brushlabels"] == ["Cat"] and result["id"] != "a" and result["score"] == 0.75


def test_a_polygon_comes_back_as_a_polygon(api: Any) -> None:
    given = polygon("a")
    result = refined(api, asked(point(32, 24), drafts=[of(given)]))
    np.testing.assert_array_equal(mask_of(result), grown(mask_of(given)))
    assert result["type"] == "polygonlabels" and "rle" not in result["value"]


@pytest.mark.parametrize(
    ("context", "chosen"),
    [
        ([point(30, 24)], "small"),
        ([point(30, 12)], "large"),
        ([point(54, 10)], "away"),
        ([point(60, 2)], "away"),
        ([point(30, 24), point(30, 12)], "large"),
        ([point(30, 24), point(54, 10, positive=False)], "small"),
        ([point(30, 12), point(30, 24, positive=False)], "ring"),
        ([rectangle(14, 8, 46, 40)], "large"),
        ([rectangle(24, 18, 36, 30)], "small"),
        ([rectangle(48, 4, 60, 16)], "away"),
        ([rectangle(60, 16, 72, 28, rotation=180)], "away"),
        ([point(30, 24), rectangle(14, 8, 46, 40)], "large"),
    ],
)
def test_the_region_that_suits_is_refined(context: list[Any], chosen: str, api: Any) -> None:
    masks = {"small": SMALL, "large": LARGE, "away": AWAY, "ring": LARGE & ~disc(8)}
    drafts = [of(*(brush(name, mask) for name, mask in masks.items() if name == chosen or name != "ring"))]
    np.testing.assert_array_equal(mask_of(refined(api, asked(*context, drafts=drafts))), grown(masks[chosen]))


def test_of_two_that_suit_the_one_with_the_prompt_s_label_is_refined(api: Any) -> None:
    drafts = [of(brush("dog", SMALL, "Dog"), brush("cat", LARGE, "Cat"))]
    for label, mask in (("Dog", SMALL), ("Cat", LARGE), ("Bird", SMALL)):
        np.testing.assert_array_equal(
            mask_of(refined(api, asked(point(30, 24, label=label), drafts=drafts))), grown(mask)
        )


def test_the_newest_draft_comes_before_annotations_and_these_before_predictions(api: Any) -> None:
    def chosen(**task: Any) -> np.ndarray:
        return mask_of(refined(api, asked(point(30, 24), **task)))

    a, b, c, d = (disc(radius) for radius in (5, 7, 9, 11))
    drafts = [of(brush("b", b), updated="2026-01-02T00:00:00Z"), of(brush("a", a), updated="2026-01-01T00:00:00Z")]
    rest = {"annotations": [of(brush("c", c))], "predictions": [of(brush("d", d))]}
    np.testing.assert_array_equal(chosen(drafts=drafts, **rest), grown(b))
    np.testing.assert_array_equal(chosen(drafts=[of(point(1, 1))], **rest), grown(c))
    np.testing.assert_array_equal(chosen(predictions=rest["predictions"]), grown(d))
    cancelled = [of(brush("c", c), was_cancelled=True)]
    np.testing.assert_array_equal(chosen(annotations=cancelled, predictions=rest["predictions"]), grown(d))


def test_a_brush_that_was_just_drawn_is_the_one(api: Any) -> None:
    result = refined(api, asked(brush("new", AWAY), drafts=[of(brush("a", LARGE))]))
    np.testing.assert_array_equal(mask_of(result), grown(AWAY))


def test_a_rectangle_is_the_object_s_box(api: Any, grower: Grower) -> None:
    refined(api, asked(rectangle(14.2, 8.5, 45.1, 39.9), drafts=[of(brush("a", LARGE))]))
    assert [list(box) for box in grower.boxes[-1]] == [[14, 8, 46, 40]]
    refined(api, asked(rectangle(-20, -20, 200, 200), drafts=[of(brush("a", LARGE))]))
    assert [list(box) for box in grower.boxes[-1]] == [[0, 0, 64, 48]]


def test_a_batch_refines_all_regions_keeps_the_rest_and_leaves_our_own(api: Any) -> None:
    choice = {"type": "choices", "value": {"choices": ["day"]}}
    ours = of(brush("ours", LARGE), updated="2027-01-01", model_version=f"segrefiner-{server.__version__}-tiny")
    task = {"predictions": [of(brush("a", SMALL), choice, polygon("b")), ours]}
    (answer,) = told(api.post("/predict", json=asked(**task)))["results"]
    masks = [mask_of(result) for result in answer["result"][:2]]
    np.testing.assert_array_equal(masks[0], grown(SMALL))
    np.testing.assert_array_equal(masks[1], grown(mask_of(polygon("b"))))
    assert answer["result"][2] == choice and answer["model_version"] == "segrefiner-VERSION-tiny"


def test_in_a_batch_what_cannot_be_read_stays_and_is_said(api: Any) -> None:
    turned, cut = {**brush("b", LARGE), "image_rotation": 90}, {**brush("c", LARGE), "value": {"rle": [0, 1]}}
    (answer,) = told(api.post("/predict", json=asked(predictions=[of(brush("a", SMALL), turned, cut)])))["results"]
    np.testing.assert_array_equal(mask_of(answer["result"][0]), grown(SMALL))
    assert answer["result"][1:] == [cut, turned]
    assert len(answer["notes"]) == 2 and "rotated" in answer["notes"][0] and "cut off" in answer["notes"][1]


def test_what_a_polygon_cannot_hold_is_said(api: Any, grower: Grower, monkeypatch: Any) -> None:
    pair = disc(5, 12, 14) | disc(6, 34, 45)
    monkeypatch.setattr(
        grower, "many", lambda pairs, **_: (Result(pair, pair.astype(np.float32), REPORT) for _ in pairs)
    )
    (answer,) = told(api.post("/predict", json=asked(point(32, 24), drafts=[of(polygon("a"))])))["results"]
    np.testing.assert_array_equal(mask_of(answer["result"][0]), pair)
    assert "2 parts" in answer["notes"][0]


def test_a_region_that_vanishes_stays_as_it_was_and_that_is_said(api: Any, grower: Grower, monkeypatch: Any) -> None:
    empty = np.zeros((48, 64), bool)
    monkeypatch.setattr(
        grower, "many", lambda pairs, **_: (Result(empty, empty.astype(np.float32), REPORT) for _ in pairs)
    )
    (answer,) = told(api.post("/predict", json=asked(point(32, 24), drafts=[of(brush("a", SMALL))])))["results"]
    np.testing.assert_array_equal(mask_of(answer["result"][0]), SMALL)
    assert "nothing is left" in answer["notes"][0]


def test_the_photo_is_what_the_image_tag_shows(api: Any, host: FakeHost) -> None:
    config = '<View><Image name="other" value="$b"/><Image name="image" value="$a"/></View>'
    body = asked(point(30, 24), config=config, drafts=[of(brush("a", SMALL))])
    body["tasks"][0]["data"] = {"a": "/data/upload/1/8.png", "b": "/data/upload/1/9.png", "image": "/x"}
    host.asked.clear()
    refined(api, body)
    assert host.asked == [("/data/upload/1/8.png", f"Token {TOKEN}")]


@pytest.mark.parametrize(
    "config", [None, 7, "", "<View", "<View/>", '<!DOCTYPE a [<!ENTITY b "c">]><View/>', "<View>" * 5000]
)
def test_a_configuration_that_is_none_means_the_field_image(config: Any, api: Any) -> None:
    refined(api, asked(point(30, 24), config=config, drafts=[of(brush("a", SMALL))]))


BAD: list[tuple[Any, str]] = [
    (asked(point(30, 24)), "draw one"),
    (asked({"type": "ellipselabels", "value": {"x": 1, "y": 2}}, drafts=[of(brush("a", SMALL))]), "keypoint"),
    (asked(rectangle(0, 0, 5, 5), drafts=[of(brush("a", SMALL))]), "the rectangle meets no brush"),
    (asked(point(30, 24), drafts=[of({**brush("a", SMALL), "image_rotation": 90})]), "rotated"),
    (asked(point(30, 24), drafts=[of({**brush("a", SMALL), "original_width": 63})]), "pixels"),
    (asked(point(30, 24), drafts=[of({**brush("a", SMALL), "original_width": 10**9})]), "megapixels"),
    (asked(point(30, 24), drafts=[of({**brush("a", SMALL), "original_width": None})]), "original_width"),
    (asked(point(30, 24), drafts=[of({**brush("a", SMALL), "value": {"rle": [1, 2, 3]}})]), "cut off"),
    (asked(point(30, 24), drafts=[of({**brush("a", SMALL), "value": {"rle": "x"}})]), "list of bytes"),
    (asked(brush("a", SMALL) | {"item_index": 1}), "on photo 2, but 'image' names one"),
    (asked(brush("a", SMALL) | {"item_index": 1}, address=["/a"]), "on photo 2 of 1"),
    (asked(brush("a", SMALL) | {"item_index": -1}, address=["/a"]), "on photo 0 of 1"),
    (asked(point(30, 24), drafts=[of(polygon("a", [[1, 1], [2]]))]), "points"),
    (asked(point(30, 24), address=None, drafts=[of(brush("a", SMALL))]), "has no 'image'"),
    (asked(point(30, 24), address="http://evil.example/a.png", drafts=[of(brush("a", SMALL))]), "from there alone"),
    (asked(point(30, 24), address="file:///etc/passwd", drafts=[of(brush("a", SMALL))]), "from there alone"),
    (asked(point(30, 24), address="/absent", drafts=[of(brush("a", SMALL))]), "404"),
    (asked(point(30, 24), address="/wide.png", drafts=[of(brush("a", SMALL))]), "limit"),
    (asked(point(30, 24), address="/text", drafts=[of(brush("a", SMALL))]), "no type that is read"),
    (asked(point(30, 24), address="/small.png", drafts=[of(brush("a", SMALL))]), "[48, 63]"),
    (asked(point(30, 24), drafts=[of(*[brush("a", SMALL)] * 7)]), "at most 6"),
    ({"tasks": [{}] * 7}, "at most 6"),
    ({"tasks": {}}, "a list of tasks"),
    ({"tasks": [1]}, "a list of tasks"),
    ({}, "a list of tasks"),
    ({"tasks": [{}, {}], "params": {"context": {"result": [1]}}}, "expected one"),
]


@pytest.mark.parametrize(("body", "words"), BAD, ids=range(len(BAD)))
def test_what_cannot_be_refined_is_one_line(body: Any, words: str, api: Any, host: FakeHost) -> None:
    host.files |= {
        "/wide.png": header_only(400, 400),
        "/text": b"hello",
        "/small.png": encoded(PHOTO[:, :-1]),
    }
    answer = api.post("/predict", json=body)
    problem(answer, answer.status_code, words)
    assert answer.status_code in (413, 415, 422)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_request_is_one_line(content: bytes, api: Any) -> None:
    problem(api.post("/predict", content=content), 400, "send what Label Studio sends")


def test_in_a_batch_a_bad_task_is_told_in_its_place(api: Any) -> None:
    """Also where all are: of an error, Label Studio keeps the status alone."""
    body = asked(predictions=[of(brush("a", SMALL))])
    body["tasks"] += asked(address="http://evil.example/", predictions=[of(brush("a", SMALL))])["tasks"]
    good, bad = told(api.post("/predict", json=body))["results"]
    assert good["result"] and "result" not in bad and "evil.example" in bad["error"]
    (alone,) = told(api.post("/predict", json=asked()))["results"]
    assert list(alone) == ["error"] and "no prediction or annotation" in alone["error"]


def test_what_label_studio_shows_nobody_is_a_line_of_the_log(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    api.post("/predict", json=asked(point(30, 24)))
    (line,) = [one.getMessage() for one in caplog.records if one.name.startswith("segrefiner")]
    assert "draw one" in line and "\n" not in line


def test_regions_of_several_photos_are_refined_on_their_own(api: Any, host: FakeHost) -> None:
    dark = encoded(np.zeros_like(PHOTO))
    host.files |= {"/dark.png": dark, "/bright.png": encoded(PHOTO)}
    two = '<View><Image name="a" value="$a"/><Image name="b" value="$b"/></View>'
    pages = '<View><Image name="a" valueList="$a"/></View>'
    on: dict[str, Any] = {
        "a": {"to_name": "a", "item_index": 0},
        "b": {"to_name": "b"},
        "page": {"to_name": "a", "item_index": 1},
    }
    cases: list[tuple[str, dict[str, Any], str]] = [
        (two, {"a": "/dark.png", "b": "/bright.png"}, "b"),
        (pages, {"a": ["/dark.png", "/bright.png"]}, "page"),
    ]
    for config, data, second in cases:
        regions = [brush("x", SMALL) | on["a"], brush("y", LARGE) | on[second], brush("z", AWAY) | on["a"]]
        body = asked(config=config, predictions=[of(*regions)])
        body["tasks"][0]["data"] = data
        host.asked.clear()
        (answer,) = told(api.post("/predict", json=body))["results"]
        for result, mask in zip(answer["result"], (SMALL, LARGE, AWAY), strict=True):
            np.testing.assert_array_equal(mask_of(result), grown(mask))
        assert [path for path, _ in host.asked] == ["/dark.png", "/bright.png"]
        # A keypoint means the regions of the photo on which it was set.
        body = asked(point(30, 24) | on[second], config=config, drafts=[of(*regions)])
        body["tasks"][0]["data"] = data
        host.asked.clear()
        np.testing.assert_array_equal(mask_of(refined(api, body)), grown(LARGE))
        assert [path for path, _ in host.asked] == ["/bright.png"]


@pytest.mark.parametrize("scheme", ["s3", "gs", "azure-blob"])
def test_photos_of_a_cloud_storage_come_through_label_studio(scheme: str, api: Any, host: FakeHost) -> None:
    uri = base64.urlsafe_b64encode(f"{scheme}://bucket/a.png".encode()).decode()
    host.files[f"/tasks/7/resolve/?fileuri={uri}"] = encoded(PHOTO)
    body = asked(point(30, 24), address=f"{scheme}://bucket/a.png", drafts=[of(brush("a", SMALL))])
    np.testing.assert_array_equal(mask_of(refined(api, body)), grown(SMALL))
    for unnamed in (None, 0, "7", "../7", True):
        body["tasks"][0]["id"] = unnamed
        if unnamed is not True:
            problem(api.post("/predict", json=body), 422, "from there alone")


def test_training_is_refused_and_versions_are_told(api: Any) -> None:
    problem(api.post("/webhook", json=recorded("training.request")), 422, "nothing is trained")
    assert told(api.get("/versions"))["versions"] == ["segrefiner-VERSION-tiny"]


def test_setup_health_and_webhook_answer_and_nobody_is_asked(api: Any, host: FakeHost) -> None:
    """Above all not the host that a request names, nor with a token that it brings."""
    host.asked.clear()
    with listener() as (port, knocked):
        body = recorded("setup.request") | {"hostname": f"http://127.0.0.1:{port}"}
        version = told(api.post("/setup", json=body))["model_version"]
        assert told(api.post("/webhook", json=recorded("webhook.request")))["status"] == "ok"
        assert told(api.get("/health"))["status"] == "UP" and api.head("/health").status_code == 200
        (answer,) = told(api.post("/predict", json=asked(predictions=[of(brush("a", SMALL))])))["results"]
        assert answer["model_version"] == version and not knocked
    assert {token for _, token in host.asked} == {f"Token {TOKEN}"}


def test_no_request_of_any_kind_reaches_another_port(api: Any) -> None:
    with listener() as (port, knocked):
        base = asked(point(30, 24), drafts=[of(brush("a", SMALL))])
        for address in (
            f"http://127.0.0.1:{port}/a.png",
            f"http://localhost:{port}/a.png",
            f"http://2130706433:{port}/a.png",
            f"http://127.1:{port}/a.png",
            f"http://[::ffff:127.0.0.1]:{port}/a.png",
            f"//127.0.0.1:{port}/a.png",
            f"/\\127.0.0.1:{port}/a.png",
            f"http://127.0.0.1:{port}#/a.png",
        ):
            body = json.loads(json.dumps(base))
            body["tasks"][0]["data"]["image"] = address
            problem(api.post("/predict", json=body), 422, "from there alone")
        assert not knocked


ROUTES = {(path, "POST") for path in ("/predict", "/setup", "/webhook")} | {
    (path, method) for path in ("/health", "/versions") for method in ("GET", "HEAD")
}


def own_routes(app: Any) -> set[tuple[str, str]]:
    found = {(route.path, method) for route in app.routes for method in getattr(route, "methods", None) or ()}
    return {(path, method) for path, method in found if path != "/v1/{rest:path}"}


def test_these_routes_are_added_and_no_others() -> None:
    plain, labels = (
        own_routes(server.create_app({"tiny": Grower()}, labelstudio=host))
        for host in (None, ImageHost.of("http://labels.example"))
    )
    assert labels - plain == ROUTES and plain <= labels


def test_every_route_wants_the_key_where_there_is_one_and_basic_authentication_has_it() -> None:
    basic = base64.b64encode(f"label-studio:{KEY}".encode()).decode()
    app = server.create_app({"tiny": Grower()}, api_key=KEY, labelstudio=ImageHost.of("http://labels.example"))
    with testclient.TestClient(app, base_url="http://localhost") as api:
        for path, method in ROUTES:
            for headers in ({}, {"Authorization": "Basic bm86bm8="}, {"Authorization": f"Token {KEY}"}):
                refused = api.request(method, path, headers=headers)
                assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Basic")
            answer = api.request(
                method, path, headers={"Authorization": f"Basic {basic}"}, content=b"{}" * (method == "POST")
            )
            assert answer.status_code == (422 if path == "/predict" else 200)
            if method == "POST":
                foreign = {"Authorization": f"Basic {basic}", "Origin": "http://evil.example"}
                assert api.request(method, path, headers=foreign).status_code == 403


def test_a_page_leaves_them_alone_and_they_have_the_server_s_bounds(host: FakeHost) -> None:
    def page(app: Any) -> None:
        app.mount("/", responses.PlainTextResponse("a page"))

    images = ImageHost.of(host.url, token=TOKEN)
    app = server.create_app(
        {"tiny": Grower()}, limits=Limits(upload_bytes=20_000, queue=1), page=page, labelstudio=images
    )
    with testclient.TestClient(app, base_url="http://localhost") as api:
        assert api.get("/").text == "a page" and told(api.get("/health"))["status"] == "UP"
        refined(api, asked(point(30, 24), drafts=[of(brush("a", SMALL))]))
        for path, method in ROUTES:
            assert api.request(method, path, headers={"Host": "evil.example"}).status_code == 421
            if method == "POST":
                problem(api.post(path, content=bytes(20_001)), 413, "0.02 MB")
        app.state.service.stopping = True
        for answer in (api.get("/health"), api.post("/predict", json={})):
            problem(answer, 503, "about to stop")


def test_the_description_names_them_and_the_api_stays(api: Any) -> None:
    paths = api.get("/v1/openapi.json").json()["paths"]
    assert {"/predict", "/setup", "/webhook", "/health", "/v1/refine"} <= set(paths)
    assert api.post("/v1/refine", files=form(encoded(MASK))).status_code == 200


def test_without_it_there_are_no_such_routes() -> None:
    with testclient.TestClient(server.create_app({"tiny": Grower()}), base_url="http://localhost") as api:
        assert api.post("/predict", json={}).status_code == 404
