"""Label Studio's requests: which photo a task has, and which of its regions are refined.

A task comes with drafts, annotations and predictions, each a list of results; a result that is a brush or polygon is a
region. In a batch, the regions of a task's newest prediction are refined, else those of its newest annotation. An
annotator who sets a keypoint or draws a rectangle gets one region refined: a brush or polygon among what was drawn just
now; else one of the newest draft, else of the newest annotation, else of the newest prediction, whichever has regions.
Of several regions `choose` takes one.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, MaskError
from ...formats.documents import Instance
from ...formats.labelstudio import result_instance
from ...formats.masks import decode_mask, finite
from ...imaging.coco_masks import encode_rle
from ...imaging.codecs.decoder_process import within_limits
from ...imaging.files import Json

_INTERACTIVE = ("drafts", "annotations", "predictions")
_BATCH = ("predictions", "annotations")
_NAMES = {"drafts": "draft", "annotations": "annotation", "predictions": "prediction"}
_CONFIG_LETTERS = 1_000_000


@dataclass(frozen=True)
class Region:
    """A brush or polygon of a task.

    Attributes:
        result: As Label Studio has it.
        instance: Its mask and label.
    """

    result: Json
    instance: Instance


@dataclass(frozen=True)
class Prompt:
    """What an annotator has just set, in per cent of the photo.

    Attributes:
        points: `(x, y, positive)` of keypoints.
        box: `x0, y0, x1, y1` around the rectangles, if there are any.
        label: Of the first that has one, or an empty string.
    """

    points: tuple[tuple[float, float, bool], ...]
    box: tuple[float, float, float, float] | None
    label: str


@dataclass(frozen=True)
class Regions:
    """The regions among which a request chooses.

    Attributes:
        regions: All of one source.
        source: What that is, such as "draft".
        unread: Why regions beside them cannot be read.
        others: Results of the same source that are no regions, or cannot be read.
    """

    regions: tuple[Region, ...]
    source: str
    unread: tuple[str, ...] = ()
    others: tuple[Json, ...] = ()


def regions_of(task: Json, *, context: Sequence[Any] | None, own_version: str) -> Regions:
    """The regions of a task that are to be refined, or of which one is.

    Args:
        task: As Label Studio sends it.
        context: What an annotator has just drawn, or `None` in a batch.
        own_version: Predictions of this version are our own; a batch does not refine them again.

    Raises:
        InputError: There are none; the message says what to do.
    """
    unread: list[str] = []
    place = None if context is None else next((_place(one) for one in _dicts(list(context)) if "to_name" in one), None)
    if context is not None:
        found = _read(context, "drawing", unread, None)
        if found.regions:
            return found
    for name in _BATCH if context is None else _INTERACTIVE:
        listed = [one for one in _dicts(task.get(name)) if not one.get("was_cancelled")]
        if name == "predictions" and context is None:
            listed = [one for one in listed if one.get("model_version") != own_version]
        for _, one in sorted(enumerate(listed), key=_age, reverse=True):
            found = _read(one.get("result"), _NAMES[name], unread, place)
            if found.regions:
                return found
    why = f" ({unread[0]})" if unread else ""
    if context is None:
        raise InputError(f"the task has no prediction or annotation with a brush or polygon{why}: import some")
    raise InputError(
        f"the task has no brush or polygon to refine{why}: draw one, wait until the draft is saved, repeat"
    )


def _place(result: Json) -> tuple[str, int]:
    """On which of a task's photos a result is: its tag, and the page where the tag shows several."""
    page = result.get("item_index")
    return str(result.get("to_name")), page if isinstance(page, int) else 0


def _read(results: Any, source: str, unread: list[str], place: tuple[str, int] | None) -> Regions:
    """The regions among results, on one photo where a place is given; what cannot be read is added to `unread`."""
    regions, others, wrong = [], [], []
    for index, result in enumerate(_dicts(results)):
        name = f"{source} result {index}"
        if place is not None and _place(result) != place:
            others.append(result)
            continue
        try:
            instance = result_instance(name, name, result)
        except MaskError as error:
            wrong.append(f"{name}: {error}")
            others.append(result)
            continue
        if instance is None:
            others.append(result)
        else:
            regions.append(Region(result, instance))
    unread += wrong
    return Regions(tuple(regions), source, tuple(wrong), tuple(others))


