"""How close a mask is to the truth: regions, boundaries, contours.

Every function takes two masks of the same size, `(H, W)`, each a bool array or a numeric array that holds
nothing but 0 and 1, or nothing but 0 and 255. Soft predictions have their own measures in
`segrefiner.evaluation.dis_metrics`.

What an empty mask means, everywhere in this module: two masks that agree are perfect, also when both are
empty (`iou`, `dice`, `boundary_iou`, `boundary_f` are 1, `hausdorff95` is 0); if one of the two is empty, or
has no contour, they do not meet at all (0, and infinity for `hausdorff95`). Only mean boundary accuracy looks
at the truth alone: a truth without any boundary has no band to be accurate in, and the result is NaN, to be
left out of means (`numpy.nanmean`).
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..errors import InputError
from ..imaging.codecs.option_checks import finite_number, whole_number
from .mask_checks import Mask, MaskLike, binary_pair

MBA_STEPS = 5


def iou(pred: MaskLike, truth: MaskLike) -> float:
    """Intersection over union, the Jaccard index; DAVIS calls it region similarity J.

    Args:
        pred: `(H, W)`, binary.
        truth: `(H, W)`, binary.

    Returns:
        A number from 0 to 1; 1 if both masks are empty.

    Raises:
        MaskError: A mask is not a binary `(H, W)` array.
        SizeMismatchError: The sizes differ.

    >>> from segrefiner.evaluation.metrics import iou
    >>> truth = np.array([[True, True, False, False]])
    >>> iou(np.array([[True, False, False, False]]), truth)
    0.5
    """
    intersection, union = iou_counts(pred, truth)
    return intersection / union if union else 1.0


def iou_counts(pred: MaskLike, truth: MaskLike) -> tuple[int, int]:
    """Pixels in the intersection and in the union, for the IoU of a whole set.

    BIG and DIS are scored by the sum of intersections over the sum of unions, over all images (Cheng et al.,
    CascadePSP, CVPR 2020), which weighs images by their objects' size; a mean of `iou` does not.

    Args:
        pred: `(H, W)`, binary.
        truth: `(H, W)`, binary.

    Returns:
        `(intersection, union)`, in pixels.

    Raises:
        MaskError: A mask is not a binary `(H, W)` array.
        SizeMismatchError: The sizes differ.
    """
    pred, truth = binary_pair(pred, truth)
    return int(np.count_nonzero(pred & truth)), int(np.count_nonzero(pred | truth))


def dice(pred: MaskLike, truth: MaskLike) -> float:
    """Dice coefficient, `2 |A ∩ B| / (|A| + |B|)`, which is the F1 of the pixels.

    Args:
        pred: `(H, W)`, binary.
        truth: `(H, W)`, binary.

    Returns:
        A number from 0 to 1; 1 if both masks are empty.

    Raises:
        MaskError: A mask is not a binary `(H, W)` array.
        SizeMismatchError: The sizes differ.

    >>> from segrefiner.evaluation.metrics import dice
    >>> truth = np.array([[True, True, False, False]])
    >>> round(dice(np.array([[True, False, False, False]]), truth), 3)
    0.667
    """
    intersection, union = iou_counts(pred, truth)
    return 2 * intersection / (intersection + union) if union else 1.0


def mba(pred: MaskLike, truth: MaskLike) -> float:
    """Mean boundary accuracy (Cheng et al., CascadePSP, CVPR 2020).

    The mean of `boundary_accuracy` over the radii `r_i = 1 + int(((W + H) / 300 - 1) / 5 * i)`, `i = 0 … 4`.
    The `int` cuts towards zero, so the smallest images, where `W + H < 300`, have five times the radius 1.

    Args:
        pred: `(H, W)`, binary.
        truth: `(H, W)`, binary.

    Returns:
        A number from 0 to 1; NaN if the truth is all object or all background, as in the published code.

    Raises:
        MaskError: A mask is not a binary `(H, W)` array.
        SizeMismatchError: The sizes differ.

    >>> from segrefiner.evaluation.metrics import mba
    >>> truth = np.zeros((48, 64), bool)
    >>> truth[10:30, 20:50] = True
    >>> mba(truth, truth)
    1.0
    """
    pred, truth = binary_pair(pred, truth)
    growth = (sum(truth.shape) / 300 - 1) / MBA_STEPS
    radii = [1 + int(growth * step) for step in range(MBA_STEPS)]
    crop = _around_edges(truth, radii[-1])
    accuracies = {radius: _band_accuracy(pred[crop], truth[crop], radius) for radius in set(radii)}
    return sum(accuracies[radius] for radius in radii) / MBA_STEPS


def boundary_accuracy(pred: MaskLike, truth: MaskLike, radius: int) -> float:
    """Share of right pixels near the truth's boundary, the one-radius part of `mba`.

    Near is where the morphological gradient of the truth is positive, with OpenCV's elliptic structuring
    element of size `2 * radius + 1`; pixels outside the image are ignored.

    Args:
        pred: `(H, W)`, binary.
        truth: `(H, W)`, binary.
        radius: In pixels, 1 or more.

    Returns:
        A number from 0 to 1; NaN if the truth is all object or all background.

    Raises:
        InputError: The radius is below 1.
        MaskError: A mask is not a binary `(H, W)` array.
        SizeMismatchError: The sizes differ.
    """
    radius = whole_number("the boundary's radius", radius, 1)
    pred, truth = binary_pair(pred, truth)
    crop = _around_edges(truth, radius)
    return _band_accuracy(pred[crop], truth[crop], radius)


def boundary_iou(pred: MaskLike, truth: MaskLike, dilation_ratio: float = 0.02) -> float:
    """Boundary IoU (Cheng et al., CVPR 2021): IoU of the masks' inner rims.

    A rim is the mask without its erosion by a square of radius `d = max(1, round(dilation_ratio *
    diagonal))`. Everything outside the image counts as background, so the image's border has a rim, too.

    Args:
        pred: `(H, W)`, binary.
        truth: `(H, W)`, binary.
        dilation_ratio: Width of the rim as a fraction of the image's diagonal, above 0; COCO and LVIS use
            0.02, Cityscapes uses 0.005.

    Returns:
        A number from 0 to 1; 1 if both masks are empty.

    Raises:
        InputError: The ratio is not a positive number.
        MaskError: A mask is not a binary `(H, W)` array.
        SizeMismatchError: The sizes differ.

    >>> from segrefiner.evaluation.metrics import boundary_iou
    >>> truth = np.zeros((48, 64), bool)
    >>> truth[10:30, 20:50] = True
    >>> boundary_iou(truth, truth)
    1.0
    """
    if finite_number("dilation_ratio", dilation_ratio) <= 0:
        raise InputError(f"dilation_ratio is {dilation_ratio}: give a fraction of the diagonal, above 0")
    pred, truth = binary_pair(pred, truth)
    width = max(1, round(dilation_ratio * math.hypot(*truth.shape)))
    return iou(_rim(pred, width), _rim(truth, width))


def boundary_f(pred: MaskLike, truth: MaskLike, bound_th: float = 0.008) -> float:
    """F-measure of the contours (Perazzi et al., DAVIS, CVPR 2016), DAVIS's F.

    Contours are one pixel wide; a contour pixel is found if the other contour passes within a disk whose
    radius is `ceil(bound_th * diagonal)`. As in DAVIS, the image's border is no contour: a mask that fills
    the image has none, like an empty one.

    Args:
        pred: `(H, W)`, binary.
        truth: `(H, W)`, binary.
        bound_th: Tolerance as a fraction of the image's diagonal, or in pixels if 1 or more.

    Returns:
        A number from 0 to 1; 1 if neither mask has a contour, 0 if only one has.

    Raises:
        InputError: The tolerance is not a positive number.
        MaskError: A mask is not a binary `(H, W)` array.
        SizeMismatchError: The sizes differ.
    """
    if finite_number("bound_th", bound_th) <= 0:
        raise InputError(f"bound_th is {bound_th}: give a fraction of the diagonal, or pixels (1 or more)")
    pred, truth = binary_pair(pred, truth)
    radius = int(bound_th if bound_th >= 1 else math.ceil(bound_th * math.hypot(*truth.shape)))
    ours, theirs = _contour(pred), _contour(truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    crop = _bounds(ours | theirs)
    ours, theirs = ours[crop], theirs[crop]
    disk = _disk(radius)
    precision = np.count_nonzero(ours & _dilate(theirs, disk)) / np.count_nonzero(ours)
    recall = np.count_nonzero(theirs & _dilate(ours, disk)) / np.count_nonzero(theirs)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def hausdorff95(pred: MaskLike, truth: MaskLike) -> float:
    """95th percentile of the distances between the masks' border pixels, in both directions together.

    Border pixels are object pixels with a background pixel, or the outside, among their four neighbours. The
    percentile is taken of both directions' distances as one sample, as in MedPy's `hd95`; other definitions
    take the larger of two percentiles.

    Args:
        pred: `(H, W)`, binary.
        truth: `(H, W)`, binary.

    Returns:
        A distance in pixels; 0 if both masks are empty, infinity if only one is.

    Raises:
        MaskError: A mask is not a binary `(H, W)` array.
        SizeMismatchError: The sizes differ.
    """
    pred, truth = binary_pair(pred, truth)
    if not pred.any() or not truth.any():
        return 0.0 if pred.any() == truth.any() else math.inf
    crop = _bounds(pred | truth)
    ours, theirs = (mask[crop] & ~ndimage.binary_erosion(mask[crop]) for mask in (pred, truth))
    to_theirs = ndimage.distance_transform_edt(~theirs)[ours]
    to_ours = ndimage.distance_transform_edt(~ours)[theirs]
    return float(np.percentile(np.concatenate([to_theirs, to_ours]), 95))


def _bounds(mask: Mask, margin: int = 0) -> tuple[slice, slice]:
    """The smallest crop that holds all of the mask, widened by a margin; nothing if the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin),
    )


