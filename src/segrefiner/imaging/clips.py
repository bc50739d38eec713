"""Clips: the frames of a folder of pictures or of a video file, and their masks."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from ..errors import ImageError, InputError, reason
from .files import pictures_below
from .listing import list_pictures, same_names
from .reading import Photo, check_fits, check_same_size, read_mask, read_photo, warn_of

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

    >>> from segrefiner.imaging.clips import read_clip
    >>> for name, photo, mask in read_clip(Path("frames"), Path("frame_masks")):
    ...     print(name, mask.shape)
    0001 (96, 128)
    0002 (96, 128)
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


def still(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels `(H, W)` bool that show the same in two frames `(H, W, 3)`, but for noise."""
    difference = second.astype(np.float32) - first
    blurred = uniform_filter(difference, size=(5, 5, 0))
    return np.asarray(np.abs(blurred).max(axis=2) <= STILL)


@contextmanager
def _opened(source: Path) -> Iterator[Any]:
    from ..errors import import_extra

    if not source.is_file():
        raise ImageError(f"video {str(source)!r} does not exist: expected a file, or a folder of pictures")
    av = import_extra("av", "a video file", extra="video")
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
