"""Laws of the before-and-after picture: it can be made of anything, and the contours are in it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segrefiner.rendering.overlay import COARSE_COLOUR, PANEL, REFINED_COLOUR, overlay

QUICK = settings(max_examples=15)


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8)


def filled(height: int, width: int, y: slice, x: slice) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[y, x] = True
    return mask


def columns(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a colour is seen, from left to right."""
    return np.flatnonzero((picture == colour).all(axis=-1).any(axis=0))


@pytest.mark.parametrize("shape", [(90, 90), (90, 300), (300, 90), (700, 900)], ids=str)
def test_both_contours_are_seen_each_in_its_panel(shape: tuple[int, int]) -> None:
    coarse = filled(*shape, slice(20, 60), slice(20, 60))
    refined = filled(*shape, slice(20, 70), slice(20, 60))
    given_photo = photo(*shape)
    before = given_photo.copy()
    picture = overlay(given_photo, coarse, refined)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert picture.shape[0] > PANEL
    first_row = picture[: overlay(given_photo, refined, refined).shape[0]]
    red, green = columns(first_row, COARSE_COLOUR), columns(first_row, REFINED_COLOUR)
    assert len(red) and len(green)
    # Photo, coarse mask, refined mask, from left to right.
    assert picture.shape[1] * 0.25 < red.min() <= red.max() < green.min()
    np.testing.assert_array_equal(given_photo, before)


def test_an_unchanged_mask_needs_no_second_row() -> None:
    coarse = filled(80, 80, slice(20, 60), slice(20, 60))
    refined = filled(80, 80, slice(20, 60), slice(20, 61))
    same, changed = overlay(photo(80, 80), coarse, coarse), overlay(photo(80, 80), coarse, refined)
    assert changed.shape[0] > 1.5 * same.shape[0]


def test_the_second_row_shows_where_most_changed() -> None:
    given_photo = np.zeros((300, 300, 3), np.uint8)
    given_photo[250:290, 250:290] = (0, 0, 255)  # seen in the detail only where most changed
    coarse = filled(300, 300, slice(0, 300), slice(0, 300))
    refined = coarse.copy()
    refined[250:290, 250:290] = False
    refined[10:13, 10:13] = False
    picture = overlay(given_photo, coarse, refined)
    half, third = picture.shape[0] // 2, picture.shape[1] // 3
    blue = (picture[:, :third] == (0, 0, 255)).all(axis=-1)
    assert blue[half:].sum() > 4 * blue[:half].sum()


@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (40, 30), (3, 2000)], ids=str)
def test_empty_and_full_masks_are_drawn(shape: tuple[int, int], coarse: bool, refined: bool) -> None:
    picture = overlay(photo(*shape), np.full(shape, coarse), np.full(shape, refined))
    assert picture.dtype == np.uint8 and picture.shape[2] == 3


@QUICK
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    corner=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
    share=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
)
def test_masks_of_every_shape_are_drawn(
    height: int, width: int, corner: tuple[float, float], share: tuple[float, float]
) -> None:
    y, x = int(corner[0] * height), int(corner[1] * width)
    y1, x1 = y + 1 + int(share[0] * (height - y)), x + 1 + int(share[1] * (width - x))
    coarse = filled(height, width, slice(y, y1), slice(x, x1))
    refined = filled(height, width, slice(y, max(y + 1, y1 - 3)), slice(x, x1))
    assert overlay(photo(height, width), coarse, refined).shape[2] == 3
