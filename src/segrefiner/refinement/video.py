"""Videos: the masks of a clip's frames, each refined with the same random numbers at the same pixel.

Frames are a folder of pictures or a video file, masks a folder of masks or a video file of grey ones.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError, reason
from ..imaging.clips import still
from ..imaging.codecs.option_checks import real_number
from ..imaging.files import write_png
from ..imaging.reading import ImageSource, Photo, check_fits, read_mask, read_photo, warn_of

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

    >>> from segrefiner.imaging.clips import read_clip
    >>> frames = read_clip(Path("frames"), Path("frame_masks"))
    >>> for name, result in refine_video(refiner, frames, smooth=0.5):
    ...     print(name, result.mask.shape)
    0001 (96, 128)
    0002 (96, 128)
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

    >>> from segrefiner.imaging.clips import read_clip
    >>> from segrefiner.refinement.video import write_masks
    >>> frames = read_clip(Path("frames"), Path("frame_masks"))
    >>> write_masks(refine_video(refiner, frames), "refined")
    2
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
