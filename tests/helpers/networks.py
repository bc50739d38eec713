"""Networks whose answer is known by construction, and masks and photos for them; none needs weights."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from hypothesis import settings
from torch import Tensor

from segrefiner.imaging.boxes import Box
from segrefiner.imaging.ops import contour
from segrefiner.model.diffusion import Network, Stage, silent
from segrefiner.model.unet import IMAGE_MEAN, IMAGE_STD
from segrefiner.refinement.pipelines.batching import AdaptiveBatcher
from segrefiner.refinement.pipelines.canvas import Canvas, falls
from segrefiner.refinement.pipelines.coarse_to_fine import _Run
from segrefiner.refinement.pipelines.config import PipelineConfig, TilingConfig
from segrefiner.refinement.pipelines.views import (
    View,
    contour_tiles,
)

QUICK = settings(max_examples=25)
CONFIG = PipelineConfig()
EVERY_TILE = replace(CONFIG, tiling=TilingConfig(undecided=-1.0), converged=-1.0)
SMALL = PipelineConfig(patch=32, tiling=TilingConfig(side=32, overlap=8), min_side=16)


def keeps(x: Tensor, timesteps: Tensor) -> Tensor:
    return (2 * x[:, 3:] - 1) * 30


def brightness(x: Tensor) -> Tensor:
    """The photo's red channel, -1 for black and 1 for white."""
    return (x[:, :1] * IMAGE_STD[0] + IMAGE_MEAN[0]) / 127.5 - 1


def sees(x: Tensor, timesteps: Tensor) -> Tensor:
    return brightness(x) * 40


def hesitates(x: Tensor, timesteps: Tensor) -> Tensor:
    """Believes the photo and the mask, neither of them much, so that the thresholds decide."""
    return 1.5 * brightness(x) + (2 * x[:, 3:] - 1)


def all_object(x: Tensor, timesteps: Tensor) -> Tensor:
    return torch.full_like(x[:, 3:], 30.0)


def all_ground(x: Tensor, timesteps: Tensor) -> Tensor:
    return torch.full_like(x[:, 3:], -30.0)


def random_answer(x: Tensor, timesteps: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(int(timesteps[0]))
    return 30 * torch.randn(x[:, 3:].shape, generator=generator)


def empty(height: int, width: int) -> Tensor:
    return torch.zeros(height, width, dtype=torch.bool)


def window(box: Box, height: int, width: int, ramp: int) -> Tensor:
    """Blending weights of a view, all of its box."""
    down, across = falls(box, box, height, width, ramp, torch.device("cpu"))
    return torch.minimum(down[:, None], across)


def rectangle(height: int, width: int, y: tuple[int, int], x: tuple[int, int]) -> Tensor:
    mask = empty(height, width)
    mask[y[0] : y[1], x[0] : x[1]] = True
    return mask


def discs(height: int, width: int, *where: tuple[int, int, int]) -> Tensor:
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for y, x, radius in where:
        mask |= np.hypot(rows - y, columns - x) <= radius
    return torch.from_numpy(mask)


def specks(height: int, width: int, count: int = 200) -> Tensor:
    random, mask = np.random.default_rng(0), empty(height, width)
    for _ in range(count):
        y, x = random.integers(2, height - 5), random.integers(2, width - 5)
        mask[y : y + 3, x : x + 3] = True
    return mask


def moved(mask: Tensor, down: int, right: int) -> Tensor:
    return mask.roll((down, right), (0, 1))


def white_on_black(truth: Tensor) -> Tensor:
    return (truth.expand(3, -1, -1) * 255).to(torch.uint8)


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def iou(a: Tensor, b: Tensor) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def refined_in(
    network: Network, mask: Tensor, views: list[View], timesteps: list[int], config: PipelineConfig = CONFIG
) -> Tensor:
    """The probability after one level of these views, of a canvas that covers the whole photo."""
    height, width = mask.shape
    sheet = Canvas(noise(height, width), mask, Box(0, 0, width, height), 0, config)
    assert sheet.area == Box(0, 0, width, height)
    _Run(network, config, AdaptiveBatcher(8), silent).level({sheet: views}, timesteps, Stage.WHOLE_OBJECTS)
    return sheet.probability


def tiles_of(uncertain: Tensor, region: Box, scale: float, config: PipelineConfig) -> list[View]:
    height, width = uncertain.shape
    return contour_tiles(uncertain, Box(0, 0, width, height), region, (height, width), scale, config)


# What a network that is right, or that agrees, makes of a mask.
RIGHT: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {
    "one object": (discs(200, 240, (90, 130, 50)), lambda m: moved(m, 6, -9)),
    "smaller than a patch": (discs(40, 50, (20, 25, 11)), lambda m: moved(m, 2, -2)),
    "larger than many patches": (discs(1100, 1500, (500, 700, 300)), lambda m: moved(m, 20, -15)),
    "a strip, one pixel high": (rectangle(1, 700, (0, 1), (200, 400)), lambda m: moved(m, 0, 20)),
    "a long strip, one pixel wide": (rectangle(5000, 1, (1000, 4000), (0, 1)), lambda m: moved(m, 60, 0)),
    # Moved by less it counts as a good mask of a small object.
    "a line in a strip": (rectangle(3, 300, (1, 2), (100, 200)), lambda m: moved(m, 0, 20)),
    "3x3 pixels": (rectangle(400, 500, (200, 203), (300, 303)), lambda m: moved(m, 1, 1)),
    "3x3 pixels in a corner": (
        rectangle(400, 500, (0, 3), (497, 500)),
        lambda m: rectangle(400, 500, (0, 5), (496, 500)),
    ),
    "at the border": (rectangle(400, 500, (0, 80), (0, 90)), lambda m: rectangle(400, 500, (0, 70), (5, 99))),
    "two far apart": (discs(600, 900, (100, 100, 40), (480, 780, 50)), lambda m: moved(m, 4, 5)),
    "a large one and a small one": (discs(900, 1200, (400, 400, 250), (850, 1150, 8)), lambda m: moved(m, 2, 2)),
    "all of the photo": (torch.ones(300, 401, dtype=torch.bool), lambda m: rectangle(300, 401, (9, 300), (0, 390))),
    "200 specks": (specks(600, 800), lambda m: m.clone()),
    "200 specks, too large": (specks(500, 500), lambda m: contour(m) | m),
    "200 specks, some of them lost": (specks(1100, 1500), lambda m: m & ~rectangle(1100, 1500, (0, 300), (0, 300))),
}
WITHIN_REACH = {k: v for k, v in RIGHT.items() if "lost" not in k}


def counting(network: Network) -> tuple[Network, list[int]]:
    """The network, and a list of the views of each of its evaluations."""
    calls: list[int] = []

    def counted(x: Tensor, timesteps: Tensor) -> Tensor:
        calls.append(len(x))
        return network(x, timesteps)

    return counted, calls
