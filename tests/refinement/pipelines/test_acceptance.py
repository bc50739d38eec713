"""Laws of what is kept of a refinement: right masks stay, sure changes pass, users can ask for more restraint."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor

from segrefiner.imaging.ops import nonzero_pixels
from segrefiner.imaging.shapes.distances import OFFSET_REACH, contour_distance, contour_offset, largest_distance
from segrefiner.refinement.pipelines.acceptance import (
    Evidence,
    KeptReason,
    Reverted,
    agreement_around,
    limit_changes,
    predicted_gain,
    revert_unsupported,
)
from segrefiner.refinement.pipelines.config import AcceptanceConfig
from segrefiner.refinement.report import make_report

QUICK = settings(max_examples=40)
CONFIG = AcceptanceConfig()
SIDE = 120
EVERYWHERE = torch.ones(SIDE, SIDE, dtype=torch.bool)


def disc(radius: float, y: float = 60, x: float = 60, side: int = SIDE) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def probabilities(mask: Tensor, confidence: float) -> Tensor:
    """The probability of a network that is everywhere so sure of this mask."""
    return torch.where(mask, 0.5 + confidence / 2, 0.5 - confidence / 2)


def iou(a: Tensor, b: Tensor) -> float:
    return int((a & b).sum()) / int((a | b).sum())


def settled(probability: Tensor, coarse: Tensor, config: AcceptanceConfig = CONFIG) -> tuple[Tensor, Reverted]:
    result = probability.clone()
    held = revert_unsupported(result, coarse, EVERYWHERE, config)
    return result >= 0.5, held


def everywhere(around: Callable[[Tensor, Tensor], Tensor], mask: Tensor) -> Tensor:
    return around(torch.arange(mask.shape[0])[:, None], torch.arange(mask.shape[1]))


def random_case(seed: int) -> tuple[Tensor, Tensor]:
    """Some probability and some coarse mask, blobs both, `(40, 50)`."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(2, 40, 50))
    for axis in (1, 2):
        noise = sum(np.roll(noise, k, axis) for k in range(-3, 4)) / 7**0.5
    probability = torch.from_numpy(1 / (1 + np.exp(-3 * noise[0]))).float()
    return probability, torch.from_numpy(noise[0] + noise[1] > 0.3)


def large(radius: float, x: float = 150) -> Tensor:
    return disc(radius, 150, x, 320)


def one_pixel_too_large(piece: str, config: AcceptanceConfig) -> tuple[Tensor, Tensor, Reverted]:
    """A disc that lacks a piece or has a false one; the network is sure of that and, less so, of one pixel all around.

    Gives the coarse mask, what is kept, and what was held back.
    """
    truth, wrong = large(110), large(45, 260)
    coarse = truth & ~wrong if piece == "missing" else truth | wrong
    probability = torch.where(large(111) & ~truth, 0.7, probabilities(truth, 0.99))
    result = probability.clone()
    held = revert_unsupported(result, coarse, torch.ones_like(coarse), config)
    return coarse, result >= 0.5, held


# What the pipeline takes back by itself.


@pytest.mark.parametrize("piece", ["missing", "false"])
def test_right_parts_stay_while_wrong_ones_change(piece: str) -> None:
    config = replace(CONFIG, good_iou=(0.93, 0.98))
    coarse, result, held = one_pixel_too_large(piece, config)
    truth, away = large(110), ~large(95, 260)
    assert iou(coarse, truth) < config.good_iou[0]
    assert torch.equal(result & away, truth & away)
    assert torch.equal((result ^ truth) & large(25, 260), (large(111) ^ truth) & large(25, 260))
    assert held.whole is None and held.pixels > 0


def test_the_whole_object_s_agreement_alone_would_not_have_kept_them() -> None:
    _, result, _ = one_pixel_too_large("missing", replace(CONFIG, good_iou=(0.93, 0.98), good_around=(2.0, 3.0)))
    assert not torch.equal(result & ~large(95, 260), large(110) & ~large(95, 260))


