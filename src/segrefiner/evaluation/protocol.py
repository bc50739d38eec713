"""Measuring masks against the truth: cases in, rows and figures of the whole set out.

A protocol is a list of cases (`segrefiner.evaluation.layouts` finds them in the layouts in which data sets are
published), a function that reads a mask and one that scores it. `measure` walks through the cases and yields one row
or one failure for each; `segrefiner.evaluation.results.Results` takes them in. Protocols whose items are no pictures of
their own, `segrefiner.evaluation.coco` and `segrefiner.evaluation.davis`, yield the same rows.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import InputError, MaskError, SegRefinerError, SizeMismatchError
from ..imaging.reading import read_image, read_mask, read_mask_values
from ..openmp import sleep_while_waiting
from . import dis_metrics, metrics

Array: TypeAlias = npt.NDArray[Any]
Mask: TypeAlias = npt.NDArray[np.bool_]
Grey: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class MetricInfo:
    """How a figure is shown."""

    name: str
    percent: bool = True
    higher_is_better: bool = True


METRICS = {
    "iou": MetricInfo("IoU"),
    "set_iou": MetricInfo("set IoU"),
    "dice": MetricInfo("Dice"),
    "mba": MetricInfo("mBA"),
    "boundary_iou": MetricInfo("boundary IoU"),
    "boundary_f": MetricInfo("boundary F"),
    "hausdorff95": MetricInfo("HD95 px", percent=False, higher_is_better=False),
    "max_f": MetricInfo("max F"),
    "set_max_f": MetricInfo("set max F"),
    "weighted_f": MetricInfo("weighted F"),
    "mae": MetricInfo("MAE %", higher_is_better=False),
    "s_measure": MetricInfo("S"),
    "e_measure": MetricInfo("E"),
    "hce": MetricInfo("HCE", percent=False, higher_is_better=False),
    "j": MetricInfo("J"),
    "j_recall": MetricInfo("J recall"),
    "j_decay": MetricInfo("J decay", higher_is_better=False),
    "f": MetricInfo("F"),
    "f_recall": MetricInfo("F recall"),
    "f_decay": MetricInfo("F decay", higher_is_better=False),
    "jf": MetricInfo("J&F"),
    **{
        f"{kind}ap{part}": MetricInfo(f"{title}AP{part.replace('_', ' ')}")
        for kind, title in (("", "mask "), ("boundary_", "boundary "))
        for part in ("", "50", "75", "_small", "_medium", "_large")
    },
}
"""Every figure that any protocol gives."""

MASK_METRICS = ("iou", "dice", "mba", "boundary_iou", "boundary_f", "hausdorff95")
"""What `score_mask` can give."""

SOFT_METRICS = ("iou", "mba", "max_f", "weighted_f", "mae", "s_measure", "e_measure", "hce")
"""What `score_soft` can give."""


@dataclass(frozen=True)
class Case:
    """One mask to be measured, and what belongs to it."""

    name: str
    truth: Path
    predicted: Path
    coarse: Path | None = None
    image: Path | None = None
    group: str = ""

    @property
    def paths(self) -> dict[str, str | None]:
        """Absolute paths by role."""
        roles = {"image": self.image, "truth": self.truth, "coarse": self.coarse, "predicted": self.predicted}
        return {role: None if path is None else os.path.abspath(path) for role, path in roles.items()}


@dataclass(frozen=True)
class Scores:
    """What one item scored.

    Args:
        values: Figures of the item, NaN where one is not defined.
        pools: Arrays that the set's figures are made of, by the figure's name; see `POOLED`.
    """

    values: dict[str, float]
    pools: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """One measured item."""

    name: str
    after: Scores
    before: Scores | None = None
    group: str = ""
    paths: dict[str, str | None] = field(default_factory=dict)
    label: int | None = None

    def gain(self, key: str) -> float:
        """By how much the prediction is better than the coarse mask; NaN if there is none."""
        if self.before is None:
            return math.nan
        return improvement(key, self.before.values[key], self.after.values[key])


@dataclass(frozen=True)
class Failure:
    """One item that could not be measured, and why, in one line."""

    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


def score_mask(predicted: Mask, truth: Mask, keys: Iterable[str] = MASK_METRICS) -> Scores:
    """Score a binary mask.

    Args:
        predicted: `(H, W)` bool.
        truth: `(H, W)` bool.
        keys: Which figures, of `MASK_METRICS`.

    Returns:
        The figures, and the set IoU's pool. Where only one mask is empty, the Hausdorff distance is the picture's
        diagonal, the largest there can be.

    Raises:
        SizeMismatchError: The sizes differ.
    """
    values = {key: float(getattr(metrics, key)(predicted, truth)) for key in keys}
    if math.isinf(values.get("hausdorff95", 0)):
        values["hausdorff95"] = math.hypot(*truth.shape)
    return Scores(values, {"set_iou": np.array(metrics.iou_counts(predicted, truth))})


def score_soft(predicted: Grey, truth: Mask, keys: Iterable[str] = SOFT_METRICS) -> Scores:
    """Score a grey prediction as DIS5K does.

    IoU and mBA look at the mask of all values from 128 on. Max F, weighted F, MAE, S and E look at the values
    stretched to the full range, as the published evaluation scripts stretch them; HCE looks at them as they are.

    Args:
        predicted: `(H, W)` uint8, 0-255.
        truth: `(H, W)` bool.
        keys: Which figures, of `SOFT_METRICS`.

    Returns:
        The figures, and the pools of set IoU and set max F.

    Raises:
        SizeMismatchError: The sizes differ.
    """
    keys = tuple(keys)
    mask = predicted >= 128
    values = score_mask(mask, truth, [key for key in keys if key in MASK_METRICS])
    soft = predicted / np.float32(255)
    low, high = soft.min(), soft.max()
    stretched = (soft - low) / (high - low) if high > low else soft
    figures, pools = dict(values.values), dict(values.pools)
    for key in keys:
        if key not in figures:
            figures[key] = float(getattr(dis_metrics, key)(soft if key == "hce" else stretched, truth))
    if "max_f" in keys:
        pools["set_max_f"] = np.stack(dis_metrics.precision_recall(stretched, truth))
    return Scores({key: figures[key] for key in keys}, pools)


def read_truth(path: Path, threshold: float | None = None) -> Mask:
    """Read a true mask: with the threshold only if it cannot be understood without.

    A prediction whose probabilities are all low is an empty mask, but a truth of 0 and 1 is a mask in any case.
    """
    try:
        return read_mask(path)
    except MaskError:
        if threshold is None:
            raise
        return read_mask(path, threshold=threshold)


def read_grey(path: Path) -> Grey:
    """Read a soft mask as `(H, W)` uint8, 0-255: its greys, or the opacity of what is partly transparent.

    Raises:
        InputError: The file cannot be read, or is coloured, or holds 0 and 1, which would count as empty.
    """
    pixels = read_image(read_mask_values(path))[..., 0]
    if pixels.max() == 1:
        raise MaskError(f"mask {str(path)!r} holds nothing above 1, expected grey values to 255; multiply it by 255")
    return pixels


def evaluate_cases(
    cases: Iterable[Case],
    read: Callable[[Path], Array],
    score: Callable[[Any, Mask], Scores],
    threshold: float | None = None,
    *,
    workers: int = 1,
) -> Iterator[Measurement | Failure]:
    """Score each case's masks, one case in memory at a time in each process.

    Args:
        cases: What to measure.
        read: Reads a predicted or coarse mask. With several workers, it and `score` are functions that can be
            pickled.
        score: Scores one, given the truth.
        threshold: For truths that cannot be understood without.
        workers: How many processes.

    Yields:
        In the order of the cases, a row, or a failure for a case of which a file cannot be read or has another size.
    """
    one = partial(_measured, read=read, score=score, threshold=threshold)
    if workers == 1:
        yield from map(one, cases)
    else:
        # Not forked: libraries that have started threads by now do not survive that.
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=sleep_while_waiting) as pool:
            try:
                yield from pool.map(one, cases)
            except BrokenProcessPool as error:
                raise SegRefinerError("a process died, mostly for lack of memory; use fewer --workers") from error


def _measured(
    case: Case, read: Callable[[Path], Array], score: Callable[[Any, Mask], Scores], threshold: float | None
) -> Measurement | Failure:
    try:
        truth = read_truth(case.truth, threshold)
        before = None if case.coarse is None else _scored(case.coarse, truth, read, score)
        after = _scored(case.predicted, truth, read, score)
    except InputError as error:
        return Failure(f"{case.group}/{case.name}" if case.group else case.name, str(error))
    return Measurement(case.name, after, before, case.group, case.paths)


def _scored(path: Path, truth: Mask, read: Callable[[Path], Array], score: Callable[[Any, Mask], Scores]) -> Scores:
    mask = read(path)
    check_size(mask, truth, path)
    return score(mask, truth)


def check_size(mask: Array, truth: Array, path: Path) -> None:
    """Raise SizeMismatchError, which names the mask's file, unless the two have one size."""
    if mask.shape != truth.shape:
        sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (mask, truth)]
        raise SizeMismatchError(
            f"mask {str(path)!r} is {sizes[0]} but the truth is {sizes[1]} (width x height): "
            "masks are compared pixel by pixel, so resize it or find the right one"
        )


def improvement(key: str, before: float, after: float) -> float:
    """By how much a figure got better, whichever way is better."""
    return after - before if METRICS[key].higher_is_better else before - after
