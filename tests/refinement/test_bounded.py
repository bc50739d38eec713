"""Laws of work: it is bounded by the photo's pixels, whatever the mask, and what is left out is said."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from helpers.tiny import TINY
from segrefiner import Refiner
from segrefiner.imaging.boxes import Box
from segrefiner.imaging.reading import Photo, read_photo
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement import label_regions
from segrefiner.refinement.cost import estimated_cost, label_costs
from segrefiner.refinement.label_maps import RefinedLabels, refine_labels
from segrefiner.refinement.label_regions import bounded, components
from segrefiner.refinement.pipelines.acceptance import KeptReason
from segrefiner.refinement.pipelines.views import worth_refining

QUICK = settings(max_examples=60)


def noise(side: int, labels: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, labels, (side, side)).astype(np.uint8)


def blocks(side: int, cell: int) -> NDArray[np.uint8]:
    """Squares of labels of their own."""
    y, x = np.indices((side, side)) // cell
    return (y * -(-side // cell) + x).astype(np.uint8)


def photo(side: int) -> Photo:
    return read_photo(np.random.default_rng(1).integers(0, 256, (side, side, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner(DenoisingUNet(TINY), steps=2)


MASKS = {
    "noise": lambda side: noise(side, 2) == 1,
    "sparse": lambda side: noise(side, 50) == 1,
    "board": lambda side: np.indices((side, side)).sum(0) % 2 == 0,
    "grid": lambda side: (np.indices((side, side)) % 4 == 0).any(0),
    "dots": lambda side: (np.indices((side, side)) % 8 == 4).all(0),
    "spiral": lambda side: blocks(side, 5) % 3 == 0,
}


@pytest.mark.parametrize("side", [96, 256])
@pytest.mark.parametrize("kind", MASKS)
def test_the_network_sees_at_most_so_many_views_of_a_megapixel(kind: str, side: int, refiner: Refiner) -> None:
    report = refiner(photo(side), MASKS[kind](side)).report
    assert report.evaluations <= 60 + 1200 * side**2 / 1e6


def dots(side: int, step: int, size: int) -> NDArray[np.bool_]:
    return np.asarray((np.indices((side, side)) % step < size).all(0))


def test_specks_among_very_many_stay_and_are_counted(refiner: Refiner) -> None:
    mask = dots(200, 14, 2)
    mask[:60, :60] = False
    mask[10:40, 10:40] = True
    result = refiner(photo(200), mask)
    count = ndimage.label(mask)[1] - 1
    assert count > 64 and result.report.kept_objects[KeptReason.SPECK.value] == count
    assert f"{count} objects: a speck among very many" in str(result.report)
    np.testing.assert_array_equal(result.mask[60:], mask[60:])
    alone = mask.copy()
    alone[60:] = alone[:, 60:] = False
    np.testing.assert_array_equal(result.mask[:45, :45], refiner(photo(200), alone).mask[:45, :45])


def test_few_specks_and_many_objects_are_refined() -> None:
    speck, square, line = Box(0, 0, 3, 5), Box(0, 0, 4, 4), Box(0, 0, 16, 1)
    for boxes in ([speck] * 64, [square] * 400, [line] * 400):
        assert worth_refining(boxes) == list(range(len(boxes)))
    assert worth_refining([speck] * 64 + [square]) == [64]


class Recorder:
    """Stands in for a refiner: gives masks back and remembers them."""

    pipeline = None

    def __init__(self) -> None:
        self.masks: list[NDArray[np.bool_]] = []

    def many(self, pairs: Any, **options: Any) -> Iterator[Any]:
        for _, mask in pairs:
            self.masks.append(mask)
            yield SimpleNamespace(probability=mask.astype(np.float32), report=None)


def refined_by(recorder: Recorder, labels: NDArray[np.uint8]) -> RefinedLabels:
    return refine_labels(recorder, photo(len(labels)), labels)  # type: ignore[arg-type]


def test_noise_of_99_labels_is_left_as_it_is_and_that_is_said() -> None:
    labels, recorder = noise(160, 99), Recorder()
    refined = refined_by(recorder, labels)
    np.testing.assert_array_equal(refined.labels, labels)
    assert recorder.masks == [] and refined.reports == {} and refined.changed == 0 and refined.vanished == ()
    (note,) = refined.warnings
    assert "regions of fewer than 16 pixels are left as they are" in note


def test_noise_over_objects_costs_what_the_objects_cost() -> None:
    clean, seen, alone = blocks(128, 13), Recorder(), Recorder()
    noisy = np.where(np.random.default_rng(0).random(clean.shape) < 0.06, noise(128, 99), clean)
    refined = refined_by(seen, noisy)
    refined_by(alone, clean)
    # All that noise leaves to the network are pixels of which a neighbour is as near.
    assert np.mean(np.array(seen.masks) != np.array(alone.masks)) < 1e-3
    np.testing.assert_array_equal(refined.labels, noisy)
    assert refined.warnings and estimated_cost(seen.masks, 2) <= 1.2 * estimated_cost(alone.masks, 2)


@pytest.mark.parametrize(
    "labels",
    [blocks(160, 16), blocks(160, 40), noise(64, 12), noise(160, 3)],
    ids=["small objects", "objects", "small noise", "noise of three"],
)
def test_ordinary_maps_are_not_touched(labels: NDArray[np.uint8]) -> None:
    part = bounded(labels, np.zeros(labels.shape, bool), np.unique(labels).tolist())
    assert part.labels is labels and part.specks is None and not part.kept and part.notes == ()


def test_the_costliest_labels_are_left_where_all_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_regions, "_SCATTERED", (100.0, 0.0))
    monkeypatch.setattr(label_regions, "_MOST", (100.0, 0.0))
    labels = blocks(120, 24)
    labels[::2, 60:] = 77  # Stripes, which cost most.
    labels[1::2, 60:] = 78
    recorder = Recorder()
    recorder.many = lambda pairs, **options: (  # type: ignore[method-assign]
        SimpleNamespace(probability=ndimage.maximum_filter(mask, 5).astype(np.float32), report=None)
        for _, mask in pairs
    )
    refined = refined_by(recorder, labels)
    assert refined.warnings[-1].startswith("2 of 17 labels are left as they are")
    assert refined.reports.keys() == set(np.unique(labels).tolist()) - {77, 78}
    # What is not refined keeps what it has and takes nothing.
    np.testing.assert_array_equal(np.isin(refined.labels, [77, 78]), np.isin(labels, [77, 78]))


@QUICK
@given(arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_components_are_those_of_each_number_alone(index: NDArray[np.int32]) -> None:
    regions, number_of, area = components(index)
    np.testing.assert_array_equal(number_of[regions], index)
    np.testing.assert_array_equal(area, np.bincount(regions.ravel()))
    for value in np.unique(index):
        parts, count = ndimage.label(index == value, np.ones((3, 3)))
        assert len(np.unique(regions[index == value])) == count
        for part in range(1, count + 1):
            assert len(np.unique(regions[parts == part])) == 1


@QUICK
@given(st.integers(2, 40), st.integers(60, 200), st.randoms(use_true_random=False))
def test_the_cost_of_labels_does_not_depend_on_their_numbers(count: int, side: int, random: object) -> None:
    numbers = noise(side, count).astype(np.int32)
    order = list(range(count))
    random.shuffle(order)  # type: ignore[attr-defined]
    np.testing.assert_allclose(
        label_costs(np.array(order, np.int32)[numbers], count)[order], label_costs(numbers, count)
    )
