"""Synthetic coarse masks, made in batches on the training device from signed distances.

A mask is where its signed distance is positive, so adding smooth random fields to the distance moves the contour
by about the field's value in pixels: wobbling, dilation, erosion, lost thin parts and merged neighbours come out of one
threshold. Everything is a tensor operation over the batch; every draw comes from the caller's generator.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

LOW_RESOLUTION_FACTORS = (4, 8, 16, 32)
EXACT_FACTORS = (3, 4, 6, 8, 12, 16, 24)
NOISE_CELLS = (4, 8, 16, 32, 64)
GRID_CELL = (1.2, 10.0)
"""Side of a coarse grid's cell in crop pixels: of 256 pixels along a photo of 300 to 2,500."""


@dataclass(frozen=True)
class CoarseConfig:
    """Shares of the kinds of coarse mask and bounds of their severity.

    Attributes:
        perfect: Share that is the truth itself, so that the model learns to leave good masks alone.
        real: Share that starts from the photo's real coarse mask where there is one, instead of from the truth.
        slight: Share, of the rest, moved by `slight_shift` pixels at most.
        slight_shift: In pixels.
        shifted: Share that is shown beside its place, as labels of a moved camera or a mislaid crop are.
        max_offset: Largest such shift along each axis, as a fraction of the object's extent.
        low_resolution: Share that makes a round trip through a low-resolution grid.
        blobs: Share with a false or a missing blob.
        exact_low_resolution: Share that is the truth itself after a round trip through a low-resolution grid.
        exact_blobs: Share that is the truth itself but for a false or a missing blob, so that the model learns to leave
            the right parts of a mask alone.
        max_shift: Largest contour noise as a fraction of the object's extent (square root of its area).
        min_iou: Masks worse than this are replaced by a milder version of themselves.
        published: Share of crops whose masks are made by `published` instead, as the paper's are; that works
            on the CPU, one mask after another.
        polygons: Share of crops, exact ones excepted, whose masks are made by `polygons`; on the CPU, too.
        real_as_is: Share of real coarse masks that nothing else is done to.
        grid: Share, real ones excepted, that is a soft mask on a coarse grid, enlarged and cut at one half, as
            promptable and real-time networks give them.
        cropped: Share of these that a box around the object cuts, as detectors do.
        part_exact: Share, of all kinds, that is exact in one part of the crop, so that the model learns to judge each
            part of a contour by itself.
    """

    perfect: float = 0.08
    real: float = 0.35
    slight: float = 0.25
    slight_shift: float = 3.0
    shifted: float = 0.0
    max_offset: float = 0.06
    low_resolution: float = 0.2
    blobs: float = 0.25
    exact_low_resolution: float = 0.0
    exact_blobs: float = 0.0
    max_shift: float = 0.16
    min_iou: float = 0.4
    published: float = 0.0
    polygons: float = 0.0
    real_as_is: float = 0.0
    grid: float = 0.0
    cropped: float = 0.3
    part_exact: float = 0.0


def smooth_noise(batch: int, size: int, cells: int, generator: Generator) -> Tensor:
    """Smooth random fields `(batch, 1, size, size)`, zero mean, about unit variance, `cells` features across."""
    cells = min(cells, size)
    grid = torch.randn(batch, 1, cells + 2, cells + 2, generator=generator, device=generator.device)
    field = F.interpolate(grid, size=size, mode="bicubic", align_corners=False)
    return field * 1.4


def uniform(batch: int, low: float, high: float, generator: Generator) -> Tensor:
    """`(batch, 1, 1, 1)`, uniform on [low, high)."""
    draw = torch.rand(batch, 1, 1, 1, generator=generator, device=generator.device)
    return low + (high - low) * draw


def chance(batch: int, share: float, generator: Generator) -> Tensor:
    """`(batch, 1, 1, 1)` bool, true for about the given share."""
    return torch.rand(batch, 1, 1, 1, generator=generator, device=generator.device) < share


def shift(field: Tensor, offset: Tensor) -> Tensor:
    """`(B, 1, S, S)` moved by `offset` `(B, 2)` (x, y) in pixels; what comes in from outside repeats the border."""
    batch, size = len(field), field.shape[-1]
    theta = torch.eye(2, 3, device=field.device, dtype=field.dtype).repeat(batch, 1, 1)
    theta[:, :, 2] = -2 * offset / size
    grid = F.affine_grid(theta, list(field.shape), align_corners=False)
    return F.grid_sample(field, grid, padding_mode="border", align_corners=False)


