"""Samples per second of training: of each recipe, of its data alone, and of two processes against one.

    python -m benchmarks.cost.training DATA [--steps 12] [--recipes compact,finetune,lr]

DATA is a data folder. The base network of `lr` and `hr` takes most of a minute for a step on a CPU.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import click
import torch

from benchmarks.common.tables import aligned
from segrefiner.data.layouts import open_source
from segrefiner.data.packed_photos import PackedPhotos
from segrefiner.data.packs import pack_source
from segrefiner.data.sources import Head
from segrefiner.model.weights import load, resolve
from segrefiner.training.batches import packed_batches, streamed_batches
from segrefiner.training.recipe import Recipe
from segrefiner.training.recipes import RECIPES
from segrefiner.training.run_folder import LOG_NAME
from segrefiner.training.trainer import Trainer

PHOTOS = 200


def rates(recipe: Recipe, feed, device: torch.device, step: int, steps: int) -> tuple[float, float]:
    """Samples per second of the data alone and of training, from a step on."""
    _, batch = recipe.size_and_batch(step)
    batches = feed(recipe.portion(s) for s in range(step, step + steps + 1))
    next(batches)
    started = time.perf_counter()
    count = sum(len(b.fine) for b in islice(batches, steps))
    data = count / (time.perf_counter() - started)
    trainer = Trainer(feed, recipe, device)
    trainer.step = step
    trainer.train_step()
    started = time.perf_counter()
    for _ in range(steps):
        trainer.train_step()
    trainer.tally.means()  # waits for a GPU
    return data, steps * batch / (time.perf_counter() - started)


def together(pack: Path, steps: int, processes: int, threads: int) -> float:
    """Samples per second of so many processes, in float32 at 128 pixels."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += [
            "-m",
            "segrefiner",
            "train",
            str(pack),
            "-o",
            folder,
            "--recipe",
            "compact",
            "--set",
            "large_share=0",
        ]
        command += ["--samples", str(16 * 2 * steps), "--log-every", str(steps), "--device", "cpu"]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        rows = [json.loads(line) for line in (Path(folder) / LOG_NAME).read_text().splitlines()]
    return rows[-1]["samples_per_second"]


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--steps", default=12, show_default=True)
@click.option("--recipes", default="compact,finetune", show_default=True)
def main(data: Path, steps: int, recipes: str) -> None:
    """Measure."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = Head(open_source(data), PHOTOS)
    bundled = load(resolve("compact")).config
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder) / "photos.pack"
        for name in recipes.split(","):
            recipe = RECIPES[name] if name != "finetune" else Recipe(**vars(RECIPES[name]) | {"model": bundled})
            if recipe.streamed:
                feed = streamed_batches(source, recipe, device, workers=1)
            else:
                pack_source(source, pack, size=recipe.pack_size)
                feed = packed_batches(PackedPhotos(pack, device), recipe)
            for step in sorted({0, recipe.small_steps}):
                size, batch = recipe.size_and_batch(step)
                alone, trained = rates(recipe, feed, device, step, steps if not recipe.streamed else 1)
                share = f"{trained / alone:.0%}"
                rows.append([name, f"{batch} of {size}x{size}", f"{alone:.1f}", f"{trained:.2f}", share])
        print(aligned([["recipe", "batch", "data alone/s", "training/s", "share of data"], *rows]))
        if device.type == "cpu":
            pack_source(source, pack, size=RECIPES["compact"].pack_size)
            cores = os.cpu_count() or 2
            one, two = together(pack, steps, 1, cores), together(pack, steps, 2, cores // 2)
            print(f"\none process {one:.1f} samples/s, two {two:.1f}: {two / one:.2f} times, on {cores} cores in all")


if __name__ == "__main__":
    main()
