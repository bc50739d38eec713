"""COCO files: all that is not a refined mask stays as it was, and what cannot be read fails alone."""

import copy
import json
import math
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.tiny import TINY, restless
from segrefiner import Refiner
from segrefiner.errors import InputError
from segrefiner.formats.coco import decode_segmentation as decoded
from segrefiner.imaging.coco_masks import encode_rle, tight_box
from segrefiner.imaging.json_files import without_nan
from segrefiner.jobs.coco import coco_job
from segrefiner.jobs.job import Job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.run import run
from segrefiner.ledger import RunSummary
from segrefiner.model.unet import DenoisingUNet

HEIGHT, WIDTH = 40, 48


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner(DenoisingUNet(TINY), pipeline=restless)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for index, name in enumerate(("000000000001.jpg", "two.jpg")):
        photo = np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        Image.fromarray(photo).save(tmp_path / "images" / name)
    return tmp_path / "images"


def disc(radius: float, y: float = 20, x: float = 24) -> np.ndarray:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    mask, notes = decoded(segmentation, size)
    assert notes == ()
    return mask


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def finished(job: Job, refiner: Refiner, state: Path) -> tuple[RunSummary, dict[str, str]]:
    summary = run(job, LocalEngine(refiner, workers=0), state, config="")
    lines = (state / "failures.jsonl").read_text().splitlines()
    return summary, {row["item"]: row["error"] for row in map(json.loads, lines)}


def annotations() -> dict[str, Any]:
    polygon = [[10, 10, 30, 12, 28, 33, 12, 30]]
    masks: list[Any] = [encode_rle(disc(9)), encode_rle(disc(11), compressed=False), polygon]
    return {
        "info": {"year": 2017, "ü": [None, 1.5]},
        "images": [
            {"id": 7, "file_name": "000000000001.jpg", "height": HEIGHT, "width": WIDTH},
            {"id": "x", "file_name": "two.jpg", "licence": 3},
        ],
        "annotations": [
            {"id": 5, "image_id": 7, "category_id": 1, "segmentation": masks[0], "area": 1, "bbox": [0, 0, 1, 1]},
            {"segmentation": masks[1], "image_id": "x", "id": 5, "iscrowd": 0},
            {"id": 9, "image_id": 7, "segmentation": masks[2], "area": 2},
            {"id": 10, "image_id": 7, "segmentation": masks[0], "iscrowd": 1, "area": 3},
        ],
        "categories": [{"id": 1}],
    }  # fmt: skip


