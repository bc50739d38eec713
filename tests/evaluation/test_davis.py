"""The protocol of DAVIS: objects, splits and bad frames."""

import math
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.evaluation.protocols import Array, photo, plain_iou, run, run_json, save, truncate
from segrefiner.evaluation.davis import read_davis_labels

FRAME = (24, 40)


def labels_of(step: int, *, wrong: bool = False) -> Array:
    """A frame with two objects that move; in the wrong one the first is too large and the second goes lost."""
    labels = np.zeros(FRAME, np.uint8)
    labels[4 : 12 + 3 * wrong, 3 + step : 13 + step] = 1
    if not (wrong and step >= 4):
        labels[14 + wrong : 22, 20:32] = 2
    return labels


def save_labels(path: Path, labels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels)
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [200] * (253 * 3))
    picture.save(path)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    for step in range(7):
        name = f"{step:05d}.png"
        truth = labels_of(step)
        truth[0, 0] = 255
        save_labels(tmp_path / "Annotations" / "480p" / "two" / name, truth)
        save(tmp_path / "JPEGImages" / "480p" / "two" / f"{step:05d}.jpg", photo()[: FRAME[0], : FRAME[1]])
        save_labels(tmp_path / "results" / "two" / name, labels_of(step, wrong=True))
        save_labels(tmp_path / "coarse" / "two" / name, labels_of(step // 2, wrong=True))
        one = (labels_of(step) == 1).astype(np.uint8)
        save_labels(tmp_path / "Annotations" / "480p" / "one" / name, one)
        save_labels(tmp_path / "results" / "one" / name, one)
        save_labels(tmp_path / "coarse" / "one" / name, one)
    (tmp_path / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "ImageSets" / "2017" / "val.txt").write_text("two\n")
    return tmp_path


def contour(mask: Array) -> list[tuple[int, int]]:
    points = []
    height, width = mask.shape
    for y, x in product(range(height), range(width)):
        beside = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
        if any(mask[y, x] != mask[place] for place in beside if place[0] < height and place[1] < width):
            points.append((y, x))
    return points


def plain_f(mask: Array, truth: Array) -> float:
    ours, theirs = contour(mask), contour(truth)
    if not ours or not theirs:
        return float(not ours and not theirs)
    reach = math.ceil(0.008 * math.hypot(*truth.shape))

    def found(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        return sum(any(math.dist(point, other) <= reach for other in others) for point in points) / len(points)

    precision, recall = found(ours, theirs), found(theirs, ours)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def davis_figures(slow: bool) -> dict[int, dict[str, float]]:
    """Of the objects of the sequence `two`; frames 1 to 5 of 0 to 6 count."""
    figures = {}
    for label in (1, 2):
        pairs = [
            (labels_of(step // 2 if slow else step, wrong=True) == label, labels_of(step) == label)
            for step in range(1, 6)
        ]
        values = {"j": [plain_iou(*pair) for pair in pairs], "f": [plain_f(*pair) for pair in pairs]}
        figures[label] = {"jf": float(np.mean(values["j"] + values["f"]))}
        for key, track in values.items():
            # Five frames make four parts of two, each of which shares a frame with the next.
            figures[label] |= {
                key: float(np.mean(track)),
                f"{key}_recall": float(np.mean([value > 0.5 for value in track])),
                f"{key}_decay": float(np.mean(track[:2]) - np.mean(track[-2:])),
            }
    return figures


def test_davis(davis: Path) -> None:
    data = run_json("davis", davis, davis / "results", "--coarse", davis / "coarse", path=davis / "out.json")
    rows = {row["name"]: row for row in data["rows"]}
    assert rows.keys() == {"one/1", "two/1", "two/2"}
    for stage, slow in (("before", True), ("after", False)):
        figures = davis_figures(slow)
        for label in (1, 2):
            assert rows[f"two/{label}"][stage] == pytest.approx(figures[label], abs=1e-12)
        # The mean is over objects, not over sequences.
        assert data["summary"][0][stage]["j"] == pytest.approx((1 + figures[1]["j"] + figures[2]["j"]) / 3)
    row = rows["two/2"]
    assert row["label"] == 2 and row["paths"]["image"].endswith(".jpg")
    assert (read_davis_labels(Path(row["paths"]["truth"])) == 2).any()


def test_davis_split_and_missing_sequences(davis: Path) -> None:
    data = run_json("davis", davis, davis / "results", "--split", "val", path=davis / "out.json")
    assert [row["name"] for row in data["rows"]] == ["two/1", "two/2"]
    assert run("davis", davis, davis / "results", "--split", "train").exit_code == 1
    (davis / "ImageSets" / "2017" / "val.txt").write_text("two\r\ntwo\r\n", encoding="utf-8-sig")
    again = run_json("davis", davis, davis / "results", "--split", "val", path=davis / "out.json")
    assert again["rows"] == data["rows"]
    save_labels(davis / "results" / "three" / "00001.png", labels_of(1))
    os.rename(davis / "results" / "one", davis / "results" / "uno")
    result = run("davis", davis, davis / "results")
    assert result.exit_code == 3
    assert [line.split(":")[1].strip() for line in result.stderr.splitlines()[:3]] == ["one", "three", "uno"]


def test_davis_single_object(davis: Path) -> None:
    for step in range(7):
        save(davis / "results" / "two" / f"{step:05d}.png", (labels_of(step) > 0).astype(np.uint8) * 255)
    data = run_json("davis", davis, davis / "results", "--split", "val", "--single-object", path=davis / "out.json")
    (row,) = data["rows"]
    # The pixel of 255 in the truth's corner is part of the object here.
    area = (labels_of(1) > 0).sum()
    assert row["after"]["j"] == pytest.approx(area / (area + 1)) and row["label"] is None
    result = run("davis", davis, davis / "results", "--split", "val")
    assert result.exit_code == 1 and "has the index 255" in result.stderr and "--single-object" in result.stderr


def test_davis_masks_of_one_object_are_told_the_option(davis: Path) -> None:
    for step in range(7):
        one = (labels_of(step) == 1).astype(np.uint8) * 255
        save_labels(davis / "Annotations" / "480p" / "one" / f"{step:05d}.png", one)
    result = run("davis", davis, davis / "results")
    assert result.exit_code == 3 and "--single-object" in result.stderr


def test_davis_first_frame_of_too_many_objects_is_refused(davis: Path) -> None:
    save(davis / "Annotations" / "480p" / "two" / "00000.png", np.full(FRAME, 300, np.uint16))
    result = run("davis", davis, davis / "results")
    assert result.exit_code == 3 and "has 300 objects, expected 1 to 254" in result.stderr


def test_davis_frames_without_truth_are_named(davis: Path) -> None:
    (davis / "Annotations" / "480p" / "two" / "._00000.png").write_bytes(b"resource fork")
    save_labels(davis / "results" / "two" / "00099.png", labels_of(1))
    result = run("davis", davis, davis / "results")
    assert result.exit_code == 3 and "two/00099: the true mask is missing" in result.stderr


def test_davis_names_bad_frames_and_goes_on(davis: Path) -> None:
    folder = davis / "results" / "two"
    truncate(folder / "00001.png")
    save_labels(folder / "00002.png", labels_of(2)[:-1])
    (folder / "00003.png").unlink()
    save_labels(folder / "00004.png", labels_of(4) * 2)
    save(folder / "00005.png", photo()[: FRAME[0], : FRAME[1]])
    result = run("davis", davis, davis / "results", "--split", "val")
    assert result.exit_code == 1 and result.stderr.count("\n") == 6
    for step, said in enumerate(("is damaged", "is 40x23 but", "does not exist", "the index 4", "mode RGB"), start=1):
        assert f"two/{step:05d}: " in result.stderr and said in result.stderr
    save_labels(folder / "00005.png", labels_of(5))
    result = run("davis", davis, davis / "results", "--split", "val")
    assert result.exit_code == 3 and "100.00" in result.stdout


def test_strays_of_davis_are_named_and_names_may_differ_in_case(davis: Path) -> None:
    (davis / "results" / "two" / "00002.png").rename(davis / "results" / "two" / "00002.PNG")
    arguments = ("davis", davis, davis / "results", "--split", "val")
    assert run(*arguments, "--strict").exit_code == 0
    (davis / "results" / "two" / "log.txt").touch()
    save(davis / "JPEGImages" / "480p" / "two" / "00100.jpg", photo())
    data = run_json(*arguments, path=davis / "out.json")
    assert {Path(entry["name"]).name for entry in data["left_out"]} == {"log.txt", "00100.jpg"}
    assert run(*arguments, "--strict").exit_code == 3
    os.mkfifo(davis / "results" / "two" / "00009.png")
    result = run(*arguments)
    assert result.exit_code == 3 and "00009.png: a pipe" in result.stderr
