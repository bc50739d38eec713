"""Metrics against laws, against brute force, and against the libraries that defined them.

`data/metrics_reference.json` holds what those libraries gave, so that the comparison is made without them,
too. To record it anew: `python tests/evaluation/test_metrics.py`, with the packages that `REFERENCES` imports and an
OpenCV below 4.13.
"""

import itertools
import json
import math
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from segrefiner.errors import InputError, MaskError, SizeMismatchError
from segrefiner.evaluation import dis_metrics, metrics
from segrefiner.imaging.shapes import contours

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]
Score = Callable[[Array, Array], float]

DATA = Path(__file__).parents[1] / "data"
PHOTOS = ("CCP_0016", "car208_0007")
PARITY = json.loads((DATA / "parity" / "expected.json").read_text())
QUICK = settings(max_examples=60)


def photo(name: str) -> tuple[Mask, Mask]:
    coarse, truth = (
        np.asarray(Image.open(DATA / "parity" / f"{name}_{kind}.png").convert("L")) >= 128
        for kind in ("coarse", "truth")
    )
    return coarse, truth


def disk(height: int, width: int, row: int, column: int, radius: int) -> Mask:
    rows, columns = np.ogrid[:height, :width]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def cases() -> dict[str, tuple[Mask, Mask]]:
    """Pairs of prediction and truth, made of whole numbers only, and two photos' coarse masks."""
    spokes = np.zeros((180, 240), np.bool_)
    spokes[20:160:12], spokes[:, 30:210:17] = True, True
    spokes |= disk(180, 240, 90, 120, 40)
    broken = spokes & ~disk(180, 240, 60, 60, 35)
    broken[100:112, 150:] = True
    noise = np.kron(np.random.default_rng(3).integers(0, 256, (30, 40)) < 120, np.ones((7, 6), np.bool_))
    eaten = noise ^ (np.kron(np.random.default_rng(4).integers(0, 256, (70, 80)) < 30, np.ones((3, 3))) > 0)
    frame = ~disk(700, 900, 300, 420, 260) | disk(700, 900, 300, 420, 90)
    shaken = (~disk(700, 900, 310, 415, 250) | disk(700, 900, 290, 430, 99)) ^ disk(700, 900, 600, 60, 25)
    return {
        "disks": (disk(200, 300, 104, 150, 66), disk(200, 300, 100, 143, 70)),
        "spokes": (broken, spokes),
        "noise": (eaten, noise),
        "frame": (shaken, frame),
        **{name: photo(name) for name in PHOTOS},
    }


CASES = cases()


