"""Videos: the masks of a clip's frames, each refined with the same random numbers at the same pixel.

Frames are a folder of pictures or a video file, masks a folder of masks or a video file of grey ones.
"""

import math
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice, pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from .errors import ImageError, InputError, OutputError, reason
from .folders import pictures_below
from .io import ImageSource, Photo, check_fits, check_same_size, read_mask, read_photo, warn_of
from .listing import list_pictures, same_names
from .metrics import binary_mask
from .options import real_number
from .output import write_png

if TYPE_CHECKING:
    from .refiner import Refiner, Result

STILL = 8.0
"""Difference of two frames, 0-255, of the mean over five by five pixels, up to which a pixel shows the same."""
_NAMED = 5
"""How many missing masks a message names."""
_CUT = 0.05
"""Share of a video's stated length that may be missing at its end."""


def natural(path: Path) -> list[tuple[int, str]]:
    """Sorts names with numbers in them by the numbers: `frame2` before `frame10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.as_posix())]


def frames_of(source: Path, *, without: Path | None = None) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The frames of a clip in order, decoded one by one: name, without suffix, and `(H, W, 3)` uint8 RGB.

    Args:
        source: A folder of pictures, or a video file, whose frames are called by their number in six digits.
        without: A folder in it that is not entered, such as that of the results.

    Raises:
        InputError: There are none, one cannot be read, or the video is cut short.
        MissingExtraError: It is a video file and PyAV is not installed.
    """
    for name, photo in _photos_of(source, without):
        warn_of(photo.notes)
        yield name, photo.pixels


def _photos_of(source: Path, without: Path | None = None) -> Iterator[tuple[str, Photo]]:
    """`frames_of`, with what there is to say of how each was read."""
    if source.is_dir():
        for name, path in _by_name(source, without).items():
            yield name, read_photo(source / path)
        return
    for index, frame in enumerate(_decoded(source, "rgb24")):
        yield f"{index:06d}", Photo(frame)


