"""The object on its own: a photo and its probabilities to a picture with alpha, without the background's colours."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ImageError, MaskError, import_extra
from ..imaging.boxes import mask_box
from ..imaging.codecs.arrays import as_numpy
from ..imaging.reading import check_same_size

_MARGIN = 32
"""Pixels around the object from which the background's colours are learned."""


def cutout(image: Any, probability: Any) -> NDArray[np.uint8]:
    """Cuts the object out of a photo.

    A pixel on the object's edge shows some of the background, which would stay behind as a fringe on any other one.
    There the object's own colours are estimated instead, by Germer et al., Fast Multi-Level Foreground Estimation,
    2020, on the part of the photo around the object. Opaque pixels keep the photo's colours.

    Args:
        image: `(H, W, 3)` uint8, RGB, 0-255, an array or tensor of any library.
        probability: `(H, W)` float in [0, 1], such as `Result.probability`: how much of a pixel is the object. A bool
            mask is 0 and 1.

    Returns:
        `(H, W, 4)` uint8, RGBA, not premultiplied; alpha is `255 * probability`, rounded, and what is wholly
        transparent is black.

    Raises:
        ImageError: The photo is not as described.
        MaskError: The probabilities are not as described, or have NaN.
        SizeMismatchError: Photo and probabilities differ in size.
        MissingExtraError: PyMatting is not installed.

    >>> from segrefiner.imaging.reading import read_image
    >>> photo = read_image("photo.jpg")
    >>> picture = cutout(photo, refiner(photo, "coarse.png").probability)
    >>> picture.shape, picture.dtype
    ((96, 128, 4), dtype('uint8'))
    """
    image, probability = _checked(image, probability)
    pymatting = import_extra("pymatting", "cutting objects out", extra="matting")
    alpha = np.rint(np.asarray(probability, np.float32) * 255).astype(np.uint8)
    result = np.zeros((*alpha.shape, 4), np.uint8)
    seen = mask_box(torch.from_numpy(alpha > 0))
    if seen is None:
        return result
    box = seen.grow(_MARGIN).clip(*alpha.shape)
    part = (slice(box.y0, box.y1), slice(box.x0, box.x1))
    colours, opacity = image[part], alpha[part][..., None]
    own = _object_colours(pymatting, colours, opacity[..., 0])
    colours = np.where(opacity == 255, colours, own)
    result[part] = np.concatenate([colours * (opacity > 0), opacity], axis=2)
    return result


def _checked(image: Any, probability: Any) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    image, probability = as_numpy(image), as_numpy(probability)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError(f"image is {image.dtype} {image.shape}: expected (H, W, 3) uint8, as io.read_image gives it")
    if probability.ndim != 2 or probability.dtype.kind not in "bf":
        raise MaskError(
            f"probability is {probability.dtype} {probability.shape}: expected (H, W) float, as Result.probability is"
        )
    check_same_size(image, probability)
    # Written so that NaN fails too.
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1):
        raise MaskError(
            f"probability lies in {probability.min():.6g} to {probability.max():.6g}: expected [0, 1]; "
            "check what made it, or apply a sigmoid if these are logits"
        )
    return image, probability


def _object_colours(pymatting: Any, colours: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What `(H, W, 3)` uint8 would show where `(H, W)` uint8 is less than 255, were the object alone there."""
    if alpha.size == 1:
        return colours  # A pixel without neighbours tells nothing, and the estimate has no levels for it.
    one = np.float32(255)
    own = pymatting.estimate_foreground_ml(colours / one, alpha / one)
    return np.asarray(np.rint(own * one), np.uint8)
