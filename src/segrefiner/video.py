"""Videos: the masks of a clip's frames, each refined with the same random numbers at the same pixel.

Frames are a folder of pictures or a video file, masks a folder of masks or a video file of grey ones.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from .errors import ImageError, InputError, reason
from .folders import pictures_below
from .io import check_same_size, read_image, read_mask

if TYPE_CHECKING:
    from .refiner import Refiner, Result

STILL = 8.0
"""Difference of two frames, 0-255, of the mean over five by five pixels, up to which a pixel shows the same."""


def natural(path: Path) -> list[tuple[int, str]]:
    """Sorts names with numbers in them by the numbers: `frame2` before `frame10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.as_posix())]


def frames_of(source: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The frames of a clip in order, decoded one by one: name, without suffix, and `(H, W, 3)` uint8 RGB.

    Args:
        source: A folder of pictures, or a video file, whose frames are called by their number in six digits.

    Raises:
        InputError: There are none, or one cannot be read.
        MissingExtraError: It is a video file and PyAV is not installed.
    """
    if source.is_dir():
        for path in sorted(pictures_below(source), key=natural):
            yield path.with_suffix("").as_posix(), read_image(source / path)
        return
    for index, frame in enumerate(_decoded(source, "rgb24")):
        yield f"{index:06d}", frame


def masks_of(
    source: Path, names: Sequence[str] | None, threshold: float | None = None
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The masks of a clip in order, decoded one by one: name and `(H, W)` bool.

    Args:
        source: A folder of masks, or a video file, where grey of 128 and more is object.
        names: Of the frames, where they are a folder: the masks of these names, in this order.
        threshold: Of `read_mask`, for masks in a folder.

    Raises:
        InputError: A frame has no mask, or a mask cannot be read.
        MissingExtraError: It is a video file and PyAV is not installed.
    """
    if not source.is_dir():
        for index, grey in enumerate(_decoded(source, "gray")):
            yield f"{index:06d}", grey >= 128
        return
    paths = sorted(pictures_below(source), key=natural)
    if names is not None:
        by_name = {path.with_suffix("").as_posix(): path for path in paths}
        if missing := [name for name in names if name not in by_name]:
            raise InputError(f"{source} lacks the masks of {len(missing)} frames: {', '.join(missing[:5])}")
        paths = [by_name[name] for name in names]
    for path in paths:
        yield path.with_suffix("").as_posix(), read_mask(source / path, threshold=threshold)


def clip(
    frames: Path, masks: Path, threshold: float | None = None
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Frames with their masks.

    Args:
        frames: As for `frames_of`.
        masks: As for `masks_of`; of a folder of frames by name, of a video file in their order.
        threshold: Of `read_mask`.

    Raises:
        InputError: As they do, and for another number of masks than of frames or masks of another size.
        MissingExtraError: As they do.
    """
    in_folder = frames.is_dir() and masks.is_dir()
    names = None
    if in_folder:
        names = [path.with_suffix("").as_posix() for path in sorted(pictures_below(frames), key=natural)]
    pictures, coarse = frames_of(frames), masks_of(masks, names, threshold)
    for name, picture in pictures:
        mask = next(coarse, None)
        if mask is None:
            raise InputError(f"{masks} has fewer masks than {frames} has frames: frame {name} has none")
        check_same_size(picture, mask[1], image_source=f"frame {name}", mask_source=f"mask {mask[0]}")
        yield name, picture, mask[1]
    if not in_folder and next(coarse, None) is not None:
        raise InputError(f"{masks} has more masks than {frames} has frames")


def refine_video(
    refiner: "Refiner",
    frames: Iterable[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]],
    *,
    smooth: float = 0.0,
    **options: Any,
) -> Iterator[tuple[str, "Result"]]:
    """Refines the masks of a clip.

    Args:
        refiner: What refines. With the same seed for all frames, its random numbers are a function of the pixel.
        frames: Name, `(H, W, 3)` uint8 and coarse mask `(H, W)` bool of each, of one size; from `clip`.
        smooth: In [0, 1), how much of the frame before is kept where photo and coarse mask are the same as there: the
            weight of its probability. With 0 a frame's result depends on nothing but the frame.
        options: As of `Refiner.many`.

    Yields:
        Name and result of each frame, in order; few of them are in memory at a time.

    Raises:
        InputError: As `Refiner.many` does, and for another `smooth`.
    """
    if not 0 <= smooth < 1:
        raise InputError(f"smooth is {smooth!r}: expected a number from 0 to below 1")
    before: tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float32]] | None = None
    for name, picture, mask in frames:
        (result,) = refiner.many([(picture, mask)], **options)
        if smooth and before is not None and before[1].shape == mask.shape:
            same = still(before[0], picture) & (before[1] == mask)
            mixed = (1 - smooth) * result.probability + smooth * before[2]
            probability = np.where(same, mixed, result.probability).astype(np.float32)
            result = replace(result, probability=probability, mask=probability >= 0.5)
        before = picture, mask, result.probability
        yield name, result


def still(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels `(H, W)` bool that show the same in two frames `(H, W, 3)`, but for noise."""
    difference = second.astype(np.float32) - first
    blurred = uniform_filter(difference, size=(5, 5, 0))
    return np.asarray(np.abs(blurred).max(axis=2) <= STILL)


def flicker(frames: Iterable[tuple[NDArray[np.uint8], NDArray[np.bool_]]]) -> float:
    """How much masks change where the photo does not, in pixels per pixel of contour and frame.

    For consecutive frames t-1 and t with masks M, and S the pixels that show the same in both: the sum over t of
    `|{p in S: M_t(p) ≠ M_t-1(p)}|` over the sum of the lengths of the contours of `M_t` in S. Measures of video
    segmentation that match contours, such as DAVIS's temporal stability (Perazzi et al., CVPR 2016), also count what
    moves; where nothing moves, every change is an error.

    Args:
        frames: Photo `(H, W, 3)` uint8 and mask `(H, W)` bool of each.

    Returns:
        0 for masks that stay as they are, or where no contour is in a part that stays the same.
    """
    changed = length = 0
    before: tuple[NDArray[np.uint8], NDArray[np.bool_]] | None = None
    for picture, mask in frames:
        if before is not None:
            same = still(before[0], picture)
            changed += int(np.count_nonzero(same & (mask != before[1])))
            length += int(np.count_nonzero(same & _inner_contour(mask)))
        before = picture, mask
    return changed / length if length else 0.0


def _inner_contour(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask beside one that is not, above, below, left or right."""
    padded = np.pad(mask, 1, mode="edge")
    whole = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~whole


@contextmanager
def _opened(source: Path) -> Iterator[Any]:
    from .export import needed

    av = needed("av", "a video file", extra="video")
    if not source.is_file():
        raise ImageError(f"video {str(source)!r} does not exist: expected a file, or a folder of pictures")
    try:
        with av.open(str(source)) as container:
            if not container.streams.video:
                raise ImageError(f"video {str(source)!r} has no pictures in it")
            yield container
    except (av.error.FFmpegError, OSError) as error:
        raise ImageError(f"video {str(source)!r} cannot be read ({reason(error)})") from error


def _decoded(source: Path, form: str) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video file, turned as its metadata says. Raises `ImageError` for none."""
    empty = True
    with _opened(source) as container:
        for frame in container.decode(video=0):
            empty = False
            picture = frame.to_ndarray(format=form)
            # FFmpeg gives counter-clockwise degrees.
            yield np.ascontiguousarray(np.rot90(picture, round(getattr(frame, "rotation", 0) / 90)))
    if empty:
        raise ImageError(f"video {str(source)!r} has no frames")
