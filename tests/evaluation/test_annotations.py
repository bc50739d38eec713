"""Masks in annotation files are measured alike in whatever format they are."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from helpers.annotated import EVERY, MASKS, SIZE, coco, disc, labelstudio, sa1b, write_photos, yolo
from segrefiner.cli.main import main
from segrefiner.evaluation.annotations import match_photos
from segrefiner.evaluation.metrics import iou, mba
from segrefiner.evaluation.report import headline
from segrefiner.formats.documents import AnnotatedPhoto, Instance, WrittenPhoto
from segrefiner.formats.masks import encode_mask
from segrefiner.formats.recognition import FORMATS, WRITERS, form_of
from segrefiner.imaging.coco_masks import encode_rle

TRUTH = {"cat": [disc(12), disc(5, 8, 8)], "dog": [MASKS["ring"]]}
PREDICTED = {"cat": [disc(4, 9, 8), disc(13)], "dog": [np.roll(MASKS["ring"], 2, axis=1)]}
COARSE = {"dog": [np.roll(MASKS["ring"], 4, axis=0)], "cat": [disc(10), disc(3, 8, 8)]}


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["evaluate", "annotations", *map(str, arguments)])


def write(root: Path, name: Any, masks: dict[str, list[np.ndarray]], called: str = "file") -> Path:
    """A document of a format, of one photo, a.png, that lies in `images`."""
    write_photos(root / "images", "a.png")
    form = form_of({}, "same", name, same=False)
    objects = [
        (Instance(str(index), "", {}, label), {"mask": encode_mask(mask, form)[0], "area": 1.0, "bbox": [0, 0, 1, 1]})
        for label, several in masks.items()
        for index, mask in enumerate(several)
    ]
    target = root / (called + {"coco": ".json", "cvat": ".xml", "labelstudio": ".json"}.get(name, ""))
    WRITERS[name](target, sorted(masks), [WrittenPhoto("a.png", SIZE, objects)])
    return target


@pytest.mark.parametrize("name", EVERY)
def test_a_document_is_equal_to_itself(name: str, tmp_path: Path) -> None:
    source = EVERY[name](tmp_path)
    result = run(source, source, "--coarse", source, "--csv", tmp_path / "out.csv")
    assert result.exit_code == 0 and result.stderr == ""
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert len(rows) >= 2 and {row["iou_before"] for row in rows} == {row["iou_after"] for row in rows} == {"1.0"}


@pytest.mark.parametrize(("truth", "predicted"), list(zip(FORMATS, (*FORMATS[1:], FORMATS[0]), strict=True)))
def test_figures_do_not_depend_on_the_formats(truth: str, predicted: str, tmp_path: Path) -> None:
    files = [write(tmp_path, truth, TRUTH, "truth"), write(tmp_path, predicted, PREDICTED, "predicted")]
    files.append(write(tmp_path, "coco", COARSE, "coarse"))
    result = run(
        files[0], files[1], "--coarse", files[2], "--images", tmp_path / "images", "--json", tmp_path / "o.json"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    data = json.loads((tmp_path / "o.json").read_text())
    expected = [
        (iou(after, true), mba(after, true), iou(before, true))
        for label in ("cat", "dog")
        for after, before, true in zip(reversed(PREDICTED[label]), COARSE[label], TRUTH[label], strict=True)
    ]
    found = [(row["after"]["iou"], row["after"]["mba"], row["before"]["iou"]) for row in data["rows"]]
    np.testing.assert_allclose(sorted(found), sorted(expected))
    groups = {part["group"]: part for part in data["summary"]}
    whole = groups["all classes"] if truth != "sa1b" else groups[""]
    assert set(groups) == ({"cat", "dog", "all classes"} if truth != "sa1b" else {""})
    assert whole["items"] == 3 and whole["after"]["iou"] == pytest.approx(np.mean([one[0] for one in expected]))
    assert whole["after"]["mba"] == pytest.approx(np.mean([one[1] for one in expected]))
    assert whole["before"]["iou"] == pytest.approx(np.mean([one[2] for one in expected]))
    assert headline(data).startswith("Mean IoU ")


def test_results_take_names_from_the_true_file(tmp_path: Path) -> None:
    source = coco(tmp_path)
    rows = json.loads(source.read_text())["annotations"]
    (tmp_path / "found.json").write_text(json.dumps([{**row, "score": 0.5} for row in rows]))
    result = run(source, tmp_path / "found.json")
    assert result.exit_code == 0 and "all classes" in result.stdout


def test_what_has_no_counterpart_is_named(tmp_path: Path) -> None:
    truth = write(tmp_path, "coco", TRUTH, "truth")
    other = write(tmp_path, "coco", {"cat": TRUTH["cat"][:1], "dog": [disc(3, 40, 55)]}, "other")
    result = run(truth, other)
    assert result.exit_code == 3 and "100.00" in result.stdout
    assert "a.png: 2 true masks without a predicted mask that they overlap, such as annotation 1" in result.stderr
    assert "a.png: 1 predicted masks without a true mask that they overlap, such as annotation 1" in result.stderr


def test_photos_without_a_counterpart_are_named(tmp_path: Path) -> None:
    source, other = coco(tmp_path), tmp_path / "other.json"
    other.write_text(source.read_text().replace("b.png", "c.png"))
    result = run(source, other)
    assert result.exit_code == 3
    assert f"b.png: there is no photo of this name, or several, in {other}" in result.stderr
    assert f"{other}: c.png: there is no photo of this name, or several, in {source}" in result.stderr


def test_what_does_not_count_is_noted(tmp_path: Path) -> None:
    source = coco(tmp_path)
    document = json.loads(source.read_text())
    document["annotations"][2]["iscrowd"] = 1
    document["annotations"].append({"image_id": 9, "category_id": 3, "segmentation": []})
    source.write_text(json.dumps(document))
    result = run(source, source)
    assert result.exit_code == 0 and "annotation 2 (a crowd)." in result.stdout
    assert "annotation 3 (its segmentation is empty" in result.stdout
    assert run(source, source, "--strict").exit_code == 3
    result = run(labelstudio(tmp_path / "ls"), tmp_path / "ls" / "export.json")
    assert "predictions 0 result 0 (of another answer than annotations 0)" in result.stdout


def test_a_damaged_mask_fails_alone(tmp_path: Path) -> None:
    source = coco(tmp_path)
    document = json.loads(source.read_text())
    document["annotations"][1]["segmentation"] = {"size": [3, 3], "counts": [9]}
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(document))
    result = run(source, broken)
    assert result.exit_code == 3 and f"{broken}: annotation 1: " in result.stderr
    assert "| all classes | predicted |   2 |" in result.stdout


def test_sizes_that_differ_are_told(tmp_path: Path) -> None:
    source, other = sa1b(tmp_path), tmp_path / "other"
    other.mkdir()
    for path in source.glob("*.json"):
        (other / path.name).write_text(path.read_text().replace('"width": 64', '"width": 63'))
    result = run(source, other)
    assert result.exit_code == 1 and "sa_1.png: its sizes differ: 63x48 and 64x48 (width x height)" in result.stderr


@pytest.mark.parametrize(
    ("content", "said"), [("", "no complete JSON"), ("{}", "none of the formats"), ("[]", "no masks that can")]
)
def test_files_of_no_use_are_told_in_one_line(content: str, said: str, tmp_path: Path) -> None:
    source, broken = coco(tmp_path), tmp_path / "broken.json"
    broken.write_text(content)
    for arguments in ((source, broken), (broken, source), (source, source, "--coarse", broken)):
        result = run(*arguments)
        assert result.exit_code == 1 and said in result.stderr and result.stderr.count("\n") == 1
    assert run(source, tmp_path / "absent.json").stderr.count("\n") == 1


def test_a_yolo_set_without_photos_needs_them(tmp_path: Path) -> None:
    source = yolo(tmp_path)
    (source / "images").rename(tmp_path / "photos")
    result = run(source, source)
    assert result.exit_code == 1 and "no file says how large it is" in result.stderr
    assert run(source, source, "--images", tmp_path / "photos").exit_code == 0


@pytest.mark.parametrize(
    ("truths", "others", "expected"),
    [
        (["a.jpg"], ["A.PNG"], {0: 0}),
        (["a.jpg"], ["deep\\a.png"], {0: 0}),
        (["caf\u00e9.jpg"], ["cafe\u0301.jpg"], {0: 0}),
        (["train/a.jpg", "val/a.jpg"], ["val/a.jpg", "train/a.jpg"], {0: 1, 1: 0}),
        (["train/a.jpg", "val/a.jpg"], ["a.jpg"], {}),
        (["a.jpg"], ["a.jpg", "A.jpg"], {0: 0}),
        (["a.jpg"], ["b.jpg"], {}),
    ],
)
def test_photos_are_matched_where_that_is_unambiguous(
    truths: list[str], others: list[str], expected: dict[int, int]
) -> None:
    sides = [[AnnotatedPhoto(str(index), (name,)) for index, name in enumerate(side)] for side in (truths, others)]
    found = match_photos(*sides)
    assert {int(key): int(photo.key) for key, photo in found.items()} == expected


def test_a_perfect_rle_needs_no_photo(tmp_path: Path) -> None:
    rows = [{"image_id": 1, "category_id": 1, "segmentation": encode_rle(disc(9)), "score": 1}]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    assert run(tmp_path / "found.json", tmp_path / "found.json").exit_code == 0
