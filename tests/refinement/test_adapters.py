"""Outputs of other libraries, as stand-ins of the same shape, and as the real thing where it is installed."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from helpers.outputs import HEIGHT, WIDTH, Shrinks, boxes, masks
from helpers.tiny import TINY
from segrefiner import InputError, InputWarning, MaskError, Refiner, SizeMismatchError
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.adapters import refine_outputs


@pytest.fixture(scope="module")
def tiny() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), name="tiny")


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def expected(refiner: Refiner, photo: NDArray[np.uint8], given: Any, **options: Any) -> NDArray[np.bool_]:
    return np.stack([refiner(photo, mask, **options).mask for mask in given])


# supervision


@dataclass
class Detections:
    xyxy: NDArray[Any]
    mask: NDArray[np.bool_] | None = None
    confidence: NDArray[Any] | None = None
    class_id: NDArray[Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)


def detections(kind: Any = Detections) -> Any:
    return kind(
        xyxy=boxes(),
        mask=masks(),
        confidence=np.array([0.9, 0.8, 0.7]),
        class_id=np.array([3, 1, 2]),
        data={"class_name": np.array(["a", "b", "c"])},
    )


def check_detections(kind: Any, tiny: Refiner, photo: NDArray[np.uint8]) -> Any:
    given = detections(kind)
    refined = refine_outputs(tiny, photo, given, steps=2, seed=1)
    assert type(refined) is kind and refined is not given
    np.testing.assert_array_equal(refined.mask, expected(tiny, photo, masks(), steps=2, seed=1))
    assert refined.mask.dtype == bool and refined.xyxy.dtype == given.xyxy.dtype
    np.testing.assert_array_equal(given.mask, masks())
    np.testing.assert_array_equal(given.xyxy, boxes())
    for name in ("confidence", "class_id", "data"):
        assert getattr(refined, name) is getattr(given, name)
    for mask, box, before in zip(refined.mask, refined.xyxy, boxes(), strict=True):
        rows, columns = np.nonzero(mask)
        tight = (columns.min(), rows.min(), columns.max(), rows.max()) if len(rows) else before
        np.testing.assert_array_equal(box, tight)
    return refined


def test_detections(tiny: Refiner, photo: NDArray[np.uint8]) -> None:
    check_detections(Detections, tiny, photo)


def test_detections_without_masks_come_back(tiny: Refiner, photo: NDArray[np.uint8]) -> None:
    for mask in (None, np.zeros((0, HEIGHT, WIDTH), bool)):
        given = replace(detections(), mask=mask)
        with pytest.warns(InputWarning, match="outputs has no masks: nothing was refined"):
            assert refine_outputs(tiny, photo, given) is given
        empty = replace(given, xyxy=boxes()[:0])
        assert refine_outputs(tiny, photo, empty) is empty


def test_real_detections(tiny: Refiner, photo: NDArray[np.uint8]) -> None:
    supervision = pytest.importorskip("supervision")
    refined = check_detections(supervision.Detections, tiny, photo)
    np.testing.assert_array_equal(supervision.mask_to_xyxy(refined.mask[:2]), refined.xyxy[:2])
    empty = supervision.Detections.empty()
    assert refine_outputs(tiny, photo, empty) is empty


def test_real_packed_masks(tiny: Refiner, photo: NDArray[np.uint8]) -> None:
    packing = pytest.importorskip("supervision.detection.compact_mask")
    from supervision import Detections as Real

    given = detections(Real)
    packed = packing.CompactMask.from_dense(given.mask, given.xyxy, image_shape=(HEIGHT, WIDTH))
    refined = refine_outputs(tiny, photo, Real(xyxy=given.xyxy, mask=packed))
    assert isinstance(refined.mask, packing.CompactMask)
    np.testing.assert_array_equal(np.asarray(refined.mask), expected(tiny, photo, masks()))


# ultralytics


class Results:
    def __init__(self, photo: NDArray[np.uint8], masks: Any) -> None:
        self.orig_img, self.boxes = photo[..., ::-1], torch.from_numpy(boxes())
        self.masks = None if masks is None else SimpleNamespace(data=masks, orig_shape=photo.shape[:2])

    def update(self, masks: Any) -> None:
        self.masks = SimpleNamespace(data=masks, orig_shape=self.orig_img.shape[:2])


def letterboxed(whole: NDArray[np.bool_], size: tuple[int, int], noise: bool = True) -> torch.Tensor:
    """Masks at a network's size, with something in the padding, which must not be seen."""
    height, width = whole.shape[1:]
    scale = min(size[0] / height, size[1] / width)
    inner = round(height * scale), round(width * scale)
    small = F.interpolate(torch.from_numpy(whole)[None].float(), inner, mode="bilinear")[0] > 0.5
    (top, left), result = (
        ((s - i) // 2 for s, i in zip(size, inner, strict=True)),
        torch.full((len(whole), *size), noise),
    )
    result[:, top : top + inner[0], left : left + inner[1]] = small
    return result.float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bool])
def test_results_of_the_photos_size(tiny: Refiner, photo: NDArray[np.uint8], dtype: torch.dtype) -> None:
    given = Results(photo, torch.from_numpy(masks()).to(dtype))
    refined = refine_outputs(tiny, None, given, seed=1)
    assert type(refined) is Results and refined.boxes is given.boxes
    assert refined.masks.data.dtype == dtype
    np.testing.assert_array_equal(refined.masks.data.bool().numpy(), expected(tiny, photo, masks(), seed=1))
    assert torch.equal(given.masks.data, torch.from_numpy(masks()).to(dtype))


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (96, 160), (40, 64), (121, 200), (30, 99)])
def test_letterbox_is_undone(photo: NDArray[np.uint8], size: tuple[int, int]) -> None:
    refiner = Shrinks(1, 1, 1)
    refine_outputs(refiner, None, Results(photo, letterboxed(masks(), size)))
    given = np.stack([mask for _, mask in refiner.calls[0][0]])
    assert given.shape == masks().shape and given.dtype == bool
    # A pixel of the network is at most two of the photo here.
    interior, near = (F.max_pool2d(torch.from_numpy(m).float(), 5, 1, 2).bool().numpy() for m in (~masks(), masks()))
    assert not (given & ~near).any() and not (~given & ~interior).any()


