"""The regions of a label map, what lies beside each pixel, and which labels are too much work to be refined.

All of it takes time and memory in proportion to the map's pixels, whatever the labels are.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .cost import label_costs
from .pipelines.views import SPECK

Labels: TypeAlias = NDArray[np.integer[Any]]

_SCATTERED = 200.0, 400.0
"""Views of the network, and more for each megapixel, beyond which specks of a map are left as they are.

420 drawn maps of street scenes, exact and from a quarter of the resolution, are estimated at less than a half of it;
noise of ten labels at more than all of it.
"""
_MOST = 1000.0, 16000.0
"""The same beyond which whole labels are left: a thousand objects of 20 pixels touching each other take a half."""

NEIGHBOURS = (np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])
"""The pixels with a neighbour to the left and these, and those with one above and these."""


class Regions:
    """The regions of a label map, and what lies beside each pixel.

    Attributes:
        values: The labels.
        coarse: `(H, W)`, the label map.
        nearest: `(H, W)`, the label of the nearest pixel that has another one.
        distance: `(H, W)` float32, of each pixel from the nearest that has another label beside, above or below it.
        ground: The label that all others touch and nothing else; none where there is no such label.
    """

    def __init__(self, labels: Labels, ignored: NDArray[np.bool_], values: list[int]) -> None:
        self.values = values
        self.coarse = labels
        if ignored.any():
            # What is ignored between two regions does not keep them apart.
            labels = _filled(labels, ignored)
        index = np.searchsorted(values, labels).astype(np.int32)
        regions, label_of, _ = components(index)
        only = _only_neighbour(regions, index, len(label_of))
        rest = values.index(background(labels, np.zeros(labels.shape, bool)))
        self.ground = values[rest] if bool((only[label_of != rest] == rest).all()) else None
        across, self.distance = _across(index)
        self.nearest = np.asarray(values, labels.dtype)[index.reshape(-1)[across]]


@dataclass(frozen=True)
class Bounded:
    """A label map, of which no more is to be refined than what bounded work allows.

    Attributes:
        labels: `(H, W)`, without the specks: they have the label that is nearest.
        specks: `(H, W)` bool, pixels that are to keep their label; `None` for none.
        kept: Labels that are not refined.
        notes: What is left as it is, and why, one sentence each.
    """

    labels: Labels
    specks: NDArray[np.bool_] | None = None
    kept: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


def bounded(labels: Labels, ignored: NDArray[np.bool_], values: list[int]) -> Bounded:
    """Leaves out what would take more work than the pixels of a map are worth: specks, then the costliest labels.

    Args:
        labels: `(H, W)`.
        ignored: `(H, W)` bool, pixels of no label.
        values: The labels of all others, rising.
    """
    numbers = _numbers(labels, ignored, values)
    costs = label_costs(numbers, len(values))
    if costs.sum() <= _allowed(_SCATTERED, labels.size):
        return Bounded(labels)
    specks: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    regions, _, area = components(numbers)
    small = (area < SPECK)[regions] & ~ignored
    if small.any():
        specks, notes = small, (_speck_note(len(np.unique(regions[small]))),)
        remaining = np.unique(labels[~(small | ignored)])
        if len(remaining) < 2:
            return Bounded(labels, specks, frozenset(values), notes)
        labels = np.where(small, _filled(labels, small | ignored), labels)
        costs = label_costs(_numbers(labels, ignored, values), len(values))
    most = _allowed(_MOST, labels.size)
    if costs.sum() <= most:
        return Bounded(labels, specks, notes=notes)
    order = np.argsort(costs, kind="stable")
    kept = frozenset(values[i] for i in order[costs[order].cumsum() > most])
    notes += (f"{len(kept)} of {len(values)} labels are left as they are: refining all would take too much work",)
    return Bounded(labels, specks, kept, notes)


def _speck_note(count: int) -> str:
    return f"{count} regions of fewer than {SPECK} pixels are left as they are: noise is much work for nothing"


def _allowed(views: tuple[float, float], pixels: int) -> float:
    always, per_megapixel = views
    return always + per_megapixel * pixels / 1e6


def _numbers(labels: Labels, ignored: NDArray[np.bool_], values: list[int]) -> NDArray[np.int32]:
    """`(H, W)`, places in the list of labels; of ignored pixels the one behind it."""
    return np.where(ignored, len(values), np.searchsorted(values, labels)).astype(np.int32)


def _filled(labels: Labels, hidden: NDArray[np.bool_]) -> Labels:
    """The map with hidden pixels that have the label of the nearest other pixel."""
    nearest = ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return labels[tuple(nearest)]


def components(index: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Connected regions of equal numbers; diagonal neighbours are connected.

    Args:
        index: `(H, W)`, 0 or more.

    Returns:
        `(H, W)` numbers of regions from 0, and of each region its pixels' number and how many they are.
    """
    begins = np.ones(index.shape, bool)
    begins[:, 1:] = index[:, 1:] != index[:, :-1]
    # Runs within rows are far fewer than pixels; regions are runs that touch runs of the next row.
    runs = (np.cumsum(begins.reshape(-1), dtype=np.int32) - 1).reshape(index.shape)
    number_of = index[begins]
    pairs = []
    for above, below in (
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:-1, 1:], np.s_[1:, :-1]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
    ):
        equal = index[above] == index[below]
        one, other = runs[above][equal], runs[below][equal]
        new = np.ones(len(one), bool)
        new[1:] = (one[1:] != one[:-1]) | (other[1:] != other[:-1])
        pairs.append((one[new], other[new]))
    rows, columns = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(number_of), len(number_of)))
    count, region_of = connected_components(graph, directed=False)
    label_of = np.empty(count, np.int32)
    label_of[region_of] = number_of
    regions = region_of.astype(np.int32)[runs]
    return regions, label_of, np.bincount(regions.reshape(-1), minlength=count)


