"""COCO files: all that is not a refined mask stays as it was, and what cannot be read fails alone."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segrefiner import Refiner
from segrefiner.batch import Job, Summary, run
from segrefiner.batch_local import LocalEngine
from segrefiner.coco import coco_job, read_mask, tight_box
from segrefiner.errors import InputError
from segrefiner.label_files import read_ids, write_ids
from segrefiner.panoptic import panoptic_job
from segrefiner.rle import encode_rle
from segrefiner.unet import DenoisingUNet
from tiny import TINY

HEIGHT, WIDTH = 40, 48


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), steps=1)


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


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def finished(job: Job, refiner: Refiner, state: Path) -> tuple[Summary, dict[str, str]]:
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
        mask = read_mask(after["segmentation"], (HEIGHT, WIDTH))
        photo = images / ("two.jpg" if before["image_id"] == "x" else "000000000001.jpg")
        expected = refiner(photo, read_mask(before["segmentation"], (HEIGHT, WIDTH))).mask
        np.testing.assert_array_equal(mask, expected)
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
        {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}, [], [[1, 1, 2, 2]], [[1, 1, 2, math.nan, 3, 3]], None,
        "text", 5,
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
    assert str(written[0]) == str(before[0])  # NaN is not equal to itself
    assert isinstance(written[2]["segmentation"], dict)  # a polygon before


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda d: d["images"].pop(1), "image x"),
        (lambda d: d["images"].append(d["images"][1]), "image x"),
        (lambda d: d["images"][1].update(file_name="../two.jpg"), "image x"),
        (lambda d: d["images"][1].update(file_name="/etc/two.jpg"), "image x"),
        (lambda d: d["images"][1].update(file_name="absent.jpg"), "x"),
        (lambda d: d["annotations"][1].pop("image_id"), "annotation 1"),
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
    written = json.loads(target.read_text())
    assert written["annotations"][1] == given["annotations"][1]
    assert written["annotations"][0] != given["annotations"][0]


def test_empty_masks_stay_and_are_noted(images: Path, refiner: Refiner, tmp_path: Path) -> None:
    empty = {"image_id": 1, "segmentation": encode_rle(disc(0)), "area": 0}
    source = write(tmp_path / "in.json", [empty])
    summary, _ = finished(coco_job(source, images, tmp_path / "out.json"), refiner, tmp_path / "state")
    assert json.loads((tmp_path / "out.json").read_text()) == [empty]
    assert summary.notes == 1 and "empty" in (tmp_path / "state" / "notes.jsonl").read_text()


def test_other_documents_are_refused(images: Path, tmp_path: Path) -> None:
    for document in ({"images": []}, 5, "text", {"annotations": {}}):
        with pytest.raises(InputError):
            coco_job(write(tmp_path / "in.json", document), images, tmp_path / "out.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        coco_job(tmp_path / "bad.json", images, tmp_path / "out.json")
    source = write(tmp_path / "in.json", [])
    with pytest.raises(InputError, match="input"):
        coco_job(source, images, source)


# Panoptic.

IDS = (3, 700, 70_000)


@pytest.fixture
def panoptic(images: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of maps, and what belongs into the JSON file."""
    ids = np.where(disc(10, 20, 14), IDS[1], IDS[0]).astype(np.int32)
    ids[disc(8, 20, 34)] = IDS[2]
    ids[:4] = 0
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in ("one.png", "two.png"):
        write_ids(maps / name, ids)
    rows = [
        {
            "image_id": image,
            "file_name": name,
            "segments_info": [{"id": i, "category_id": i % 7, "area": 1, "bbox": [], "own": "ü"} for i in IDS],
        }
        for image, name in ((1, "one.png"), (2, "two.png"))
    ]
    listed = [{"id": 1, "file_name": "000000000001.jpg"}, {"id": 2, "file_name": "two.jpg"}]
    return maps, {"images": listed, "annotations": rows, "categories": [], "info": 5}


def test_ids_and_segments_agree_after_refinement(
    panoptic: tuple[Path, dict[str, Any]], images: Path, refiner: Refiner, tmp_path: Path
) -> None:
    maps, document = panoptic
    document["annotations"][1]["segments_info"][1]["iscrowd"] = 1
    source, output = write(tmp_path / "in.json", document), tmp_path / "out"
    summary, failed = finished(panoptic_job(source, maps, images, output), refiner, output / ".segrefiner")
    assert (summary.done, failed) == (2, {})
    written = json.loads((output / "in.json").read_text())
    assert written["images"] == document["images"] and written["info"] == 5
    before = read_ids(maps / "one.png")
    for row in written["annotations"]:
        ids = read_ids(output / row["file_name"])
        np.testing.assert_array_equal(ids == 0, before == 0)
        assert [segment["id"] for segment in row["segments_info"]] == [i for i in IDS if (ids == i).any()]
        assert sum(segment["area"] for segment in row["segments_info"]) == np.count_nonzero(ids)
        for segment in row["segments_info"]:
            assert segment["bbox"] == tight_box(ids == segment["id"]) and segment["own"] == "ü"
    np.testing.assert_array_equal(read_ids(output / "two.png") == IDS[1], before == IDS[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row, maps: row["segments_info"].append(row["segments_info"][0]), "more than once"),
        (lambda row, maps: row["segments_info"].pop(), "does not list"),
        (lambda row, maps: row["segments_info"].append({"id": 9}), "does not have"),
        (lambda row, maps: row["segments_info"].append({"id": 256**3}), "whole number"),
        (lambda row, maps: row["segments_info"].append({"id": "9"}), "whole number"),
        (lambda row, maps: row["segments_info"].append(None), "whole number"),
        (lambda row, maps: row.update(file_name="../two.png"), "leads out"),
        (lambda row, maps: row.update(file_name="two.jpg"), "PNG"),
        (lambda row, maps: row.update(image_id=9), "not listed"),
        (lambda row, maps: row.pop("segments_info"), "segments_info"),
        (lambda row, maps: row.update(segments_info=5), "no list"),
        (lambda row, maps: (maps / "two.png").unlink(), "No such file"),
        (lambda row, maps: Image.new("L", (WIDTH, HEIGHT)).save(maps / "two.png"), "mode L"),
        (lambda row, maps: Image.new("RGB", (5, 5)).save(maps / "two.png"), "5x5"),
    ],
)
def test_a_bad_annotation_fails_alone(
    change: Any, message: str, panoptic: tuple[Path, dict[str, Any]], images: Path, refiner: Refiner, tmp_path: Path
) -> None:
    maps, document = panoptic
    change(document["annotations"][1], maps)
    source, output = write(tmp_path / "in.json", document), tmp_path / "out"
    summary, failed = finished(panoptic_job(source, maps, images, output), refiner, output / ".segrefiner")
    assert summary.done == 1
    (told,) = failed.values()
    assert message in told
    written = json.loads((output / "in.json").read_text())
    assert written["annotations"][1] == document["annotations"][1]


def test_results_in_the_inputs_folders_are_refused(
    panoptic: tuple[Path, dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    maps, document = panoptic
    source = write(tmp_path / "in.json", document)
    for output in (maps, images, tmp_path):
        with pytest.raises(InputError, match="inputs"):
            panoptic_job(source, maps, images, output)
