"""Laws of synthetic coarse masks: binary, reproducible, as often perfect and as bad as configured."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from segrefiner.data.coarse.masks import (
    EXACT_FACTORS,
    CoarseConfig,
    coarse_masks,
    contour_noise,
    grid_masks,
    low_resolution,
    shift,
    smooth_noise,
)
from segrefiner.imaging.shapes.distances import signed_distance

SIZE = 48
NO_REAL = torch.zeros(64, dtype=torch.bool)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def discs(count: int = 64, low: float = 5.0, high: float = 22.0) -> Tensor:
    """Signed distances of discs of growing radius."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    radii = np.linspace(low, high, count)
    masks = [np.hypot(rows - 23 + i % 4, columns - 24 + i % 3) < r for i, r in enumerate(radii)]
    return torch.from_numpy(np.stack([signed_distance(m) for m in masks]))[:, None]


def iou(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(1, 2, 3)) / torch.maximum(a, b).sum(dim=(1, 2, 3))


DISCS = discs()
TRUTH = (DISCS > 0).float()
FAR_OFF = -torch.ones_like(DISCS)  # the distance of a real coarse mask that is empty


def draw(config: CoarseConfig, seed: int = 0, has_real: Tensor = NO_REAL, real: Tensor = FAR_OFF) -> Tensor:
    return coarse_masks(DISCS, real, has_real, seeded(seed), config)


def test_masks_are_binary_and_of_the_crop_s_size() -> None:
    for seed in range(4):
        mask = draw(CoarseConfig(), seed)
        assert mask.shape == DISCS.shape and mask.dtype == torch.float32
        assert ((mask == 0) | (mask == 1)).all()


