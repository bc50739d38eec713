"""What is written for TensorBoard is what its own reader finds, also after a run was continued."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segrefiner.errors import MissingExtraError
from segrefiner.training.monitoring.tensorboard import TensorBoardLog

pytest.importorskip("tensorboard")


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def points(found: Any, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in found.Scalars(tag)]


def test_rows_become_scalars_in_groups(tmp_path: Path) -> None:
    board = TensorBoardLog(tmp_path / "board")
    board.row({"step": 50.0, "loss": 2.0, "bce": 1.5, "texture": 0.125, "lr": 0.25, "loss_t0": 1.0, "loss_t5": 3.0,
               "gradient_norm": 4.0, "samples_per_second": 16.0})  # fmt: skip
    board.row({"step": 100.0, "loss": 1.0, "loss_t5": float("nan")})
    figures = {"photos": 9, "iou_before": 0.5, "iou_after": 0.75, "harmed": 0.0}
    board.validation({"step": 100, "pipeline": "default"} | figures)
    board.validation({"step": 100, "pipeline": "published", "iou_after": None} | {"mba_after": 0.25})
    board.close()
    found = read(tmp_path / "board")
    assert set(found.Tags()["scalars"]) == {
        "loss/total", "loss/bce", "loss/texture", "loss_by_timestep/t0", "loss_by_timestep/t5", "train/lr",
        "train/gradient_norm", "train/samples_per_second", "validation/default/photos",
        "validation/default/iou_before", "validation/default/iou_after", "validation/default/harmed",
        "validation/published/mba_after",
    }  # fmt: skip
    assert points(found, "loss/total") == [(50, 2.0), (100, 1.0)]
    assert points(found, "loss_by_timestep/t5") == [(50, 3.0)]
    assert points(found, "validation/default/iou_after") == [(100, 0.75)]


def test_a_picture_comes_back(tmp_path: Path) -> None:
    import io

    from PIL import Image

    grid = np.random.default_rng(0).integers(0, 256, (20, 50, 3)).astype(np.uint8)
    board = TensorBoardLog(tmp_path)
    board.picture(150, grid)
    board.close()
    (event,) = read(tmp_path).Images("examples")
    assert event.step == 150
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string))), grid)


def test_a_continued_run_has_each_step_once(tmp_path: Path) -> None:
    first = TensorBoardLog(tmp_path)
    for step in (50, 100, 150, 200):
        first.row({"step": step, "loss": 1.0})
    first.close()
    # Stopped at once after step 200; its last checkpoint was of step 100.
    second = TensorBoardLog(tmp_path, steps_taken=100)
    for step in (150, 200, 250):
        second.row({"step": step, "loss": 2.0})
    second.close()
    assert points(read(tmp_path), "loss/total") == [(50, 1.0), (100, 1.0), (150, 2.0), (200, 2.0), (250, 2.0)]


def test_a_new_run_in_an_old_folder_voids_the_old_one(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        board = TensorBoardLog(tmp_path)
        board.row({"step": 50, "loss": value})
        board.close()
    assert points(read(tmp_path), "loss/total") == [(50, 2.0)]


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"segrefiner\[tensorboard\]"):
        TensorBoardLog(tmp_path / "board")
    assert not (tmp_path / "board").exists()
