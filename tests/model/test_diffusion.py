"""Laws of the diffusion: the published formulas, two samplers of the same marginals, thresholds that tiles share."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from segrefiner.model.diffusion import (
    NUM_TIMESTEPS,
    State,
    ancestral,
    confidence,
    forward_sample,
    keep_fine_schedule,
    monotone,
    pixel_thresholds,
    sample,
    spaced_timesteps,
    transition_to_fine,
)

QUICK = settings(max_examples=40)
KEEP = [0.8, 0.64, 0.48, 0.32, 0.16, 0.0, 1.0]  # keep[-1], the end, is 1
ALL = range(NUM_TIMESTEPS - 1, -1, -1)
SCHEDULES = st.sets(st.integers(0, 5), min_size=1).map(lambda chosen: sorted(chosen, reverse=True))


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed))


def bits(*shape: int, seed: int = 0) -> Tensor:
    return (uniform(*shape, seed=seed) < 0.5).float()


def fixed_network(logits: Tensor):
    """A network that always predicts this."""
    return lambda x, timesteps: logits.expand(len(x), -1, -1, -1)


def confident(fine: Tensor, logit: float = 40.0) -> Tensor:
    return (2 * fine - 1) * logit


def run(logits: Tensor, coarse: Tensor, timesteps, draw) -> list[State]:
    image = torch.zeros(len(coarse), 3, *coarse.shape[-2:])
    return list(sample(fixed_network(logits), image, coarse, timesteps, draw))


def test_the_schedule_is_the_published_one() -> None:
    np.testing.assert_allclose(keep_fine_schedule(), KEEP[:-1], atol=1e-7)
    assert keep_fine_schedule()[-1] == 0
    np.testing.assert_allclose(keep_fine_schedule(3), [0.8, 0.4, 0.0], atol=1e-7)


@pytest.mark.parametrize("steps", range(1, 7))
def test_spaced_timesteps_go_from_the_coarse_mask_to_the_end(steps: int) -> None:
    timesteps = spaced_timesteps(steps)
    assert len(timesteps) == steps and timesteps[0] == 5
    assert timesteps == sorted(set(timesteps), reverse=True)
    if steps > 1:
        assert timesteps[-1] == 0
        gaps = -np.diff(timesteps)
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("steps", [0, 7, -1])
def test_other_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps is {steps}: expected 1 to 6"):
        spaced_timesteps(steps)


def test_the_forward_marginal_is_the_schedule() -> None:
    timesteps = torch.arange(NUM_TIMESTEPS)
    draw = uniform(NUM_TIMESTEPS, 1, 128, 128)
    fine = torch.ones_like(draw)
    mixed = forward_sample(fine, 1 - fine, timesteps, draw)
    frequency = mixed.mean(dim=(1, 2, 3))
    for t in range(NUM_TIMESTEPS):
        error = math.sqrt(KEEP[t] * (1 - KEEP[t]) / 128**2)
        assert float(frequency[t]) == pytest.approx(KEEP[t], abs=4 * error + 1e-9)
    # The same draw at a larger t leaves fewer pixels fine, never other ones.
    same = forward_sample(fine, 1 - fine, timesteps, draw[:1].expand_as(draw))
    assert (same.diff(dim=0) <= 0).all()


def test_every_mixed_pixel_is_fine_or_coarse() -> None:
    fine, coarse = uniform(6, 1, 9, 7, seed=1), uniform(6, 1, 9, 7, seed=2)
    mixed = forward_sample(fine, coarse, torch.arange(6), uniform(6, 1, 9, 7, seed=3))
    assert ((mixed == fine) | (mixed == coarse)).all()
    assert torch.equal(mixed[5], coarse[5])


def test_the_last_timestep_is_the_coarse_mask_whatever_is_drawn() -> None:
    fine, coarse = bits(2, 1, 8, 8, seed=1), bits(2, 1, 8, 8, seed=2)
    for draw in (torch.zeros(2, 1, 8, 8), uniform(2, 1, 8, 8)):
        assert torch.equal(forward_sample(fine, coarse, torch.tensor([5, 5]), draw), coarse)


@QUICK
@given(st.lists(st.floats(-30, 30), min_size=1, max_size=20))
def test_confidence_is_how_far_a_probability_is_from_even(logits: list[float]) -> None:
    probability = torch.tensor(logits, dtype=torch.float64).sigmoid()
    np.testing.assert_allclose(confidence(probability), np.tanh(np.abs(logits) / 2), atol=1e-12)


@pytest.mark.parametrize("t", range(NUM_TIMESTEPS))
def test_the_transition_between_neighbours_is_the_published_one(t: int) -> None:
    p = torch.linspace(0, 1, 101)
    published = p * (KEEP[t - 1] - KEEP[t]) / (1 - p * KEEP[t])
    ours = transition_to_fine(p, t, t - 1)
    np.testing.assert_allclose(ours, published, atol=1e-6)
    assert ours[0] == 0 and (ours.diff() > 0).all() and ours[-1] <= 1


@pytest.mark.parametrize(("t", "s", "r"), [(t, s, r) for t in range(6) for s in range(-1, t) for r in range(-1, s)])
def test_transitions_compose_where_the_network_is_sure(t: int, s: int, r: int) -> None:
    one = torch.ones(())
    stays = (1 - transition_to_fine(one, t, s)) * (1 - transition_to_fine(one, s, r))
    assert float(1 - transition_to_fine(one, t, r)) == pytest.approx(float(stays), abs=1e-6)
    # Bayes: the pixels that are fine at s are those that were fine at t and those that came since.
    assert KEEP[t] + (1 - KEEP[t]) * float(transition_to_fine(one, t, s)) == pytest.approx(KEEP[s], abs=1e-6)


@QUICK
@given(timesteps=SCHEDULES, seed=st.integers(0, 1000), scale=st.sampled_from([0.1, 1.0, 10.0, 1000.0]))
def test_fine_prob_is_a_probability_that_never_falls(timesteps: list[int], seed: int, scale: float) -> None:
    logits = scale * torch.randn(2, 1, 6, 6, generator=seeded(seed))
    coarse = bits(2, 1, 6, 6, seed=seed)
    states = run(logits, coarse, timesteps, ancestral(coarse.shape, seeded(seed)))
    before = torch.zeros_like(coarse)
    for state, timestep in zip(states, timesteps, strict=True):
        assert state.timestep == timestep
        assert (state.fine_prob >= before).all() and (state.fine_prob <= 1).all()
        before = state.fine_prob


def test_fine_prob_of_a_sure_network_is_the_schedule() -> None:
    coarse = bits(1, 1, 4, 4)
    for timesteps in (ALL, (5, 3, 0), (5, 4, 3, 2, 1)):
        states = run(confident(1 - coarse), coarse, timesteps, monotone(uniform(1, 1, 4, 4)))
        after = [*timesteps[1:], timesteps[-1] - 1]
        for state, s in zip(states, after, strict=True):
            np.testing.assert_allclose(state.fine_prob, KEEP[s], atol=1e-6)


def test_an_unsure_network_moves_no_pixel() -> None:
    coarse = bits(1, 1, 8, 8)
    for state in run(torch.zeros(1, 1, 8, 8), coarse, ALL, lambda: torch.zeros(1, 1, 8, 8)):
        assert not state.fine_prob.any()
        assert state.timestep == 0 or torch.equal(state.mixed, coarse)


@QUICK
@given(timesteps=SCHEDULES, seed=st.integers(0, 1000))
def test_the_result_is_the_last_sigmoid(timesteps: list[int], seed: int) -> None:
    coarse = bits(1, 1, 5, 5, seed=seed)
    answers: list[Tensor] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        answers.append(torch.randn(len(x), 1, 5, 5, generator=seeded(seed + int(t[0]))))
        return answers[-1]

    *_, last = sample(network, torch.zeros(1, 3, 5, 5), coarse, timesteps, lambda: uniform(1, 1, 5, 5))
    assert torch.equal(last.probability, answers[-1].sigmoid())
    assert torch.equal(last.mixed, (last.probability >= 0.5).float())


@QUICK
@given(timesteps=SCHEDULES)
def test_one_draw_and_one_evaluation_per_step_in_order(timesteps: list[int]) -> None:
    seen: list[tuple[str, int]] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        assert t.dtype == torch.int64 and t.shape == (2,) and (t == t[0]).all()
        assert x.shape == (2, 4, 3, 3)
        seen.append(("network", int(t[0])))
        return torch.ones(2, 1, 3, 3)

    def draw() -> Tensor:
        seen.append(("draw", seen[-1][1]))
        return torch.full((2, 1, 3, 3), 0.5)

    list(sample(network, torch.zeros(2, 3, 3, 3), torch.zeros(2, 1, 3, 3), timesteps, draw))
    expected = [(what, t) for t in timesteps for what in ("network", "draw")][:-1]
    assert seen == expected


def test_each_step_sees_the_photo_and_the_mask_of_the_step_before() -> None:
    image, coarse = torch.randn(1, 3, 6, 6, generator=seeded(1)), bits(1, 1, 6, 6, seed=2)
    logits = torch.randn(1, 1, 6, 6, generator=seeded(3)) * 4
    shown: list[Tensor] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        assert torch.equal(x[:, :3], image)
        shown.append(x[:, 3:])
        return logits

    states = list(sample(network, image, coarse, ALL, ancestral(coarse.shape, seeded(4))))
    assert torch.equal(shown[0], coarse)
    for before, mixed in zip(states, shown[1:], strict=False):
        assert torch.equal(before.mixed, mixed)
    # A mixed pixel is fine as predicted, or as in the coarse mask, and never anything else.
    fine = (logits >= 0).float()
    assert all(bool(((s.mixed == fine) | (s.mixed == coarse)).all()) for s in states)


@QUICK
@given(seed=st.integers(0, 10_000), timesteps=SCHEDULES)
def test_a_pixel_that_is_fine_never_goes_back_under_the_monotone_sampler(seed: int, timesteps: list[int]) -> None:
    coarse = bits(1, 1, 16, 16, seed=seed)
    logits = confident(1 - coarse, 1.0) * uniform(1, 1, 16, 16, seed=seed + 1) * 6
    states = run(logits, coarse, timesteps, monotone(pixel_thresholds(3, -5, 16, 16, seed)[None, None]))
    moved = torch.zeros_like(coarse, dtype=torch.bool)
    for state in states:
        assert (state.mixed != coarse)[moved].all()
        moved |= state.mixed != coarse


def test_both_samplers_have_the_same_marginals_at_every_timestep() -> None:
    logits = torch.tensor([-6.0, -2.0, -0.5, 0.3, 1.0, 2.5, 5.0, 40.0]).repeat(8, 1)[None, None]
    coarse = (logits < 0).float()  # every pixel that moves shows
    draws = 1600
    thresholds = torch.stack([pixel_thresholds(0, 0, 8, 8, seed) for seed in range(draws)])[:, None]
    runs = {
        "monotone": run(logits, coarse.expand(draws, -1, -1, -1), ALL, monotone(thresholds)),
        "ancestral": run(logits, coarse.expand(draws, -1, -1, -1), ALL, ancestral((draws, 1, 8, 8), seeded(0))),
    }
    for ours, published in zip(runs["monotone"][:-1], runs["ancestral"][:-1], strict=True):
        expected = ours.fine_prob[0]
        assert torch.equal(expected, published.fine_prob[0])
        often = (ours.mixed != coarse).float().mean(dim=0)
        # Seeds fill the unit interval evenly, so that the frequency errs by a few draws, not by their square root.
        np.testing.assert_allclose(often, expected, atol=8 / draws)
        often = (published.mixed != coarse).float().mean(dim=0)
        np.testing.assert_allclose(often, expected, atol=4 * 0.5 / math.sqrt(draws))
        np.testing.assert_allclose(often.mean(), expected.mean(), atol=4 * 0.5 / math.sqrt(draws * 64))


def test_the_ancestral_sampler_draws_what_its_generator_gives() -> None:
    first, again = (ancestral((2, 1, 5, 7), seeded(3)) for _ in range(2))
    generator = seeded(3)
    for _ in range(3):
        expected = torch.rand(2, 1, 5, 7, generator=generator)
        assert torch.equal(first(), expected) and torch.equal(again(), expected)
    assert not torch.equal(first(), first())


def test_no_sampler_touches_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    coarse = bits(1, 1, 8, 8)
    for draw in (ancestral(coarse.shape, seeded(0)), monotone(pixel_thresholds(0, 0, 8, 8, 7)[None, None])):
        run(torch.ones(1, 1, 8, 8), coarse, ALL, draw)
    assert torch.equal(torch.random.get_rng_state(), before)


@QUICK
@given(
    seed=st.integers(0, 2**40),
    corner=st.tuples(st.integers(-300, 100_000), st.integers(-300, 100_000)),
    shift=st.tuples(st.integers(-15, 15), st.integers(-15, 15)),
)
def test_overlapping_tiles_have_the_same_thresholds(seed: int, corner: tuple[int, int], shift: tuple[int, int]) -> None:
    (x, y), (dx, dy) = corner, shift
    here, there = pixel_thresholds(x, y, 20, 16, seed), pixel_thresholds(x + dx, y + dy, 20, 16, seed)
    assert here.shape == (16, 20) and here.dtype == torch.float32
    assert (here >= 0).all() and (here < 1).all()
    shared = here[max(0, dy) : 16 + min(0, dy), max(0, dx) : 20 + min(0, dx)]
    same = there[max(0, -dy) : 16 + min(0, -dy), max(0, -dx) : 20 + min(0, -dx)]
    assert torch.equal(shared, same)


def discrepancy(values: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance from the uniform distribution on [0, 1]."""
    ordered = np.sort(values.ravel())
    ranks = np.arange(len(ordered))
    return float(max((ordered - ranks / len(ordered)).max(), ((ranks + 1) / len(ordered) - ordered).max()))


@pytest.mark.parametrize("side", [4, 8, 16, 32])
def test_thresholds_fill_every_window_more_evenly_than_noise(side: int) -> None:
    random = np.random.default_rng(0)
    ours, noise = [], []
    for seed in range(40):
        x, y = (int(v) for v in random.integers(0, 10_000, 2))
        ours.append(discrepancy(pixel_thresholds(x, y, side, side, seed).numpy()))
        noise.append(discrepancy(random.random((side, side))))
    assert np.max(ours) < np.mean(noise)
    assert np.mean(ours) < 0.6 * np.mean(noise)


def test_thresholds_of_a_pixel_are_uniform_over_seeds() -> None:
    for x, y in [(0, 0), (17, 4), (1023, 767), (-3, 99)]:
        values = np.array([float(pixel_thresholds(x, y, 1, 1, seed)) for seed in range(300)])
        assert discrepancy(values) < 0.02  # 0.05 for noise
        # Neighbouring seeds are unlike each other.
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.5
