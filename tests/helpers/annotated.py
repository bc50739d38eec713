"""Small annotation files of every format, as each program writes them, of two photos with four masks."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
SIZE = (HEIGHT, WIDTH)


def disc(radius: float, y: float = 24, x: float = 30) -> np.ndarray:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


MASKS = {
    "disc": disc(12),
    "ring": disc(15) & ~disc(7),
    "pair": disc(7, 12, 14) | disc(8, 34, 45),
}


def write_photos(folder: Path, *names: str) -> None:
    for index, name in enumerate(names):
        photo = np.random.default_rng(index).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(folder / name)


POLYGON = [[12.25, 8.5], [50.125, 10.0], [44.75, 40.333], [14.0, 36.0]]
FLAT = [value for point in POLYGON for value in point]


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of background and object in turns, in the array's order."""
    flat = mask.ravel()
    ends = [*(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
    starts = [0, *ends[:-1]]
    return ([0] if flat[0] else []) + [end - start for start, end in zip(starts, ends, strict=True)]


def coco(root: Path) -> Path:
    write_photos(root / "images", "a.png", "b.png")
    document = {
        "info": {"year": 2017, "version": "VERSION", "ü": [None, True]},
        "images": [
            {"license": 2, "file_name": "a.png", "height": HEIGHT, "width": WIDTH, "id": 9},
            {"file_name": "b.png", "height": HEIGHT, "width": WIDTH, "id": 4},
        ],
        "annotations": [
            {"id": 5, "image_id": 9, "category_id": 3, "segmentation": [FLAT], "area": 960.50, "bbox": [1, 2, 3, 4]},
            {"segmentation": {"size": [*SIZE], "counts": runs(MASKS["ring"].T)}, "image_id": 4, "id": 1,
             "category_id": 3, "iscrowd": 0, "area": 7, "mine": {"deep": [1e-7]}},
            {"id": 2, "image_id": 9, "category_id": 8,
             "segmentation": {"size": [*SIZE], "counts": runs(MASKS["pair"].T)}},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
    }  # fmt: skip
    path = root / "instances.json"
    path.write_text(json.dumps(document, indent=1).replace('"VERSION"', "1.500e+0"))
    return path


def lvis(root: Path) -> Path:
    path = coco(root)
    (root / "images").rename(root / "val2017")
    document = json.loads(path.read_text())
    for entry in document["images"]:
        entry["coco_url"] = f"http://images.cocodataset.org/val2017/{entry.pop('file_name')}"
        entry["neg_category_ids"] = [4]
    path.write_text(json.dumps(document))
    return path


def sa1b(root: Path) -> Path:
    from segrefiner.imaging.coco_masks import encode_rle

    folder = root / "sa1b"
    write_photos(folder, "sa_1.png", "sa_2.png")
    for index, names in ((1, ("disc", "ring")), (2, ("pair",))):
        rows = [
            {"id": 100 + number, "segmentation": encode_rle(MASKS[name]), "bbox": [1, 2, 3, 4], "area": 5,
             "predicted_iou": 0.90, "point_coords": [[1.5, 2.0]], "crop_box": [0, 0, WIDTH, HEIGHT]}
            for number, name in enumerate(names)
        ]  # fmt: skip
        image = {"image_id": index, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{index}.png"}
        (folder / f"sa_{index}.json").write_text(json.dumps({"image": image, "annotations": rows}))
    return folder


def yolo(root: Path) -> Path:
    folder = root / "yolo"
    write_photos(folder / "images", "train/a.png", "val/b.png")
    text = " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in POLYGON)
    small = "0.1 0.1 0.1 0.80 0.6 0.80 0.6 0.1"
    texts = {"train/a": f"0 {text}\r\n1 0.5 0.5 0.2 0.2\r\n\r\n1 {small}", "val/b": f"1 {small} 0.75\n"}
    for name, content in texts.items():
        path = folder / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    description = "path: .  # here\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"
    (folder / "data.yaml").write_text(description)
    return folder


def png_text(mask: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def labelme(root: Path) -> Path:
    folder = root / "labelme"
    write_photos(folder, "a.png", "b.png")
    ring = MASKS["ring"]
    rows, columns = np.flatnonzero(ring.any(1)), np.flatnonzero(ring.any(0))
    crop = ring[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    corners = [[float(columns[0]), float(rows[0])], [float(columns[-1]), float(rows[-1])]]
    shapes = [
        {"label": "cat", "points": POLYGON, "group_id": None, "description": "", "shape_type": "polygon", "flags": {},
         "mask": None},
        {"label": "box", "points": [[1, 1], [9, 9]], "group_id": 2, "shape_type": "rectangle", "flags": {}},
        {"label": "dog", "points": corners, "group_id": 1, "shape_type": "mask", "flags": {"far": True},
         "mask": png_text(crop), "score": 0.50, "attributes": {"x": "y"}},
    ]  # fmt: skip
    for name, listed in (("a", shapes), ("b", shapes[:1])):
        document = {
            "version": "5.5.0", "flags": {}, "shapes": listed, "imagePath": f"{name}.png", "imageData": None,
            "imageHeight": HEIGHT, "imageWidth": WIDTH, "text": "tëxt",
        }  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")
    return folder


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task><id>7</id><name>täsk</name><labels>
      <label><name>cat</name><color>#fafa37</color><attributes></attributes></label><label><name>dog</name></label>
    </labels></task>
  </meta>
  <image id="0" name="a.png" subset="train" task_id="7" width="{width}" height="{height}">
    <polygon label="cat" source="manual" occluded="0" points="{points}" z_order="0">
      <attribute name="is &lt; far">true</attribute>
    </polygon>
    <box label="dog" source="manual" occluded="0" xtl="1.50" ytl="2.00" xbr="9.00" ybr="9.00" z_order="0">
    </box>
    <mask label="dog" occluded="1" rle="{rle}" left="{left}" top="{top}" width="{w}" height="{h}" z_order="3">
    </mask>
  </image>
  <image id="1" name="b.png" width="{width}" height="{height}">
    <polygon z_order='0' points='{points}' label='cat'/>
  </image>
  <!-- the end -->
</annotations>
"""


def cvat(root: Path) -> Path:
    write_photos(root / "images", "a.png", "b.png")
    ring = MASKS["ring"]
    rows, columns = np.flatnonzero(ring.any(1)), np.flatnonzero(ring.any(0))
    crop = ring[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    text = CVAT.format(
        width=WIDTH, height=HEIGHT, points=";".join(f"{x:.2f},{y:.2f}" for x, y in POLYGON),
        rle=", ".join(map(str, runs(crop))), left=columns[0], top=rows[0], w=crop.shape[1], h=crop.shape[0],
    )  # fmt: skip
    path = root / "annotations.xml"
    path.write_text(text, encoding="utf-8")
    return path


def labelstudio(root: Path) -> Path:
    from segrefiner.formats.brush import encode_brush

    write_photos(root / "images", "a.png", "b.png")
    common = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image"}
    points = [[x * 100 / WIDTH, y * 100 / HEIGHT] for x, y in POLYGON]
    polygon = {**common, "value": {"points": points, "closed": True, "polygonlabels": ["cat"]}, "id": "Dx_a",
               "from_name": "label", "type": "polygonlabels", "origin": "manual"}  # fmt: skip
    brush = {**common, "value": {"format": "rle", "rle": encode_brush(MASKS["ring"]), "brushlabels": ["dog"]},
             "id": "q1", "from_name": "tag", "type": "brushlabels", "score": 0.50}  # fmt: skip
    choice = {"value": {"choices": ["good"]}, "id": "c", "from_name": "choice", "to_name": "image", "type": "choices"}
    tasks = [
        {"id": 11, "annotations": [{"id": 3, "completed_by": 1, "result": [polygon, choice], "lead_time": 2.50}],
         "predictions": [{"id": 4, "result": [brush], "score": 0.125}],
         "data": {"image": "/data/upload/1/0a1b2c3d-a.png", "text": "\u00fc"}},
        {"id": 12, "annotations": [{"id": 5, "result": [brush], "was_cancelled": False}], "predictions": [],
         "data": {"image": "/data/local-files/?d=photos/b.png"}},
    ]  # fmt: skip
    path = root / "export.json"
    path.write_text(json.dumps(tasks))
    return path


EVERY: dict[str, Callable[[Path], Path]] = {
    "coco": coco, "lvis": lvis, "sa1b": sa1b, "yolo": yolo, "labelme": labelme, "cvat": cvat, "labelstudio": labelstudio
}  # fmt: skip


def files_of(place: Path) -> dict[str, bytes]:
    """The annotation files of a document, by name."""
    if place.is_file():
        return {"": place.read_bytes()}
    found = (path for path in sorted(place.rglob("*")) if path.suffix in (".json", ".txt", ".yaml"))
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in found if ".segrefiner" not in path.parts}