@pytest.mark.parametrize(("confidence", "changes"), [(0.9, False), (0.99, True)])
def test_a_good_mask_changes_only_where_the_network_is_sure(confidence: float, changes: bool) -> None:
    truth, coarse = disc(40.5), disc(40)
    config = replace(CONFIG, good_iou=(0.9, 0.97), confidence=(0.95, 0.95))
    assert iou(truth, coarse) > config.good_iou[1]
    probability = torch.where(truth & ~coarse, 0.5 + confidence / 2, probabilities(truth, 1.0))
    result, held = settled(probability, coarse, config)
    assert torch.equal(result, truth if changes else coarse)
    assert (held == Reverted(0, None)) is changes


@pytest.mark.parametrize("edges", [0.0, 1.0])
@pytest.mark.parametrize(("least", "whole"), [(-1.0, None), (0.0, KeptReason.NO_GAIN), (0.01, KeptReason.NO_GAIN)])
def test_only_below_a_least_gain_of_zero_a_loss_may_pass(edges: float, least: float, whole: KeptReason | None) -> None:
    # Probabilities just below one half, all of which are dropped: less than the coarse mask may expect.
    coarse = disc(20)
    result = torch.where(coarse, 0.48, 0.1)
    free = replace(CONFIG, keep_iou=0.0, confidence=(0.0, 0.0), least_gain=least)
    assert revert_unsupported(result, coarse, EVERYWHERE, free, Evidence(edges, 10 * edges)) == Reverted(0, whole)
    assert bool((result >= 0.5).any()) is (whole is not None)


@pytest.mark.parametrize("gain", [0.0, CONFIG.edges[0], CONFIG.edges[1]])
@pytest.mark.parametrize("offset", [0.5, CONFIG.offset[0], CONFIG.offset[1]])
def test_a_good_mask_changes_where_edges_and_offset_speak_for_it(gain: float, offset: float) -> None:
    truth, coarse = disc(40.5), disc(40)
    result = probabilities(truth, 0.5)
    revert_unsupported(result, coarse, EVERYWHERE, CONFIG, Evidence(gain, offset))
    both = gain >= CONFIG.edges[1] and offset >= CONFIG.offset[1]
    assert torch.equal(result >= 0.5, truth if both else coarse)


@pytest.mark.parametrize("radius", [4, 6, 10, 15])
def test_a_small_mask_within_a_pixel_of_the_refined_one_is_good_and_one_beyond_is_not(radius: int) -> None:
    coarse = disc(radius)
    near, far = disc(radius + 0.5), disc(1.8 * radius)
    assert radius == 15 or iou(near, coarse) < CONFIG.good_iou[1]
    config = replace(CONFIG, least_gain=-1.0)
    for refined, changes in ((near, False), (far, True)):
        result = probabilities(refined, 0.7)
        revert_unsupported(result, coarse, EVERYWHERE, config, Evidence(0.0, 0.5))
        assert torch.equal(result >= 0.5, refined if changes else coarse)


def test_an_offset_counts_as_less_in_a_larger_object() -> None:
    offsets = []
    for radius in (60, 200, 320):
        refined, coarse = (disc(r, 350, 350, 700) for r in (radius + 3, radius))
        offsets.append(contour_offset(refined, coarse, CONFIG.imprecision))
    assert offsets[0] > offsets[1] > offsets[2] > CONFIG.offset[1]
    # What is off by as large a share of either is as far off.
    for radius in (160, 320):
        refined, coarse = (disc(r, 350, 350, 700) for r in (1.02 * radius, radius))
        offsets.append(contour_offset(refined, coarse, CONFIG.imprecision))
    assert offsets[3] == pytest.approx(offsets[4], rel=0.15)


@QUICK
@given(st.integers(0, 10_000), *[st.tuples(st.floats(-1, 1), st.floats(0, 2))] * 2)
def test_the_more_edges_and_offset_speak_for_it_the_more_changes(
    seed: int, one: tuple[float, float], other: tuple[float, float]
) -> None:
    proposed, coarse = random_case(seed)
    changed = []
    for gain, offset in zip(*map(sorted, zip(one, other, strict=True)), strict=True):
        result = proposed.clone()
        config = replace(CONFIG, least_gain=-1.0)
        revert_unsupported(result, coarse, torch.ones_like(coarse), config, Evidence(gain, offset))
        changed.append((result >= 0.5) != coarse)
    assert not (changed[0] & ~changed[1]).any()


