"""The page's downloads for annotation tools: refined masks of one photo in the formats of `segrefiner.formats`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...formats.documents import Format, Instance, WrittenPhoto
from ...formats.masks import encode_mask
from ...formats.recognition import OUTLINES, WRITERS
from ...imaging.coco_masks import tight_box

Mask = NDArray[np.bool_]

FILES: Mapping[Format, str] = {"coco": ".json", "labelme": ".json", "yolo": ".txt"}
"""The formats that are offered, and how their files end."""


def annotation_files(photo: str, labels: Sequence[str], masks: Sequence[Mask], folder: Path) -> dict[Format, bytes]:
    """What annotation tools open: for each format of `FILES` the content of one file.

    Args:
        photo: Name of the photo's file.
        labels: What each object is.
        masks: `(H, W)` bool of each, at least one; empty ones are left out.
        folder: Where temporary files may lie.
    """
    size = (masks[0].shape[0], masks[0].shape[1])
    contents: dict[Format, bytes] = {}
    for target, suffix in FILES.items():
        objects = [
            (Instance(str(index), label, {}, label), _stored(mask, target))
            for index, (label, mask) in enumerate(zip(labels, masks, strict=True))
            if mask.any()
        ]
        with TemporaryDirectory(dir=folder, prefix="written-") as place:
            root = Path(place)
            WRITERS[target](root / f"file{suffix}" if target == "coco" else root, labels, [
                WrittenPhoto(photo, size, objects)
            ])  # fmt: skip
            (found,) = root.rglob(f"*{suffix}")
            contents[target] = found.read_bytes()
    return contents


def _stored(mask: Mask, target: Format) -> dict[str, Any]:
    """A mask as a format takes it: pixels in COCO, else an outline; LabelMe has pixels for parts and holes."""
    value, joined = encode_mask(mask, "rle" if target == "coco" else OUTLINES[target])
    if joined and target == "labelme":
        value, _ = encode_mask(mask, "png")
    return {"mask": value, "area": float(mask.sum()), "bbox": tight_box(mask)}
