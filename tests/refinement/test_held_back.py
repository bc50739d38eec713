"""What was held back, pixel by pixel: as many as the report counts, and where it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.tiny import TINY
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.held_back import HeldBack, held_back
from segrefiner.refinement.pipelines.acceptance import KeptReason
from segrefiner.refinement.refiner import Refiner
from segrefiner.refinement.report import Report

PHOTO = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
COARSE = np.zeros((90, 120), bool)
COARSE[20:70, 30:90] = True
REPORT = Report(0, 1, 0, 1, 0, 0, 0, {}, 0, 0, 1, "tiny", 0)


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DenoisingUNet(TINY)
    return Refiner(network, steps=1)


@pytest.mark.parametrize(
    "options", [{}, {"strength": 0.5}, {"strength": 0.0}, {"max_shift": 2.0}, {"max_shift": 1.0, "strength": 0.7}]
)
def test_as_many_pixels_as_the_report_counts(refiner: Refiner, options: dict[str, float]) -> None:
    result = refiner(PHOTO, COARSE, **options)
    planes = held_back(COARSE, result.probability, result.report, max_shift=options.get("max_shift"))
    counts = {why: int(plane.sum()) for why, plane in planes.items()}
    whole = sum(counts.get(why, 0) for why in HeldBack if why not in (HeldBack.UNSURE, HeldBack.TOO_FAR))
    assert counts.get(HeldBack.TOO_FAR, 0) == round(result.report.too_far * COARSE.size)
    if not whole:
        assert counts.get(HeldBack.UNSURE, 0) == round(result.report.unsure * COARSE.size)
    for plane in planes.values():
        assert not (plane & (result.mask != COARSE)).any(), "a pixel that changed was held back"
    assert sum(plane.astype(int) for plane in planes.values()).max() <= 1 if planes else True


def below_half() -> np.float32:
    return np.float32(np.nextafter(0.5, 0) - 1e-7)


def test_reasons_of_whole_objects() -> None:
    coarse = np.zeros((60, 600), bool)
    for start in (20, 280, 540):
        coarse[20:40, start : start + 20] = True
    probability = coarse.astype(np.float32)
    # Of the first nothing is left of the network's answer; the second would have lost a row; the third has changed.
    probability[20, 280:300], probability[21:40, 280:300] = 0.5, 0.9
    probability[20:40, 540:560] = 0.8
    probability[19, 540:560] = 0.7
    kept = {KeptReason.DISAGREEMENT.value: 1, KeptReason.NO_GAIN.value: 1}
    planes = held_back(coarse, probability, replace(REPORT, kept_objects=kept))
    assert set(planes) == {HeldBack.DISAGREEMENT, HeldBack.NO_GAIN}
    assert planes[HeldBack.DISAGREEMENT].sum() == 400 and planes[HeldBack.DISAGREEMENT][:, :50].any()
    assert planes[HeldBack.NO_GAIN].sum() == 20 and planes[HeldBack.NO_GAIN][20, 280]


def test_without_a_change_there_is_nothing_to_show() -> None:
    assert held_back(COARSE, COARSE.astype(np.float32), REPORT) == {}
    assert held_back(np.zeros_like(COARSE), np.zeros(COARSE.shape, np.float32), REPORT) == {}


def test_every_reason_of_a_report_has_a_sentence() -> None:
    assert {why.name for why in KeptReason} < {why.name for why in HeldBack}
    assert all(why.value.endswith(".") for why in HeldBack)