def contour_noise(amplitude: Tensor, size: int, generator: Generator) -> Tensor:
    """Displacement field `(B, 1, size, size)` in pixels, a sum of smooth fields over octaves plus a constant.

    Args:
        amplitude: `(B, 1, 1, 1)`, the scale of the displacement in pixels.
        size: Height and width.
        generator: Source of all draws.
    """
    batch = len(amplitude)
    field = 0.5 * amplitude * torch.randn(batch, 1, 1, 1, generator=generator, device=amplitude.device)
    for cells in NOISE_CELLS:
        if cells > size // 2:
            break
        share = uniform(batch, 0.0, 1.0, generator) * (NOISE_CELLS[0] / cells) ** 0.5
        # More than about a third of a cell of displacement tears the contour into specks, which no coarse mask shows.
        bound = torch.clamp(amplitude * share, max=0.35 * size / cells)
        field = field + bound * smooth_noise(batch, size, cells, generator)
    return field


def low_resolution(mask: Tensor, factor: int, generator: Generator) -> Tensor:
    """A mask as a network of output stride `factor` gives it: area mean, bilinear (or nearest) up, threshold 0.5."""
    small = F.avg_pool2d(mask, factor)
    smooth = F.interpolate(small, size=mask.shape[-2:], mode="bilinear", align_corners=False)
    blocky = F.interpolate(small, size=mask.shape[-2:], mode="nearest")
    return torch.where(chance(len(mask), 0.25, generator), blocky, smooth).ge(0.5).to(mask.dtype)


def grid_masks(distance: Tensor, generator: Generator, cropped: float) -> Tensor:
    """Masks as networks with a small output give them: soft on a grid, with smooth errors, enlarged, cut at one half.

    Args:
        distance: `(B, 1, S, S)` float, signed distance to the truth's contour in pixels, positive inside.
        generator: Source of all draws.
        cropped: Share that a box cuts, each of its sides up to a twenty-fifth of the object's beside the object's own.

    Returns:
        `(B, 1, S, S)` float in {0, 1}.
    """
    batch, size = len(distance), distance.shape[-1]
    low, high = (math.log(cell) for cell in GRID_CELL)
    cell = uniform(batch, low, high, generator).exp()
    error = contour_noise(cell * uniform(batch, 0.0, 1.0, generator).square(), size, generator)
    soft = torch.sigmoid((distance + error) / (0.6 * cell))
    masks = torch.empty_like(distance)
    for index, side in enumerate(cell.flatten().tolist()):
        cells = max(2, round(size / side))
        small = F.interpolate(soft[index : index + 1], size=(cells, cells), mode="area")
        masks[index] = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)[0] >= 0.5
    inside = distance > 0
    kept = torch.ones_like(inside)
    places = torch.arange(size, device=distance.device)
    jitter = torch.rand(batch, 4, generator=generator, device=distance.device) * 0.08 - 0.04
    for axis, offset in ((2, 0), (3, 2)):
        along = inside.any(dim=5 - axis, keepdim=True)
        place = places.view([-1 if d == axis else 1 for d in range(4)])
        first = torch.where(along, place, size).amin(dim=axis, keepdim=True).float()
        last = torch.where(along, place, -1).amax(dim=axis, keepdim=True).float()
        extent = (last - first).clamp(min=0)
        shifts = jitter[:, offset : offset + 2].view(-1, 2, 1, 1)
        # What the crop's own border cuts, the box does not cut.
        start = torch.where(first > 0, first + shifts[:, :1] * extent, -1.0)
        stop = torch.where(last < size - 1, last + shifts[:, 1:] * extent, float(size))
        kept = kept & (place >= start) & (place <= stop)
    return torch.where(chance(batch, cropped, generator), masks * kept, masks)


def _blobs(mask: Tensor, truth_distance: Tensor, extent: Tensor, generator: Generator) -> Tensor:
    """Adds a false blob near the object, or takes a piece out of it."""
    batch, size = len(mask), mask.shape[-1]
    for cells in (5, 12):
        chosen = smooth_noise(batch, size, cells, generator) > uniform(batch, 1.3, 2.6, generator)
        near = truth_distance > -0.5 * extent
        added = torch.maximum(mask, (chosen & near).to(mask.dtype))
        removed = mask * (~chosen).to(mask.dtype)
        mask = torch.where(chance(batch, 0.5, generator), added, removed)
    return mask


