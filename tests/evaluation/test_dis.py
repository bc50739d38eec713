"""The protocol of DIS5K, against figures of its authors' scripts."""

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from helpers.evaluation.protocols import (
    COARSE,
    PREDICTED,
    SIZE,
    TRUTHS,
    Array,
    photo,
    plain_mba,
    run,
    run_json,
    save,
    set_iou,
    truncate,
)
from segrefiner.errors import InputError
from segrefiner.evaluation.layouts import DIS_SETS, dis_cases


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


def test_processes_change_nothing(dis: Path) -> None:
    truncate(dis / "refined" / "unet" / "DIS-VD" / "b.png")
    arguments = ("dis", dis, "--coarse", dis / "coarse", "--predicted", dis / "refined", "--metric", "max_f")
    alone = run_json(*arguments, path=dis / "out.json", code=3)
    assert run_json(*arguments, "--workers", 2, path=dis / "out.json", code=3) == alone
    assert len(alone["rows"]) == 11


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
