"""Outputs of transformers, SAM, torchvision, detectron2 and OpenMMLab: the same kind comes back, with refined masks.

Their own code makes the outputs where it is installed; else stand-ins have the fields that it writes.
"""

import copy
from collections import UserDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from helpers.outputs import HEIGHT, WIDTH, Shrinks, boxes, masks, shrunk
from helpers.tiny import TINY
from segrefiner import InputError, InputWarning, MaskError, Refiner, SizeMismatchError, refine_labels, refine_outputs
from segrefiner.imaging.coco_masks import decode_rle, encode_rle
from segrefiner.model.unet import DenoisingUNet

PHOTO = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
NAMES = ("masks", "scores", "labels", "boxes")


@pytest.fixture(scope="module")
def tiny() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), name="tiny")


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


# Bare masks and label maps


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("one", [(), (1,)])
def test_tensors_of_masks(dtype: torch.dtype, one: tuple[int, ...]) -> None:
    given = torch.from_numpy(masks()).to(dtype).reshape(3, *one, HEIGHT, WIDTH)
    refined = refine_outputs(Shrinks(), PHOTO, given)
    assert refined.dtype == dtype and refined.shape == given.shape
    np.testing.assert_array_equal(refined.reshape(3, HEIGHT, WIDTH) > 0, small())
    assert torch.equal(given.reshape(3, HEIGHT, WIDTH) > 0, torch.from_numpy(masks()))


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
def test_values_of_masks_stay(scale: int, dtype: type) -> None:
    refined = refine_outputs(Shrinks(), PHOTO, masks().astype(dtype) * dtype(scale))
    assert refined.dtype == dtype
    np.testing.assert_array_equal(refined, small() * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.5, 0.4999999, 0.9])
def test_probabilities_stay_probabilities(dtype: torch.dtype, probability: float) -> None:
    soft = torch.from_numpy(np.where(masks(), 0.75, 0.25)).to(dtype)
    refiner = Shrinks(*(probability,) * 3)
    refined = refine_outputs(refiner, PHOTO, soft)
    inside = refined > 0.5
    assert refined.dtype == dtype and torch.equal(inside, refined >= 0.5)
    np.testing.assert_array_equal(inside, small())
    # What is unchanged keeps its probabilities; here that is the empty mask.
    assert torch.equal(refined[2], soft[2]) and not torch.equal(refined[0], soft[0])


def test_guesses_for_one_object_do_not_compete(tiny: Refiner) -> None:
    guesses = torch.from_numpy(np.stack([masks()[:2], masks()[1::-1]]))
    refined = refine_outputs(tiny, PHOTO, guesses, seed=1)
    for guess in range(2):
        apart = tiny.instances(PHOTO, guesses[:, guess], separate=True, seed=1)
        np.testing.assert_array_equal(refined[:, guess], np.stack([result.mask for result in apart]))


def test_masks_that_did_not_overlap_do_not(tiny: Refiner) -> None:
    apart = np.zeros((2, HEIGHT, WIDTH), bool)
    apart[0, 10:50, 10:50], apart[1, 10:50, 50:90] = True, True
    for given in (torch.from_numpy(apart), {"masks": torch.from_numpy(apart)}, list(apart)):
        refined = refine_outputs(tiny, PHOTO, given)
        found = np.stack([np.asarray(one) for one in (refined["masks"] if isinstance(given, dict) else refined)])
        assert not found.all(axis=0).any()


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
@pytest.mark.parametrize("batch", [(), (1,)])
def test_label_maps(tiny: Refiner, dtype: type, batch: tuple[int, ...]) -> None:
    labels = np.zeros((HEIGHT, WIDTH), dtype)
    labels[10:40, 10:50], labels[:5] = 3, 255
    expected = refine_labels(tiny, PHOTO, labels.astype(np.int64), ignore=[255], seed=1).labels
    refined = refine_outputs(tiny, PHOTO, torch.from_numpy(labels).reshape(*batch, HEIGHT, WIDTH), ignore=[255], seed=1)
    assert refined.shape == (*batch, HEIGHT, WIDTH) and refined.dtype == torch.from_numpy(labels).dtype
    np.testing.assert_array_equal(refined.reshape(HEIGHT, WIDTH), expected)
    assert ((refined.reshape(HEIGHT, WIDTH) == 255).numpy() == (labels == 255)).all()