def coarse_masks(
    truth_distance: Tensor,
    real_distance: Tensor,
    has_real: Tensor,
    generator: Generator,
    config: CoarseConfig = CoarseConfig(),
) -> Tensor:
    """Coarse masks for a batch of crops.

    Args:
        truth_distance: `(B, 1, S, S)` float, signed distance to the truth's contour in pixels, positive inside.
        real_distance: `(B, 1, S, S)` float, signed distance to the real coarse mask's contour; ignored where there is
            none.
        has_real: `(B,)` bool, which crops have a real coarse mask.
        generator: Source of all draws, on the tensors' device.
        config: Shares and bounds.

    Returns:
        `(B, 1, S, S)` float in {0, 1}.
    """
    batch, size = len(truth_distance), truth_distance.shape[-1]
    truth = (truth_distance > 0).float()
    extent = truth.mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=0.05) * size

    drawn = _draw_contours(truth_distance, has_real, extent, generator, config)
    base = torch.where(drawn.real, real_distance, truth_distance)
    if config.shifted:
        bound = (config.max_offset * extent).clamp(min=2.0) * chance(batch, config.shifted, generator)
        draw = torch.rand(batch, 2, generator=generator, device=truth.device)
        base = shift(base, (2 * draw - 1) * bound.view(-1, 1))
    mask = (base + drawn.noise > 0).float()

    mask = _coarsened(mask, truth_distance, extent, drawn, generator, config)
    mask = torch.where(drawn.as_is, (real_distance > 0).float(), mask)
    if config.part_exact:
        part = smooth_noise(batch, size, 3, generator) > uniform(batch, -0.7, 0.7, generator)
        mask = torch.where(part & chance(batch, config.part_exact, generator), truth, mask)
    mask = _exact_but_coarsened(mask, truth_distance, extent, generator, config)

    intersection = (mask * truth).sum(dim=(1, 2, 3), keepdim=True)
    union = torch.maximum(mask, truth).sum(dim=(1, 2, 3), keepdim=True)
    too_bad = (intersection < config.min_iou * union) & ~drawn.as_is
    mask = torch.where(too_bad, (truth_distance + 0.3 * drawn.noise > 0).float(), mask)
    return torch.where(chance(batch, config.perfect, generator), truth, mask)


@dataclass(frozen=True)
class _Contours:
    """What is drawn for the contours of a batch: `(B, 1, 1, 1)` bool each, and the noise `(B, 1, S, S)` in pixels."""

    real: Tensor
    slight: Tensor
    as_is: Tensor
    noise: Tensor


def _draw_contours(
    truth_distance: Tensor, has_real: Tensor, extent: Tensor, generator: Generator, config: CoarseConfig
) -> _Contours:
    """Draws which masks start from a real one, which are good, and how far contours wobble."""
    batch, size = len(truth_distance), truth_distance.shape[-1]
    real = chance(batch, config.real, generator) & has_real.view(-1, 1, 1, 1)
    slight = chance(batch, config.slight, generator) | (real & chance(batch, 0.7, generator))
    # Squared: mild masks are the more common ones.
    severity = uniform(batch, 0.0, 1.0, generator).square()
    strong_bound = (config.max_shift * extent).clamp(max=0.15 * size)
    # Thin objects keep some of themselves.
    thickness = truth_distance.amax(dim=(1, 2, 3), keepdim=True)
    strong_bound = torch.minimum(strong_bound, thickness).clamp(min=2.0)
    amplitude = torch.where(slight, config.slight_shift * severity, 0.7 + strong_bound * severity)
    as_is = real & chance(batch, config.real_as_is, generator) if config.real_as_is else torch.zeros_like(real)
    return _Contours(real, slight, as_is, contour_noise(amplitude, size, generator))


def _coarsened(
    mask: Tensor,
    truth_distance: Tensor,
    extent: Tensor,
    drawn: _Contours,
    generator: Generator,
    config: CoarseConfig,
) -> Tensor:
    """Masks, some of them at a low resolution, with blobs, or of a network's coarse grid."""
    batch, size = len(mask), mask.shape[-1]
    low = chance(batch, config.low_resolution, generator) & ~drawn.slight
    for factor in LOW_RESOLUTION_FACTORS:
        chosen = low & chance(batch, 1 / len(LOW_RESOLUTION_FACTORS), generator)
        if factor <= size // 8:
            mask = torch.where(chosen, low_resolution(mask, factor, generator), mask)
    blobs = chance(batch, config.blobs, generator) & ~drawn.slight
    mask = torch.where(blobs, _blobs(mask, truth_distance, extent, generator), mask)
    if config.grid:
        chosen = chance(batch, config.grid, generator) & ~drawn.real
        mask = torch.where(chosen, grid_masks(truth_distance, generator, config.cropped), mask)
    return mask


def _exact_but_coarsened(
    mask: Tensor, truth_distance: Tensor, extent: Tensor, generator: Generator, config: CoarseConfig
) -> Tensor:
    """Masks, some of them replaced by the truth itself at a low resolution or with blobs."""
    batch, truth = len(mask), (truth_distance > 0).float()
    if config.exact_low_resolution:
        exact = chance(batch, config.exact_low_resolution, generator)
        pick = uniform(batch, 0, len(EXACT_FACTORS), generator).long()
        for index, factor in enumerate(EXACT_FACTORS):
            mask = torch.where(exact & (pick == index), low_resolution(truth, factor, generator), mask)
    if config.exact_blobs:
        blobs = chance(batch, config.exact_blobs, generator)
        mask = torch.where(blobs, _blobs(truth, truth_distance, extent, generator), mask)
    return mask


def coarse_mask(truth_distance: Tensor, generator: Generator, config: CoarseConfig) -> Tensor:
    """`coarse_masks` for a single crop `(1, 1, S, S)` without a real coarse mask."""
    none = torch.zeros(1, dtype=torch.bool, device=truth_distance.device)
    return coarse_masks(truth_distance, truth_distance, none, generator, config)
