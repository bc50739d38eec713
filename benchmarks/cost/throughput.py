"""Images per second of jobs against the network alone, and what the rest is.

    python -m benchmarks.cost.throughput STREET [--scenes 26] [--rounds 3] [--workers 1]

The jobs `folder`, `coco` and `semantic` over the same scenes, each in turns with the network alone, which evaluates
tensors of exactly the shapes that the job gave it. Ratios are of neighbouring runs, so that a machine that is busy with
other things slows both. Printed are images per second, the share that the network alone takes of the job's time, and
the seconds of the processor by part: the network, the rest of refining, this process beside it, and the workers that
decode and encode. Waiting is the time by the clock for which the model had nothing to do.
"""

import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
from PIL import Image

from benchmarks.common import street
from benchmarks.common.tables import aligned
from benchmarks.service.cluster import jobs, make
from segrefiner import Refiner
from segrefiner.imaging.label_files import read_labels
from segrefiner.jobs import local
from segrefiner.jobs.folders import folder_job
from segrefiner.jobs.job import Job, refine
from segrefiner.jobs.run import run

PARTS = ("network", "refining", "beside", "workers")
_ROAD = street.CLASSES.index("road")


@dataclass
class Taken:
    """What one run took.

    Attributes:
        clock: Seconds by the clock.
        cpu: Seconds of the processor by part.
        waiting: Seconds by the clock in which the model had nothing to do.
        shapes: Of the tensors that the network was given.
    """

    clock: float = 0.0
    cpu: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    waiting: float = 0.0
    shapes: list[tuple[int, ...]] = field(default_factory=list)


@contextmanager
def watched(refiner: Refiner, taken: Taken) -> Iterator[None]:
    """The network, refining and waiting of a job report what they take."""
    backend, result = refiner.backend, local._Call.result

    def network(x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        started = time.process_time()
        found = backend(x, timesteps)
        taken.cpu["network"] += time.process_time() - started
        taken.shapes.append(tuple(x.shape))
        return found

    network.config, network.device, network.dtype = backend.config, backend.device, backend.dtype  # type: ignore[attr-defined]

    def refining(*arguments: Any) -> Any:
        started = time.process_time()
        found = refine(*arguments)
        taken.cpu["refining"] += time.process_time() - started
        return found

    def waited(call: Any) -> Any:
        started = time.perf_counter()
        found = result(call)
        taken.waiting += time.perf_counter() - started
        return found

    with (
        patch.object(refiner, "backend", network),
        patch.object(local, "refine", refining),
        patch.object(local._Call, "result", waited),
    ):
        yield


def of_job(refiner: Refiner, job: Job, state: Path, workers: int) -> Taken:
    """Run a job."""
    taken = Taken()
    own, others, started = time.process_time(), _of_workers(), time.perf_counter()
    with watched(refiner, taken):
        ledger = run(job, local.LocalEngine(refiner, workers), state, config="")
    taken.clock = time.perf_counter() - started
    assert ledger.done and not ledger.failed, ledger
    taken.cpu["workers"] = _of_workers() - others
    taken.cpu["beside"] = time.process_time() - own - taken.cpu["refining"]
    taken.cpu["refining"] -= taken.cpu["network"]
    return taken


def alone(refiner: Refiner, shapes: list[tuple[int, ...]]) -> float:
    """Seconds by the clock that the network takes for tensors of these shapes."""
    started = time.perf_counter()
    with torch.inference_mode():
        for shape in shapes:
            refiner.backend(torch.zeros(shape, device=refiner.device), torch.zeros(shape[0], dtype=torch.int64))
    return time.perf_counter() - started


def _of_workers() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def makers(folder: Path) -> dict[str, Callable[[Path], Job]]:
    """The jobs, each with an output."""
    (folder / "masks").mkdir()
    for path in (folder / "labels").iterdir():
        Image.fromarray(read_labels(path).labels == _ROAD).save(folder / "masks" / path.name)
    others = jobs(folder)
    return {
        "folder": lambda output: folder_job(folder / "images", folder / "masks", output),
        "coco": others["COCO"],
        "semantic": others["label maps"],
    }


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--scenes", default=26, show_default=True)
@click.option("--side", default=480, show_default=True, help="Width of the photos in pixels.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--workers", default=1, show_default=True)
def main(data: Path, scenes: int, side: int, rounds: int, workers: int) -> None:
    """Print a table."""
    refiner = Refiner.from_pretrained()
    shown = "job", "images/s", "network alone, of the time", "waiting, of the time"
    lines = [[*shown, *(f"{part}, of CPU" for part in PARTS)]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        make(data, folder, scenes, side)
        for kind, maker in makers(folder).items():
            runs, shares = [], []
            for number in range(rounds + 1):
                output = Path(name) / f"{kind}_{number}"
                output.mkdir()
                taken = of_job(refiner, maker(output), output / "state", workers)
                shares.append(alone(refiner, taken.shapes) / taken.clock)
                runs.append(taken)
            # The first one warms up.
            runs, shares = runs[1:], shares[1:]
            total = sum(sum(taken.cpu.values()) for taken in runs)
            cpu = [f"{100 * sum(taken.cpu[part] for taken in runs) / total:.0f} %" for part in PARTS]
            speed = scenes / statistics.median(taken.clock for taken in runs)
            waiting = sum(taken.waiting for taken in runs) / sum(taken.clock for taken in runs)
            share = f"{100 * statistics.median(shares):.0f} %"
            lines.append([kind, f"{speed:.2f}", share, f"{100 * waiting:.0f} %", *cpu])
    print(aligned(lines))
    machine = f"{os.cpu_count()} processors, {torch.get_num_threads()} threads"
    print(f"\n{machine}, {workers} workers, {scenes} scenes {side} pixels wide")


if __name__ == "__main__":
    main()
