"""Peak memory of `segrefiner coco` against the instances of a photo, and against the size of a results file.

    python -m benchmarks.cost.coco_memory [--side 2500] [--instances 10,100,1000]
    python -m benchmarks.cost.coco_memory --results 200

The first command refines the first so many of a thousand discs of one photo, each time in a process of its own, without
workers: memory should not grow with their number. The second makes a results file of so many megabytes and lets one
process open the model, read the file as the job does, and write it with other masks.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common.tables import aligned
from segrefiner.imaging.coco_masks import encode_rle, tight_box

# Not what `resource` says, which remembers the process before it started Python.
_PEAK = 'print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])'
COMMAND = f"""
import sys
from segrefiner.cli.main import main
try:
    main(sys.argv[1:], standalone_mode=False)
finally:
    {_PEAK}
"""
READ_AND_WRITE = f"""
import sys
from pathlib import Path
from segrefiner import Refiner
from segrefiner.jobs.coco import coco_job
refiner = Refiner.from_pretrained()
source, images, target = map(Path, sys.argv[1:])
job = coco_job(source, images, target)
results = {{}}
for item in job.items:
    results[item.key] = {{
        str(form["index"]): {{
            "segmentation": {{"size": [480, 640], "counts": form["segmentation"]["counts"] + "0"}},
            "area": 1.0, "bbox": [0.0, 0.0, 1.0, 1.0], "report": {{"changed": 0.1, "agreement": 0.9}},
        }}
        for form in item.payload["masks"]
    }}
job.finish(results)
{_PEAK}
"""


def discs(side: int, count: int, folder: Path) -> list[dict[str, object]]:
    """Save a photo of discs in a square grid as `1.png`; their masks as rows of annotations, a rim too small."""
    rng = np.random.default_rng(0)
    across = int(np.ceil(np.sqrt(count)))
    cell = side // across
    y, x = np.mgrid[:cell, :cell] - (cell - 1) / 2
    distance = np.hypot(y, x)
    photo = np.full((side, side, 3), 90, np.uint8)
    rows: list[dict[str, object]] = []
    for index in range(count):
        top, left = (place * cell for place in divmod(index, across))
        here = np.s_[top : top + cell, left : left + cell]
        photo[here][distance < 0.45 * cell] = rng.integers(0, 256, 3)
        mask: NDArray[np.bool_] = np.zeros((side, side), bool)
        mask[here] = distance < 0.38 * cell
        rows.append({
            "id": index + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": encode_rle(mask),
            "area": float(mask.sum()), "bbox": tight_box(mask),
        })  # fmt: skip
    noise = rng.normal(0, 6, photo.shape).astype(np.float32)
    Image.fromarray((photo + noise).clip(0, 255).astype(np.uint8)).save(folder / "1.png", compress_level=1)
    return rows


def of_instances(side: int, counts: list[int]) -> list[list[str]]:
    """Lines of a table."""
    lines = [["instances", "peak MiB", "s of the processor", "s each"]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        rows = discs(side, 1000, folder / "images")
        image = {"id": 1, "file_name": "1.png", "height": side, "width": side}
        categories = [{"id": 1, "name": "disc"}]
        for count in counts:
            # Evenly over the photo.
            some = [rows[len(rows) * i // count] for i in range(count)]
            source = folder / f"{count}.json"
            source.write_text(json.dumps({"images": [image], "annotations": some, "categories": categories}))
            target = folder / f"refined_{count}.json"
            arguments = ["coco", str(source), str(folder / "images"), "-o", str(target), "--workers", "0"]
            peak, seconds = _peak(COMMAND, *arguments)
            lines.append([f"{count}", f"{peak:.0f}", f"{seconds:.0f}", f"{seconds / count:.2f}"])
    return lines


def of_results(megabytes: float) -> list[list[str]]:
    """Lines of a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, images = folder / "results.json", folder / "images"
        images.mkdir()
        count = write_results(source, images, megabytes)
        peak, seconds = _peak(READ_AND_WRITE, str(source), str(images), str(folder / "refined.json"))
        size = source.stat().st_size / 1e6
    figures = [f"{size:.0f}", f"{count}", f"{peak:.0f}", f"{seconds:.0f}"]
    return [["MB", "masks", "peak MiB", "s of the processor"], figures]


def write_results(source: Path, images: Path, megabytes: float) -> int:
    """Results of that size, of a hundred masks for each photo; the photos are empty files. Says how many masks."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    shapes = []
    for _ in range(50):
        waves = np.sin(np.arctan2(y - 240, x - 320) * rng.integers(3, 20)) * 30
        mask = np.hypot(y - 240, x - 320) + waves < rng.integers(60, 200)
        shapes.append((encode_rle(mask), tight_box(mask)))
    written, count = 0, 0
    with open(source, "w") as stream:
        stream.write("[")
        while written < megabytes * 1e6:
            image = 1 + count // 100
            if count % 100 == 0:
                (images / f"{image:012d}.jpg").touch()
            rle, box = shapes[count % len(shapes)]
            row = {"image_id": image, "category_id": 1, "score": 0.5, "bbox": box, "segmentation": rle}
            written += stream.write((", " if count else "") + json.dumps(row))
            count += 1
        stream.write("]")
    return count


def _peak(program: str, *arguments: str) -> tuple[float, float]:
    """The peak memory in MiB of a process, and its seconds of the processor."""
    before = _seconds()
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(done.stderr.strip() or f"exit status {done.returncode}")
    return int(done.stdout.split()[-1]) / 1024, _seconds() - before


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@click.command()
@click.option("--side", default=2500, show_default=True, help="Of the photo, in pixels.")
@click.option("--instances", default="10,100,1000", show_default=True)
@click.option("--results", "megabytes", type=float, help="Of a results file, instead.")
def main(side: int, instances: str, megabytes: float | None) -> None:
    """Print a table."""
    started = time.perf_counter()
    counts = [int(count) for count in instances.split(",")]
    lines = of_instances(side, counts) if megabytes is None else of_results(megabytes)
    print(aligned(lines) + f"\n{time.perf_counter() - started:.0f} s by the clock")


if __name__ == "__main__":
    main()
