"""The network alone, without tiles and rules, on crops as in training: a quick judge of checkpoints and recipes.

    python -m benchmarks.quality.crops PACK WEIGHTS … [--crops 96] [--steps 1,3]

PACK is of photos that no run has seen (`segrefiner data pack`). For each kind of coarse mask the same crops, of 128
pixels around contours and of 256 pixels around objects, are shown to each network. Printed are coarse IoU and boundary
accuracy (share of right pixels within three of the truth's contour), what each network gains on them, in points, and
the share of crops that lose over half an IoU point.
"""

from pathlib import Path

import click
import torch
from torch import Tensor

from segrefiner.data.coarse.masks import CoarseConfig
from segrefiner.data.coarse.polygons import polygon_coarse
from segrefiner.data.crop_geometry import ViewConfig
from segrefiner.data.packed_photos import CropBatch, PackedPhotos
from segrefiner.model.diffusion import Network, monotone, pixel_thresholds, sample, spaced_timesteps
from segrefiner.model.unet import fused, normalize
from segrefiner.model.weights import load

_NONE = CoarseConfig(perfect=0, real=0, slight=0, low_resolution=0, blobs=0)
KINDS = {
    "exact": CoarseConfig(perfect=1.0),
    "real": CoarseConfig(perfect=0, real=1.0, real_as_is=1.0),
    "grid": CoarseConfig(perfect=0, real=0, grid=1.0),
    "slight": CoarseConfig(perfect=0, real=0, slight=1.0, low_resolution=0, blobs=0),
    "rough": CoarseConfig(perfect=0, real=0, slight=0),
    "polygon": _NONE,
    "part": CoarseConfig(perfect=0, real=0, slight=0, part_exact=1.0),
}
_VIEWS = {
    128: ViewConfig(object_share=0.0, tile_share=1.0, tile_scales=(0.5, 1.0), colour=0.0),
    256: ViewConfig(object_share=1.0, colour=0.0, rotation=0.0),
}
_BATCH, _BAND, _HARM = 16, 3.0, 0.005


def crops_of(photos: PackedPhotos, kind: str, size: int, count: int) -> list[CropBatch]:
    """The same crops of a kind in every run; of real masks those photos alone that have some."""
    import numpy as np

    there = photos.has_real.nonzero()[:, 0] if kind == "real" else torch.arange(len(photos))
    chosen = there[torch.linspace(0, len(there) - 1, count).round().long()]
    batches = []
    for start in range(0, count, _BATCH):
        generator = torch.Generator().manual_seed(1000 * size + start)
        batch = photos.batch(chosen[start : start + _BATCH], size, generator, _VIEWS[size], KINDS[kind])
        if kind == "polygon":
            drawn = [
                polygon_coarse(fine[0].numpy() > 0, np.random.default_rng(start + i))
                for i, fine in enumerate(batch.fine)
            ]
            batch.coarse.copy_(torch.from_numpy(np.stack(drawn))[:, None])
        batches.append(batch)
    return batches


def scores(mask: Tensor, batch: CropBatch) -> Tensor:
    """IoU and boundary accuracy `(2, B)` of masks `(B, 1, S, S)` in {0, 1}."""
    both, either = mask * batch.fine, torch.maximum(mask, batch.fine)
    iou = both.sum(dim=(1, 2, 3)) / either.sum(dim=(1, 2, 3)).clamp(min=1)
    band = (batch.distance.abs() <= _BAND).float()
    accuracy = ((mask == batch.fine) * band).sum(dim=(1, 2, 3)) / band.sum(dim=(1, 2, 3)).clamp(min=1)
    return torch.stack([iou, accuracy])


@torch.inference_mode()
def answer(network: Network, batch: CropBatch, steps: int) -> Tensor:
    """What a network makes of crops, `(B, 1, S, S)` in {0, 1}."""
    size = batch.coarse.shape[-1]
    thresholds = pixel_thresholds(0, 0, size, size, 0).expand(len(batch.coarse), 1, size, size)
    states = sample(network, normalize(batch.image), batch.coarse, spaced_timesteps(steps), monotone(thresholds))
    *_, last = states
    return (last.probability >= 0.5).float()


def _network(path: Path) -> Network:
    network = fused(load(path))

    def run(x: Tensor, timesteps: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits: Tensor = network(x.contiguous(memory_format=torch.channels_last), timesteps).float()
        return logits

    return run


@click.command()
@click.argument("pack", type=click.Path(path_type=Path, exists=True))
@click.argument("weights", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--crops", default=96, show_default=True, help="Of each kind and size.")
@click.option("--steps", default="1", show_default=True, help="Numbers of diffusion steps, with commas between them.")
def main(pack: Path, weights: tuple[Path, ...], crops: int, steps: str) -> None:
    """Compare networks on the same crops."""
    photos = PackedPhotos(pack, torch.device("cpu"))
    networks = [_network(path) for path in weights]
    counts = [int(part) for part in steps.split(",")]
    for index, path in enumerate(weights):
        print(f"{index}: {path}")
    heads = " | ".join(f"{i}, {n} step{'s' * (n > 1)}" for i in range(len(networks)) for n in counts)
    print(f"\n| kind | size | coarse | {heads} |\n| --- | --: | --: |{' --: |' * (len(networks) * len(counts))}")
    for size in _VIEWS:
        for kind in KINDS:
            batches = crops_of(photos, kind, size, crops)
            before = torch.cat([scores(batch.coarse, batch) for batch in batches], dim=1)
            cells = []
            for network in networks:
                for count in counts:
                    after = torch.cat([scores(answer(network, b, count), b) for b in batches], dim=1)
                    gain, harmed = 100 * (after - before).mean(dim=1), (after[0] < before[0] - _HARM).float().mean()
                    cells.append(f"{gain[0]:+.2f} {gain[1]:+.2f} {100 * harmed:.0f} %")
            coarse = " ".join(f"{100 * score:.1f}" for score in before.mean(dim=1))
            print(f"| {kind} | {size} | {coarse} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