def test_all_else_in_annotations_stays(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    given = annotations()
    source, target = write(tmp_path / "in.json", given), tmp_path / "out.json"
    summary, failed = finished(coco_job(source, images, target), refiner, tmp_path / "state")
    assert (summary.done, failed) == (2, {})
    written = json.loads(target.read_text())
    assert list(written) == list(given)
    for name in ("info", "images", "categories"):
        assert written[name] == given[name]
    assert written["annotations"][3] == given["annotations"][3]
    for before, after in zip(given["annotations"][:3], written["annotations"][:3], strict=True):
        assert list(after) == list(before)
        for name in before:
            assert name in ("segmentation", "area", "bbox") or after[name] == before[name]
        mask = decode_segmentation(after["segmentation"], (HEIGHT, WIDTH))
        photo = images / ("two.jpg" if before["image_id"] == "x" else "000000000001.jpg")
        expected = refiner(photo, decode_segmentation(before["segmentation"], (HEIGHT, WIDTH))).mask
        np.testing.assert_array_equal(mask, expected)
        assert (mask != decode_segmentation(before["segmentation"], (HEIGHT, WIDTH))).any()
        assert after.get("area", mask.sum()) == mask.sum()
        assert after.get("bbox", tight_box(mask)) == tight_box(mask)
    kinds = [type(row["segmentation"]["counts"]) for row in written["annotations"][:3]]
    assert kinds == [str, list, str]


def test_a_list_of_results_finds_its_photos_with_and_without_annotations(
    images: Path, refiner: Refiner, tmp_path: Path
) -> None:
    results = [{"image_id": 1, "category_id": 3, "segmentation": encode_rle(disc(9)), "score": 0.5}]
    source, target = write(tmp_path / "in.json", results), tmp_path / "out.json"
    finished(coco_job(source, images, target), refiner, tmp_path / "state")
    (row,) = json.loads(target.read_text())
    assert list(row) == list(results[0]) and row["score"] == 0.5
    listed = {"images": [{"id": 1, "file_name": "two.jpg"}]}
    job = coco_job(source, images, target, annotations=write(tmp_path / "ann.json", listed))
    assert [item.inputs for item in job.items] == [(images / "two.jpg",)]


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [HEIGHT, WIDTH], "counts": [1, 2]}, {"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]},
        {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}, {"size": [HEIGHT, WIDTH], "counts": "Zk"},
        {"size": [HEIGHT, WIDTH], "counts": "é"}, {"size": [HEIGHT, WIDTH]}, {"counts": [HEIGHT * WIDTH]}, {},
        [[1, 1, 2, 2]], [[1, 1, 2, math.nan, 3, 3]], [[1, 1, 2, math.inf, 3, 3]], [[1, 1, 2, 2, 3, 1e9]],
        [1, 2, 3, 4], [1, 2, "3", 4, 5, 6], [{}], "text", 5, True,
    ],
)  # fmt: skip
def test_a_malformed_mask_fails_alone_and_stays(
    segmentation: Any, images: Path, refiner: Refiner, tmp_path: Path
) -> None:
    given = annotations()
    given["annotations"][0]["segmentation"] = segmentation
    before = copy.deepcopy(given["annotations"])
    source, target = write(tmp_path / "in.json", given), tmp_path / "out.json"
    summary, failed = finished(coco_job(source, images, target), refiner, tmp_path / "state")
    assert summary.failed == 1 and list(failed) == ["annotation 0 of image 7"]
    written = json.loads(target.read_text())["annotations"]
    assert written[0] == without_nan(before[0])
    assert isinstance(written[2]["segmentation"], dict)  # a polygon before


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda d: d["images"].pop(1), "image x"),
        (lambda d: d["images"].append(d["images"][1] | {"file_name": "one.jpg"}), "image x"),
        (lambda d: d["images"][1].update(file_name="../two.jpg"), "image x"),
        (lambda d: d["images"][1].update(file_name="/etc/two.jpg"), "image x"),
        (lambda d: d["images"][1].update(file_name="absent.jpg"), "x"),
        (lambda d: d["images"][1].update(file_name=""), "x"),
        (lambda d: d["images"][1].update(file_name="two.jpg\0"), "image x"),
        (lambda d: d["images"][1].update(file_name="\ud800.jpg"), "x"),
        (lambda d: d["images"][1].update(file_name="x" * 5000), "x"),
        (lambda d: d["images"][1].update(file_name=["two.jpg"]), "images 1"),
        (lambda d: d["images"][1].pop("file_name"), "images 1"),
        (lambda d: d["images"][1].pop("id"), "images 1"),
        (lambda d: d["images"][1].update(id=["x"]), "image x"),
        (lambda d: d["images"].__setitem__(1, None), "images 1"),
        (lambda d: d["annotations"][1].pop("image_id"), "annotation 1"),
        (lambda d: d["annotations"][1].update(image_id=None), "annotation 1"),
        (lambda d: d["annotations"][1].update(image_id=["x"]), "annotation 1"),
        (lambda d: d["annotations"][1].update(image_id=8), "image 8"),
        (lambda d: d["annotations"].__setitem__(1, "text"), "annotation 1"),
    ],
)
def test_what_is_wrong_with_a_photo_is_told_and_the_rest_is_done(
    change: Any, name: str, images: Path, refiner: Refiner, tmp_path: Path
) -> None:
    given = annotations()
    change(given)
    source, target = write(tmp_path / "in.json", given), tmp_path / "out.json"
    summary, failed = finished(coco_job(source, images, target), refiner, tmp_path / "state")
    assert name in failed and summary.done == 1
    assert all("\n" not in why for why in failed.values())
    written = json.loads(target.read_text())
    assert written["annotations"][1] == given["annotations"][1]
    assert written["annotations"][0] != given["annotations"][0]


