"""Laws of recipes: the paper's numbers, rates, batches divided among processes, values by name."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segrefiner.data.crop_geometry import ViewConfig
from segrefiner.data.published_crops import PublishedViews
from segrefiner.errors import InputError
from segrefiner.model.unet import BASE, COMPACT
from segrefiner.training.overrides import differences, with_values
from segrefiner.training.recipe import CosineDecay, LinearDecay, Recipe, StepDecay
from segrefiner.training.recipes import HR, LR, RECIPES

QUICK = settings(max_examples=60)


def test_the_paper_s_recipes_have_the_paper_s_numbers() -> None:
    assert (LR.steps, HR.steps) == (120_000, 40_000)
    assert LR.model == HR.model == BASE and LR.lr == HR.lr == 4e-4 and LR.weight_decay == HR.weight_decay == 0
    assert LR.betas == (0.9, 0.999) and LR.large_size == 256 and LR.texture_weight == 5
    for recipe, halvings in ((LR, (80_000, 100_000)), (HR, (20_000, 35_000))):
        rates = [recipe.lr_at(step) for h in halvings for step in (h - 1, h)]
        assert rates == [4e-4, 2e-4, 2e-4, 1e-4] and recipe.lr_at(0) == 4e-4
        assert recipe.clip_norm is None and recipe.ema_decay == 0 and recipe.coarse.published == 1
    # Every photo gives an object view in both, and a patch in the second: eight photos a step in each.
    for recipe in (LR, HR):
        assert isinstance(recipe.views, PublishedViews) and recipe.large_batch == 8 * recipe.views.per_photo


def test_recipes_are_plain_json_and_each_is_another() -> None:
    texts = {json.dumps(recipe.to_dict(), sort_keys=True) for recipe in RECIPES.values()}
    assert len(texts) == len(RECIPES) and RECIPES["compact"] == Recipe()
    for name in ("compact", "compact-second", "compact-third", "finetune"):
        assert RECIPES[name].model == COMPACT and not RECIPES[name].streamed


@pytest.mark.parametrize("decay", [LinearDecay(0.5), CosineDecay(), CosineDecay(0.1), StepDecay()])
def test_rates_rise_and_then_never_rise_again(decay: LinearDecay | CosineDecay | StepDecay) -> None:
    recipe = Recipe(samples=1600, large_share=0.0, small_batch=4, lr=2.0, warmup_steps=20, decay=decay)
    rates = np.array([recipe.lr_at(step) for step in range(recipe.steps)])
    peak = int(rates.argmax())
    assert (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[peak:]) <= 0).all()
    assert rates.max() <= 2 and rates.min() > 0
    end = {LinearDecay: 0.0, CosineDecay: getattr(decay, "floor", 0), StepDecay: 0.25}[type(decay)]
    assert decay.factor(recipe.steps, recipe.steps) == pytest.approx(end, abs=1e-9)


@QUICK
@given(
    groups=st.integers(1, 4),
    group=st.integers(1, 4),
    world=st.sampled_from([1, 2, 3, 4]),
    step=st.integers(0, 30),
    share=st.floats(0, 1),
)
def test_processes_share_a_batch_without_gap_or_overlap(
    groups: int, group: int, world: int, step: int, share: float
) -> None:
    batch = groups * group * world
    recipe = Recipe(samples=batch * 31, large_share=0.5, small_batch=batch, large_batch=batch, group=group)
    whole = recipe.portion(step)
    parts = [recipe.portion(step, rank, world) for rank in range(world)]
    assert [n for p in parts for g in p.groups for n in g] == [n for g in whole.groups for n in g]
    assert [g for p in parts for g in p.groups] == list(whole.groups)
    assert {len(p) for p in parts} == {batch // world}
    # A share of the batch is the same samples, however it is divided.
    chosen = [i + p.offset for p in parts for i in p.share(share)]
    assert chosen == whole.share(share) and len(chosen) == int(share * batch + 1e-9)


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(InputError, match=r"batch of 8 .* groups of 4 .* 3 processes"):
        Recipe(large_share=1.0).portion(0, 0, 3)
    assert len(Recipe(large_share=1.0, large_batch=7).portion(0)) == 7


def test_larger_batches_take_fewer_steps_at_a_higher_rate() -> None:
    base = Recipe(samples=9600, large_share=0.5, warmup_steps=10)
    for power, rate in ((0.5, 2.0), (1.0, 4.0), (0.0, 1.0)):
        four = replace(base, batch_factor=4.0, lr_power=power)
        assert four.batches == (64, 32) and four.steps == base.steps / 4
        assert four.lr_at(four.steps // 2) == pytest.approx(rate * base.lr_at(base.steps // 2))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lr": "1e-5"}, {"lr": 1e-5}),
        ({"samples": "77", "seed": "3"}, {"samples": 77, "seed": 3}),
        ({"clip_norm": "none"}, {"clip_norm": None}),
        ({"clip_norm": "0.5"}, {"clip_norm": 0.5}),
        ({"betas": "0.8,0.99"}, {"betas": (0.8, 0.99)}),
        ({"precision": "fp32"}, {"precision": "fp32"}),
        ({"draws": "ECSSD:1.5, CCP:0.6"}, {"draws": ("ECSSD:1.5", "CCP:0.6")}),
        ({"model": "base"}, {"model": BASE}),
        ({"decay": "step"}, {"decay": StepDecay()}),
        (
            {"decay": "step", "decay.at": "0.1,0.2,0.3", "decay.gamma": "0.1"},
            {"decay": StepDecay((0.1, 0.2, 0.3), 0.1)},
        ),
        ({"views.zoom": "0.25, 4"}, {"views": ViewConfig(zoom=(0.25, 4.0))}),
        ({"views": "published", "views.patches": "true"}, {"views": PublishedViews(patches=True)}),
    ],
    ids=str,
)
def test_values_are_replaced_by_name(values: dict[str, str], expected: dict[str, object]) -> None:
    assert with_values(Recipe(), values) == replace(Recipe(), **expected)


def test_every_value_has_a_name() -> None:
    recipe = RECIPES["compact-third"]
    for entry in fields(recipe):
        value = getattr(recipe, entry.name)
        if isinstance(value, int | float | str | tuple):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            assert with_values(recipe, {entry.name: text}) == recipe


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rate": "1"}, ["'rate'", "lr"]),
        ({"lr": "fast"}, ["lr", "'fast'", "a number"]),
        ({"samples": "1.5"}, ["samples", "a whole number"]),
        ({"samples": "0"}, ["samples", "more than 0"]),
        ({"lr": "-1"}, ["lr", "0 or more"]),
        ({"lr": "nan"}, ["lr"]),
        ({"ema_decay": "1.5"}, ["ema_decay", "0 to 1"]),
        ({"betas": "0.9"}, ["betas", "2 numbers"]),
        ({"precision": "int8"}, ["precision", "bf16"]),
        ({"lr.x": "1"}, ["lr.x"]),
        ({"model.image_stages": "7"}, ["image_stages", "0 to 6"]),
        ({"views": "3"}, ["views", "packed", "published"]),
        ({"views.patches": "true"}, ["views.patches", "zoom"]),
        ({"views": "published", "views.patches": "yes"}, ["true or false"]),
    ],
    ids=str,
)
def test_values_that_make_no_recipe_are_refused(values: dict[str, str], said: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        with_values(Recipe(), values)
    for words in said:
        assert words in str(caught.value)


def test_differences_are_named_down_to_the_value() -> None:
    a, b = (
        json.loads(json.dumps(r.to_dict()))
        for r in (Recipe(), replace(Recipe(), lr=0.5, views=ViewConfig(thin=0.5), decay=CosineDecay()))
    )
    assert differences(a, a) == {}
    assert differences(a, b) == {
        "lr": (1e-3, 0.5),
        "views.thin": (0.0, 0.5),
        "decay.share": (0.325, None),
        "decay.floor": (None, 0.0),
    }
    assert math.isclose(sum(v[1] or 0 for v in differences(b, a).values()), 1e-3 + 0.325)
