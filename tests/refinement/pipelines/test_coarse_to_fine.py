"""Laws of the default pipeline, with networks whose answer is known by construction.

`keeps` answers the mask that it is shown; `sees` answers where the photo is bright, so that a photo that is white on
the object and black elsewhere makes it a perfect network. Neither needs weights.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, label
from torch import Tensor

from helpers.networks import (
    CONFIG,
    EVERY_TILE,
    QUICK,
    RIGHT,
    SMALL,
    WITHIN_REACH,
    all_ground,
    all_object,
    brightness,
    counting,
    discs,
    empty,
    hesitates,
    iou,
    keeps,
    moved,
    noise,
    random_answer,
    rectangle,
    refined_in,
    sees,
    white_on_black,
)
from segrefiner.imaging.boxes import Box
from segrefiner.model.diffusion import Network, Progress
from segrefiner.refinement.pipelines.batching import AdaptiveBatcher
from segrefiner.refinement.pipelines.coarse_to_fine import refine_mask, refine_masks
from segrefiner.refinement.pipelines.config import PipelineConfig, Sampler, TilingConfig
from segrefiner.refinement.pipelines.tasks import MaskTask
from segrefiner.refinement.pipelines.views import (
    FREE,
    View,
    find_objects,
    object_view,
)

UNJUDGED = PipelineConfig(acceptance=None)
"""All that a drawn network says is kept: acceptance has learnt what networks say of photos."""


@pytest.mark.parametrize("case", WITHIN_REACH)
def test_a_right_network_repairs_the_mask(case: str) -> None:
    truth, spoil = RIGHT[case]
    result = refine_mask(sees, white_on_black(truth), spoil(truth), config=UNJUDGED) >= 0.5
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
    nothing_gained = replace(CONFIG, acceptance=replace(CONFIG.acceptance, trust=0.0))
    result = refine_mask(sees, photo, coarse, config=nothing_gained) >= 0.5
    assert torch.equal(result[:, :330], two[:, :330])
    assert iou(result[:, 330:], third[:, 330:]) > 0.99


@pytest.mark.parametrize(("trust", "filled"), [(0.0, True), (0.5, True), (1.0, False)])
def test_a_hole_is_filled_unless_the_mask_is_trusted(trust: float, filled: bool) -> None:
    whole = rectangle(256, 256, (70, 170), (70, 170))
    mask = whole & ~rectangle(256, 256, (100, 150), (100, 150))
    config = replace(CONFIG, acceptance=replace(CONFIG.acceptance, trust=trust))
    result = refine_mask(sees, white_on_black(whole), mask, config=config) >= 0.5
    assert iou(result, whole if filled else mask) > 0.999


@pytest.mark.parametrize(("trust", "filled"), [(None, True), (0.0, True), (0.5, True), (1.0, False)])
def test_a_task_says_how_far_its_mask_is_trusted(trust: float | None, filled: bool) -> None:
    whole = rectangle(256, 256, (70, 170), (70, 170))
    mask = whole & ~rectangle(256, 256, (100, 150), (100, 150))
    [result] = refine_masks(sees, [MaskTask(white_on_black(whole), mask, trust=trust)])
    assert iou(result.probability >= 0.5, whole if filled else mask) > 0.999


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
