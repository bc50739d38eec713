"""Videos: the masks of a clip's frames, each refined with the same random numbers at the same pixel.

Frames are a folder of pictures or a video file, masks a folder of masks or a video file of grey ones.
"""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, OutputError, reason
from .imaging.clips import still
from .imaging.codecs.option_checks import real_number
from .imaging.files import write_png
from .imaging.reading import ImageSource, Photo, check_fits, check_same_size, read_mask, read_photo, warn_of
from .metrics import binary_mask

if TYPE_CHECKING:
    from .refiner import Refiner, Result


def refine_video(
    refiner: "Refiner",
    frames: Iterable[tuple[str, ImageSource | Photo, NDArray[np.bool_]]],
    *,
    smooth: float = 0.0,
    **options: Any,
) -> Iterator[tuple[str, "Result"]]:
    """Refines the masks of a clip.

    The random numbers of all frames are the same function of the pixel, so that equal frames have equal results.

    Args:
        refiner: What refines.
        frames: Name, photo, as for `Refiner.many`, and coarse mask `(H, W)` bool of each; from `clip` or `read_clip`.
        smooth: In [0, 1), the weight `s` of the frame before in the probability `Q_t = s Q_t-1 + (1 - s) P_t`, at
            pixels where the photo is `still` and the coarse mask is the same as in the frame before; elsewhere
            `Q_t = P_t`. No motion is followed. With 0 a frame's result is that of a call of its own, see
            `Refiner.many`. Reports tell of the refinement before this.
        options: As of `Refiner.many`; one seed is that of all frames.

    Returns:
        Name and result of each frame, in order. Frames are read a group of `Refiner.many` ahead of the results, and
        one frame is remembered.

    Raises:
        InputError: As `Refiner.many` does, and for another `smooth`; what is asked for is checked at once.
    """
    smooth = real_number("smooth", smooth, 0, 1, below=True, expected="a number from 0 to below 1")
    waiting: deque[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]] = deque()

    def pairs() -> Iterator[tuple[Photo, NDArray[np.bool_]]]:
        for name, picture, mask in frames:
            photo, coarse = read_photo(picture), read_mask(mask, threshold=options.get("threshold"))
            if not isinstance(picture, Photo):
                warn_of(check_fits(photo, coarse))
            waiting.append((name, photo.pixels, coarse))
            yield photo, coarse

    results = refiner.many(pairs(), **options)
    return _smoothed(((*waiting.popleft(), result) for result in results), smooth)


def _smoothed(
    refined: Iterable[tuple[str, NDArray[np.uint8], NDArray[np.bool_], "Result"]], smooth: float
) -> Iterator[tuple[str, "Result"]]:
    before: tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float32]] | None = None
    for name, picture, mask, result in refined:
        if smooth and before is not None and before[1].shape == mask.shape:
            same = still(before[0], picture) & (before[1] == mask)
            mixed = (1 - smooth) * result.probability + smooth * before[2]
            probability = np.where(same, mixed, result.probability).astype(np.float32)
            result = replace(result, probability=probability, mask=probability >= 0.5)
        before = picture, mask, result.probability
        yield name, result


def write_masks(results: Iterable[tuple[str, "Result"]], folder: str | os.PathLike[str], *, soft: bool = False) -> int:
    """Writes each result to `folder/NAME.png` as it comes, whole or not at all.

    Args:
        results: From `refine_video`.
        folder: Made where there is none, and so are folders in names.
        soft: Write probabilities, 0-255, instead of masks, 0 and 255.

    Returns:
        How many.

    Raises:
        OutputError: A file or folder cannot be written.
    """
    count = 0
    for name, result in results:
        path = Path(folder, f"{name}.png")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder {str(path.parent)!r} cannot be made ({reason(error)})") from error
        write_png(path, result.probability if soft else result.mask)
        count += 1
    return count


def flicker(masks: Iterable[NDArray[np.bool_]], frames: Iterable[NDArray[np.uint8]]) -> float:
    """How much masks change where the photo does not: by how many pixels their contours jump from frame to frame.

    With the masks `M_t`, their contours `C_t` (pixels of the mask beside one that is not in it) and the pixels `S_t`
    that are `still` between the frames t-1 and t:

        sum over t of |{p in S_t: M_t(p) ≠ M_t-1(p)}|  /  sum over t of (|C_t ∩ S_t| + |C_t-1 ∩ S_t|) / 2

    A contour that goes back and forth by d pixels all along has a flicker of about d. The field has no one measure: the
    temporal stability of DAVIS (Perazzi et al., CVPR 2016) matches contours of consecutive frames by shape and counts
    motion and occlusion, too; the agreement with masks that optical flow has warped depends on a flow network and its
    errors. Where nothing moves, neither is needed, and every change is an error.

    Args:
        masks: `(H, W)` bool each.
        frames: Their photos, `(H, W, 3)` uint8.

    Returns:
        0 for masks that stay as they are where the photo does; infinity for changes without any contour there.

    Raises:
        InputError: There are more of one than of the other, or their sizes differ.
    """
    changed, length = 0, 0.0
    before: tuple[NDArray[np.bool_], NDArray[np.uint8]] | None = None
    for index, (mask, picture) in enumerate(zip_longest(masks, frames)):
        if mask is None or picture is None:
            raise InputError(f"flicker: the {'masks' if mask is None else 'frames'} end before number {index}")
        mask = binary_mask(mask, f"mask {index}")
        check_same_size(picture, mask, image_source=f"frame {index}", mask_source=f"mask {index}")
        if before is not None:
            check_same_size(before[1], mask, image_source=f"frame {index - 1}", mask_source=f"mask {index}")
            same = still(before[1], picture)
            changed += int(np.count_nonzero(same & (mask != before[0])))
            length += sum(int(np.count_nonzero(same & _inner_contour(one))) for one in (before[0], mask)) / 2
        before = mask, picture
    if not length:
        return math.inf if changed else 0.0
    return changed / length


def _inner_contour(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask beside one that is not, above, below, left or right."""
    padded = np.pad(mask, 1, mode="edge")
    whole = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~whole
