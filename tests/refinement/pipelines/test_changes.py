"""What is measured of changes is what it is said to be, wherever in the photo they are."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from segrefiner.imaging import ops
from segrefiner.imaging.edges import SnappedBlocks
from segrefiner.refinement.pipelines.changes import FEATURES, PIXEL_FEATURES, WHOLE_FEATURES, ChangedMask

HEIGHT, WIDTH = 150, 170


def case(seed: int = 0, offset: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor, Tensor]:
    """A photo, a probability and a coarse mask, in the middle of a plain picture and moved by an offset."""
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=(2, 70, 90)), (0, 4, 4))
    noise /= noise.std()
    window = np.hypot(*np.meshgrid(np.linspace(-1, 1, 90), np.linspace(-1, 1, 70))) < 0.9
    place = (slice(30 + offset[0], 100 + offset[0]), slice(30 + offset[1], 120 + offset[1]))
    photo = np.full((3, HEIGHT, WIDTH), 90, np.uint8)
    photo[(slice(None), *place)] = random.integers(0, 255, (3, 70, 90))
    probability, coarse = np.zeros((HEIGHT, WIDTH), np.float32), np.zeros((HEIGHT, WIDTH), bool)
    probability[place] = np.where(window, 1 / (1 + np.exp(-3 * noise[0])), 0)
    coarse[place] = window & (noise[0] + 0.7 * noise[1] > 0.2)
    return torch.from_numpy(photo), torch.from_numpy(probability), torch.from_numpy(coarse)


def measured(photo: Tensor, probability: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and features of all changes in reading order."""
    mask = ChangedMask(photo, probability.clone(), coarse, torch.ones_like(coarse), 1.5)
    changes = list(mask)
    rows, columns, features = (torch.cat([getattr(c, n) for c in changes]) for n in ("rows", "columns", "features"))
    order = torch.argsort(rows * WIDTH + columns)
    return rows[order], columns[order], features[order]


def column(features: Tensor, name: str) -> np.ndarray:
    return features[:, FEATURES.index(name)].numpy()


@pytest.mark.parametrize("seed", range(3))
def test_all_that_changes_is_measured_once(seed: int) -> None:
    photo, probability, coarse = case(seed)
    rows, columns, features = measured(photo, probability, coarse)
    assert torch.equal(torch.stack([rows, columns], 1), ((probability >= 0.5) ^ coarse).nonzero())
    assert features.shape == (len(rows), len(FEATURES)) and bool(features.isfinite().all())
    assert len(set(FEATURES)) == len(WHOLE_FEATURES) + len(PIXEL_FEATURES)


