"""Early evaluation of a network in training: a fixed set of photos, refined by the default and a published pipeline."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...data.coarse.files import make_coarse
from ...data.packed_photos import PackedPhotos
from ...data.sources import Sample, Source, evenly
from ...errors import InputError
from ...evaluation.metrics import iou, mba
from ...model.diffusion import NUM_TIMESTEPS
from ...model.unet import DenoisingUNet
from ...refinement.pipelines.coarse_to_fine import default_pipeline
from ...refinement.pipelines.published import PATCH, instance_pipeline, semantic_pipeline
from ...refinement.pipelines.tasks import Pipeline
from ...refinement.refiner import Refiner

HARM = 0.5
"""Points of IoU that a mask may lose before it counts as harmed."""


def validation_set(source: Source, photos: int, seed: int = 0) -> list[Sample]:
    """Photos to validate on, evenly chosen, each with a coarse mask: a real one, or one made for it once and for all.

    Args:
        source: Photos to choose from.
        photos: How many photos to choose, at most.
        seed: Seed of the coarse masks that are made.

    Raises:
        InputError: None of them can be read.
    """
    chosen, reasons = [], []
    for index in evenly(len(source), photos):
        try:
            sample = source.read(index)
        except InputError as error:
            reasons.append(str(error))
            continue
        chosen.append(
            sample
            if sample.coarse is not None
            else replace(sample, coarse=make_coarse(sample.image, sample.mask, "ours", seed + index))
        )
    if not chosen:
        raise InputError(f"{source.name} has no photo to validate on: {reasons[0] if reasons else 'it is empty'}")
    return chosen


class PackedSource:
    """The photos of a pack, as they are in it, so that a run can be validated without other files.

    Args:
        photos: The pack.
    """

    def __init__(self, photos: PackedPhotos) -> None:
        self.name, self.objects, self._photos = "the pack", False, photos

    def __len__(self) -> int:
        return len(self._photos)

    def read(self, index: int) -> Sample:
        """One photo."""
        image, mask, coarse = self._photos.photo(index)
        return Sample(self._photos.names[index], image, mask, coarse)


def validate(
    network: DenoisingUNet,
    samples: Sequence[Sample],
    pipelines: Sequence[str] = ("default", "published"),
    *,
    steps: int = NUM_TIMESTEPS,
    dtype: torch.dtype = torch.float32,
    instance: bool = False,
) -> list[dict[str, Any]]:
    """Refines the samples' coarse masks and compares both with the truth.

    Args:
        network: The network; it stays on its device.
        samples: Photos with truths and coarse masks; one without a coarse mask is refined from its truth.
        pipelines: "default", "published" or both; the published one is `semantic_pipeline`, or
            `instance_pipeline` for photos that are too small for it.
        steps: Diffusion steps of the default pipeline.
        dtype: Precision in which the network computes.
        instance: Whether the published pipeline is always the one for instances.

    Returns:
        For each pipeline: `pipeline`, `photos`, means in [0, 1] `iou_before`, `iou_after`, `mba_before`, `mba_after`,
        `harmed` (share of masks that lost more than half a point of IoU) and `seconds`.
    """
    masks = [s.mask if s.coarse is None else s.coarse for s in samples]
    before = [(iou(m, s.mask), mba(m, s.mask)) for m, s in zip(masks, samples, strict=True)]
    rows = []
    for name in pipelines:
        started = time.monotonic()
        runs: dict[Pipeline, Refiner] = {}
        after = []
        for sample, mask in zip(samples, masks, strict=True):
            pipeline = _pipeline(name, sample, instance)
            if pipeline not in runs:
                count = steps if pipeline is default_pipeline else NUM_TIMESTEPS
                runs[pipeline] = Refiner(network, dtype=dtype, pipeline=pipeline, steps=count)
            refined = runs[pipeline](sample.image, mask).mask
            after.append((iou(refined, sample.mask), mba(refined, sample.mask)))
        b, a = np.array(before), np.array(after)
        means = {"iou_before": b[:, 0], "iou_after": a[:, 0], "mba_before": b[:, 1], "mba_after": a[:, 1]}
        means["harmed"] = b[:, 0] - a[:, 0] > HARM / 100
        row: dict[str, Any] = {"pipeline": name, "photos": len(samples)}
        row |= {key: float(values.mean()) for key, values in means.items()}
        rows.append({**row, "seconds": time.monotonic() - started})
    return rows


def _pipeline(name: str, sample: Sample, instance: bool) -> Pipeline:
    if name == "default":
        return default_pipeline
    return instance_pipeline if instance or min(sample.mask.shape) < PATCH else semantic_pipeline
