"""Overlapping instances of street scenes: AP of a COCO results file before and after `segrefiner coco`.

    python -m benchmarks.quality.street_objects STREET [--scenes 26] [--kind sam-like]

Cars, pedestrians and bicyclists of the label maps are the truth; their coarse masks are made one by one, so that
neighbours share pixels. Both files are measured by `segrefiner evaluate coco`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import street, street_objects
from segrefiner.imaging.coco_masks import decode_rle


def command(*arguments: str | Path) -> None:
    """Run `segrefiner`, and raise where it fails."""
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "segrefiner", *map(str, arguments)], check=True)


def shared_pixels(results: Path) -> int:
    """Pixels that two or more masks of one photo have."""
    taken: dict[int, NDArray[np.int32]] = {}
    for row in json.loads(results.read_text()):
        height, width = row["segmentation"]["size"]
        plane = taken.setdefault(row["image_id"], np.zeros((height, width), np.int32))
        plane += decode_rle(row["segmentation"], (height, width))
    return sum(int((plane > 1).sum()) for plane in taken.values())


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--scenes", default=0, help="How many, evenly over the names; 0 for all.", show_default=True)
@click.option("--kind", default="sam-like", show_default=True, help="Of the coarse masks.")
@click.option("--seed", default=0, show_default=True)
@click.option("--model", help="As for `segrefiner coco`.")
def main(data: Path, scenes: int, kind: str, seed: int, model: str | None) -> None:
    """Print the figures of both files."""
    maps = street.find_maps(data)
    maps = [maps[len(maps) * i // scenes] for i in range(min(scenes, len(maps)))] if scenes else maps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        read = ((files.image.name, *files.read()) for files in maps)
        truth, coarse, overlapping = street_objects.write_files(read, folder, kind, seed)
        options = ["--model", model] if model else []
        command("coco", coarse, data / "images", "-o", folder / "refined.json", "--annotations", truth, *options)
        refined = folder / "refined.json"
        count = len(json.loads(coarse.read_text()))
        print(f"{len(maps)} scenes, {count} {kind} masks, {overlapping} of which share pixels with another one")
        print(f"pixels of several masks of a photo: {shared_pixels(coarse)} before, {shared_pixels(refined)} after")
        command("evaluate", "coco", truth, refined, "--coarse", coarse)


if __name__ == "__main__":
    main()