def _around_edges(mask: Mask, radius: int) -> tuple[slice, slice]:
    """The crop that decides every band of this radius: no pixel outside it has an edge within reach."""
    edge = np.zeros(mask.shape, np.bool_)
    edge[:-1] = mask[:-1] != mask[1:]
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    # One more, because an edge is marked at its upper left pixel only.
    return _bounds(edge, radius + 1)


def _band_accuracy(pred: Mask, truth: Mask, radius: int) -> float:
    ellipse = _opencv_ellipse(radius)
    # The gradient is positive exactly where the element covers object and background both.
    band = _dilate(truth, ellipse) & _dilate(~truth, ellipse)
    size = np.count_nonzero(band)
    return float(np.count_nonzero(band & (pred == truth)) / size) if size else math.nan


def _opencv_ellipse(radius: int) -> npt.NDArray[np.int_]:
    """Half widths of the rows 0 … radius off the centre of OpenCV's `MORPH_ELLIPSE` of size `2 * radius + 1`.

    Rounded to even at halves as OpenCV's `saturate_cast` does, which is what makes the element lopsided: 3x3
    is a cross, 5x5 is three full rows and two single pixels.
    """
    rows = np.arange(radius + 1)
    half_widths: npt.NDArray[np.int_] = np.rint(radius * np.sqrt((radius**2 - rows**2) / radius**2)).astype(int)
    return half_widths


