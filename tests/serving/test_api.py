"""Laws of the HTTP API: what a refiner gives, in the type that is accepted; and every failure is a problem."""

import base64
import io
import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.hostile import HOSTILE
from helpers.serving import HEIGHT, MASK, OTHER, PHOTO, WIDTH, Stub, decoded, encoded, form, header_only, refiner
from segrefiner.imaging.coco_masks import decode_rle, encode_rle
from segrefiner.imaging.codecs.decoder_process import KilledError
from segrefiner.refinement.label_maps import refine_labels
from segrefiner.refinement.refiner import Refiner
from segrefiner.serving import worker

for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "httpx2"):
    pytest.importorskip(package)
server = pytest.importorskip("segrefiner.serving.api")
testclient, parser = map(pytest.importorskip, ("fastapi.testclient", "prometheus_client.parser"))
responses = pytest.importorskip("starlette.responses")
create_app, Limits = server.create_app, server.Limits

JSON = {"Accept": "application/json"}
KEY = "0123456789abcdef"
LABELS = np.where(MASK, 3, np.where(OTHER, 7, 0)).astype(np.uint8)
LABELS[:5, :5] = 255


def client(app: Any) -> Any:
    return testclient.TestClient(app, base_url="http://localhost")


@pytest.fixture(scope="module")
def tiny() -> Refiner:
    return refiner()


@pytest.fixture(scope="module")
def api(tiny: Refiner) -> Iterator[Any]:
    limits = Limits(pixels=10_000, masks=6, upload_bytes=3_000_000)
    with client(create_app({"tiny": tiny, "other": refiner()}, limits=limits)) as opened:
        yield opened


