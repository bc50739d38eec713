"""Bare masks, scores and label maps of one photo or several; and without strength, outputs of every kind."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.outputs import HEIGHT, WIDTH, Shrinks, boxes, masks
from helpers.stand_ins.results import PHOTO, automatic, instances, same, small
from helpers.tiny import TINY
from segrefiner import InputError, Refiner, refine_labels, refine_outputs
from segrefiner.imaging.coco_masks import decode_rle, encode_rle
from segrefiner.model.unet import DenoisingUNet


@pytest.fixture(scope="module")
def tiny() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), name="tiny")


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
