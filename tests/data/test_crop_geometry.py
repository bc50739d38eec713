"""Laws of where crops lie: squares in the photo, whose pixels are where centre, scale and turn put them."""

import pytest
import torch

from segrefiner.data.crop_geometry import LEVELS, CropGeometry, Outlines, ViewConfig, draw_geometry


def outlines(batch: int) -> Outlines:
    """Boxes of 50x60 pixels in photos of 100x140, and eight points on their diagonals for contours."""
    points = torch.stack([torch.linspace(20, 69, 8).long(), torch.linspace(30, 89, 8).long()], dim=-1)
    box = torch.tensor([[20, 30, 70, 90]])
    return Outlines(torch.tensor([[100, 140]]).expand(batch, 2), box.expand(batch, 4), points.expand(batch, 8, 2))


def drawn(views: ViewConfig, batch: int = 64, size: int = 32, seed: int = 0) -> CropGeometry:
    return draw_geometry(outlines(batch), size, torch.Generator().manual_seed(seed), views)


def square(scale: float, angle: float = 0.0, stretch: float = 1.0) -> CropGeometry:
    return CropGeometry(torch.tensor([[40.0, 60.0]]), *(torch.tensor(v) for v in ([[scale]], [angle], [stretch])))


@pytest.mark.parametrize("angle", [0.0, 0.3, -1.0])
@pytest.mark.parametrize("stretch", [1.0, -1.0, 0.8])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 4.0, 16.0])
def test_pixels_lie_around_the_centre_at_the_scale_of_the_level(scale: float, angle: float, stretch: float) -> None:
    geometry = square(scale, angle, stretch)
    shrink = 2 ** int(geometry.level)
    assert 0 <= int(geometry.level) < LEVELS
    rows, columns = geometry.positions(8)
    assert rows.shape == columns.shape == (1, 8, 8)
    assert (float(rows.mean()), float(columns.mean())) == pytest.approx((40 / shrink - 0.5, 60 / shrink - 0.5))
    down = torch.hypot(rows[0, 1, 0] - rows[0, 0, 0], columns[0, 1, 0] - columns[0, 0, 0])
    right = torch.hypot(rows[0, 0, 1] - rows[0, 0, 0], columns[0, 0, 1] - columns[0, 0, 0])
    assert float(down) == pytest.approx(scale / shrink, rel=1e-4)
    assert float(right) == pytest.approx(abs(stretch) * scale / shrink, rel=1e-4)


def test_an_even_square_at_scale_one_lies_on_the_photo_s_pixels() -> None:
    rows, columns = square(1.0).positions(8)
    assert rows[0, :, 0].tolist() == list(range(36, 44)) and columns[0, 0].tolist() == list(range(56, 64))
    mirrored = square(1.0, stretch=-1.0).positions(8)[1]
    assert mirrored[0, 0].tolist() == list(range(63, 55, -1))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_squares_that_fit_lie_in_the_photo(share: float) -> None:
    geometry = drawn(ViewConfig(object_share=share, tile_share=0.3))
    half = geometry.scale * 16
    fits = half[:, 0] <= 50
    assert fits.any()
    low, high = geometry.centre - half, geometry.centre + half - torch.tensor([100.0, 140.0])
    # Centres of tiles are rounded down to even pixels.
    assert bool((low[fits] >= -2).all()) and bool((high[fits] <= 1e-4).all())


def test_tiles_are_neither_turned_nor_stretched_and_have_their_scales() -> None:
    geometry = drawn(ViewConfig(object_share=0.0, tile_share=1.0, tile_scales=(0.5, 2.0)))
    assert set(geometry.scale[:, 0].tolist()) == {0.5, 2.0}
    assert not geometry.angle.any() and set(geometry.stretch.tolist()) == {-1.0, 1.0}
    assert not (geometry.centre % 2).any()


def test_the_same_draws_give_the_squares_that_they_always_gave() -> None:
    """Runs go on where they were stopped, so what a generator's draws mean must not change."""
    geometry = drawn(ViewConfig(tile_share=0.5), batch=4)
    centres = [[46.3989, 57.3194], [46.8351, 57.9042], [45.1867, 61.9927], [38.7047, 44.8340]]
    torch.testing.assert_close(geometry.centre, torch.tensor(centres), rtol=0, atol=1e-3)
    scales, angles = [2.8999, 2.8895, 2.1002, 0.5902], [0.0, 0.0, -0.3278, 0.0]
    torch.testing.assert_close(geometry.scale[:, 0], torch.tensor(scales), rtol=0, atol=1e-3)
    torch.testing.assert_close(geometry.angle, torch.tensor(angles), rtol=0, atol=1e-3)
    stretches = [-1.1455, -1.1384, 0.9162, 0.9260]
    torch.testing.assert_close(geometry.stretch, torch.tensor(stretches), rtol=0, atol=1e-3)