def offset_by_definition(refined: Tensor, coarse: Tensor) -> float:
    """By SciPy's distance transform."""
    inner, given = refined.numpy(), coarse.numpy()
    rim = given & ~binary_erosion(given, border_value=1)
    both = [distance_transform_edt(state) for state in (inner, ~inner)]
    distances = np.where(inner, *both)[rim] - 0.5
    near = distances[distances <= OFFSET_REACH]
    return float(near.mean()) if len(near) else math.inf


@pytest.mark.parametrize("seed", range(6))
def test_the_offset_is_that_of_its_definition(seed: int) -> None:
    refined, coarse = random_case(seed)
    assert contour_offset(refined >= 0.5, coarse, CONFIG.imprecision) == pytest.approx(
        offset_by_definition(refined >= 0.5, coarse)
    )


def test_the_offset_grows_with_the_distance_and_forgets_what_is_missing() -> None:
    truth = disc(60)
    offsets = [contour_offset(truth, disc(60 - off), 0.0) for off in range(5)]
    assert offsets[0] == 0.5 and all(b - a > 0.7 for a, b in pairwise(offsets))
    assert contour_offset(truth, truth & ~disc(20, 60), 0.0) == pytest.approx(0.5, abs=0.15)
    for other in (torch.zeros_like(truth), ~torch.zeros_like(truth), disc(30)):
        assert contour_offset(other, truth, 0.0) == math.inf


def test_a_bad_mask_changes_wherever_the_network_says_so() -> None:
    truth = disc(40)
    result, held = settled(probabilities(truth, 0.2), disc(28))
    assert torch.equal(result, truth) and held == Reverted(0, None)


def test_what_has_nothing_in_common_stays() -> None:
    coarse = disc(15, 30, 30)
    result, held = settled(probabilities(disc(20, 80, 80), 1.0), coarse)
    assert torch.equal(result, coarse) and held.whole is KeptReason.DISAGREEMENT


