"""Laws of boxes, tiles and resizing: what is cut can be pasted back, and tiles cover everything."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torch import Tensor

from segrefiner.imaging.boxes import (
    Box,
    fit_interval,
    mask_box,
    merge_overlapping,
    non_maximum_suppression,
    square_around,
)
from segrefiner.imaging.ops import box_mean, resize

QUICK = settings(max_examples=60)
SIDES = st.integers(1, 12)
INSIDE_OR_NOT = st.integers(-20, 20)


@st.composite
def boxes(draw: st.DrawFn, low: int = -20, high: int = 20, longest: int = 15) -> Box:
    x, y = draw(st.integers(low, high)), draw(st.integers(low, high))
    return Box(x, y, x + draw(st.integers(1, longest)), y + draw(st.integers(1, longest)))


@st.composite
def cuts(draw: st.DrawFn) -> tuple[Box, int, int]:
    """A box that shares a pixel with a picture, and the picture's height and width."""
    height, width = draw(SIDES), draw(SIDES)
    x0, y0 = draw(st.integers(-9, width - 1)), draw(st.integers(-9, height - 1))
    x1, y1 = draw(st.integers(max(0, x0) + 1, width + 9)), draw(st.integers(max(0, y0) + 1, height + 9))
    return Box(x0, y0, x1, y1), height, width


def covered(box: Box, height: int = 60, width: int = 60, origin: int = 25) -> np.ndarray:
    """The box's pixels on a sheet whose (origin, origin) is the picture's (0, 0)."""
    sheet = np.zeros((height, width), bool)
    sheet[box.y0 + origin : box.y1 + origin, box.x0 + origin : box.x1 + origin] = True
    return sheet


def picture(height: int, width: int, channels: int = 2) -> Tensor:
    return torch.arange(1, channels * height * width + 1).reshape(channels, height, width).float()


@QUICK
@given(cuts())
def test_a_crop_is_the_padded_picture_s_window(cut: tuple[Box, int, int]) -> None:
    box, height, width = cut
    given_picture = picture(height, width)
    crop = box.crop(given_picture, (-1.0, -2.0))
    assert crop.shape == (2, box.height, box.width)
    for channel, fill in enumerate((-1.0, -2.0)):
        sheet = np.pad(given_picture[channel].numpy(), 60, constant_values=fill)
        np.testing.assert_array_equal(crop[channel], sheet[60 + box.y0 : 60 + box.y1, 60 + box.x0 : 60 + box.x1])


@QUICK
@given(cuts())
def test_what_was_cut_pastes_back(cut: tuple[Box, int, int]) -> None:
    box, height, width = cut
    before = picture(height, width)
    after = before.clone()
    box.paste(box.crop(before, 7.0), after)
    assert torch.equal(after, before)
    # And the other way round: a pasted patch is cut again, up to what lay beyond the picture.
    patch = -picture(box.height, box.width)
    box.paste(patch, after)
    again = box.crop(after, 7.0)
    assert ((again == patch) | (again == 7.0)).all()
    outside = ~covered(box)[25 : 25 + height, 25 : 25 + width]
    np.testing.assert_array_equal(after.numpy()[:, outside], before.numpy()[:, outside])


@pytest.mark.parametrize("corner", [(0, -9), (0, -4), (0, 5), (0, 9), (-9, 0), (5, 0), (-4, -4), (9, 9)])
def test_a_box_beyond_the_picture_cuts_nothing_and_pastes_nothing(corner: tuple[int, int]) -> None:
    x, y = corner
    box, before = Box(x, y, x + 4, y + 3), picture(5, 5)
    assert torch.equal(box.crop(before, 7.0), torch.full((2, 3, 4), 7.0))
    after = before.clone()
    box.paste(torch.zeros(2, 3, 4), after)
    assert torch.equal(after, before)
    inner = box.clip(5, 5)
    assert inner.width * inner.height == 0 and min(inner.width, inner.height) >= 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32])
def test_a_crop_keeps_the_dtype(dtype: torch.dtype) -> None:
    for box in (Box(0, 0, 2, 2), Box(-1, -1, 5, 5)):
        assert box.crop(torch.ones(1, 4, 4).to(dtype)).dtype == dtype


@QUICK
@given(a=boxes(), b=boxes())
def test_boxes_agree_with_their_pixels(a: Box, b: Box) -> None:
    assert a.overlaps(b) == b.overlaps(a) == bool((covered(a) & covered(b)).any())
    if a.overlaps(b):
        assert np.array_equal(covered(a.shared(b)), covered(a) & covered(b))
    rows, columns = np.nonzero(covered(a) | covered(b))
    around = Box(columns.min() - 25, rows.min() - 25, columns.max() - 24, rows.max() - 24)
    assert a.union(b) == b.union(a) == around
    assert covered(a).sum() == a.width * a.height
    assert a.longest == max(a.width, a.height)


@QUICK
@given(box=boxes(0, 15), margin=st.integers(0, 5))
def test_growing_reaches_exactly_that_far(box: Box, margin: int) -> None:
    rows, columns = np.mgrid[:60, :60] - 25
    near = (rows >= box.y0 - margin) & (rows < box.y1 + margin) & (columns >= box.x0 - margin)
    near &= columns < box.x1 + margin
    np.testing.assert_array_equal(covered(box.grow(margin)), near)


