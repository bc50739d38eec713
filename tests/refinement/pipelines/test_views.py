"""Which views the network gets: objects as a whole, and tiles along contours."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers.networks import CONFIG, EVERY_TILE, QUICK, SMALL, discs, empty, keeps, noise, rectangle, tiles_of, window
from segrefiner.imaging.boxes import Box, mask_box
from segrefiner.refinement.pipelines import canvas as canvases
from segrefiner.refinement.pipelines.coarse_to_fine import refine_mask
from segrefiner.refinement.pipelines.config import PipelineConfig
from segrefiner.refinement.pipelines.views import (
    View,
    _start,
    _worth,
    contour_tiles,
    find_objects,
    needs_tiles,
    object_view,
    scale_seen,
)


@QUICK
@given(
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    parts=st.lists(st.tuples(st.floats(0, 0.99), st.floats(0, 0.99), st.integers(1, 12)), max_size=6),
)
def test_objects_are_disjoint_tight_and_cover_the_mask(
    size: tuple[int, int], parts: list[tuple[float, float, int]]
) -> None:
    height, width = size
    mask = empty(height, width)
    for y, x, side in parts:
        top, left = int(y * height), int(x * width)
        mask[top : top + side, left : left + side] = True
    boxes = find_objects(mask, CONFIG)
    covered = torch.zeros(height, width)
    for box in boxes:
        assert box == box.clip(height, width)
        inner = mask_box(box.crop(mask[None])[0])
        assert inner == Box(0, 0, box.width, box.height)
        covered[box.y0 : box.y1, box.x0 : box.x1] += 1
    assert (covered[mask] == 1).all() and (covered <= 1).all()


def test_objects_come_in_reading_order() -> None:
    mask = rectangle(60, 400, (0, 10), (5, 15)) | rectangle(60, 400, (1, 41), (200, 240))
    mask |= rectangle(60, 400, (0, 2), (350, 352))
    boxes = find_objects(mask, CONFIG)
    assert len(boxes) == 3
    assert boxes == sorted(boxes, key=lambda b: (b.y0, b.x0))


@pytest.mark.parametrize("side", [1, 10, 100])
def test_near_parts_are_one_object_and_far_ones_are_not(side: int) -> None:
    for gap, objects in ((max(1, side // 10), 1), (3 * side + 10, 2)):
        second = 20 + side + gap
        mask = rectangle(500, 700, (50, 50 + side), (20, 20 + side))
        mask |= rectangle(500, 700, (50, 50 + side), (second, second + side))
        assert len(find_objects(mask, CONFIG)) == objects
        assert len(find_objects(mask.T.contiguous(), CONFIG)) == objects


@QUICK
@given(
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    corner=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    share=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_an_object_s_view_is_a_square_with_context_inside_the_photo(
    size: tuple[int, int], corner: tuple[float, float], share: tuple[float, float]
) -> None:
    height, width = size
    y0, x0 = int(corner[0] * height), int(corner[1] * width)
    box = Box(x0, y0, x0 + 1 + int(share[1] * (width - x0 - 1)), y0 + 1 + int(share[0] * (height - y0 - 1)))
    view = object_view(box, height, width, CONFIG)
    side = view.box.width
    assert view.box.height == side and view.scale == side / view.size
    assert view.size == CONFIG.patch
    strip = max(size) > max(CONFIG.patch, 8 * min(size))
    assert side <= max(height, width)
    if not strip:
        assert side >= min(max(box.longest, CONFIG.min_side), max(height, width))
        assert view.box.x0 <= box.x0 and box.x1 <= view.box.x1 and view.box.y0 <= box.y0 and box.y1 <= view.box.y1
        assert side >= min(CONFIG.context * box.longest - 1, max(height, width))
    for start, stop, limit in ((view.box.x0, view.box.x1, width), (view.box.y0, view.box.y1, height)):
        assert (start >= 0 and stop <= limit) if side <= limit else (start <= 0 and stop >= limit)


@QUICK
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    corner=st.tuples(st.floats(-0.2, 0.9), st.floats(-0.2, 0.9)),
    share=st.tuples(st.floats(0.1, 1.2), st.floats(0.1, 1.2)),
    scale=st.sampled_from([1, 2]),
    seed=st.integers(0, 100),
)
def test_tiles_see_every_uncertain_pixel_of_their_region_well(
    size: tuple[int, int], corner: tuple[float, float], share: tuple[float, float], scale: int, seed: int
) -> None:
    height, width = size
    y0, x0 = int(corner[0] * height), int(corner[1] * width)
    region = Box(x0, y0, x0 + max(1, int(share[1] * width)), y0 + max(1, int(share[0] * height)))
    inner = region.clip(height, width)
    if inner.width <= 0 or inner.height <= 0:
        return
    generator = torch.Generator().manual_seed(seed)
    uncertain = torch.rand(height, width, generator=generator) < 0.02
    side, ramp = SMALL.tiling.side * scale, SMALL.tiling.overlap * scale // 2
    best = torch.zeros(height, width)
    for view in tiles_of(uncertain, region, scale, SMALL):
        assert (view.box.width, view.box.height, view.scale) == (side, side, scale)
        part = view.box.clip(height, width)
        assert uncertain[part.y0 : part.y1, part.x0 : part.x1].any()
        weights = window(view.box, height, width, ramp)
        weights = weights[part.y0 - view.box.y0 :, part.x0 - view.box.x0 :][: part.height, : part.width]
        here = best[part.y0 : part.y1, part.x0 : part.x1]
        best[part.y0 : part.y1, part.x0 : part.x1] = torch.maximum(here, weights)
    in_region, well_inside = empty(height, width), empty(height, width)
    in_region[inner.y0 : inner.y1, inner.x0 : inner.x1] = True
    top, left = (0 if start <= 0 else start + ramp for start in (inner.y0, inner.x0))
    bottom = height if inner.y1 == height else inner.y1 - ramp
    right = width if inner.x1 == width else inner.x1 - ramp
    well_inside[top : max(top, bottom), left : max(left, right)] = True
    assert (best[uncertain & in_region] > 0).all()
    assert (best[uncertain & well_inside] > 1 - 1e-6).all()


@pytest.mark.parametrize(("radius", "scales"), [(40, []), (70, [0.5]), (150, [1, 0.5]), (240, [1, 0.5]), (300, [2, 1])])
def test_tiles_go_down_to_the_enlarged_photo_unless_the_object_is_large(
    radius: int, scales: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def spy(
        uncertain: Tensor, area: Box, region: Box, photo: tuple[int, int], scale: float, config: PipelineConfig
    ) -> list[View]:
        seen.append(scale)
        tiles = contour_tiles(uncertain, area, region, photo, scale, config)
        assert tiles and all(
            t.box.width == t.box.height == config.tiling.side * scale == config.tiling.side * t.scale for t in tiles
        )
        return tiles

    monkeypatch.setattr(canvases, "contour_tiles", spy)
    mask = discs(1000, 1000, (500, 500, radius))
    refine_mask(keeps, noise(1000, 1000), mask, 1, config=EVERY_TILE)
    assert seen == scales


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 4.0])
def test_tiles_are_asked_for_where_they_show_more_than_the_object_s_view(scale: float) -> None:
    least = (CONFIG.tiling.finer_shrunk if scale > 1 else CONFIG.tiling.finer) * scale
    for longest in (600, 8000):
        region = Box(0, 0, longest, 10)
        assert not needs_tiles(least * 0.99, region, scale, CONFIG)
        assert needs_tiles(least, region, scale, CONFIG) == (scale >= 1 or longest <= CONFIG.tiling.enlarged_side)
    # Of a strip that its view shows no more than the middle of, the ends need tiles, too.
    strip = Box(-1000, -500, 6000, 501)
    view = object_view(Box(0, 0, 5000, 1), 1, 5000, CONFIG)
    assert view.scale == 1 and needs_tiles(scale_seen(view, strip, (1, 5000), CONFIG), strip, 8, CONFIG)


@QUICK
@given(seed=st.integers(0, 1000), size=st.tuples(st.integers(1, 40), st.integers(1, 40)), across=st.integers(1, 7))
def test_what_a_place_shows_is_kept_up_to_date_as_tiles_are_placed(
    seed: int, size: tuple[int, int], across: int
) -> None:
    config = replace(SMALL, tiling=replace(SMALL.tiling, side=across + 8))
    uncertain = torch.rand(*size, generator=torch.Generator().manual_seed(seed)) < 0.2
    region = Box(0, 0, size[1], size[0])
    left = uncertain.numpy().astype(np.int64)
    total, corners = max(1, int(left.sum())), []
    while left.any():
        worth = _worth(left, across, total)
        row, column = (max(0, int(i) - across + 1) for i in np.unravel_index(worth.argmax(), worth.shape))
        left[row : row + across, column : column + across] = 0
        corners.append((row, column))
    tiles = tiles_of(uncertain, region, 1, config)
    side, margin = config.tiling.side, config.tiling.overlap // 2
    expected = [
        (_start(column - margin, 0, size[1], size[1], side), _start(row - margin, 0, size[0], size[0], side))
        for row, column in corners
    ]
    assert sorted((tile.box.x0, tile.box.y0) for tile in tiles) == sorted(expected)
