"""What data sets mean by their label maps: which labels are no class, and where segments are stored as colours."""

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .label_files import read_labels

VOID = 255
"""The label that is no class unless something else is known."""


@dataclass(frozen=True)
class LabelConvention:
    """How a data set stores label maps.

    Attributes:
        name: Of the data set and its files.
        ignore: Labels that are no class.
        meaning: What those stand for.
        as_colours: Whether three bytes of colour are one number, that of a segment.
    """

    name: str
    ignore: tuple[int, ...]
    meaning: str
    as_colours: bool = False

    def sentence(self) -> str:
        """What was recognised, and how to decide otherwise, in one line."""
        numbers = ", ".join(map(str, self.ignore))
        return f"taken for {self.name}: {numbers} ({self.meaning}) stay as they are; --ignore says otherwise"


_BY_NAME = (
    (
        r".*_labelIds$",
        LabelConvention("Cityscapes' labelIds", (0, 1, 2, 3, VOID), "unlabelled, ego vehicle, border, out of region"),
    ),
    (r".*_labelTrainIds$", LabelConvention("Cityscapes' labelTrainIds", (VOID,), "void")),
    (
        r".*_instanceIds$",
        LabelConvention("Cityscapes' instanceIds", (0, 1, 2, 3), "unlabelled, ego vehicle, border, out of region"),
    ),
    (r"ADE_\w+_seg$", LabelConvention("full ADE20K's segments", (0,), "unlabelled", as_colours=True)),
    (r"ADE_\w+_\d{8}$", LabelConvention("ADE20K's scene parsing", (0, VOID), "other and void")),
)
_MAPILLARY = ((165, 42, 42), (0, 192, 0))
_PASCAL = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
"""The first colours of palettes that data sets have."""


def recognised(folder: Path, maps: Collection[Path]) -> LabelConvention | None:
    """The convention of label maps, by all their names or by the palette of the first.

    Args:
        folder: Where they lie.
        maps: Their paths in it.
    """
    stems = {path.stem for path in maps}
    for pattern, convention in _BY_NAME:
        if stems and all(re.fullmatch(pattern, stem) for stem in stems):
            return convention
    with suppress(InputError, OSError):
        palette = read_labels(folder / min(maps)).palette if maps else None
        return None if palette is None else _of_palette(palette[:, :3])
    return None


def _of_palette(palette: NDArray[np.uint8]) -> LabelConvention | None:
    colours = [tuple(colour) for colour in palette.tolist()]
    if tuple(colours[: len(_MAPILLARY)]) == _MAPILLARY and (0, 0, 0) in colours:
        # Of version 1.2 the label 65, of 2.0 the label 123.
        return LabelConvention("Mapillary Vistas", (colours.index((0, 0, 0)),), "unlabelled")
    if tuple(colours[: len(_PASCAL)]) == _PASCAL:
        return LabelConvention("the palette of Pascal VOC", (VOID,), "void")
    return None
