"""Laws of what is kept of a refinement: right masks stay, sure changes pass, users can ask for more restraint."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

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
    KeptReason,
    Reverted,
    limit_changes,
    predicted_gain,
    revert_unsupported,
)
from segrefiner.refinement.pipelines.acceptance_model import AcceptanceModel, bundled
from segrefiner.refinement.pipelines.changes import FEATURES
from segrefiner.refinement.pipelines.config import AcceptanceConfig
from segrefiner.refinement.report import make_report

QUICK = settings(max_examples=40)
CONFIG = AcceptanceConfig()
IMPRECISION = 0.0035
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


PHOTO = torch.full((3, SIDE, SIDE), 128, dtype=torch.uint8)


def equally_sure(right: float) -> AcceptanceModel:
    """A model that gives every change the same probability."""
    count = len(FEATURES)
    logit = torch.logit(torch.tensor([right], dtype=torch.float32))
    return AcceptanceModel(torch.zeros(count), torch.ones(count), ((torch.zeros(1, count), logit),))


def sure_of(feature: str) -> AcceptanceModel:
    """A model that calls changes right where a feature is above one half."""
    count = len(FEATURES)
    weight = torch.zeros(1, count)
    weight[0, FEATURES.index(feature)] = 20
    return AcceptanceModel(torch.full((count,), 0.5), torch.ones(count), ((weight, torch.zeros(1)),))


def settled(
    probability: Tensor, coarse: Tensor, config: AcceptanceConfig = CONFIG, model: AcceptanceModel | None = None
) -> tuple[Tensor, Reverted]:
    result = probability.clone()
    held = revert_unsupported(PHOTO, result, coarse, EVERYWHERE, config, model=model)
    return result >= 0.5, held


def random_case(seed: int) -> tuple[Tensor, Tensor]:
    """Some probability and some coarse mask, blobs both, `(40, 50)`."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(2, 40, 50))
    for axis in (1, 2):
        noise = sum(np.roll(noise, k, axis) for k in range(-3, 4)) / 7**0.5
    probability = torch.from_numpy(1 / (1 + np.exp(-3 * noise[0]))).float()
    return probability, torch.from_numpy(noise[0] + noise[1] > 0.3)


# What the pipeline takes back by itself.


@pytest.mark.parametrize(("right", "changes"), [(0.49, False), (0.51, True)])
def test_a_change_is_kept_where_it_is_as_likely_right_as_the_trust_asks(right: float, changes: bool) -> None:
    coarse, truth = disc(30), disc(40)
    result, held = settled(probabilities(truth, 0.8), coarse, replace(CONFIG, least_gain=-1.0), equally_sure(right))
    assert torch.equal(result, truth if changes else coarse)
    assert held == Reverted(0 if changes else int((truth ^ coarse).sum()), None)


def test_each_change_is_judged_for_itself() -> None:
    coarse, refined = disc(30, 55), disc(30, 65)
    result, held = settled(probabilities(refined, 0.8), coarse, model=sure_of("added"))
    assert torch.equal(result, coarse | refined)
    assert held == Reverted(int((coarse & ~refined).sum()), None)


@QUICK
@given(st.integers(0, 10_000))
def test_the_more_a_mask_is_trusted_the_less_of_it_changes(seed: int) -> None:
    probability, coarse = random_case(seed)
    results = []
    for trust in (0.0, 0.3, 0.5, 0.8, 1.0):
        result = probability.clone()
        config = AcceptanceConfig(keep_iou=0.0, trust=trust, least_gain=-1.0)
        revert_unsupported(PHOTO[:, :40, :50], result, coarse, torch.ones_like(coarse), config)
        results.append((result >= 0.5) ^ coarse)
    assert torch.equal(results[0], (probability >= 0.5) ^ coarse) and not results[-1].any()
    assert all(not (more & ~less).any() for less, more in pairwise(results))


def test_an_object_that_has_next_to_nothing_to_gain_stays_in_each_pixel() -> None:
    coarse = disc(40)
    for pixels in (1, 10, 30, 70):
        probability = probabilities(coarse, 1.0)
        probability[60, 60 - pixels // 2 : 60 - pixels // 2 + pixels] = 0.0
        result, held = settled(probability, coarse, model=equally_sure(0.9))
        stays = 0.8 * pixels <= CONFIG.least_gain * int(coarse.sum())
        assert torch.equal(result, coarse) is stays is (held.whole is KeptReason.NO_GAIN)


def test_a_mask_that_nothing_would_change_stays_for_that_reason() -> None:
    coarse = disc(40)
    assert settled(probabilities(coarse, 0.9), coarse)[1] == Reverted(0, KeptReason.NO_GAIN)


def test_what_has_nothing_in_common_stays() -> None:
    coarse = disc(15, 30, 30)
    result, held = settled(probabilities(disc(20, 80, 80), 1.0), coarse)
    assert torch.equal(result, coarse) and held.whole is KeptReason.DISAGREEMENT


@QUICK
@given(st.integers(0, 10_000))
def test_each_pixel_ends_as_proposed_or_as_it_was_and_nothing_happens_elsewhere(seed: int) -> None:
    proposed, coarse = random_case(seed)
    here = torch.zeros_like(coarse)
    here[5:35, 8:41] = True
    result = proposed.clone()
    held = revert_unsupported(PHOTO[:, :40, :50], result, coarse, here, CONFIG)
    assert torch.equal(result[~here], proposed[~here])
    taken_back = here & ((result >= 0.5) != (proposed >= 0.5))
    assert torch.equal((result >= 0.5)[taken_back], coarse[taken_back])
    assert held.whole is not None or held.pixels == int(taken_back.sum())
    assert float(result.min()) >= 0 and float(result.max()) <= 1


def test_a_model_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    model, features = bundled(), torch.randn(50, len(FEATURES), generator=torch.Generator().manual_seed(0))
    model.save(tmp_path / "model.safetensors")
    assert torch.equal(AcceptanceModel.load(tmp_path / "model.safetensors")(features), model(features))


# Distances of contours.


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
    assert contour_offset(refined >= 0.5, coarse, IMPRECISION) == pytest.approx(
        offset_by_definition(refined >= 0.5, coarse)
    )


def test_the_offset_grows_with_the_distance_and_forgets_what_is_missing() -> None:
    truth = disc(60)
    offsets = [contour_offset(truth, disc(60 - off), 0.0) for off in range(5)]
    assert offsets[0] == 0.5 and all(b - a > 0.7 for a, b in pairwise(offsets))
    assert contour_offset(truth, truth & ~disc(20, 60), 0.0) == pytest.approx(0.5, abs=0.15)
    for other in (torch.zeros_like(truth), ~torch.zeros_like(truth), disc(30)):
        assert contour_offset(other, truth, 0.0) == math.inf


# Expected gain.


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