def masks_of(
    source: Path, names: Sequence[str] | None, threshold: float | None = None, *, without: Path | None = None
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The masks of a clip in order, decoded one by one: name and `(H, W)` bool.

    Args:
        source: A folder of masks, or a video file, where grey of 128 and more is object.
        names: Of the frames, where they are a folder: the masks of these names, in this order.
        threshold: Of `read_mask`, for masks in a folder.
        without: As for `frames_of`.

    Raises:
        InputError: A frame has no mask, a mask cannot be read, or numbers are missing among masks without `names`.
        MissingExtraError: It is a video file and PyAV is not installed.
    """
    if not source.is_dir():
        for index, grey in enumerate(_decoded(source, "gray")):
            yield f"{index:06d}", grey >= 128
        return
    paths = _by_name(source, without)
    if names is None:
        _check_numbers(source, paths)
        names = list(paths)
    meant = same_names(names, paths)
    if missing := [name for name in names if name not in meant]:
        raise InputError(f"{source} lacks {len(missing)} of {len(names)} masks: {_some(missing)}")
    for name in names:
        yield name, read_mask(source / paths[meant[name]], threshold=threshold)


def left_out(frames: Path, masks: Path, *, without: Path | None = None) -> dict[str, str]:
    """What of a clip's folders belongs to no frame, and why; nothing of video files.

    Args:
        frames: As for `clip`.
        masks: As for `clip`.
        without: As for `clip`.
    """
    listings = {folder: list_pictures(folder, without=without) for folder in (frames, masks) if folder.is_dir()}
    found = {entry.name: entry.reason for listing in listings.values() for entry in listing.left_out}
    if len(listings) == 2:
        names, paths = _by_name(frames, without), _by_name(masks, without)
        used = set(same_names(names, paths).values())
        found |= {str(masks / path): f"no frame in {frames} for it" for name, path in paths.items() if name not in used}
    return found


def _by_name(folder: Path, without: Path | None = None) -> dict[str, Path]:
    """A folder's pictures by path without suffix, in natural order. Raises `InputError` for two of one name."""
    found: dict[str, Path] = {}
    for path in sorted(pictures_below(folder, without=without).pictures, key=natural):
        other = found.setdefault(path.with_suffix("").as_posix(), path)
        if other is not path:
            raise InputError(f"{folder} holds {other} and {path}: expected one picture of each name")
    return found


def _check_numbers(folder: Path, names: Iterable[str]) -> None:
    """Raises `InputError` for masks that are numbered one by one with gaps, or with one number twice."""
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    found = [part for part in parts if part]
    if len(found) < len(parts) or len({(part[1], part[3]) for part in found}) > 1:
        return
    steps = list(pairwise(int(part[2]) for part in found))
    if twice := [first for first, second in steps if first == second]:
        raise InputError(f"{folder} holds two masks of number {twice[0]}: expected one for each frame")
    # Names may carry times instead, which are never one apart.
    if any(second - first == 1 for first, second in steps):
        between = (str(number) for first, second in steps for number in range(first + 1, second))
        if missing := _some(between):
            raise InputError(f"{folder} lacks masks of the numbers in between: {missing}")


def _some(names: Iterable[str]) -> str:
    first = list(islice(names, _NAMED + 1))
    return ", ".join(first[:_NAMED]) + (" …" if len(first) > _NAMED else "")


def read_clip(
    frames: Path, masks: Path, threshold: float | None = None, *, without: Path | None = None
) -> Iterator[tuple[str, Photo, NDArray[np.bool_]]]:
    """Frames, with what there is to say of how each was read, and their masks.

    Args:
        frames: As for `frames_of`.
        masks: As for `masks_of`; of a folder of frames by name, of a video file in their order.
        threshold: Of `read_mask`.
        without: As for `frames_of`.

    Raises:
        InputError: As they do, and for another number of masks than of frames or masks of another size.
        MissingExtraError: As they do.
    """
    in_folder = frames.is_dir() and masks.is_dir()
    names = list(_by_name(frames, without)) if in_folder else None
    photos, coarse = _photos_of(frames, without), masks_of(masks, names, threshold, without=without)
    for name, photo in photos:
        mask = next(coarse, None)
        if mask is None:
            raise InputError(f"{masks} has fewer masks than {frames} has frames: frame {name} has none")
        check_same_size(photo.pixels, mask[1], image_source=f"frame {name}", mask_source=f"mask {mask[0]}")
        check_fits(photo, mask[1], mask_source=f"mask {mask[0]}")
        yield name, photo, mask[1]
    if not in_folder and next(coarse, None) is not None:
        raise InputError(f"{masks} has more masks than {frames} has frames")


def clip(
    frames: Path, masks: Path, threshold: float | None = None, *, without: Path | None = None
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Frames `(H, W, 3)` uint8 with their masks; arguments and errors are those of `read_clip`.

    Warns:
        InputWarning: Something of a frame or its mask had to be guessed.
    """
    for name, photo, mask in read_clip(frames, masks, threshold, without=without):
        warn_of(check_fits(photo, mask))
        yield name, photo.pixels, mask


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


def still(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels `(H, W)` bool that show the same in two frames `(H, W, 3)`, but for noise."""
    difference = second.astype(np.float32) - first
    blurred = uniform_filter(difference, size=(5, 5, 0))
    return np.asarray(np.abs(blurred).max(axis=2) <= STILL)


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


@contextmanager
def _opened(source: Path) -> Iterator[Any]:
    from .errors import needed

    if not source.is_file():
        raise ImageError(f"video {str(source)!r} does not exist: expected a file, or a folder of pictures")
    av = needed("av", "a video file", extra="video")
    try:
        with av.open(str(source)) as container:
            if not container.streams.video:
                raise ImageError(f"video {str(source)!r} has no pictures in it")
            # Some versions of PyAV crash where they should say so.
            if container.streams.video[0].codec_context is None:
                raise ImageError(f"video {str(source)!r} is of a kind that PyAV cannot decode; convert it")
            yield container
    except (av.error.FFmpegError, OSError) as error:
        raise ImageError(
            f"video {str(source)!r} cannot be read ({error.strerror or reason(error)}); is it whole?"
        ) from error


def _decoded(source: Path, form: str) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video file, turned as its metadata says. Raises `ImageError` for none, or for a part of them."""
    count, end = 0, 0.0
    with _opened(source) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.pts is not None and packet.duration:
                end = max(end, float((packet.pts + packet.duration) * packet.time_base))
            # Some decoders leave out what a damaged packet held, and all later masks would be of other frames.
            if packet.is_corrupt:
                raise ImageError(f"video {str(source)!r} is damaged or cut short after {count} frames")
            for frame in packet.decode():
                count += 1
                picture = frame.to_ndarray(format=form)
                # FFmpeg gives counter-clockwise degrees.
                yield np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))
        stated = _stated_seconds(stream.metadata)
    if not count:
        raise ImageError(f"video {str(source)!r} has no frames")
    # Some files say nothing of how long frames are.
    if 0 < end < (1 - _CUT) * stated:
        raise ImageError(f"video {str(source)!r} is cut short: {end:.2f} of {stated:.2f} seconds, {count} frames")


def _stated_seconds(metadata: dict[str, str]) -> float:
    """How long a track of a Matroska file says it is, or 0: without its end, such a file reads like a shorter one."""
    found = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", metadata.get("DURATION", ""))
    return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3]) if found else 0.0
