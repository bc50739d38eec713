"""Metrics against laws, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers.evaluation.masks import PAIRS, QUICK, Array, Mask, Score, disk, pixels, soften
from segrefiner.errors import InputError, MaskError, SizeMismatchError
from segrefiner.evaluation import dis_metrics, metrics
from segrefiner.imaging.shapes import contours

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


BINARY: list[Score] = [
    metrics.iou,
    metrics.dice,
    metrics.boundary_iou,
    metrics.boundary_f,
    metrics.hausdorff95,
]
SOFT: list[Score] = [
    dis_metrics.max_f,
    dis_metrics.weighted_f,
    dis_metrics.mae,
    dis_metrics.s_measure,
    dis_metrics.e_measure,
]
BEST = {metrics.hausdorff95: 0.0, dis_metrics.mae: 0.0, dis_metrics.hce: 0}


def same(value: float, other: float) -> bool:
    return value == pytest.approx(other, rel=1e-9, abs=1e-9, nan_ok=True)


@QUICK
@given(PAIRS)
def test_symmetry(pair: tuple[Mask, Mask]) -> None:
    pred, truth = pair
    for score in BINARY:
        assert same(score(pred, truth), score(truth, pred))


@QUICK
@given(PAIRS)
def test_flips_and_transposes(pair: tuple[Mask, Mask]) -> None:
    turned: dict[str, list[Array]] = {
        "transpose": [mask.T for mask in pair],
        "flip": [mask[::-1] for mask in pair],
        "mirror": [mask[:, ::-1] for mask in pair],
    }
    for score in (metrics.iou, metrics.dice, metrics.boundary_iou, metrics.hausdorff95, dis_metrics.mae):
        assert all(same(score(*pair), score(*other)) for other in turned.values())
    # OpenCV's ellipse is mirrored in both axes but not in the diagonal, except for the cross.
    for radius in (1, 2, 3):
        expected = metrics.boundary_accuracy(*pair, radius)
        for turn in ("flip", "mirror") if radius > 1 else turned:
            assert same(metrics.boundary_accuracy(*turned[turn], radius), expected)
    # DAVIS's contours lie half a pixel towards the origin: the diagonal alone leaves them in place.
    for score in (metrics.boundary_f, dis_metrics.max_f, dis_metrics.e_measure, dis_metrics.s_measure):
        assert same(score(*pair), score(*turned["transpose"]))


@QUICK
@given(PAIRS)
def test_complement(pair: tuple[Mask, Mask]) -> None:
    pred, truth = pair
    for score in (metrics.mba, metrics.boundary_f, dis_metrics.mae):
        assert same(score(pred, truth), score(~pred, ~truth))
    assert metrics.iou_counts(~pred, ~truth)[0] == truth.size - metrics.iou_counts(pred, truth)[1]
    both = metrics.mba(pred, truth) + metrics.mba(~pred, truth)
    assert math.isnan(both) or both == pytest.approx(1)


@QUICK
@given(MASKS)
def test_identity_is_best(mask: Mask) -> None:
    for score in [*BINARY, dis_metrics.hce, *SOFT[:-2]]:
        assert same(score(mask, mask), BEST.get(score, 1.0))
    assert dis_metrics.e_curve(mask, mask)[1:] == pytest.approx(mask.size / max(1, mask.size - 1))
    assert dis_metrics.s_measure(mask, mask) == pytest.approx(1)
    assert math.isnan(metrics.mba(mask, mask)) == (mask.all() or not mask.any())
    assert mask.all() or not mask.any() or metrics.mba(mask, mask) == 1


@QUICK
@given(PAIRS)
def test_ranges(pair: tuple[Mask, Mask]) -> None:
    for score in [*BINARY[:-1], *SOFT[:-1]]:
        assert 0 <= score(*pair) <= 1 + 1e-12
    assert metrics.hausdorff95(*pair) >= 0
    assert dis_metrics.hce(*pair) >= 0


@QUICK
@given(PAIRS)
def test_one_more_right_pixel_is_better(pair: tuple[Mask, Mask]) -> None:
    pred, truth = pair
    for wrong in np.argwhere(pred != truth):
        mended = pred.copy()
        mended[tuple(wrong)] ^= True
        assert metrics.iou(mended, truth) >= metrics.iou(pred, truth)
        assert dis_metrics.mae(mended, truth) < dis_metrics.mae(pred, truth)
        assert not metrics.mba(mended, truth) < metrics.mba(pred, truth)


def test_drifting_away_is_worse() -> None:
    truth = disk(120, 200, 60, 60, 40)
    for score in (metrics.iou, metrics.mba, metrics.boundary_iou, metrics.boundary_f, *SOFT):
        scores = [score(disk(120, 200, 60, 60 + shift, 40), truth) for shift in (0, 4, 8, 16, 32)]
        sign = 1 if score is dis_metrics.mae else -1
        assert scores == sorted(scores, key=lambda value: sign * value), score


def test_mba_is_the_mean_over_its_radii() -> None:
    pred, truth = disk(400, 1700, 210, 800, 150), disk(400, 1700, 200, 800, 160)
    expected = np.mean([metrics.boundary_accuracy(pred, truth, radius) for radius in (1, 2, 3, 4, 5)])
    assert metrics.mba(pred, truth) == pytest.approx(expected)
    small = metrics.mba(pred[100:300, 600:690], truth[100:300, 600:690])
    assert small == pytest.approx(metrics.boundary_accuracy(pred[100:300, 600:690], truth[100:300, 600:690], 1))


def test_hausdorff_of_one_moved_pixel() -> None:
    pred, truth = np.zeros((2, 9, 9), np.bool_)
    pred[1, 2], truth[4, 6] = True, True
    assert metrics.hausdorff95(pred, truth) == 5


def test_empty_masks() -> None:
    none, some, full = np.zeros((6, 8), np.bool_), np.eye(6, 8, dtype=np.bool_), np.ones((6, 8), np.bool_)
    for pred, truth in [(none, some), (some, none)]:
        assert [score(pred, truth) for score in BINARY] == [0, 0, 0, 0, math.inf]
    assert metrics.boundary_f(full, none) == 1  # neither has a contour
    assert metrics.boundary_iou(full, none) == 0
    for truth in (none, full):
        assert math.isnan(metrics.mba(some, truth))
        assert math.isnan(metrics.mba(truth, truth))
    assert [score(some, none) for score in SOFT[:2]] == [0, 0]
    assert dis_metrics.s_measure(some, none) == pytest.approx(1 - some.mean())


def test_clicks() -> None:
    truth = np.zeros((200, 300), np.bool_)
    truth[40:160, 40:140] = True
    free, hole, thick, square = truth.copy(), truth.copy(), truth.copy(), truth.copy()
    free[80:120, 200:240] = True
    hole[80:110, 70:100] = False
    thick[38:162, 38:142] = True
    square[40:160, 140:180] = True
    assert dis_metrics.hce(free, truth) == 1  # a lone blob: one click
    assert dis_metrics.hce(hole, truth) == 1  # a lone hole: one click
    assert dis_metrics.hce(thick, truth) == 0  # forgiven
    assert dis_metrics.hce(thick, truth, gamma=0) > 0
    assert dis_metrics.hce(square, truth) == 2  # both ends of the straight border with the object
    line = truth.copy()
    line[100, 140:290] = True
    assert dis_metrics.hce(truth, line) > 0  # a lost thin part is not forgiven: the skeleton keeps it
    assert dis_metrics.hce(soften(free), truth) == 1


@QUICK
@given(MASKS)
def test_lines_of_a_mask(mask: Mask) -> None:
    thin = contours.skeleton(mask)
    assert not (thin & ~mask).any()
    assert np.array_equal(contours.skeleton(thin), thin)
    width = mask.shape[1]
    padded = np.pad(mask, 1)
    rim = {
        (row + 1) * (width + 2) + column + 1
        for row, column in pixels(mask)
        if mask[row, column]
        and not (
            padded[row, column + 1]
            and padded[row + 2, column + 1]
            and padded[row + 1, column]
            and padded[row + 1, column + 2]
        )
    }
    assert {int(position) for border in contours.borders(mask) for position in border} == rim


def test_corners() -> None:
    row = np.stack([np.zeros(9, int), np.arange(9)], axis=1)
    column = np.stack([np.arange(1, 9), np.full(8, 8)], axis=1)
    assert contours.corners(row[:1], 2) == 1
    assert contours.corners(row, 2) == 2
    assert contours.corners(np.concatenate([row, column]), 2) == 3
    assert contours.corners(np.concatenate([row, column]), 100) == 2


def test_kinds_of_masks() -> None:
    pred, truth = disk(30, 40, 15, 15, 9), disk(30, 40, 15, 18, 9)
    for score in [*BINARY, metrics.mba, *SOFT, dis_metrics.hce]:
        expected = score(pred, truth)
        assert score(pred.astype(np.uint8), truth.astype(np.int64)) == expected
        assert score(pred.astype(np.uint8) * 255, truth.astype(np.uint8) * 255) == expected
        assert score(pred.astype(np.float64), truth.astype(np.float32)) == expected


@pytest.mark.parametrize("score", [*BINARY, metrics.mba, *SOFT, dis_metrics.hce])
def test_refusals(score: Score) -> None:
    mask = disk(30, 40, 15, 15, 9)
    with pytest.raises(SizeMismatchError, match=r"40x29 .* 40x30"):
        score(mask[1:], mask)
    for broken in (mask * 2, mask * 128.0, mask[None], mask[:0], mask * 1j, np.where(mask, math.nan, 0.0)):
        with pytest.raises(MaskError, match="prediction"):
            score(broken, mask)
        with pytest.raises(MaskError, match="truth"):
            score(mask, broken)
    with pytest.raises(MaskError, match="truth"):
        score(mask, mask * 0.5)
    advice = "divide grey levels by 255" if score in [*SOFT, dis_metrics.hce] else "threshold it first"
    with pytest.raises(MaskError, match=advice):
        score(mask * np.uint8(200), mask)


def test_refused_settings() -> None:
    mask = disk(30, 40, 15, 15, 9)
    with pytest.raises(InputError, match="radius is 0"):
        metrics.boundary_accuracy(mask, mask, 0)
    for value in (0, -1, math.nan, math.inf):
        with pytest.raises(InputError, match="dilation_ratio"):
            metrics.boundary_iou(mask, mask, value)
        with pytest.raises(InputError, match="bound_th"):
            metrics.boundary_f(mask, mask, value)
    for settings_ in ({"gamma": -1}, {"epsilon": -0.1}, {"epsilon": math.nan}):
        with pytest.raises(InputError, match=r"gamma|epsilon"):
            dis_metrics.hce(mask, mask, **settings_)
