"""Automatic masks of SAM and SAM 2."""

import copy

import numpy as np
import pytest
import torch

from helpers.outputs import HEIGHT, WIDTH, Shrinks, masks
from helpers.stand_ins.results import PHOTO, automatic, inclusive, same, small
from helpers.tiny import TINY
from segrefiner import Refiner, refine_outputs
from segrefiner.imaging.coco_masks import decode_rle
from segrefiner.model.unet import DenoisingUNet


@pytest.fixture(scope="module")
def tiny() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), name="tiny")


@pytest.mark.parametrize("form", ["binary_mask", "uncompressed_rle", "coco_rle", "bytes"])
def test_automatic_masks(form: str, tiny: Refiner) -> None:
    given = automatic(form)
    before = copy.deepcopy(given)
    refined = refine_outputs(Shrinks(), PHOTO, given)
    assert same(given, before)
    for old, new, mask in zip(given, refined, small(), strict=False):
        assert list(new) == list(old) and type(new["segmentation"]) is type(old["segmentation"])
        found = new["segmentation"] if form == "binary_mask" else decode_rle(new["segmentation"], (HEIGHT, WIDTH))
        np.testing.assert_array_equal(found, mask)
        if form != "binary_mask":
            assert type(new["segmentation"]["counts"]) is type(old["segmentation"]["counts"])
        assert new["area"] == mask.sum() and type(new["area"]) is int
        x0, y0, x1, y1 = inclusive(mask[None])[0]
        assert new["bbox"] == [x0, y0, x1 - x0, y1 - y0] and all(type(value) is int for value in new["bbox"])
        assert all(new[name] is old[name] for name in ("predicted_iou", "point_coords", "stability_score", "crop_box"))
    assert same(refine_outputs(tiny, PHOTO, given, strength=0), given)
    assert refine_outputs(Shrinks(), PHOTO, []) == []


def test_boxes_of_records_as_coco_counts_them() -> None:
    one = {"segmentation": masks()[0], "bbox": [10.0, 10.0, 30.0, 40.0], "area": 1200}
    refined = refine_outputs(Shrinks(), PHOTO, one)
    assert refined["bbox"] == [11.0, 11.0, 28.0, 38.0] and refined["area"] == 28 * 38


def test_real_boxes_of_automatic_masks() -> None:
    amg = pytest.importorskip("segment_anything.utils.amg", exc_type=ImportError)
    tight = amg.batched_mask_to_box(torch.from_numpy(masks())).tolist()
    assert tight == inclusive(masks()).tolist()
    rles = amg.mask_to_rle_pytorch(torch.from_numpy(masks()))
    given = [{"segmentation": rle, "area": amg.area_from_rle(rle)} for rle in rles]
    refined = refine_outputs(Shrinks(), PHOTO, given)
    for record, mask in zip(refined, small(), strict=True):
        np.testing.assert_array_equal(amg.rle_to_mask(record["segmentation"]), mask)
        assert amg.area_from_rle(record["segmentation"]) == record["area"]
