"""The protocols that compare pictures, each on a miniature of its data set in the published layout."""

import csv
import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from scipy import ndimage

from segrefiner.cli.main import main
from segrefiner.errors import InputError, SegRefinerError
from segrefiner.evaluation.davis import read_davis_labels
from segrefiner.evaluation.layouts import DIS_SETS, big_cases, dis_cases, folder_cases
from segrefiner.evaluation.protocol import (
    MASK_METRICS,
    METRICS,
    SOFT_METRICS,
    Failure,
    Measurement,
    Scores,
    evaluate_cases,
    score_mask,
    score_soft,
)
from segrefiner.evaluation.results import HARMED, Results
from segrefiner.imaging.reading import read_mask

SIZE = (64, 90)
ROWS, COLUMNS = np.mgrid[: SIZE[0], : SIZE[1]]
Array = Any


def ellipse(row: int, column: int, height: int, width: int) -> Array:
    return ((ROWS - row) / height) ** 2 + ((COLUMNS - column) / width) ** 2 <= 1


# Truth, coarse and predicted masks; the second prediction is worse than its coarse mask.
TRUTHS = {
    "a": ellipse(30, 40, 20, 30),
    "b": ellipse(20, 20, 12, 9) | ellipse(40, 60, 15, 20),
    "c": ellipse(32, 45, 28, 40) & ~ellipse(32, 45, 8, 10),
}
COARSE = {
    "a": ellipse(28, 44, 18, 30),
    "b": ellipse(21, 20, 11, 9) | ellipse(40, 60, 15, 18),
    "c": ellipse(32, 45, 27, 37),
}
PREDICTED = {"a": ellipse(30, 41, 20, 29), "b": ellipse(40, 60, 15, 18), "c": TRUTHS["c"]}


def save(path: Path, array: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def photo() -> Array:
    return np.stack([ROWS * 3, COLUMNS * 2, ROWS + COLUMNS], axis=2).astype(np.uint8)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *(str(one) for one in arguments)])


def run_json(*arguments: object, path: Path, code: int = 0) -> dict[str, Any]:
    result = run(*arguments, "--json", path)
    assert result.exit_code == code, result.output
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def set_iou(masks: dict[str, Array]) -> float:
    return sum((masks[n] & TRUTHS[n]).sum() for n in TRUTHS) / sum((masks[n] | TRUTHS[n]).sum() for n in TRUTHS)


def plain_iou(mask: Array, truth: Array) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def plain_mba(mask: Array, truth: Array) -> float:
    """For pictures of at most 300 pixels of width and height together: all radii are 1, a cross."""
    assert sum(truth.shape) <= 300
    cross = ndimage.generate_binary_structure(2, 1)
    band = ndimage.binary_dilation(truth, cross) & ~ndimage.binary_erosion(truth, cross, border_value=1)
    return float((mask == truth)[band].mean())


def plain_boundary_iou(mask: Array, truth: Array) -> float:
    width = max(1, round(0.02 * math.hypot(*truth.shape)))
    rims = [one & ~ndimage.binary_erosion(one, np.ones((3, 3)), iterations=width) for one in (mask, truth)]
    return plain_iou(*rims)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in TRUTHS:
        save(tmp_path / "truth" / "deep" / f"{name}.png", TRUTHS[name])
        save(tmp_path / "coarse" / "deep" / f"{name}.png", COARSE[name].astype(np.uint8) * 255)
        save(tmp_path / "predicted" / "deep" / f"{name}.png", PREDICTED[name])
        save(tmp_path / "images" / "deep" / f"{name}.jpg", photo())
    return tmp_path