def soften(mask: Mask) -> npt.NDArray[np.float64]:
    """A 5x5 box blur, in whole grey levels."""
    padded = np.pad(mask, 2).astype(np.int64)
    total = sum(padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(5) for x in range(5))
    return np.asarray(total * 255 // 25) / 255


# What others give.


def opencv_mba(pred: Mask, truth: Mask) -> float:
    cv2 = pytest.importorskip("cv2")
    scores = []
    for step in range(5):
        radius = 1 + int((sum(truth.shape) / 300 - 1) / 5 * step)
        element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        band = cv2.morphologyEx(truth.astype(np.uint8), cv2.MORPH_GRADIENT, element) > 0
        scores.append((pred == truth)[band].mean())
    return float(np.mean(scores))


def coco_boundary_iou(pred: Mask, truth: Mask) -> float:
    mask_api = pytest.importorskip("faster_coco_eval.core.mask")
    encoded = [mask_api.encode(np.asfortranarray(mask, np.uint8)) for mask in (pred, truth)]
    ours, theirs = (mask_api.decode(mask_api.rleToBoundary(rle, 0.02)) > 0 for rle in encoded)
    return float((ours & theirs).sum() / (ours | theirs).sum())


def opencv_boundary_f(pred: Mask, truth: Mask) -> float:
    cv2 = pytest.importorskip("cv2")
    morphology = pytest.importorskip("skimage.morphology")
    element = morphology.disk(math.ceil(0.008 * np.linalg.norm(truth.shape)))
    edges = []
    for mask in (pred, truth):
        beside, below, corner = np.roll(mask, -1, 1), np.roll(mask, -1, 0), np.roll(mask, (-1, -1), (0, 1))
        edge = (mask ^ beside) | (mask ^ below) | (mask ^ corner)
        edge[-1], edge[:, -1], edge[-1, -1] = (mask ^ beside)[-1], (mask ^ below)[:, -1], False
        edges.append(edge)
    near = [cv2.dilate(edge.astype(np.uint8), element) > 0 for edge in edges]
    precision, recall = near[1][edges[0]].mean(), near[0][edges[1]].mean()
    return float(2 * precision * recall / (precision + recall))


def medpy(name: str) -> Score:
    def score(pred: Array, truth: Array) -> float:
        return float(getattr(pytest.importorskip("medpy.metric.binary"), name)(pred, truth))

    return score


def sod(name: str, result: Callable[[Any], Any]) -> Score:
    def score(pred: Array, truth: Array) -> float:
        library = pytest.importorskip("py_sod_metrics")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measure = getattr(library, name)()
        measure.step(pred.astype(np.float64), truth, normalize=False)
        return float(result(measure.get_results()))

    return score


def sod_hce(pred: Array, truth: Array) -> float:
    cv2 = pytest.importorskip("cv2")
    if tuple(int(part) for part in cv2.__version__.split(".")[:2]) >= (4, 13):
        pytest.skip("OpenCV 4.13 changed approxPolyDP: HCE is no longer the published one there")
    library = pytest.importorskip("py_sod_metrics")
    binary = (np.rint(pred * 255) > 128).astype(np.float64)
    return float(library.HumanCorrectionEffortMeasure().cal_hce(binary, truth))


def skimage_skeleton(_: Array, truth: Array) -> float:
    return checksum(pytest.importorskip("skimage.morphology").skeletonize(truth))


def checksum(mask: Mask) -> float:
    return float(zlib.crc32(np.packbits(mask).tobytes()))


# Metric -> (whether it takes a soft prediction, ours, what defines it).
REFERENCES: dict[str, tuple[bool, Score, Score]] = {
    "iou": (False, metrics.iou, medpy("jc")),
    "dice": (False, metrics.dice, medpy("dc")),
    "mba": (False, metrics.mba, opencv_mba),
    "boundary_iou": (False, metrics.boundary_iou, coco_boundary_iou),
    "boundary_f": (False, metrics.boundary_f, opencv_boundary_f),
    "hausdorff95": (False, metrics.hausdorff95, medpy("hd95")),
    "max_f": (True, dis_metrics.max_f, sod("Fmeasure", lambda r: r["fm"]["curve"].max())),
    "mean_f": (
        True,
        lambda p, t: float(dis_metrics.f_curve(p, t).mean()),
        sod("Fmeasure", lambda r: r["fm"]["curve"].mean()),
    ),
    "weighted_f": (True, dis_metrics.weighted_f, sod("WeightedFmeasure", lambda r: r["wfm"])),
    "mae": (True, dis_metrics.mae, sod("MAE", lambda r: r["mae"])),
    "s_measure": (True, dis_metrics.s_measure, sod("Smeasure", lambda r: r["sm"])),
    "e_measure": (True, dis_metrics.e_measure, sod("Emeasure", lambda r: r["em"]["curve"].mean())),
    "max_e": (
        True,
        lambda p, t: float(dis_metrics.e_curve(p, t).max()),
        sod("Emeasure", lambda r: r["em"]["curve"].max()),
    ),
    "hce": (True, dis_metrics.hce, sod_hce),
    "skeleton": (False, lambda _, t: checksum(contours.skeleton(t)), skimage_skeleton),
}


def compare(name: str, score: Score, case: str) -> float:
    pred, truth = CASES[case]
    return score(soften(pred) if REFERENCES[name][0] else pred, truth)


@pytest.mark.parametrize("name", REFERENCES)
def test_recorded_reference(name: str) -> None:
    recorded = json.loads((DATA / "metrics_reference.json").read_text())["scores"][name]
    assert set(recorded) == set(CASES)
    for case, expected in recorded.items():
        assert compare(name, REFERENCES[name][1], case) == pytest.approx(expected, rel=1e-9, abs=1e-9), case


@pytest.mark.parametrize("name", REFERENCES)
def test_live_reference(name: str) -> None:
    for case in ("disks", "spokes", "noise", "CCP_0016"):
        expected = compare(name, REFERENCES[name][2], case)
        assert compare(name, REFERENCES[name][1], case) == pytest.approx(expected, rel=1e-9, abs=1e-9), case


@pytest.mark.parametrize("name", PHOTOS)
def test_published_figures(name: str) -> None:
    coarse, truth = photo(name)
    assert metrics.iou(coarse, truth) == pytest.approx(PARITY["metrics"][name]["iou"], abs=1e-9)
    assert metrics.mba(coarse, truth) == pytest.approx(PARITY["metrics"][name]["mba"], abs=1e-9)


def test_ellipse_is_opencvs() -> None:
    recorded = json.loads((DATA / "metrics_reference.json").read_text())["ellipse_half_widths"]
    for radius, half_widths in enumerate(recorded, start=1):
        assert metrics._opencv_ellipse(radius).tolist() == half_widths


@pytest.mark.parametrize("seed", range(12))
def test_borders_and_corners_are_opencvs(seed: int) -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 4))
    mask = np.kron(rng.random((14, 11)) < rng.uniform(0.2, 0.9), np.ones((size, size))) > 0
    mask &= rng.random(mask.shape) < 0.97
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    width = mask.shape[1] + 2
    expected = [((line[:, 0, 1] + 1) * width + line[:, 0, 0] + 1).tolist() for line in found]
    ours = [border.tolist() for border in contours.borders(mask)]
    assert sorted(ours) == sorted(expected)
    if tuple(int(part) for part in cv2.__version__.split(".")[:2]) < (4, 13):
        for line in found:
            points = np.array(list(dict.fromkeys(map(tuple, line[:, 0].tolist()))))
            approximated = cv2.approxPolyDP(points[:, None].astype(np.int32), 2, False)
            assert contours.corners(points[:, ::-1], 2) == len(approximated)


