"""Dicts with masks: of torchvision, SAM 3 and mask generation, and what transformers' own post-processing gives."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.outputs import HEIGHT, WIDTH, Shrinks, boxes, masks, shrunk
from helpers.stand_ins.results import PHOTO, elements, inclusive, logits, same, small
from helpers.tiny import TINY
from segrefiner import InputError, InputWarning, MaskError, Refiner, SizeMismatchError, refine_outputs
from segrefiner.imaging.coco_masks import decode_rle, encode_rle
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.label_maps import refine_labels


def test_torchvision() -> None:
    soft = torch.from_numpy(np.where(masks(), 0.75, 0.25)).float()[:, None]
    given = {
        "boxes": torch.from_numpy(boxes()) + 0.3,
        "labels": torch.tensor([1, 2, 3]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
        "masks": soft,
    }
    refined = refine_outputs(Shrinks(), PHOTO, given)
    assert list(refined) == list(given) and all(refined[name] is given[name] for name in ("boxes", "labels", "scores"))
    np.testing.assert_array_equal(refined["masks"][:, 0] > 0.5, small())
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": soft[:0]}
    assert same(refine_outputs(Shrinks(), [PHOTO], [none]), [none])


@pytest.mark.parametrize("kind", [torch.int64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last", [0, 1])
def test_boxes_and_areas_of_masks_follow(kind: torch.dtype, last: int) -> None:
    tight, after = inclusive(masks()), inclusive(small())
    tight[:2, 2:] += last
    after[:2, 2:] += last
    given = {
        "masks": torch.from_numpy(masks()[:2]),
        "boxes": torch.from_numpy(tight[:2]).to(kind),
        "area": torch.from_numpy(masks()[:2].sum(axis=(1, 2))).to(kind),
    }
    refined = refine_outputs(Shrinks(), PHOTO, given)
    assert torch.equal(refined["boxes"], torch.from_numpy(after[:2]).to(kind)) and refined["boxes"].dtype == kind
    assert torch.equal(refined["area"], torch.from_numpy(small()[:2].sum(axis=(1, 2))).to(kind))


def test_real_tv_tensors() -> None:
    tensors = pytest.importorskip("torchvision.tv_tensors", exc_type=ImportError)
    tight = torch.from_numpy(inclusive(masks())[:2]) + torch.tensor([0, 0, 1, 1])
    given = {
        "masks": tensors.Mask(torch.from_numpy(masks()[:2])),
        "boxes": tensors.BoundingBoxes(tight, format="XYXY", canvas_size=(HEIGHT, WIDTH)),
    }
    refined = refine_outputs(Shrinks(), PHOTO, given)
    assert {name: type(value) for name, value in refined.items()} == {name: type(v) for name, v in given.items()}
    assert refined["boxes"].format == given["boxes"].format and refined["boxes"][0].tolist() == [11, 11, 39, 49]


def test_mask_generation_pipeline() -> None:
    rles = [encode_rle(mask, compressed=False) for mask in masks()]
    given = {
        "masks": list(torch.from_numpy(masks())),
        "scores": torch.ones(3),
        "rle_mask": rles,
        "bounding_boxes": torch.from_numpy(inclusive(masks())),
    }
    for one in (given, {**given, "masks": list(masks())}):
        refined = refine_outputs(Shrinks(), PHOTO, one)
        assert list(refined) == list(given) and type(refined["masks"][0]) is type(one["masks"][0])
        np.testing.assert_array_equal(np.stack([np.asarray(mask) for mask in refined["masks"]]), small())
        decoded = [decode_rle(rle, (HEIGHT, WIDTH)) for rle in refined["rle_mask"]]
        np.testing.assert_array_equal(decoded, small())
        assert isinstance(refined["rle_mask"][0]["counts"], list)
        assert refined["bounding_boxes"].tolist() == inclusive(small()).tolist()


def real(module: str, name: str) -> Any:
    """A class of transformers."""
    return getattr(pytest.importorskip(f"transformers.models.{module}", exc_type=ImportError), name)


def test_real_sam() -> None:
    processor = real("sam2.image_processing_sam2", "Sam2ImageProcessor")()
    # Three prompts with one mask each.
    prompts = logits().transpose(0, 1)
    found = processor.post_process_masks([prompts], [(HEIGHT, WIDTH)])
    assert found[0].dtype == torch.bool and found[0].shape == (3, 1, HEIGHT, WIDTH)
    np.testing.assert_array_equal(refine_outputs(Shrinks(), [PHOTO], found)[0][:, 0], small())
    raw = processor.post_process_masks([prompts], [(HEIGHT, WIDTH)], binarize=False)
    with pytest.raises(MaskError, match="of logits, give masks > 0"):
        refine_outputs(Shrinks(), PHOTO, raw)
    np.testing.assert_array_equal(refine_outputs(Shrinks(), PHOTO, [one > 0 for one in raw])[0][:, 0], small())


def test_real_sam3() -> None:
    processor = real("sam3.image_processing_sam3", "Sam3ImageProcessor")()
    outputs = SimpleNamespace(
        pred_logits=torch.full((1, 3), 9.0),
        pred_boxes=torch.from_numpy(boxes())[None] / torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT]),
        pred_masks=logits(),
        presence_logits=None,
        semantic_seg=logits()[:, :1],
    )
    found = processor.post_process_instance_segmentation(outputs, target_sizes=[(HEIGHT, WIDTH)])
    refined = refine_outputs(Shrinks(), [PHOTO], found)
    assert refined[0]["masks"].dtype == found[0]["masks"].dtype == torch.int64
    np.testing.assert_array_equal(refined[0]["masks"], small())
    assert refined[0]["scores"] is found[0]["scores"]
    maps = processor.post_process_semantic_segmentation(outputs, target_sizes=[(HEIGHT, WIDTH)])
    np.testing.assert_array_equal(refine_outputs(Shrinks(), PHOTO, maps)[0], small()[0])
    scored = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[(HEIGHT, WIDTH)], return_segmentation_scores=True
    )
    with pytest.warns(InputWarning, match="segmentation_scores of outputs stays as it was"):
        refined = refine_outputs(Shrinks(), PHOTO, scored[0])
    assert type(refined) is type(scored[0]) and refined.segmentation_scores is scored[0].segmentation_scores
    np.testing.assert_array_equal(refined.segmentation, small()[0])
    wrong = processor.post_process_instance_segmentation(outputs, target_sizes=[(HEIGHT // 2, WIDTH // 2)])
    with pytest.raises(SizeMismatchError, match="target_sizes of transformers"):
        refine_outputs(Refiner(DenoisingUNet(TINY), name="tiny"), PHOTO, wrong)


def test_real_mask2former() -> None:
    processor = real("mask2former.image_processing_mask2former", "Mask2FormerImageProcessor")()
    classes = torch.full((1, 3, 4), -9.0)
    classes[0, [0, 1, 2], [0, 1, 3]] = 9.0
    outputs = SimpleNamespace(class_queries_logits=classes, masks_queries_logits=logits())
    size = [(HEIGHT, WIDTH)]
    for name in ("post_process_instance_segmentation", "post_process_panoptic_segmentation"):
        found = getattr(processor, name)(outputs, target_sizes=size)
        refined = refine_outputs(Shrinks(), PHOTO, found)
        assert type(refined) is list and refined[0]["segments_info"] is found[0]["segments_info"]
        before, after = found[0]["segmentation"], refined[0]["segmentation"]
        assert after.dtype == before.dtype
        # Two segments that touch: their contour is decided once.
        expected = refine_labels(Shrinks(), PHOTO, before.to(torch.int64)).labels
        np.testing.assert_array_equal(after.to(torch.int64), expected)
    maps = processor.post_process_semantic_segmentation(outputs, target_sizes=size)
    assert refine_outputs(Shrinks(), PHOTO, maps)[0].dtype == maps[0].dtype
    binary = processor.post_process_instance_segmentation(outputs, target_sizes=size, return_binary_maps=True)
    refined = refine_outputs(Shrinks(), PHOTO, binary)[0]["segmentation"]
    assert refined.shape == binary[0]["segmentation"].shape and not torch.equal(refined, binary[0]["segmentation"])
    encoded = processor.post_process_instance_segmentation(outputs, target_sizes=size, return_coco_annotation=True)
    with pytest.raises(MaskError, match="without return_coco_annotation"):
        refine_outputs(Shrinks(), PHOTO, encoded)
    none = processor.post_process_instance_segmentation(outputs, target_sizes=size, threshold=1.1)
    assert refine_outputs(Shrinks(), PHOTO, none)[0] is none[0]


def test_raw_outputs_are_refused_with_what_to_do() -> None:
    for raw in ({"pred_masks": logits(), "iou_scores": torch.ones(1, 3)}, {"logits": logits()}):
        with pytest.raises(InputError, match="post-process it first"):
            refine_outputs(Shrinks(), PHOTO, raw)
    with pytest.raises(InputError, match=r"argmax\(0\)"):
        refine_outputs(Shrinks(), PHOTO, {"sem_seg": logits()[0]})
    assert refine_outputs(Shrinks(), PHOTO, logits()[0].argmax(0)).shape == (HEIGHT, WIDTH)
    with pytest.raises(InputError, match="a dict of image, label: expected masks"):
        refine_outputs(Shrinks(), PHOTO, {"image": PHOTO, "label": 1})


def test_real_samples() -> None:
    structures = elements()
    sample = structures.BaseDataElement(metainfo={"img_path": "photo.jpg"})
    sample.pred_instances = structures.InstanceData(masks=torch.from_numpy(masks()), labels=torch.ones(3))
    sample.gt_instances = structures.InstanceData(masks=torch.from_numpy(masks()))
    labels = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.int64)
    labels[0, 10:40, 10:50] = 1003
    sample.pred_panoptic_seg = structures.PixelData(sem_seg=labels)
    with pytest.warns(InputWarning, match="gt_instances of outputs stays as it was"):
        refined = refine_outputs(Shrinks(), PHOTO, sample)
    assert type(refined) is type(sample) and refined.metainfo == sample.metainfo
    np.testing.assert_array_equal(refined.pred_instances.masks, small())
    assert refined.gt_instances is sample.gt_instances
    np.testing.assert_array_equal(refined.pred_panoptic_seg.sem_seg[0] == 1003, shrunk((labels[0] == 1003).numpy()))
    del sample.pred_instances, sample.pred_panoptic_seg
    np.testing.assert_array_equal(refine_outputs(Shrinks(), PHOTO, sample).gt_instances.masks, small())
    with pytest.warns(InputWarning, match="no masks"):
        refine_outputs(Shrinks(), PHOTO, structures.BaseDataElement(pred=structures.InstanceData(labels=torch.ones(3))))
