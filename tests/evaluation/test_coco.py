"""AP on miniatures of COCO and LVIS, against a plain computation on pixels; and what damaged files lead to."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from segrefiner.cli.main import main
from segrefiner.errors import InputError, MaskError
from segrefiner.evaluation.coco import load_detections, load_truth, measure_detections
from segrefiner.evaluation.coco_categories import COCO_CATEGORIES
from segrefiner.imaging.coco_masks import check_polygons, rle_runs

QUICK = settings(max_examples=150)
HEIGHT, WIDTH = 120, 160
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RANGES = {"": (0, 1e10), "_small": (0, 32**2), "_medium": (32**2, 96**2), "_large": (96**2, 1e10)}
Mask = Any


def runs_of(mask: Mask) -> list[int]:
    runs, state = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != state:
            runs.append(0)
            state = pixel
        runs[-1] += 1
    return runs


def compressed(runs: list[int]) -> str:
    """COCO's string, written down from its definition."""
    text = ""
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if done else 32))
            if done:
                break
    return text


def rle(mask: Mask, *, plain: bool = False) -> dict[str, Any]:
    runs = runs_of(mask)
    return {"size": list(mask.shape), "counts": runs if plain else compressed(runs)}


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def polygon(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def boundary(mask: Mask) -> Mask:
    width = max(1, round(0.02 * math.hypot(*mask.shape)))
    return mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width)


def overlap(detection: Mask, truth: Mask, crowd: bool) -> float:
    union = detection.sum() if crowd else (detection | truth).sum()
    return float((detection & truth).sum() / union) if union else 0.0


def similarity(detection: Mask, truth: Mask, crowd: bool, kind: str) -> float:
    of_masks = overlap(detection, truth, crowd)
    if kind == "" or crowd:
        return of_masks
    return min(of_masks, overlap(boundary(detection), boundary(truth), False))


def average_precision(
    truths: list[dict[str, Any]],
    detections: list[dict[str, Any]],
    images: list[dict[str, Any]],
    threshold: float,
    limits: tuple[float, float],
    kind: str,
    limit: int,
) -> float:
    """AP of one category, from its definition, on records that hold masks."""
    found: list[tuple[float, bool]] = []
    positives = 0
    for image in images:
        true = [one for one in truths if one["image_id"] == image["id"]]
        ignored = [bool(one["crowd"]) or not limits[0] <= one["area"] <= limits[1] for one in true]
        positives += ignored.count(False)
        own = sorted((one for one in detections if one["image_id"] == image["id"]), key=lambda one: -one["score"])
        if image.get("federated") is not None and not true and "negative" not in image["federated"]:
            continue
        taken: set[int] = set()
        for one in own[:limit]:
            scores = [similarity(one["mask"], other["mask"], other["crowd"], kind) for other in true]
            match = None
            for wanted in (False, True):
                free = [i for i in range(len(true)) if ignored[i] == wanted and (i not in taken or true[i]["crowd"])]
                good = [i for i in free if scores[i] >= threshold]
                if match is None and good:
                    match = max(good, key=lambda i: scores[i])
            if match is not None:
                taken.add(match)
                if not ignored[match]:
                    found.append((one["score"], True))
                continue
            exhaustive = "not_exhaustive" not in (image.get("federated") or ())
            if limits[0] <= one["mask"].sum() <= limits[1] and exhaustive:
                found.append((one["score"], False))
    if not positives:
        return math.nan
    found.sort(key=lambda one: -one[0])
    right = np.cumsum([one[1] for one in found])
    recall, precision = right / positives, right / np.arange(1, len(found) + 1)
    at = [max((p for r, p in zip(recall, precision, strict=True) if r >= level), default=0.0) for level in RECALLS]
    return float(np.mean(at))


RECALLS = np.linspace(0, 1, 101)


def expected(truths: Any, detections: Any, images: Any, limit: int) -> dict[str, float]:
    figures = {}
    for kind in ("", "boundary_"):
        for part, limits in RANGES.items():
            aps = [average_precision(truths, detections, images, t, limits, kind, limit) for t in THRESHOLDS]
            figures[f"{kind}ap{part}"] = float(np.mean(aps))
            if not part:
                figures[f"{kind}ap50"], figures[f"{kind}ap75"] = aps[0], aps[5]
    return figures


