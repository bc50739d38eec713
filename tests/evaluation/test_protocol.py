"""The protocols that compare pictures, each on a miniature of its data set in the published layout."""

import csv
import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage

from helpers.evaluation.protocols import (
    COARSE,
    PREDICTED,
    SIZE,
    TRUTHS,
    Array,
    photo,
    plain_iou,
    plain_mba,
    run,
    run_json,
    save,
    set_iou,
    truncate,
)
from segrefiner.cli.main import main
from segrefiner.errors import SegRefinerError
from segrefiner.evaluation.layouts import folder_cases
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


def test_folders_are_read_one_case_at_a_time(folders: Path) -> None:
    cases, failures = folder_cases(folders / "truth", folders / "predicted")
    rows = evaluate_cases(cases, read_mask, score_mask)
    assert not failures and isinstance(next(rows), Measurement)
    # The second file is opened only now.
    (folders / "predicted" / "deep" / "b.png").unlink()
    failure = next(rows)
    assert isinstance(failure, Failure) and failure.name == "deep/b"


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


def test_photos_without_a_mask_are_named(folders: Path) -> None:
    save(folders / "images" / "lonely.jpg", photo())
    arguments = ("folder", folders / "truth", folders / "predicted", "--images", folders / "images", "--metric", "iou")
    data = run_json(*arguments, path=folders / "out.json")
    assert [entry["reason"] for entry in data["left_out"]] == ["a photo without a mask"]
    assert run(*arguments, "--strict").exit_code == 3
