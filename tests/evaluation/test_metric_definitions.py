"""Metrics against their definitions, computed pixel by pixel."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.evaluation.masks import PAIRS, QUICK, Mask, pixels
from segrefiner.evaluation import dis_metrics, metrics

# OpenCV's ellipses of sizes 3, 5 and 7, as it prints them.
ELLIPSES = {
    1: ["010", "111", "010"],
    2: ["00100", "11111", "11111", "11111", "00100"],
    3: ["0001000", "0111110", "1111111", "1111111", "1111111", "0111110", "0001000"],
}


def inside(mask: Mask, row: int, column: int) -> bool:
    return 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]


def naive_band(truth: Mask, radius: int) -> list[tuple[int, int]]:
    element = [
        (y - radius, x - radius)
        for y, line in enumerate(ELLIPSES[radius])
        for x, value in enumerate(line)
        if value == "1"
    ]
    band = []
    for row, column in pixels(truth):
        window = [truth[row + y, column + x] for y, x in element if inside(truth, row + y, column + x)]
        if any(window) and not all(window):
            band.append((row, column))
    return band


def naive_rim(mask: Mask, width: int) -> set[tuple[int, int]]:
    steps = range(-width, width + 1)
    return {
        (row, column)
        for row, column in pixels(mask)
        if mask[row, column]
        and any(
            not inside(mask, row + y, column + x) or not mask[row + y, column + x]
            for y, x in itertools.product(steps, steps)
        )
    }


def naive_contour(mask: Mask) -> list[tuple[int, int]]:
    def differs(row: int, column: int) -> bool:
        ahead = [(row, column + 1), (row + 1, column), (row + 1, column + 1)]
        return any(inside(mask, *there) and mask[there] != mask[row, column] for there in ahead)

    return [pixel for pixel in pixels(mask) if differs(*pixel)]


def nearest(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> list[float]:
    return [min(math.dist(point, other) for other in others) for point in points]


@QUICK
@given(PAIRS)
def test_regions_by_counting(pair: tuple[Mask, Mask]) -> None:
    pred, truth = pair
    both = sum(bool(pred[p] and truth[p]) for p in pixels(truth))
    either = sum(bool(pred[p] or truth[p]) for p in pixels(truth))
    assert metrics.iou_counts(pred, truth) == (both, either)
    assert metrics.iou(pred, truth) == (both / either if either else 1)
    share = metrics.iou(pred, truth)
    assert metrics.dice(pred, truth) == pytest.approx(2 * share / (1 + share))


@QUICK
@given(PAIRS, st.sampled_from([1, 2, 3]))
def test_boundary_accuracy_by_windows(pair: tuple[Mask, Mask], radius: int) -> None:
    pred, truth = pair
    band = naive_band(truth, radius)
    accuracy = metrics.boundary_accuracy(pred, truth, radius)
    if band:
        assert accuracy == pytest.approx(sum(pred[p] == truth[p] for p in band) / len(band))
    else:
        assert math.isnan(accuracy)


@QUICK
@given(PAIRS, st.sampled_from([0.02, 0.2, 0.3, 2.0]))
def test_boundary_iou_by_windows(pair: tuple[Mask, Mask], ratio: float) -> None:
    pred, truth = pair
    width = max(1, round(ratio * math.hypot(*truth.shape)))
    ours, theirs = naive_rim(pred, width), naive_rim(truth, width)
    expected = len(ours & theirs) / len(ours | theirs) if ours | theirs else 1
    assert metrics.boundary_iou(pred, truth, ratio) == expected


@QUICK
@given(PAIRS, st.sampled_from([0.008, 0.3, 1, 2, 3]))
def test_boundary_f_by_distances(pair: tuple[Mask, Mask], tolerance: float) -> None:
    pred, truth = pair
    radius = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*truth.shape))
    ours, theirs = naive_contour(pred), naive_contour(truth)
    if ours and theirs:
        precision = np.mean([distance <= radius for distance in nearest(ours, theirs)])
        recall = np.mean([distance <= radius for distance in nearest(theirs, ours)])
        total = precision + recall
        expected = 2 * precision * recall / total if total else 0
    else:
        expected = float(not ours and not theirs)
    assert metrics.boundary_f(pred, truth, tolerance) == pytest.approx(expected)


@QUICK
@given(PAIRS)
def test_hausdorff_by_distances(pair: tuple[Mask, Mask]) -> None:
    ends = []
    for mask in pair:
        cross = [(-1, 0), (1, 0), (0, -1), (0, 1)]
        ends.append(
            [
                (row, column)
                for row, column in pixels(mask)
                if mask[row, column]
                and any(not inside(mask, row + y, column + x) or not mask[row + y, column + x] for y, x in cross)
            ]
        )
    expected = 0.0 if ends[0] == ends[1] else math.inf
    if all(ends):
        expected = float(np.percentile(nearest(*ends) + nearest(*ends[::-1]), 95))
    assert metrics.hausdorff95(*pair) == pytest.approx(expected)


@QUICK
@given(PAIRS, st.integers(0, 1000))
def test_curves_by_thresholding(pair: tuple[Mask, Mask], seed: int) -> None:
    truth = pair[1]
    levels = np.random.default_rng(seed).integers(0, 256, truth.shape)
    precision, recall = dis_metrics.precision_recall(levels / 255, truth)
    aligned = dis_metrics.e_curve((levels / 255).astype(np.float32), truth)
    for threshold in (0, 1, 77, 128, 254, 255):
        found = levels >= threshold
        hits = (found & truth).sum()
        assert precision[threshold] == pytest.approx(hits / max(1, found.sum()))
        assert recall[threshold] == pytest.approx(hits / max(1, truth.sum()))
        if 0 < truth.sum() < truth.size:
            x, y = found - found.mean(), truth - truth.mean()
            alignment = 2 * x * y / (x**2 + y**2)
        else:
            alignment = np.where(found == truth, 1.0, -1.0)
        expected = ((1 + alignment) ** 2 / 4).sum() / max(1, truth.size - 1)
        assert aligned[threshold] == pytest.approx(expected)
