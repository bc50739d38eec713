"""What speaks for and against another label at the pixels along the contours of a label map.

A pixel near a contour may take the label of the nearest other region. What is measured of it is what the refined masks
of both labels say there and around; how much of its surroundings either label has; how strong the photo's edges are on
the contour as it is and as it would be; and how much of the whole map would change, and how stepped its contours are,
which tells exact maps from those of a low resolution.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from ..imaging.edges import EDGE_REACH, edge_strength
from ..imaging.ops import row_bands
from .label_regions import NEIGHBOURS, Regions

REACH = 8
"""How far from a contour a pixel may take another label, in pixels. Of 36 maps of street scenes from an eighth of the
resolution 98 % of the wrong pixels are nearer."""

_SIDES = 5, 11, 25
_WHOLE = ("corners", "moved_share", "edges", "edges_moved", "sureness", "moved_contour")
_OWN = ("current", "other", "opinion", "less_sure", "surer", "distance", "edge", "current_area", "other_area")
_AROUND = ("opinion", "moved", "edges", "edges_moved", "contour", "contour_moved", "current_share", "other_share")
FEATURES = (*_WHOLE, *_OWN, *(f"{name}_{side}" for side in _SIDES for name in _AROUND))


class LabelChanges:
    """The pixels along the contours of a label map, and what the refined masks say of them.

    Args:
        photo: `(H, W, 3)` uint8, RGB.
        regions: Of the coarse map.
        ignored: `(H, W)` bool, pixels of no label.

    Attributes:
        rows: `(n,)` int64, of the pixels within reach of a contour.
        columns: `(n,)` int64.
    """

    def __init__(self, photo: NDArray[np.uint8], regions: Regions, ignored: NDArray[np.bool_]) -> None:
        self._photo, self._regions = photo, regions
        self.rows, self.columns = np.nonzero((regions.distance <= REACH) & ~ignored)
        self._coarse = regions.coarse[self.rows, self.columns]
        self._nearest = regions.nearest[self.rows, self.columns]
        shape = regions.coarse.shape
        self._current, self._other = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._shares = np.zeros((2, len(_SIDES), len(self.rows)), np.float32)
        self._areas = np.zeros((2, len(self.rows)), np.float32)

    def add(self, value: int, probability: NDArray[np.float32] | None) -> None:
        """Takes in the refined probability `(H, W)` of a label, or `None` where the label is not refined."""
        regions = self._regions
        mask = regions.coarse == value
        if probability is None:
            self._current[mask] = 1
        else:
            np.copyto(self._current, probability, where=mask)
            np.copyto(self._other, probability, where=regions.nearest == value)
        area = np.log(max(1, int(mask.sum())))
        for index, here in enumerate((self._coarse == value, self._nearest == value)):
            rows, columns = self.rows[here], self.columns[here]
            if len(rows):
                self._areas[index, here] = area
                self._shares[index][:, here] = list(_shares_around(mask, rows, columns))

    @property
    def proposed(self) -> NDArray[np.bool_]:
        """`(H, W)`, where the refined mask of either label says otherwise than the map."""
        return (self._other >= 0.5) | (self._current < 0.5)

    def features(self) -> NDArray[np.float32]:
        """What is measured of each pixel, `(n, len(FEATURES))`, once all labels were taken in."""
        regions, rows, columns = self._regions, self.rows, self.columns
        contour = regions.distance == 0
        opinion = (self._other - self._current + 1) / 2
        moved = np.zeros(opinion.shape, bool)
        moved[rows, columns] = opinion[rows, columns] > 0.5
        after = _contour(np.where(moved, regions.nearest, regions.coarse))
        edges = photo_edges(self._photo)
        current, other = self._current[rows, columns], self._other[rows, columns]
        whole = (
            corner_share(regions.coarse),
            moved.sum() / max(1, int(contour.sum())),
            *(_mean(edges, line) for line in (contour, after)),
            _mean(np.abs(2 * opinion - 1), contour),
            _mean(moved, contour),
        )
        columns_of: list[NDArray[Any]] = [np.full(len(rows), value, np.float32) for value in whole]
        columns_of += [current, other, opinion[rows, columns], np.minimum(other, 1 - current)]
        columns_of += [np.maximum(other, 1 - current), regions.distance[rows, columns], edges[rows, columns]]
        columns_of += list(self._areas)
        for index, side in enumerate(_SIDES):
            columns_of += [_around(plane, side)[rows, columns] for plane in (opinion, moved)]
            lengths, sums = (
                [_around(plane * line, side)[rows, columns] for line in (contour, after)] for plane in (1.0, edges)
            )
            columns_of += [total / length.clip(1e-6) for total, length in zip(sums, lengths, strict=True)]
            columns_of += [*lengths, *self._shares[:, index]]
        return np.stack(columns_of, axis=1).astype(np.float32)


def _shares_around(
    mask: NDArray[np.bool_], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    """How much of the squares around pixels a mask has, square by square."""
    margin = _SIDES[-1] // 2
    top, left = max(0, int(rows.min()) - margin), max(0, int(columns.min()) - margin)
    part = mask[top : int(rows.max()) + margin + 1, left : int(columns.max()) + margin + 1]
    for side in _SIDES:
        yield _around(part, side)[rows - top, columns - left]


def _around(plane: NDArray[np.generic], side: int) -> NDArray[np.float32]:
    """Means in the squares of this side around each pixel; beyond the plane its border is repeated."""
    means: NDArray[np.float32] = ndimage.uniform_filter(plane.astype(np.float32), side, mode="nearest")
    return means


def _contour(labels: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Pixels with another label beside, above or below them."""
    contour = np.zeros(labels.shape, bool)
    for here, there in NEIGHBOURS:
        differ = labels[here] != labels[there]
        contour[here] |= differ
        contour[there] |= differ
    return contour


def corner_share(labels: NDArray[np.generic]) -> float:
    """The share of corners among the pixels that differ from the one above or to the left."""
    above = labels[1:, 1:] != labels[:-1, 1:]
    beside = labels[1:, 1:] != labels[1:, :-1]
    return float((above & beside).sum() / max(1, int((above | beside).sum())))


def photo_edges(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Strength `(H, W)` of a photo's edges, see `edges.edge_strength`; beyond the photo its border is repeated."""
    height, width = photo.shape[:2]
    margin = EDGE_REACH + 1
    result = np.empty((height, width), np.float32)
    for rows in row_bands(height, width):
        inside = np.clip(np.arange(rows.start - margin, rows.stop + margin), 0, height - 1)
        pixels = torch.from_numpy(photo[inside]).permute(2, 0, 1)[None].float() / 255
        wide = F.pad(pixels, (margin, margin, 0, 0), mode="replicate")
        result[rows] = edge_strength(wide)[0, 0].numpy()
    return result


def _mean(plane: NDArray[np.generic], where: NDArray[np.bool_]) -> float:
    return float(plane[where].mean()) if where.any() else 0.0
