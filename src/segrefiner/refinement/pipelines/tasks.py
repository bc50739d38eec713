"""The masks that a pipeline refines, what it gives back, and calls checked and cut into groups."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import InputError
from ...imaging.boxes import Box, mask_box, whole_box
from ...imaging.codecs.option_checks import listed_boxes, shown
from ...imaging.reading import ImageSource, MaskSource, Photo, check_fits, read_mask, read_photo, warn_of
from ...model.diffusion import Network, OnProgress
from .acceptance import Reverted
from .batching import AdaptiveBatcher
from .canvas import PhotoRegion
from .config import PipelineConfig
from .views import find_objects

_GROUP = 64
_GROUP_PIXELS = 64_000_000
"""Masks that are refined together, at most, and pixels of them."""


@dataclass(frozen=True)
class PhotoPart:
    """Of a photo that is too large to be held: the pixels around one object.

    Attributes:
        window: Where they lie; they hold the object's `views.object_area` at least.
        objects: Boxes of the photo's objects in reading order, at least of those whose areas overlap that one.
        chosen: Which of them is refined.
    """

    window: PhotoRegion
    objects: tuple[Box, ...]
    chosen: int


@dataclass(frozen=True)
class MaskTask:
    """A coarse mask to refine.

    Attributes:
        image: `(3, H, W)` uint8, RGB.
        mask: `(H, W)` bool, the coarse mask, on the same device.
        seed: Of the thresholds that decide when a pixel moves to fine.
        box: Where the object lies, in photo pixels; then all of the mask is one object, seen as far as this box at
            least. By default parts of the mask that are far apart are objects of their own.
        notes: What was guessed in reading it, for its report.
        trust: In the coarse mask, from 0 to 1, see `options.Options`; `None` for that of the pipeline.
        part: Set where image and mask are a part of a photo, of which one object is refined as if all were there.
    """

    image: Tensor
    mask: Tensor
    seed: int = 0
    box: Box | None = None
    part: PhotoPart | None = None
    notes: tuple[str, ...] = ()
    trust: float | None = None

    def objects(self, config: PipelineConfig) -> list[Box]:
        """Boxes of the mask's objects."""
        if self.part:
            return list(self.part.objects)
        whole = mask_box(self.mask) if self.box else None
        return [whole.union(self.box)] if whole and self.box else find_objects(self.mask, config)


@dataclass(frozen=True)
class TaskResult:
    """What became of a job.

    Attributes:
        probability: `(H, W)` float32, of the refined mask.
        reverted: What was taken back of each object.
        evaluations: Views of it that the network saw, counted once per step.
        area: Outside of it, coarse mask and probability are zero; `None` where that is not known.
        owned: `(H, W)` bool, the pixels that the job is about; `None` for all. Others are as in the coarse mask.
    """

    probability: Tensor
    reverted: tuple[Reverted, ...]
    evaluations: int
    area: Box | None = None
    owned: Tensor | None = None


class Pipeline(Protocol):
    """A way through the photo: which views the network sees, at which scale, in which order."""

    def __call__(
        self,
        network: Network,
        jobs: Sequence[MaskTask],
        *,
        steps: int,
        batches: AdaptiveBatcher,
        on_progress: OnProgress,
    ) -> Iterator[TaskResult]:
        """Gives what becomes of each job, in order."""
        ...


def whole_boxes(boxes: Any, count: int, size: tuple[int, ...]) -> list[Box | None]:
    """The boxes of whole pixels around boxes, one for each of so many masks.

    Args:
        boxes: `(N, 4)` of any library, or N of four numbers each, `x0, y0, x1, y1` in pixels; `None` for none at all.
        count: N.
        size: `(height, width)` of the photo.

    Raises:
        InputError: They are not as described, or one lies outside of the photo.
    """
    if boxes is None:
        return [None] * count
    listed = listed_boxes(boxes)
    if len(listed) != count:
        raise InputError(f"{count} masks but {len(listed)} boxes: expected a box for each mask, or none at all")
    return [whole_box(box, size) for box in listed]


def triples(
    pairs: Iterable[tuple[ImageSource | Photo, MaskSource]],
) -> Iterator[tuple[ImageSource | Photo, MaskSource, Box | None]]:
    """The pairs without boxes. Raises `InputError` at what is no pair."""
    try:
        remaining = iter(pairs)
    except TypeError as error:
        raise InputError(
            f"pairs are {shown(pairs)}: expected photos with their masks, such as [(photo, mask)]"
        ) from error
    for index, pair in enumerate(remaining):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"pair {index} is {shown(pair)}: expected a photo and its mask")
        yield pair[0], pair[1], None


def same_photo(image: ImageSource | Photo, source: ImageSource | Photo) -> bool:
    """Whether two photos are the same object or the same path; arrays would be compared pixel by pixel."""
    both_paths = isinstance(image, str | PathLike) and isinstance(source, str | PathLike)
    return image is source or (both_paths and image == source)


def read_tasks(
    triples: Iterable[tuple[ImageSource | Photo, MaskSource, Box | None]],
    device: torch.device,
    seed: int,
    threshold: float | None,
) -> Iterator[MaskTask]:
    """Reads photos and their masks, each photo once where consecutive masks share it.

    Args:
        triples: Photos, masks and where their objects lie.
        device: Where photos go; masks stay on the CPU.
        seed: Of every task.
        threshold: Of `reading.read_mask`.

    Raises:
        InputError: At the pair that cannot be read or does not fit.

    Warns:
        InputWarning: Something of a pair had to be guessed, unless the photo has been read already.
    """
    source: ImageSource | Photo | None = None
    for image, mask, box in triples:
        if source is None or not same_photo(image, source):
            photo, source = read_photo(image), image
            pixels = torch.from_numpy(photo.srgb())
            if device.type == "cuda":
                pixels = pixels.pin_memory()
            on_device = pixels.to(device, non_blocking=True).permute(2, 0, 1)
        coarse = read_mask(mask, threshold=threshold)
        notes = check_fits(photo, coarse, mask_source=mask)
        # Who has read the photo asks the report; others may not.
        if not isinstance(image, Photo):
            warn_of(notes)
        yield MaskTask(on_device, torch.from_numpy(coarse), seed, box, notes=notes)


def next_group(jobs: Iterator[MaskTask]) -> tuple[list[MaskTask], Exception | None]:
    """The next jobs that are refined together: enough to fill batches, few enough for their results to fit.

    An error in making a job comes beside those before it, whose results shall not be lost.
    """
    group: list[MaskTask] = []
    pixels = 0
    try:
        for job in jobs:
            group.append(job)
            pixels += job.mask.numel()
            if len(group) == _GROUP or pixels >= _GROUP_PIXELS:
                break
    except Exception as error:
        return group, error
    return group, None


def nothing_to_do(coarse: Tensor) -> str:
    """Why a mask `(H, W)` bool, on the CPU, comes back as it is, or an empty string."""
    values = coarse.numpy()
    if not values.any():
        return "the mask is empty: returned as it is"
    if values.all():
        return "the mask covers the whole photo: returned as it is"
    return ""
