"""Masks of one photo's instances, kept from taking each other's pixels.

Every mask is refined by itself, so that two neighbours may both take the pixels between them, and one may take what is
the other's. Where their coarse masks do not overlap, refined masks shall not either.
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ..imaging.boxes import Box, mask_box
from .pipelines.acceptance import keep_label
from .report import Report, make_report

Coarse: TypeAlias = NDArray[np.bool_]
Probability: TypeAlias = NDArray[np.float32]

_NOBODY = -1
_FAST = 1
"""Level of compression: masks are mostly long runs, which any level packs."""


def separate(masks: Iterable[tuple[Coarse, Probability]]) -> Iterator[tuple[Probability, int]]:
    """Takes back what refined masks of one photo gain at each other's expense.

    A mask gains a pixel that its coarse mask lacks and its refined mask has, unless another mask had the pixel and
    keeps it, or gains it with as large a probability or a larger one. All else stays, so refined masks overlap at most
    where coarse ones do. Equal coarse masks are one instance that is listed several times: they do not compete with
    each other, and the largest of their probabilities is compared with other instances'.

    Time grows with the number of masks and the pixels of their boxes. Memory is three planes of the photo; the masks
    are held compressed.

    Args:
        masks: Coarse masks `(H, W)` bool with their refined probabilities `(H, W)` float32, all of one photo; all are
            read before the first result.

    Yields:
        In order, each mask's probability, just below one half where a pixel was taken back, and how many were.

    Raises:
        Exception: Whatever the iterable raises, after the results of all masks before.

    >>> from segrefiner.refinement.instances import separate
    >>> coarse = np.array([[True, False]]), np.array([[False, False]])
    >>> refined = np.array([[0.9, 0.6]], np.float32), np.array([[0.8, 0.7]], np.float32)
    >>> [(probability >= 0.5).tolist() for probability, lost in separate(zip(coarse, refined))]
    [[[True, False]], [[False, True]]]
    """
    for claims, one in _all_added(masks):
        probability, lost = claims.settled(one)
        yield probability, int(np.count_nonzero(lost))


def separate_reported(masks: Iterable[tuple[Coarse, Probability, Report]]) -> Iterator[tuple[Probability, Report]]:
    """`separate`, with reports that tell of the masks as they are then."""
    reports: list[Report] = []

    def without_reports() -> Iterator[tuple[Coarse, Probability]]:
        for coarse, probability, report in masks:
            reports.append(report)
            yield coarse, probability

    for index, (claims, one) in enumerate(_all_added(without_reports())):
        probability, lost = claims.settled(one)
        report = reports[index]
        yield probability, _retold(report, one, probability, lost) if lost.any() else report


def _retold(report: Report, one: "_Added", probability: Probability, lost: NDArray[np.bool_]) -> Report:
    """The report of a mask that has lost some pixels, of all that lies in the boxes of coarse mask and probability."""
    here, pixels = _slices(one.coarse.box.union(one.probability.box)), probability.size
    given, refined = one.coarse.unpacked()[here], probability[here]
    told = make_report(torch.from_numpy(given), torch.from_numpy(refined), (), far=0, unsure=0, pixels=pixels)
    return replace(
        report,
        changed=told.changed,
        agreement=told.agreement,
        largest_shift=told.largest_shift,
        confidence=told.confidence,
        predicted_gain=told.predicted_gain,
        ceded=int(np.count_nonzero(lost)) / pixels,
    )


def _all_added(masks: Iterable[tuple[Coarse, Probability]]) -> Iterator[tuple["_Claims", "_Added"]]:
    """Each mask when all have made their claims; an error of the iterable comes last."""
    claims: _Claims | None = None
    added: list[_Added] = []
    error: Exception | None = None
    try:
        for coarse, probability in masks:
            claims = claims or _Claims(coarse.shape)
            added.append(claims.add(coarse, probability))
    except Exception as failure:
        error = failure
    if claims is not None:
        yield from ((claims, one) for one in added)
    if error is not None:
        raise error


@dataclass(frozen=True)
class _Packed:
    """A plane `(H, W)` bool or float32, held compressed, and only the box around what is not zero.

    Equal planes are equal here.
    """

    data: bytes
    box: Box
    size: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, plane: NDArray[Any]) -> "_Packed":
        box = mask_box(torch.from_numpy(plane if plane.dtype == bool else plane != 0)) or Box(0, 0, 0, 0)
        part = plane[_slices(box)]
        content = np.packbits(part) if plane.dtype == bool else part
        return cls(zlib.compress(content.tobytes(), _FAST), box, plane.shape, plane.dtype)

    def unpacked(self) -> NDArray[Any]:
        content, count = zlib.decompress(self.data), self.box.width * self.box.height
        if self.dtype == bool:
            part = np.unpackbits(np.frombuffer(content, np.uint8), count=count).view(bool)
        else:
            part = np.frombuffer(content, self.dtype)
        plane = np.zeros(self.size, self.dtype)
        plane[_slices(self.box)] = part.reshape(self.box.height, self.box.width)
        return plane


def _slices(box: Box) -> tuple[slice, slice]:
    return slice(box.y0, box.y1), slice(box.x0, box.x1)


@dataclass(frozen=True)
class _Added:
    """A mask that has made its claims, with the number of its instance."""

    number: int
    coarse: _Packed
    probability: _Packed


class _Claims:
    """Who has each pixel of a photo.

    Attributes:
        kept: `(H, W)` bool, pixels that a mask had before it was refined and has still.
        best: `(H, W)` float32, the largest probability of the masks that gain a pixel.
        winner: `(H, W)` int32, the number of the mask whose that is; of equals nobody.
    """

    def __init__(self, size: tuple[int, ...]) -> None:
        self.kept = np.zeros(size, bool)
        self.best = np.zeros(size, np.float32)
        self.winner = np.full(size, _NOBODY, np.int32)
        self._numbers: dict[_Packed, int] = {}

    def add(self, coarse: Coarse, probability: Probability) -> _Added:
        """Enters what a mask keeps and what it would gain."""
        packed = _Packed.of(coarse), _Packed.of(probability)
        number = self._numbers.setdefault(packed[0], len(self._numbers))
        here = _slices(packed[1].box)
        had, values = coarse[here], probability[here]
        has = values >= 0.5
        stays = has & had
        if stays.any():
            self.kept[here] |= stays
        else:
            # A mask that moved away as a whole may be given back what it had.
            self.kept |= coarse
        gains = has & ~had
        best, winner = self.best[here], self.winner[here]
        winner[gains & (values == best) & (winner != number)] = _NOBODY
        more = gains & (values > best)
        winner[more], best[more] = number, values[more]
        return _Added(number, *packed)

    def settled(self, one: _Added) -> tuple[Probability, NDArray[np.bool_]]:
        """The probability `(H, W)` of a mask after all have been added, and in its box which pixels were taken back."""
        probability, here = one.probability.unpacked(), _slices(one.probability.box)
        had, values = one.coarse.unpacked()[here], probability[here]
        lost = (values >= 0.5) & ~had & (self.kept[here] | (self.winner[here] != one.number))
        values[lost] = keep_label(torch.zeros((), dtype=torch.bool), torch.from_numpy(values[lost])).numpy()
        return probability, lost