def _age(numbered: tuple[int, Json]) -> tuple[str, int]:
    """By this the newest is last: by its time, or else by its place in the list."""
    index, one = numbered
    told = one.get("updated_at") or one.get("created_at")
    return (told if isinstance(told, str) else "", index)


def _dicts(value: Any) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def prompt_of(context: Sequence[Any]) -> Prompt:
    """The keypoints and rectangles among what an annotator has drawn, in any order."""
    points: list[tuple[float, float, bool]] = []
    corners: list[tuple[float, float]] = []
    label = ""
    for result in _dicts(list(context)):
        value = result.get("value")
        if not isinstance(value, dict):
            continue
        x, y = finite(value.get("x")), finite(value.get("y"))
        width, height = finite(value.get("width")), finite(value.get("height"))
        kind = str(result.get("type"))
        if x is None or y is None:
            continue
        if "keypoint" in kind:
            points.append((x, y, bool(result.get("is_positive", True))))
        elif "rectangle" in kind and width is not None and height is not None:
            corners += _corners(result, x, y, width, height)
        named = value.get(kind)
        if not label and isinstance(named, list) and named and isinstance(named[0], str):
            label = named[0]
    if not corners:
        return Prompt(tuple(points), None, label)
    across, down = [x for x, _ in corners], [y for _, y in corners]
    return Prompt(tuple(points), (min(across), min(down), max(across), max(down)), label)


