"""Seconds and peak memory of a refinement, against the photo's size and everything else that can be varied.

    python -m benchmarks.cost.speed [--quick] [--axes megapixels,steps] [--json FILE] [--plot FILE.svg]

From one reference (a photo of 1 megapixel with one object, batches of 8, 6 steps, fp32) one thing at a time is varied.
Times are multiples of the reference, which is measured anew right before every cell, so that a machine that is slower
for a while slows both; the median of several rounds counts. Memory is the peak of a fresh process for each cell.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from math import nan
from pathlib import Path
from statistics import median

import click
import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from benchmarks.common.options import OUTPUT, names_of
from benchmarks.common.plots import Panel, growth_plot
from benchmarks.common.scenes import Scene, scene
from benchmarks.common.tables import aligned
from segrefiner import Refiner, SegRefinerError
from segrefiner.imaging.files import atomic_write, check_output


@dataclass(frozen=True)
class Cell:
    """What is measured. The defaults are the reference.

    Attributes:
        megapixels: Size of the photo.
        objects: On the photo.
        masks: 1 for all objects in one mask, else as many as objects, refined one after the other.
        batch: Views per network evaluation.
        steps: Diffusion steps.
        dtype: "fp32" or "bf16".
    """

    megapixels: float = 1.0
    objects: int = 1
    masks: int = 1
    batch: int = 8
    steps: int = 6
    dtype: str = "fp32"


REFERENCE = Cell()
CROWDED = Cell(objects=30)


@dataclass(frozen=True)
class Axis:
    """One thing that is varied; `quick` are the cells of a quick run."""

    title: str
    cells: dict[float | str, Cell]
    quick: tuple[float | str, ...]


AXES = {
    "megapixels": Axis(
        "photo, megapixels", {m: Cell(megapixels=m) for m in (0.25, 1, 4, 9, 16, 25)}, quick=(0.25, 1, 4)
    ),
    "objects": Axis("objects in one mask", {n: Cell(objects=n) for n in (1, 3, 10, 30, 100)}, quick=(1, 10)),
    "masks": Axis("masks of one photo", {n: Cell(objects=n, masks=n) for n in (1, 3, 10, 30, 100)}, quick=(1, 10)),
    "batch": Axis("batch size, 30 objects", {n: replace(CROWDED, batch=n) for n in (1, 2, 4, 8, 16, 32)}, quick=(1, 8)),
    "steps": Axis("diffusion steps", {n: Cell(steps=n) for n in range(1, 7)}, quick=(1, 6)),
    "dtype": Axis("precision", {d: Cell(dtype=d) for d in ("fp32", "bf16")}, quick=("fp32", "bf16")),
}


@dataclass(frozen=True)
class Figures:
    """What a cell cost.

    Attributes:
        seconds: Median of the rounds, for the whole photo.
        per_mask: The same for each mask.
        ratio: Median of the rounds' multiples of the reference.
        ratio_low: Least of them.
        ratio_high: Largest of them.
        evaluations: Views that the network saw, once per step.
        peak_gib: Largest resident memory of a fresh process, which loads the model and refines, in GiB.
        working_gib: By how much that is above what it held with model and photo loaded.
        gpu_gib: Largest memory that PyTorch held on the GPU, if there is one.
    """

    seconds: float
    per_mask: float
    ratio: float
    ratio_low: float
    ratio_high: float
    evaluations: int
    peak_gib: float = nan
    working_gib: float = nan
    gpu_gib: float = nan


@dataclass(frozen=True)
class Model:
    """Which weights on which device."""

    weights: str | None
    device: str


def run(model: Model, cell: Cell, photo: Scene) -> tuple[float, int]:
    """Seconds and network evaluations of one photo, all of its masks together."""
    refiner = _refiner(model, cell.dtype, cell.batch)
    masks = photo.coarse if cell.masks > 1 else [np.logical_or.reduce(photo.coarse)]
    started = time.perf_counter()
    results = refiner.many(((photo.image, mask) for mask in masks), steps=cell.steps)
    evaluations = sum(result.report.evaluations for result in results)
    return time.perf_counter() - started, evaluations


@cache
def _refiner(model: Model, dtype: str, batch: int) -> Refiner:
    loaded = Refiner.from_pretrained(model.weights, device=model.device, dtype=dtype)
    return Refiner(loaded.backend, name=loaded.name, steps=loaded.steps, batch=batch)


_scene = cache(scene)


def measure(model: Model, cells: Sequence[Cell], rounds: int, console: Console) -> dict[Cell, Figures]:
    """Times of all cells, each next to the reference, all of them once a round."""
    run(model, REFERENCE, _scene(REFERENCE.megapixels, REFERENCE.objects))  # warm-up
    seconds: dict[Cell, list[float]] = {cell: [] for cell in cells}
    ratios: dict[Cell, list[float]] = {cell: [] for cell in cells}
    evaluations = {}
    for cell in track([*cells] * rounds, description="time", console=console):
        reference, _ = run(model, REFERENCE, _scene(REFERENCE.megapixels, REFERENCE.objects))
        taken, evaluations[cell] = run(model, cell, _scene(cell.megapixels, cell.objects))
        seconds[cell].append(taken)
        ratios[cell].append(taken / reference)
    return {
        cell: Figures(
            seconds=median(seconds[cell]),
            per_mask=median(seconds[cell]) / cell.masks,
            ratio=median(ratios[cell]),
            ratio_low=min(ratios[cell]),
            ratio_high=max(ratios[cell]),
            evaluations=evaluations[cell],
        )
        for cell in cells
    }


def with_memory(model: Model, cell: Cell, figures: Figures) -> Figures:
    """The figures with the memory that a fresh process needs for the cell."""
    photo = _scene(cell.megapixels, cell.objects)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.npz"
        # Made here, not in the process that is measured. Masks that come one after the other need no more than three.
        np.savez(path, image=photo.image, coarse=photo.coarse[:3] if cell.masks > 1 else photo.coarse)
        given = json.dumps({"model": asdict(model), "cell": asdict(cell), "scene": str(path)})
        command = [sys.executable, "-m", "benchmarks.cost.speed", "--memory-of", given]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return replace(figures, **json.loads(done.stdout))


def _print_memory(given: str) -> None:
    """What a process started by `with_memory` does."""
    work = json.loads(given)
    model, cell = Model(**work["model"]), Cell(**work["cell"])
    with np.load(work["scene"]) as arrays:
        photo = Scene(arrays["image"], list(arrays["coarse"]))
    device = _refiner(model, cell.dtype, cell.batch).device
    loaded, _ = _resident()
    run(model, cell, photo)
    _, peak = _resident()
    gpu = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else nan
    print(json.dumps({"peak_gib": peak, "working_gib": peak - loaded, "gpu_gib": gpu}))


def _resident() -> tuple[float, float]:
    """Resident memory in GiB, now and at its peak; NaN where there is no Linux to ask.

    Not `resource.getrusage`: its peak is at least that of the process which started this one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return nan, nan
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return tuple(int(fields[name].split()[0]) / 2**20 for name in ("VmRSS", "VmHWM"))


