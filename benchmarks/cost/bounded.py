"""What masks and label maps cost that no object has: time and memory are to grow with the photo's pixels at most.

    python -m benchmarks.cost.bounded [--megapixels 0.25,1] [--limit 180] [--only NAME]

Each case runs in a process of its own, with one thread, and is stopped at the limit. Printed are the processor's
seconds, the views that the network saw, by how much memory rose above that of a small photo, and what was
said of it.
"""

import json
import resource
import subprocess
import sys
import time

import click

from benchmarks.common.tables import aligned
from benchmarks.common.textures import LABEL_MAPS, MASKS, photo


def measure(name: str, side: int) -> dict[str, float | str]:
    """One case, in this process."""
    import torch

    from segrefiner import Refiner
    from segrefiner.refinement.label_maps import refine_labels

    torch.set_num_threads(1)
    refiner, image = Refiner.from_pretrained(device="cpu"), photo(side)
    refiner(photo(64), MASKS["disc"](64))  # warm-up
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if name in MASKS:
        report = refiner(image, MASKS[name](side)).report
        views, said = report.evaluations, "; ".join(report.kept_objects)
    else:
        refined = refine_labels(refiner, image, LABEL_MAPS[name](side))
        views, said = sum(report.evaluations for report in refined.reports.values()), "; ".join(refined.warnings)
    taken = time.process_time() - started
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": taken, "views": views, "memory": memory, "said": said}


@click.command()
@click.option("--megapixels", default="0.25,1", show_default=True)
@click.option("--limit", default=180.0, show_default=True, help="Seconds, by the clock, of a case.")
@click.option("--only", multiple=True, help="Of these cases alone.")
@click.option("--one", hidden=True, nargs=2, type=(str, int))
def main(megapixels: str, limit: float, only: tuple[str, ...], one: tuple[str, int] | None) -> None:
    """Print a table."""
    if one:
        print(json.dumps(measure(*one)))
        return
    lines = [["case", "megapixels", "s", "s per megapixel", "views", "MiB more", "said"]]
    for name in only or [*MASKS, *LABEL_MAPS]:
        for size in map(float, megapixels.split(",")):
            side = round((size * 1e6) ** 0.5)
            command = [sys.executable, "-m", "benchmarks.cost.bounded", "--one", name, str(side)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit)
            except subprocess.TimeoutExpired:
                lines.append([name, f"{size:g}", f"> {limit:g}", "", "", "", ""])
                continue
            got = json.loads(done.stdout.splitlines()[-1])
            seconds = got["seconds"]
            figures = [f"{seconds:.1f}", f"{seconds / size:.1f}", f"{got['views']}", f"{got['memory']:.0f}"]
            lines.append([name, f"{size:g}", *figures, got["said"]])
    print(aligned(lines))


if __name__ == "__main__":
    main()
