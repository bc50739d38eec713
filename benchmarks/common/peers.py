"""The other ways to refine a mask, each a function of photo and coarse mask, as their users would run them.

Every one works on the crop around the mask, in a band along its contour that is as wide as the object's size asks for.
Their few numbers were chosen on photos that are not in the results. Libraries are imported when a method is prepared,
so that one that is absent takes no other with it.
"""

import io
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.common.coarse_kinds import Mask, Photo, extent
from segrefiner.imaging.shapes.distances import signed_distance

Refine: TypeAlias = Callable[[Photo, Mask], Mask]
Floats: TypeAlias = NDArray[np.floating[Any]]

BAND = 0.06
"""Half the width of the band that a method may change, as a share of the object's extent."""

MATTING_PIXELS = 400_000
"""Matting solves a sparse system over all pixels of the crop; larger crops are shrunk to this for it."""


class UnavailableError(Exception):
    """A method cannot run here; the message says what is absent."""


def morphology() -> Refine:
    """Opening, closing and a majority vote by discs and squares of 2 % of the extent: no look at the photo."""

    def refine(image: Photo, coarse: Mask) -> Mask:
        radius = max(1.0, 0.02 * extent(coarse))
        opened = _dilate(~_dilate(~coarse, radius), radius)
        closed = ~_dilate(~_dilate(opened, radius), radius)
        return ndimage.uniform_filter(closed.astype(np.float32), 2 * round(radius) + 1) >= 0.5

    return refine


def _dilate(mask: Mask, radius: float) -> Mask:
    return ndimage.distance_transform_edt(~mask) <= radius if mask.any() else mask


def grabcut() -> Refine:
    """GrabCut, five rounds, free only in the band along the contour."""
    cv2 = _library("cv2", "opencv-python-headless")

    def refine(image: Photo, coarse: Mask) -> Mask:
        here, distance, band = _surroundings(coarse)
        states = np.where(distance > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        states[distance > band], states[distance < -band] = cv2.GC_FGD, cv2.GC_BGD
        cv2.setRNGSeed(0)
        background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
        photo = np.ascontiguousarray(image[here])
        cv2.grabCut(photo, states, None, background, foreground, 5, cv2.GC_INIT_WITH_MASK)
        return _pasted(coarse, here, (states == cv2.GC_FGD) | (states == cv2.GC_PR_FGD))

    return refine


def guided_filter() -> Refine:
    """The colour guided filter (He et al., 2013) of the coarse mask, cut at one half."""

    def refine(image: Photo, coarse: Mask) -> Mask:
        here, distance, band = _surroundings(coarse)
        values = _guided(image[here] / 255, (distance > 0).astype(float), round(2 * band), 1e-4)
        return _pasted(coarse, here, values >= 0.5)

    return refine


def _guided(guide: Floats, values: Floats, radius: int, epsilon: float) -> Floats:
    """Section 3.5 of the paper: `values` `(H, W)` as local linear functions of the colours `guide` `(H, W, 3)`."""

    def mean(planes: Floats) -> Floats:
        size = (2 * radius + 1,) * 2 + (1,) * (planes.ndim - 2)
        return ndimage.uniform_filter(planes, size)

    guide_mean, values_mean = mean(guide), mean(values)
    products = mean(guide[..., :, None] * guide[..., None, :])
    covariance = products - guide_mean[..., :, None] * guide_mean[..., None, :] + epsilon * np.eye(3)
    with_values = mean(guide * values[..., None]) - guide_mean * values_mean[..., None]
    slope = np.linalg.solve(covariance, with_values[..., None])[..., 0]
    offset = values_mean - (slope * guide_mean).sum(axis=-1)
    return (mean(slope) * guide).sum(axis=-1) + mean(offset)


def dense_crf() -> Refine:
    """A dense CRF (Kraehenbuehl and Koltun, 2011), ten rounds, its unary term the distance to the coarse contour."""
    _library("pydensecrf", "pydensecrf2")
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_softmax

    def refine(image: Photo, coarse: Mask) -> Mask:
        here, distance, band = _surroundings(coarse)
        height, width = distance.shape
        inside = 0.5 + 0.48 * np.tanh(distance / band)
        crf = DenseCRF2D(width, height, 2)
        crf.setUnaryEnergy(unary_from_softmax(np.stack([1 - inside, inside]).astype(np.float32)))
        crf.addPairwiseGaussian(sxy=3, compat=3)
        photo = np.ascontiguousarray(image[here])
        crf.addPairwiseBilateral(sxy=max(10.0, band), srgb=10, rgbim=photo, compat=4)
        labels = np.argmax(np.array(crf.inference(10)), axis=0)
        return _pasted(coarse, here, labels.reshape(height, width) == 1)

    return refine


def closed_form() -> Refine:
    """Closed-form matting (Levin et al., 2008) of the band as a trimap's unknown part, cut at one half."""
    return _matting("estimate_alpha_cf")


def knn() -> Refine:
    """KNN matting (Chen et al., 2013) of the band as a trimap's unknown part, cut at one half."""
    return _matting("estimate_alpha_knn")


def _matting(solver: str) -> Refine:
    estimate = getattr(_library("pymatting", "pymatting"), solver)

    def refine(image: Photo, coarse: Mask) -> Mask:
        here, distance, band = _surroundings(coarse)
        # A trimap needs some certain object: at the very least the object's innermost pixels.
        inner = min(band, 0.7 * float(distance.max()))
        trimap = np.where(distance > inner, 1.0, np.where(distance < -band, 0.0, 0.5))
        photo = image[here]
        shrink = min(1.0, math.sqrt(MATTING_PIXELS / trimap.size))
        size = (max(1, round(shrink * trimap.shape[1])), max(1, round(shrink * trimap.shape[0])))
        small = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX)) / 255
        known = np.asarray(Image.fromarray(trimap.astype(np.float32)).resize(size, Image.Resampling.NEAREST))
        # It prints whenever its preconditioner needs another try.
        with redirect_stdout(io.StringIO()):
            matte = estimate(small, known.astype(float), cg_kwargs={"rtol": 1e-5})
        full = Image.fromarray(matte.astype(np.float32)).resize(trimap.shape[::-1], Image.Resampling.BILINEAR)
        return _pasted(coarse, here, np.where(trimap == 0.5, np.asarray(full) >= 0.5, trimap == 1))

    # Compiles the solver, which would otherwise count as the first mask's seconds.
    square = np.zeros((32, 32), bool)
    square[8:24, 8:24] = True
    refine(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8), square)
    return refine


