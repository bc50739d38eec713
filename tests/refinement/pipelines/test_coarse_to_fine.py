"""Laws of the default pipeline, with networks whose answer is known by construction.

`keeps` answers the mask that it is shown; `sees` answers where the photo is bright, so that a photo that is white on
the object and black elsewhere makes it a perfect network. Neither needs weights.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, label
from torch import Tensor

from segrefiner.imaging.boxes import Box, mask_box
from segrefiner.imaging.ops import contour
from segrefiner.model.diffusion import Network, Progress, Stage, silent
from segrefiner.model.unet import IMAGE_MEAN, IMAGE_STD
from segrefiner.refinement.pipelines import canvas as canvases
from segrefiner.refinement.pipelines.batching import AdaptiveBatcher
from segrefiner.refinement.pipelines.canvas import Canvas, falls
from segrefiner.refinement.pipelines.coarse_to_fine import _Run, refine_mask, refine_masks
from segrefiner.refinement.pipelines.config import PipelineConfig, Sampler, TilingConfig
from segrefiner.refinement.pipelines.tasks import MaskTask
from segrefiner.refinement.pipelines.views import (
    FREE,
    View,
    _start,
    _worth,
    contour_tiles,
    find_objects,
    needs_tiles,
    object_view,
    scale_seen,
)

QUICK = settings(max_examples=25, deadline=None, derandomize=True, database=None)
CONFIG = PipelineConfig()
EVERY_TILE = replace(CONFIG, tiling=TilingConfig(undecided=-1.0), converged=-1.0)
SMALL = PipelineConfig(patch=32, tiling=TilingConfig(side=32, overlap=8), min_side=16)


def keeps(x: Tensor, timesteps: Tensor) -> Tensor:
    return (2 * x[:, 3:] - 1) * 30


def brightness(x: Tensor) -> Tensor:
    """The photo's red channel, -1 for black and 1 for white."""
    return (x[:, :1] * IMAGE_STD[0] + IMAGE_MEAN[0]) / 127.5 - 1


def sees(x: Tensor, timesteps: Tensor) -> Tensor:
    return brightness(x) * 40


def hesitates(x: Tensor, timesteps: Tensor) -> Tensor:
    """Believes the photo and the mask, neither of them much, so that the thresholds decide."""
    return 1.5 * brightness(x) + (2 * x[:, 3:] - 1)


def all_object(x: Tensor, timesteps: Tensor) -> Tensor:
    return torch.full_like(x[:, 3:], 30.0)


def all_ground(x: Tensor, timesteps: Tensor) -> Tensor:
    return torch.full_like(x[:, 3:], -30.0)


