"""Training runs of a few steps, with a tiny network on photos of noise."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers.tiny import TINY_WITH_ATTENTION as TINY
from segrefiner.data.packed_photos import PackedPhotos
from segrefiner.data.packs import pack_folder
from segrefiner.training.batches import packed_batches
from segrefiner.training.recipe import Recipe
from segrefiner.training.trainer import Trainer

CPU = torch.device("cpu")
RECIPE = Recipe(
    model=TINY,
    samples=48,
    large_share=0.5,
    small_size=16,
    small_batch=4,
    large_size=32,
    large_batch=3,
    warmup_steps=3,
    seed=5,
)  # 6 small steps and 8 large ones


def packed_discs(folder: Path) -> PackedPhotos:
    """Bright discs on dark ground: as easy as a photo can be."""
    for part in ("images", "masks"):
        (folder / part).mkdir()
    random = np.random.default_rng(0)
    for i in range(5):
        height, width = random.integers(40, 70, 2)
        rows, columns = np.mgrid[:height, :width]
        mask = np.hypot(rows - height / 2 - i, columns - width / 2) < 10 + 2 * i
        photo = np.where(mask[..., None], 220, 40) + random.integers(-10, 10, (height, width, 3))
        Image.fromarray(photo.astype(np.uint8)).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    pack_folder(folder, folder / "pack")
    return PackedPhotos(folder / "pack", CPU)


def trainer(photos: PackedPhotos, config: Recipe = RECIPE, steps: int = 0) -> Trainer:
    with torch.random.fork_rng():
        made = Trainer(packed_batches(photos, config), config, CPU)
    for _ in range(steps):
        made.train_step()
    return made


def same(a: object, b: object) -> bool:
    """Whether two nested states are equal to the bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def state(t: Trainer) -> dict[str, object]:
    return {
        "step": t.step,
        "net": t.net.state_dict(),
        "ema": t.ema.state_dict(),
        "optimizer": t.optimizer.state_dict(),
    }
