"""Grids of training examples: every pixel of every mask is shown, and errors are where they are."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from segrefiner.training.monitoring.examples import GridPicture, example_grid

BAND, GAP = 22, 6


def batch(count: int, side: int) -> dict[str, Tensor]:
    """Examples whose coarse mask and prediction are wrong in one pixel each, on either side."""
    fine = torch.zeros(count, 1, side, side)
    fine[..., side // 4 : side // 2] = 1
    coarse, probability = fine.clone(), fine.clone()
    coarse[..., 1, side - 1] = 1
    probability[..., 2, side // 4] = 0
    generator = torch.Generator().manual_seed(0)
    return {
        "image": 255 * torch.rand(count, 3, side, side, generator=generator),
        "coarse": coarse,
        "mixed": coarse,
        "probability": probability,
        "fine": fine,
        "timesteps": torch.arange(count),
    }


def panel(grid: GridPicture, row: int, column: int, side: int) -> GridPicture:
    """One panel, at one pixel per pixel of the patch."""
    times = max(1, 256 // side)
    shown = side * times
    top, left = 2 * BAND + row * (shown + BAND), column * (shown + GAP)
    return grid[top : top + shown : times, left : left + shown : times]


@pytest.mark.parametrize(("count", "side"), [(1, 32), (3, 128), (2, 256), (1, 300)])
def test_every_pixel_is_shown_and_errors_are_in_colour(count: int, side: int) -> None:
    given = batch(count, side)
    grid = example_grid(**given)
    shown = side * max(1, 256 // side)
    assert grid.dtype == np.uint8
    assert grid.shape == (BAND + count * (shown + BAND), 5 * shown + 4 * GAP, 3)
    for row in range(count):
        photo = given["image"][row].round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(panel(grid, row, 0, side), photo)
        colours = [panel(grid, row, column, side).astype(int) for column in range(1, 5)]
        tinted = [np.argwhere(np.ptp(part, axis=2) > 50).tolist() for part in colours]
        assert tinted == [[[1, side - 1]], [[1, side - 1]], [[2, side // 4]], []]
        red, blue = colours[0][1, side - 1], colours[2][2, side // 4]
        assert red.argmax() == 0 and blue.argmax() == 2
        # The truth is light where it is set and dark elsewhere.
        truth = given["fine"][row, 0].numpy() >= 0.5
        assert (colours[3][truth] > 200).all() and (colours[3][~truth] < 60).all()


def test_the_greys_of_the_prediction_are_its_probabilities() -> None:
    given = batch(1, 64)
    given["fine"][:] = 0
    given["probability"] = torch.linspace(0, 0.49, 64).expand(1, 1, 64, 64)
    greys = panel(example_grid(**given), 0, 3, 64)[0, :, 0].astype(int)
    assert (np.diff(greys) >= 0).all() and greys[-1] - greys[0] > 90


@pytest.mark.parametrize("change", [torch.Tensor.bool, torch.Tensor.half, torch.Tensor.double])
def test_masks_of_any_dtype_give_the_same_grid(change: Callable[[Tensor], Tensor]) -> None:
    given = batch(2, 32)
    other = given | {name: change(given[name]) for name in ("coarse", "mixed", "fine")}
    assert np.array_equal(example_grid(**given), example_grid(**other))


def test_values_that_are_no_numbers_or_beyond_do_not_break_a_run() -> None:
    given = batch(1, 32)
    given["probability"][..., :5, :] = torch.nan
    given["image"][0, 0, 0, 0], given["image"][0, 1, 0, 0] = 300, -20
    grid = example_grid(**{name: tensor.requires_grad_(tensor.is_floating_point()) for name, tensor in given.items()})
    assert panel(grid, 0, 0, 32)[0, 0, :2].tolist() == [255, 0]


@pytest.mark.parametrize("name", ["image", "coarse", "mixed", "probability", "fine", "timesteps"])
def test_other_shapes_are_refused(name: str) -> None:
    given = batch(2, 32)
    with pytest.raises(ValueError, match=f"{name}.*: expected "):
        example_grid(**given | {name: given[name][..., :1]})
    with pytest.raises(ValueError, match="at least 1"):
        example_grid(**{key: tensor[:0] for key, tensor in given.items()})