def table(axes: Sequence[str], chosen: dict[str, list[float | str]], figures: dict[Cell, Figures]) -> str:
    """A Markdown table, one line for each value of each axis."""
    gpu = any(f.gpu_gib == f.gpu_gib for f in figures.values())
    head = ["varied", "value", "s per photo", "s per mask", "x reference", "range", "views", "peak GiB", "working GiB"]
    lines = [head + ["GPU GiB"] * gpu]
    for axis in axes:
        for value in chosen[axis]:
            f = figures[AXES[axis].cells[value]]
            line = [AXES[axis].title, f"{value}", f"{f.seconds:.2f}", f"{f.per_mask:.2f}", f"{f.ratio:.2f}"]
            line += [f"{f.ratio_low:.2f}-{f.ratio_high:.2f}", f"{f.evaluations}"]
            line += [f"{f.peak_gib:.2f}", f"{f.working_gib:.2f}"] + [f"{f.gpu_gib:.2f}"] * gpu
            lines.append(["-" if entry == "nan" else entry for entry in line])
    return aligned(lines)


def plot(axes: Sequence[str], chosen: dict[str, list[float | str]], figures: dict[Cell, Figures]) -> str:
    """The SVG of all axes whose values are numbers."""
    reference = figures[REFERENCE]
    panels = []
    for axis in axes:
        values = [value for value in chosen[axis] if not isinstance(value, str)]
        if len(values) < 2:
            continue
        own = [figures[AXES[axis].cells[value]] for value in values]
        lines = [[f.ratio for f in own]]
        if reference.peak_gib == reference.peak_gib:
            lines.append([f.peak_gib / reference.peak_gib for f in own])
        panels.append(Panel(AXES[axis].title, values, lines))
    heading = f"Cost in multiples of 1 megapixel, 1 object, 6 steps ({reference.seconds:.1f} s)"
    return growth_plot(panels, heading, ("seconds per photo", "peak memory of the process")[: len(panels[0].lines)])


