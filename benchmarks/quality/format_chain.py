"""Masks of real photos through every annotation format and back: how many pixels differ after each step.

    python -m benchmarks.quality.format_chain DATA [--photos 12]

DATA has `images` and `coarse_deeplab`, as for `quality/methods.py`. Each step is `segrefiner annotations --to FORMAT
--strength 0`; and each file written comes back as it is, byte by byte, where nothing is changed.
"""

import tempfile
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from segrefiner import Options, Refiner
from segrefiner.formats.coco import write_coco
from segrefiner.formats.documents import Format, Instance, WrittenPhoto
from segrefiner.formats.masks import decode_mask
from segrefiner.formats.recognition import SINGLE_FILE, read
from segrefiner.imaging.coco_masks import encode_rle, tight_box
from segrefiner.imaging.reading import read_mask
from segrefiner.jobs.annotations import annotations_job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.run import run

STEPS: tuple[Format, ...] = ("sa1b", "labelme", "cvat", "labelstudio", "yolo", "coco")
_NO_CHANGE = Options(strength=0)


def masks_of(source: Path, sizes: dict[str, tuple[int, int]]) -> dict[str, NDArray[np.bool_]]:
    """The mask of each photo, by the photo's name without suffix."""
    found = {}
    for photo in read(source).contents.photos:
        name = next(stem for stem in (Path(name).stem for name in photo.names) if stem in sizes)
        (instance,) = photo.instances
        found[name] = decode_mask(instance.mask, sizes[name])[0]
    return found


def bytes_of(place: Path) -> dict[str, bytes]:
    """What stands in a file, or in all of a folder, but a job's state."""
    paths = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return {str(path.relative_to(place)): path.read_bytes() for path in paths if ".segrefiner" not in str(path)}


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--photos", default=12, show_default=True)
def main(data: Path, photos: int) -> None:
    """Print a table of the steps."""
    found = sorted((data / "coarse_deeplab").glob("*.png"))
    coarse = found[:: max(1, len(found) // photos)]
    masks = {path.stem: read_mask(path) for path in coarse[:photos]}
    sizes = {name: (mask.shape[0], mask.shape[1]) for name, mask in masks.items()}
    engine = LocalEngine(Refiner.from_pretrained(), workers=0)
    with tempfile.TemporaryDirectory() as folder:
        root, images = Path(folder), data / "images"
        source = root / "start.json"
        written = [
            WrittenPhoto(f"{name}.jpg", sizes[name], [(Instance("0", name, {}, "object"), {
                "mask": encode_rle(mask), "area": float(mask.sum()), "bbox": tight_box(mask)})])
            for name, mask in masks.items()
        ]  # fmt: skip
        write_coco(source, ["object"], written)
        click.echo("| step | photos | most pixels that differ | comes back equal |\n| --- | --- | --- | --- |")
        for number, to in enumerate(STEPS):
            suffix = {"cvat": ".xml"}.get(to, ".json") if to in SINGLE_FILE else ""
            target, again = root / f"{number}{suffix}", root / f"{number}again{suffix}"
            for begin, end, goal in ((source, target, to), (target, again, None)):
                job = annotations_job(begin, end, images=images, to=goal, options=_NO_CHANGE)
                run(job, engine, root / f"{end.name}.state", config="")
            after = masks_of(target, sizes)
            differ = max(int(np.count_nonzero(after[name] != mask)) for name, mask in masks.items())
            equal = "yes" if bytes_of(target) == bytes_of(again) else "no"
            click.echo(f"| {to} | {len(after)} | {differ} | {equal} |")
            source = target


if __name__ == "__main__":
    main()