def refine(api: Any, *masks: bytes, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return api.post("/v1/refine", files=form(*masks), data=fields, headers=headers)


def is_problem(answer: Any, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status and problem["type"] == f"urn:segrefiner:problem:{kind}"
    assert problem["title"] and problem["detail"] and "\n" not in problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert not re.search(r"Traceback|/(home|tmp|usr|work)/|\.py\b|0x[0-9a-f]{6}", answer.text)
    return problem


# What comes out


def test_one_mask_comes_back_as_the_png_that_the_refiner_gives(api: Any, tiny: Refiner) -> None:
    expected = tiny(PHOTO, MASK)
    for accept in ("*/*", "image/png", "image/*", "application/json;q=0.5, image/png"):
        answer = refine(api, headers={"Accept": accept})
        assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
        np.testing.assert_array_equal(decoded(answer.content) > 0, expected.mask)
        report = json.loads(answer.headers["x-segrefiner-report"])
        assert report["changed"] == expected.report.changed and report["model"] == "tiny"


def test_json_has_each_mask_with_its_report(api: Any, tiny: Refiner) -> None:
    answer = refine(api, encoded(MASK), encoded(OTHER), headers=JSON).json()
    assert answer["model"] == "tiny" and len(answer["masks"]) == 2
    for one, result in zip(answer["masks"], tiny.many([(PHOTO, MASK), (PHOTO, OTHER)]), strict=True):
        np.testing.assert_array_equal(decode_rle(one["rle"], (HEIGHT, WIDTH)), result.mask)
        assert one["report"]["agreement"] == result.report.agreement
        assert "probability_png" not in one


def test_several_masks_are_json_unless_that_is_refused(api: Any) -> None:
    several = (encoded(MASK), encoded(OTHER))
    assert refine(api, *several).headers["content-type"] == "application/json"
    is_problem(refine(api, *several, headers={"Accept": "image/png"}), 406, "not-acceptable")


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg", "*/*;q=0", "image/png;q=0, application/json;q=0"])
def test_types_that_are_not_made_are_refused(api: Any, accept: str) -> None:
    is_problem(refine(api, headers={"Accept": accept}), 406, "not-acceptable")


def test_soft_masks_are_probabilities_of_8_bit(api: Any, tiny: Refiner) -> None:
    expected = np.rint(tiny(PHOTO, MASK).probability * 255)
    np.testing.assert_array_equal(decoded(refine(api, soft="true").content), expected)
    one = refine(api, soft="true", headers=JSON).json()["masks"][0]
    np.testing.assert_array_equal(decoded(base64.b64decode(one["probability_png"])), expected)


@pytest.mark.parametrize("compressed", [True, False])
def test_run_length_encodings_are_masks_too(api: Any, compressed: bool) -> None:
    files = form()[:1]
    one, other = (encode_rle(mask, compressed=compressed) for mask in (MASK, OTHER))
    by_file = refine(api, encoded(MASK), encoded(OTHER), headers=JSON).json()
    answer = api.post("/v1/refine", files=files, data={"rle": json.dumps([one, other])}, headers=JSON).json()
    assert [mask["rle"] for mask in answer["masks"]] == [mask["rle"] for mask in by_file["masks"]]
    alone = api.post("/v1/refine", files=files, data={"rle": json.dumps(one)})
    np.testing.assert_array_equal(decoded(alone.content), decoded(refine(api).content))


def test_parameters_are_those_of_the_refiner(api: Any, tiny: Refiner) -> None:
    np.testing.assert_array_equal(decoded(refine(api, strength=0).content) > 0, MASK)
    np.testing.assert_array_equal(decoded(refine(api, max_shift="0").content) > 0, MASK)
    expected = tiny(PHOTO, MASK, seed=3, steps=4, max_shift=6.5, strength=0.9)
    answer = refine(api, seed=3, steps=4, max_shift=6.5, strength=0.9)
    np.testing.assert_array_equal(decoded(answer.content) > 0, expected.mask)
    grey = np.where(MASK, 90, 30).astype(np.uint8)
    np.testing.assert_array_equal(
        decoded(refine(api, encoded(grey), threshold=60).content), decoded(refine(api).content)
    )
    assert json.loads(refine(api, model="other").headers["x-segrefiner-report"])["model"] == "tiny"  # its own name


def test_boxes_are_those_of_instances(api: Any, tiny: Refiner) -> None:
    boxes = [[10, 5, 50, 40], [0, 10, 40, 48]]
    answer = refine(api, encoded(MASK), encoded(OTHER), boxes=json.dumps(boxes), headers=JSON).json()
    for one, result in zip(answer["masks"], tiny.instances(PHOTO, [MASK, OTHER], boxes), strict=True):
        np.testing.assert_array_equal(decode_rle(one["rle"], (HEIGHT, WIDTH)), result.mask)


def test_an_empty_mask_comes_back_with_a_note(api: Any) -> None:
    answer = refine(api, encoded(np.zeros_like(MASK)))
    assert not decoded(answer.content).any() and "empty" in json.loads(answer.headers["x-segrefiner-report"])["note"]


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "TIFF", "BMP"])
def test_photos_may_be_of_the_formats_on_the_list(api: Any, format: str) -> None:
    assert api.post("/v1/refine", files=form(image=encoded(PHOTO, format))).status_code == 200


def test_label_maps_keep_palette_bits_and_ignored_labels(api: Any, tiny: Refiner) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint8)
    picture = Image.fromarray(LABELS)
    picture.putpalette(colours.tobytes(), "RGB")
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    expected = refine_labels(tiny, PHOTO, LABELS, ignore=[255])
    files = [form()[0], ("labels", ("x", stream.getvalue()))]
    answer = api.post("/v1/refine/labels", files=files)
    with Image.open(io.BytesIO(answer.content)) as got:
        assert got.mode == "P" and got.getpalette("RGB") == colours.ravel().tolist()
        np.testing.assert_array_equal(np.asarray(got), expected.labels)
    told = api.post("/v1/refine/labels", files=files, headers=JSON).json()
    np.testing.assert_array_equal(decoded(base64.b64decode(told["labels_png"])), expected.labels)
    assert {"3", "7"} <= set(told["reports"]) and told["changed"] == expected.changed
    for ignore in (["none"], ["3", "7"]):
        values = [int(value) for value in ignore if value != "none"]
        got = decoded(api.post("/v1/refine/labels", files=files, data={"ignore": ignore}).content)
        np.testing.assert_array_equal(got, refine_labels(tiny, PHOTO, LABELS, ignore=values).labels)


def test_models_and_health_are_told(api: Any) -> None:
    models = api.get("/v1/models").json()["models"]
    assert [(model["name"], model["default"]) for model in models] == [("tiny", True), ("other", False)]
    assert api.get("/healthz").status_code == api.get("/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/models", "/v1/openapi.json"])
def test_what_can_be_read_can_be_asked_for_its_head(api: Any, path: str) -> None:
    head, whole = api.head(path), api.get(path)
    assert head.status_code == whole.status_code == 200
    assert head.headers["content-type"] == whole.headers["content-type"]


# What is refused


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": "7"}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"seed": "-1"}, "seed"),
        ({"seed": "9" * 5000}, "seed"),
        ({"max_shift": "nan"}, "max_shift"),
        ({"strength": "1.1"}, "strength"),
        ({"threshold": "inf"}, "threshold"),
        ({"model": "/etc/passwd"}, "tiny, other"),
        ({"model": "../tiny"}, "tiny, other"),
        ({"device": "cuda"}, "device"),
        ({"x" * 3000: "1"}, "x"),
        ({"steps": ["1", "2"]}, "2 times"),
        ({"rle": "{}"}, "not both"),
        ({"boxes": "[[1,2,3]]"}, "boxes"),
        ({"boxes": "[[1,2,3,4],[1,2,3,4]]"}, "2 boxes for 1"),
        ({"boxes": "[[5,5,1,1]]"}, "box"),
        ({"boxes": "[" * 5000}, "boxes"),
        ({"image": "http://localhost/photo.png"}, "image"),
    ],
)
def test_wrong_parameters_are_named(api: Any, fields: dict[str, Any], said: str) -> None:
    problem = is_problem(refine(api, **fields), 422, "parameter")
    assert said in problem["detail"] and len(problem["detail"]) < 2000


@pytest.mark.parametrize(
    "rle",
    [
        "",
        "[]",
        "nonsense",
        "1",
        "{}",
        '{"size": [48, 64], "counts": [1, 2]}',
        '{"size": [48, 64], "counts": "\\u0000"}',
        '{"size": [48, 64], "counts": [-1, 3073]}',
        '{"size": [99999, 99999], "counts": [9999800001]}',
        '{"size": [48, 64], "counts": [1e300]}',
        '{"size": [48, 64], "counts": [' + "9" * 5000 + "]}",
        "[" * 100_000,
    ],
)
def test_malformed_encodings_are_told(api: Any, rle: str) -> None:
    answer = api.post("/v1/refine", files=form()[:1], data={"rle": rle})
    assert answer.status_code == 422
    is_problem(answer, 422, answer.json()["type"].rpartition(":")[2])
    assert len(answer.json()["detail"]) < 2000


@pytest.mark.parametrize(
    ("files", "status", "kind"),
    [
        (form()[1:], 422, "parameter"),
        (form()[:1], 422, "parameter"),
        ([*form(), form()[0]], 422, "parameter"),
        ([*form(), ("extra", ("a", b"1"))], 422, "parameter"),
        (form(*[encoded(MASK)] * 7), 400, "bad-request"),
        (form(b""), 422, "mask"),
        (form(encoded(MASK)[:60]), 422, "mask"),
        (form(encoded(MASK[:-1])), 422, "size-mismatch"),
        (form(encoded(PHOTO)), 422, "mask"),
        (form(image=b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 415, "unsupported-type"),
        (form(image=b"GIF89a" + bytes(50)), 415, "unsupported-type"),
        (form(image=b"%!PS-Adobe-3.0 EPSF-3.0"), 415, "unsupported-type"),
        (form(image=b"P6 1 1 255 abc"), 415, "unsupported-type"),
        (form(image=encoded(PHOTO)[:200]), 422, "image"),
        (form(image=header_only(20_000, 20_000)), 413, "too-large"),
        (form(header_only(20_000, 20_000)), 413, "too-large"),
        (form(image=bytes(3_100_000)), 413, "too-large"),
    ],
)
def test_wrong_files_are_told(api: Any, files: list[Any], status: int, kind: str) -> None:
    is_problem(api.post("/v1/refine", files=files), status, kind)


@pytest.fixture(scope="module")
def stubbed() -> Iterator[Any]:
    stub = Stub()
    stub.let.set()
    with client(create_app({"stub": stub})) as opened:  # type: ignore[dict-item]
        yield opened


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "BMP: rows padded byte by byte"])
def test_files_that_take_too_much_are_told_and_the_next_request_is_answered(stubbed: Any, name: str) -> None:
    content, good = HOSTILE[name](), form()
    for files in ([("image", ("a", content)), good[1]], [good[0], ("mask", ("a", content))]):
        answer = stubbed.post("/v1/refine", files=files)
        if answer.status_code != 200:
            assert answer.status_code in (413, 415, 422)
            is_problem(answer, answer.status_code, answer.json()["type"].rpartition(":")[2])
        assert stubbed.post("/v1/refine", files=good).status_code == 200


def test_a_file_that_kills_its_decoder_is_told(stubbed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KilledError

    monkeypatch.setattr(stubbed.app.state.service.decoder("small"), "run", killed)
    problem = is_problem(refine(stubbed), 422, "image")
    assert "more time or memory to decode" in problem["detail"]
    monkeypatch.undo()
    assert refine(stubbed).status_code == 200


def test_sides_are_bounded(stubbed: Any) -> None:
    for width, height in ((40_000_000, 1), (1, 40_000_000), (65_536, 1)):
        for files in (form(image=header_only(width, height)), form(header_only(width, height))):
            problem = is_problem(stubbed.post("/v1/refine", files=files), 413, "too-large")
            assert f"{width}x{height}" in problem["detail"] and "65535" in problem["detail"]


@pytest.mark.slow
def test_noise_is_refused_before_it_is_computed() -> None:
    stub = Stub()
    noise = np.random.default_rng(0).integers(0, 99, (600, 750)).astype(np.uint8)
    photo = encoded(np.zeros((600, 750, 3), np.uint8))
    with client(create_app({"stub": stub})) as api:  # type: ignore[dict-item]
        files = [("image", ("a", photo)), ("labels", ("b", encoded(noise)))]
        problem = is_problem(api.post("/v1/refine/labels", files=files), 413, "too-large")
        assert "1000 views" in problem["detail"] and not stub.calls
        checks = encoded(np.indices((600, 750)).sum(axis=0) % 2 == 0)
        is_problem(api.post("/v1/refine", files=form(*[checks] * 100, image=photo)), 413, "too-large")
        stub.let.set()
        whole = np.zeros((600, 750), bool)
        whole[100:500, 100:600] = True
        assert api.post("/v1/refine", files=form(*[encoded(whole)] * 100, image=photo)).status_code == 200


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("boxes", "[" + "1," * 1_000_000 + "1]"),
        ("boxes", "[" * 15_000),
        ("boxes", "[" + "[1]," * 3000 + "[1]]"),
        ("boxes", '[[1, 2, 3, "4"]]'),
        ("boxes", "[[1, 2, 3, 1e999]]"),
        ("boxes", "[[1, 2, 3, true]]"),
        ("boxes", '{"a": 1}'),
        ("seed", "1" * 1_000_000),
        ("model", "a" * 1_000_000),
        ("strength", "0." + "0" * 1_000_000),
    ],
)
def test_fields_are_bounded_before_they_are_read(api: Any, field: str, text: str) -> None:
    problem = is_problem(refine(api, **{field: text}), 422, "parameter")
    assert field in problem["detail"] and len(json.dumps(problem)) < 3000


def test_wrong_parameters_are_summarised(api: Any) -> None:
    problem = is_problem(refine(api, **{f"x{i}": "1" for i in range(31)}), 422, "parameter")
    assert len(problem["errors"]) == 20 and len(problem["detail"]) < 1000


@pytest.mark.parametrize("count", [7, 100_000])
def test_encodings_are_counted_before_they_are_decoded(api: Any, count: int) -> None:
    rle = json.dumps([encode_rle(MASK)] * 7) if count == 7 else "[" + "1," * (count - 1) + "1]"
    is_problem(api.post("/v1/refine", files=form()[:1], data={"rle": rle}), 413, "too-large")


def test_which_mask_is_wrong_is_told(api: Any) -> None:
    problem = is_problem(refine(api, encoded(MASK), encoded(PHOTO), encoded(MASK)), 422, "mask")
    assert problem["detail"].startswith("mask 2 of 3: ")


def test_masks_together_are_bounded() -> None:
    limits = Limits(pixels=4000, mask_pixels=8000, masks=6)
    with client(create_app({"stub": Stub()}, limits=limits)) as api:  # type: ignore[dict-item]
        is_problem(refine(api, *[encoded(MASK)] * 3), 413, "too-large")
        labels = [form()[0], ("labels", ("x", encoded(np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, -1))))]
        is_problem(api.post("/v1/refine/labels", files=labels), 413, "too-large")


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/", 404, "not-found"),
        ("GET", "/v1/../etc/passwd", 404, "not-found"),
        ("GET", "/v1/refine/..%2f..%2fetc", 404, "not-found"),
        ("GET", "/docs", 404, "not-found"),
        ("GET", "/v1/refine", 405, "method-not-allowed"),
        ("DELETE", "/v1/models", 405, "method-not-allowed"),
        ("POST", "/healthz", 405, "method-not-allowed"),
        ("POST", "/v1/refine?steps=2", 422, "parameter"),
        ("POST", "/v1/refine", 415, "unsupported-type"),
    ],
)
def test_wrong_calls_are_told(api: Any, method: str, path: str, status: int, kind: str) -> None:
    answer = api.request(method, path)
    is_problem(answer, status, kind)
    assert (status == 405) == ("allow" in answer.headers)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=", b"--\r\n"),
        ("multipart/form-data; boundary=x", b"nonsense"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--"),
        ("multipart/form-data; boundary=x; charset=\xff", b"--x\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"a" * 100_000),
        ("multipart/form-data; boundary=\xff\xff", b"--x--"),
    ],
)
def test_damaged_forms_are_told(api: Any, kind: str, body: bytes) -> None:
    answer = api.post("/v1/refine", content=body, headers={"Content-Type": kind.encode("latin-1")})
    assert answer.status_code in (400, 422)
    is_problem(answer, answer.status_code, answer.json()["type"].rpartition(":")[2])


def test_what_fails_inside_is_not_told() -> None:
    stub = Stub()
    stub.let.set()
    stub.faulty = MASK
    with client(create_app({"stub": stub})) as api:  # type: ignore[dict-item]
        problem = is_problem(refine(api), 500, "failed")
        assert "poison" not in problem["detail"]
        assert refine(api, encoded(OTHER)).status_code == 200


def test_nothing_is_written_to_disk(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a file was made")

    monkeypatch.setattr(tempfile, "TemporaryFile", forbidden)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", forbidden)
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    large = encoded(noise) + bytes(2_000_000)
    assert api.post("/v1/refine", files=form(encoded(np.eye(100) > 0), image=large)).status_code == 200


# Who may ask


@pytest.mark.parametrize("given", ["abc-1.2_X", "A" * 64])
def test_request_ids_are_kept(api: Any, given: str) -> None:
    assert api.get("/healthz", headers={"X-Request-Id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "A" * 65, "a b", "<script>", "a\tb", "\xe4".encode("latin-1")])
def test_strange_request_ids_are_replaced(api: Any, given: Any) -> None:
    got = api.get("/healthz", headers={"X-Request-Id": given}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", got)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000"])
def test_this_machine_s_names_are_good_hosts(api: Any, host: str) -> None:
    assert api.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "evil.example:8000", "127.0.0.1@evil", ""])
def test_foreign_hosts_are_refused(api: Any, host: str) -> None:
    is_problem(api.get("/healthz", headers={"Host": host}), 421, "wrong-host")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:9999", "http://127.0.0.1"])
def test_foreign_origins_cannot_post(api: Any, origin: str) -> None:
    is_problem(refine(api, headers={"Origin": origin}), 403, "foreign-origin")
    answer = api.get("/v1/models", headers={"Origin": origin})
    assert answer.status_code == 200 and not any("access-control" in name for name in answer.headers)


def test_the_own_origin_can_post(api: Any) -> None:
    assert refine(api, headers={"Origin": "http://localhost"}).status_code == 200


def page(app: Any) -> None:
    app.mount("/", responses.PlainTextResponse("a page"))


def test_a_key_opens_everything_and_health_is_open(tiny: Refiner) -> None:
    basic = base64.b64encode(f"me:{KEY}".encode()).decode()
    good = [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}, {"Authorization": f"Basic {basic}"}]
    bad = [
        {},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "0"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": KEY},
        {"Authorization": "Basic nonsense"},
        {"Authorization": "Bearer"},
        {"X-API-Key": "\xff".encode("latin-1")},
    ]
    with client(create_app({"tiny": tiny}, api_key=KEY, page=page)) as api:
        for headers in good:
            assert refine(api, headers=headers).status_code == 200
            assert api.get("/", headers=headers).text == "a page"
        for headers in bad:
            for path in ("/v1/models", "/v1/openapi.json", "/metrics", "/", "/v1/nothing"):
                answer = api.get(path, headers=headers)
                is_problem(answer, 401, "unauthorized")
                assert answer.headers["www-authenticate"].split()[0] == ("Bearer" if "/v1" in path else "Basic")
            is_problem(refine(api, headers=headers), 401, "unauthorized")
        assert api.get("/healthz").status_code == api.get("/readyz").status_code == 200


def test_a_page_leaves_the_api_alone_and_is_guarded(tiny: Refiner) -> None:
    with client(create_app({"tiny": tiny}, page=page)) as api:
        assert api.get("/").text == api.get("/anything").text == "a page"
        is_problem(api.get("/v1/nothing"), 404, "not-found")
        is_problem(api.get("/v1/refine"), 405, "method-not-allowed")
        is_problem(api.get("/", headers={"Host": "evil.example"}), 421, "wrong-host")
        is_problem(api.post("/", headers={"Origin": "http://evil.example"}), 403, "foreign-origin")


# How much at a time


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def test_a_full_server_says_when_to_come_back_and_a_stopping_one_finishes() -> None:
    stub = Stub()
    app = create_app({"stub": stub}, limits=Limits(queue=1))  # type: ignore[dict-item]
    with client(app) as api:
        thread, answers = in_background(lambda: refine(api))
        assert stub.begun.wait(20)
        answer = refine(api)
        is_problem(answer, 503, "busy")
        assert int(answer.headers["retry-after"]) >= 1
        app.state.service.stopping = True
        for answer in (refine(api), api.get("/readyz")):
            is_problem(answer, 503, "stopping")
            assert int(answer.headers["retry-after"]) >= 1
        assert api.get("/healthz").status_code == 200 and not app.state.service.idle
        stub.let.set()
        thread.join()
        assert answers[0].status_code == 200 and app.state.service.idle


@pytest.mark.slow
def test_waiting_and_computing_have_an_end() -> None:
    stub = Stub()
    limits = Limits(queue_seconds=0.3, request_seconds=2.0)
    with client(create_app({"stub": stub}, limits=limits)) as api:  # type: ignore[dict-item]
        thread, answers = in_background(lambda: refine(api))
        assert stub.begun.wait(20)
        is_problem(refine(api), 503, "busy")
        thread.join()
        is_problem(answers[0], 504, "out-of-time")
        # The first one was broken off: the next is begun, and the one that only waited never is.
        is_problem(refine(api), 504, "out-of-time")
        assert stub.calls == [1, 1]
        stub.let.set()
        assert refine(api).status_code == 200


@pytest.mark.slow
def test_a_worker_that_gives_no_sign_makes_the_server_unready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_LAST_SECONDS", 0.1)
    gate = threading.Event()

    class Stuck(Stub):
        def many(self, pairs: Any, **_: Any) -> Any:
            self.begun.set()
            gate.wait()
            return super().many(pairs, **_)

    stub = Stuck()
    stub.let.set()
    limits = Limits(stuck_seconds=0.3, request_seconds=3.0)
    with client(create_app({"stub": stub}, limits=limits)) as api:  # type: ignore[dict-item]
        assert api.get("/readyz").status_code == 200
        thread, answers = in_background(lambda: refine(api))
        assert stub.begun.wait(20)
        thread.join()
        is_problem(answers[0], 504, "out-of-time")
        is_problem(api.get("/readyz"), 503, "busy")
        is_problem(refine(api), 503, "busy")
        assert api.get("/healthz").status_code == 200
    gate.set()


def test_what_the_log_says_of_a_request_is_bounded_and_printable(caplog: pytest.LogCaptureFixture) -> None:
    class Loud(Stub):
        def many(self, pairs: Any, **_: Any) -> Any:
            raise RuntimeError("\x1b]0;stolen\x07" + "x" * 1_000_000)

    with client(create_app({"stub": Loud()})) as api:  # type: ignore[dict-item]
        is_problem(refine(api), 500, "failed")
    assert 0 < len(caplog.text) < 20_000 and not set("\x1b\x07") & set(caplog.text) and "stolen" in caplog.text


def test_concurrent_requests_share_batches_and_are_counted() -> None:
    stub = Stub()
    with client(create_app({"stub": stub})) as api:  # type: ignore[dict-item]
        first = in_background(lambda: refine(api))
        assert stub.begun.wait(20)
        others = [in_background(lambda: refine(api)) for _ in range(3)]
        while figures(api)["segrefiner_queue_length"] < 3:
            time.sleep(0.01)
        stub.let.set()
        for thread, _ in [first, *others]:
            thread.join()
        assert stub.calls == [1, 3]
        after = figures(api)
    assert after["segrefiner_queue_length"] == 0
    assert after["segrefiner_batch_masks_count"] == 2 and after["segrefiner_batch_masks_sum"] == 4
    assert after["segrefiner_masks_refined_total"] == 4
    assert after["segrefiner_requests_total", "/v1/refine", "200"] == 4
    assert after["segrefiner_request_seconds_count", "/v1/refine"] == 4


def figures(api: Any) -> dict[Any, float]:
    families = parser.text_string_to_metric_families(api.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if not sample.name.endswith("_bucket")]
    return {(one.name, *one.labels.values()) if one.labels else one.name: one.value for one in samples}


def test_made_up_paths_are_one_figure(api: Any) -> None:
    for path in ("/a", "/b", "/v1/c", "/v1/d"):
        api.get(path)
    routes = {name[1] for name in figures(api) if isinstance(name, tuple)}
    assert not routes & {"/a", "/b", "/v1/c", "/v1/d"}


# The description


def test_the_description_is_whole(api: Any) -> None:
    told = api.get("/v1/openapi.json").json()
    assert set(told["paths"]) == {
        "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/refine", "/v1/refine/labels"
    }  # fmt: skip
    for reference in re.findall(r'"\$ref": ?"#/([^"]+)"', json.dumps(told)):
        place = told
        for step in reference.split("/"):
            place = place[step]
    for path in ("/v1/refine", "/v1/refine/labels"):
        operation = told["paths"][path]["post"]
        body = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert body["additionalProperties"] is False and body["example"] and "steps" in body["properties"]
        assert operation["responses"]["200"]["content"]["application/json"]["example"]
        for status in ("400", "401", "403", "406", "408", "413", "415", "421", "422", "500", "503", "504"):
            assert set(operation["responses"][status]["content"]) == {"application/problem+json"}
