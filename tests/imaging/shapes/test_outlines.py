"""Outlines draw the mask that they were traced of, and stay within half a pixel of what was drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter
from scipy.ndimage import label as components

from segrefiner.imaging.coco_masks import draw_polygons
from segrefiner.imaging.shapes.outlines import mask_outlines, single_outline


@settings(max_examples=300)
@given(arrays(np.bool_, st.tuples(st.integers(1, 16), st.integers(1, 16))))
def test_polygons_draw_the_same_mask(mask: np.ndarray) -> None:
    found = mask_outlines(mask)
    assert len(found.polygons) == components(mask, np.ones((3, 3)))[1]
    padded = np.pad(mask, 1)
    assert found.holes == components(~padded)[1] - 1
    if mask.any():
        np.testing.assert_array_equal(draw_polygons(found.polygons, mask.shape), mask)
        np.testing.assert_array_equal(draw_polygons([single_outline(mask)[0]], mask.shape), mask)


@pytest.mark.parametrize("seed", range(20))
def test_polygons_draw_the_same_mask_of_larger_shapes(seed: int) -> None:
    random = np.random.default_rng(seed)
    noise = gaussian_filter(random.normal(size=random.integers(40, 160, 2)), random.choice([0.7, 2, 5]))
    mask = noise > np.quantile(noise, random.uniform(0.2, 0.8))
    np.testing.assert_array_equal(draw_polygons(mask_outlines(mask).polygons, mask.shape), mask)
    np.testing.assert_array_equal(draw_polygons([single_outline(mask)[0]], mask.shape), mask)


def test_a_polygon_with_whole_corners_comes_back_as_it_was() -> None:
    for polygon in ([3, 4, 3, 20, 30, 20, 30, 4], [2, 2, 2, 30, 20, 30, 20, 12, 12, 12, 12, 2]):
        (found,) = mask_outlines(draw_polygons([polygon], (40, 40))).polygons
        assert sorted(zip(found[0::2], found[1::2], strict=True)) == sorted(
            zip(polygon[0::2], polygon[1::2], strict=True)
        )


def distances(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    best = np.full(len(points), np.inf)
    for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        side = end - start
        along = np.clip((points - start) @ side / max(side @ side, 1e-12), 0, 1)
        best = np.minimum(best, np.hypot(*(points - start - along[:, None] * side).T))
    return best


@pytest.mark.parametrize("seed", range(30))
def test_a_drawn_contour_moves_by_half_a_pixel(seed: int) -> None:
    """COCO draws on a grid of fifths, which adds a tenth each way; corners may be as far as half a pixel both ways."""
    random = np.random.default_rng(seed)
    count = int(random.integers(8, 40))
    angle = np.arange(count) / count * 2 * np.pi + random.uniform(0, 6)
    drawn = 50 + np.stack([np.cos(angle), np.sin(angle)], axis=1) * random.uniform(15, 40, 2)
    (found,) = mask_outlines(draw_polygons([drawn.ravel().tolist()], (100, 100))).polygons
    ring = np.array(found).reshape(-1, 2)
    moved = distances(ring, drawn)
    corner = (ring % 1 == 0).all(axis=1)
    assert moved[~corner].max() <= 0.5 + 0.2
    assert moved.max() <= np.hypot(0.6, 0.6) + 0.1
    assert np.quantile(moved, 0.9) <= 0.6 and moved.mean() <= 0.4
    area = np.abs((drawn[:, 0] * np.roll(drawn[:, 1], -1) - drawn[:, 1] * np.roll(drawn[:, 0], -1)).sum()) / 2
    mine = np.abs((ring[:, 0] * np.roll(ring[:, 1], -1) - ring[:, 1] * np.roll(ring[:, 0], -1)).sum()) / 2
    # Half a pixel all around would be far more.
    assert abs(mine - area) <= 0.1 * np.hypot(*(drawn - np.roll(drawn, 1, axis=0)).T).sum()


def farthest(ring: np.ndarray, other: np.ndarray) -> float:
    """How far, in x or in y, a contour's points lie from another contour at most."""
    start, side = other, np.roll(other, -1, axis=0) - other
    points = np.concatenate([ring + (np.roll(ring, -1, axis=0) - ring) * step for step in (0, 0.25, 0.5, 0.75)])
    ahead = start - points[:, None]
    # The larger of two distances is least at an end, where one of them is zero, or where both are equal.
    with np.errstate(divide="ignore", invalid="ignore"):
        found = [-ahead[..., 0] / side[:, 0], -ahead[..., 1] / side[:, 1]]
        found += [-(ahead[..., 0] + sign * ahead[..., 1]) / (side[:, 0] + sign * side[:, 1]) for sign in (1, -1)]
    ends = [np.zeros(ahead.shape[:2]), np.ones(ahead.shape[:2])]
    along = np.nan_to_num([*found, *ends], posinf=0, neginf=0).clip(0, 1)
    there = np.abs(ahead + along[..., None] * side).max(axis=-1)
    return float(there.min(axis=(0, 2)).max())