def test_folder(folders: Path) -> None:
    data = run_json(
        "folder", folders / "truth", folders / "predicted", "--coarse", folders / "coarse", "--images",
        folders / "images", "--csv", folders / "rows.csv", path=folders / "out.json",
    )  # fmt: skip
    plain = {"iou": plain_iou, "mba": plain_mba, "boundary_iou": plain_boundary_iou}
    assert [row["name"] for row in data["rows"]] == ["deep/a", "deep/b", "deep/c"]
    for row in data["rows"]:
        name = row["name"][-1]
        for stage, masks in (("before", COARSE), ("after", PREDICTED)):
            figures = {key: function(masks[name], TRUTHS[name]) for key, function in plain.items()}
            assert row[stage] == pytest.approx(figures, abs=1e-12)
        assert Path(row["paths"]["image"]).is_absolute() and row["paths"]["image"].endswith(f"{name}.jpg")
    (summary,) = data["summary"]
    for stage, masks in (("before", COARSE), ("after", PREDICTED)):
        for key, function in plain.items():
            mean = np.mean([function(masks[name], TRUTHS[name]) for name in TRUTHS])
            assert summary[stage][key] == pytest.approx(mean, abs=1e-12)
        assert summary[stage]["set_iou"] == pytest.approx(set_iou(masks), abs=1e-12)
    assert summary["gain"]["iou"] == pytest.approx(summary["after"]["iou"] - summary["before"]["iou"])
    assert summary["harmed"] == 1 and summary["items"] == 3
    lines = list(csv.DictReader((folders / "rows.csv").read_text().splitlines()))
    assert [float(line["iou_gain"]) for line in lines] == pytest.approx(
        [row["after"]["iou"] - row["before"]["iou"] for row in data["rows"]]
    )
    assert lines[0]["predicted"] == str(folders / "predicted" / "deep" / "a.png")


def test_the_table_names_worst_and_best(folders: Path) -> None:
    result = run("folder", folders / "truth", folders / "predicted", "--coarse", folders / "coarse")
    assert result.exit_code == 0 and result.stderr == ""
    before, worst, best = result.stdout.split("\n\n")[0], *result.stdout.split("worst")[1].split("best")
    assert "| coarse " in before and "| gain " in before
    assert "deep/b" in worst and "deep/c" in best and "deep/a" not in worst + best
    assert "1 (33.3 %) |" in before and "Harmed: lost more than 0.5 points of IoU." in result.stdout


def test_without_coarse_masks_there_is_no_gain(folders: Path) -> None:
    data = run_json("folder", folders / "truth", folders / "predicted", "--metric", "dice", "--metric", "hausdorff95",
                    path=folders / "out.json")  # fmt: skip
    (summary,) = data["summary"]
    assert summary["before"] is summary["gain"] is summary["harmed"] is None
    assert data["columns"] == ["iou", "set_iou", "dice", "hausdorff95"]
    assert summary["after"]["dice"] < 1 and summary["after"]["hausdorff95"] > 0


def test_everything_missing_is_listed_and_the_rest_measured(folders: Path) -> None:
    (folders / "predicted" / "deep" / "a.png").unlink()
    (folders / "truth" / "deep" / "b.png").unlink()
    save(folders / "predicted" / "deep" / "c.bmp", PREDICTED["c"])
    save(folders / "truth" / "d.png", TRUTHS["a"])
    save(folders / "predicted" / "d.png", TRUTHS["a"])
    result = run("folder", folders / "truth", folders / "predicted")
    assert result.exit_code == 3
    told = result.stderr.splitlines()
    assert len(told) == 4 and "3 problems" in told[3]
    assert "deep/a: the predicted mask is missing" in told[0]
    assert "deep/b: the true mask is missing" in told[1]
    assert "deep/c" in told[2] and "c.bmp, c.png" in told[2]
    assert "100.00" in result.stdout


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "damaged"),
        (lambda path: path.write_bytes(b""), "0 bytes"),
        (lambda path: save(path, np.zeros((10, 12), bool)), "is 12x10 but the truth is 90x64"),
        (lambda path: save(path, np.arange(5760, dtype=np.uint8).reshape(SIZE)), "threshold"),
    ],
    ids=["truncated", "empty", "size", "grey"],
)
@pytest.mark.parametrize("role", ["truth", "predicted", "coarse"])
def test_unreadable_files_are_named_and_the_run_goes_on(
    folders: Path, damage: Callable[[Path], object], said: str, role: str
) -> None:
    damage(folders / role / "deep" / "b.png")
    result = run("folder", folders / "truth", folders / "predicted", "--coarse", folders / "coarse")
    assert result.exit_code == 3
    assert "deep/b" in result.stderr and "b.png" in result.stderr
    assert said in result.stderr or (role == "truth" and "but the truth is 12x10" in result.stderr)
    assert "| predicted |   2 |" in result.stdout


