"""The programs that the formats are of, where they are installed, read what is written here as the same masks."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from helpers.annotated import HEIGHT, MASKS, POLYGON, SIZE, WIDTH, disc
from segrefiner.formats.brush import decode_brush, encode_brush
from segrefiner.formats.masks import decode_mask, encode_mask
from segrefiner.imaging.shapes.outlines import mask_outlines, single_outline

some_masks = arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14)))
several = settings(max_examples=60)


@several
@given(some_masks)
def test_cvat_s_own_codec_agrees(mask: np.ndarray) -> None:
    masks = pytest.importorskip("cvat_sdk.masks")
    if not mask.any():
        return
    value, _ = encode_mask(mask, "cvat")
    runs = [int(run) for run in value["rle"].split(",")]
    box = [value["left"], value["top"], value["left"] + value["width"] - 1, value["top"] + value["height"] - 1]
    assert masks.encode_mask(mask) == runs + box
    decoded = masks.decode_mask(runs + box, image_width=mask.shape[1], image_height=mask.shape[0])
    np.testing.assert_array_equal(decoded, mask)


@several
@given(some_masks)
def test_label_studio_s_own_codec_agrees(mask: np.ndarray) -> None:
    brush = pytest.importorskip("label_studio_converter.brush")
    theirs = brush.encode_rle(np.repeat(mask.ravel().astype(np.uint8) * 255, 4))
    assert encode_brush(mask) == theirs
    np.testing.assert_array_equal(brush.decode_rle(theirs).reshape(*mask.shape, 4)[..., 3] > 0, mask)


@several
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(4))))
def test_label_studio_s_canvas_of_any_colours_is_read(canvas: np.ndarray) -> None:
    brush = pytest.importorskip("label_studio_converter.brush")
    theirs = brush.encode_rle(canvas.ravel())
    np.testing.assert_array_equal(decode_brush(theirs, canvas.shape[:2]), canvas[..., 3] >= 128)


@several
@given(some_masks)
@pytest.mark.parametrize("library", ["faster_coco_eval.core.mask", "pycocotools.mask"])
def test_coco_s_tools_draw_the_same_mask_of_its_polygons(library: str, mask: np.ndarray) -> None:
    tools = pytest.importorskip(library)
    if not mask.any():
        return
    for polygons in (mask_outlines(mask).polygons, [single_outline(mask)[0]]):
        drawn = tools.decode(tools.merge(tools.frPyObjects(polygons, *mask.shape)))
        np.testing.assert_array_equal(drawn.astype(bool), mask)


def test_yolo_s_own_reader_takes_the_texts(tmp_path: Path) -> None:
    utils = pytest.importorskip("ultralytics.data.utils")
    from segrefiner.formats.documents import Instance, WrittenPhoto
    from segrefiner.formats.yolo import write_yolo

    objects = [(Instance(name, name, {}, name), {"mask": single_outline(mask)[0]}) for name, mask in MASKS.items()]
    write_yolo(tmp_path, [], [WrittenPhoto("a.png", SIZE, objects)])
    (tmp_path / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "a.png")
    image = str(tmp_path / "images" / "a.png")
    found = utils.verify_image_label((image, utils.img2label_paths([image])[0], "", False, 3, 0, 0, False))
    assert found[9] == "" and len(found[3]) == 3
    for polygon, mask in zip(found[3], MASKS.values(), strict=True):
        pixels = np.rint(polygon * [WIDTH, HEIGHT] * 8).astype(int)
        drawn = Image.new("1", (WIDTH * 8, HEIGHT * 8))
        ImageDraw.Draw(drawn).polygon([tuple(point) for point in pixels.tolist()], fill=1)
        small = np.asarray(drawn).reshape(HEIGHT, 8, WIDTH, 8).mean((1, 3)) > 0.5
        assert (small != mask).sum() <= 0.06 * mask.sum()


def test_a_joined_polygon_of_yolo_s_converter_is_read() -> None:
    converter = pytest.importorskip("ultralytics.data.converter")
    squares = [[4, 4, 20, 4, 20, 20, 4, 20], [30, 10, 44, 10, 44, 30, 30, 30], [10, 30, 20, 30, 20, 44, 10, 44]]
    joined = np.concatenate(converter.merge_multi_segment(squares)) / [WIDTH, HEIGHT]
    mask, notes = decode_mask({"polygons": [joined.ravel().tolist()], "scale": "relative"}, SIZE)
    expected, _ = decode_mask({"polygons": squares}, SIZE)
    assert notes == ()
    np.testing.assert_array_equal(mask, expected)


def test_supervision_reads_what_is_written(tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision")
    from segrefiner.formats.coco import write_coco
    from segrefiner.formats.documents import Instance, WrittenPhoto
    from segrefiner.formats.labelme import write_labelme
    from segrefiner.formats.yolo import write_yolo

    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    mask = disc(14)
    new: dict[str, Any] = {"area": float(mask.sum()), "bbox": [0.0, 0.0, 1.0, 1.0]}
    one = Instance("0", "0", {}, "cat")

    def photos(form: Any) -> list[WrittenPhoto]:
        return [WrittenPhoto("a.png", SIZE, [(one, new | {"mask": encode_mask(mask, form)[0]})])]

    write_coco(tmp_path / "coco.json", ["cat"], photos("rle"))
    write_labelme(tmp_path / "labelme", ["cat"], photos("ring"))
    write_yolo(tmp_path / "yolo", ["cat"], photos("ring"))
    data = supervision.DetectionDataset
    read = [
        data.from_coco(str(tmp_path), str(tmp_path / "coco.json"), force_masks=True),
        data.from_labelme(str(tmp_path), str(tmp_path / "labelme"), force_masks=True),
        data.from_yolo(str(tmp_path), str(tmp_path / "yolo" / "labels"), str(tmp_path / "yolo" / "data.yaml"),
                       force_masks=True),
    ]  # fmt: skip
    for found in read:
        assert found.classes == ["cat"]
        ((_, _, detections),) = list(found)
        # Supervision rounds corners to whole pixels and draws them, too.
        assert (detections.mask[0] != mask).sum() <= 0.2 * mask.sum()
    assert (next(iter(read[0]))[2].mask[0] == mask).all()


def test_a_mask_of_labelme_is_its_own_one() -> None:
    mask = MASKS["ring"]
    value, _ = encode_mask(mask, "png")
    crop = np.array(Image.open(io.BytesIO(base64.b64decode(value["png"]))))
    left, top, right, bottom = value["box"]
    whole = np.zeros(SIZE, bool)
    whole[top : bottom + 1, left : right + 1] = crop.astype(bool)
    assert crop.dtype == np.uint8 and crop.max() == 1
    np.testing.assert_array_equal(whole, mask)


def test_polygons_are_drawn_alike_in_every_format() -> None:
    flat = [value for point in POLYGON for value in point]
    plain, _ = decode_mask({"polygons": [flat]}, SIZE)
    relative = json.loads(json.dumps([value / (HEIGHT if i % 2 else WIDTH) for i, value in enumerate(flat)]))
    per_cent = [value * 100 for value in relative]
    for stored in ({"polygons": [relative], "scale": "relative"},
                   {"polygons": [per_cent], "scale": [WIDTH / 100, HEIGHT / 100]}):  # fmt: skip
        np.testing.assert_array_equal(decode_mask(stored, SIZE)[0], plain)
