"""Refined label maps: the joint decision leaves neither gaps nor overlaps."""

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.tiny import TINY
from segrefiner.errors import InputError, SizeMismatchError
from segrefiner.imaging.label_files import LabelMap, labels_png
from segrefiner.model.diffusion import Progress
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.label_maps import for_scenes, refine_labels
from segrefiner.refinement.pipelines.published import semantic_pipeline
from segrefiner.refinement.refiner import Refiner

QUICK = settings(max_examples=60)
PHOTO = np.zeros((12, 16, 3), np.uint8)


class Stub:
    """Gives every mask the probabilities that a function of it says, and remembers what it was asked."""

    pipeline = None

    def __init__(self, give: Any) -> None:
        self.give = give
        self.masks: list[np.ndarray] = []
        self.options: dict[str, Any] = {}

    def many(self, pairs: Any, **options: Any) -> Iterator[Any]:
        self.options = options
        for _, mask in pairs:
            self.masks.append(mask)
            probability = np.asarray(self.give(mask), np.float32)
            yield SimpleNamespace(probability=probability, mask=probability >= 0.5, report=None)


def noise(mask: np.ndarray) -> np.ndarray:
    """Random probabilities that are a function of the mask."""
    random = np.random.default_rng(int(np.packbits(mask).astype(int) @ np.arange(1, 25)))
    return random.random(mask.shape)


def random_map(seed: int, labels: int, dtype: Any = np.uint8) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.kron(random.integers(0, labels, (3, 4)), np.ones((4, 4), int)).astype(dtype)