def test_names_cannot_steer_the_terminal_and_hidden_files_are_none(folders: Path) -> None:
    os.rename(folders / "truth" / "deep" / "b.png", folders / "truth" / "deep" / "b\x1b[2J\nb|.png")
    (folders / "truth" / "deep" / "._c.png").write_bytes(b"resource fork")
    os.rename(folders / "predicted" / "deep" / "b.png", folders / "predicted" / "deep" / "b\x1b[2J\nb|.png")
    result = run("folder", folders / "truth", folders / "predicted")
    assert result.exit_code == 0, result.stderr
    assert "\x1b" not in result.output
    assert r"deep/b\x1b\[2J\nb\|" in result.stdout


def test_terminals_without_unicode_get_escapes(folders: Path) -> None:
    for folder in ("truth", "predicted"):
        shutil.copy(folders / folder / "deep" / "b.png", folders / folder / "写.png")
    runner = CliRunner(charset="latin-1")
    result = runner.invoke(main, ["evaluate", "folder", str(folders / "truth"), str(folders / "predicted")])
    assert result.exit_code == 0 and "| \\u5199 " in result.stdout


def test_system_errors_are_told_in_one_line(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("folder", "a" * 5000, folders / "predicted")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "too long" in result.stderr
    listed = os.listdir

    def listdir(path: Any = ".") -> Any:
        if Path(path).name == "deep":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    # No folder is closed to root, as whom tests may run.
    monkeypatch.setattr(os, "listdir", listdir)
    result = run("folder", folders / "truth", folders / "predicted")
    told = [line for line in result.stderr.splitlines() if "Permission denied" in line]
    assert result.exit_code == 1 and len(told) == 2
    assert f"{folders}/truth/deep" in told[0] and f"{folders}/predicted/deep" in told[1]


def test_a_closed_pipe_costs_no_results(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("segrefiner.cli.shared.evaluations.say", closed)
    result = run("folder", folders / "truth", folders / "predicted", "--json", folders / "a.json", "--csv",
                 folders / "a.csv")  # fmt: skip
    assert result.exit_code != 0
    assert len(json.loads((folders / "a.json").read_text())["rows"]) == 3
    assert (folders / "a.csv").read_text().count("\n") == 4


def test_nothing_to_do_is_an_error(folders: Path) -> None:
    (folders / "empty").mkdir()
    for arguments in (
        ("folder", folders / "empty", folders / "empty"),
        ("folder", folders / "truth", folders / "empty"),
        ("folder", folders / "none", folders / "predicted"),
        ("folder", folders / "truth" / "deep" / "a.png", folders / "predicted"),
        ("big", folders / "empty"),
        ("big", folders / "truth"),
        ("dis", folders / "truth", "--coarse", folders / "coarse"),
        ("dis", folders / "truth"),
        ("davis", folders, folders / "predicted"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1, arguments
        assert result.stderr.startswith("segrefiner: ") and "Traceback" not in result.output


def test_bad_options_are_told_first(folders: Path) -> None:
    there = ("folder", folders / "truth", folders / "predicted")
    assert run(*there, "--metric", "beauty").exit_code == 2
    result = run(*there, "--json", folders / "none" / "out.json")
    assert result.exit_code == 1 and "does not exist" in result.stderr and not result.stdout
    assert run(*there, "--csv", folders / "out.txt").exit_code == 1


def test_help_names_every_figure() -> None:
    helps = {command: " ".join(run(command, "--help").stdout.split()) for command in ("folder", "dis")}
    assert all(key in helps["folder"] for key in MASK_METRICS)
    assert all(key in helps["dis"] for key in SOFT_METRICS)
    assert {*MASK_METRICS, *SOFT_METRICS} <= METRICS.keys()


def test_thresholds_are_for_predictions_and_for_truths_that_need_one(folders: Path) -> None:
    save(folders / "truth" / "deep" / "a.png", TRUTHS["a"].astype(np.uint8))  # 0 and 1 in 8 bit
    save(folders / "truth" / "deep" / "b.png", np.where(TRUTHS["b"], np.uint8(250), np.uint8(3)))
    for name in TRUTHS:
        save(folders / "predicted" / "deep" / f"{name}.png", np.where(TRUTHS[name], np.uint8(200), np.uint8(90)))
    data = run_json("folder", folders / "truth", folders / "predicted", "--threshold", 100, path=folders / "out.json")
    assert [row["after"]["iou"] for row in data["rows"]] == [1, 1, 1]
    assert data["threshold"] == 100


@pytest.fixture
def big(tmp_path: Path) -> Path:
    for name in TRUTHS:
        save(tmp_path / "test" / f"{name}_gt.png", TRUTHS[name].astype(np.uint8) * 255)
        # Published coarse masks may be grey; the object begins at 128.
        save(tmp_path / "test" / f"{name}_seg.png", np.where(COARSE[name], np.uint8(128), np.uint8(127)))
        save(tmp_path / "test" / f"{name}_im.jpg", photo())
        save(tmp_path / "refined" / f"{name}_refine.png", PREDICTED[name])
    return tmp_path


@pytest.mark.parametrize("ending", ["_refine.png", "_seg.png", ".png"])
def test_big(big: Path, ending: str) -> None:
    for path in (big / "refined").iterdir():
        path.rename(path.with_name(path.name.replace("_refine.png", ending)))
    data = run_json("big", big / "test", "--predicted", big / "refined", path=big / "out.json")
    (summary,) = data["summary"]
    for stage, masks in (("before", COARSE), ("after", PREDICTED)):
        assert summary[stage]["set_iou"] == pytest.approx(set_iou(masks), abs=1e-12)
        mba = np.mean([plain_mba(masks[name], TRUTHS[name]) for name in TRUTHS])
        assert summary[stage]["mba"] == pytest.approx(mba, abs=1e-12)
    assert data["columns"] == ["set_iou", "mba"]
    assert all(row["paths"]["image"].endswith("_im.jpg") for row in data["rows"])
    coarse_only = run_json("big", big / "test", path=big / "out.json")
    assert coarse_only["summary"][0]["after"] == summary["before"]


def test_big_takes_coarse_masks_from_elsewhere_and_lists_what_is_missing(big: Path) -> None:
    (big / "fcn").mkdir()
    for name in "ab":
        (big / "test" / f"{name}_seg.png").rename(big / "fcn" / f"{name}_seg.png")
    (big / "test" / "c_gt.png").unlink()
    save(big / "refined" / "b.png", PREDICTED["b"])
    cases, failures = big_cases(big / "test", big / "refined", big / "fcn")
    assert [case.name for case in cases] == ["a"]
    messages = {failure.name: failure.message for failure in failures}
    assert "several files" in messages["b"] and "b.png, b_refine.png" in messages["b"]
    assert "coarse mask c_seg.png is missing" in messages["c"]
    (big / "test" / "._a_gt.png").write_bytes(b"resource fork")
    assert big_cases(big / "test", big / "refined", big / "fcn") == (cases, failures)


def soft(truth: Array, distance: int) -> Array:
    """A blurred prediction whose values do not reach 0 and 255."""
    inside = np.minimum(ndimage.distance_transform_cdt(truth, "chessboard"), distance)
    outside = np.minimum(ndimage.distance_transform_cdt(~truth, "chessboard"), distance)
    return (127 + (inside - outside) * (100 // distance)).astype(np.uint8)


@pytest.fixture
def dis(tmp_path: Path) -> Path:
    for name, data_set in product(TRUTHS, ("DIS-VD", "DIS-TE2")):
        save(tmp_path / data_set / "gt" / f"{name}.png", TRUTHS[name].astype(np.uint8) * 255)
        save(tmp_path / data_set / "im" / f"{name}.jpg", photo())
        for model, distance in (("isnet", 4), ("unet", 8)):
            save(tmp_path / "coarse" / model / data_set / f"{name}.png", soft(COARSE[name], distance))
            save(tmp_path / "refined" / model / data_set / f"{name}.png", soft(PREDICTED[name], distance))
    return tmp_path


def set_max_f(predictions: list[Array]) -> float:
    """F of the set's mean precision and recall, at the best of 256 thresholds."""
    best = 0.0
    for threshold in range(256):
        precisions, recalls = [], []
        for prediction, truth in zip(predictions, TRUTHS.values(), strict=True):
            found = prediction >= threshold
            precisions.append((found & truth).sum() / max(found.sum(), 1))
            recalls.append((found & truth).sum() / truth.sum())
        precision, recall = np.mean(precisions), np.mean(recalls)
        if precision + recall:
            best = max(best, 1.3 * precision * recall / (0.3 * precision + recall))
    return best


# What pysodmetrics 1.6.2, with OpenCV 4.12 for HCE, gives on the same predictions.
REFERENCE = {
    ("before", 4): {"weighted_f": 0.860502459, "s_measure": 0.878657287, "e_measure": 0.879572796, "hce": 4},
    ("before", 8): {"weighted_f": 0.744598103, "s_measure": 0.838308712, "e_measure": 0.752710143, "hce": 4},
    ("after", 4): {"weighted_f": 0.856570604, "s_measure": 0.883028170, "e_measure": 0.879689298, "hce": 7 / 3},
    ("after", 8): {"weighted_f": 0.735604637, "s_measure": 0.829317497, "e_measure": 0.746782295, "hce": 7 / 3},
}


def test_dis(dis: Path) -> None:
    data = run_json("dis", dis, "--coarse", dis / "coarse", "--predicted", dis / "refined", path=dis / "out.json")
    groups = [part["group"] for part in data["summary"]]
    assert groups == ["isnet/DIS-VD", "isnet/DIS-TE2", "unet/DIS-VD", "unet/DIS-TE2"]
    for part, distance in zip(data["summary"], (4, 4, 8, 8), strict=True):
        for stage, masks in (("before", COARSE), ("after", PREDICTED)):
            greys = [soft(masks[name], distance) for name in TRUTHS]
            binary = {name: grey >= 128 for name, grey in zip(TRUTHS, greys, strict=True)}
            spread = [(grey.astype(float) - grey.min()) / (grey.max() - grey.min()) for grey in greys]
            assert part[stage]["set_iou"] == pytest.approx(set_iou(binary), abs=1e-12)
            mba = np.mean([plain_mba(binary[name], TRUTHS[name]) for name in TRUTHS])
            assert part[stage]["mba"] == pytest.approx(mba, abs=1e-12)
            errors = [np.abs(one - truth).mean() for one, truth in zip(spread, TRUTHS.values(), strict=True)]
            assert part[stage]["mae"] == pytest.approx(np.mean(errors), abs=1e-6)
            levels = [np.floor(one * 255 + 1e-6) for one in spread]
            assert part[stage]["set_max_f"] == pytest.approx(set_max_f(levels), abs=1e-6)
            assert {key: part[stage][key] for key in REFERENCE[stage, distance]} == pytest.approx(
                REFERENCE[stage, distance], abs=1e-6
            )
        assert part["gain"]["mae"] == pytest.approx(part["before"]["mae"] - part["after"]["mae"])


def test_dis_of_one_model_and_one_set(dis: Path) -> None:
    data = run_json("dis", dis, "--coarse", dis / "coarse" / "unet", "--set", "DIS-TE2", "--metric", "mba",
                    path=dis / "out.json")  # fmt: skip
    assert [part["group"] for part in data["summary"]] == ["DIS-TE2"]
    assert data["columns"] == ["set_iou", "mba"] and data["summary"][0]["before"] is None


def test_dis_lists_what_is_missing(dis: Path) -> None:
    (dis / "refined" / "isnet" / "DIS-VD" / "a.png").unlink()
    (dis / "DIS-VD" / "gt" / "b.png").unlink()
    for path in (dis / "refined" / "unet" / "DIS-TE2").iterdir():
        path.unlink()
    (dis / "refined" / "unet" / "DIS-TE2").rmdir()
    cases, failures = dis_cases(dis, dis / "coarse", dis / "refined")
    assert [failure.name for failure in failures] == [
        "isnet/DIS-VD/a", "isnet/DIS-VD/b", "unet/DIS-VD/b", "unet/DIS-TE2",
    ]  # fmt: skip
    assert "refined mask a.png is missing" in failures[0].message
    assert "true mask b.png is missing" in failures[1].message
    assert len(cases) == 1 + 3 + 2
    with pytest.raises(InputError, match="nor models"):
        dis_cases(dis, dis / "refined" / "unet" / "DIS-VD")
    assert set(DIS_SETS) >= {"DIS-VD", "DIS-TE1", "DIS-TE4"}


def test_dis_sets_with_refined_masks_alone_are_named(dis: Path) -> None:
    for path in (dis / "coarse" / "unet" / "DIS-TE2").iterdir():
        path.unlink()
    (dis / "coarse" / "unet" / "DIS-TE2").rmdir()
    shutil.rmtree(dis / "coarse" / "isnet")
    _, failures = dis_cases(dis, dis / "coarse", dis / "refined")
    assert [failure.name for failure in failures] == ["isnet/DIS-VD", "isnet/DIS-TE2", "unet/DIS-TE2"]


def test_dis_masks_of_zeros_and_ones_are_not_taken_for_empty_ones(dis: Path) -> None:
    save(dis / "coarse" / "unet" / "DIS-VD" / "a.png", COARSE["a"].astype(np.uint8))
    result = run("dis", dis, "--coarse", dis / "coarse" / "unet", "--set", "DIS-VD")
    assert result.exit_code == 3 and "holds nothing above 1" in result.stderr
    assert result.stderr.startswith("segrefiner: DIS-VD/a: ")
    save(dis / "coarse" / "unet" / "DIS-VD" / "a.png", np.zeros(SIZE, np.uint8))
    assert run("dis", dis, "--coarse", dis / "coarse" / "unet", "--set", "DIS-VD").exit_code == 0


def test_gains_of_figures_of_which_less_is_better_are_explained(dis: Path) -> None:
    folders = "--coarse", dis / "coarse", "--predicted", dis / "refined"
    assert "Of MAE %, HCE less is better; a gain with +" in run("dis", dis, *folders).stdout
    assert "less is better" not in run("dis", dis, *folders, "--metric", "mba").stdout


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


def test_folders_are_read_one_case_at_a_time(folders: Path) -> None:
    cases, failures = folder_cases(folders / "truth", folders / "predicted")
    rows = evaluate_cases(cases, read_mask, score_mask)
    assert not failures and isinstance(next(rows), Measurement)
    # The second file is opened only now.
    (folders / "predicted" / "deep" / "b.png").unlink()
    failure = next(rows)
    assert isinstance(failure, Failure) and failure.name == "deep/b"


def test_processes_change_nothing(dis: Path) -> None:
    truncate(dis / "refined" / "unet" / "DIS-VD" / "b.png")
    arguments = ("dis", dis, "--coarse", dis / "coarse", "--predicted", dis / "refined", "--metric", "max_f")
    alone = run_json(*arguments, path=dis / "out.json", code=3)
    assert run_json(*arguments, "--workers", 2, path=dis / "out.json", code=3) == alone
    assert len(alone["rows"]) == 11


def die(path: Path) -> Array:
    os._exit(1)


def test_a_process_that_dies_is_told(folders: Path) -> None:
    cases, _ = folder_cases(folders / "truth", folders / "predicted")
    with pytest.raises(SegRefinerError, match="a process died"):
        list(evaluate_cases(cases, die, score_mask, workers=2))


def test_figures_that_are_not_defined_are_in_no_mean(tmp_path: Path) -> None:
    results = Results("folder", "image", "iou", ("iou", "mba"))
    for mask, truth in ((TRUTHS["a"], TRUTHS["a"]), (TRUTHS["a"], np.ones(SIZE, bool))):
        results.add(Measurement("x", score_mask(mask, truth, ("iou", "mba"))))
    data = results.to_json()
    assert data["rows"][1]["after"]["mba"] is None
    assert data["summary"][0]["after"]["mba"] == 1
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert [line["mba"] for line in csv.DictReader(results.to_csv().splitlines())] == ["1.0", ""]


def test_harm_begins_beyond_half_a_point() -> None:
    results = Results("folder", "image", "iou", ("iou",))
    for loss in (HARMED - 1e-9, HARMED + 1e-9, -0.1):
        results.add(Measurement("x", Scores({"iou": 0.8 - loss}), Scores({"iou": 0.8})))
    assert results.summary()[0]["harmed"] == 1


def test_an_empty_prediction_has_the_largest_distance() -> None:
    empty = np.zeros(SIZE, bool)
    assert score_mask(empty, TRUTHS["a"], ("hausdorff95",)).values == {"hausdorff95": math.hypot(*SIZE)}
    assert score_soft(np.zeros(SIZE, np.uint8), TRUTHS["a"]).values["iou"] == 0


def test_every_entry_of_the_folders_is_measured_or_named(folders: Path) -> None:
    """Links to folders are entered, other spellings found, and what is no mask is told."""
    truth, predicted = folders / "truth", folders / "predicted"
    before = len(folder_cases(truth, predicted)[0])
    mask = next(truth.rglob("*.png")).read_bytes()
    for folder, name in ((truth, "Caf\u00e9.png"), (predicted, "cafe\u0301.PNG")):
        (folder / name).write_bytes(mask)
        elsewhere = folders / f"elsewhere {folder.name}"
        elsewhere.mkdir()
        (elsewhere / "a.png").write_bytes(mask)
        (folder / "linked").symlink_to(elsewhere)
    (truth / "gone.png").symlink_to("nowhere")
    os.mkfifo(predicted / "pipe.png")
    (truth / ".hidden.png").write_bytes(mask)
    (predicted / "notes.txt").touch()
    cases, failures = folder_cases(truth, predicted)
    assert len(cases) == before + 2 and {"Caf\u00e9", "linked/a"} <= {case.name for case in cases}
    assert {Path(failure.name).name for failure in failures} == {"gone.png", "pipe.png"}
    result = run("folder", truth, predicted, "--metric", "iou")
    assert result.exit_code == 3 and "gone.png: a link to nowhere" in result.stderr
    assert "Left out: 1" in result.stdout and ".hidden.png" in result.stdout and "notes.txt" in result.stdout


def test_strays_of_big_are_named_and_names_may_differ_in_case(big: Path) -> None:
    test = big / "test"
    (test / "a_gt.png").rename(test / "A_GT.PNG")
    (test / "b_im.jpg").rename(test / "b_im.JFIF")
    (test / "note.txt").touch()
    save(test / "c_gt_old.png", TRUTHS["c"])
    save(big / "refined" / "deep" / "c.png", TRUTHS["c"])
    data = run_json("big", test, "--predicted", big / "refined", path=big / "out.json")
    assert [row["name"] for row in data["rows"]] == ["A", "b", "c"] and all(
        row["paths"]["image"] for row in data["rows"]
    )
    assert {Path(entry["name"]).name for entry in data["left_out"]} == {"note.txt", "c_gt_old.png", "c.png"}
    result = run("big", test, "--predicted", big / "refined", "--strict")
    assert result.exit_code == 3 and "Left out: 1, such as" in result.stdout and "note.txt" in result.stdout


def test_strays_of_dis_are_named_and_names_may_differ_in_case(dis: Path) -> None:
    (dis / "DIS-VD" / "gt" / "a.png").rename(dis / "DIS-VD" / "gt" / "A.PNG")
    save(dis / "DIS-VD" / "im" / "lonely.jpg", photo())
    save(dis / "coarse" / "unet" / "DIS-VD" / "odd.bmp", photo())
    (dis / "DIS-TE1" / "gt").mkdir(parents=True)
    arguments = ("dis", dis, "--coarse", dis / "coarse" / "unet", "--metric", "mba")
    data = run_json(*arguments, path=dis / "out.json")
    assert len(data["rows"]) == 6
    assert {Path(entry["name"]).name: entry["reason"] for entry in data["left_out"]} == {
        "lonely.jpg": "a photo without a mask", "odd.bmp": "its name is none of this layout",
        "DIS-TE1": "a set without masks to measure",
    }  # fmt: skip
    assert run(*arguments, "--strict").exit_code == 3
    assert run(*arguments, "--strict", "--set", "DIS-TE2").exit_code == 0


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


def test_photos_without_a_mask_are_named(folders: Path) -> None:
    save(folders / "images" / "lonely.jpg", photo())
    arguments = ("folder", folders / "truth", folders / "predicted", "--images", folders / "images", "--metric", "iou")
    data = run_json(*arguments, path=folders / "out.json")
    assert [entry["reason"] for entry in data["left_out"]] == ["a photo without a mask"]
    assert run(*arguments, "--strict").exit_code == 3