def cascade_psp() -> Refine:
    """CascadePSP (Cheng et al., CVPR 2020) with its authors' weights, if both are on this machine."""
    library = _library("segmentation_refinement", "segmentation-refinement")
    weights = Path.home() / ".segmentation-refinement" / "model"
    if not weights.is_file():
        raise UnavailableError(f"its weights are not at {weights}, and this benchmark downloads none")
    import torch

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    refiner = library.Refiner(device=device, download_and_check_model=False)

    def refine(image: Photo, coarse: Mask) -> Mask:
        # Red first, as in its training; the example in its README gives it blue first.
        return refiner.refine(image, coarse.astype(np.uint8) * 255) > 127

    return refine


PEERS: dict[str, Callable[[], Refine]] = {
    "morphology": morphology,
    "guided-filter": guided_filter,
    "grabcut": grabcut,
    "dense-crf": dense_crf,
    "closed-form": closed_form,
    "knn": knn,
    "cascadepsp": cascade_psp,
}


def _library(module: str, package: str) -> Any:
    try:
        return __import__(module)
    except ImportError as error:
        raise UnavailableError(f"not installed ({error}); run: pip install {package}") from error


def _surroundings(coarse: Mask) -> tuple[tuple[slice, slice], Floats, float]:
    """The crop that holds the mask with context, the signed distance to its contour there, and half the band."""
    band = max(3.0, BAND * extent(coarse))
    margin = math.ceil(3 * band)
    rows, columns = np.flatnonzero(coarse.any(axis=1)), np.flatnonzero(coarse.any(axis=0))
    here = (
        slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
        slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
    )
    return here, signed_distance(coarse[here]), band


def _pasted(coarse: Mask, here: tuple[slice, slice], refined: Mask) -> Mask:
    result = coarse.copy()
    result[here] = refined
    return result