# Category, image and box of each true object; the two largest are beyond 96 * 96 pixels.
TRUTHS = [
    (1, 1, (5, 5, 25, 35)), (1, 1, (40, 10, 90, 70)), (1, 2, (10, 10, 150, 110)), (1, 3, (60, 60, 80, 80)),
    (17, 1, (100, 80, 150, 115)), (17, 2, (0, 0, 30, 30)), (17, 3, (20, 15, 140, 105)), (44, 2, (70, 50, 100, 90)),
    (44, 3, (0, 60, 40, 120)),
]  # fmt: skip
CROWD = (1, 3, (100, 0, 160, 50))
# Shift of the sides and score of a detection of each, in the same order.
CHANGES = [
    ((0, 0, 0, 0), 0.9), ((2, 1, 0, -3), 0.8), ((-4, 3, 2, 1), 0.95), ((3, 3, 3, 3), 0.5), ((1, 0, -2, 0), 0.7),
    ((0, 0, 6, 2), 0.6), ((5, 0, 0, 5), 0.9), ((0, 2, 0, 0), 0.99), ((1, 1, 1, -1), 0.2),
]  # fmt: skip
FALSE = [
    (1, 1, (120, 10, 150, 40), 0.85), (1, 2, (11, 12, 149, 108), 0.3), (17, 2, (60, 0, 70, 10), 0.65),
    (44, 1, (0, 90, 30, 120), 0.75), (44, 3, (50, 60, 90, 120), 0.55), (1, 3, (110, 5, 150, 45), 0.45),
    (1, 3, (105, 0, 145, 30), 0.35), (17, 4, (30, 30, 60, 60), 0.4), (1, 4, (0, 0, 150, 110), 0.15),
]  # fmt: skip


def moved(box: tuple[int, ...], change: tuple[int, ...]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (max(0, side + step) for side, step in zip(box, change, strict=True))
    return x0, y0, min(x1, WIDTH), min(y1, HEIGHT)


def detection_boxes() -> list[tuple[int, int, tuple[int, int, int, int], float]]:
    right = [(c, i, moved(box, change), s) for (c, i, box), (change, s) in zip(TRUTHS, CHANGES, strict=True)]
    return right + FALSE


def write(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data))
    return path


def write_detections(path: Path) -> Path:
    """Segmentations of every spelling, and boxes that say nothing about the mask's area."""
    records = []
    for index, (category, image, box, score) in enumerate(detection_boxes()):
        mask = rectangle(*box)
        spelling = (rle(mask), rle(mask, plain=True), polygon(*box))[index % 3]
        records.append({"image_id": image, "category_id": category, "score": score, "segmentation": spelling})
        records[-1]["bbox"] = [0, 0, WIDTH, HEIGHT]
    return write(path, records)


def image_records(**more: dict[int, Any]) -> list[dict[str, Any]]:
    extra = [{key: values[image] for key, values in more.items()} for image in range(1, 5)]
    return [{"id": image, "height": HEIGHT, "width": WIDTH, **extra[image - 1]} for image in range(1, 5)]


def annotation(category: int, image: int, box: tuple[int, int, int, int], number: int) -> dict[str, Any]:
    segmentation = rle(rectangle(*box)) if number % 2 else polygon(*box)
    area = int(rectangle(*box).sum())
    return {"id": number, "image_id": image, "category_id": category, "area": area, "segmentation": segmentation}


def coco_file(path: Path) -> Path:
    annotations = [annotation(*true, number) | {"iscrowd": 0} for number, true in enumerate(TRUTHS)]
    annotations.append(annotation(*CROWD, 99) | {"iscrowd": 1, "segmentation": rle(rectangle(*CROWD[2]), plain=True)})
    categories = [{"id": number, "name": name} for number, name, _ in COCO_CATEGORIES]
    return write(path, {"images": image_records(), "annotations": annotations, "categories": categories})


LVIS_IDS = {1: 793, 17: 225, 44: 133}
DECK_CHAIR = 368
NEGATIVE = {1: [44], 2: [], 3: [], 4: [17]}
NOT_EXHAUSTIVE = {1: [1], 2: [17], 3: [], 4: []}


def lvis_file(path: Path) -> Path:
    urls = {image: f"http://images.cocodataset.org/val2017/{image:012d}.jpg" for image in range(1, 5)}
    images = image_records(
        coco_url=urls,
        neg_category_ids={image: [LVIS_IDS[one] for one in ids] + [DECK_CHAIR] for image, ids in NEGATIVE.items()},
        not_exhaustive_category_ids={image: [LVIS_IDS[one] for one in ids] for image, ids in NOT_EXHAUSTIVE.items()},
    )
    train = dict(images[0], id=5, coco_url=urls[1].replace("val2017", "train2017"))
    annotations = [annotation(LVIS_IDS[c], i, box, number) for number, (c, i, box) in enumerate(TRUTHS)]
    annotations += [annotation(DECK_CHAIR, 2, (0, 0, 9, 9), 50), annotation(LVIS_IDS[1], 5, (0, 0, 9, 9), 51)]
    synsets = {category.id: category.synset for category in COCO_CATEGORIES}
    categories = [
        {"id": LVIS_IDS[one], "name": "anything", "synset": synsets[one], "frequency": "r"} for one in LVIS_IDS
    ]
    categories.append({"id": DECK_CHAIR, "name": "deck_chair", "synset": "folding_chair.n.01", "frequency": "c"})
    return write(path, {"images": [*images, train], "annotations": annotations, "categories": categories})