def random_answer(x: Tensor, timesteps: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(int(timesteps[0]))
    return 30 * torch.randn(x[:, 3:].shape, generator=generator)


def empty(height: int, width: int) -> Tensor:
    return torch.zeros(height, width, dtype=torch.bool)


def window(box: Box, height: int, width: int, ramp: int) -> Tensor:
    """Blending weights of a view, all of its box."""
    down, across = falls(box, box, height, width, ramp, torch.device("cpu"))
    return torch.minimum(down[:, None], across)


def rectangle(height: int, width: int, y: tuple[int, int], x: tuple[int, int]) -> Tensor:
    mask = empty(height, width)
    mask[y[0] : y[1], x[0] : x[1]] = True
    return mask


def discs(height: int, width: int, *where: tuple[int, int, int]) -> Tensor:
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for y, x, radius in where:
        mask |= np.hypot(rows - y, columns - x) <= radius
    return torch.from_numpy(mask)


def specks(height: int, width: int, count: int = 200) -> Tensor:
    random, mask = np.random.default_rng(0), empty(height, width)
    for _ in range(count):
        y, x = random.integers(2, height - 5), random.integers(2, width - 5)
        mask[y : y + 3, x : x + 3] = True
    return mask


def moved(mask: Tensor, down: int, right: int) -> Tensor:
    return mask.roll((down, right), (0, 1))


def white_on_black(truth: Tensor) -> Tensor:
    return (truth.expand(3, -1, -1) * 255).to(torch.uint8)


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def iou(a: Tensor, b: Tensor) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def refined_in(
    network: Network, mask: Tensor, views: list[View], timesteps: list[int], config: PipelineConfig = CONFIG
) -> Tensor:
    """The probability after one level of these views, of a canvas that covers the whole photo."""
    height, width = mask.shape
    sheet = Canvas(noise(height, width), mask, Box(0, 0, width, height), 0, config)
    assert sheet.area == Box(0, 0, width, height)
    _Run(network, config, AdaptiveBatcher(8), silent).level({sheet: views}, timesteps, Stage.WHOLE_OBJECTS)
    return sheet.probability


def tiles_of(uncertain: Tensor, region: Box, scale: float, config: PipelineConfig) -> list[View]:
    height, width = uncertain.shape
    return contour_tiles(uncertain, Box(0, 0, width, height), region, (height, width), scale, config)


# What a network that is right, or that agrees, makes of a mask.

RIGHT: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {
    "one object": (discs(200, 240, (90, 130, 50)), lambda m: moved(m, 6, -9)),
    "smaller than a patch": (discs(40, 50, (20, 25, 11)), lambda m: moved(m, 2, -2)),
    "larger than many patches": (discs(1100, 1500, (500, 700, 300)), lambda m: moved(m, 20, -15)),
    "a strip, one pixel high": (rectangle(1, 700, (0, 1), (200, 400)), lambda m: moved(m, 0, 20)),
    "a long strip, one pixel wide": (rectangle(5000, 1, (1000, 4000), (0, 1)), lambda m: moved(m, 60, 0)),
    # Moved by less it counts as a good mask of a small object.
    "a line in a strip": (rectangle(3, 300, (1, 2), (100, 200)), lambda m: moved(m, 0, 20)),
    "3x3 pixels": (rectangle(400, 500, (200, 203), (300, 303)), lambda m: moved(m, 1, 1)),
    "3x3 pixels in a corner": (
        rectangle(400, 500, (0, 3), (497, 500)),
        lambda m: rectangle(400, 500, (0, 5), (496, 500)),
    ),
    "at the border": (rectangle(400, 500, (0, 80), (0, 90)), lambda m: rectangle(400, 500, (0, 70), (5, 99))),
    "two far apart": (discs(600, 900, (100, 100, 40), (480, 780, 50)), lambda m: moved(m, 4, 5)),
    "a large one and a small one": (discs(900, 1200, (400, 400, 250), (850, 1150, 8)), lambda m: moved(m, 2, 2)),
    "all of the photo": (torch.ones(300, 401, dtype=torch.bool), lambda m: rectangle(300, 401, (9, 300), (0, 390))),
    "200 specks": (specks(600, 800), lambda m: m.clone()),
    "200 specks, too large": (specks(500, 500), lambda m: contour(m) | m),
    "200 specks, some of them lost": (specks(1100, 1500), lambda m: m & ~rectangle(1100, 1500, (0, 300), (0, 300))),
}
WITHIN_REACH = {k: v for k, v in RIGHT.items() if "lost" not in k}


@pytest.mark.parametrize("case", WITHIN_REACH)
def test_a_right_network_repairs_the_mask(case: str) -> None:
    truth, spoil = RIGHT[case]
    result = refine_mask(sees, white_on_black(truth), spoil(truth)) >= 0.5
    assert iou(result, truth) > 0.99


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_every_number_of_steps_repairs_the_mask(steps: int) -> None:
    truth, spoil = discs(200, 240, (90, 130, 35)), lambda m: moved(m, 4, -6)
    stages: list[str] = []
    result = refine_mask(sees, white_on_black(truth), spoil(truth), steps, on_progress=lambda p: stages.append(p.stage))
    assert iou(result >= 0.5, truth) > 0.99
    assert stages == ["whole objects"] * steps  # a small object needs no tiles


@pytest.mark.parametrize("case", RIGHT)
def test_a_network_that_agrees_changes_contours_only(case: str) -> None:
    truth, _ = RIGHT[case]
    result = refine_mask(keeps, noise(*truth.shape), truth) >= 0.5
    changed = (result != truth).numpy()
    # What the photo's border cuts off may change beside it: there is nothing beyond.
    framed = np.pad(truth.numpy(), 1)
    to_contour = np.where(framed, distance_transform_edt(framed), distance_transform_edt(~framed))[1:-1, 1:-1]
    coarsest = max(object_view(box, *truth.shape, CONFIG).scale for box in find_objects(truth, CONFIG))
    assert (to_contour[changed] <= 1 + math.ceil(coarsest)).all()
    if "specks" not in case:
        assert iou(result, truth) > 0.98


@pytest.mark.parametrize("case", RIGHT)
def test_a_network_that_agrees_loses_no_part(case: str) -> None:
    truth, _ = RIGHT[case]
    result = refine_mask(keeps, noise(*truth.shape), truth) >= 0.5
    parts, count = label(truth.numpy(), np.ones((3, 3)))
    left = np.unique(parts[result.numpy()])
    assert len(left[left > 0]) == count


@pytest.mark.parametrize("seed", range(3))
def test_at_native_scale_a_network_that_agrees_changes_nothing(seed: int) -> None:
    mask = noise(256, 256, seed)[0] < 128  # any mask at all, down to single pixels
    probability = refine_mask(keeps, noise(256, 256), mask)
    assert torch.equal(probability >= 0.5, mask)
    views = [View(Box(x, y, x + 256, y + 256), 1.0) for x, y in ((0, 0), (144, 44), (-60, 20), (80, 90))]
    probability = refined_in(keeps, mask := noise(300, 400, seed)[0] < 128, views, [5, 0])
    assert torch.equal(probability >= 0.5, mask)


def test_an_empty_mask_is_shown_to_no_network() -> None:
    def must_not_run(x: Tensor, timesteps: Tensor) -> Tensor:
        raise AssertionError

    assert not refine_mask(must_not_run, noise(90, 80), empty(90, 80)).any()


ANSWERS = [keeps, sees, hesitates, all_object, all_ground, random_answer]


@pytest.mark.parametrize("network", ANSWERS, ids=lambda n: n.__name__)
@pytest.mark.parametrize("shape", [(31, 37), (77, 403), (256, 256), (257, 255), (300, 401), (1, 90)], ids=str)
def test_the_result_is_a_probability_and_the_input_stays(network: Network, shape: tuple[int, int]) -> None:
    height, width = shape
    image, mask = (
        noise(*shape),
        rectangle(*shape, (height // 4, height - height // 4), (width // 4, width - width // 4)),
    )
    given_image, given_mask = image.clone(), mask.clone()
    probability = refine_mask(network, image, mask)
    assert probability.shape == mask.shape and probability.dtype == torch.float32
    assert torch.equal(image, given_image) and torch.equal(mask, given_mask)
    # Exactly so: files of probabilities are refused beyond it.
    assert float(probability.min()) >= 0 and float(probability.max()) <= 1


# What a network that is wrong can do.


@pytest.mark.parametrize("network", [all_ground, random_answer], ids=lambda n: n.__name__)
@pytest.mark.parametrize("case", RIGHT)
def test_no_network_empties_a_mask(network: Network, case: str) -> None:
    truth, _ = RIGHT[case]
    assert (refine_mask(network, white_on_black(truth), truth, 1) >= 0.5).any()


@pytest.mark.parametrize("network", [all_object, all_ground, random_answer], ids=lambda n: n.__name__)
@pytest.mark.parametrize("side", [1, 3, 9, 20, 45, 120])
def test_an_object_is_refined_or_kept(network: Network, side: int) -> None:
    """However wrong a network is, its result has something to do with the coarse mask, or is the coarse mask."""
    mask = rectangle(300, 320, (100, 100 + side), (110, 110 + side))
    result = refine_mask(network, noise(300, 320), mask) >= 0.5
    assert torch.equal(result, mask) or iou(result, mask) >= CONFIG.acceptance.keep_iou


def test_a_lost_object_does_not_undo_its_neighbour() -> None:
    two = rectangle(300, 600, (100, 200), (60, 160)) | rectangle(300, 600, (100, 200), (200, 300))
    third = rectangle(300, 600, (100, 200), (350, 450))
    coarse = two | rectangle(300, 600, (100, 200), (358, 458))
    assert find_objects(coarse, CONFIG) == [Box(60, 100, 300, 200), Box(358, 100, 458, 200)]
    photo = white_on_black(third)  # the network sees the third one only
    result = refine_mask(sees, photo, coarse) >= 0.5
    assert torch.equal(result[:, :330], two[:, :330])
    assert iou(result[:, 330:], third[:, 330:]) > 0.99


@pytest.mark.parametrize(
    ("hole", "logit", "caution", "filled"),
    [(5, 1.0, 0.95, False), (5, 30.0, 0.95, True), (5, 1.0, 0.0, True), (50, 1.0, 0.95, True)],
    ids=["unsure", "sure", "no caution", "a bad mask"],
)
def test_a_good_mask_changes_only_where_the_network_is_sure(
    hole: int, logit: float, caution: float, filled: bool
) -> None:
    whole = rectangle(256, 256, (70, 170), (70, 170))
    missing = rectangle(256, 256, (100, 100 + hole), (100, 100 + hole))
    mask = whole & ~missing

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        return torch.where(brightness(x) > 0, logit, keeps(x, timesteps))

    config = replace(CONFIG, acceptance=replace(CONFIG.acceptance, confidence=(caution, caution), least_gain=0.0))
    result = refine_mask(network, white_on_black(missing), mask, config=config) >= 0.5
    assert iou(result, whole if filled else mask) > 0.999


@pytest.mark.parametrize("network", [all_ground, keeps, sees], ids=lambda n: n.__name__)
def test_without_caution_every_change_is_kept(network: Network) -> None:
    whole = rectangle(256, 256, (70, 170), (70, 170))
    mask = whole & ~rectangle(256, 256, (100, 105), (100, 105))
    expected = {"all_ground": torch.zeros_like(mask), "keeps": mask, "sees": whole}[network.__name__]
    result = refine_mask(network, white_on_black(whole), mask, 1, config=FREE) >= 0.5
    assert iou(result, expected) > 0.999


def test_without_caution_contours_may_still_be_drawn_to_edges() -> None:
    whole = rectangle(256, 256, (70, 170), (70, 170))
    wide = rectangle(256, 256, (68, 172), (68, 172))
    photo = white_on_black(whole)
    free, drawn = (refine_mask(keeps, photo, wide, 1, config=replace(FREE, edge_radius=r)) >= 0.5 for r in (0, 2))
    assert iou(free, wide) > 0.99
    assert iou(drawn, whole) > iou(wide, whole) + 0.03


@QUICK
@given(st.integers(0, 1000), st.lists(st.tuples(st.integers(-20, 80), st.integers(-20, 60)), min_size=1, max_size=4))
def test_pixels_that_no_view_covers_keep_the_mask(seed: int, corners: list[tuple[int, int]]) -> None:
    mask = noise(70, 90, seed)[0] < 128
    views = [View(Box(x, y, x + 32, y + 32), 1.0) for x, y in corners]
    seen = empty(70, 90)
    for view in views:
        box = view.box.clip(70, 90)
        seen[box.y0 : box.y1, box.x0 : box.x1] = True
    for network in (all_object, random_answer):
        probability = refined_in(network, mask, views, [5, 0], SMALL)
        assert torch.equal(probability[~seen], mask[~seen].float())


def test_far_from_every_object_the_mask_stays_empty() -> None:
    mask = discs(600, 900, (100, 100, 40), (480, 780, 5))
    away = torch.from_numpy(distance_transform_edt(~mask.numpy()) > 150)
    for network in (all_object, random_answer):
        assert not refine_mask(network, noise(600, 900), mask)[away].any()


# Randomness, batches, progress.


def test_same_seed_same_result_and_another_batch_size_too() -> None:
    mask, image = discs(400, 500, (150, 200, 130), (390, 480, 9)), noise(400, 500)
    before = torch.random.get_rng_state()
    expected = refine_mask(hesitates, image, mask, seed=3)
    assert torch.equal(refine_mask(hesitates, image, mask, seed=3), expected)
    for batch_size in (1, 3):
        assert torch.equal(refine_mask(hesitates, image, mask, seed=3, batches=AdaptiveBatcher(batch_size)), expected)
    assert not torch.equal(refine_mask(hesitates, image, mask, seed=4), expected)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_with_one_step_the_sampler_does_not_matter_and_with_more_its_seed_does() -> None:
    truth, spoil = RIGHT["one object"]
    image, mask = noise(*truth.shape), spoil(truth)
    ancestral = replace(CONFIG, sampler=Sampler.ANCESTRAL)
    one = refine_mask(hesitates, image, mask, 1)
    assert torch.equal(refine_mask(hesitates, image, mask, 1, config=ancestral, seed=5), one)
    first, again, other = (refine_mask(hesitates, image, mask, config=ancestral, seed=s) for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first, refine_mask(hesitates, image, mask, seed=3))


def test_progress_counts_every_evaluation() -> None:
    calls: list[int] = []
    heard: list[Progress] = []

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        calls.append(len(x))
        return keeps(x, timesteps)

    mask = discs(900, 900, (450, 450, 300))
    refine_mask(network, noise(900, 900), mask, batches=AdaptiveBatcher(3), config=EVERY_TILE, on_progress=heard.append)
    stages = list(dict.fromkeys(p.description for p in heard))
    assert stages == ["whole objects", "contours, 1:2", "contours, 1:1"]
    assert len(heard) == len(calls)
    for stage in stages:
        counts = [p.done for p in heard if p.description == stage]
        assert counts == sorted(set(counts)) and {p.total for p in heard if p.description == stage} == {counts[-1]}
    assert sum(calls) == sum({p.description: p.total for p in heard}.values())


def counting(network: Network) -> tuple[Network, list[int]]:
    """The network, and a list of the views of each of its evaluations."""
    calls: list[int] = []

    def counted(x: Tensor, timesteps: Tensor) -> Tensor:
        calls.append(len(x))
        return network(x, timesteps)

    return counted, calls


def scenes(count: int) -> list[MaskTask]:
    """Masks of photos of different sizes, of one object or two."""
    masks = [discs(200 + 30 * i, 260 - 20 * i, (90, 90 + 5 * i, 40 + 20 * (i % 3)), (190, 20, 6)) for i in range(count)]
    return [MaskTask(noise(*mask.shape, seed=i), mask, seed=i) for i, mask in enumerate(masks)]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("sampler", Sampler)
def test_masks_together_give_what_they_give_alone(sampler: Sampler, shared: bool) -> None:
    jobs, config = scenes(5), replace(CONFIG, sampler=sampler)
    together = list(refine_masks(hesitates, jobs, config=config, batches=AdaptiveBatcher(3, shared=shared)))
    for job, refined in zip(jobs, together, strict=True):
        (alone,) = refine_masks(hesitates, [job], config=config)
        assert torch.equal(refined.probability, alone.probability)
        assert (refined.reverted, refined.evaluations) == (alone.reverted, alone.evaluations)


@pytest.mark.parametrize("steps", [1, 6])
def test_the_network_is_asked_the_same_whatever_else_is_refined(steps: int) -> None:
    asked: list[tuple[Tensor, Tensor]] = []

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        asked.append((x.clone(), timesteps))
        return hesitates(x, timesteps)

    def equal(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> bool:
        return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))

    jobs = scenes(5)
    alone = []
    for job in jobs:
        list(refine_masks(network, [job], steps, batches=AdaptiveBatcher(3)))
        alone.append(asked.copy())
        asked.clear()
    for order in ([0, 1, 2, 3, 4], [3, 1], [4, 2, 0, 2]):
        list(refine_masks(network, [jobs[i] for i in order], steps, batches=AdaptiveBatcher(3)))
        expected = [call for i in order for call in alone[i]]
        assert len(asked) == len(expected)
        for call in expected:
            assert any(equal(call, other) for other in asked)
        asked.clear()


def test_shared_batches_are_filled_by_views_of_many_masks() -> None:
    network, calls = counting(hesitates)
    together = list(refine_masks(network, scenes(5), 1, config=CONFIG, batches=AdaptiveBatcher(4, shared=True)))
    objects = sum(len(find_objects(job.mask, CONFIG)) for job in scenes(5))
    assert objects > 5 and calls[: -(-objects // 4)] == [4] * (objects // 4) + [objects % 4] * (objects % 4 > 0)
    assert sum(calls) == sum(refined.evaluations for refined in together)
    # Four whole objects at a time, or as many tiles as have their pixels.
    assert 4 < max(calls) <= 4 * (CONFIG.patch // CONFIG.tiling.side) ** 2
    network, alone = counting(hesitates)
    for job in scenes(5):
        list(refine_masks(network, [job], 1, config=CONFIG, batches=AdaptiveBatcher(4)))
    assert len(calls) < len(alone)


def test_small_objects_are_enlarged_to_a_whole_view() -> None:
    for radius, side in ((3, 48), (20, 62), (42, 128), (100, 302)):
        mask = discs(500, 600, (250, 300, radius))
        (box,) = find_objects(mask, CONFIG)
        view = object_view(box, 500, 600, CONFIG)
        assert view.size == CONFIG.patch and view.box.width == pytest.approx(side, abs=1)
        sizes: list[int] = []

        def network(x: Tensor, timesteps: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.shape[-1])
            return sees(x, timesteps)

        result = refine_mask(network, white_on_black(mask), moved(mask, 1, 1), 1) >= 0.5
        assert iou(result, mask) > 0.9 and sizes[0] == CONFIG.patch


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=type)
def test_where_memory_runs_out_batches_are_halved_and_the_result_is_the_same(error: Exception) -> None:
    def small(x: Tensor, timesteps: Tensor) -> Tensor:
        if len(x) > 2:
            raise error
        return hesitates(x, timesteps)

    batches = AdaptiveBatcher(8, shared=True)
    results = list(refine_masks(small, scenes(5), batches=batches))
    assert 0.25 <= batches.size <= 2
    for expected, result in zip(refine_masks(hesitates, scenes(5)), results, strict=True):
        assert torch.equal(expected.probability, result.probability)


def test_other_errors_and_views_that_never_fit_are_raised() -> None:
    def fails(x: Tensor, timesteps: Tensor) -> Tensor:
        raise RuntimeError("shapes differ")

    def never_fits(x: Tensor, timesteps: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for network, error in ((fails, RuntimeError), (never_fits, torch.OutOfMemoryError)):
        with pytest.raises(error):
            list(refine_masks(network, scenes(3)))


def test_views_that_have_converged_take_no_further_step() -> None:
    truth, spoil = RIGHT["one object"]
    for network, fewer in ((keeps, True), (hesitates, False)):
        counted, calls = counting(network)
        heard: list[Progress] = []
        config = replace(CONFIG, tiling=TilingConfig(undecided=1.0))
        (refined,) = refine_masks(
            counted, [MaskTask(noise(*truth.shape), spoil(truth))], config=config, on_progress=heard.append
        )
        assert refined.evaluations == sum(calls)
        assert (sum(p.stage == "whole objects" for p in heard) < 6) == fewer
        assert all(p.done <= p.total for p in heard)
        assert [p.done for p in heard if p.stage == "whole objects"][-1] == heard[0].total


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


def test_mirrored_input_gives_the_mirrored_result() -> None:
    truth = discs(430, 380, (150, 160, 110), (290, 230, 60))
    mask = moved(truth, 5, 3)
    image = (white_on_black(truth) // 2 + noise(430, 380) // 4).to(torch.uint8)

    def soft(x: Tensor, timesteps: Tensor) -> Tensor:
        return brightness(x) * 6 + 1  # answers by the photo alone: whatever the thresholds are

    expected = refine_mask(soft, image, mask)
    for axes in ([0], [1], [0, 1]):
        mirrored = refine_mask(soft, image.flip([a + 1 for a in axes]), mask.flip(axes)).flip(axes)
        # Not the same to rounding: tiles are placed from the top left.
        assert float((mirrored - expected).abs().mean()) < 0.02
        assert iou(mirrored >= 0.5, expected >= 0.5) > 0.99


# Which views the network gets.


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


@pytest.mark.parametrize(("patch", "tile"), [(16, 16), (64, 64), (64, 32)])
def test_patch_and_tile_sizes_are_a_free_choice(patch: int, tile: int) -> None:
    config = replace(CONFIG, patch=patch, tiling=TilingConfig(side=tile, overlap=tile // 4))
    sizes: set[tuple[int, ...]] = set()

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        sizes.add(tuple(x.shape[1:]))
        return sees(x, timesteps)

    truth, spoil = RIGHT["one object"]
    result = refine_mask(network, white_on_black(truth), spoil(truth), config=config) >= 0.5
    assert iou(result, truth) > 0.99
    assert sizes == {(4, patch, patch), (4, tile, tile)}


def test_contours_are_the_pixels_with_a_neighbour_in_the_other_state() -> None:
    mask = noise(9, 12)[0] < 60
    framed = np.pad(mask.numpy(), 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(framed, (3, 3))
    expected = windows.any(axis=(2, 3)) & ~windows.all(axis=(2, 3))
    np.testing.assert_array_equal(contour(mask), expected)
    assert not contour(torch.ones(5, 6, dtype=torch.bool)).any()


# Memory is bounded: large planes are computed band by band.


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_bands_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = discs(430, 380, (150, 160, 110), (290, 230, 60), (40, 330, 20))
    mask = moved(truth, 5, 3)
    image = (white_on_black(truth) // 2 + noise(430, 380) // 4).to(torch.uint8)

    def soft(x: Tensor, timesteps: Tensor) -> Tensor:
        return brightness(x) * 6 + 1

    whole = refine_mask(soft, image, mask)
    monkeypatch.setattr("segrefiner.imaging.ops.BAND_PIXELS", rows * 380)
    parts = refine_mask(soft, image, mask)
    assert float((parts - whole).abs().max()) < 1e-4
    assert torch.equal(parts >= 0.5, whole >= 0.5)
