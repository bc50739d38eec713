"""Clips: the frames of a folder of pictures or of a video file, and their masks."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from ..errors import ImageError, InputError, reason
from .files import pictures_below
from .label_files import LabelMap, read_labels
from .listing import list_pictures, same_names
from .reading import Photo, check_fits, check_same_size, read_mask, read_photo, warn_of

M = TypeVar("M")

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
    for name, path in _masks_in_order(source, names, without):
        yield name, read_mask(path, threshold=threshold)


def _masks_in_order(source: Path, names: Sequence[str] | None, without: Path | None) -> Iterator[tuple[str, Path]]:
    """Names and paths of a folder's masks, as `masks_of` takes them."""
    paths = _by_name(source, without)
    if names is None:
        _check_numbers(source, paths)
        names = list(paths)
    meant = same_names(names, paths)
    if missing := [name for name in names if name not in meant]:
        raise InputError(f"{source} lacks {len(missing)} of {len(names)} masks: {_some(missing)}")
    for name in names:
        yield name, source / paths[meant[name]]


def label_maps_of(
    source: Path, names: Sequence[str] | None, *, without: Path | None = None
) -> Iterator[tuple[str, LabelMap]]:
    """The label maps of a clip in order, decoded one by one; a number is the same object in all of them.

    Args:
        source: A folder of label maps.
        names: As for `masks_of`.
        without: As for `frames_of`.

    Raises:
        InputError: As `masks_of` does; and for a video file, and for palettes that show one object in two colours.
    """
    if not source.is_dir():
        raise InputError(f"{source} is no folder: expected label maps as PNG, since videos store no numbers of objects")
    colours: dict[int, tuple[int, ...]] = {}
    first = None
    for name, path in _masks_in_order(source, names, without):
        label_map = read_labels(path)
        first = first or (name, label_map)
        if (label_map.palette is None) != (first[1].palette is None):
            with_palette, other = (first[0], name) if label_map.palette is None else (name, first[0])
            raise InputError(f"mask {with_palette} has a palette and {other} has none: expected one kind for all")
        for label, colour in _shown(label_map).items():
            if colours.setdefault(label, colour) != colour:
                raise InputError(
                    f"mask {name} shows {label} in the colour {colour}, an earlier one in {colours[label]}: expected "
                    "one palette for all frames, since the index says which object it is"
                )
        yield name, label_map


def _shown(label_map: LabelMap) -> dict[int, tuple[int, ...]]:
    """The colour of each label that a map has, where it has a palette."""
    palette = label_map.palette
    labels = [] if palette is None else np.unique(label_map.labels).tolist()
    return {label: tuple(palette[label].tolist()) for label in labels if palette is not None and label < len(palette)}


def holds_objects(masks: Path, *, without: Path | None = None) -> bool:
    """Whether a clip's masks are label maps of objects: whether a palette shows one in a colour that is no grey."""
    if not masks.is_dir():
        return False
    for path in _by_name(masks, without).values():
        # What cannot be read is told when its turn comes.
        with suppress(InputError):
            colours = _shown(read_labels(masks / path)).values()
            if any(len(set(colour[:3])) > 1 for colour in colours):
                return True
    return False


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
    names = _names(frames, masks, without)
    coarse = masks_of(masks, names, threshold, without=without)
    for name, photo, of, mask in _paired(frames, masks, coarse, without, exact=names is not None):
        check_same_size(photo.pixels, mask, image_source=f"frame {name}", mask_source=f"mask {of}")
        check_fits(photo, mask, mask_source=f"mask {of}")
        yield name, photo, mask


def read_object_clip(
    frames: Path, masks: Path, *, without: Path | None = None
) -> Iterator[tuple[str, Photo, LabelMap]]:
    """Frames and the label maps of their objects.

    Args:
        frames: As for `read_clip`.
        masks: A folder of label maps; see `label_maps_of`.
        without: As for `read_clip`.

    Raises:
        InputError: As `read_clip` and `label_maps_of` do.
        MissingExtraError: As `frames_of` does.
    """
    names = _names(frames, masks, without)
    coarse = label_maps_of(masks, names, without=without)
    for name, photo, of, label_map in _paired(frames, masks, coarse, without, exact=names is not None):
        check_same_size(photo.pixels, label_map.labels, image_source=f"frame {name}", mask_source=f"mask {of}")
        yield name, photo, label_map


def _names(frames: Path, masks: Path, without: Path | None) -> list[str] | None:
    """The names of frames, where both are folders and masks go by name."""
    return list(_by_name(frames, without)) if frames.is_dir() and masks.is_dir() else None


def _paired(
    frames: Path, masks: Path, coarse: Iterator[tuple[str, M]], without: Path | None, *, exact: bool
) -> Iterator[tuple[str, Photo, str, M]]:
    """Each frame's name, photo, and its mask with the mask's name; `exact` where there is a mask for each."""
    for name, photo in _photos_of(frames, without):
        mask = next(coarse, None)
        if mask is None:
            raise InputError(f"{masks} has fewer masks than {frames} has frames: frame {name} has none")
        yield name, photo, *mask
    if not exact and next(coarse, None) is not None:
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