# What the definitions say, pixel by pixel.

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))
PAIRS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(arrays.arrays(np.bool_, shape), arrays.arrays(np.bool_, shape))
)
# OpenCV's ellipses of sizes 3, 5 and 7, as it prints them.
ELLIPSES = {
    1: ["010", "111", "010"],
    2: ["00100", "11111", "11111", "11111", "00100"],
    3: ["0001000", "0111110", "1111111", "1111111", "1111111", "0111110", "0001000"],
}


def pixels(mask: Mask) -> list[tuple[int, int]]:
    return list(itertools.product(*map(range, mask.shape)))


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


# Laws.

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


# What is refused, and what is accepted.


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


def record() -> None:
    import cv2

    ellipses = []
    for radius in range(1, 41):
        element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        ellipses.append([int(line.sum()) // 2 for line in element[radius:]])
    scores = {
        name: {case: compare(name, reference, case) for case in CASES} for name, (_, _, reference) in REFERENCES.items()
    }
    table = {"opencv": cv2.__version__, "ellipse_half_widths": ellipses, "scores": scores}
    # A line for each metric: short enough to read a difference.
    text = json.dumps(table).replace('"ellipse', '\n"ellipse').replace('"scores"', '\n"scores"')
    (DATA / "metrics_reference.json").write_text(text.replace("}, ", "},\n ") + "\n")


if __name__ == "__main__":
    record()
