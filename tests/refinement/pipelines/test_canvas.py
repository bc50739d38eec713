"""Views cut out of a photo, and their answers blended."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers.networks import (
    CONFIG,
    EVERY_TILE,
    QUICK,
    RIGHT,
    SMALL,
    all_object,
    empty,
    iou,
    keeps,
    noise,
    refined_in,
    sees,
    tiles_of,
    white_on_black,
    window,
)
from segrefiner.imaging.boxes import Box
from segrefiner.imaging.ops import contour, resize
from segrefiner.refinement.pipelines import canvas as canvases
from segrefiner.refinement.pipelines.coarse_to_fine import refine_mask, refine_masks
from segrefiner.refinement.pipelines.config import PipelineConfig, TilingConfig
from segrefiner.refinement.pipelines.tasks import MaskTask
from segrefiner.refinement.pipelines.views import (
    View,
    contour_tiles,
    find_objects,
    object_view,
)


def test_tiles_are_skipped_where_the_contour_is_sharp() -> None:
    truth, spoil = RIGHT["larger than many patches"]
    coarse, photo = spoil(truth), white_on_black(truth)
    few, every = (
        next(refine_masks(sees, [MaskTask(photo, coarse)], 1, config=config))
        for config in (replace(CONFIG, tiling=TilingConfig(undecided=0.9)), EVERY_TILE)
    )
    assert few.evaluations < every.evaluations
    assert iou(few.probability >= 0.5, truth) > 0.99
    # What no view has decided is never skipped.
    nothing = next(
        refine_masks(keeps, [MaskTask(photo, truth)], 1, config=replace(CONFIG, tiling=TilingConfig(undecided=0.9)))
    )
    assert nothing.evaluations > 1


@pytest.mark.parametrize("case", ["larger than many patches", "a large one and a small one", "all of the photo"])
def test_every_contour_pixel_is_seen_at_native_scale(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, _ = RIGHT[case]
    height, width = truth.shape
    weight, asked = torch.zeros(height, width), empty(height, width)

    def spy(
        uncertain: Tensor, area: Box, region: Box, photo: tuple[int, int], scale: float, config: PipelineConfig
    ) -> list[View]:
        tiles = contour_tiles(uncertain, area, region, photo, scale, config)
        assert all(t.box.clip(*photo).clip(area.y1, area.x1) == t.box.clip(*photo) for t in tiles)
        assert all(t.box.clip(*photo).x0 >= area.x0 and t.box.clip(*photo).y0 >= area.y0 for t in tiles)
        if scale == 1:
            asked[area.y0 : area.y1, area.x0 : area.x1] |= uncertain
            for view in tiles:
                part = view.box.clip(height, width)
                weights = window(view.box, height, width, config.tiling.overlap // 2)
                weights = weights[part.y0 - view.box.y0 :, part.x0 - view.box.x0 :][: part.height, : part.width]
                weight[part.y0 : part.y1, part.x0 : part.x1] += weights
        return tiles

    monkeypatch.setattr(canvases, "contour_tiles", spy)
    refine_mask(keeps, noise(height, width), truth, 1, config=EVERY_TILE)
    # An object that its own view shows at native scale or larger needs no tile.
    for box in find_objects(truth, CONFIG):
        if object_view(box, height, width, CONFIG).scale <= 1:
            asked[box.y0 : box.y1, box.x0 : box.x1] = False
            area = box.grow(2).clip(height, width)
            asked[area.y0 : area.y1, area.x0 : area.x1] = False
    assert (weight[asked] > 0.5).all()
    assert case == "all of the photo" or asked.any()


@QUICK
@given(size=st.tuples(st.integers(1, 60), st.integers(1, 60)), corner=st.tuples(*[st.integers(-30, 50)] * 2))
def test_windows_are_one_inside_and_fall_only_towards_other_views(
    size: tuple[int, int], corner: tuple[int, int]
) -> None:
    height, width = size
    box = Box(corner[0], corner[1], corner[0] + 32, corner[1] + 32)
    weights = window(box, height, width, 8)
    assert weights.shape == (32, 32) and weights.min() > 0 and weights.max() <= 1
    assert (weights[8:-8, 8:-8] == 1).all()
    x, y = torch.arange(32), torch.arange(32)
    to_left, to_right = (x + 0.5) / 8, (31.5 - x) / 8
    falls = torch.where(torch.tensor(box.x0 > 0), to_left, math.inf)
    falls = torch.minimum(falls, torch.where(torch.tensor(box.x1 < width), to_right, math.inf))
    expected = torch.sin(torch.pi / 2 * falls.clamp(max=1)).square()
    middle = weights[16]
    torch.testing.assert_close(middle, expected)
    assert (weights <= middle[None, :] + 1e-6).all() and len(y) == 32


def test_overlapping_tiles_leave_no_pixel_to_the_old_mask() -> None:
    mask = empty(100, 150)
    everywhere = torch.ones(100, 150, dtype=torch.bool)
    views = tiles_of(everywhere, Box(0, 0, 150, 100), 1, SMALL)
    assert float(refined_in(all_object, mask, views, [0], SMALL).min()) > 1 - 1e-5


def test_contours_are_the_pixels_with_a_neighbour_in_the_other_state() -> None:
    mask = noise(9, 12)[0] < 60
    framed = np.pad(mask.numpy(), 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(framed, (3, 3))
    expected = windows.any(axis=(2, 3)) & ~windows.all(axis=(2, 3))
    np.testing.assert_array_equal(contour(mask), expected)
    assert not contour(torch.ones(5, 6, dtype=torch.bool)).any()


def test_details_that_a_shrunk_view_cannot_show_are_not_changed_by_it() -> None:
    """A wire of a pixel and a crack of a pixel stay where the network would empty all that it sees shrunk by four."""
    mask = torch.zeros(256, 256, dtype=torch.bool)
    mask[20, 10:240] = True
    mask[100:220, 60:200] = True
    mask[160, 60:150] = False
    view = View(Box(0, 0, 256, 256), 4.0)
    refined = refined_in(lambda x, timesteps: torch.full_like(x[:, :1], -9.0), mask, [view], [5]) >= 0.5
    assert refined[20, 10:240].all()
    assert not refined[105:140, 80:180].any()  # what it shows, it changes
    assert torch.equal(refined[158:163, 70:140], mask[158:163, 70:140])


@QUICK
@given(st.integers(2, 6), st.integers(0, 3), st.floats(0, 3.1))
def test_a_contour_that_a_shrunk_view_shows_is_no_detail(scale: int, offset: int, angle: float) -> None:
    side = 64 * scale
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    mask = (x - side / 2) * math.cos(angle) + (y - side / 2) * math.sin(angle) + offset > 0
    assert not canvases._near_details(resize(mask[None].float(), 64, 64)).any()