def test_what_has_next_to_nothing_to_gain_stays_in_each_pixel() -> None:
    coarse = disc(40)
    for pixels in (1, 10, 20, 60):
        probability = probabilities(coarse, 1.0)
        probability[60, 60 - pixels // 2 : 60 - pixels // 2 + pixels] = 0.0
        result, held = settled(probability, coarse)
        changed = int((result != coarse).sum())
        assert (changed == 0) is (held.whole is KeptReason.NO_GAIN)
        loses = pixels / int(coarse.sum())
        assert (changed == 0) is (loses < CONFIG.least_gain)
    assert settled(probability, coarse, replace(CONFIG, least_gain=1.0))[1].whole is KeptReason.NO_GAIN


@QUICK
@given(st.integers(0, 10_000))
def test_each_pixel_ends_as_proposed_or_as_it_was_and_nothing_happens_elsewhere(seed: int) -> None:
    proposed, coarse = random_case(seed)
    here = torch.zeros_like(coarse)
    here[5:35, 8:41] = True
    result = proposed.clone()
    held = revert_unsupported(result, coarse, here, CONFIG)
    assert torch.equal(result[~here], proposed[~here])
    taken_back = here & ((result >= 0.5) != (proposed >= 0.5))
    assert torch.equal((result >= 0.5)[taken_back], coarse[taken_back])
    assert held.whole is not None or held.pixels == int(taken_back.sum())
    assert float(result.min()) >= 0 and float(result.max()) <= 1


@QUICK
@given(st.integers(0, 10_000))
def test_settling_twice_is_settling_once(seed: int) -> None:
    """What came out has nothing left to take back, so refined masks do not creep back when they are settled again."""
    proposed, coarse = random_case(seed)
    here = torch.ones_like(coarse)
    once = proposed.clone()
    first = revert_unsupported(once, coarse, here, replace(CONFIG, least_gain=-1.0))
    if first.whole is None:
        again = once.clone()
        second = revert_unsupported(again, once >= 0.5, here, CONFIG)
        assert torch.equal(again >= 0.5, once >= 0.5) and second.pixels == 0


# Agreement and expected gain.


@QUICK
@given(st.integers(0, 10_000), st.integers(0, 60))
def test_agreement_is_a_share_and_whole_for_equal_masks(seed: int, side: int) -> None:
    probability, coarse = random_case(seed)
    around = everywhere(agreement_around(probability >= 0.5, coarse, torch.ones_like(coarse), side), coarse)
    assert around.shape == coarse.shape
    assert float(around.min()) >= 0 and float(around.max()) <= 1 + 1e-6
    assert (everywhere(agreement_around(coarse, coarse, torch.ones_like(coarse), side), coarse) > 1 - 1e-6).all()


@pytest.mark.parametrize("side", [16, 40])
def test_a_difference_lowers_the_agreement_around_it_alone(side: int) -> None:
    whole = torch.ones(SIDE, SIDE, dtype=torch.bool)
    hole = disc(4)
    around = everywhere(agreement_around(whole, whole & ~hole, whole, side), whole)
    far = distance_transform_edt(~hole.numpy()) > side
    assert (around[torch.from_numpy(far)] > 1 - 1e-6).all()
    expected = 1 - int(hole.sum()) / (9 * (side // 8)) ** 2
    assert around[60, 60] == pytest.approx(expected, abs=0.06)


def test_agreement_holds_in_cells_of_more_pixels_than_a_byte_counts() -> None:
    whole = torch.ones(300, 600, dtype=torch.bool)
    lower = torch.zeros_like(whole)
    lower[10:] = True
    around = everywhere(agreement_around(lower, whole, whole, 8 * 300), whole)
    assert around[150, 150] == pytest.approx(290 / 300)


@QUICK
@given(st.integers(0, 10_000))
def test_certain_probabilities_predict_the_gain_itself(seed: int) -> None:
    probability, coarse = random_case(seed)
    truth, mask = probability > 0.6, probability > 0.3
    changed, none = nonzero_pixels(mask ^ coarse), nonzero_pixels(torch.zeros_like(mask))
    assert predicted_gain(coarse, changed, truth.float()) == pytest.approx(
        iou(mask, truth) - iou(coarse, truth), abs=1e-6
    )
    back = predicted_gain(mask, changed, probability)
    assert predicted_gain(coarse, changed, probability) == pytest.approx(-back, abs=1e-6)
    assert predicted_gain(mask, none, probability) == 0


@QUICK
@given(st.integers(0, 10_000))
def test_what_is_not_asked_for_does_not_count_in_the_predicted_gain(seed: int) -> None:
    probability, coarse = random_case(seed)
    here = torch.zeros_like(coarse)
    here[5:30, 10:45] = True
    within = nonzero_pixels(((probability >= 0.5) ^ coarse) & here)
    alone = nonzero_pixels((probability[5:30, 10:45] >= 0.5) ^ coarse[5:30, 10:45])
    expected = predicted_gain(coarse[5:30, 10:45], alone, probability[5:30, 10:45])
    assert predicted_gain(coarse, within, probability, here) == pytest.approx(expected, abs=1e-6)


def test_the_predicted_gain_is_the_mean_gain_over_truths_that_are_drawn() -> None:
    probability, coarse = random_case(3)
    mask = probability >= 0.5
    truths = torch.rand(500, *mask.shape, generator=torch.Generator().manual_seed(0)) < probability
    gains = [iou(mask, truth) - iou(coarse, truth) for truth in truths]
    assert predicted_gain(coarse, nonzero_pixels(mask ^ coarse), probability) == pytest.approx(
        np.mean(gains), abs=0.005
    )


def test_of_nothing_nothing_is_expected() -> None:
    nothing = torch.zeros(5, 5, dtype=torch.bool)
    assert predicted_gain(nothing, nonzero_pixels(nothing), nothing.float()) == 0


# What users may ask for.

SHIFTS = st.one_of(st.none(), st.floats(0, 20))


@QUICK
@given(st.integers(0, 10_000), SHIFTS, SHIFTS, st.floats(0, 1), st.floats(0, 1))
def test_more_restraint_changes_a_part_of_what_less_changes(
    seed: int, shift: float | None, other: float | None, strength: float, more: float
) -> None:
    probability, coarse = random_case(seed)
    less_shift, more_shift = sorted((shift, other), key=lambda s: math.inf if s is None else s)
    less_strength, more_strength = sorted((strength, more))
    small, far, unsure = limit_changes(probability, coarse, max_shift=less_shift, strength=less_strength)
    large, _, _ = limit_changes(probability, coarse, max_shift=more_shift, strength=more_strength)
    small_changes, large_changes = ((p >= 0.5) != coarse for p in (small, large))
    assert not (small_changes & ~large_changes).any()
    assert far + unsure == int((((probability >= 0.5) != coarse) & ~small_changes).sum())


@QUICK
@given(st.integers(0, 10_000), st.floats(0, 12))
def test_no_pixel_changes_beyond_the_largest_shift_and_all_others_do(seed: int, shift: float) -> None:
    probability, coarse = random_case(seed)
    inside, outside = (distance_transform_edt(m) for m in (coarse.numpy(), ~coarse.numpy()))
    distance = torch.from_numpy(np.maximum(inside, outside))
    result, far, unsure = limit_changes(probability, coarse, max_shift=shift)
    wanted = (probability >= 0.5) != coarse
    assert torch.equal((result >= 0.5) != coarse, wanted & (distance <= shift))
    assert far == int((wanted & (distance > shift)).sum()) and unsure == 0


@QUICK
@given(st.integers(0, 10_000))
def test_the_ends_of_the_strength_are_no_change_and_no_restraint(seed: int) -> None:
    probability, coarse = random_case(seed)
    probability[3:9, 3:9] = 0.5  # no confidence at all, and 1: the full strength keeps both
    probability[20:25, 20:25] = 1.0
    nothing, _, _ = limit_changes(probability, coarse, strength=0)
    assert torch.equal(nothing >= 0.5, coarse)
    everything, far, unsure = limit_changes(probability, coarse)
    assert torch.equal(everything, probability) and far == unsure == 0


@QUICK
@given(st.integers(0, 10_000))
def test_distances_are_those_to_the_nearest_pixel_in_the_other_state(seed: int) -> None:
    probability, coarse = random_case(seed)
    where = probability >= 0.5
    expected = np.maximum(distance_transform_edt(coarse.numpy()), distance_transform_edt(~coarse.numpy()))
    torch.testing.assert_close(contour_distance(coarse, where).double(), torch.from_numpy(expected) * where)


# The report.


def test_the_report_says_what_was_held_back_and_why() -> None:
    coarse, truth = disc(30), disc(40)
    probability, far, unsure = limit_changes(probabilities(truth, 0.8), coarse, max_shift=4)
    held = [
        Reverted(7, None),
        Reverted(0, KeptReason.NO_GAIN),
        Reverted(0, KeptReason.NO_GAIN),
        Reverted(0, KeptReason.DISAGREEMENT),
    ]
    report = make_report(coarse, probability, held, far=far, unsure=unsure)
    assert report.too_far == far / SIDE**2 > 0
    assert report.unsure == 7 / SIDE**2
    assert report.kept_objects == {KeptReason.NO_GAIN.value: 2, KeptReason.DISAGREEMENT.value: 1}
    assert report.largest_shift <= 4
    changed = nonzero_pixels((probability >= 0.5) ^ coarse)
    assert report.predicted_gain == predicted_gain(coarse, changed, probability) > 0
    said = str(report)
    assert "too far away" in said and "unsure" in said
    assert "2 objects: next to nothing to gain" in said and "1 object: the refined" in said


def test_a_report_of_no_restraint_speaks_of_none() -> None:
    coarse = disc(30)
    assert "held back" not in str(
        make_report(coarse, probabilities(disc(33), 0.8), [Reverted(0, None)], far=0, unsure=0)
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_largest_distance_is_that_of_all_pixels(seed: int) -> None:
    probability, coarse = random_case(seed)
    where = probability >= 0.5
    assert largest_distance(coarse, nonzero_pixels(where)) == pytest.approx(
        float(contour_distance(coarse, where).max())
    )
    assert largest_distance(coarse, nonzero_pixels(torch.zeros_like(coarse))) == 0
