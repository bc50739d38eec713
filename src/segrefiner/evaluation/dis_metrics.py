"""Measures of the DIS5K benchmark (Qin et al., Highly Accurate Dichotomous Image Segmentation, ECCV 2022).

`max_f`, `weighted_f`, `mae`, `s_measure` and `e_measure` judge a soft prediction, float `(H, W)` from 0 to 1,
or a binary mask; `hce` counts the clicks that would repair a mask. The truth is binary, as in
`segrefiner.evaluation.metrics`. Predictions are taken as they are: stretching each to the full range 0 to 1 first, as
some evaluation scripts do, is the caller's choice.

Where the truth is empty, `max_f` and `weighted_f` are 1 for a prediction that is 0 everywhere, else 0; the
other measures are defined there by their papers.
"""

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..errors import MaskError
from ..imaging.codecs.arrays import as_numpy
from ..imaging.codecs.option_checks import real_number, whole_number
from ..imaging.shapes.contours import borders, corners, skeleton
from .mask_checks import Mask, MaskLike, binary_mask, check_plane, check_same_size

Curve: TypeAlias = npt.NDArray[np.float64]
Soft: TypeAlias = npt.NDArray[np.floating]
Ints: TypeAlias = npt.NDArray[np.int_]

LEVELS = 256
F_BETA_SQUARED = 0.3
_EPS = float(np.spacing(1.0))


def mae(pred: MaskLike, truth: MaskLike) -> float:
    """Mean absolute error of the prediction, 0 is best.

    Args:
        pred: `(H, W)`, float from 0 to 1, or binary.
        truth: `(H, W)`, binary.

    Raises:
        MaskError: The prediction is not an `(H, W)` map from 0 to 1, or the truth not binary.
        SizeMismatchError: The sizes differ.
    """
    pred, truth = soft_pair(pred, truth)
    return float(np.abs(pred.astype(np.float64) - truth).mean())


def precision_recall(pred: MaskLike, truth: MaskLike) -> tuple[Curve, Curve]:
    """Precision and recall of `255 * pred >= t` for the thresholds `t = 0 … 255`.

    The DIS5K authors' script averages these over a set's images, then takes the maximum over thresholds of
    the F-measure of the averages, so a set needs the curves.

    Args:
        pred: `(H, W)`, float from 0 to 1, or binary.
        truth: `(H, W)`, binary.

    Returns:
        `(precision, recall)`, each `(256,)` float64 by rising threshold; 0 where nothing is found.

    Raises:
        MaskError: The prediction is not an `(H, W)` map from 0 to 1, or the truth not binary.
        SizeMismatchError: The sizes differ.
    """
    hits, found, actual, _ = _counts(*soft_pair(pred, truth))
    return hits / np.maximum(found, 1), hits / max(actual, 1)


def f_curve(pred: MaskLike, truth: MaskLike) -> Curve:
    """F-measure with `beta² = 0.3` (Achanta et al., CVPR 2009) at the thresholds of `precision_recall`.

    Args:
        pred: `(H, W)`, float from 0 to 1, or binary.
        truth: `(H, W)`, binary.

    Returns:
        `(256,)` float64, by rising threshold; 0 everywhere for an empty truth.

    Raises:
        MaskError: The prediction is not an `(H, W)` map from 0 to 1, or the truth not binary.
        SizeMismatchError: The sizes differ.
    """
    precision, recall = precision_recall(pred, truth)
    weighted = F_BETA_SQUARED * precision + recall
    curve: Curve = (1 + F_BETA_SQUARED) * precision * recall / np.where(weighted > 0, weighted, 1)
    return curve


def max_f(pred: MaskLike, truth: MaskLike) -> float:
    """Maximal F-measure of one image, the best of `f_curve`.

    Args:
        pred: `(H, W)`, float from 0 to 1, or binary.
        truth: `(H, W)`, binary.

    Raises:
        MaskError: The prediction is not an `(H, W)` map from 0 to 1, or the truth not binary.
        SizeMismatchError: The sizes differ.
    """
    pred, truth = soft_pair(pred, truth)
    if not truth.any():
        return float(not pred.any())
    return float(f_curve(pred, truth).max())