@QUICK
@given(mask=arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_mask_box_is_the_tightest(mask: np.ndarray) -> None:
    box = mask_box(torch.from_numpy(mask))
    if not mask.any():
        assert box is None
        return
    rows, columns = np.nonzero(mask)
    assert box == Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@QUICK
@given(start=INSIDE_OR_NOT, length=st.integers(1, 30), limit=st.integers(1, 30))
def test_an_interval_moves_inside_no_farther_than_needed(start: int, length: int, limit: int) -> None:
    fitted = fit_interval(start, length, limit)
    if length <= limit:
        inside = range(limit - length + 1)
        assert fitted in inside
        assert abs(fitted - start) == min(abs(s - start) for s in inside)
    else:
        before, after = -fitted, fitted + length - limit
        assert min(before, after) >= 0 and abs(before - after) <= 1


@QUICK
@given(box=boxes(0, 20), side=st.integers(1, 45), height=st.integers(1, 40), width=st.integers(1, 40))
def test_the_square_around_a_box_holds_it_where_it_can(box: Box, side: int, height: int, width: int) -> None:
    box = box.clip(height, width)
    assume(box.width > 0 and box.height > 0)
    square = square_around(box, side, height, width)
    assert (square.width, square.height) == (side, side)
    for low, high, start, stop, limit in (
        (box.x0, box.x1, square.x0, square.x1, width),
        (box.y0, box.y1, square.y0, square.y1, height),
    ):
        if side >= high - low:
            assert start <= low and high <= stop
        if side <= limit:
            assert start >= 0 and stop <= limit
        else:
            assert start <= 0 and limit <= stop
        if side <= limit and low >= side and high <= limit - side:  # far from the picture's ends: centred
            assert abs((start + stop) - (low + high)) <= 1


@QUICK
@given(st.lists(boxes(), max_size=8))
def test_merged_boxes_are_disjoint_and_cover_every_box(given_boxes: list[Box]) -> None:
    merged = merge_overlapping(given_boxes)
    for i, box in enumerate(merged):
        assert not any(box.overlaps(other) for other in merged[:i])
    for box in given_boxes:
        assert sum(covered(m)[covered(box)].all() for m in merged) == 1
    assert merge_overlapping(merged) == merged
    assert merged == sorted(merged, key=lambda b: (b.y0, b.x0))
    if not any(a.overlaps(b) for i, a in enumerate(given_boxes) for b in given_boxes[:i]):
        assert sorted(merged, key=repr) == sorted(given_boxes, key=repr)


@QUICK
@given(
    sides=st.tuples(*[st.integers(1, 40)] * 4),
    value=st.floats(0, 1, width=32),
)
def test_a_constant_stays_constant_at_every_size(sides: tuple[int, int, int, int], value: float) -> None:
    height, width, new_height, new_width = sides
    result = resize(torch.full((2, height, width), value), new_height, new_width)
    assert result.shape == (2, new_height, new_width)
    np.testing.assert_allclose(result, value, rtol=1e-6, atol=1e-7)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    given_picture = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize(given_picture, 9, 11), given_picture)


@pytest.mark.parametrize("size", [(13, 9), (60, 70), (10, 80), (1, 1)])
def test_resizing_agrees_with_pillow(size: tuple[int, int]) -> None:
    given_picture = np.random.default_rng(0).random((31, 37), dtype=np.float32)
    expected = np.asarray(Image.fromarray(given_picture).resize(size[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_allclose(resize(torch.from_numpy(given_picture)[None], *size)[0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [(13, 9), (60, 70), (10, 80), (1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("last", [False, True], ids=["CHW", "HWC"])
def test_resizing_bytes_is_resizing_their_values_but_for_rounding(last: bool, size: tuple[int, int]) -> None:
    shape = (31, 37, 3) if last else (3, 31, 37)
    given_picture = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    given_picture = given_picture.permute(2, 0, 1) if last else given_picture
    result = resize(given_picture, *size)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, resize(given_picture.float(), *size), atol=1.01)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


@QUICK
@given(
    count=st.integers(0, 25),
    seed=st.integers(0, 1000),
    threshold=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    ties=st.booleans(),
)
def test_suppression_agrees_with_the_naive_one(count: int, seed: int, threshold: float, ties: bool) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 20, (count, 2))
    given_boxes = np.concatenate([corners, corners + random.integers(1, 15, (count, 2))], axis=1).astype(np.float32)
    scores = random.integers(0, 4, count).astype(np.float32) if ties else random.random(count, dtype=np.float32)
    naive: list[int] = []
    for i in sorted(range(count), key=lambda i: (-scores[i], i)):
        if all(np.float32(iou(given_boxes[i], given_boxes[k])) <= np.float32(threshold) for k in naive):
            naive.append(i)
    kept = non_maximum_suppression(torch.from_numpy(given_boxes), torch.from_numpy(scores), threshold)
    assert kept.tolist() == naive


@pytest.mark.parametrize("radius", [0, 1, 3])
@pytest.mark.parametrize("shape", [(7, 7), (8, 15), (12, 7)], ids=str)
def test_box_means_are_means_over_squares(radius: int, shape: tuple[int, int]) -> None:
    planes = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    side = 2 * radius + 1
    windows = np.lib.stride_tricks.sliding_window_view(planes.numpy(), (side, side), axis=(2, 3))
    np.testing.assert_allclose(box_mean(planes, radius).numpy(), windows.mean(axis=(-2, -1)), atol=1e-12)