def test_results_without_masks_come_back_and_numpy_stays_numpy(tiny: Refiner, photo: NDArray[np.uint8]) -> None:
    for none in (None, torch.zeros(0, HEIGHT, WIDTH)):
        given = Results(photo, none)
        with pytest.warns(InputWarning, match="outputs has no masks"):
            assert refine_outputs(tiny, None, given) is given
        given.boxes = given.boxes[:0]
        assert refine_outputs(tiny, None, given) is given
    refined = refine_outputs(tiny, Image.fromarray(photo), Results(photo, masks().astype(np.uint8)))
    assert isinstance(refined.masks.data, np.ndarray) and refined.masks.data.dtype == np.uint8
    np.testing.assert_array_equal(refined.masks.data, expected(tiny, photo, masks()))


def test_real_results(tiny: Refiner, photo: NDArray[np.uint8]) -> None:
    engine = pytest.importorskip("ultralytics.engine.results", exc_type=ImportError)
    ops = pytest.importorskip("ultralytics.utils.ops")
    small = letterboxed(masks(), (128, 128), noise=False)
    rated = torch.cat([torch.from_numpy(boxes()), torch.ones(3, 2)], dim=1)
    given = engine.Results(photo[..., ::-1], path="photo.jpg", names={1: "car"}, boxes=rated, masks=small)
    refined = refine_outputs(tiny, None, given)
    whole = ops.scale_masks(small[None], (HEIGHT, WIDTH))[0] >= 0.5
    np.testing.assert_array_equal(refined.masks.data.bool().numpy(), expected(tiny, photo, whole.numpy()))
    assert type(refined) is engine.Results and type(refined.masks) is engine.Masks
    assert given.masks.data is small and torch.equal(refined.boxes.data, rated) and len(refined.masks.xy) == 3


# transformers


def test_pipeline(tiny: Refiner, photo: NDArray[np.uint8]) -> None:
    given = [
        {"score": score, "label": label, "mask": Image.fromarray(mask).convert(mode)}
        for mask, score, label, mode in zip(masks(), (0.9, None, 0.5), "abc", ("L", "1", "L"), strict=True)
    ]
    refined = refine_outputs(tiny, Image.fromarray(photo), given)
    assert [(e["score"], e["label"], e["mask"].mode) for e in refined] == [
        (0.9, "a", "L"),
        (None, "b", "1"),
        (0.5, "c", "L"),
    ]
    assert set(np.unique(refined[0]["mask"])) == {0, 255}
    np.testing.assert_array_equal(np.stack([np.array(e["mask"]) > 0 for e in refined]), expected(tiny, photo, masks()))
    np.testing.assert_array_equal(np.array(given[0]["mask"]) > 0, masks()[0])
    assert refine_outputs(tiny, photo, []) == []


def segments(*ids: int) -> list[dict[str, Any]]:
    return [{"id": one, "label_id": 7, "was_fused": False, "score": 0.9} for one in ids]


def test_segments_of_a_real_refiner(tiny: Refiner, photo: NDArray[np.uint8]) -> None:
    one = np.where(masks()[0], 1, 0)
    refined = refine_outputs(tiny, photo, {"segmentation": one, "segments_info": segments(1)}, seed=1)
    assert refined["segmentation"].dtype == one.dtype
    np.testing.assert_array_equal(refined["segmentation"] == 1, tiny(photo, masks()[0], seed=1).mask)


def test_binary_maps(tiny: Refiner, photo: NDArray[np.uint8]) -> None:
    given = {"segmentation": torch.from_numpy(masks()).float(), "segments_info": segments(0, 1, 2)}
    refined = refine_outputs(tiny, photo, given)["segmentation"]
    assert refined.dtype == torch.float32
    np.testing.assert_array_equal(refined.numpy() == 1, expected(tiny, photo, masks()))


def test_no_segments_come_back(tiny: Refiner, photo: NDArray[np.uint8]) -> None:
    for given in (
        {"segmentation": None, "segments_info": []},
        {"segmentation": torch.zeros(HEIGHT, WIDTH) - 1, "segments_info": []},
    ):
        assert refine_outputs(tiny, photo, given) is given


# What is refused


def test_other_things_are_refused(tiny: Refiner, photo: NDArray[np.uint8]) -> None:
    for other in (None, 3, "outputs", object(), iter([detections()]), Image.fromarray(masks()[0])):
        with pytest.raises(InputError, match="expected supervision Detections, ultralytics Results"):
            refine_outputs(tiny, photo, other)
    with pytest.raises(InputError, match=r"list of 2 photos, or the outputs of one photo, such as outputs\[0\]"):
        refine_outputs(tiny, photo, [detections(), detections()])
    with pytest.raises(InputError, match="image is None"):
        refine_outputs(tiny, None, detections())
    with pytest.raises(MaskError, match="return_coco_annotation"):
        refine_outputs(tiny, photo, {"segmentation": [[1, 2]], "segments_info": segments(1)})
    with pytest.raises(SizeMismatchError):
        refine_outputs(tiny, photo[:50], detections())
    with pytest.raises(InputError, match="steps is 9"):
        refine_outputs(tiny, photo, detections(), steps=9)