def _only_neighbour(regions: NDArray[np.int32], index: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """Of each region the number that all pixels have with which it shares a side; -1 where they have several."""
    low, high = np.full(count, np.iinfo(np.int32).max, np.int32), np.full(count, -1, np.int32)
    for here, there in NEIGHBOURS:
        differ = index[here] != index[there]
        for one, other in ((here, there), (there, here)):
            np.minimum.at(low, regions[one][differ], index[other][differ])
            np.maximum.at(high, regions[one][differ], index[other][differ])
    return np.where(low == high, low, -1).astype(np.int32)


def _across(index: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """`(H, W)`, the place in the flat array of a pixel just across the nearest contour, and how far the contour is."""
    places = np.arange(index.size).reshape(index.shape)
    across = np.full(index.shape, -1)
    for here, there in NEIGHBOURS:
        differ = index[here] != index[there]
        across[here][differ] = places[there][differ]
        across[there][differ] = places[here][differ]
    distance, rim = ndimage.distance_transform_edt(across < 0, return_indices=True)
    beside = across[tuple(rim)]
    # A pixel between two contours may be nearest to the far side of one.
    lies_across = index.reshape(-1)[beside] == index
    return np.where(lies_across, places[tuple(rim)], beside), distance.astype(np.float32)


def background(labels: Labels, ignored: NDArray[np.bool_]) -> int:
    """The label with most pixels at the border; the whole map decides where it has none, or between equals."""
    counts: Counter[int] = Counter()
    for line in (0, -1):
        for edge, hidden in ((labels[line], ignored[line]), (labels[:, line], ignored[:, line])):
            counts.update(dict(zip(*(v.tolist() for v in np.unique(edge[~hidden], return_counts=True)), strict=True)))
    values, areas = np.unique(labels[~ignored], return_counts=True)
    return int(max(zip(values, areas, strict=True), key=lambda pair: (counts[int(pair[0])], pair[1]))[0])
