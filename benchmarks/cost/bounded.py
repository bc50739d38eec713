"""What inputs cost that no object has: time and memory are to grow with the photo's pixels at most.

    python -m benchmarks.cost.bounded [--megapixels 0.25,1,4] [--limit 120] [--only NAME]

Masks and label maps of `common/textures.py`, instances, a clip, photos of one pixel, and strips. Each case runs in a
process of its own, with one thread, and is ended at the limit, in seconds of the processor. Printed are these seconds,
the views that the network saw, by how much memory rose above that of a small photo, and what was said of the input; and
at last the costliest case, and the one whose cost grows most beyond its pixels.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common.tables import aligned
from benchmarks.common.textures import LABEL_MAPS, MASKS, photo

if TYPE_CHECKING:
    from segrefiner import Refiner, Result

Found = tuple[int, str]
"""The views that the network saw, and what was said."""
Case = Callable[["Refiner", int], Found]
"""Refines something of a photo with so many pixels on each side, or as many in all."""


def _mask(make: Callable[[int], NDArray[Any]]) -> Case:
    return lambda refiner, side: _told([refiner(photo(side), make(side))])


def _label_map(make: Callable[[int], NDArray[Any]]) -> Case:
    def refine(refiner: "Refiner", side: int) -> Found:
        from segrefiner.refinement.label_maps import refine_labels

        refined = refine_labels(refiner, photo(side), make(side))
        return sum(report.evaluations for report in refined.reports.values()), "; ".join(refined.warnings)

    return refine


def _told(results: "Iterable[Result]") -> Found:
    views, kept, notes = 0, Counter[str](), Counter[str]()
    for result in results:
        views += result.report.evaluations
        kept.update(result.report.kept_objects)
        notes.update([result.report.note] if result.report.note else [])
    return views, "; ".join(f"{count} {why}" for why, count in (kept + notes).items())


def _tiny_instances(refiner: "Refiner", side: int) -> Found:
    """Ten thousand for each megapixel, of three pixels each."""

    def masks() -> Iterator[NDArray[np.bool_]]:
        for top in range(0, side - 3, 10):
            for left in range(0, side - 3, 10):
                mask = np.zeros((side, side), bool)
                mask[top : top + 2, left : left + 2] = True
                mask[top, left] = False
                yield mask

    return _told(refiner.instances(photo(side), masks(), separate=True))


def _noisy_instances(refiner: "Refiner", side: int) -> Found:
    rng = np.random.default_rng(0)
    masks = (rng.random((side, side)) < 0.3 for _ in range(3))
    return _told(refiner.instances(photo(side), masks, separate=True))


def _clip(refiner: "Refiner", side: int) -> Found:
    """Four frames that have the pixels together."""
    from segrefiner.refinement.video import refine_video

    rng, part = np.random.default_rng(0), side // 2
    frames = ((f"{number}", photo(part), rng.random((part, part)) < 0.5) for number in range(4))
    return _told(result for _, result in refine_video(refiner, frames))


def _single_pixels(refiner: "Refiner", side: int) -> Found:
    """A folder of as many photos of one pixel as the photo has rows."""
    from segrefiner.jobs.folders import folder_job
    from segrefiner.jobs.local import LocalEngine
    from segrefiner.jobs.run import run

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, mode in (("images", "RGB"), ("masks", "L")):
            (folder / kind).mkdir()
            for number in range(side):
                Image.new(mode, (1, 1)).save(folder / kind / f"{number}.png")
        job = folder_job(folder / "images", folder / "masks", folder / "out")
        ledger = run(job, LocalEngine(refiner, 0), folder / "out" / "state", config="")
    return 0, f"{ledger.done} done, {ledger.left_out} left out, {ledger.failed} failed"


def _strip(height: int) -> Case:
    def refine(refiner: "Refiner", side: int) -> Found:
        shape = height, side * side // height
        return _told([refiner(photo(*shape), np.random.default_rng(0).random(shape) < 0.5)])

    return refine


CASES: dict[str, Case] = {
    **{name: _mask(make) for name, make in MASKS.items()},
    "soft noise": _mask(lambda side: np.random.default_rng(0).random((side, side), np.float32)),
    **{name: _label_map(make) for name, make in LABEL_MAPS.items()},
    "10,000 tiny instances/MP": _tiny_instances,
    "3 instances of noise": _noisy_instances,
    "clip of noise": _clip,
    "photos of a pixel": _single_pixels,
    "strip of 1 row, noise": _strip(1),
    "strip of 100 rows, noise": _strip(100),
}


def measure(name: str, side: int, limit: float) -> dict[str, float | str]:
    """One case, in this process."""
    import torch

    from segrefiner import Refiner

    torch.set_num_threads(1)
    refiner = Refiner.from_pretrained(device="cpu")
    refiner(photo(64), MASKS["disc"](64))  # warm-up
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    end = int(started + limit) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (end, end))
    views, said = CASES[name](refiner, side)
    taken = time.process_time() - started
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": taken, "views": views, "memory": memory, "said": said}


@click.command()
@click.option("--megapixels", default="0.25,1,4", show_default=True)
@click.option("--limit", default=120.0, show_default=True, help="Seconds of the processor for a case.")
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="Of these cases alone.")
@click.option("--one", hidden=True, nargs=2, type=(str, int))
def main(megapixels: str, limit: float, only: tuple[str, ...], one: tuple[str, int] | None) -> None:
    """Print a table."""
    if one:
        print(json.dumps(measure(*one, limit)))
        return
    lines = [["case", "megapixels", "s", "s per megapixel", "views", "MiB more", "said"]]
    seconds: dict[str, dict[float, float]] = {}
    for name in only or CASES:
        for size in map(float, megapixels.split(",")):
            side = round((size * 1e6) ** 0.5)
            command = [sys.executable, "-m", "benchmarks.cost.bounded", "--limit", f"{limit}", "--one", name, f"{side}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                why = done.stderr.strip().splitlines()[-1] if done.returncode > 0 else f"> {limit:g} s"
                lines.append([name, f"{size:g}", *4 * [""], why])
                seconds.setdefault(name, {})[size] = limit
                continue
            got = json.loads(done.stdout.splitlines()[-1])
            seconds.setdefault(name, {})[size] = got["seconds"]
            figures = [
                f"{got['seconds']:.1f}",
                f"{got['seconds'] / size:.1f}",
                f"{got['views']}",
                f"{got['memory']:.0f}",
            ]
            lines.append([name, f"{size:g}", *figures, got["said"][:100]])
            print(*lines[-1], sep="  ", file=sys.stderr, flush=True)
    print(aligned(lines))
    print("\n" + worst(seconds))


def worst(seconds: dict[str, dict[float, float]]) -> str:
    """The costliest case, and the one that grows most beyond its pixels, in one line."""
    each = {(name, size): taken / size for name, found in seconds.items() for size, taken in found.items()}
    costliest = max(each, key=lambda key: each[key])
    told = f"costliest: {costliest[0]}, {each[costliest]:.1f} s per megapixel at {costliest[1]:g} megapixels"
    growths = {}
    for name, found in seconds.items():
        small, large = min(found), max(found)
        # Below half a second it is what a call costs at all.
        growths[name] = each[name, large] / max(each[name, small], 0.5 / small)
    steepest = max(growths, key=lambda name: growths[name])
    return (
        f"{told}; steepest: {steepest}, {growths[steepest]:.2f} times the cost per megapixel from the least to the most"
    )


if __name__ == "__main__":
    main()
