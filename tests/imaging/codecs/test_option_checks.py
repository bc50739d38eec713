"""Options of the wrong kind are refused in a line, through every door; numbers of other libraries are numbers."""

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from helpers.tiny import TINY
from segrefiner import InputError, Refiner
from segrefiner.cli.main import main
from segrefiner.imaging.boxes import Box
from segrefiner.imaging.codecs.option_checks import (
    MAX_SEED,
    MAX_STEPS,
    finite_number,
    real_number,
    shown,
    whole_number,
)
from segrefiner.imaging.reading import read_mask
from segrefiner.jobs.folders import folder_job
from segrefiner.model.diffusion import NUM_TIMESTEPS
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.label_maps import refine_labels
from segrefiner.refinement.large_photos import refine_large
from segrefiner.refinement.options import Options
from segrefiner.refinement.pipelines.tasks import whole_boxes
from segrefiner.refinement.video import refine_video
from segrefiner.serving.client import Client

HUGE = 10**400
NO_NUMBERS: list[Any] = ["x", "1", b"1", True, np.True_, torch.tensor(True), [1], np.array([1, 2]), ..., 1j, {}]
NO_REALS: list[Any] = [*NO_NUMBERS, math.nan, np.float32("nan"), HUGE, -HUGE, Decimal("nan"), torch.tensor(math.nan)]
NO_WHOLES: list[Any] = [*NO_NUMBERS, 1.0, np.float64(1), math.nan, Fraction(1, 2), torch.tensor(1.0)]
WRONG: list[dict[str, Any]] = [
    *({"steps": value} for value in [*NO_WHOLES, 0, 7, HUGE]),
    *({"seed": value} for value in [*NO_WHOLES, None, -1, HUGE, MAX_SEED + 1]),
    *({"max_shift": value} for value in [*NO_REALS, -1, -0.5]),
    *({"strength": value} for value in [*NO_REALS, None, -0.1, 1.1, math.inf]),
]
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
MASK = np.zeros((40, 50), bool)
MASK[10:30, 12:38] = True


@pytest.fixture(scope="module")
def tiny() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), name="tiny")


def test_the_steps_are_those_of_the_schedule() -> None:
    assert MAX_STEPS == NUM_TIMESTEPS


@pytest.mark.parametrize("options", WRONG, ids=lambda options: shown(options))
def test_wrong_options_are_refused_by_every_door(tiny: Refiner, tmp_path: Path, options: dict[str, Any]) -> None:
    labels = MASK.astype(np.uint8)
    doors = (
        lambda: tiny(PHOTO, MASK, **options),
        lambda: tiny.many([], **options),
        lambda: tiny.instances(PHOTO, [], **options),
        lambda: refine_labels(tiny, PHOTO, labels, **options),
        lambda: refine_video(tiny, [], **options),
        lambda: refine_large(tiny, tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png", **options),
        lambda: Options(**options),
    )
    for door in doors:
        with pytest.raises(InputError, match=next(iter(options))) as caught:
            door()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    if next(iter(options.values())) is not None:
        with pytest.raises(InputError, match=next(iter(options))):
            Client("http://127.0.0.1:9").refine(PHOTO, MASK, **options)


@pytest.mark.parametrize("value", [value for value in NO_REALS if not isinstance(value, complex)] + [math.inf])
def test_thresholds_and_smoothing_are_finite_numbers(tiny: Refiner, tmp_path: Path, value: Any) -> None:
    doors = (
        lambda: read_mask(MASK, threshold=value),
        lambda: tiny(PHOTO, MASK, threshold=value),
        lambda: folder_job(tmp_path, tmp_path, tmp_path, threshold=value),
        lambda: refine_video(tiny, [], smooth=value),
    )
    for door in doors:
        with pytest.raises(InputError, match=r"threshold|smooth") as caught:
            door()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [int, np.int64, np.uint8, np.array, torch.tensor])