@pytest.mark.parametrize("segmentation", [[], [[]], None])
def test_a_segmentation_that_is_empty_stays_and_is_left_out(
    segmentation: Any, images: Path, refiner: Refiner, tmp_path: Path
) -> None:
    """Files that know boxes only have it for the format's sake."""
    given = annotations()
    given["annotations"][0]["segmentation"] = segmentation
    source, target = write(tmp_path / "in.json", given), tmp_path / "out.json"
    summary, failed = finished(coco_job(source, images, target), refiner, tmp_path / "state")
    assert (summary.done, summary.failed, failed) == (2, 0, {})
    assert json.loads(target.read_text())["annotations"][0] == given["annotations"][0]
    assert "empty" in (tmp_path / "state" / "left_out.jsonl").read_text()


def test_a_bad_polygon_beside_good_ones_is_left_out_with_a_note(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    given = annotations()
    given["annotations"][2]["segmentation"].insert(0, [1, 1, 2, 2])
    target = tmp_path / "out.json"
    summary, failed = finished(
        coco_job(write(tmp_path / "in.json", given), images, target), refiner, tmp_path / "state"
    )
    assert (summary.done, failed) == (2, {})
    assert "annotation 2: left out: polygon 0 is" in (tmp_path / "state" / "notes.jsonl").read_text()
    other = tmp_path / "other.json"
    finished(coco_job(write(tmp_path / "in.json", annotations()), images, other), refiner, tmp_path / "state2")
    assert target.read_bytes() == other.read_bytes()


def test_whole_floats_are_whole_numbers(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    outputs = []
    for number in (int, float):
        given = annotations()
        del given["annotations"][1]
        given["images"][0].update(id=number(7), height=number(HEIGHT), width=number(WIDTH))
        for row in given["annotations"]:
            row["image_id"] = number(7)
        given["annotations"][0]["segmentation"]["size"] = [number(HEIGHT), number(WIDTH)]
        target = tmp_path / f"{number.__name__}.json"
        state = tmp_path / f"state_{number.__name__}"
        _, failed = finished(coco_job(write(tmp_path / "in.json", given), images, target), refiner, state)
        assert failed == {}
        outputs.append([row["segmentation"]["counts"] for row in json.loads(target.read_text())["annotations"]])
    assert outputs[0] == outputs[1]


def test_photos_of_lvis_are_found_by_their_address(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    (images / "val2017").mkdir()
    (images / "two.jpg").rename(images / "val2017" / "two.jpg")
    given = annotations()
    del given["images"][1]["file_name"]
    given["images"][1]["coco_url"] = "http://images.cocodataset.org/val2017/two.jpg"
    summary, failed = finished(
        coco_job(write(tmp_path / "in.json", given), images, tmp_path / "out.json"), refiner, tmp_path / "state"
    )
    assert (summary.done, failed) == (2, {})


def test_empty_masks_stay_and_are_left_out(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    empty = {"image_id": 1, "segmentation": encode_rle(disc(0)), "area": 0}
    source = write(tmp_path / "in.json", [empty])
    summary, _ = finished(coco_job(source, images, tmp_path / "out.json"), refiner, tmp_path / "state")
    assert json.loads((tmp_path / "out.json").read_text()) == [empty]
    assert (summary.done, summary.left_out) == (0, 2)  # and the photo that it does not list
    assert "empty" in (tmp_path / "state" / "left_out.jsonl").read_text()


def test_an_object_of_which_nothing_would_be_left_stays_and_is_noted(
    images: Path, refiner: Refiner, tmp_path: Path
) -> None:
    rows = [{"image_id": 1, "segmentation": encode_rle(disc(r)), "area": 7, "bbox": [1, 2, 3, 4]} for r in (2, 12)]
    source = write(tmp_path / "in.json", rows)
    summary, failed = finished(coco_job(source, images, tmp_path / "out.json"), refiner, tmp_path / "state")
    written = json.loads((tmp_path / "out.json").read_text())
    assert (
        written[0] == rows[0]
        and written[1]["area"] == decode_segmentation(written[1]["segmentation"], (HEIGHT, WIDTH)).sum()
    )
    assert (summary.done, summary.notes, failed) == (1, 1, {})


def test_a_second_run_does_nothing_and_writes_the_same(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.json", annotations()), tmp_path / "deep" / "er" / "out.json"
    finished(coco_job(source, images, target), refiner, tmp_path / "state")
    first = target.read_bytes()
    target.unlink()
    summary, _ = finished(coco_job(source, images, target), refiner, tmp_path / "state")
    assert (summary.done, summary.skipped) == (0, 2) and target.read_bytes() == first


def test_only_photos_whose_masks_have_changed_are_done_again(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    given, target = annotations(), tmp_path / "out.json"
    finished(coco_job(write(tmp_path / "in.json", given), images, target), refiner, tmp_path / "state")
    given["annotations"][1]["segmentation"] = encode_rle(disc(5))
    given["annotations"][0]["score"] = 1
    summary, _ = finished(coco_job(write(tmp_path / "in.json", given), images, target), refiner, tmp_path / "state")
    assert (summary.done, summary.skipped) == (1, 1)
    written = json.loads(target.read_text())["annotations"]
    assert written[0]["score"] == 1
    expected = refiner(images / "two.jpg", disc(5)).mask
    np.testing.assert_array_equal(decode_segmentation(written[1]["segmentation"], (HEIGHT, WIDTH)), expected)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (WIDTH, HEIGHT), (2 * HEIGHT, 2 * WIDTH), (HEIGHT, None), (0, 0)])
def test_polygons_need_a_photo_of_the_size_that_is_listed(
    size: tuple[Any, Any], images: Path, refiner: Refiner, tmp_path: Path
) -> None:
    """Encodings say their size themselves; polygons would silently be drawn elsewhere."""
    given = annotations()
    given["images"][0].update(zip(("height", "width"), size, strict=True))
    target = tmp_path / "out.json"
    _, failed = finished(coco_job(write(tmp_path / "in.json", given), images, target), refiner, tmp_path / "state")
    fits = size == (HEIGHT, WIDTH) or None in size or 0 in size
    assert list(failed) == ([] if fits else ["annotation 2 of image 7"])
    written = json.loads(target.read_text())["annotations"]
    assert (written[2] == given["annotations"][2]) is not fits
    assert written[0] != given["annotations"][0]


def test_polygons_in_a_photo_that_exif_turns_are_refused(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(images / "000000000001.jpg").save(images / "000000000001.jpg", exif=exif)
    source = write(tmp_path / "in.json", annotations())
    _, failed = finished(coco_job(source, images, tmp_path / "out.json"), refiner, tmp_path / "state")
    assert list(failed) == ["annotation 0 of image 7", "annotation 2 of image 7"]
    assert "48x40" in failed["annotation 2 of image 7"] and "40x48" in failed["annotation 2 of image 7"]


def test_results_without_images_need_ids_that_are_numbers(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    ids = ["x", 1, -1, "../1", "9" * 5000, 10**20, ""]
    rows = [{"image_id": value, "segmentation": encode_rle(disc(9))} for value in ids]
    source, target = write(tmp_path / "in.json", rows), tmp_path / "out.json"
    summary, failed = finished(coco_job(source, images, target), refiner, tmp_path / "state")
    assert summary.done == 1 and len(failed) == len(ids) - 1
    assert "give the annotations" in failed["image x"]
    written = json.loads(target.read_text())
    assert [row != before for row, before in zip(written, rows, strict=True)] == [value == 1 for value in ids]


def test_a_file_of_no_annotations_is_written_back(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    for document in ([], {"images": [], "annotations": [], "info": "ü"}):
        source, target = write(tmp_path / "in.json", document), tmp_path / "out.json"
        summary, failed = finished(coco_job(source, images, target), refiner, tmp_path / "state")
        assert (summary.total, failed) == (0, {}) and json.loads(target.read_text()) == document


def left_out(job: Job, refiner: Refiner, state: Path) -> dict[str, str]:
    ledger = run(job, LocalEngine(refiner, workers=0), state, config="")
    assert ledger.not_tried == 0 and ledger.left_out == len(ledger.omissions)
    return {entry.name: entry.reason for entry in ledger.omissions}


def test_crowds_are_named_or_refined(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    given = annotations()
    source, target = write(tmp_path / "in.json", given), tmp_path / "out.json"
    told = left_out(coco_job(source, images, target), refiner, tmp_path / "state")
    assert list(told) == ["annotation 3"] and "--crowds refine" in told["annotation 3"]
    assert left_out(coco_job(source, images, target, crowds="refine"), refiner, tmp_path / "state") == {}
    row = json.loads(target.read_text())["annotations"][3]
    assert row["iscrowd"] == 1 and row["segmentation"] != given["annotations"][3]["segmentation"]


def test_a_file_of_crowds_alone_names_the_option(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    given = annotations()
    for row in given["annotations"]:
        row["iscrowd"] = 1
    source = write(tmp_path / "in.json", given)
    with pytest.raises(InputError, match=r"all 4 masks are crowds.*--crowds refine"):
        coco_job(source, images, tmp_path / "out.json")
    finished(coco_job(source, images, tmp_path / "out.json", crowds="refine"), refiner, tmp_path / "state")
    written = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert all(after != before for after, before in zip(written, given["annotations"], strict=True))


def test_photos_without_masks_and_files_without_any_are_named(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    given = annotations()
    given["images"].append({"id": 99, "file_name": "two.jpg"})
    source, target = write(tmp_path / "in.json", given), tmp_path / "out.json"
    told = left_out(coco_job(source, images, target), refiner, tmp_path / "state")
    assert set(told) == {"annotation 3", "image 99"}
    source = write(tmp_path / "in.json", [])
    photos = {str(path): "a photo that no mask is of" for path in images.glob("**/*.jpg")}
    told = left_out(coco_job(source, images, target), refiner, tmp_path / "state")
    assert told == {str(source): "it lists no mask"} | photos


def test_what_lies_among_the_photos_and_is_not_listed_is_named(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    source = write(tmp_path / "in.json", annotations())
    (images / "notes.txt").write_text("passed over")
    (images / "photo.heic").write_bytes(b"no photo that is read here")
    (images / "other.png").write_bytes((images / "two.jpg").read_bytes())
    told = left_out(coco_job(source, images, tmp_path / "out.json"), refiner, tmp_path / "state")
    strays = {name for name in told if not name.startswith(("annotation", "image "))}
    assert {Path(name).name for name in strays} == {"photo.heic", "other.png"}


def test_an_image_whose_masks_all_fail_is_not_done(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    given = annotations()
    given["annotations"][1]["segmentation"] = [[1, 1]]
    source = write(tmp_path / "in.json", given)
    for _ in range(2):
        summary, failed = finished(coco_job(source, images, tmp_path / "out.json"), refiner, tmp_path / "state")
        assert summary.done + summary.skipped == 1 and list(failed) == ["annotation 1 of image x"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ["score", "info"])
def test_what_is_written_is_json_whatever_was_read(
    number: str, place: str, images: Path, refiner: Refiner, tmp_path: Path
) -> None:
    given = annotations()
    (given["annotations"][0] if place == "score" else given)[place] = ["NUMBER", 0.5]
    (tmp_path / "in.json").write_text(json.dumps(given).replace('"NUMBER"', number))
    job = coco_job(tmp_path / "in.json", images, tmp_path / "out.json")
    ledger = run(job, LocalEngine(refiner, workers=0), tmp_path / "state", config="")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    written = json.loads((tmp_path / "out.json").read_text(), parse_constant=refuse)
    assert (written["annotations"][0] if place == "score" else written)[place] == [None, 0.5]
    assert len(ledger.remarks) == 1 and "null is written" in ledger.remarks[0]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("deep/er/a.jpg", "deep\\er\\a.jpg"),
        ("deep/a.jpg", "deep/a.JPG"),
        ("Deep/a.jpg", "deep/A.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("cafe\u0301/a.jpg", "caf\u00e9\\a.jpg"),
        ("a\\b.jpg", "a\\b.jpg"),
    ],
)
def test_photos_are_found_where_one_alone_is_meant(
    file: str, name: str, images: Path, refiner: Refiner, tmp_path: Path
) -> None:
    (images / file).parent.mkdir(parents=True, exist_ok=True)
    (images / "two.jpg").rename(images / file)
    given = annotations()
    given["images"][1]["file_name"] = name
    job = coco_job(write(tmp_path / "in.json", given), images, tmp_path / "out.json")
    assert [item.inputs for item in job.items if item.key == "x"] == [(images / file,)]


def test_a_name_that_may_be_of_several_photos_fails(images: Path, tmp_path: Path) -> None:
    for name in ("A.jpg", "a.JPG"):
        (images / name).touch()
    given = annotations()
    given["images"][1]["file_name"] = "a.jpg"
    job = coco_job(write(tmp_path / "in.json", given), images, tmp_path / "out.json")
    assert "may be any of A.jpg, a.JPG" in job.failures["image x"]


@pytest.mark.parametrize("name", ["..\\secret.png", "deep\\..\\..\\secret.png"])
def test_backslashes_do_not_lead_out(name: str, images: Path, tmp_path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "secret.png")
    given = annotations()
    given["images"][1]["file_name"] = name
    job = coco_job(write(tmp_path / "in.json", given), images, tmp_path / "out.json")
    assert all(images in path.parents and ".." not in path.parts for item in job.items for path in item.inputs)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nowhere"])
def test_what_is_no_file_is_never_opened(kind: str, images: Path, refiner: Refiner, tmp_path: Path) -> None:
    (images / "two.jpg").unlink()
    for path in (images / "two.jpg", tmp_path / "other.json"):
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    source = write(tmp_path / "in.json", annotations())
    _, failed = finished(coco_job(source, images, tmp_path / "out.json"), refiner, tmp_path / "state")
    assert list(failed) == ["x"]
    with pytest.raises(InputError, match=r"other\.json"):
        coco_job(tmp_path / "other.json", images, tmp_path / "out.json")


@pytest.mark.parametrize("result", [None, [], 7, {"0": 7}, {"0": {}}, {"99": {"segmentation": 1}}, {"a": {}}, "text"])
def test_a_result_of_another_kind_in_the_manifest_is_done_again(
    result: Any, images: Path, refiner: Refiner, tmp_path: Path
) -> None:
    source, target = write(tmp_path / "in.json", annotations()), tmp_path / "out.json"
    finished(coco_job(source, images, target), refiner, tmp_path / "state")
    expected, manifest = target.read_bytes(), tmp_path / "state" / "manifest.jsonl"
    first, second = map(json.loads, manifest.read_text().splitlines())
    manifest.write_text(json.dumps(first | {"result": result}) + "\n" + json.dumps(second) + "\n")
    summary, _ = finished(coco_job(source, images, target), refiner, tmp_path / "state")
    assert (summary.done, summary.skipped) == (1, 1) and target.read_bytes() == expected


def test_nothing_is_read_but_photos_inside_the_folder(images: Path, tmp_path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "secret.png")
    given = annotations()
    for name in ("../secret.png", "a/../../secret.png", str(tmp_path / "secret.png"), "../images/../secret.png"):
        given["images"][1]["file_name"] = name
        job = coco_job(write(tmp_path / "in.json", given), images, tmp_path / "out.json")
        assert [item.key for item in job.items] == ["7"] and "leads out" in job.failures["image x"]


def test_inputs_and_folders_are_never_overwritten(images: Path, tmp_path: Path) -> None:
    results, listed = write(tmp_path / "in.json", []), write(tmp_path / "listed.json", {"images": []})
    for target in (results, listed, tmp_path / "images" / ".." / "listed.json"):
        with pytest.raises(InputError, match="input"):
            coco_job(results, images, target, annotations=listed)
    for target in (images, tmp_path):
        with pytest.raises(InputError, match="folder"):
            coco_job(results, images, target)


def test_other_documents_are_refused(images: Path, tmp_path: Path) -> None:
    wrong: list[Any] = [{"images": []}, 5, "text", None, {"annotations": {}}, {"annotations": [], "images": {}}]
    for document in wrong:
        with pytest.raises(InputError):
            coco_job(write(tmp_path / "in.json", document), images, tmp_path / "out.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        coco_job(tmp_path / "bad.json", images, tmp_path / "out.json")
    source = write(tmp_path / "in.json", [])
    for listed in ([], 5, {"images": 5}):
        with pytest.raises(InputError, match="images"):
            coco_job(source, images, tmp_path / "out.json", annotations=write(tmp_path / "listed.json", listed))
    with pytest.raises(InputError, match="no folder"):
        coco_job(source, tmp_path / "absent", tmp_path / "out.json")


@pytest.mark.parametrize(
    ("y", "x", "height", "width"), [(0, 0, HEIGHT, WIDTH), (0, 0, 1, 1), (39, 47, 1, 1), (3, 5, 7, 11), (10, 0, 1, 48)]
)
def test_a_tight_box_is_that_of_its_pixels(y: int, x: int, height: int, width: int) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + height, x : x + width] = True
    assert tight_box(mask) == [x, y, width, height]


@pytest.mark.parametrize("shape", ["listed", "compressed", "polygon"])
def test_a_thousand_masks_of_a_photo_take_no_more_memory_than_their_encodings(
    tmp_path: Path, images: Path, shape: str
) -> None:
    side = 600
    Image.new("RGB", (side, side)).save(images / "large.png")
    polygon = [[10, 10, 500, 12, 400, 500]]
    mask = np.zeros((side, side), bool)
    mask[9:400, 7:300] = True
    segmentation = polygon if shape == "polygon" else encode_rle(mask, compressed=shape == "compressed")
    count = 40 if shape == "polygon" else 1000
    rows = [{"image_id": 1, "segmentation": segmentation} for _ in range(count)]
    listed = [{"id": 1, "file_name": "large.png", "width": side, "height": side}]
    job = coco_job(write(tmp_path / "a.json", {"images": listed, "annotations": rows}), images, tmp_path / "b.json")
    contents = [(images / "large.png").read_bytes()]
    tracemalloc.start()
    loaded = job.work.load(job.items[0], contents)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not loaded[2] and kept < 3 * side * side + count * 1500 + 1_000_000
    np.testing.assert_array_equal(loaded[0].pixels.shape, (side, side, 3))


@pytest.mark.parametrize("shape", ["listed", "compressed"])
def test_masks_of_a_photo_overlap_at_most_where_they_did(
    images: Path, refiner: Refiner, tmp_path: Path, shape: str
) -> None:
    discs = [(20, 14, 9), (20, 32, 8.5), (20, 23, 3), (8, 23, 6), (31, 24, 8)]
    coarse = [disc(radius, y, x) for y, x, radius in discs]
    # The last overlaps the first; a crowd that stays does not count.
    coarse.append(disc(9, 22, 15))
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(images / "two.jpg")
    rows = [{"image_id": "x", "segmentation": encode_rle(mask, compressed=shape != "listed")} for mask in coarse]
    rows.append({"image_id": "x", "segmentation": encode_rle(disc(40)), "iscrowd": 1})
    document = {"images": [{"id": "x", "file_name": "two.jpg"}], "annotations": rows}
    target = tmp_path / "out.json"
    job = coco_job(write(tmp_path / "in.json", document), images, target)
    ledger = run(job, LocalEngine(refiner, workers=0), tmp_path / "state", config="")
    written = json.loads(target.read_text())["annotations"]
    masks = [decode_segmentation(row["segmentation"], (HEIGHT, WIDTH)) for row in written[:-1]]
    alone = [refiner(images / "two.jpg", mask).mask for mask in coarse]
    fights = 0
    for i in range(len(coarse)):
        assert not (masks[i] & ~alone[i]).any() and (masks[i] & coarse[i] == alone[i] & coarse[i]).all()
        for k in range(i):
            fights += (alone[i] & alone[k] & ~(coarse[i] & coarse[k])).any()
            assert not (masks[i] & masks[k] & ~(coarse[i] & coarse[k])).any()
    assert fights > 3 and (masks[0] & masks[-1]).any()
    assert ledger.notes == 1 and "masks leave pixels" in ledger.remarks[0]
