"""Laws of early evaluation: the same photos and masks each time, scored as the metrics score them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import miniature
from helpers.discs import Discs
from helpers.tiny import TINY
from segrefiner.data.layouts import open_source
from segrefiner.data.packed_photos import PackedPhotos
from segrefiner.data.packs import pack_source
from segrefiner.errors import InputError
from segrefiner.evaluation.metrics import iou, mba
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.pipelines.published import instance_pipeline
from segrefiner.refinement.refiner import Refiner
from segrefiner.training.monitoring.validation import PackedSource, validate, validation_set


def network() -> DenoisingUNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DenoisingUNet(TINY).eval()


def test_the_set_is_fixed_and_every_photo_has_a_coarse_mask(tmp_path: Path) -> None:
    source = open_source(miniature.folder(tmp_path, 6))
    first, again, other = (validation_set(source, 4, seed) for seed in (0, 0, 9))
    assert [s.name for s in first] == ["own0", "own2", "own3", "own5"]
    for a, b in zip(first, again, strict=True):
        assert a.coarse is not None and b.coarse is not None
        np.testing.assert_array_equal(a.coarse, b.coarse)
        assert a.coarse.shape == a.mask.shape and 0.3 < iou(a.coarse, a.mask) < 1
    # Real masks are kept, made ones follow the seed.
    real = [np.array_equal(a.coarse, b.coarse) for a, b in zip(first, other, strict=True)]  # type: ignore[arg-type]
    assert real == [False, False, True, True]
    assert len(validation_set(source, 99)) == 6


def test_unreadable_photos_are_left_out_unless_all_are() -> None:
    assert [s.name for s in validation_set(Discs(4, broken=frozenset({1})), 4)] == ["disc0", "disc2", "disc3"]
    with pytest.raises(InputError, match="disc 0 is broken"):
        validation_set(Discs(2, broken=frozenset({0, 1})), 2)


def test_scores_are_those_of_the_refiner(tmp_path: Path) -> None:
    samples = validation_set(Discs(3), 3)
    net = network()
    rows = validate(net, samples, ["default", "published"], steps=2)
    assert [row["pipeline"] for row in rows] == ["default", "published"]
    # The discs' photos are too small for the published pipeline for whole photos.
    refiners = Refiner(net, steps=2), Refiner(net, pipeline=instance_pipeline)
    for row, refiner in zip(rows, refiners, strict=True):
        refined = [refiner(s.image, s.coarse).mask for s in samples]  # type: ignore[arg-type]
        pairs = list(zip(refined, samples, strict=True))
        assert row["photos"] == 3
        assert row["iou_after"] == pytest.approx(np.mean([iou(m, s.mask) for m, s in pairs]))
        assert row["mba_after"] == pytest.approx(np.mean([mba(m, s.mask) for m, s in pairs]))
        assert row["iou_before"] == pytest.approx(np.mean([iou(s.coarse, s.mask) for s in samples]))  # type: ignore[arg-type]
        lost = [iou(s.coarse, s.mask) - iou(m, s.mask) > 0.005 for m, s in pairs]  # type: ignore[arg-type]
        assert row["harmed"] == pytest.approx(np.mean(lost))


def test_a_pack_can_be_validated_on(tmp_path: Path) -> None:
    pack_source(Discs(4), tmp_path / "pack")
    source = PackedSource(PackedPhotos(tmp_path / "pack", torch.device("cpu")))
    assert len(source) == 4 and not source.objects
    for index in range(4):
        packed, whole = source.read(index), Discs(4).read(index)
        np.testing.assert_array_equal(packed.mask, whole.mask)
        assert np.abs(packed.image.astype(int) - whole.image).mean() < 12
        assert (packed.coarse is None) == (whole.coarse is None)
