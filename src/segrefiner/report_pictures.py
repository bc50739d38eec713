"""The pictures of a report: what a refinement changed, and where masks are wrong."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError
from .evaluate import Array, Mask, check_size, read_truth
from .evaluate_davis import read_labels
from .imaging.reading import check_same_size, read_image, read_mask
from .rendering.markdown import Json
from .rendering.overlay import overlay

_FALSE_COLOUR, _MISSED_COLOUR = (240, 80, 60), (60, 130, 250)


@dataclass(frozen=True)
class Picture:
    """Something to look at: `(H, W, 3)` uint8, and what it is."""

    pixels: Array
    caption: str


def case_pictures(data: Json, row: Json) -> list[Picture]:
    """Before and after, and where each mask is wrong.

    Args:
        data: An evaluation.
        row: One of its rows, with paths.

    Returns:
        The refinement's overlay if there is a coarse mask, and the errors of every mask.

    Raises:
        InputError: A mask cannot be read any more, or has another size.
    """
    paths, label = row["paths"], row.get("label")
    truth = _mask(Path(paths["truth"]), data["threshold"], label, is_truth=True)
    masks = {}
    for role in ("coarse", "predicted"):
        if paths.get(role):
            masks[role] = _mask(Path(paths[role]), data["threshold"], label)
            check_size(masks[role], truth, Path(paths[role]))
    photo, note = _photo(paths.get("image"), truth)
    pictures = []
    if "coarse" in masks:
        pictures.append(Picture(overlay(photo, masks["coarse"], masks["predicted"]), f"Before and after{note}"))
    window = object_window(np.logical_or.reduce([truth, *masks.values()]))
    errors = [show_errors(photo[window], mask[window], truth[window]) for mask in masks.values()]
    gap = np.full((errors[0].shape[0], max(1, errors[0].shape[1] // 80), 3), 255, np.uint8)
    joined = errors[0] if len(errors) == 1 else np.concatenate([errors[0], gap, errors[1]], axis=1)
    named = " and ".join(masks)
    pictures.append(Picture(joined, f"Errors of the {named} mask: missed in blue, false in red{note}"))
    return pictures


def _mask(path: Path, threshold: float | None, label: int | None, *, is_truth: bool = False) -> Mask:
    if label is not None:
        found: Mask = read_labels(path) == label
        return found
    return read_truth(path, threshold) if is_truth else read_mask(path, threshold=threshold)


def _photo(path: str | None, truth: Mask) -> tuple[Array, str]:
    """The photo, or the truth in greys if there is none, and what to add to the caption."""
    try:
        if path:
            photo = read_image(path)
            check_same_size(photo, truth, image_source=path)
            return photo, ""
        problem = "no photo was given"
    except InputError:
        problem = "the photo could not be read"
    greys = np.where(truth, np.uint8(205), np.uint8(120))
    return np.repeat(greys[..., None], 3, axis=2), f" ({problem}; light is the truth)"


def object_window(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns of the mask, with a margin; all of them for an empty mask."""
    if not mask.any():
        return slice(None), slice(None)
    spans = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    margin = max(8, max(int(np.ptp(span)) for span in spans) // 10)
    rows, columns = (slice(max(0, int(span[0]) - margin), int(span[-1]) + 1 + margin) for span in spans)
    return rows, columns


def show_errors(photo: Array, mask: Mask, truth: Mask) -> Array:
    """The photo in greys `(H, W, 3)` uint8, what the mask has too much in red and what it misses in blue."""
    grey = photo.mean(axis=2, keepdims=True).astype(np.float32)
    canvas = np.repeat(grey * 0.6 + 40, 3, axis=2)
    for wrong, colour in ((mask & ~truth, _FALSE_COLOUR), (truth & ~mask, _MISSED_COLOUR)):
        canvas[wrong] = 0.25 * canvas[wrong] + 0.75 * np.array(colour, np.float32)
    return canvas.astype(np.uint8)
