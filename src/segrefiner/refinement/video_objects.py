"""Videos of several objects: each object's mask refined over time, and one object decided for each pixel."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..imaging.clips import still
from ..imaging.codecs.option_checks import real_number
from ..imaging.label_conventions import VOID
from ..imaging.label_files import LabelMap
from ..imaging.reading import Photo, check_fits

if TYPE_CHECKING:
    from .refiner import Refiner, Result


@dataclass(frozen=True)
class RefinedObjects:
    """A frame's refined objects.

    Attributes:
        label_map: With the palette that was given.
        objects: The labels of the frame's objects.
        vanished: Objects of which no pixel is left.
        warnings: What had to be guessed of the photo, one sentence each.
    """

    label_map: LabelMap
    objects: tuple[int, ...]
    vanished: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Frame:
    name: str
    photo: Photo
    label_map: LabelMap
    background: int
    objects: tuple[int, ...]
    warnings: tuple[str, ...]


def refine_objects(
    refiner: "Refiner",
    frames: Iterable[tuple[str, Photo, LabelMap]],
    *,
    ignore: Sequence[int] = (VOID,),
    smooth: float = 0.0,
    **options: Any,
) -> Iterator[tuple[str, RefinedObjects]]:
    """Refines the objects of a clip.

    A label is one object in all frames; it may come and go. No object takes a pixel that another one had and keeps, and
    what an object gives up is background.

    Args:
        refiner: What refines.
        frames: Name, photo and label map of each, from `clips.read_object_clip`. The background is the first label that
            the palette shows as transparent, else 0 where that is black, else the first in black, else 0.
        ignore: Labels that are neither objects nor background. Their pixels stay, and none is added to them.
        smooth: As for `refine_video`, for each object by itself.
        options: As of `Refiner.many`.

    Returns:
        Name and refined objects of each frame, in order.

    Raises:
        InputError: As `refine_video` does.
    """
    smooth = real_number("smooth", smooth, 0, 1, below=True, expected="a number from 0 to below 1")
    waiting: deque[_Frame] = deque()

    def pairs() -> Iterator[tuple[Photo, NDArray[np.bool_]]]:
        for name, photo, label_map in frames:
            frame = _frame(name, photo, label_map, ignore)
            waiting.append(frame)
            yield from ((photo, label_map.labels == one) for one in frame.objects)

    return _decided(waiting, refiner.many(pairs(), **options), ignore, smooth)


def _frame(name: str, photo: Photo, label_map: LabelMap, ignore: Sequence[int]) -> _Frame:
    labels, background = label_map.labels, _background(label_map.palette)
    if background in ignore:
        raise InputError(f"the background of mask {name} is {background}, which is ignored: ignore another label")
    objects = tuple(one for one in np.unique(labels).tolist() if one != background and one not in ignore)
    warnings = check_fits(photo, np.isin(labels, objects), mask_source=f"mask {name}") if objects else photo.notes
    return _Frame(name, photo, label_map, background, objects, warnings)


def _background(palette: NDArray[np.uint8] | None) -> int:
    """The label of no object: the same in all frames, whatever labels they have."""
    if palette is None:
        return 0
    if palette.shape[1] == 4 and not palette[:, 3].all():
        return int(np.flatnonzero(palette[:, 3] == 0)[0])
    black = np.flatnonzero(~palette[:, :3].any(axis=1))
    return int(black[0]) if len(black) else 0


def _decided(
    waiting: deque[_Frame], results: Iterator["Result"], ignore: Sequence[int], smooth: float
) -> Iterator[tuple[str, RefinedObjects]]:
    """Each frame when the results of all its objects are there; frames without objects wait for no result."""
    before: tuple[_Frame, dict[int, NDArray[np.float32]]] | None = None
    for result in results:
        while not waiting[0].objects:
            frame = waiting.popleft()
            before = None
            yield frame.name, RefinedObjects(frame.label_map, (), warnings=frame.warnings)
        frame = waiting.popleft()
        found = {frame.objects[0]: result.probability}
        found |= {one: next(results).probability for one in frame.objects[1:]}
        if smooth and before is not None:
            found = _smoothed(frame, found, *before, smooth)
        before = frame, found
        yield frame.name, _joined(frame, found, ignore)
    for frame in waiting:
        yield frame.name, RefinedObjects(frame.label_map, (), warnings=frame.warnings)


def _smoothed(
    frame: _Frame,
    found: dict[int, NDArray[np.float32]],
    earlier: _Frame,
    known: dict[int, NDArray[np.float32]],
    smooth: float,
) -> dict[int, NDArray[np.float32]]:
    labels, others = frame.label_map.labels, earlier.label_map.labels
    if labels.shape != others.shape:
        return found
    quiet = still(earlier.photo.pixels, frame.photo.pixels)
    result = {}
    for one, probability in found.items():
        if one in known:
            same = quiet & ((labels == one) == (others == one))
            mixed = (1 - smooth) * probability + smooth * known[one]
            probability = np.where(same, mixed, probability).astype(np.float32)
        result[one] = probability
    return result


def _joined(frame: _Frame, found: dict[int, NDArray[np.float32]], ignore: Sequence[int]) -> RefinedObjects:
    from .instances import separate

    labels = frame.label_map.labels
    refined = np.full_like(labels, frame.background)
    coarse = ((labels == one, probability) for one, probability in found.items())
    for one, (probability, _) in zip(found, separate(coarse), strict=True):
        refined[probability >= 0.5] = one
    hidden = np.isin(labels, np.array([*ignore], np.int64))
    refined[hidden] = labels[hidden]
    left = set(np.unique(refined).tolist())
    vanished = tuple(one for one in frame.objects if one not in left)
    label_map = LabelMap(refined, frame.label_map.palette, frame.label_map.mode)
    return RefinedObjects(label_map, frame.objects, vanished, frame.warnings)