def _corners(result: Json, x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    """Of a rectangle that may be turned about its upper left corner, by the photo's own pixels."""
    across, down = finite(result.get("original_width")) or 1.0, finite(result.get("original_height")) or 1.0
    angle = math.radians(finite(result["value"].get("rotation")) or 0.0)
    found = []
    for dx, dy in ((0.0, 0.0), (width, 0.0), (0.0, height), (width, height)):
        px, py = dx * across, dy * down
        turned = px * math.cos(angle) - py * math.sin(angle), px * math.sin(angle) + py * math.cos(angle)
        found.append((x + turned[0] / across, y + turned[1] / down))
    return found


def decode_regions(
    stored: Sequence[Json], labels: Sequence[str], prompt: list[Any] | None, most: tuple[int, int]
) -> list[list[Any]]:
    """The masks of regions, for a decoding process, which runs without PyTorch.

    Args:
        stored: Masks as `Instance.mask` has them, with their size.
        labels: Of the regions.
        prompt: The fields of the `Prompt` by which one region is chosen; `None` for all of them.
        most: Pixels that a mask may have, and all that are kept.

    Returns:
        `[index, RLE as JSON, notes]` of each region; where a mask cannot be read, no RLE and the reason.

    Raises:
        MaskError: The regions are larger than that; or the prompt suits none of those that can be read.
    """
    sizes = [(int(one["size"][0]), int(one["size"][1])) for one in stored]
    total = sum(height * width for height, width in sizes)
    for height, width in sizes:
        if height * width > most[0] or total > most[1]:
            raise MaskError(
                f"{len(stored)} regions of a photo of {width}x{height} are more than this server takes: expected "
                f"{most[0] / 1e6:g} megapixels and {most[1] / 1e6:g} of all regions together"
            )
    found: list[list[Any]] = []
    ranks = []
    with within_limits(total):
        for index, (one, size) in enumerate(zip(stored, sizes, strict=True)):
            try:
                mask, notes = decode_mask(one, size)
            except MaskError as error:
                found.append([index, "", [str(error)]])
                continue
            if prompt is not None:
                ranks.append((rank(mask, labels[index], Prompt(*prompt)), index))
            found.append([index, json.dumps(encode_rle(mask)), list(notes)])
    if prompt is None:
        return found
    if not ranks:
        raise MaskError(f"none of the {len(stored)} regions can be read: {found[0][2][0]}")
    (_, apart, *_), chosen = min(ranks)
    if apart == 1:
        raise MaskError("the rectangle meets no brush or polygon: draw it around one")
    return [found[chosen]]


def rank(mask: NDArray[np.bool_], label: str, prompt: Prompt) -> tuple[float, ...]:
    """How well a region suits a prompt: the lowest is chosen, the first of equals.

    Counts, in this order: keypoints on the wrong side of its edge; how little its area and the rectangle have in common
    (IoU); another label than the prompt's; how far positive keypoints are from the box around it; its area.
    """
    height, width = mask.shape
    area = int(np.count_nonzero(mask))
    missed, far = 0, 0.0
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    for x, y, positive in prompt.points:
        column, row = _pixel(x, width), _pixel(y, height)
        missed += bool(mask[row, column]) != positive
        if positive and area:
            across = max(columns[0] - column, 0, column - columns[-1])
            down = max(rows[0] - row, 0, row - rows[-1])
            far += math.hypot(across, down)
    apart = 0.0
    if prompt.box is not None:
        x0, y0, x1, y1 = pixel_box(prompt.box, (height, width))
        inside = int(np.count_nonzero(mask[y0:y1, x0:x1]))
        apart = 1 - inside / max(1, area + (x1 - x0) * (y1 - y0) - inside)
    return (missed, apart, bool(prompt.label) and label != prompt.label, far, area)


def pixel_box(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """`x0, y0, x1, y1` of a box in per cent, in whole pixels inside the photo, one at least on each side."""
    height, width = size
    x0, y0 = _pixel(box[0], width), _pixel(box[1], height)
    x1, y1 = (min(side, max(0, math.ceil(end * side / 100))) for end, side in ((box[2], width), (box[3], height)))
    return x0, y0, max(x0 + 1, x1), max(y0 + 1, y1)


def _pixel(per_cent: float, side: int) -> int:
    return min(side - 1, max(0, math.floor(per_cent * side / 100)))


def photo_address(task: Json, result: Json, config: Any) -> str:
    """Where the photo of a region is: what the Image tag that the region is on takes from the task's data.

    Args:
        task: With `data`.
        result: Of the region; its `to_name` names the tag, its `item_index` the page of a tag that shows several.
        config: The labelling configuration, XML.

    Raises:
        InputError: The task does not say it.
    """
    data = task.get("data")
    if not isinstance(data, dict):
        raise InputError("the task has no data: expected an object that names a photo")
    variables = _image_variables(config)
    tag, page = _place(result)
    name = variables.get(tag) or next(iter(variables.values()), "image")
    address = data.get(name)
    if isinstance(address, list):
        if not 0 <= page < len(address):
            raise InputError(f"the region is on photo {page + 1} of {len(address)} in {name[:40]!r}: correct the task")
        address = address[page]
    elif page:
        raise InputError(f"the region is on photo {page + 1}, but {name[:40]!r} names one: correct the task")
    if not isinstance(address, str) or not address:
        raise InputError(f"the task's data has no {name[:40]!r}: expected the address of a photo")
    return address


def _image_variables(config: Any) -> Mapping[str, str]:
    """The data that each Image tag shows, by the tag's name. What is no such configuration has none."""
    # Entities could make of it what no request holds; a labelling configuration has none.
    if not isinstance(config, str) or len(config) > _CONFIG_LETTERS or re.search(r"<!(DOCTYPE|ENTITY)", config, re.I):
        return {}
    try:
        tags = list(ElementTree.fromstring(config).iter("Image"))
    except (ElementTree.ParseError, ValueError, RecursionError):
        return {}
    shown = {tag.get("name", ""): tag.get("valueList", tag.get("value", "")) for tag in tags}
    return {name: variable[1:] for name, variable in shown.items() if variable.startswith("$")}
