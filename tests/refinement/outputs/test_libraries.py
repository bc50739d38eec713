"""Results of ultralytics, detectron2 and OpenMMLab.

Their own code makes the outputs where it is installed; else stand-ins have the fields that it writes.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers.outputs import HEIGHT, WIDTH, Shrinks, boxes, masks
from helpers.stand_ins.results import PHOTO, Holder, Instances, elements, instances, logits, small
from helpers.tiny import TINY
from segrefiner import InputError, InputWarning, MaskError, Refiner, refine_labels, refine_outputs
from segrefiner.imaging.coco_masks import decode_rle, encode_rle
from segrefiner.model.unet import DenoisingUNet


@pytest.fixture(scope="module")
def tiny() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), name="tiny")


class SemanticResults:
    """The fields of ultralytics' `Results` that semantic segmentation fills."""

    def __init__(self, semantic_mask: Any, depth: Any = None) -> None:
        self.orig_img, self.masks, self.boxes, self.depth = PHOTO[..., ::-1], None, None, depth
        self.semantic_mask = SimpleNamespace(data=semantic_mask)

    def update(self, masks: Any = None, semantic_mask: Any = None) -> None:
        assert masks is None
        self.semantic_mask = SimpleNamespace(data=semantic_mask)


def test_semantic_results(tiny: Refiner) -> None:
    labels = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    labels[10:40, 10:50], labels[:5] = 3, 255
    refined = refine_outputs(tiny, None, SemanticResults(labels), seed=1)
    expected = refine_labels(tiny, PHOTO, labels.numpy(), ignore=[255], seed=1).labels
    assert type(refined) is SemanticResults and refined.semantic_mask.data.dtype == torch.uint8
    np.testing.assert_array_equal(refined.semantic_mask.data, expected)
    with pytest.warns(InputWarning, match="depth of outputs stays"):
        refine_outputs(tiny, None, SemanticResults(labels, depth=torch.zeros(HEIGHT, WIDTH)))


def test_real_semantic_results() -> None:
    engine = pytest.importorskip("ultralytics.engine.results", exc_type=ImportError)
    labels = torch.from_numpy(masks()[0]).to(torch.uint8)
    given = engine.Results(PHOTO[..., ::-1], path="photo.jpg", names={0: "a", 1: "b"}, semantic_mask=labels)
    refined = refine_outputs(Shrinks(), None, [given, given])
    assert all(type(one.semantic_mask) is engine.SemanticMask for one in refined)
    np.testing.assert_array_equal(refined[1].semantic_mask.data, small()[0])
    detected = engine.Results(PHOTO, path="photo.jpg", names={0: "a"}, boxes=torch.ones(1, 6))
    with pytest.warns(InputWarning, match="outputs has no masks"):
        assert refine_outputs(Shrinks(), None, detected) is detected


def test_detectron2() -> None:
    given = instances()
    refined = refine_outputs(Shrinks(), PHOTO, given)
    assert type(refined) is Instances and refined.image_size == (HEIGHT, WIDTH)
    assert list(refined.get_fields()) == list(given.get_fields())
    np.testing.assert_array_equal(refined.pred_masks, small())
    assert all(getattr(refined, name) is getattr(given, name) for name in ("pred_boxes", "scores", "pred_classes"))
    np.testing.assert_array_equal(given.pred_masks, masks())
    tight = Holder(torch.from_numpy(boxes()))
    truth = Instances((HEIGHT, WIDTH), gt_masks=Holder(torch.from_numpy(masks())), gt_boxes=tight)
    refined = refine_outputs(Shrinks(), PHOTO, truth)
    np.testing.assert_array_equal(refined.gt_masks.tensor, small())
    assert type(refined.gt_boxes) is Holder and refined.gt_boxes.tensor[0].tolist() == [11, 11, 39, 49]
    assert tight.tensor[0].tolist() == [10, 10, 40, 50]


