"""Outputs as libraries write them, one photo for all, and what is expected of them."""

from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from helpers.outputs import HEIGHT, WIDTH, boxes, masks, shrunk
from segrefiner.imaging.coco_masks import encode_rle

PHOTO = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def small() -> NDArray[np.bool_]:
    """The masks with a pixel less on every side: what `Shrinks` makes of them."""
    return np.stack([shrunk(mask) for mask in masks()])


def inclusive(given: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Boxes whose far corner is the last pixel; zeros of empty masks, as SAM has it."""
    found = [np.nonzero(mask) for mask in given]
    return np.array([(c.min(), r.min(), c.max(), r.max()) if len(r) else (0, 0, 0, 0) for r, c in found], np.float32)


def same(first: Any, second: Any) -> bool:
    """Whether two outputs are equal in every part, with types, dtypes and order."""
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and first.device == second.device and torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, dict | UserDict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if hasattr(first, "__dict__") and not isinstance(first, Image.Image):
        return same(vars(first), vars(second))
    return bool(first == second)


def logits(scale: float = 8.0) -> torch.Tensor:
    """Of the masks, `(1, 3, H, W)`."""
    return torch.from_numpy(masks()).float()[None] * 2 * scale - scale


def automatic(form: str) -> list[dict[str, Any]]:
    """The records that `SamAutomaticMaskGenerator.generate` makes with this `output_mode`."""
    forms: dict[str, Any] = {
        "binary_mask": lambda mask: mask,
        "uncompressed_rle": lambda mask: encode_rle(mask, compressed=False),
        "coco_rle": encode_rle,
        "bytes": lambda mask: {**encode_rle(mask), "counts": encode_rle(mask)["counts"].encode()},
    }
    result = []
    for mask, (x0, y0, x1, y1) in zip(masks()[:2], inclusive(masks()).astype(int).tolist(), strict=False):
        result.append(
            {
                "segmentation": forms[form](mask),
                "area": int(mask.sum()),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "predicted_iou": 0.9,
                "point_coords": [[20.5, 20.5]],
                "stability_score": 0.97,
                "crop_box": [0, 0, WIDTH, HEIGHT],
            }
        )
    return result


class Instances:
    """As detectron2's: fields beside the size of the photo, and nothing else may be set."""

    def __init__(self, image_size: tuple[int, int], **fields: Any) -> None:
        object.__setattr__(self, "_image_size", image_size)
        object.__setattr__(self, "_fields", {})
        for name, value in fields.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        if name == "_fields" or name not in self._fields:
            raise AttributeError(name)
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        self._fields[name] = value

    def get_fields(self) -> dict[str, Any]:
        return self._fields

    def __len__(self) -> int:
        return len(next(iter(self._fields.values()), ()))


class Holder:
    """As detectron2's `Boxes` and `BitMasks`."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __len__(self) -> int:
        return len(self.tensor)


def instances(**changed: Any) -> Instances:
    fields = {
        "pred_boxes": Holder(torch.from_numpy(boxes()) + 0.4),
        "scores": torch.ones(3),
        "pred_classes": torch.tensor([1, 2, 3]),
        "pred_masks": torch.from_numpy(masks()),
    }
    return Instances((HEIGHT, WIDTH), **(fields | changed))


def elements() -> Any:
    return pytest.importorskip("mmengine.structures", exc_type=ImportError)