@pytest.mark.parametrize("side", [9, 25])
def test_squares_hold_what_is_around_a_pixel(side: int) -> None:
    photo, probability, coarse = case(1)
    rows, columns, features = measured(photo, probability, coarse)
    changed = ((probability >= 0.5) ^ coarse).numpy()
    sure = np.abs(2 * probability.numpy() - 1)

    def mean(plane: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(plane.astype(float), side, mode="nearest")[rows, columns]

    share = mean(changed)
    assert np.allclose(column(features, f"coverage_{side}"), mean(coarse.numpy()), atol=1e-5)
    assert np.allclose(column(features, f"changed_{side}"), share, atol=1e-5)
    assert np.allclose(column(features, f"confidence_{side}"), mean(sure * changed) / share, atol=1e-4)
    if side == 25:
        direction = mean(np.where(coarse, -1, 1) * changed) / share
        assert np.allclose(column(features, "direction_25"), direction, atol=1e-4)


def test_a_pixel_is_asked_for_what_the_network_says_of_its_new_state() -> None:
    photo, probability, coarse = case(2)
    rows, columns, features = measured(photo, probability, coarse)
    sure = (2 * probability - 1).abs()[rows, columns].numpy()
    assert np.allclose(column(features, "network"), sure, atol=1e-6)
    assert np.allclose(column(features, "snapped"), sure, atol=1e-6)
    assert np.array_equal(column(features, "added") > 0.5, ~coarse[rows, columns].numpy())


def test_contours_that_are_drawn_to_edges_are_told_from_the_network_s() -> None:
    photo, probability, coarse = case(0)
    blocks = SnappedBlocks(torch.tensor([[48, 48]]), torch.full((1, 24, 24), 0.9))
    mask = ChangedMask(photo, probability.clone(), coarse, torch.ones_like(coarse), 1.0, blocks)
    assert bool(mask.refined[48:72, 48:72].all())
    changes = list(mask)
    rows, columns, features = (torch.cat([getattr(c, n) for c in changes]) for n in ("rows", "columns", "features"))
    here = (rows >= 48) & (rows < 72) & (columns >= 48) & (columns < 72)
    assert np.allclose(column(features[here], "snapped"), 0.8, atol=1e-6)
    network = (2 * probability - 1)[rows[here], columns[here]].numpy()
    assert np.allclose(column(features[here], "network"), network, atol=1e-6) and network.min() < 0


def test_the_masks_are_compared_as_a_whole() -> None:
    photo, probability, coarse = case(3)
    features = measured(photo, probability, coarse)[2]
    refined = probability >= 0.5
    iou = float((refined & coarse).sum() / (refined | coarse).sum())
    rims = [ops.contour(mask) for mask in (refined, coarse)]
    near = torch.from_numpy(ndimage.binary_dilation(rims[0].numpy(), np.ones((5, 5))))
    length = int(rims[1].sum())
    expected = {
        "difference": math.log(1 - iou + 1e-4),
        "extent": math.log(math.sqrt(int((refined | coarse).sum()))),
        "scale": math.log2(1.5),
        "outline_ratio": math.log(int(rims[0].sum()) / length),
        "far_share": int((rims[1] & ~near).sum()) / length,
        "moved_share": int((rims[1] & ~rims[0]).sum()) / length,
        "contour_confidence": float((2 * probability - 1).abs()[rims[1]].mean()),
        "change_confidence": float((2 * probability - 1).abs()[refined ^ coarse].mean()),
    }
    for name, value in expected.items():
        assert column(features, name) == pytest.approx(value, abs=1e-4), name


def test_a_staircase_has_more_corners_than_a_box() -> None:
    box, stairs = torch.zeros(60, 60, dtype=torch.bool), torch.zeros(60, 60, dtype=torch.bool)
    box[15:45, 15:45] = True
    for row in range(15, 45):
        stairs[row, 15 : 15 + row - 10] = True
    photo = torch.zeros(3, 60, 60, dtype=torch.uint8)
    corners = []
    for coarse in (box, stairs):
        probability = coarse.float()
        probability[30, 5] = 1.0
        mask = ChangedMask(photo, probability, coarse, torch.ones_like(coarse), 1.0)
        corners.append(float(mask.comparison.features[WHOLE_FEATURES.index("corners")]))
    assert corners[0] < 0.1 < corners[1]


@pytest.mark.parametrize("offset", [(1, 0), (0, 1), (7, 13), (-11, 5)])
def test_it_does_not_matter_where_in_the_photo_an_object_is(offset: tuple[int, int]) -> None:
    rows, columns, features = measured(*case(4))
    moved = measured(*case(4, offset))
    assert torch.equal(moved[0], rows + offset[0]) and torch.equal(moved[1], columns + offset[1])
    on_the_grid = [FEATURES.index(f"{name}_object") for name in ("coverage", "changed", "confidence")]
    others = [i for i in range(len(FEATURES)) if i not in on_the_grid]
    assert torch.allclose(moved[2][:, others], features[:, others], atol=1e-4)
    # Those of a quarter of the object are interpolated on a grid, whose place is the photo's.
    assert torch.allclose(moved[2][:, on_the_grid], features[:, on_the_grid], atol=0.15)


def test_large_photos_are_measured_band_by_band(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(*case(5))
    monkeypatch.setattr(ops, "BAND_PIXELS", 20 * WIDTH)
    for one, other in zip(measured(*case(5)), whole, strict=True):
        assert torch.allclose(one.float(), other.float(), atol=1e-4)


def test_other_objects_pixels_are_no_changes() -> None:
    photo, probability, coarse = case(0)
    region = torch.zeros_like(coarse)
    region[:, :80] = True
    mask = ChangedMask(photo, probability.clone(), coarse, region, 1.0)
    assert not bool(mask.refined[:, 80:].any())
    assert all(bool((changes.columns < 80).all()) for changes in mask)


def test_what_does_not_change_has_nothing_to_measure() -> None:
    photo, _, coarse = case(0)
    assert list(ChangedMask(photo, coarse.float(), coarse, torch.ones_like(coarse), 1.0)) == []