def _disk(radius: int) -> npt.NDArray[np.int_]:
    """Half widths of the rows 0 … radius off the centre, of all pixels within a Euclidean distance."""
    return np.array([math.isqrt(radius**2 - row**2) for row in range(radius + 1)], dtype=np.int_)


def _dilate(mask: Mask, half_widths: npt.NDArray[np.int_]) -> Mask:
    """Dilate by a symmetric element that is given as one run a row; pixels outside the image are ignored.

    The mask is widened along its rows step by step, and each width is put where the element has it: about
    four passes a row of the element, where a dense footprint costs one for each of its pixels.

    Args:
        mask: `(H, W)` bool.
        half_widths: `(R + 1,)`, of the rows 0 … R off the centre.
    """
    grown = np.zeros_like(mask)
    widened = mask
    for half_width in range(int(half_widths.max()) + 1):
        if half_width:
            narrower, widened = widened, widened.copy()
            widened[:, 1:] |= narrower[:, :-1]
            widened[:, :-1] |= narrower[:, 1:]
        for row in np.flatnonzero(half_widths[: len(mask)] == half_width):
            grown[row:] |= widened[: len(mask) - row]
            grown[: len(mask) - row] |= widened[row:]
    return grown


def _rim(mask: Mask, width: int) -> Mask:
    """The mask without its erosion by a square of this radius, in an image surrounded by background."""
    crop = _bounds(mask)
    rim = mask.copy()
    rim[crop] &= ~_erode_rows(_erode_rows(mask[crop], width).T, width).T
    return rim


def _erode_rows(mask: Mask, radius: int) -> Mask:
    """Where all pixels up to `radius` rows away are object and inside the array."""
    runs: Mask = np.pad(mask, ((radius, radius), (0, 0)))
    length, full = 1, 2 * radius + 1
    while length < full:
        step = min(length, full - length)
        runs = runs[:-step] & runs[step:]
        length += step
    return runs


def _contour(mask: Mask) -> Mask:
    """Pixels that differ from their right, lower or lower right neighbour, as in D. Martin's `seg2bmap`."""
    contour = np.zeros_like(mask)
    contour[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    contour[:-1] |= mask[:-1] != mask[1:]
    contour[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return contour
