"""COCO's encodings and polygons: round trips, the reference tools as oracle, and everything malformed refused."""

import math
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core import mask as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from segrefiner.errors import MaskError
from segrefiner.rle import decode_rle, draw_polygons, encode_rle

QUICK = settings(max_examples=80, deadline=None, derandomize=True, database=None)
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def random_mask(size: tuple[int, int], seed: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random(size) < share


@QUICK
@given(SIZES, st.integers(0, 999), st.sampled_from([0, 0.02, 0.5, 0.98, 1]))
def test_masks_come_back_and_strings_are_the_oracle_s(size: tuple[int, int], seed: int, share: float) -> None:
    mask = random_mask(size, seed, share)
    packed, listed = encode_rle(mask), encode_rle(mask, compressed=False)
    np.testing.assert_array_equal(decode_rle(packed, size), mask)
    np.testing.assert_array_equal(decode_rle(listed, size), mask)
    expected = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert packed["counts"] == (expected.decode() if isinstance(expected, bytes) else expected)
    assert sum(listed["counts"]) == mask.size and packed["size"] == list(size)


def test_long_runs_come_back() -> None:
    mask = np.zeros((3000, 2000), bool)
    mask[1, 1], mask[-1, -1] = True, True
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), mask.shape), mask)


@QUICK
@given(SIZES, st.integers(0, 9999), st.integers(3, 9), st.sampled_from([0, 0.5, None]))
def test_polygons_are_drawn_as_the_oracle_draws_them(
    size: tuple[int, int], seed: int, corners: int, grid: float | None
) -> None:
    random = np.random.default_rng(seed)
    height, width = size
    points = random.random((2, corners, 2)) * [1.6 * width, 1.6 * height] - [0.3 * width, 0.3 * height]
    if grid is not None:
        points = np.round(points) + grid
    points = points.clip([-width, -height], [2 * width, 2 * height])
    polygons = [polygon.ravel().tolist() for polygon in points]
    drawn = oracle.decode(oracle.frPyObjects(polygons, height, width)).astype(bool)
    np.testing.assert_array_equal(draw_polygons(polygons, size), drawn.any(axis=2))


def test_a_polygon_without_area_is_empty() -> None:
    assert not draw_polygons([[1, 1, 5, 5, 3, 3]], (8, 8)).any()


@pytest.mark.parametrize(
    "counts",
    [[1, 2], [-1, 13], [12.0], ["12"], [True] * 12, [2**50], [], "", "\n", "é", "o", "0" * 3, 12, None, [[12]]],
)
def test_malformed_counts_are_refused(counts: Any) -> None:
    with pytest.raises(MaskError):
        decode_rle({"size": [3, 4], "counts": counts}, (3, 4))


@pytest.mark.parametrize("rle", [None, [], "12", {"counts": [12]}, {"size": [4, 3], "counts": [12]}, {"size": 12}])
def test_what_is_no_encoding_of_this_size_is_refused(rle: Any) -> None:
    with pytest.raises(MaskError):
        decode_rle(rle, (3, 4))


@pytest.mark.parametrize(
    "polygons",
    [
        [], None, "x", [[]], [[1, 1, 2, 2]], [[1, 1, 2, 2, 3]], [[1, 1, 2, 2, 3, math.nan]],
        [[1, 1, 2, 2, 3, math.inf]], [[1, 1, 2, 2, 3, "3"]], [[1, 1, 2, 2, 3, 1e9]], [1, 1, 2, 2, 3, 3], [None],
    ],
)  # fmt: skip
def test_malformed_polygons_are_refused(polygons: Any) -> None:
    with pytest.raises(MaskError):
        draw_polygons(polygons, (10, 10))
