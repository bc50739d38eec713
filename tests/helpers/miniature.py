"""Training data sets in miniature, in the layouts in which they are published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segrefiner.imaging.coco_masks import encode_rle


def scene(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo of 80 to 120 pixels with a bright disc, `(H, W, 3)` uint8, and the disc `(H, W)` bool."""
    random = np.random.default_rng(index)
    height, width = (int(v) for v in random.integers(80, 120, 2))
    rows, columns = np.mgrid[:height, :width]
    mask = np.hypot(rows - height / 2 - random.integers(-9, 9), columns - width / 2) < random.integers(14, 30)
    noise = np.repeat(random.integers(-20, 20, (height, width, 1)), 3, axis=-1)
    return (np.where(mask[..., None], 200, 60) + noise).astype(np.uint8), mask


def _write(image: Path, mask: Path, index: int) -> None:
    photo, truth = scene(index)
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(image, quality=95)
    Image.fromarray(truth).save(mask)


def dis(root: Path, count: int = 4) -> Path:
    """DIS-5K: `DIS5K/DIS-TR/im` and `gt`."""
    for i in range(count):
        inner = root / "DIS5K" / "DIS-TR"
        _write(inner / "im" / f"2#Animal#{i}.jpg", inner / "gt" / f"2#Animal#{i}.png", i)
    return root


def thinobject(root: Path, count: int = 4) -> Path:
    """ThinObject-5K: `images`, `masks` and a list that leaves some photos out."""
    for i in range(count + 2):
        _write(root / "images" / f"thin_{i}.jpg", root / "masks" / f"thin_{i}.png", 10 + i)
    (root / "list").mkdir()
    (root / "list" / "train.txt").write_text("".join(f"thin_{i}.jpg\n" for i in range(count)))
    return root


def hrsod(root: Path, count: int = 3) -> Path:
    """HRSOD: `HRSOD_train` and `HRSOD_train_mask`."""
    for i in range(count):
        _write(root / "HRSOD_train" / f"{i}.jpg", root / "HRSOD_train_mask" / f"{i}.png", 20 + i)
    return root


def folder(root: Path, count: int = 4, coarse: bool = True) -> Path:
    """A folder of one's own, every second photo with a coarse mask."""
    for i in range(count):
        _write(root / "images" / f"own{i}.jpg", root / "masks" / f"own{i}.png", 30 + i)
        if coarse and i % 2:
            (root / "coarse_net").mkdir(exist_ok=True)
            Image.fromarray(np.roll(scene(30 + i)[1], 4, axis=1)).save(root / "coarse_net" / f"own{i}.png")
    return root


def annotations(count: int = 4) -> dict[str, Any]:
    """COCO annotations of the scenes: a compressed, an uncompressed encoding and polygons in turns, and a crowd."""
    images, objects = [], []
    for i in range(count):
        _, mask = scene(40 + i)
        rows, columns = np.nonzero(mask)
        top, left, bottom, right = (int(v) for v in (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1))
        box = [left, top, right, top, right, bottom, left, bottom]
        forms: tuple[Any, ...] = (encode_rle(mask), encode_rle(mask, compressed=False), [box])
        entry = {"id": 100 + i, "image_id": 7 * i, "category_id": 1, "segmentation": forms[i % 3], "iscrowd": 0}
        images.append({"id": 7 * i, "height": mask.shape[0], "width": mask.shape[1], "file_name": f"{i:012d}.jpg"})
        objects.append(entry)
    objects.append({"id": 999, "image_id": 0, "iscrowd": 1, "segmentation": forms[0]})
    return {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "disc"}]}


def coco(root: Path, count: int = 4) -> Path:
    """COCO: `annotations/instances_train2017.json` and `train2017`; gives the annotation file."""
    for i in range(count):
        photo, _ = scene(40 + i)
        (root / "train2017").mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(root / "train2017" / f"{i:012d}.jpg", quality=95)
    path = root / "annotations" / "instances_train2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(annotations(count)))
    return path


def lvis(root: Path, count: int = 4) -> Path:
    """LVIS v1: photos of COCO, named by `coco_url` alone; gives the annotation file."""
    coco(root, count)
    document = annotations(count)
    for entry in document["images"]:
        entry["coco_url"] = f"http://images.cocodataset.org/train2017/{entry.pop('file_name')}"
    document["annotations"] = [a for a in document["annotations"] if a.pop("iscrowd") == 0]
    path = root / "lvis_v1_train.json"
    path.write_text(json.dumps(document))
    return path
