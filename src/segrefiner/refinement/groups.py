"""Masks refined in groups: the pipeline's answers, held within the options, each with its report."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..imaging.boxes import Box
from .options import Options
from .pipelines.acceptance import limit_changes
from .pipelines.tasks import MaskTask, TaskResult, next_group, nothing_to_do
from .report import Report, make_report

Refined = tuple[Tensor, Report]
"""The probability `(H, W)` float32 of a refined mask, on the CPU, and what changed."""


@dataclass(frozen=True)
class GroupSettings:
    """What all masks of some groups share.

    Attributes:
        steps: Diffusion steps.
        options: How far masks may change.
        model: Name of the weights, for reports.
    """

    steps: int
    options: Options
    model: str


def refine_groups(
    pipeline: Callable[[Sequence[MaskTask]], Iterator[TaskResult]],
    tasks: Iterator[MaskTask],
    device: torch.device,
    settings: GroupSettings,
) -> Iterator[Refined]:
    """Refines masks, as many at once as a group holds.

    Args:
        pipeline: Gives the result of each task that has something to refine, in order.
        tasks: Photos on the device, masks on the CPU; read a group ahead of the results.
        device: Where the pipeline computes.
        settings: What the masks share.

    Yields:
        What becomes of each mask, in order; `report.seconds` is its share of its group's time.

    Raises:
        Exception: Whatever the tasks or the pipeline raise, after the results of all masks before.
    """
    error: Exception | None = None
    while error is None:
        group, error = next_group(tasks)
        started = time.perf_counter()
        results: list[Refined] = []
        try:
            _refine_group(pipeline, group, results, device, settings)
        except Exception as failure:
            error = failure
        seconds = (time.perf_counter() - started) / max(1, len(group))
        for probability, report in results:
            yield probability, replace(report, seconds=seconds)
        if not group:
            break
    if error is not None:
        raise error


def _refine_group(
    pipeline: Callable[[Sequence[MaskTask]], Iterator[TaskResult]],
    group: list[MaskTask],
    results: list[Refined],
    device: torch.device,
    settings: GroupSettings,
) -> None:
    """Appends the result of each task, up to one that fails."""
    notes = [nothing_to_do(task.mask) for task in group]
    # A mode of the program around would round what must be exact.
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        trust = settings.options.trust
        work = [
            replace(task, mask=task.mask.to(device), trust=trust)
            for task, note in zip(group, notes, strict=True)
            if not note
        ]
        refined = pipeline(work) if work else iter(())
        for task, note in zip(group, notes, strict=True):
            one = TaskResult(task.mask.float(), (), 0) if note else next(refined)
            results.append(_reported(task, one, note, settings))


def _reported(task: MaskTask, one: TaskResult, note: str, settings: GroupSettings) -> Refined:
    """The probability within the options, and the report on the task's object."""
    probability, options = one.probability.float().cpu(), settings.options
    height, width = task.mask.shape
    area = one.area or Box(0, 0, width, height)
    pixels = math.prod(task.part.window.photo if task.part else (height, width))
    given, part = area.crop(task.mask[None])[0], area.crop(probability[None])[0]
    settled, far, unsure = limit_changes(part, given, max_shift=options.max_shift, strength=options.strength)
    if settled is not part:
        part.copy_(settled)
    if one.owned is not None:
        own = one.owned.cpu()
        given, settled = given & own, settled * own
    report = make_report(given, settled, one.reverted, far=far, unsure=unsure, pixels=pixels)
    return probability, replace(
        report,
        evaluations=one.evaluations,
        steps=settings.steps,
        model=settings.model,
        seed=task.seed,
        note=note,
        warnings=task.notes,
    )
