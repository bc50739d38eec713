"""Law: a mask's result is the same to the bit whatever else is refined with it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segrefiner import Refiner, Result
from segrefiner.imaging.reading import read_image, read_mask
from segrefiner.refinement.video import refine_video

PHOTOS = Path(__file__).parents[1] / "data" / "parity"

Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module", params=["auto", "fp32"])
def refiner(request: pytest.FixtureRequest) -> Refiner:
    return Refiner.from_pretrained(dtype=request.param)


@pytest.fixture(params=[2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def crop(name: str, top: int, left: int, height: int, width: int) -> Pair:
    box = slice(top, top + height), slice(left, left + width)
    return read_image(PHOTOS / f"{name}.jpg")[box], read_mask(PHOTOS / f"{name}_coarse.png")[box]


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """An object with many tiles and a small one, two in one mask, and a mask without any."""
    car, small = crop("car208_0007", 150, 300, 240, 320), crop("CCP_0016", 260, 160, 90, 70)
    specks = np.zeros((240, 320), bool)
    specks[20:50, 20:60] = specks[190:210, 250:300] = True
    return [car, small, (car[0], specks), (car[0], np.zeros_like(specks))]


def assert_same(results: Sequence[Result], expected: Sequence[Result]) -> None:
    for got, alone in zip(results, expected, strict=True):
        np.testing.assert_array_equal(got.probability, alone.probability)
        assert replace(got.report, seconds=0) == replace(alone.report, seconds=0)


@pytest.mark.slow
def test_masks_together_give_what_each_gives_alone(refiner: Refiner, pairs: list[Pair], threads: int) -> None:
    alone = [refiner(*pair) for pair in pairs]
    assert max(result.report.evaluations for result in alone) > 4
    for order in ([0, 1, 2, 3], [2, 1, 1, 0]):
        assert_same(list(refiner.many(pairs[i] for i in order)), [alone[i] for i in order])


def test_masks_of_one_photo_and_frames_too(refiner: Refiner, pairs: list[Pair]) -> None:
    photo, mask = pairs[1]
    masks = [mask, np.roll(mask, 3, axis=0)]
    alone = [refiner(photo, one, steps=2, seed=7) for one in masks]
    assert_same(list(refiner.instances(photo, masks, steps=2, seed=7)), alone)
    frames = ((str(i), photo, one) for i, one in enumerate(masks))
    assert_same([result for _, result in refine_video(refiner, frames, steps=2, seed=7)], alone)
