"""Laws of the published crops: they hold the object, have the asked size, and masks move with their photo."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segrefiner.data.published_crops import Crop, mirrored, patch, published_object_view, resized

QUICK = settings(max_examples=60)


def photo(height: int, width: int, box: tuple[int, int, int, int]) -> Crop:
    """A photo whose pixels tell their place, with a rectangle for its object."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows % 256, columns % 256, rows // 256 * 16 + columns // 256], axis=-1).astype(np.uint8)
    mask = np.zeros((height, width), bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    return Crop(image, mask, ~mask)


def place(crop: Crop) -> tuple[int, int]:
    """Where a crop's first pixel lies in its photo."""
    r, c, high = (int(v) for v in crop.image[0, 0])
    return high // 16 * 256 + r, high % 16 * 256 + c


@QUICK
@given(data=st.data(), height=st.integers(1, 500), width=st.integers(1, 500), size=st.integers(1, 300))
def test_the_object_view_is_a_square_that_holds_the_object(
    data: st.DataObject, height: int, width: int, size: int
) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    whole = photo(height, width, (top, left, bottom, right))
    view = published_object_view(whole, size, 20, np.random.default_rng(data.draw(st.integers(0, 9))))
    assert view.mask.sum() == whole.mask.sum()
    extent = max(bottom - top, right - left)
    side = size if extent <= size else extent + 20
    expected = (side, side) if min(height, width) >= side else (height, width)
    assert view.mask.shape == view.image.shape[:2] == expected
    y, x = place(view)
    np.testing.assert_array_equal(view.mask, whole.mask[y : y + expected[0], x : x + expected[1]])
    assert view.coarse is not None
    np.testing.assert_array_equal(view.coarse, ~view.mask)


def test_every_place_that_holds_the_object_is_taken() -> None:
    whole = photo(40, 60, (10, 20, 14, 24))
    random = np.random.default_rng(0)
    places = {place(published_object_view(whole, 16, 20, random)) for _ in range(4000)}
    assert places == {(y, x) for y in range(0, 11) for x in range(8, 21)}


@QUICK
@given(data=st.data(), height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(1, 200))
def test_a_patch_shows_some_of_the_object(data: st.DataObject, height: int, width: int, size: int) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    view = photo(height, width, (top, left, top + 1, left + 1))  # a pixel, as hard to hit as can be
    part = patch(view, size, np.random.default_rng(data.draw(st.integers(0, 9))))
    assert part.mask.any() and part.coarse is None
    side = size if min(height, width) >= size else max(1, min(height, width) // 2)
    assert part.mask.shape == part.image.shape[:2] == (side, side)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("shape", [(64, 64), (30, 90), (200, 150), (1, 1)])
def test_crops_are_brought_to_the_patch_size(shape: tuple[int, int], antialias: bool) -> None:
    height, width = shape
    crop = photo(height, width, (0, 0, height, max(1, width // 2)))
    out = resized(crop, 64, antialias=antialias)
    assert out.image.shape == (64, 64, 3) and out.image.dtype == np.uint8
    assert out.mask.shape == (64, 64) and out.mask.dtype == bool and out.coarse is not None
    if width > 1:
        # Half of the width stays half of it, within a pixel.
        assert abs(out.mask.mean() - 0.5) <= 1 / 64 + 1 / width
        assert (out.mask[:, :31].all() or width < 4) and not out.mask[:, 33 + 64 // width :].any()
    if shape == (64, 64):
        np.testing.assert_array_equal(out.image, crop.image)


def test_mirroring_twice_changes_nothing() -> None:
    crop = photo(20, 30, (3, 4, 9, 12))
    twice = mirrored(mirrored(crop))
    np.testing.assert_array_equal(twice.image, crop.image)
    np.testing.assert_array_equal(twice.mask, crop.mask)
    once = mirrored(crop)
    assert once.mask[3:9, 30 - 12 : 30 - 4].all() and once.mask.sum() == crop.mask.sum()