def as_masks(*, crowd: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    def truth(category: int, image: int, box: tuple[int, int, int, int], is_crowd: bool) -> dict[str, Any]:
        mask = rectangle(*box)
        return {"category": category, "image_id": image, "mask": mask, "area": mask.sum(), "crowd": is_crowd}

    truths = [truth(*one, False) for one in TRUTHS] + ([truth(*CROWD, True)] if crowd else [])
    detections = [
        {"category": category, "image_id": image, "mask": rectangle(*box), "score": score}
        for category, image, box, score in detection_boxes()
    ]
    return truths, detections


def of(category: int, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in records if one["category"] == category]


NAMES = {1: "person", 17: "cat", 44: "bottle"}


@pytest.mark.parametrize("limit", [100, 1])
def test_coco_agrees_with_a_plain_computation(tmp_path: Path, limit: int) -> None:
    truth = load_truth(coco_file(tmp_path / "truth.json"))
    detections, failures = load_detections(write_detections(tmp_path / "found.json"), truth)
    assert not truth.lvis and not truth.failures and not failures and not truth.notes
    rows = {row.name: row for row in measure_detections(truth, detections, max_detections=limit)}
    assert rows.keys() == set(NAMES.values())
    truths, found = as_masks(crowd=True)
    images = [{"id": image} for image in range(1, 5)]
    for number, name in NAMES.items():
        figures = expected(of(number, truths), of(number, found), images, limit)
        assert rows[name].after.values == pytest.approx(figures, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("limit", [300, 3])
def test_lvis_agrees_with_a_plain_computation(tmp_path: Path, limit: int) -> None:
    truth = load_truth(lvis_file(tmp_path / "truth.json"))
    detections, failures = load_detections(write_detections(tmp_path / "found.json"), truth)
    assert truth.lvis and not truth.failures and not failures
    assert any("Left out: 1 annotations of LVIS" in note for note in truth.notes)
    assert any("Left out: 1 images of COCO's training set. Scored: 4" in note for note in truth.notes)
    rows = {row.name: row for row in measure_detections(truth, detections, max_detections=limit)}
    truths, found = as_masks(crowd=False)
    # LVIS limits the detections of an image, not of a category.
    best = {
        id(one)
        for image in range(1, 5)
        for one in sorted((d for d in found if d["image_id"] == image), key=lambda d: -d["score"])[:limit]
    }
    found = [one for one in found if id(one) in best]
    for number, name in NAMES.items():
        images = []
        for image in range(1, 5):
            known = {"negative"} if number in NEGATIVE[image] else set()
            images.append({"id": image, "federated": known | ({"not_exhaustive"} & {
                "not_exhaustive" if number in NOT_EXHAUSTIVE[image] else ""})})  # fmt: skip
        figures = expected(of(number, truths), of(number, found), images, limit)
        assert rows[name].after.values == pytest.approx(figures, abs=1e-9, nan_ok=True), name


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", "coco", *(str(one) for one in arguments)])


def test_the_command_writes_figures_of_the_set(tmp_path: Path) -> None:
    paths = coco_file(tmp_path / "truth.json"), write_detections(tmp_path / "found.json")
    perfect = [
        {"image_id": image, "category_id": category, "score": 1.0, "segmentation": rle(rectangle(*box))}
        for category, image, box in TRUTHS
    ]
    better = write(tmp_path / "better.json", perfect)
    result = run(paths[0], better, "--coarse", paths[1], "--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "out.json").read_text())
    (summary,) = data["summary"]
    assert summary["after"]["ap"] == summary["after"]["boundary_ap_small"] == 1
    assert summary["before"]["ap"] == pytest.approx(np.mean([row["before"]["ap"] for row in data["rows"]]))
    assert summary["gain"]["ap"] == pytest.approx(1 - summary["before"]["ap"]) and summary["harmed"] == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + len(NAMES)
    assert "100.00" in result.stdout


def test_lvis_images_of_the_training_set_count_on_request(tmp_path: Path) -> None:
    path = lvis_file(tmp_path / "truth.json")
    assert sorted(load_truth(path).sizes) == [1, 2, 3, 4]
    assert sorted(load_truth(path, all_images=True).sizes) == [1, 2, 3, 4, 5]


def test_the_table_of_categories_is_cocos() -> None:
    unused = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert [category.id for category in COCO_CATEGORIES] == [n for n in range(1, 91) if n not in unused]
    assert len({category.synset for category in COCO_CATEGORIES}) == 80
    assert {"hot dog", "tv", "cow"} <= {category.name for category in COCO_CATEGORIES}


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "sum": lambda one: one.update(segmentation={"size": [HEIGHT, WIDTH], "counts": [3, 4]}),
    "negative": lambda one: one.update(segmentation={"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH + 5, -5]}),
    "other size": lambda one: one.update(segmentation={"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}),
    "bool size": lambda one: one.update(segmentation={"size": [True, 1], "counts": [1]}),
    "no counts": lambda one: one.update(segmentation={"size": [HEIGHT, WIDTH]}),
    "counts of text": lambda one: one.update(segmentation={"size": [HEIGHT, WIDTH], "counts": ["1"]}),
    "counts missing": lambda one: one.update(segmentation={"size": [HEIGHT, WIDTH], "counts": None}),
    "cut string": lambda one: one.update(segmentation={"size": [HEIGHT, WIDTH], "counts": "o"}),
    "strange string": lambda one: one.update(segmentation={"size": [HEIGHT, WIDTH], "counts": "~é"}),
    "empty string": lambda one: one.update(segmentation={"size": [HEIGHT, WIDTH], "counts": ""}),
    "huge number": lambda one: one.update(segmentation={"size": [HEIGHT, WIDTH], "counts": "oooooooooooooooo0"}),
    "nothing": lambda one: one.pop("segmentation"),
    "no polygon": lambda one: one.update(segmentation=[]),
    "two corners": lambda one: one.update(segmentation=[[0, 0, 5, 5]]),
    "odd polygon": lambda one: one.update(segmentation=[[0, 0, 5, 5, 0, 5, 1]]),
    "polygon of text": lambda one: one.update(segmentation=[[0, 0, 5, 5, 0, "5"]]),
    "far polygon": lambda one: one.update(segmentation=[[0, 0, 5, 5, 0, 1e9]]),
    "nan": lambda one: one.update(segmentation=[[0, 0, 5, 5, 0, math.nan]]),
    "number without end": lambda one: one.update(segmentation=[[0, 0, 5, 5, 0, 10**400]]),
    "no score": lambda one: one.pop("score"),
    "score of text": lambda one: one.update(score="0.5"),
    "score nan": lambda one: one.update(score=math.nan),
    "image of text": lambda one: one.update(image_id="1"),
    "category missing": lambda one: one.pop("category_id"),
    "image without end": lambda one: one.update(image_id=10**30),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_items_are_named_and_left_out(tmp_path: Path, damage: Callable[[dict[str, Any]], object]) -> None:
    truth = load_truth(coco_file(tmp_path / "truth.json"))
    path = write_detections(tmp_path / "found.json")
    sound, _ = load_detections(path, truth)
    records = json.loads(path.read_text())
    damage(records[4])
    detections, (failure,) = load_detections(write(path, records), truth)
    assert failure.name == "detection 4" and "\n" not in failure.message and "found.json" in failure.message
    assert len(detections) == len(sound) - 1


def test_damaged_annotations_are_named_and_left_out(tmp_path: Path) -> None:
    path = coco_file(tmp_path / "truth.json")
    data = json.loads(path.read_text())
    data["annotations"][0]["segmentation"] = [[1, 2]]
    data["annotations"][1]["image_id"] = 77
    data["annotations"][2]["category_id"] = 12
    data["annotations"][3]["area"] = "large"
    data["images"].append({"id": 8, "height": 10**9, "width": 10**9})
    data["images"].append(dict(data["images"][0]))
    truth = load_truth(write(path, data))
    assert [failure.name for failure in truth.failures] == [
        "image 8", "image 1", "annotation 0", "annotation 1", "annotation 2", "annotation 3",
    ]  # fmt: skip
    result = run(path, write_detections(tmp_path / "found.json"))
    assert result.exit_code == 3 and "annotation 2: there is no category 12" in result.stderr
    assert "6 problems" in result.stderr and "| predicted" in result.stdout


def test_unknown_ids_are_told_once(tmp_path: Path) -> None:
    record = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": rle(rectangle(0, 0, 5, 5))}
    records = [record, dict(record, image_id=70), dict(record, image_id=70), dict(record, category_id=12)]
    found = write(tmp_path / "found.json", [*records, dict(record, category_id=90)])
    truth = load_truth(coco_file(tmp_path / "truth.json"))
    _, failures = load_detections(found, truth)
    assert [failure.name for failure in failures] == ["image 70", "category 12"]
    assert "2 detections" in failures[0].message
    # LVIS knows some of COCO's images and categories only: that is no mistake of the detections.
    truth = load_truth(lvis_file(tmp_path / "lvis.json"))
    _, failures = load_detections(found, truth)
    assert [failure.name for failure in failures] == ["category 12"]
    assert any("2 detections in found.json, of 1 images" in note for note in truth.notes)
    assert any("1 detections in found.json, of 1 categories" in note for note in truth.notes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"image_id": 1, "cat', "no complete JSON"),
        (b"", "no complete JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"{}", "expected a list of objects"),
        (b"[1]", "expected a list of objects"),
    ],
)
def test_broken_files_are_told_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    truth = coco_file(tmp_path / "truth.json")
    broken = tmp_path / "broken.json"
    broken.write_bytes(content)
    result = run(truth, broken)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "broken.json" in result.stderr and said in result.stderr
    result = run(broken, write_detections(tmp_path / "found.json"))
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "broken.json" in result.stderr


def test_without_a_sound_detection_every_figure_is_zero(tmp_path: Path) -> None:
    truth = coco_file(tmp_path / "truth.json")
    sound = write_detections(tmp_path / "found.json")
    for records in ([], [{"image_id": 1}]):
        result = run(truth, write(tmp_path / "none.json", records), "--coarse", sound, "--json", tmp_path / "out.json")
        assert result.exit_code == 3
        assert "none.json: it has no detection that can be scored" in result.stderr
        summary = json.loads((tmp_path / "out.json").read_text())["summary"][0]
        assert summary["after"]["ap"] == 0 < summary["before"]["ap"]


@QUICK
@given(mask=arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_sound_encodings_give_their_runs(mask: Mask) -> None:
    runs = runs_of(mask)
    for encoding in (rle(mask), rle(mask, plain=True), {**rle(mask), "counts": compressed(runs).encode()}):
        assert rle_runs(encoding, mask.shape).tolist() == runs


@QUICK
@given(text=st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_no_string_gets_through_that_does_not_fill_the_picture(text: str) -> None:
    try:
        runs = rle_runs({"size": [3, 5], "counts": text}, (3, 5))
    except MaskError as error:
        assert "\n" not in str(error)
    else:
        assert runs.sum() == 15 and (runs >= 0).all()


def test_polygons_may_reach_over_the_edge(tmp_path: Path) -> None:
    check_polygons([[-5.5, 0, 20, 0, 20, 12]], (10, 15))
    with pytest.raises(MaskError, match="far outside"):
        check_polygons([[-50, 0, 20, 0, 20, 12]], (10, 15))


def test_a_missing_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("segrefiner.evaluation.coco.import_module", refuse)
    result = run(coco_file(tmp_path / "truth.json"), write_detections(tmp_path / "found.json"))
    assert result.exit_code == 1 and 'pip install "segrefiner[eval]"' in result.stderr


def test_no_sound_annotation_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "truth.json", {"images": [], "annotations": [], "categories": []})
    with pytest.raises(InputError, match="no annotation that can be scored"):
        load_truth(path)


def test_annotations_without_segmentation_and_bad_polygons_beside_good_ones_are_noted(tmp_path: Path) -> None:
    path = coco_file(tmp_path / "truth.json")
    data = json.loads(path.read_text())
    square = [2, 2, 9, 2, 9, 9, 2, 9]
    data["annotations"][0]["segmentation"] = []
    data["annotations"][1]["segmentation"] = [[1, 2], square]
    truth = load_truth(write(path, data))
    assert truth.failures == []
    assert "Left out: 1 annotations whose segmentation is empty." in truth.notes
    assert any("left out: polygon 0 is [1, 2]" in note for note in truth.notes)


def test_whole_floats_are_whole_numbers(tmp_path: Path) -> None:
    path = coco_file(tmp_path / "truth.json")
    whole = load_truth(path)
    data = json.loads(path.read_text(), parse_int=float)
    truth = load_truth(write(path, data))
    assert truth.failures == [] and truth.sizes == whole.sizes
    masks = [[row["segmentation"] for row in one.dataset["annotations"]] for one in (truth, whole)]
    assert masks[0] == masks[1]
