"""How long a call takes beside other busy processes, by how PyTorch's threads wait for each other.

    python -m benchmarks.cost.neighbours [IMAGE MASK] [--rounds 5]

Two processes: in one, PyTorch is imported first and its threads wait by its own default; in the other, they wait as
the package has it. In turns, each refines the photo once alone and once beside a busy process for each core. Printed
are the medians, and the time beside busy processes as a multiple of that alone. Let nothing else run.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from benchmarks.common.tables import aligned

EXAMPLES = Path(__file__).parents[2] / "examples"
BUSY = "while True: pass"
CALLS = """
import sys, time
if sys.argv[3] == "torch first":
    import torch
from segrefiner import Refiner
from segrefiner.imaging.reading import read_image, read_mask
refiner, photo, mask = Refiner.from_pretrained(), read_image(sys.argv[1]), read_mask(sys.argv[2])
refiner(photo, mask)
print("ready", flush=True)
for _ in sys.stdin:
    started = time.perf_counter()
    refiner(photo, mask)
    print(time.perf_counter() - started, flush=True)
"""


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that each keep a core busy."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


class Caller:
    """A process that refines a photo whenever it is asked to.

    Args:
        order: "torch first", or "segrefiner first".
        image: The photo's file.
        mask: The coarse mask's file.
    """

    def __init__(self, order: str, image: Path, mask: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CALLS, str(image), str(mask), order],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._answer()
        self.alone: list[float] = []
        self.beside: list[float] = []

    def __call__(self) -> float:
        """Seconds of a call."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer())

    def end(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process that refines the photo has ended")
        return line


@click.command()
@click.argument("image", type=click.Path(path_type=Path, exists=True), default=EXAMPLES / "car.jpg")
@click.argument("mask", type=click.Path(path_type=Path, exists=True), default=EXAMPLES / "car_coarse.png")
@click.option("--rounds", default=5, show_default=True)
def main(image: Path, mask: Path, rounds: int) -> None:
    """Refine one photo beside busy processes."""
    cores = len(os.sched_getaffinity(0))
    callers = {order: Caller(order, image, mask) for order in ("torch first", "segrefiner first")}
    for _ in range(rounds):
        for caller in callers.values():
            caller.alone.append(caller())
        for caller in callers.values():
            with busy(cores):
                caller.beside.append(caller())
    print(f"{image.name}, {cores} cores, a busy process for each, medians of {rounds}\n")
    lines = [["imported", "s alone", "s beside busy processes", "x alone"]]
    for name, caller in callers.items():
        caller.end()
        alone, beside = statistics.median(caller.alone), statistics.median(caller.beside)
        lines.append([name, f"{alone:.2f}", f"{beside:.2f}", f"{beside / alone:.1f}"])
    print(aligned(lines))


if __name__ == "__main__":
    main()
