"""Laws of thin structures: exact masks, of the thickness that their kind has, reproducible."""

import numpy as np
import pytest
from scipy import ndimage

from segrefiner.data.composites.thin_structures import KINDS, OVERSAMPLING, draw_structure
from segrefiner.errors import InputError

# Bounds in pixels: of what lies on a structure's middle line, half is at most so thick, and nearly all of it.
THICKNESS = {
    "wires": (5, 9),
    "spokes": (6, 12),
    "strings": (5, 10),
    "branches": (5, 10),
    "fences": (7, 12),
    "vessels": (4, 5),
    "leaves": (24, 120),
}


def thickness(mask: np.ndarray) -> np.ndarray:
    """Twice the distance to the background, at its ridges."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))
    ridge = (distance == ndimage.maximum_filter(distance, 3)) & (distance > 0)
    return 2 * distance[ridge] - 1


@pytest.mark.parametrize("kind", KINDS)
def test_coverage_is_a_share_of_whole_subpixels(kind: str) -> None:
    for seed, (height, width) in enumerate([(120, 160), (161, 97), (32, 32)]):
        coverage = draw_structure(kind, height, width, np.random.default_rng(seed))
        assert coverage.shape == (height, width) and coverage.dtype == np.float32
        subpixels = coverage * OVERSAMPLING**2
        assert subpixels.min() >= 0 and subpixels.max() <= OVERSAMPLING**2
        assert np.array_equal(subpixels, np.rint(subpixels))
        assert (coverage >= 0.5).any() and not (coverage >= 0.5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_masks_have_the_thickness_of_their_kind(kind: str) -> None:
    masks = [draw_structure(kind, 240, 320, np.random.default_rng(seed)) >= 0.5 for seed in range(6)]
    found = np.concatenate([thickness(mask) for mask in masks])
    half, nearly = THICKNESS[kind]
    assert found.min() >= 1
    assert np.median(found) <= half and np.quantile(found, 0.98) <= nearly


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_draws_give_the_same_structure(kind: str) -> None:
    first, again, other = (draw_structure(kind, 96, 128, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_lines_of_one_pixel_stay_whole() -> None:
    # Vessels hang together but for what the frame cuts off; lines that the pixel grid breaks would leave many pieces.
    for seed in range(4):
        mask = draw_structure("vessels", 240, 320, np.random.default_rng(seed)) >= 0.5
        sizes = np.bincount(ndimage.label(mask, np.ones((3, 3)))[0].ravel())[1:]
        assert sizes.max() > 0.9 * sizes.sum() and len(sizes) < 20


def test_unknown_kinds_and_tiny_pictures_are_refused() -> None:
    random = np.random.default_rng(0)
    with pytest.raises(InputError, match="'hair', expected one of wires"):
        draw_structure("hair", 64, 64, random)
    with pytest.raises(InputError, match="64x8, expected at least 32"):
        draw_structure("wires", 8, 64, random)