def test_masks_in_other_forms() -> None:
    pictures = [Image.fromarray(mask) for mask in masks()]
    np.testing.assert_array_equal([np.asarray(one) for one in refine_outputs(Shrinks(), PHOTO, pictures)], small())
    rles = [encode_rle(mask) for mask in masks()]
    np.testing.assert_array_equal(
        [decode_rle(rle, (HEIGHT, WIDTH)) for rle in refine_outputs(Shrinks(), PHOTO, rles)], small()
    )
    assert same(refine_outputs(Shrinks(), PHOTO, rles[0]), refine_outputs(Shrinks(), PHOTO, rles)[0])
    by_object = {object_id: mask[None] for object_id, mask in zip((3, 1, 2), masks(), strict=True)}
    refined = refine_outputs(Shrinks(), PHOTO, by_object)
    assert list(refined) == [3, 1, 2]
    np.testing.assert_array_equal(np.concatenate(list(refined.values())), small())


def test_what_predictors_give_beside_masks_is_told_apart() -> None:
    # SAM's predictor: masks, scores and logits.
    with pytest.raises(InputError, match=r"such as outputs\[0\]"):
        refine_outputs(Shrinks(), PHOTO, (masks(), np.ones(3), np.ones((3, 256, 256))))
    with pytest.raises(InputError, match=r"argmax\(1\), with a list of photos"):
        refine_outputs(Shrinks(), PHOTO, {"out": torch.zeros(2, 4, HEIGHT, WIDTH)})
    maps = torch.from_numpy(np.where(masks()[:2], 2, 5))
    with pytest.raises(InputError, match="2 label maps: give a list of 2 photos"):
        refine_outputs(Shrinks(), PHOTO, maps)
    assert refine_outputs(Shrinks(), [PHOTO] * 2, maps).shape == maps.shape


# Several photos


def test_outputs_of_several_photos() -> None:
    dicts = [{"masks": torch.from_numpy(masks()), "scores": torch.ones(3)}] * 2
    stacks = [torch.from_numpy(masks())[:, None]] * 2
    maps = [torch.from_numpy(np.where(masks()[0], 2, 5))] * 2
    for several in (dicts, tuple(stacks), maps, torch.stack(maps), [[{"mask": one} for one in masks()]] * 2):
        single = refine_outputs(Shrinks(), PHOTO, several[0])
        refined = refine_outputs(Shrinks(), [PHOTO, PHOTO], several)
        assert type(refined) is type(several) and all(same(one, single) for one in refined)
        # A list of one belongs to one photo.
        assert same(refine_outputs(Shrinks(), PHOTO, several[:1])[0], single)
        with pytest.raises(InputError, match="2 photos, but image has 3"):
            refine_outputs(Shrinks(), [PHOTO] * 3, several)
    for several in (dicts, stacks):
        with pytest.raises(InputError, match="give a list of 2 photos"):
            refine_outputs(Shrinks(), PHOTO, several)
    with pytest.raises(InputError, match="give one photo"):
        refine_outputs(Shrinks(), [PHOTO, PHOTO], dicts[0])


# Dicts with masks: torchvision, SAM 3, mask generation


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


# What transformers' own post-processing gives


def real(module: str, name: str) -> Any:
    """A class of transformers."""
    return getattr(pytest.importorskip(f"transformers.models.{module}", exc_type=ImportError), name)


def logits(scale: float = 8.0) -> torch.Tensor:
    """Of the masks, `(1, 3, H, W)`."""
    return torch.from_numpy(masks()).float()[None] * 2 * scale - scale


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


# Automatic masks of SAM and SAM 2


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


# ultralytics


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


# detectron2


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


# OpenMMLab


def elements() -> Any:
    return pytest.importorskip("mmengine.structures", exc_type=ImportError)


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


# A law for all


@pytest.mark.parametrize("strength", [0])
def test_without_strength_outputs_come_back_equal(tiny: Refiner, strength: float) -> None:
    soft = torch.from_numpy(np.where(masks(), 0.75, 0.25)).to(torch.bfloat16)
    segments = torch.from_numpy(np.where(masks()[0], 4, 0))
    for given in (
        automatic("binary_mask"),
        automatic("coco_rle"),
        {"masks": soft[:, None], "boxes": torch.from_numpy(boxes()), "scores": torch.ones(3)},
        {"segmentation": segments, "segments_info": [{"id": 4, "label_id": 1, "score": 0.5}]},
        {"panoptic_seg": (segments, [{"id": 4, "area": int(masks()[0].sum())}])},
        [{"mask": Image.fromarray(masks()[0]), "label": "a", "score": None}],
        [{"mask": masks()[0].astype(np.uint8) * 255}],
        instances(),
        segments,
        soft,
        list(masks()),
    ):
        before = copy.deepcopy(given)
        assert same(refine_outputs(tiny, PHOTO, given, strength=strength), before) and same(given, before)
