"""Where the time of a refinement goes, and how far that is from what the processor could do.

    python -m benchmarks.cost.stages [--photo IMAGE MASK] [--data DATA]

Every stage's time is its own, without the stages inside it; each scene is refined once to warm up and then several
times, and the median run counts. The floor of the network is its operations over the speed of a large matrix product,
measured in the same run; that of all the rest is one reading of the photo and one writing of the mask and its
probability at the speed of a large copy. DATA, a folder as for `quality/methods.py`, gives real photos, which are
enlarged to two megapixels.
"""

import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.scenes import scene
from benchmarks.common.tables import aligned
from segrefiner import Refiner
from segrefiner.imaging.files import write_png
from segrefiner.refinement import groups, refiner
from segrefiner.refinement.pipelines import canvas, coarse_to_fine, tasks
from segrefiner.refinement.pipelines.canvas import Canvas

STAGES = (
    "decode", "objects", "crop", "resize", "network", "sampling", "blend", "tiles", "edges", "settle", "report",
    "encode", "rest",
)  # fmt: skip
SCENES = {
    "0.25 MP, 1 object": (0.25, 1),
    "1 MP, 1 object": (1, 1),
    "2 MP, 1 object": (2, 1),
    "12 MP, 1 object": (12, 1),
    "2 MP, 100 masks": (2, 100),
}


PATCH = 256