@QUICK
@given(st.integers(0, 999), st.integers(1, 6), st.sampled_from([np.uint8, np.uint16, np.int32]))
def test_every_pixel_has_one_of_the_labels_and_ignored_ones_stay(seed: int, labels: int, dtype: Any) -> None:
    coarse = random_map(seed, labels, dtype)
    before = coarse.copy()
    refined = refine_labels(Stub(noise), PHOTO, coarse, ignore=[1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(coarse, before)
    assert refined.labels.dtype == dtype and refined.labels.shape == coarse.shape
    assert set(np.unique(refined.labels)) <= set(np.unique(coarse))
    np.testing.assert_array_equal(refined.labels == 1, coarse == 1)
    assert refined.changed == pytest.approx(np.mean(refined.labels != coarse))
    present = set(np.unique(coarse[coarse != 1]).tolist())
    assert set(refined.vanished) == present - set(np.unique(refined.labels).tolist())


@QUICK
@given(st.integers(0, 999))
def test_two_labels_are_the_object_s_mask(seed: int) -> None:
    coarse = np.zeros((12, 16), np.uint8)
    coarse[3:9, 4:12] = 7
    stub = Stub(lambda mask: np.random.default_rng(seed).random(mask.shape))
    refined = refine_labels(stub, PHOTO, coarse)  # type: ignore[arg-type]
    np.testing.assert_array_equal(refined.labels == 7, np.random.default_rng(seed).random((12, 16)) > 0.5)
    assert set(refined.reports) == {7}


def crossing(column: int) -> np.ndarray:
    """Four labels that meet in one point, so that each touches two others."""
    labels = np.zeros((40, 60), np.uint8)
    labels[:, column:] += 1
    labels[20:] += 2
    return labels


@QUICK
@given(st.integers(0, 999), st.integers(2, 6))
def test_a_pixel_keeps_its_label_or_takes_that_of_the_nearest_region(seed: int, labels: int) -> None:
    coarse = random_map(seed, labels)
    stub = Stub(lambda mask: np.where(noise(mask) > 0.5, 1.0, 0.0))
    refined = refine_labels(stub, PHOTO, coarse, seed=5, max_shift=2.0)  # type: ignore[arg-type]
    asked = {name: value for name, value in stub.options.items() if name != "trust"}
    assert asked == {"seed": 5, "max_shift": 2.0} or len(np.unique(coarse)) == 1
    for value, mask in zip(refined.reports, stub.masks, strict=True):
        np.testing.assert_array_equal(mask, coarse == value)
    rows, columns = np.indices(coarse.shape)
    for y, x in zip(*np.nonzero(refined.labels != coarse), strict=True):
        distance = np.hypot(rows - y, columns - x)
        others = distance[coarse != coarse[y, x]].min()
        assert distance[coarse == refined.labels[y, x]].min() <= others + 1


def test_among_several_labels_the_more_a_map_is_trusted_the_less_of_it_moves() -> None:
    coarse, grown = crossing(30), crossing(34)

    def give(mask: np.ndarray) -> np.ndarray:
        value = int(coarse[mask][0])
        return np.where(grown == value, 0.95, 0.05)

    refined = [
        refine_labels(Stub(give), np.zeros((40, 60, 3), np.uint8), coarse, trust=trust)  # type: ignore[arg-type]
        for trust in (0.0, 0.3, 0.7, None, 0.9, 1.0)
    ]
    moved = [one.labels != coarse for one in refined]
    # Where the four meet, the nearest region is another one.
    away = np.abs(np.arange(40) - 19.5) > 4
    np.testing.assert_array_equal(refined[0].labels[away], grown[away])
    assert not moved[-1].any() and all(not (more & ~less).any() for less, more in pairwise(moved))
    assert np.array_equal(moved[2], moved[3]), "0.7 is what is taken where nothing is said"
    assert all(set(one.reports) == {0, 1, 2, 3} for one in refined)


def test_what_the_masks_are_not_to_change_no_label_changes() -> None:
    torch.manual_seed(0)
    refiner = Refiner(DenoisingUNet(TINY), name="tiny")
    photo = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    coarse = np.kron(random_map(7, 4)[:6, :8], np.ones((10, 10), np.uint8))
    for trust in (None, 0.0):
        refined = refine_labels(refiner, photo, coarse, strength=0.0, trust=trust)
        np.testing.assert_array_equal(refined.labels, coarse)


def test_one_opinion_alone_moves_nothing() -> None:
    coarse = crossing(30)
    for probability in (0.0, 1.0):
        stub = Stub(lambda mask, p=probability: np.full(mask.shape, p))
        refined = refine_labels(stub, np.zeros((40, 60, 3), np.uint8), coarse)  # type: ignore[arg-type]
        np.testing.assert_array_equal(refined.labels, coarse)


@pytest.mark.parametrize("probability", [0.49, 0.51])
def test_objects_before_a_ground_are_decided_as_masks_are(probability: float) -> None:
    coarse = np.zeros((40, 80), np.uint8)
    coarse[5:30, 5:30], coarse[5:30, 40:70] = 3, 9
    grown = np.pad(coarse, 1)[2:, 1:-1] * (coarse == 0) + coarse

    def give(mask: np.ndarray) -> np.ndarray:
        value = int(coarse[mask][0])
        return np.where(coarse == value, 1.0, np.where(grown == value, probability, 0.0))

    refined = refine_labels(Stub(give), np.zeros((40, 80, 3), np.uint8), coarse)  # type: ignore[arg-type]
    np.testing.assert_array_equal(refined.labels, grown if probability > 0.5 else coarse)
    assert set(refined.reports) == {3, 9}, "the ground is what the objects leave"


@pytest.mark.parametrize(("labels", "equal"), [(2, 1 / 2), (3, 1 / 2), (4, 1 / 4), (3, 0.75), (4, 1.0)])
def test_between_equals_the_coarse_label_stays(labels: int, equal: float) -> None:
    coarse = random_map(3, labels)
    coarse[[0, -1]] = 0
    refined = refine_labels(Stub(lambda mask: np.full(mask.shape, equal)), PHOTO, coarse)  # type: ignore[arg-type]
    assert set(np.unique(coarse)) == set(range(labels))
    np.testing.assert_array_equal(refined.labels, coarse)


def test_a_perfect_refiner_changes_nothing() -> None:
    coarse = random_map(1, 5, np.int16) - 2
    refined = refine_labels(Stub(lambda mask: mask), PHOTO, coarse)  # type: ignore[arg-type]
    np.testing.assert_array_equal(refined.labels, coarse)
    assert refined.changed == 0 and refined.vanished == () and refined.labels.dtype == np.int16


@pytest.mark.parametrize("ignore", [(), (0,), (9,), (0, 9)])
def test_one_label_alone_comes_back_and_is_not_the_same_array(ignore: tuple[int, ...]) -> None:
    coarse = np.full((12, 16), 9, np.uint16)
    if ignore:
        coarse[:5] = 0
    stub = Stub(noise)
    refined = refine_labels(stub, PHOTO, coarse, ignore=ignore)  # type: ignore[arg-type]
    np.testing.assert_array_equal(refined.labels, coarse)
    assert refined.labels is not coarse and refined.changed == 0 and refined.vanished == ()
    assert not stub.masks and refined.reports == {}


def test_ignored_pixels_are_no_part_of_any_mask() -> None:
    coarse = random_map(5, 4)
    coarse[4:8] = 255
    stub = Stub(lambda mask: np.ones(mask.shape))
    refined = refine_labels(stub, PHOTO, coarse, ignore=[255])  # type: ignore[arg-type]
    assert not any(mask[4:8].any() for mask in stub.masks) and len(stub.masks) >= 3
    np.testing.assert_array_equal(refined.labels == 255, coarse == 255)
    assert 255 not in refined.vanished and 255 not in refined.reports


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64])
def test_labels_that_the_type_cannot_hold_are_ignored_nowhere(dtype: Any) -> None:
    coarse = random_map(2, 3, dtype)
    expected = refine_labels(Stub(noise), PHOTO, coarse).labels  # type: ignore[arg-type]
    refined = refine_labels(Stub(noise), PHOTO, coarse, ignore=[-(2**70), 255 + 2**16, 2**70])  # type: ignore[arg-type]
    np.testing.assert_array_equal(refined.labels, expected)


