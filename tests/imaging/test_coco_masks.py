"""COCO's encodings and polygons: round trips, the reference tools as oracle, and everything malformed refused."""

import math
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core import mask as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from segrefiner.errors import MaskError
from segrefiner.imaging import coco_masks
from segrefiner.imaging.coco_masks import decode_rle, draw_polygons, encode_rle

QUICK = settings(max_examples=80)
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


@pytest.mark.parametrize("seed", range(6))
def test_long_runs_are_the_oracle_s(seed: int) -> None:
    """Of one character up to five, growing and shrinking, so that differences have both signs."""
    random = np.random.default_rng(seed)
    columns = np.repeat(np.arange(300) % 2 == seed % 2, (2 ** random.uniform(0, 19, 300)).astype(int))[:2_000_000]
    mask = np.pad(columns, (0, 2_000_000 - columns.size)).reshape(1000, 2000).T
    expected = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_rle(mask)["counts"].encode() == expected["counts"]
    for encoding in (encode_rle(mask), encode_rle(mask, compressed=False), expected | {"size": [2000, 1000]}):
        np.testing.assert_array_equal(decode_rle(encoding, mask.shape), mask)


@pytest.mark.parametrize("counts", [[0, 0, 12], [0, 5, 0, 0, 0, 7], [4, 0, 0, 8, 0]])
def test_runs_of_no_pixels_are_allowed(counts: list[int]) -> None:
    expected = oracle.decode(oracle.frPyObjects({"size": [3, 4], "counts": counts}, 3, 4)).astype(bool)
    np.testing.assert_array_equal(decode_rle({"size": [3, 4], "counts": counts}, (3, 4)), expected)


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