class Stopwatch:
    """Seconds of each stage, without those of the stages inside it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._stack: list[str] = []
        self._since = 0.0
        self.patches = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What happens inside is this stage's."""
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def of(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as this stage."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return timed

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now


@contextmanager
def watched(watch: Stopwatch, subject: Refiner) -> Iterator[None]:
    """All stages of a refiner report to the stopwatch."""
    places = [
        (refiner, "read_photo", "decode"), (tasks, "read_photo", "decode"), (tasks, "read_mask", "decode"),
        (tasks, "find_objects", "objects"),
        (Canvas, "inputs", "crop"), (canvas, "crop_resized", "resize"), (canvas, "resize", "resize"),
        (Canvas, "blend", "blend"), (Canvas, "start_level", "blend"),
        (Canvas, "finish_level", "blend"), (Canvas, "tiles", "tiles"), (coarse_to_fine, "snap_to_edges", "edges"),
        (coarse_to_fine, "revert_unsupported", "settle"), (groups, "make_report", "report"),
        (coarse_to_fine._Run, "level", "sampling"),
    ]  # fmt: skip
    patches = [patch.object(owner, name, watch.of(label, getattr(owner, name))) for owner, name, label in places]
    backend = subject.backend

    def counted(x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        watch.patches += len(x) * x.shape[-2] * x.shape[-1] / PATCH**2
        return backend(x, timesteps)

    timed = watch.of("network", counted)
    timed.config, timed.device, timed.dtype = backend.config, backend.device, backend.dtype  # type: ignore[attr-defined]
    patches.append(patch.object(subject, "backend", timed))
    for change in patches:
        change.start()
    try:
        yield
    finally:
        for change in reversed(patches):
            change.stop()


def measure(subject: Refiner, image: Path, masks: list[Path], rounds: int) -> tuple[Counter[str], int, float]:
    """Seconds of each stage of the median run, views that the network saw, and how many of 256x256 are as large."""
    runs = []
    for _ in range(rounds + 1):
        watch, views = Stopwatch(), 0
        with watched(watch, subject), watch.stage("rest"):
            for result in subject.many((image, mask) for mask in masks):
                views += result.report.evaluations
                with watch.stage("encode"):
                    write_png(image.parent / "refined.png", result.mask)
        runs.append(watch.seconds)
    runs = sorted(runs[1:], key=lambda run: sum(run.values()))
    return runs[len(runs) // 2], views, watch.patches


def flops(subject: Refiner) -> float:
    """Operations of one view of 256x256, two for a multiplication and its addition."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        subject.backend(torch.zeros(1, 4, PATCH, PATCH), torch.zeros(1, dtype=torch.int64))
    return float(counter.get_total_flops())


def peaks(dtype: torch.dtype) -> tuple[float, float]:
    """Operations per second of a large matrix product, and bytes per second read and written by a large copy."""
    a = torch.randn(4096, 4096).to(dtype)
    plane = torch.zeros(1 << 28, dtype=torch.uint8)
    other = torch.zeros_like(plane)

    def best(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return min(times)

    return 2 * 4096**3 / best(lambda: a @ a), 2 * plane.numel() / best(lambda: other.copy_(plane))


def enlarged(data: Path, count: int, folder: Path) -> dict[str, tuple[Path, list[Path]]]:
    """Some real photos of two megapixels and their coarse masks, by name, evenly chosen."""
    names = [path.stem for path in sorted((data / "coarse_deeplab").glob("*.png"))]
    jobs = {}
    for i in range(min(count, len(names))):
        name = names[len(names) * i // count]
        place = folder / f"{name}-enlarged"
        place.mkdir()
        image, mask = data / "images" / f"{name}.jpg", data / "coarse_deeplab" / f"{name}.png"
        with Image.open(image) as photo, Image.open(mask) as coarse:
            factor = math.sqrt(2e6 / (photo.width * photo.height))
            size = round(photo.width * factor), round(photo.height * factor)
            photo.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(place / "photo.jpg", quality=92)
            coarse.resize(size, Image.Resampling.NEAREST).save(place / "mask.png")
        jobs[name] = place / "photo.jpg", [place / "mask.png"]
    return jobs


@click.command()
@click.option("--photo", nargs=2, type=click.Path(exists=True, path_type=Path), help="A real photo and its mask, too.")
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Of real photos, which are enlarged.")
@click.option("--photos", default=12, show_default=True, help="How many of these.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--dtype", default="auto", show_default=True)
def main(photo: tuple[Path, Path] | None, data: Path | None, photos: int, rounds: int, dtype: str) -> None:
    """Print a table of stages and the distance from the floor."""
    subject = Refiner.from_pretrained(dtype=dtype)
    speed, bandwidth = peaks(subject.dtype)
    each = flops(subject)
    lines = [["", "views", "of 256x256", "seconds", *STAGES, "outside", "floor", "x floor", "of peak"]]
    with tempfile.TemporaryDirectory() as folder:
        jobs: dict[str, tuple[Path, list[Path]]] = {}
        for name, (megapixels, objects) in SCENES.items():
            made = scene(megapixels, objects)
            place = Path(folder) / f"{len(jobs)}"
            place.mkdir()
            Image.fromarray(made.image).save(place / "photo.jpg", quality=92)
            for i, mask in enumerate(made.coarse):
                Image.fromarray(mask).save(place / f"mask{i}.png")
            jobs[name] = place / "photo.jpg", [place / f"mask{i}.png" for i in range(objects)]
        if photo:
            copy = Path(folder) / photo[0].name
            copy.write_bytes(photo[0].read_bytes())
            jobs[photo[0].name] = copy, [photo[1]]
        real = enlarged(data, photos, Path(folder)) if data else {}
        shares_outside = []
        for image, masks in real.values():
            seconds, _, _ = measure(subject, image, masks, min(3, rounds))
            shares_outside.append(100 * (1 - seconds["network"] / sum(seconds.values())))
        for name, (image, masks) in jobs.items():
            seconds, views, patches = measure(subject, image, masks, 1 if len(masks) > 1 else rounds)
            total = sum(seconds.values())
            with Image.open(image) as picture:
                pixels = picture.width * picture.height
            floor = patches * each / speed + pixels * (3 + 5 * len(masks)) / bandwidth
            shares = [f"{100 * seconds[stage] / total:.1f}" for stage in STAGES]
            outside = 100 * (1 - seconds["network"] / total)
            peak = 100 * patches * each / seconds["network"] / speed
            ends = f"{outside:.0f} %", f"{floor:.2f}", f"{total / floor:.1f}", f"{peak:.0f} %"
            lines.append([name, f"{views}", f"{patches:.1f}", f"{total:.2f}", *shares, *ends])
    print("Stages in per cent of the time.\n")
    print(aligned([list(column) for column in zip(*lines, strict=True)]))
    if shares_outside:
        spread = f"{min(shares_outside):.1f} to {max(shares_outside):.1f}"
        print(f"\n{len(real)} real photos enlarged to 2 MP, outside of the network: ", end="")
        print(f"median {statistics.median(shares_outside):.1f} %, {spread} %")
    print(
        f"\n{each / 1e9:.2f} GFLOP per view of 256x256; {subject.dtype}: {speed / 1e9:.0f} GFLOP/s measured; "
        f"copy {bandwidth / 1e9:.0f} GB/s; {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