def drawn_by_coco(polygon: np.ndarray) -> np.ndarray:
    """The mask as another program draws it."""
    masks = pytest.importorskip("faster_coco_eval.core.mask")
    return masks.decode(masks.merge(masks.frPyObjects([polygon.ravel().tolist()], 100, 100))).astype(bool)


def random_polygon(kind: str, random: np.random.Generator) -> np.ndarray:
    if kind == "rectangle":
        (left, top), (width, height) = random.uniform(5, 40, 2), random.uniform(2, 50, 2)
        return np.array([[left, top], [left + width, top], [left + width, top + height], [left, top + height]])
    count = int(random.integers(8 if kind == "round" else 3, 24))
    angle = np.sort(random.uniform(0, 2 * np.pi, count)) if kind != "round" else np.arange(count) / count * 2 * np.pi
    radius = random.uniform(10, 45, count if kind == "star" else 1)
    return 50 + np.stack([np.cos(angle + 0.3), np.sin(angle + 0.3)], axis=1) * radius[:, None]


@pytest.mark.parametrize("kind", ["rectangle", "round", "convex", "star"])
def test_no_written_point_is_farther_from_the_drawn_contour_than_a_mask_can_tell(kind: str) -> None:
    """Half a pixel in x and in y: rectangles that differ by a pixel may draw one mask. COCO's grid adds a tenth."""
    bound = 0.5 if kind == "rectangle" else 0.62
    for seed in range(40):
        drawn = random_polygon(kind, np.random.default_rng(seed))
        found = mask_outlines(drawn_by_coco(drawn))
        # Joints of holes are no contours.
        for one in [] if found.holes else found.polygons:
            written = np.array(one).reshape(-1, 2)
            assert farthest(written, drawn) <= bound, seed
            # Parts that are thinner than a pixel, such as tips, are in no mask.
            if kind in ("rectangle", "round"):
                assert farthest(drawn, written) <= bound, seed


def test_no_outline_could_lie_nearer_to_all_contours_that_draw_its_mask() -> None:
    """What draws one mask has one outline, which is half of their distance or more from one of them."""

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        np.testing.assert_array_equal(drawn_by_coco(one), drawn_by_coco(other))
        assert drawn_by_coco(one).any()
        return max(farthest(one, other), farthest(other, one))

    def square(low: float, high: float) -> np.ndarray:
        return np.array([[low, low], [low, high], [high, high], [high, low]])

    # Half a pixel in x and in y, and 0.7 in a straight line at the corners.
    assert apart(square(10.49, 30.51), square(9.51, 31.49)) > 0.97
    assert distances(square(9.51, 31.49), square(10.49, 30.51)).max() / 2 > 0.69
    # A tip that is thinner than a pixel is in no mask, however long it is.
    one, other = [[1.13, 2.26], [4.85, 3.0], [4.1, 1.21]], [[4.86, 2.75], [3.73, 4.93], [3.17, 1.02]]
    assert apart(np.array(one), np.array(other)) > 2