@QUICK
@given(st.data(), SIZES, st.sampled_from([1, 2, 5, 10]))
def test_corners_in_line_on_each_other_and_on_the_edge(data: st.DataObject, size: tuple[int, int], parts: int) -> None:
    """Few places for many corners, in whole, half, fifth and tenth pixels: sides overlap, turn back and vanish."""
    height, width = size
    x = st.sampled_from([-width, -1, 0, 1, width // 2, width - 1, width, width + 1, 2 * width])
    y = st.sampled_from([-height, -1, 0, 1, height // 2, height - 1, height, height + 1, 2 * height])
    shift = st.integers(0, parts - 1)

    def place(side: int, values: st.SearchStrategy[int]) -> st.SearchStrategy[float]:
        return st.builds(lambda value, part: min(value + part / parts, 2.0 * side), values, shift)

    corner = st.tuples(place(width, x), place(height, y))
    polygon = st.lists(corner, min_size=3, max_size=8).map(
        lambda corners: [value for pair in corners for value in pair]
    )
    polygons = data.draw(st.lists(polygon, min_size=1, max_size=3))
    drawn = oracle.decode(oracle.frPyObjects(polygons, height, width)).astype(bool)
    np.testing.assert_array_equal(draw_polygons(polygons, size), drawn.any(axis=2))


@QUICK
@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))
def test_a_rectangle_of_whole_pixels_is_those_pixels(x: int, y: int, width: int, height: int) -> None:
    mask = draw_polygons([[x, y, x + width, y, x + width, y + height, x, y + height]], (40, 40))
    rows, columns = np.indices((40, 40))
    expected = (x <= columns) & (columns < x + width) & (y <= rows) & (rows < y + height)
    np.testing.assert_array_equal(mask, expected)


def test_a_polygon_without_area_is_empty() -> None:
    for polygon in (
        [1, 1, 5, 5, 3, 3],
        [2, 2, 2, 2, 2, 2],
        [1, 3, 6, 3, 4, 3],
        [4, 0, 4, 8, 4, 2],
        [-8, -8, -1, -8, -1, -1],
    ):
        assert not draw_polygons([polygon], (8, 8)).any()


@pytest.mark.parametrize(
    "counts",
    [
        [1, 2], [13], [11], [-1, 13], [13, -1], [12.5], ["12"], [True] * 12, [2**50], [2**40, -(2**40), 12], [None], [],
        [math.nan], [math.inf], (12,), {"0": 12}, "", "\n", "é", "\ud800", "o", "ooooooo0", "l", "=0", "0" * 3,
        b"\xff", b"", 12, None, True, [[12]],
    ],
)  # fmt: skip
def test_malformed_counts_are_refused(counts: Any) -> None:
    with pytest.raises(MaskError):
        decode_rle({"size": [3, 4], "counts": counts}, (3, 4))


@pytest.mark.parametrize(
    "rle",
    [
        None, [], "12", 12, {}, {"counts": [12]}, {"size": [3, 4]}, {"size": 12, "counts": [12]},
        *({"size": size, "counts": [12]} for size in ([4, 3], [3, 4, 1], [3], [], "34", None, [3.0, 4.0], ["3", "4"],
                                                     [3, math.nan], [-3, -4], [12, True], {"3": 4})),
    ],
)  # fmt: skip
def test_what_is_no_encoding_of_this_size_is_refused(rle: Any) -> None:
    with pytest.raises(MaskError):
        decode_rle(coco_masks, (3, 4))


@pytest.mark.parametrize(
    "polygons",
    [
        [], None, "x", 5, {}, ([1, 1, 2, 2, 3, 3],), [[]], [[1, 1, 2, 2]], [[1, 1, 2, 2, 3]],
        [[1, 1, 2, 2, 3, 3], [1, 1]], [[1, 1, 2, 2, 3, math.nan]], [[math.nan] * 6], [[1, 1, 2, 2, 3, math.inf]],
        [[1, 1, 2, 2, -math.inf, 3]], [[1, 1, 2, 2, 3, "3"]], [[1, 1, 2, 2, 3, None]], [[1, 1, 2, 2, 3, True]],
        [[1, 1, 2, 2, 3, 1e9]], [[1, 1, 2, 2, 3, -1e300]], [[1, 1, 2, 2, 3, 10**400]], [[1, 1, 2, 2, 20.5, 3]],
        [[1, 1, 2, 2, 3, -10.5]], [1, 1, 2, 2, 3, 3], [[[1, 1], [2, 2], [3, 3]]], [None], ["111111"], [{}],
    ],
)  # fmt: skip
def test_malformed_polygons_are_refused(polygons: Any) -> None:
    with pytest.raises(MaskError):
        draw_polygons(polygons, (10, 10))


def zigzag(corners: int, side: int, reach: float = 1.0) -> list[float]:
    """A polygon that crosses the picture from one side to the other with each of its corners."""
    x = np.tile([0, side * reach], corners // 2)
    return np.stack([x, np.linspace(0, side, len(x))], axis=1).ravel().tolist()


@pytest.mark.parametrize("count", [1, 300])
def test_outlines_that_no_mask_has_are_refused_before_they_are_drawn(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_masks, "_turns", lambda *_: pytest.fail("drawn"))
    with pytest.raises(MaskError, match=r"outlines of the first \d+ polygons .* simplify"):
        draw_polygons([zigzag(60_000 // count, 1000)] * count, (1000, 1000))


def test_outlines_as_long_as_a_picture_s_pixels_are_drawn() -> None:
    drawn = draw_polygons([zigzag(100, 100)] * 10, (100, 100))
    assert drawn.any() and not drawn.all()


@settings(QUICK, max_examples=100)
@given(st.lists(st.tuples(st.integers(-40, 80), st.integers(-40, 80)), min_size=3, max_size=9), st.integers(1, 50))
def test_outlines_may_be_drawn_in_any_pieces(corners: list[tuple[int, int]], points: int) -> None:
    polygon = [float(value) for corner in corners for value in corner]
    whole = draw_polygons([polygon], (40, 40))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_masks, "_POINTS", points)
        np.testing.assert_array_equal(draw_polygons([polygon], (40, 40)), whole)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.integers(0, 12),
    lambda inner: (
        st.lists(inner, max_size=7) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(QUICK, max_examples=300)
@given(JSON, JSON)
def test_whatever_stands_in_a_file_is_a_mask_or_refused(value: Any, counts: Any) -> None:
    for read, given_value in (
        (decode_rle, value),
        (decode_rle, {"size": [3, 4], "counts": value}),
        (draw_polygons, value),
        (draw_polygons, [value, counts]),
    ):
        try:
            mask = read(given_value, (3, 4))
        except MaskError as error:
            assert "\n" not in str(error) and len(str(error)) < 200
        else:
            assert mask.shape == (3, 4) and mask.dtype == bool


@settings(QUICK, max_examples=200)
@given(st.data(), SIZES, st.integers(0, 99))
def test_a_damaged_string_is_a_mask_of_the_size_or_refused(
    data: st.DataObject, size: tuple[int, int], seed: int
) -> None:
    text = list(encode_rle(random_mask(size, seed, 0.5))["counts"])
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = chr(data.draw(st.integers(40, 120)))
    cut = "".join(text[: data.draw(st.integers(0, len(text)))])
    for counts in (cut, cut.encode()):
        try:
            assert decode_rle({"size": list(size), "counts": counts}, size).shape == size
        except MaskError as error:
            assert "\n" not in str(error)
