"""The protocol of BIG: names, coarse masks from elsewhere, and what is missing."""

from pathlib import Path

import numpy as np
import pytest

from helpers.evaluation.protocols import COARSE, PREDICTED, TRUTHS, photo, plain_mba, run, run_json, save, set_iou
from segrefiner.evaluation.layouts import big_cases


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
