"""Trains the published network's shape for a few minutes, so that benchmarks have masks that mean something.

    python -m benchmarks.common.train_base DATA OUT.safetensors [--minutes 12]

On crops of 64 pixels, which is all that a CPU can do in this time: far worse than published weights, but with the sure
inside and outside, and the narrow undecided contour, that random weights lack.
"""

import tempfile
from pathlib import Path

import click
import torch

from segrefiner.data.crop_geometry import ViewConfig
from segrefiner.data.packed_photos import PackedPhotos
from segrefiner.data.packs import pack_folder
from segrefiner.model.unet import BASE
from segrefiner.model.weights import save
from segrefiner.training.batches import packed_batches
from segrefiner.training.loop import Watch, train
from segrefiner.training.recipe import Recipe
from segrefiner.training.trainer import Trainer

RECIPE = Recipe(
    model=BASE,
    samples=100_000,
    large_share=0.0,
    small_size=64,
    small_batch=16,
    lr=1.5e-4,
    warmup_steps=40,
    ema_decay=0.97,
    views=ViewConfig(object_share=0.4, zoom=(0.7, 2.0)),
)


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--minutes", default=12.0, show_default=True)
def main(data: Path, target: Path, minutes: float) -> None:
    """Train on DATA, a folder or a pack, and write the weights."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        if data.is_dir():
            packed = Path(folder) / "photos.pack"
            pack_folder(data, packed, size=RECIPE.pack_size)
            data = packed
        trainer = Trainer(packed_batches(PackedPhotos(data, device), RECIPE), RECIPE, device)
        watch = Watch(log=print)
        train(trainer, Path(folder), max_minutes=minutes, checkpoint_minutes=60, log_every=10, watch=watch)
    save(trainer.result(), target, metadata={"trained_steps": str(trainer.step)})
    print(f"{target}: {trainer.step} steps")


if __name__ == "__main__":
    main()
