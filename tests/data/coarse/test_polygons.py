"""Laws of drawn polygons: near the contour, of few vertices, reproducible."""

import numpy as np
import pytest

from segrefiner.data.coarse.polygons import TOLERANCE, polygon_coarse
from segrefiner.imaging.shapes.distances import signed_distance

ROWS, COLUMNS = np.mgrid[:120, :140]
RING = (np.hypot(ROWS - 60, COLUMNS - 70) < 45) & (np.hypot(ROWS - 60, COLUMNS - 70) > 20)


@pytest.mark.parametrize("seed", range(12))
def test_no_vertex_is_far_off(seed: int) -> None:
    drawn = polygon_coarse(RING, np.random.default_rng(seed))
    wrong = drawn != RING
    # A polygon passes within its tolerance, and each of its vertices is off by a normal error of a third of that.
    assert np.abs(signed_distance(RING)[wrong]).max() < 2.5 * TOLERANCE[1]
    assert (drawn & RING).sum() > 0.6 * (drawn | RING).sum()
    assert not drawn[60, 70]  # the hole is drawn, too


def test_the_same_draws_give_the_same_polygon() -> None:
    first, again, other = (polygon_coarse(RING, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize(
    "mask", [np.zeros((9, 9), bool), np.ones((9, 9), bool), np.eye(9, dtype=bool) & (ROWS[:9, :9] == 4)]
)
def test_masks_without_a_contour_to_draw_stay(mask: np.ndarray) -> None:
    drawn = polygon_coarse(mask, np.random.default_rng(0))
    assert (drawn == mask).all() and drawn is not mask
