"""Photos whose true masks lie beside their edges: by how much, over a whole data set, and put right.

Published masks are now and then half a pixel off, as where one program counts pixels from their corners and another
from their centres, or a pixel too large, as where every pixel with a trace of the object was counted. No mask shows it,
but a network that learns from such masks cannot know which data set a photo is of, and its contours blur.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, sobel

from ..errors import InputError
from ..imaging.edges import EDGE_REACH, edge_gain, edge_strength
from ..imaging.shapes.distances import signed_distance
from .sources import Sample, Source, SourceWrapper, data_set_of, evenly

REACH = 2.5
STEP = 0.25
"""How far from a contour edges are looked for, and how finely, in pixels."""

LEAST_GAIN = 0.05
"""By what share of itself the strength of edges below the contours must rise where an offset is to be believed."""

_PHOTOS = 400
_LEAST_PHOTOS = 8
_POINTS = 3000
_LEAST_POINTS = 50
_STEPS = np.arange(-REACH, REACH + STEP / 2, STEP)


@dataclass(frozen=True)
class Offset:
    """Where masks lie, seen from the edges of their photos, in pixels.

    Attributes:
        right: How far they lie to the right.
        down: How far they lie below.
        outward: By how much they are too large, on every side.
    """

    right: float = 0.0
    down: float = 0.0
    outward: float = 0.0

    def __bool__(self) -> bool:
        return self != Offset()

    def __str__(self) -> str:
        named = ((self.right, "right", "left"), (self.down, "down", "up"), (self.outward, "outward", "inward"))
        return ", ".join(f"{abs(v):g} px {more if v > 0 else less}" for v, more, less in named if v) or "none"


def edge_profile(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Mean strength of edges (`edges.edge_strength`) on a mask's contour moved right, moved down, and grown.

    Args:
        image: `(H, W, 3)` uint8, RGB.
        mask: `(H, W)` bool.

    Returns:
        `(3, n)` in [0, 1), at moves from `-REACH` to `REACH` pixels by `STEP`; `None` where too little contour is far
        enough from the photo's border.
    """
    if mask.all() or not mask.any() or min(mask.shape) <= 2 * (EDGE_REACH + 1):
        return None
    distance = _smooth_distance(mask)
    points = np.concatenate([_crossings(distance, axis) for axis in (0, 1)])
    border = EDGE_REACH + 1 + REACH
    inside = ((points > border) & (points < np.array(mask.shape) - 1 - border)).all(axis=1)
    points = points[inside]
    if len(points) < _LEAST_POINTS:
        return None
    points = points[:: max(1, len(points) // _POINTS)]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    strength = edge_strength(pixels)[0, 0].numpy()
    slope = np.stack([map_coordinates(sobel(distance, axis), points.T, order=1) for axis in (0, 1)], axis=1)
    outward = -slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6)
    ways = (np.array([0.0, 1.0]), np.array([1.0, 0.0]), outward)

    def on(moved: NDArray[np.float64]) -> float:
        return float(map_coordinates(strength, moved.T - (EDGE_REACH + 1), order=1).mean())

    return np.array([[on(points + step * way) for step in _STEPS] for way in ways])


def _smooth_distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Signed distance `(H, W)` to the line that a contour's staircase of pixels stands for."""
    return gaussian_filter(signed_distance(mask), 0.7)


def _crossings(distance: NDArray[np.float32], axis: int) -> NDArray[np.float64]:
    """Places `(n, 2)`, row and column, between neighbours along an axis where the distance is zero."""
    before, after = (np.take(distance, np.arange(distance.shape[axis] - 1) + i, axis) for i in (0, 1))
    cross = (before > 0) != (after > 0)
    points = np.argwhere(cross).astype(np.float64)
    points[:, axis] += before[cross] / (before[cross] - after[cross])
    return points


def offset_of(profiles: Sequence[NDArray[np.float64]]) -> Offset:
    """The offset that masks of one data set share, from their `edge_profile`s; zero where edges do not clearly tell.

    Masks that are too large seem to be moved, too, wherever one side has stronger edges; so where they are, only that
    is believed.
    """
    if len(profiles) < _LEAST_PHOTOS:
        return Offset()
    mean = np.mean(profiles, axis=0)
    here = mean[:, len(_STEPS) // 2]
    best = _STEPS[mean.argmax(axis=1)]
    right, down, outward = np.where(mean.max(axis=1) > here * (1 + LEAST_GAIN), -best, 0.0).tolist()
    return Offset(outward=outward) if outward else Offset(right, down)


class Edges:
    """Looks at samples, and tells the offsets of the data sets that they are of, by `data_set_of` their names."""

    def __init__(self) -> None:
        self._profiles: dict[str, list[NDArray[np.float64]]] = {}

    def add(self, sample: Sample) -> None:
        """Looks at one more sample."""
        profile = edge_profile(sample.image, sample.mask)
        if profile is not None:
            self._profiles.setdefault(data_set_of(sample.name), []).append(profile)

    def offsets(self) -> dict[str, Offset]:
        """The offset of every data set that was seen, by name; zero where too few of its photos were."""
        return {name: offset_of(profiles) for name, profiles in self._profiles.items()}


def measure_offsets(
    source: Source, *, photos: int = _PHOTOS, progress: Callable[[Iterable[int]], Iterable[int]] = iter
) -> dict[str, Offset]:
    """Measures the offsets of a source's masks from some of its photos. Photos that cannot be read are passed over.

    Args:
        source: The photos.
        photos: How many are looked at, spread over the source.
        progress: Wraps the iteration over the photos' numbers, for a progress bar.

    Returns:
        The offset of each data set, by its name (`sources.data_set_of`).
    """
    edges = Edges()
    for index in progress(evenly(len(source), photos)):
        try:
            edges.add(source.read(index))
        except InputError:
            continue
    return edges.offsets()


def aligned(sample: Sample, offset: Offset) -> Sample:
    """The sample with the photo's edges where the true mask's contour is.

    A photo can be moved by half a pixel and a mask of whole pixels cannot, so that the photo is. A mask that is too
    large or too small loses or gains what is nearer to its contour than that, unless nothing would be left.
    """
    if offset.right or offset.down:
        picture = Image.fromarray(sample.image)
        back = (1.0, 0.0, -offset.right, 0.0, 1.0, -offset.down)
        moved = picture.transform(picture.size, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
        rows, columns = (
            np.clip(np.arange(side), max(0, np.ceil(off)), side - 1 + min(0, np.floor(off))).astype(int)
            for side, off in zip(sample.mask.shape, (offset.down, offset.right), strict=True)
        )
        # Beyond the photo its border is repeated.
        sample = replace(sample, image=np.ascontiguousarray(np.asarray(moved)[rows[:, None], columns]))
    if offset.outward:
        mask = _smooth_distance(sample.mask) > offset.outward
        mask = mask & sample.mask if offset.outward > 0 else mask | sample.mask
        if mask.any():
            sample = replace(sample, mask=mask)
    return sample


def aligned_by_name(sample: Sample, offsets: Mapping[str, Offset]) -> Sample:
    """The sample, `aligned` by the offset of the data set that its name says, if there is one."""
    return aligned(sample, offsets.get(data_set_of(sample.name), Offset()))


SNAP_REACH = 2.0
"""Pixels within which a truth's contour may be replaced by another mask's."""

SNAP_GAIN = 0.01
"""By how much more of the edges' strength (`edges.edge_gain`) must lie below the contour for that."""


def snap_truth(image: NDArray[np.uint8], truth: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Replace a truth's contour by another mask's where both are near and the photo's edges prefer the other one.

    Hand-drawn truths are right about what the object is and often a pixel or two beside its edge; a strong network's
    masks follow edges and may be wrong about the object. Where the two contours are within `SNAP_REACH` of each other
    they are of the same edge. Whole masks are judged: the other contour is taken where, over all such places, it lies
    on clearly stronger edges, and nowhere else.

    Args:
        image: `(H, W, 3)` uint8, RGB.
        truth: `(H, W)` bool.
        other: `(H, W)` bool, a mask of the same object.

    Returns:
        `(H, W)` bool; the truth itself where edges do not clearly prefer the other contour.
    """
    if truth.all() or not truth.any() or other.all() or not other.any():
        return truth
    near = (np.abs(signed_distance(truth)) <= SNAP_REACH) & (np.abs(signed_distance(other)) <= SNAP_REACH)
    snapped = np.where(near, other, truth)
    photo = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    gain = edge_gain(photo, torch.from_numpy(snapped), torch.from_numpy(np.array(truth)))
    return snapped if gain > SNAP_GAIN and (snapped != truth).any() else truth


@dataclass(frozen=True)
class Aligned(SourceWrapper):
    """A source whose masks' common offsets are taken away.

    Attributes:
        source: Where samples come from.
        offsets: By `data_set_of` their names, as `measure_offsets` finds them.
    """

    offsets: Mapping[str, Offset]

    def read(self, index: int) -> Sample:
        """One photo."""
        return aligned_by_name(self.source.read(index), self.offsets)
