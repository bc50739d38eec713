"""Laws of edges: filter and strength equal their definitions, contours run along edges, and exact masks lie on them."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from segrefiner.imaging import boxes, ops
from segrefiner.imaging.edges import EDGE_REACH, GuidedFilter, edge_gain, edge_strength, snap_to_edges

RADIUS, SMOOTHNESS = 2, 1e-4
GOOD = 0.05, 0.07
"""A gain that says nothing, and one that speaks for a contour."""


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(image: Tensor, probability: Tensor, radius: int = RADIUS) -> Tensor:
    result = probability.clone()
    found = snap_to_edges(image, probability, radius, SMOOTHNESS)
    for (y, x), block in zip(found.corners.tolist(), found.blocks, strict=True):
        boxes.Box(x, y, x + len(block), y + len(block)).paste(block[None].to(result), result[None])
    return result


def of_the_whole(image: Tensor, probability: Tensor, rounds: int = 3) -> Tensor:
    """What is drawn, by filtering all of the photo so many times, sharpened in between."""
    margin = 4 * rounds
    bordered, values = (F.pad(p[None], (margin,) * 4, mode="replicate") for p in (image / 255, probability[None]))
    filtered = GuidedFilter(bordered, RADIUS, SMOOTHNESS)
    turns = [filtered(values).clamp(0, 1)]
    for _ in range(rounds - 1):
        turns.append(filtered((2 * (turns[-1] - 0.5) + 0.5).clamp(0, 1)))
    once, often = ((turn[0, 0], (margin - 4 * (i + 1))) for i, turn in ((0, turns[0]), (rounds - 1, turns[-1])))
    once, often = (plane[m : plane.shape[0] - m, m : plane.shape[1] - m] for plane, m in (once, often))
    return torch.where((often >= 0.5) ^ (once >= 0.5), 1 - once, once)


def by_definition(image: np.ndarray, values: np.ndarray, radius: int, smoothness: float) -> np.ndarray:
    """Least squares in every window, each pixel the mean over the windows that it is in; `(H, W, 3)` and `(H, W)`."""
    height, width = values.shape[0] - 2 * radius, values.shape[1] - 2 * radius
    slopes, offsets = np.empty((height, width, 3)), np.empty((height, width))
    for y in range(height):
        for x in range(width):
            window = np.s_[y : y + 2 * radius + 1, x : x + 2 * radius + 1]
            colours, wanted = image[window].reshape(-1, 3), values[window].ravel()
            covariance = np.cov(colours.T, bias=True) + smoothness * np.eye(3)
            shared = ((colours - colours.mean(0)) * (wanted - wanted.mean())[:, None]).mean(0)
            slopes[y, x] = np.linalg.solve(covariance, shared)
            offsets[y, x] = wanted.mean() - slopes[y, x] @ colours.mean(0)
    height, width = height - 2 * radius, width - 2 * radius
    result = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            window = np.s_[y : y + 2 * radius + 1, x : x + 2 * radius + 1]
            colour = image[y + 2 * radius, x + 2 * radius]
            result[y, x] = slopes[window].mean((0, 1)) @ colour + offsets[window].mean()
    return result


@pytest.mark.parametrize("radius", [1, 2])
def test_the_filter_is_least_squares_in_every_window(radius: int) -> None:
    image, values = random(2, 3, 15, 17), random(2, 1, 15, 17, seed=1)
    filtered = GuidedFilter(image, radius, 0.01)(values)
    for i in range(2):
        expected = by_definition(image[i].permute(1, 2, 0).numpy(), values[i, 0].numpy(), radius, 0.01)
        np.testing.assert_allclose(filtered[i, 0].numpy(), expected, atol=1e-9)


def test_what_is_the_same_everywhere_stays_so() -> None:
    image = random(1, 3, 20, 20)
    torch.testing.assert_close(
        GuidedFilter(image, 2, 1e-4)(torch.full((1, 1, 20, 20), 0.3).double()).mean(), image.new_tensor(0.3)
    )
    flat = torch.full((1, 3, 20, 20), 0.5).double()
    values = (torch.arange(20) >= 10).double().expand(1, 1, 20, 20)
    assert torch.equal(GuidedFilter(flat, 2, 1e-4)(values) >= 0.5, values[..., 4:-4, 4:-4] >= 0.5)


def scene(edge: int, height: int = 150, width: int = 170) -> Tensor:
    """A photo that is dark left of a column and bright right of it, with a little grain."""
    columns = torch.arange(width).expand(3, height, width)
    grain = torch.randint(0, 9, (3, height, width), generator=torch.Generator().manual_seed(0))
    return (torch.where(columns < edge, 60, 190) + grain).to(torch.uint8)


@pytest.mark.parametrize("off", [-2, -1, 0, 1, 2])
def test_a_contour_beside_an_edge_is_drawn_to_it(off: int) -> None:
    image, columns = scene(80), torch.arange(170).expand(150, 170)
    probability = torch.sigmoid((columns - 79.5 + off).float())
    result = drawn(image, probability) >= 0.5
    wrong = int((result != (columns >= 80)).sum())
    assert wrong <= (0, 0.1, 1)[abs(off)] * abs(off) * 150


def test_a_contour_is_drawn_farther_than_by_filtering_once() -> None:
    image, columns = scene(80), torch.arange(170).expand(150, 170)
    for off in (-3, -2, 2, 3):
        probability, right = torch.sigmoid((columns - 79.5 + off).float()), columns >= 80
        once, often = of_the_whole(image, probability, 1), drawn(image, probability)
        assert int(((often >= 0.5) != right).sum()) < int(((once >= 0.5) != right).sum())


def test_blocks_are_the_filter_of_the_whole_and_nothing_changes_far_from_the_contour() -> None:
    image = (random(3, 150, 170) * 255).to(torch.uint8)
    rows, columns = torch.meshgrid(torch.arange(150.0), torch.arange(170.0), indexing="ij")
    probability = torch.sigmoid(3 * (40 - torch.hypot(rows - 60, columns - 62)))
    given = probability.clone()
    result = drawn(image, probability)
    assert torch.equal(probability, given) and float(result.min()) >= 0 and float(result.max()) <= 1
    # Where the filter leaves a trace of the contour far from it, a block that is not drawn keeps the probability.
    torch.testing.assert_close(result, of_the_whole(image, probability), atol=2e-2, rtol=0)
    near = torch.hypot(rows - 60, columns - 62) < 52
    torch.testing.assert_close(result[near], of_the_whole(image, probability)[near], atol=2e-3, rtol=0)
    assert torch.equal(result[144:], given[144:]) and torch.equal(result[:, 144:], given[:, 144:])


def test_drawing_band_by_band_is_drawing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    image = (random(3, 150, 170) * 255).to(torch.uint8)
    probability = (random(150, 170, seed=1) + disc(50, 70, 80)[:150, :170] - 0.5).clamp(0, 1).float()
    for radius in (1, 2, 7, 12):
        whole = drawn(image, probability, radius)
        with monkeypatch.context() as small:
            small.setattr(ops, "BAND_PIXELS", 170 * 30)
            assert len(ops.row_bands(150, 170, multiple=24)) == 7
            torch.testing.assert_close(drawn(image, probability, radius), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("radius", [1, 2, 5, 8, 12])
def test_every_block_that_the_contour_is_near_is_drawn(radius: int) -> None:
    image = (random(3, 150, 170) * 255).to(torch.uint8)
    for at in range(48, 96, 5):
        probability = (torch.arange(170) >= at).float().expand(150, 170)
        near = torch.zeros(150, 170, dtype=torch.bool)
        found = snap_to_edges(image, probability, radius, SMOOTHNESS)
        for y, x in found.corners.tolist():
            near[y : y + found.blocks.shape[1], x : x + found.blocks.shape[2]] = True
        assert near[:, at - 2 * radius : at + 2 * radius].all()


@pytest.mark.parametrize("steepness", [0.5, 1.0, 4.0])
def test_contours_cross_from_block_to_block(steepness: float) -> None:
    for edge, off in product(range(92, 101), (-3, -2, -1, 1, 2, 3)):
        image, columns = scene(edge), torch.arange(170).expand(150, 170)
        probability = torch.sigmoid(steepness * (columns - edge + 0.5 + off).float())
        # Beyond the photo its border counts, which differs once it is filtered.
        ours, whole = (plane[12:-12] >= 0.5 for plane in (drawn(image, probability), of_the_whole(image, probability)))
        assert torch.equal(ours, whole)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2, 2), (48, 49), (200, 3)], ids=str)
def test_every_shape_can_be_filtered(shape: tuple[int, int]) -> None:
    image, probability = (random(3, *shape) * 255).to(torch.uint8), random(*shape, seed=2).float()
    result = drawn(image, probability)
    assert result.shape == shape and torch.isfinite(result).all()


# Which of two masks lies on the edges.


def disc(radius: float, y: float = 200, x: float = 200, side: int = 400) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def photo_of(mask: Tensor) -> Tensor:
    """Bright where the mask is, with grain."""
    grain = torch.randint(0, 20, (3, *mask.shape), generator=torch.Generator().manual_seed(0))
    return (torch.where(mask, 190, 60) + grain).to(torch.uint8)


def gain_by_definition(image: Tensor, refined: Tensor, coarse: Tensor) -> float:
    """At the photo's own scale, by SciPy."""
    margin = EDGE_REACH + 1
    planes = np.pad(image.double().numpy() / 255, [(0, 0), (margin, margin), (margin, margin)], mode="edge")
    gradient = [ndimage.sobel(plane, axis, mode="nearest") for plane in planes for axis in (0, 1)]
    magnitude = np.sqrt(np.square(gradient).sum(axis=0))
    around = 2 * EDGE_REACH + 1
    strength = magnitude / (ndimage.maximum_filter(magnitude, around) + 0.1)
    strength = strength[margin:-margin, margin:-margin]
    rims = [
        ndimage.maximum_filter(mask, 3, mode="nearest") & ~ndimage.minimum_filter(mask, 3, mode="nearest")
        for mask in (refined.numpy(), coarse.numpy())
    ]
    near = [ndimage.maximum_filter(rim, around, mode="constant") for rim in rims]
    return float(strength[rims[0] & near[1]].mean() - strength[rims[1] & near[0]].mean())