def weighted_f(pred: MaskLike, truth: MaskLike) -> float:
    """Weighted F-measure (Margolin et al., How to Evaluate Foreground Maps?, CVPR 2014), with `beta² = 1`.

    Errors are smoothed along the object, taken over by nearby background, and count up to twice as much far
    from the object (the paper's matrices A and B).

    Args:
        pred: `(H, W)`, float from 0 to 1, or binary.
        truth: `(H, W)`, binary.

    Raises:
        MaskError: The prediction is not an `(H, W)` map from 0 to 1, or the truth not binary.
        SizeMismatchError: The sizes differ.
    """
    pred, truth = soft_pair(pred, truth)
    if not truth.any():
        return float(not pred.any())
    error = np.abs(pred.astype(np.float64) - truth)
    distance, (row, column) = ndimage.distance_transform_edt(~truth, return_indices=True)
    # 7x7 Gaussian of sigma 5, cut at the edges of the image: MATLAB's fspecial and imfilter, in two passes.
    gauss = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 5**2))
    gauss /= gauss.sum()
    smooth = error[row, column]
    for axis in (0, 1):
        smooth = ndimage.convolve1d(smooth, gauss, axis=axis, mode="constant")
    inside = np.minimum(error, smooth)[truth]
    outside = (error * (2 - np.exp(math.log(0.5) / 5 * distance)))[~truth]
    right = inside.size - inside.sum()
    recall, precision = 1 - inside.mean(), right / (right + outside.sum() + _EPS)
    return float(2 * recall * precision / (recall + precision + _EPS))


def s_measure(pred: MaskLike, truth: MaskLike, alpha: float = 0.5) -> float:
    """Structure measure (Fan et al., ICCV 2017): `alpha * object + (1 - alpha) * region` similarity.

    Args:
        pred: `(H, W)`, float from 0 to 1, or binary.
        truth: `(H, W)`, binary.
        alpha: Weight of the object-aware part.

    Raises:
        MaskError: The prediction is not an `(H, W)` map from 0 to 1, or the truth not binary.
        SizeMismatchError: The sizes differ.
    """
    pred, truth = soft_pair(pred, truth)
    pred = pred.astype(np.float64)
    share = float(truth.mean())
    if share in (0, 1):
        mean = float(pred.mean())
        return mean if share else 1 - mean
    objects = share * _object_score(pred[truth]) + (1 - share) * _object_score(1 - pred[~truth])
    return max(0.0, alpha * objects + (1 - alpha) * _region_score(pred, truth))


def e_curve(pred: MaskLike, truth: MaskLike) -> Curve:
    """Enhanced-alignment measure (Fan et al., IJCAI 2018) of `255 * pred >= t`, `t = 0 … 255`.

    As in the authors' code, the sum is divided by one pixel less than there are, so that the best value is
    `N / (N - 1)`, a trifle above 1.

    Args:
        pred: `(H, W)`, float from 0 to 1, or binary.
        truth: `(H, W)`, binary.

    Returns:
        `(256,)` float64, by rising threshold.

    Raises:
        MaskError: The prediction is not an `(H, W)` map from 0 to 1, or the truth not binary.
        SizeMismatchError: The sizes differ.
    """
    hits, found, actual, pixels = _counts(*soft_pair(pred, truth))
    if actual == 0:
        aligned = pixels - found
    elif actual == pixels:
        aligned = found
    else:
        found_mean, true_mean = found / pixels, actual / pixels
        missed, false = actual - hits, found - hits
        parts = [(hits, 1, 1), (false, 1, 0), (missed, 0, 1), (pixels - hits - missed - false, 0, 0)]
        aligned = np.zeros(LEVELS)
        for count, ours, theirs in parts:
            x, y = ours - found_mean, theirs - true_mean
            aligned += count * (2 * x * y / (x**2 + y**2 + _EPS) + 1) ** 2 / 4
    curve: Curve = aligned / max(pixels - 1, 1)
    return curve