def test_detectron2_without_masks_of_the_photos_size() -> None:
    with pytest.raises(InputError, match="detector_postprocess"):
        refine_outputs(Shrinks(), PHOTO, instances(pred_masks=torch.ones(3, 1, 28, 28)))
    with pytest.warns(InputWarning, match="no pred_masks"):
        refine_outputs(Shrinks(), PHOTO, Instances((HEIGHT, WIDTH), scores=torch.ones(3)))
    none = Instances((HEIGHT, WIDTH), pred_masks=torch.zeros(0, HEIGHT, WIDTH, dtype=torch.bool))
    assert refine_outputs(Shrinks(), PHOTO, none).pred_masks.shape == (0, HEIGHT, WIDTH)

    class PolygonMasks:
        polygons = ()

    with pytest.raises(MaskError, match=r"PolygonMasks: .* turn polygons into bitmaps first"):
        refine_outputs(Shrinks(), PHOTO, instances(pred_masks=PolygonMasks()))


def test_outputs_of_detectron2s_predictor() -> None:
    segments = torch.zeros(HEIGHT, WIDTH, dtype=torch.int32)
    segments[masks()[0]] = 7
    area = int(masks()[0].sum())
    infos = [{"id": 7, "isthing": False, "category_id": 3, "area": area}]
    given = {"instances": instances(), "panoptic_seg": (segments, infos), "sem_seg": torch.zeros(4, HEIGHT, WIDTH)}
    with pytest.warns(InputWarning, match="sem_seg of outputs stays as it was"):
        refined = refine_outputs(Shrinks(), PHOTO, given)
    assert refined["sem_seg"] is given["sem_seg"] and list(refined) == list(given)
    np.testing.assert_array_equal(refined["instances"].pred_masks, small())
    map_of_segments, listed = refined["panoptic_seg"]
    np.testing.assert_array_equal(map_of_segments == 7, small()[0])
    assert listed == [{"id": 7, "isthing": False, "category_id": 3, "area": int(small()[0].sum())}]
    assert infos[0]["area"] == area
    unlisted = refine_outputs(Shrinks(), PHOTO, {"panoptic_seg": (segments - 1, None)})["panoptic_seg"]
    assert unlisted[1] is None and ((unlisted[0] == 6).numpy() == small()[0]).all()


class Bitmaps:
    """As mmdetection's `BitmapMasks`."""

    def __init__(self, masks: NDArray[np.bool_]) -> None:
        self.masks, self.height, self.width = masks.astype(np.uint8), HEIGHT, WIDTH

    def __len__(self) -> int:
        return len(self.masks)


def test_real_instance_data() -> None:
    given = elements().InstanceData(metainfo={"img_shape": (HEIGHT, WIDTH)})
    given.bboxes, given.labels = torch.from_numpy(boxes()) + 0.4, torch.tensor([1, 2, 3])
    forms = (torch.from_numpy(masks()), masks(), [encode_rle(mask) for mask in masks()])
    for given.masks in forms:
        refined = refine_outputs(Shrinks(), PHOTO, given)
        assert type(refined) is type(given) and type(refined.masks) is type(given.masks)
        assert refined.metainfo == given.metainfo and refined.keys() == given.keys()
        assert refined.bboxes is given.bboxes and refined.labels is given.labels
        found = (
            refined.masks
            if not isinstance(refined.masks, list)
            else [decode_rle(m, (HEIGHT, WIDTH)) for m in refined.masks]
        )
        np.testing.assert_array_equal(np.stack([np.asarray(one) for one in found]), small())
    given.masks = Bitmaps(masks())
    refined = refine_outputs(Shrinks(), PHOTO, given)
    assert type(refined.masks) is Bitmaps and (refined.masks.masks == small()).all()
    empty = elements().InstanceData(masks=torch.zeros(0, HEIGHT, WIDTH, dtype=torch.bool))
    assert len(refine_outputs(Shrinks(), PHOTO, empty)) == 0


def test_real_semantic_samples() -> None:
    structures = elements()
    labels = torch.from_numpy(masks()[:1]).long()
    sample = structures.BaseDataElement(
        pred_sem_seg=structures.PixelData(data=labels), seg_logits=structures.PixelData(data=logits()[0])
    )
    with pytest.warns(InputWarning, match="seg_logits of outputs stays as it was"):
        refined = refine_outputs(Shrinks(), PHOTO, sample)
    assert refined.seg_logits is sample.seg_logits and refined.pred_sem_seg.data.dtype == torch.int64
    np.testing.assert_array_equal(refined.pred_sem_seg.data[0], small()[0])