def test_numbers_of_other_libraries_are_numbers(tiny: Refiner, make: Any) -> None:
    expected = tiny(PHOTO, MASK, seed=3, steps=2, max_shift=4, strength=1)
    given = tiny(PHOTO, MASK, seed=make(3), steps=make(2), max_shift=make(4), strength=make(1))
    np.testing.assert_array_equal(given.probability, expected.probability)
    assert type(given.report.seed) is int and type(given.report.steps) is int
    grey = np.array([[0, 40, 200]], np.uint8)
    np.testing.assert_array_equal(read_mask(grey, threshold=make(100)), [[False, False, True]])


def test_real_numbers_of_every_kind_are_taken() -> None:
    reals = (
        0.5,
        np.float16(0.5),
        np.float64(0.5),
        Fraction(1, 2),
        Decimal("0.5"),
        torch.tensor(0.5, dtype=torch.bfloat16),
    )
    for value in (*reals, torch.tensor(0.5, requires_grad=True)):
        assert real_number("x", value, 0, 1, expected="") == 0.5
        assert Options(0, None, value, value) == Options(0, None, 0.5, 0.5)
    assert whole_number("x", -5) == -5 and finite_number("x", -5) == -5
    assert Options(steps=np.int64(2)) == Options(steps=2)


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": True}, {"batch": 0}, {"batch": "x"}, {"batch": 2.0}])
def test_a_refiner_is_made_with_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Refiner(DenoisingUNet(TINY), **options)


def test_what_should_be_lists_is_refused_where_it_is_none(tiny: Refiner) -> None:
    with pytest.raises(InputError, match="masks are 5"):
        tiny.instances(PHOTO, 5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ignore is 255"):
        refine_labels(tiny, PHOTO, MASK.astype(np.uint8), ignore=255)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="pairs are 5"):
        list(tiny.many(5))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="pair 0 is"):
        list(tiny.many([PHOTO]))  # type: ignore[list-item]


@pytest.mark.parametrize("make", [list, np.array, torch.tensor, lambda rows: [torch.tensor(row) for row in rows]])
def test_boxes_may_be_arrays_of_any_kind(make: Any) -> None:
    rows = [[1.0, 2.5, 30.0, 20.0], [0.0, 0.0, 50.0, 40.0]]
    assert whole_boxes(make(rows), 2, (40, 50)) == [Box(1, 2, 30, 20), Box(0, 0, 50, 40)]


def test_boxes_may_be_tensors_with_gradients_of_any_float_type() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        boxes = torch.tensor([[1.0, 2.0, 30.0, 20.0]], dtype=dtype, requires_grad=True)
        assert whole_boxes(boxes, 1, (40, 50)) == whole_boxes(list(boxes), 1, (40, 50)) == [Box(1, 2, 30, 20)]


@pytest.mark.parametrize(
    "boxes", [5, "abcd", [5], [None], [[1, 2, 3]], [[0, 0, HUGE, 5]], [["a", 0, 1, 1]], [[0, 0, math.nan, 5]]]
)
def test_wrong_boxes_are_refused(boxes: Any) -> None:
    with pytest.raises(InputError, match="box"):
        whole_boxes(boxes, 1, (40, 50))


@pytest.mark.parametrize(
    "arguments",
    [
        ("refine", "a", "b", "-o", "c.png", "--strength", "nan"),
        ("refine", "a", "b", "-o", "c.png", "--max-shift", "nan"),
        ("refine", "a", "b", "-o", "c.png", "--max-shift", "inf"),
        ("refine", "a", "b", "-o", "c.png", "--threshold", "nan"),
        ("refine", "a", "b", "-o", "c.png", "--threshold", "1e999"),
        ("refine", "a", "b", "-o", "c.png", "--seed", str(HUGE)),
        ("refine", "a", "b", "-o", "c.png", "--steps", "true"),
        ("folder", "a", "b", "-o", "c", "--strength", "nan"),
        ("folder", "a", "b", "-o", "c", "--threshold", "-inf"),
        ("video", "a", "b", "-o", "c", "--smooth", "nan"),
        ("semantic", "a", "b", "-o", "c", "--seed", str(HUGE)),
        ("serve", "--max-megapixels", "inf"),
        ("evaluate", "folder", "a", "b", "--threshold", "nan"),
    ],
    ids=lambda arguments: " ".join(arguments)[:60],
)
def test_the_command_line_refuses_them_in_a_line(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 2 and "Invalid value" in result.stderr and "Traceback" not in result.stderr
