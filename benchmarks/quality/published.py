"""The default model, and the published network through this package, against the published way of running it.

    python -m benchmarks.quality.published IMAGE MASK [--weights BASE.safetensors]

The published way is its pipeline for high-resolution masks in float32, channels first, attention written out. How often
it runs its network depends on the mask. Without `--weights` the base network has random ones, whose masks mean nothing:
most of their pixels lie near one half, where rounding decides. `common/train_base.py` makes some that mean a little.
Takes some minutes; needs 10 GB.
"""

import copy
import time
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from segrefiner import Refiner
from segrefiner.evaluation.metrics import iou
from segrefiner.imaging.reading import read_mask
from segrefiner.model.backends import TorchBackend, choose_dtype
from segrefiner.model.layers import Upsample
from segrefiner.model.unet import BASE, DenoisingUNet
from segrefiner.model.weights import load
from segrefiner.refinement.pipelines.published import semantic_pipeline
from segrefiner.refinement.refiner import Result


class AsPublished(TorchBackend):
    """The network in the layout and with the attention and the enlargements of the published code."""

    def __init__(self, network: DenoisingUNet) -> None:
        super().__init__(copy.deepcopy(network).to(memory_format=torch.contiguous_format), torch.float32)
        for module in self.network.modules():
            if isinstance(module, Upsample):
                module.forward = partial(_enlarged, module)  # type: ignore[method-assign]

    def __call__(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """As the backend."""
        with sdpa_kernel(SDPBackend.MATH):
            return self.network(x.contiguous(), timesteps)


def _enlarged(module: Upsample, x: torch.Tensor) -> torch.Tensor:
    return module.conv(torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))


def timed(refiner: Refiner, image: Path, mask: Path) -> tuple[Result, float]:
    started = time.perf_counter()
    result = refiner(image, mask)
    return result, time.perf_counter() - started


@click.command()
@click.argument("image", type=click.Path(exists=True, path_type=Path))
@click.argument("mask", type=click.Path(exists=True, path_type=Path))
@click.option("--weights", type=click.Path(exists=True, path_type=Path), help="Of the base network, converted.")
def main(image: Path, mask: Path, weights: Path | None) -> None:
    """Time three refinements of one photo in one run."""
    torch.manual_seed(0)
    base = load(weights) if weights else DenoisingUNet(BASE)
    fast = choose_dtype("auto", torch.device("cpu"))
    default = Refiner.from_pretrained()
    default(image, mask)  # warm-up
    _, ours = min((timed(default, image, mask) for _ in range(3)), key=lambda pair: pair[1])
    refined, through = timed(Refiner(base, dtype=fast, pipeline=semantic_pipeline), image, mask)
    published, as_published = timed(Refiner(AsPublished(base), pipeline=semantic_pipeline), image, mask)
    coarse = read_mask(mask)
    seen = published.report.evaluations
    print(f"as published, float32: {as_published:.1f} s, {seen} evaluations of {as_published / seen:.2f} s")
    print(f"base network here, {fast}: {through:.1f} s, {as_published / through:.2f} times faster, ", end="")
    print(f"{100 * np.mean(refined.mask == published.mask):.3f} % of pixels equal, ", end="")
    print(f"IoU {iou(refined.mask, published.mask):.4f} (with the coarse mask {iou(published.mask, coarse):.4f})")
    print(f"default model here: {ours:.2f} s, {as_published / ours:.0f} times faster")


if __name__ == "__main__":
    main()
