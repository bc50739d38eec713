"""Laws of dry runs: the plan is the recipe's, and what does not fit is said."""

from dataclasses import replace

import torch

from helpers.discs import Discs
from helpers.tiny import TINY
from segrefiner.training.batches import streamed_batches
from segrefiner.training.estimate import Estimate, Measured, measure
from segrefiner.training.recipes import LR
from segrefiner.training.trainer import Trainer

RECIPE = replace(
    LR, model=TINY, large_size=32, small_size=16, large_batch=4, small_batch=6, samples=480, large_share=0.5
)
GIB = 2**30


def test_both_sizes_are_measured() -> None:
    cpu = torch.device("cpu")
    feed = streamed_batches(Discs(), RECIPE, cpu, workers=0)
    found = list(measure(Trainer(feed, RECIPE, cpu), feed))
    assert [(m.size, m.steps, m.crops) for m in found] == [(16, 40, 6), (32, 60, 4)]
    assert all(m.seconds > 0 and m.memory > 0 and m.memory_per_crop >= 0 and m.fitting == m.crops for m in found)


def test_the_plan_counts_time_and_names_what_fits() -> None:
    tight = Measured(size=256, steps=100, crops=8, seconds=36.0, memory=2 * GIB, memory_per_crop=10**15)
    lines = Estimate(RECIPE, 10, 118_600_000, (tight,), 2).lines()
    text = "\n".join(lines)
    assert "10 photos, 480 crops (48.0 of each photo)" in lines[0] and "2 processes" in lines[0]
    assert "100 steps of 8 crops at 256x256" in text and "36.00 s each" in text
    assert "--micro-batch 1" in text and lines[-1] == "about 1.0 hours in all"
    none = replace(tight, memory=10**15)
    assert none.fitting == 0 and "does not fit" in Estimate(RECIPE, 10, 1, (none,)).lines()[2]
