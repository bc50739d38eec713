"""The loss against independent arithmetic in float64, and the published value of the whole."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from segrefiner.training.losses import TEXTURE_WEIGHT, cross_entropy, sobel, texture_loss
from segrefiner.training.recipe import Recipe
from segrefiner.training.trainer import contour_weight

QUICK = settings(max_examples=25)
EXPECTED = Path(__file__).parents[1] / "data" / "parity" / "expected.json"


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def whole_loss(logits: Tensor, fine: Tensor, weight: Tensor | None = None) -> Tensor:
    return (cross_entropy(logits, fine, weight) + TEXTURE_WEIGHT * texture_loss(logits, fine)).mean()


def gradient(mask: np.ndarray) -> np.ndarray:
    """The gradient magnitude of one soft mask `(H, W)`, by scipy."""
    smooth = ndimage.uniform_filter(mask.astype(np.float64), 3, mode="constant")
    along = [ndimage.sobel(smooth, axis, mode="constant") / 4 for axis in (0, 1)]
    return np.sqrt(along[0] ** 2 + along[1] ** 2 + 1e-4)


@QUICK
@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 99), batch=st.integers(1, 3))
def test_sobel_agrees_with_scipy(height: int, width: int, seed: int, batch: int) -> None:
    mask = np.random.default_rng(seed).random((batch, 1, height, width))
    result = sobel(torch.from_numpy(mask))
    assert result.shape == mask.shape
    for ours, given_mask in zip(result[:, 0], mask[:, 0], strict=True):
        np.testing.assert_allclose(ours, gradient(given_mask), atol=1e-9)


@QUICK
@given(seed=st.integers(0, 99), weighted=st.booleans())
def test_the_terms_agree_with_their_formulas(seed: int, weighted: bool) -> None:
    logits, fine = normal(2, 1, 9, 7, seed=seed), normal(2, 1, 9, 7, seed=seed + 1) > 0
    weight = np.abs(normal(2, 1, 9, 7, seed=seed + 2)) if weighted else np.ones((2, 1, 9, 7))
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    entropy = -(weight * np.log(np.where(fine, probability, 1 - probability))).mean()
    pairs = zip(probability[:, 0], fine[:, 0], strict=True)
    texture = np.mean([np.abs(gradient(p) - gradient(f)).mean() for p, f in pairs])
    arguments = torch.from_numpy(logits), torch.from_numpy(fine).float()
    given_weight = torch.from_numpy(weight).float() if weighted else None
    assert float(cross_entropy(*arguments, given_weight).mean()) == pytest.approx(entropy, abs=1e-5)
    assert float(texture_loss(*arguments).mean()) == pytest.approx(texture, abs=1e-5)
    assert float(whole_loss(*arguments, given_weight)) == pytest.approx(entropy + 5 * texture, abs=1e-4)


def test_the_whole_loss_is_the_published_one() -> None:
    expected = json.loads(EXPECTED.read_text())["loss"]
    a, b = (np.random.default_rng(seed).standard_normal((2, 1, 96, 80)) for seed in expected["input_seeds"])
    logits, fine = torch.from_numpy(a.astype(np.float32)), torch.from_numpy(b > 0).float()
    published = expected["bce"] + expected["texture_weighted_5"]
    assert TEXTURE_WEIGHT == 5
    assert float(whole_loss(logits, fine)) == pytest.approx(published, abs=1e-5)


def disc(size: int = 24) -> Tensor:
    rows, columns = np.mgrid[:size, :size] - size / 2 + 0.5
    return torch.from_numpy(np.hypot(rows, columns) < size / 3)[None, None].float()


def test_a_right_answer_costs_nothing_and_every_wrong_pixel_something() -> None:
    fine = disc()
    right = (2 * fine - 1) * 40
    assert float(whole_loss(right, fine)) < 1e-6
    for y, x in [(0, 0), (12, 12), (12, 3)]:
        wrong = right.clone()
        wrong[0, 0, y, x] *= -1
        assert float(cross_entropy(wrong, fine)) > 0.01
        assert float(texture_loss(wrong, fine)) > 1e-4


def test_the_gradient_points_to_the_truth() -> None:
    fine = disc()
    logits = torch.zeros_like(fine, requires_grad=True)
    before = whole_loss(logits, fine)
    before.backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    with torch.no_grad():
        assert whole_loss(logits - 0.1 * logits.grad / logits.grad.norm(), fine) < before


def test_extreme_logits_give_finite_losses_and_gradients() -> None:
    fine = disc()
    for scale in (-1e4, 1e4):
        logits = (scale * (2 * fine - 1)).requires_grad_()
        loss = whole_loss(logits, fine)
        loss.backward()
        assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()


def test_the_contour_weighs_most() -> None:
    config = Recipe(contour_weight=2.0, contour_width=4.0)
    distance = torch.linspace(0, 64, 65)
    weight = contour_weight(distance, config)
    assert float(weight[0]) == 3 and float(weight[-1]) == pytest.approx(1)
    assert (weight.diff() <= 0).all() and (weight >= 1).all()
    assert torch.equal(weight, contour_weight(-distance, config))
    # At the given width the extra weight has fallen to 1/e.
    assert float(weight[4]) == pytest.approx(1 + 2 / np.e)
    assert (contour_weight(distance, Recipe(contour_weight=0.0)) == 1).all()