@click.command()
@click.option("--quick", is_flag=True, help="Fewer values and one round.")
@click.option("--axes", default=",".join(AXES), show_default=True, callback=names_of(AXES), help="What is varied.")
@click.option("--rounds", default=3, show_default=True, help="Times that every cell is measured; 1 with --quick.")
@click.option("--memory/--no-memory", default=True, show_default=True, help="Peak memory, one more process per cell.")
@click.option("--model", help="Weights, as for `segrefiner refine`.")
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "json_file", type=OUTPUT, help="All figures.")
@click.option("--plot", "plot_file", type=OUTPUT, help="SVG of how cost grows.")
@click.option("--memory-of", hidden=True)
def main(
    quick: bool,
    axes: list[str],
    rounds: int,
    memory: bool,
    model: str | None,
    device: str,
    json_file: Path | None,
    plot_file: Path | None,
    memory_of: str | None,
) -> None:
    """Measure what a refinement costs, one thing varied at a time."""
    if memory_of is not None:
        _print_memory(memory_of)
        return
    console, subject = Console(stderr=True), Model(model, device)
    chosen = {name: list(AXES[name].quick if quick else AXES[name].cells) for name in axes}
    cells = list(dict.fromkeys([REFERENCE, *(AXES[name].cells[value] for name in axes for value in chosen[name])]))
    if plot_file is not None and axes == ["dtype"]:
        raise click.BadParameter("there is nothing to draw of dtype alone: add another axis")
    try:
        for path in filter(None, (json_file, plot_file)):
            check_output(path, suffix=None)
        figures = measure(subject, cells, 1 if quick else rounds, console)
        if memory:
            for cell in track(cells, description="memory", console=console):
                figures[cell] = with_memory(subject, cell, figures[cell])
        about = _about(_refiner(subject, REFERENCE.dtype, REFERENCE.batch))
        results = [{**asdict(cell), **_finite(asdict(f))} for cell, f in figures.items()]
        content = json.dumps({"machine": about, "reference": asdict(REFERENCE), "cells": results}, indent=1)
        if json_file is not None:
            atomic_write(json_file, lambda stream: stream.write(f"{content}\n".encode()))
        if plot_file is not None:
            drawn = plot(axes, chosen, figures)
            atomic_write(plot_file, lambda stream: stream.write(drawn.encode()))
    except SegRefinerError as error:
        raise click.ClickException(str(error)) from error
    print(table(axes, chosen, figures))
    print("\n" + ", ".join(f"{name} {value}" for name, value in about.items()))


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    return {name: None if value != value else value for name, value in figures.items()}


def _about(refiner: Refiner) -> dict[str, str | int]:
    cuda = refiner.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(refiner.device) if cuda else platform.machine(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "weights": refiner.name,
    }


if __name__ == "__main__":
    main()