@pytest.mark.parametrize("seed", range(3))
def test_the_gain_is_that_of_its_definition(seed: int) -> None:
    image = (random(3, 150, 170, seed=seed) * 255).to(torch.uint8)
    refined, coarse = disc(26, 62 + seed, 65)[:150, :170], disc(28, 64, 130 - 65 * seed)[:150, :170]
    refined, coarse = refined | disc(9, 140, 160)[:150, :170], coarse | disc(11, 142, 160)[:150, :170]
    assert edge_gain(image, refined, coarse) == pytest.approx(gain_by_definition(image, refined, coarse), abs=1e-5)


def test_the_strength_is_a_share_and_nothing_is_an_edge_of_a_flat_photo() -> None:
    strength = edge_strength(random(2, 3, 30, 40))
    assert strength.shape == (2, 1, 20, 30) and 0 <= float(strength.min()) <= float(strength.max()) < 1
    assert float(strength.max()) > 0.9
    assert not edge_strength(torch.full((1, 3, 20, 20), 0.7)).any()


@pytest.mark.parametrize("off", [-20, -6, -2, 2, 6, 20])
def test_a_mask_that_is_off_all_around_is_told_from_an_exact_one(off: int) -> None:
    truth, inexact = disc(120), disc(120 + off)
    assert edge_gain(photo_of(truth), truth, inexact) > GOOD[1]
    # Contours that are farther apart than one can look for at any scale say nothing.
    assert edge_gain(photo_of(truth), inexact, truth) < GOOD[0] or abs(off) == 20


def test_an_exact_mask_that_lacks_a_piece_counts_as_exact() -> None:
    truth = disc(120)
    coarse, refined = truth & ~disc(40, 200, 320), disc(121)
    assert edge_gain(photo_of(truth), refined, coarse) < GOOD[0]


def test_equal_masks_gain_nothing_and_of_contours_far_apart_nothing_is_known() -> None:
    mask = disc(50)
    image = photo_of(mask)
    assert edge_gain(image, mask, mask) == 0
    assert edge_gain(image, mask, disc(3, 20, 20)) == 1
    assert edge_gain(image, torch.zeros_like(mask), mask) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2, 2), (48, 49), (200, 3)], ids=str)
def test_every_shape_has_a_gain(shape: tuple[int, int]) -> None:
    image = (random(3, *shape) * 255).to(torch.uint8)
    refined, coarse = random(*shape, seed=2) > 0.4, random(*shape, seed=3) > 0.6
    assert -1 <= edge_gain(image, refined, coarse) <= 1
