"""What is measured along the contours of a label map is what it is said to be."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from segrefiner.imaging import ops
from segrefiner.refinement.label_changes import FEATURES, REACH, LabelChanges, corner_share, photo_edges
from segrefiner.refinement.label_regions import Regions

VOID = 9


def drawn(seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8], dict[int, NDArray[np.float32]]]:
    """A photo, a map of four labels with ignored pixels, and probabilities of each label."""
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=(4, 60, 80)), (0, 5, 5))
    labels = noise.argmax(0).astype(np.uint8)
    labels[20:24, 30:50] = VOID
    shaken = noise + 0.3 * ndimage.gaussian_filter(random.normal(size=noise.shape), (0, 3, 3))
    shares = np.exp(40 * shaken) / np.exp(40 * shaken).sum(0)
    photo = random.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    return photo, labels, {value: shares[value].astype(np.float32) for value in range(4)}


def measured(seed: int = 0) -> tuple[LabelChanges, Regions, NDArray[np.float32]]:
    photo, labels, probabilities = drawn(seed)
    regions = Regions(labels, labels == VOID, list(range(4)))
    changes = LabelChanges(photo, regions, labels == VOID)
    for value, probability in probabilities.items():
        changes.add(value, probability)
    return changes, regions, changes.features()


def column(features: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    return features[:, FEATURES.index(name)]


def test_pixels_near_contours_are_measured_but_for_ignored_ones() -> None:
    changes, regions, features = measured()
    _, labels, _ = drawn()
    near = np.zeros(labels.shape, bool)
    near[changes.rows, changes.columns] = True
    np.testing.assert_array_equal(near, (regions.distance <= REACH) & (labels != VOID))
    assert features.shape == (len(changes.rows), len(FEATURES)) and np.isfinite(features).all()
    assert (regions.nearest[near] != labels[near]).all()


def test_both_opinions_and_the_shares_of_both_labels_are_those_of_the_pixel() -> None:
    changes, regions, features = measured(1)
    _, labels, probabilities = drawn(1)
    rows, columns = changes.rows, changes.columns
    every = np.stack(list(probabilities.values()))
    current, other = every[labels[rows, columns], rows, columns], every[regions.nearest[rows, columns], rows, columns]
    np.testing.assert_allclose(column(features, "current"), current, atol=1e-6)
    np.testing.assert_allclose(column(features, "other"), other, atol=1e-6)
    np.testing.assert_allclose(column(features, "opinion"), (other - current + 1) / 2, atol=1e-6)
    for side in (5, 11, 25):
        shares = np.stack([ndimage.uniform_filter((labels == v).astype(float), side, mode="nearest") for v in range(4)])
        own, nearest = (shares[of[rows, columns], rows, columns] for of in (labels, regions.nearest))
        # What is cut out of the map for a label has its border repeated beyond.
        inner = (rows > 12) & (rows < 47) & (columns > 12) & (columns < 67)
        np.testing.assert_allclose(column(features, f"current_share_{side}")[inner], own[inner], atol=1e-5)
        np.testing.assert_allclose(column(features, f"other_share_{side}")[inner], nearest[inner], atol=1e-5)


def test_a_label_that_is_not_refined_has_what_it_has() -> None:
    photo, labels, _ = drawn()
    changes = LabelChanges(photo, Regions(labels, labels == VOID, list(range(4))), labels == VOID)
    for value in range(4):
        changes.add(value, None)
    assert (column(changes.features(), "current") == 1).all() and (column(changes.features(), "other") == 0).all()
    assert not changes.proposed[labels != VOID].any()


def test_maps_of_a_low_resolution_have_fewer_corners() -> None:
    fine = drawn(2)[1]
    coarse = np.kron(fine[::4, ::4], np.ones((4, 4), np.uint8))
    assert corner_share(coarse) < 0.7 * corner_share(fine)
    assert corner_share(np.zeros((5, 5), np.uint8)) == 0


def test_edges_are_the_same_band_by_band(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = drawn(3)[0]
    whole = photo_edges(photo)
    monkeypatch.setattr(ops, "BAND_PIXELS", 7 * 80)
    np.testing.assert_allclose(photo_edges(photo), whole, atol=1e-6)
    assert whole.shape == (60, 80)