def test_a_label_that_loses_all_its_pixels_is_reported() -> None:
    coarse = np.zeros((12, 16), np.uint8)
    coarse[2:5, 2:5], coarse[7:11, 7:14] = 3, 9
    stub = Stub(lambda mask: mask * (0.9 if mask[8, 8] else 0.001))
    refined = refine_labels(stub, PHOTO, coarse)  # type: ignore[arg-type]
    assert refined.vanished == (3,) and not (refined.labels == 3).any()
    np.testing.assert_array_equal(refined.labels == 9, coarse == 9)


@QUICK
@given(st.integers(0, 999))
def test_values_of_labels_do_not_matter(seed: int) -> None:
    coarse = random_map(seed, 4)
    names = np.random.default_rng(seed).permutation(4).astype(np.uint8)
    one = refine_labels(Stub(noise), PHOTO, coarse).labels  # type: ignore[arg-type]
    other = refine_labels(Stub(noise), PHOTO, names[coarse]).labels  # type: ignore[arg-type]
    border = np.concatenate([coarse[0], coarse[-1], coarse[:, 0], coarse[:, -1]])
    counts = np.sort(np.bincount(border, minlength=4))
    if counts[-1] > counts[-2]:  # else the background is a matter of names
        np.testing.assert_array_equal(names[one], other)


@pytest.mark.parametrize(
    "labels",
    [np.zeros((12, 16)), np.zeros((12, 16), bool), np.zeros((12, 16), complex), np.zeros((12, 16), object),
     np.zeros((2, 12, 16), int), np.zeros(16, int), np.zeros((12, 16, 1), int)],
)  # fmt: skip
def test_what_is_no_label_map_is_refused(labels: Any) -> None:
    with pytest.raises(InputError, match="integers"):
        refine_labels(Stub(noise), PHOTO, labels)  # type: ignore[arg-type]


def test_a_label_map_of_another_size_is_refused() -> None:
    for shape in ((5, 5), (16, 12)):
        with pytest.raises(SizeMismatchError):
            refine_labels(Stub(noise), PHOTO, np.zeros(shape, int))  # type: ignore[arg-type]


def test_label_maps_may_be_tensors_files_and_lists() -> None:
    coarse = random_map(3, 4)
    expected = refine_labels(Stub(noise), PHOTO, coarse).labels  # type: ignore[arg-type]
    tensor = torch.from_numpy(coarse)
    forms: list[Any] = [tensor, tensor[None], tensor[None, None], tensor.long(), tensor.to(torch.uint16)]
    forms += [coarse.tolist(), coarse.astype(">u2"), np.asfortranarray(coarse), labels_png(LabelMap(coarse))]
    for form in forms:
        refined = refine_labels(Stub(noise), PHOTO, form).labels  # type: ignore[arg-type]
        assert isinstance(refined, np.ndarray)
        np.testing.assert_array_equal(refined, expected)
    for form in (tensor.float(), tensor.bfloat16(), tensor.to("meta"), "absent.png"):
        with pytest.raises(InputError):
            refine_labels(Stub(noise), PHOTO, form)  # type: ignore[arg-type]


def test_labels_of_scenes_get_no_tiles_of_the_enlarged_photo() -> None:
    refiner, scales = Refiner(DenoisingUNet(TINY)), []

    def note(progress: Progress) -> None:
        scales.append(progress.scale)

    labels = np.zeros((80, 630), np.uint8)
    labels[:, 210:420], labels[:, 420:] = 1, 2
    photo = np.zeros((80, 630, 3), np.uint8)
    refine_labels(refiner, photo, labels, on_progress=note)
    assert {scale for scale in scales if scale is not None} == {1.0}
    scales.clear()
    refiner(photo, labels == 1, on_progress=note)
    assert 0.5 in scales


def test_a_refiner_with_a_pipeline_of_its_own_keeps_it_for_scenes() -> None:
    plain, published = (Refiner(DenoisingUNet(TINY)), Refiner(DenoisingUNet(TINY), pipeline=semantic_pipeline))
    assert for_scenes(published) is published
    pipeline = plain.pipeline
    assert for_scenes(plain).pipeline is not pipeline and plain.pipeline is pipeline
