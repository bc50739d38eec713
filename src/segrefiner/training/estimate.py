"""What a training run will take: steps, samples, memory and time, by a short measurement."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from .batches import BatchSource
from .recipe import Recipe
from .trainer import Trainer

_MEASURED = 2


@dataclass(frozen=True)
class Measured:
    """What one size of crop takes in this process.

    Attributes:
        size: Side of the crops in pixels.
        steps: Steps of the run at this size.
        crops: Crops of one step in one process.
        seconds: Time of one step, when the batch goes through the network in the parts that were measured.
        memory: Bytes at the peak with one crop at a time.
        memory_per_crop: Bytes that each further crop at a time adds.
    """

    size: int
    steps: int
    crops: int
    seconds: float
    memory: int
    memory_per_crop: int

    @property
    def fitting(self) -> int:
        """Crops at a time that fit the memory that is free now, all of a step at most; 0 where none does."""
        free = _available() - self.memory
        return max(0, min(self.crops, 1 + free // max(1, self.memory_per_crop))) if free >= 0 else 0

    @property
    def total(self) -> int:
        """Bytes at the peak with all crops of a step at a time."""
        return self.memory + (self.crops - 1) * self.memory_per_crop


@dataclass(frozen=True)
class Estimate:
    """What a run will take, by a short measurement on this machine.

    Attributes:
        recipe: The run's recipe.
        photos: Photos to train on.
        parameters: Parameters of the network.
        measured: What each size of crop takes.
        processes: Processes of the run.
    """

    recipe: Recipe
    photos: int
    parameters: int
    measured: tuple[Measured, ...]
    processes: int = 1

    @property
    def hours(self) -> float:
        """Time that all steps take together."""
        return sum(m.steps * m.seconds for m in self.measured) / 3600

    def lines(self) -> list[str]:
        """The plan of the run in sentences, as the command line prints it."""
        recipe, world = self.recipe, self.processes
        epochs = recipe.samples / max(1, self.photos) / getattr(recipe.views, "per_photo", 1)
        lines = [
            f"{self.photos:,} photos, {recipe.samples:,} crops ({epochs:.1f} of each photo), {recipe.steps:,} steps, "
            f"{self.parameters / 1e6:.1f} M parameters, {world} process{'es' * (world > 1)}"
        ]
        for m in self.measured:
            lines.append(
                f"{m.steps:,} steps of {m.crops} crops at {m.size}x{m.size} per process: {m.seconds:.2f} s each, "
                f"{m.total / 2**30:.1f} GiB, of which {m.memory_per_crop / 2**30:.2f} for each crop"
            )
            if m.fitting == 0:
                lines.append("  which does not fit the memory that is free: take a smaller model or size")
            elif m.fitting < m.crops:
                lines.append(f"  which does not fit the memory that is free: run with --micro-batch {m.fitting}")
        return [*lines, f"about {self.hours:.1f} hours in all"]


def measure(trainer: Trainer, feed: BatchSource) -> Iterator[Measured]:
    """Trains on a few crops of each size of a recipe and measures time and memory.

    Args:
        trainer: A new trainer, which has taken steps afterwards and cannot serve for a run.
        feed: The trainer's batches.

    Yields:
        One measurement for each size that the recipe has.
    """
    recipe = trainer.recipe
    sizes = [recipe.is_large(step) for step in range(recipe.steps)]
    for large in (False, True):
        steps = sizes.count(large)
        if not steps:
            continue
        first = sizes.index(large)
        crops = len(trainer.portion(first))
        portion = replace(trainer.portion(first), groups=_first(trainer.portion(first).groups, min(crops, _MEASURED)))
        example = trainer.prepared(next(iter(feed([portion]))), portion)
        peaks, seconds = [], 0.0
        for count in range(1, len(example) + 1):
            _forget_peak(trainer.device)
            started = time.monotonic()
            trainer.learn(example.part(slice(0, count)))
            if trainer.device.type == "cuda":
                torch.cuda.synchronize()
            seconds = (time.monotonic() - started) / count
            peaks.append(_peak(trainer.device))
        per_crop = peaks[-1] - peaks[-2] if len(peaks) > 1 else 0
        yield Measured(portion.size, steps, crops, seconds * crops, peaks[0], max(0, per_crop))


def _first(groups: tuple[range, ...], count: int) -> tuple[range, ...]:
    """The first so many samples of groups."""
    chosen: list[range] = []
    for group in groups:
        left = count - sum(map(len, chosen))
        if left > 0:
            chosen.append(group[:left])
    return tuple(chosen)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    """Bytes at the peak, since `_forget_peak` on a GPU, ever on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _available() -> int:
    """Bytes of memory in all."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1]
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