def e_measure(pred: MaskLike, truth: MaskLike) -> float:
    """Mean enhanced-alignment measure, the mean of `e_curve` over all 256 thresholds.

    This is the E that DIS5K's tables give. It counts the threshold 0, at which everything is object, so a
    perfect mask stays a little below 1. The maximal one is `e_curve(pred, truth).max()`.

    Args:
        pred: `(H, W)`, float from 0 to 1, or binary.
        truth: `(H, W)`, binary.

    Raises:
        MaskError: The prediction is not an `(H, W)` map from 0 to 1, or the truth not binary.
        SizeMismatchError: The sizes differ.
    """
    return float(e_curve(pred, truth).mean())


def hce(pred: MaskLike, truth: MaskLike, gamma: int = 5, epsilon: float = 2.0) -> int:
    """Human correction effort (Qin et al., ECCV 2022): clicks that turn the mask into the truth.

    Errors that `gamma` erosions of the union of both masks remove are forgiven, but for parts of the truth's
    skeleton that the mask lost. A wrong region that touches right pixels costs the corners of the shared
    border, a free one costs one click. Corners are what Douglas-Peucker simplification with tolerance
    `epsilon` keeps.

    This counts what the authors' script counts, its quirks with it: borders that start and end beside each
    other are joined with the first part reversed, and the skeleton is that of scikit-image.

    Args:
        pred: `(H, W)`, binary, or float from 0 to 1, which is object from 129/255 on.
        truth: `(H, W)`, binary.
        gamma: Forgiven width in pixels, 0 or more.
        epsilon: Tolerance of the corners in pixels.

    Returns:
        A number of clicks, 0 is best; it grows with the image's size.

    Raises:
        InputError: `gamma` or `epsilon` is negative.
        MaskError: The prediction is not an `(H, W)` map from 0 to 1, or the truth not binary.
        SizeMismatchError: The sizes differ.
    """
    gamma = whole_number("gamma", gamma, 0)
    epsilon = real_number("epsilon", epsilon, 0, expected="a width in pixels, 0 or more")
    soft, truth = soft_pair(pred, truth)
    mask: Mask = _levels(soft) > LEVELS // 2
    false, missed = mask & ~truth, truth & ~mask
    if gamma:
        core = ndimage.binary_erosion(mask | truth, iterations=gamma, border_value=1)
        false &= ndimage.binary_dilation(false & core, iterations=gamma, mask=~truth)
        missed &= ndimage.binary_dilation(missed & core, iterations=gamma, mask=~mask)
    missed |= skeleton(truth) & ~mask
    right = mask & truth
    background = ~(right | false | missed)
    return _clicks(false, right | missed, epsilon) + _clicks(missed, background, epsilon)


def soft_pair(pred: MaskLike, truth: MaskLike) -> tuple[Soft, Mask]:
    """The prediction as float and the truth as bool, `(H, W)` of one size.

    Args:
        pred: `(H, W)`, float from 0 to 1; or bool, or integers that are all 0 or 1, or all 0 or 255.
        truth: `(H, W)`; bool, or numbers that are all 0 or 1, or all 0 or 255.

    Raises:
        MaskError: The prediction is not an `(H, W)` map from 0 to 1, or the truth not binary.
        SizeMismatchError: The sizes differ.
    """
    pred = as_numpy(pred)
    check_plane(pred, "prediction")
    if pred.dtype.kind != "f":
        top = 255 if pred.max() > 1 else 1
        if not ((pred == 0) | (pred == top)).all():
            raise MaskError(
                f"prediction holds {pred.dtype} values from {pred.min()} to {pred.max()}: expected a mask, "
                "or float values from 0 to 1, so divide grey levels by 255"
            )
        pred = (pred != 0).astype(np.float64)
    elif not (pred.min() >= 0 and pred.max() <= 1):
        raise MaskError(
            f"prediction holds values from {pred.min():.6g} to {pred.max():.6g}: expected 0 to 1, so divide "
            "grey levels by 255, put logits through a sigmoid, and leave no NaN"
        )
    truth = binary_mask(truth, "truth")
    check_same_size(pred, truth)
    return pred, truth