def test_every_draw_comes_from_the_generator() -> None:
    before = torch.random.get_rng_state()
    assert torch.equal(draw(CoarseConfig(), 1), draw(CoarseConfig(), 1))
    assert not torch.equal(draw(CoarseConfig(), 1), draw(CoarseConfig(), 2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_inputs_are_left_alone() -> None:
    distance = DISCS.clone()
    draw(CoarseConfig())
    assert torch.equal(DISCS, distance)


def test_the_share_of_perfect_masks_is_the_configured_one() -> None:
    assert torch.equal(draw(CoarseConfig(perfect=1.0)), TRUTH)
    share, replaced, others = 0.3, 0, 0
    for seed in range(12):
        # The same draws with and without: only the perfect ones are replaced.
        mask, imperfect = draw(CoarseConfig(perfect=share), seed), draw(CoarseConfig(perfect=0.0), seed)
        same = (mask == imperfect).all(dim=(1, 2, 3))
        assert torch.equal(mask[~same], TRUTH[~same])
        was_wrong = (imperfect != TRUTH).any(dim=(1, 2, 3))
        replaced, others = replaced + int((~same).sum()), others + int(was_wrong.sum())
    error = (share * (1 - share) / others) ** 0.5
    assert replaced / others == pytest.approx(share, abs=4 * error)


def test_most_masks_are_wrong_but_none_too_wrong() -> None:
    config = CoarseConfig(perfect=0.0, min_iou=0.4)
    agreement = torch.cat([iou(draw(config, seed), TRUTH) for seed in range(12)])
    assert agreement.min() >= config.min_iou
    assert 0.6 < agreement.median() < 0.95
    assert (agreement < 1).float().mean() > 0.85
    # Both mild and severe ones are there.
    assert (agreement < 0.6).float().mean() > 0.02 and (agreement > 0.95).float().mean() > 0.05


def test_the_bound_on_how_wrong_matters() -> None:
    worst = [
        torch.cat(
            [iou(draw(CoarseConfig(perfect=0.0, max_shift=0.5, min_iou=bound), seed), TRUTH) for seed in range(6)]
        )
        for bound in (0.0, 0.4)
    ]
    assert worst[0].min() < worst[1].min()
    assert worst[0].quantile(0.05) <= worst[1].quantile(0.05)


def test_objects_of_few_pixels_are_not_lost() -> None:
    tiny = discs(low=1.0, high=3.0)
    masks = [coarse_masks(tiny, tiny, NO_REAL, seeded(seed), CoarseConfig(perfect=0.0)) for seed in range(6)]
    lost = torch.cat([(m.sum(dim=(1, 2, 3)) == 0).float() for m in masks])
    assert lost.mean() < 0.05


def test_slight_masks_move_only_near_the_contour() -> None:
    config = CoarseConfig(perfect=0.0, slight=1.0, slight_shift=1.0, min_iou=0.0)
    for seed in range(4):
        moved = draw(config, seed) != TRUTH
        assert moved.any()
        # A sum of a few fields of about that size: hardly any pixel moves by many times as much.
        assert float((DISCS.abs()[moved] > 4).float().mean()) < 0.01


def test_stronger_noise_makes_worse_masks() -> None:
    plain = CoarseConfig(perfect=0.0, slight=0.0, low_resolution=0.0, blobs=0.0, min_iou=0.0)
    means = [
        float(torch.cat([iou(draw(replace(plain, max_shift=shift), seed), TRUTH) for seed in range(4)]).mean())
        for shift in (0.05, 0.15, 0.3)
    ]
    assert means == sorted(means, reverse=True) and means[0] > means[2] + 0.03


def agreement(config: CoarseConfig, seeds: int = 4) -> Tensor:
    return torch.cat([iou(draw(config, seed), TRUTH) for seed in range(seeds)])


def test_thin_objects_keep_some_of_themselves() -> None:
    """Noise is bound by the object's thickness: a bar that is moved by its own extent would be gone."""
    rows = torch.arange(SIZE).view(1, 1, -1, 1).expand(64, 1, -1, SIZE)
    bars = 2.5 - (rows - 23.5).abs()
    config = CoarseConfig(perfect=0.0, slight=0.0, low_resolution=0.0, blobs=0.0, min_iou=0.0)
    masks = [coarse_masks(bars, FAR_OFF, NO_REAL, seeded(seed), config) for seed in range(4)]
    kept = torch.cat([iou(mask, (bars > 0).float()) for mask in masks])
    assert float((kept == 0).float().mean()) < 0.05 and float(kept.median()) > 0.4


def test_blobs_alone_leave_the_rest_exact() -> None:
    exact = CoarseConfig(perfect=0.0, exact_blobs=1.0, min_iou=0.0)
    masks = torch.cat([draw(exact, seed) for seed in range(6)])
    wrong = masks != TRUTH.repeat(6, 1, 1, 1)
    has_some = wrong.flatten(1).any(dim=1)
    assert float(has_some.float().mean()) > 0.3
    # Contour noise would be wrong all along the contour; a blob is wrong in a part of it.
    beside = (DISCS.abs() < 1.5).repeat(6, 1, 1, 1)
    share = (wrong & beside).sum(dim=(1, 2, 3)) / beside.sum(dim=(1, 2, 3))
    assert float(share[has_some].median()) < 0.35


def test_low_resolution_alone_moves_the_contour_by_less_than_a_cell() -> None:
    exact = CoarseConfig(perfect=0.0, exact_low_resolution=1.0, min_iou=0.0)
    for seed in range(4):
        wrong = draw(exact, seed) != TRUTH
        assert wrong.any() and float(DISCS.abs()[wrong].max()) < max(EXACT_FACTORS)


@pytest.mark.parametrize("name", ["exact_blobs", "exact_low_resolution"])
def test_exact_shares_are_the_configured_ones(name: str) -> None:
    without = CoarseConfig(perfect=0.0, min_iou=0.0)
    shares = []
    for seed in range(8):
        changed = draw(replace(without, **{name: 0.3}), seed) != draw(without, seed)
        shares.append(changed.flatten(1).any(dim=1).float().mean())
    assert 0.15 < float(torch.stack(shares).mean()) < 0.36


def test_real_masks_are_used_where_there_are_some() -> None:
    real = discs().roll(6, dims=3)
    config = CoarseConfig(perfect=0.0, real=1.0, slight=1.0, slight_shift=0.5, blobs=0.0, min_iou=0.0)
    has_real = torch.arange(64) % 2 == 0
    mask = draw(config, 0, has_real, real)
    nearer = iou(mask, (real > 0).float()) > iou(mask, TRUTH)
    assert nearer[has_real].all() and not nearer[~has_real].any()
    none = draw(replace(config, real=0.0), 0, has_real, real)
    assert (iou(none, TRUTH) > iou(none, (real > 0).float())).all()


def test_absent_real_masks_are_never_looked_at() -> None:
    nonsense = torch.full_like(DISCS, torch.nan)
    for seed in range(3):
        assert torch.equal(draw(CoarseConfig(), seed, NO_REAL, nonsense), draw(CoarseConfig(), seed, NO_REAL, DISCS))


def test_smooth_noise_has_the_promised_moments() -> None:
    for cells in (4, 8, 16):
        field = smooth_noise(64, 64, cells, seeded(cells))
        assert field.shape == (64, 1, 64, 64)
        assert abs(float(field.mean())) < 0.1 and float(field.std()) == pytest.approx(1, abs=0.25)
        # Neighbours are alike, the more so the fewer cells there are.
        assert float((field.diff(dim=2)).std()) < 0.05 * cells


def test_no_contour_noise_without_amplitude_and_in_proportion_to_it() -> None:
    none, one = torch.zeros(16, 1, 1, 1), torch.ones(16, 1, 1, 1)
    assert not contour_noise(none, 64, seeded()).any()
    once, twice = (contour_noise(k * 0.1 * one, 64, seeded()) for k in (1, 2))
    torch.testing.assert_close(twice, 2 * once)
    assert 0.5 < float(contour_noise(one, 64, seeded()).std()) < 2


@pytest.mark.parametrize("factor", [4, 8, 16])
def test_low_resolution_keeps_what_the_grid_can_hold(factor: int) -> None:
    blocks = (torch.rand(8, 1, SIZE // factor, SIZE // factor, generator=seeded()) < 0.5).float()
    mask = blocks.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    result = low_resolution(mask, factor, seeded(1))
    assert ((result == 0) | (result == 1)).all()
    # At the middle of a cell its own value wins, whatever its neighbours are.
    middle = slice(factor // 2, None, factor)
    assert torch.equal(result[..., middle, middle], mask[..., middle, middle])
    for constant in (torch.zeros_like(mask), torch.ones_like(mask)):
        assert torch.equal(low_resolution(constant, factor, seeded(1)), constant)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (5.0, 0.0), (0.0, -3.0), (-7.0, 4.0)])
def test_a_shift_moves_the_field_by_whole_pixels_exactly(offset: tuple[float, float]) -> None:
    field = torch.rand(2, 1, 32, 32, generator=seeded(0))
    moved = shift(field, torch.tensor([offset, (0.0, 0.0)]))
    x, y = (int(part) for part in offset)
    rows = torch.arange(32).sub(y).clamp(0, 31)
    columns = torch.arange(32).sub(x).clamp(0, 31)
    torch.testing.assert_close(moved[0, 0], field[0, 0, rows][:, columns], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[1], field[1], atol=1e-5, rtol=0)


def test_shifted_masks_lie_beside_their_place() -> None:
    """With nothing but shifts the masks' centres move, and their areas do not."""
    truth = discs()
    still = CoarseConfig(perfect=0, real=0, slight=1, slight_shift=0, low_resolution=0, blobs=0)
    grid = torch.arange(truth.shape[-1], dtype=torch.float32)

    def centres(config: CoarseConfig) -> torch.Tensor:
        mask = coarse_masks(truth, truth, NO_REAL, seeded(3), config)[:, 0]
        area = mask.sum(dim=(1, 2))
        return torch.stack([(mask.sum(dim=1) * grid).sum(1) / area, (mask.sum(dim=2) * grid).sum(1) / area])

    before, after = centres(still), centres(replace(still, shifted=1.0, max_offset=0.1))
    moved = (after - before).norm(dim=0)
    assert (moved > 0.5).float().mean() > 0.7
    assert moved.max() < 0.1 * 2**0.5 * truth.shape[-1]


def test_grids_are_soft_masks_cut_at_one_half() -> None:
    masks = torch.cat([grid_masks(DISCS, seeded(seed), cropped=0.0) for seed in range(4)])
    truth = TRUTH.repeat(4, 1, 1, 1)
    assert ((masks == 0) | (masks == 1)).all()
    # Most of each disc is there, and most contours are off somewhere.
    assert float(iou(masks, truth)[16:].quantile(0.1)) > 0.6
    assert float((masks != truth).any(dim=(1, 2, 3)).float().mean()) > 0.9


def test_boxes_cut_grids_near_the_object_s_own_sides() -> None:
    whole = grid_masks(DISCS, seeded(1), cropped=0.0)
    cut = grid_masks(DISCS, seeded(1), cropped=1.0)
    assert (cut <= whole).all() and (cut < whole).any()
    lost = (whole > cut) & (DISCS > 0.04 * SIZE + 1)
    assert not lost.any()


def test_real_masks_may_stay_as_they_are_however_bad() -> None:
    config = CoarseConfig(perfect=0.0, real=1.0, real_as_is=1.0)
    real = DISCS.flip(0)
    everywhere = torch.ones(64, dtype=torch.bool)
    assert torch.equal(draw(config, has_real=everywhere, real=real), (real > 0).float())


def test_masks_may_be_exact_in_one_part() -> None:
    moved = CoarseConfig(perfect=0.0, real=0.0, slight=0.0, blobs=0.0, low_resolution=0.0)
    whole, part = draw(moved, 2), draw(replace(moved, part_exact=1.0), 2)
    assert float(iou(part, TRUTH).mean()) > float(iou(whole, TRUTH).mean())
    wrong = (part != TRUTH).flatten(1).any(dim=1)
    assert float(wrong.float().mean()) > 0.5
