"""Laws of augmentation: what it changes stays a photo with an exact truth, and what was not chosen stays as it was."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from segrefiner.data.augment import add_thin, change_colours, coverage, degrade, paste, thin_structures

QUICK = settings(max_examples=20)
BATCH, SIZE = 40, 48
SCALE = torch.ones(BATCH, 1, 1, 1)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def photos(seed: int = 0) -> Tensor:
    """Crops of a level and a texture of their own, `(40, 3, 48, 48)`."""
    generator = seeded(seed)
    level = 40 + 160 * torch.rand(BATCH, 3, 1, 1, generator=generator)
    return (level + 15 * torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)).clamp(0, 255)


def disc(radius: float = 14.0) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return (radius - torch.hypot(rows - 23.5, columns - 23.5)).expand(BATCH, 1, -1, -1)


PHOTOS, DISC = photos(), disc()
CHANGES: dict[str, Callable[[float, Generator], Tensor]] = {
    "degrade": lambda share, generator: degrade(PHOTOS, generator, share),
    "paste": lambda share, generator: paste(PHOTOS, DISC, SCALE, generator, share),
    "thin": lambda share, generator: add_thin(PHOTOS, DISC, SCALE, generator, share)[0],
}


@pytest.mark.parametrize("change", CHANGES)
def test_about_the_given_share_of_the_crops_changes_and_all_stay_photos(change: str) -> None:
    before, counts = PHOTOS.clone(), []
    for seed in range(10):
        image = CHANGES[change](0.3, seeded(seed))
        assert image.shape == PHOTOS.shape and float(image.min()) >= 0 and float(image.max()) <= 255
        counts.append((image != PHOTOS).flatten(1).any(dim=1).float().mean())
    assert torch.equal(PHOTOS, before)
    # Blur and grain are drawn apart.
    expected = 1 - 0.7**2 if change == "degrade" else 0.3
    assert float(torch.stack(counts).mean()) == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize("change", CHANGES)
def test_a_share_of_nothing_changes_nothing_and_one_of_all_changes_all(change: str) -> None:
    torch.testing.assert_close(CHANGES[change](0.0, seeded()), PHOTOS)
    assert (CHANGES[change](1.0, seeded()) != PHOTOS).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("change", CHANGES)
def test_every_draw_comes_from_the_generator(change: str) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (CHANGES[change](0.5, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_degraded_crops_keep_their_level_and_lose_their_edges_or_gain_grain() -> None:
    smooth = PHOTOS.mean(dim=(2, 3), keepdim=True).expand_as(PHOTOS)
    edge = torch.where(DISC > 0, 200.0, 60.0).expand(BATCH, 3, -1, -1)
    assert (degrade(smooth, seeded(), 1.0).std(dim=(1, 2, 3)) - smooth.std(dim=(1, 2, 3)) > 0).all()
    changed = degrade(edge, seeded(), 1.0)
    torch.testing.assert_close(changed.mean(dim=(1, 2, 3)), edge.mean(dim=(1, 2, 3)), atol=1.5, rtol=0)
    near = (DISC.abs() < 1)[0, 0]
    before, after = ((i[..., near] - 130).abs().mean(dim=(1, 2)) for i in (edge, changed))
    assert float((after < before).float().mean()) > 0.9


def test_colours_stay_between_black_and_white() -> None:
    image = change_colours(PHOTOS, seeded(), 0.9)
    assert float(image.min()) >= 0 and float(image.max()) <= 255 and not torch.equal(image, PHOTOS)


# Other backgrounds.


def test_a_pasted_object_is_its_own_inside_and_on_the_next_crop_outside() -> None:
    image = paste(PHOTOS, DISC, SCALE, seeded(), 1.0)
    inside, outside = (DISC > 3).expand_as(PHOTOS), (DISC < -3).expand_as(PHOTOS)
    torch.testing.assert_close(image[inside], PHOTOS[inside], atol=0.1, rtol=0)
    torch.testing.assert_close(image[outside], PHOTOS.roll(-1, 0)[outside], atol=0.1, rtol=0)


@QUICK
@given(st.floats(0.1, 4))
def test_edges_are_as_soft_as_the_photo_is_enlarged(scale: float) -> None:
    distance = torch.linspace(-20, 20, 401).view(1, 1, 1, -1)
    covered = coverage(distance, torch.full((1, 1, 1, 1), scale))[0, 0, 0]
    assert (covered.diff() >= 0).all() and float(covered[200]) == pytest.approx(0.5)
    width = int(((covered > 0.1) & (covered < 0.9)).sum()) / 10
    assert width == pytest.approx(1.54 * max(1, 1 / scale), abs=0.3)


# Thin structures.


@pytest.mark.parametrize("seed", range(4))
def test_thin_structures_are_thin_and_there(seed: int) -> None:
    distance = thin_structures(BATCH, SIZE, seeded(seed))
    mask = distance > 0
    assert distance.shape == (BATCH, 1, SIZE, SIZE) and torch.isfinite(distance).all()
    assert float(distance.max()) <= 4.2  # half of the thickest
    share = mask.float().mean(dim=(1, 2, 3))
    assert float((share > 0.005).float().mean()) > 0.9 and float(share.max()) < 0.7


def test_the_distance_of_a_thin_structure_is_about_that_to_its_contour() -> None:
    """A distance changes by about one from pixel to pixel, beside the contour."""
    distance = thin_structures(BATCH, SIZE, seeded(1))
    down, right = torch.gradient(distance, dim=(2, 3))
    slope = torch.hypot(down, right)[distance.abs() < 1]
    assert 0.6 < float(slope.median()) < 1.3


def test_a_thin_structure_replaces_the_object_and_is_seen() -> None:
    image, distance, changed = add_thin(PHOTOS, DISC, SCALE, seeded(), 0.5)
    assert torch.equal(distance[~changed], DISC[~changed]) and torch.equal(image[~changed], PHOTOS[~changed])
    assert 5 < int(changed.sum()) < BATCH - 5
    assert not (distance[changed] == DISC[changed]).flatten(1).all(dim=1).any()
    shown = (image - PHOTOS).abs().mean(dim=1, keepdim=True)
    for crop, thin in zip(shown[changed], distance[changed], strict=True):
        if (thin > 0.5).any() and (thin < -4).any():
            assert float(crop[thin > 0.5].mean()) > 10 * float(crop[thin < -4].mean())
