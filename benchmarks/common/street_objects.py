"""Objects of street scenes as COCO files: the truth, and coarse masks with scores as a network's results have them."""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import coarse_kinds, street
from segrefiner.imaging.coco_masks import encode_rle, tight_box

LEAST_PIXELS = 60
"""Of an object; smaller parts are no objects."""


def write_files(
    scenes: Iterable[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]], folder: Path, kind: str, seed: int
) -> tuple[Path, Path, int]:
    """Write the truth and coarse results of scenes.

    Args:
        scenes: The photo's file name, the photo `(H, W, 3)` uint8 and its label map `(H, W)` uint8, scene by scene.
        folder: Where the files go.
        kind: Of the coarse masks, one of `coarse_kinds.make`.
        seed: Of all draws.

    Returns:
        The files of the truth and of the results, and how many objects share pixels with another one in the results.
    """
    images: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    overlapping = 0
    for number, (name, photo, labels) in enumerate(scenes, 1):
        height, width = labels.shape
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        taken, masks = np.zeros(labels.shape, np.int32), []
        for category in street.THINGS:
            for part in street.parts(labels == category, LEAST_PIXELS):
                one = {"id": len(truth) + 1, "image_id": number, "category_id": category}
                truth.append(one | _stored(part) | {"iscrowd": 0})
                coarse = coarse_kinds.make(kind, f"{name}/{len(truth)}", photo, part, seed)
                # A score has nothing to do with how good a mask is, and AP is of the order of scores.
                score = (zlib.crc32(f"{seed}/{name}/{len(truth)}".encode()) % 1000) / 1000
                if coarse.any():
                    results.append({"image_id": number, "category_id": category, "score": score} | _stored(coarse))
                    taken += coarse
                    masks.append(coarse)
        overlapping += sum(bool((taken[mask] > 1).any()) for mask in masks)
    categories = [{"id": category, "name": street.CLASSES[category]} for category in street.THINGS]
    for file, document in (
        ("truth.json", {"images": images, "annotations": truth, "categories": categories}),
        ("results.json", results),
    ):
        (folder / file).write_text(json.dumps(document))
    return folder / "truth.json", folder / "results.json", overlapping


def _stored(mask: NDArray[np.bool_]) -> dict[str, Any]:
    return {"segmentation": encode_rle(mask), "area": float(mask.sum()), "bbox": tight_box(mask)}