def _counts(pred: Soft, truth: Mask) -> tuple[Curve, Curve, int, int]:
    """Hits and finds by rising threshold, `(256,)` each, and the pixels of the truth and of the image."""
    levels = _levels(pred)
    hits, found = (
        np.bincount(part, minlength=LEVELS)[::-1].cumsum()[::-1].astype(np.float64)
        for part in (levels[truth], levels.ravel())
    )
    return hits, found, int(np.count_nonzero(truth)), truth.size


def _levels(pred: Soft) -> npt.NDArray[np.uint8]:
    """Grey levels 0 … 255, cut off to the lower one, as an 8-bit file of the prediction holds."""
    # In the prediction's own precision k / 255 * 255 is k again; in a higher one it could fall below.
    return (pred * pred.dtype.type(LEVELS - 1)).astype(np.uint8)


def _object_score(values: Curve) -> float:
    """Object-level similarity, with the paper's lambda of 0.5: how high and how even the values are."""
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + spread + _EPS)


def _region_score(pred: Curve, truth: Mask) -> float:
    """Similarity of the four quarters around the truth's centroid, weighted by their areas."""
    rows, columns = np.nonzero(truth)
    # MATLAB's one-based, inclusive ranges put the centroid's own row and column into the first quarter.
    row, column = (int(np.round(axis.mean())) + 1 for axis in (rows, columns))
    score = 0.0
    for vertical in (slice(0, row), slice(row, None)):
        for horizontal in (slice(0, column), slice(column, None)):
            quarter = truth[vertical, horizontal]
            if quarter.size:
                similarity = _similarity(pred[vertical, horizontal], quarter.astype(np.float64))
                score += quarter.size / truth.size * similarity
    return score


def _similarity(x: Curve, y: Curve) -> float:
    """The product of SSIM's three terms without their constants, as the S-measure's authors compute it."""
    x_mean, y_mean = float(x.mean()), float(y.mean())
    x_rest, y_rest = x - x_mean, y - y_mean
    normal = x.size - 1 + _EPS
    covariance = float((x_rest * y_rest).sum()) / normal
    variances = float((x_rest**2).sum() + (y_rest**2).sum()) / normal
    above, below = 4 * x_mean * y_mean * covariance, (x_mean**2 + y_mean**2) * variances
    if above == 0:
        return float(below == 0)
    return above / (below + _EPS)


def _clicks(region: Mask, beside: Mask, epsilon: float) -> int:
    """Free parts of the region, plus the corners of its border wherever that touches the other mask."""
    parts, count = ndimage.label(np.pad(region, 1), structure=np.ones((3, 3)))
    touching = np.pad(ndimage.binary_dilation(beside), 1).ravel()
    outlines = borders(region)
    if not outlines:
        return 0
    points = np.concatenate(outlines)
    # Where borders pass a pixel again, only the first passage counts.
    counted = np.zeros(points.size, np.bool_)
    counted[np.unique(points, return_index=True)[1]] = True
    counted &= touching[points]
    free = count - np.unique(parts.ravel()[points[counted]]).size
    clicks, start = int(free), 0
    for outline in outlines:
        for line in _lines(outline, counted[start : start + outline.size], region.shape[1] + 2):
            clicks += corners(line, epsilon)
        start += outline.size
    return clicks


def _lines(outline: Ints, counted: Mask, width: int) -> list[Ints]:
    """Cut a closed outline into the stretches that count, as `(N, 2)` rows and columns."""
    starts = np.flatnonzero(np.diff(counted, prepend=False, append=False))
    rows_columns = np.stack(np.divmod(outline, width), axis=1)
    lines = [rows_columns[start:end] for start, end in starts.reshape(-1, 2)]
    if len(lines) > 1 and np.abs(lines[0][0] - lines[-1][-1]).max() == 1:
        first = lines.pop(0)
        lines[-1] = np.concatenate([lines[-1], first[::-1]])
    return lines
