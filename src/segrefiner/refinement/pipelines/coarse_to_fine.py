"""The default pipeline: each object as a whole first, then finer and finer tiles along its contour.

The coarse mask's parts are gathered into objects. Every object is refined in one view, its box with context, whatever
its size in the photo; then tiles at …, 4, 2 and 1 photo pixels per tile pixel follow its contour, as far as they are
finer than that view, and for objects that are not large tiles of the enlarged photo. Views are blended by smooth
windows, and pixels that no view covers keep the coarse mask. `edges` draws contours to the photo's edges, and
`acceptance` decides what of all this is kept.

Objects of one mask, of several masks and of several photos go through the levels side by side. Where batches are
shared, their views fill them together; otherwise each object's views have batches of their own, so that its result is
the same to the bit whatever else is refined with it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain

import torch
from torch import Tensor

from ...imaging.boxes import Box
from ...imaging.edges import SnappedBlocks, snap_to_edges
from ...model.diffusion import NUM_TIMESTEPS, Network, OnProgress, Progress, Stage, sample, silent, spaced_timesteps
from ...model.unet import normalize
from .acceptance import KeptReason, OnReverted, Reverted, accept_snapped, ignore_reverted, revert_unsupported
from .batching import AdaptiveBatcher
from .canvas import Canvas
from .changes import ChangedMask
from .config import DEFAULT, PipelineConfig
from .tasks import MaskTask, Pipeline, TaskResult
from .views import View, object_area, tile_scales, worth_refining

__all__ = ["changed_objects", "refine_mask", "refine_masks"]


def refine_masks(
    network: Network,
    jobs: Sequence[MaskTask],
    steps: int = NUM_TIMESTEPS,
    *,
    config: PipelineConfig = DEFAULT,
    batches: AdaptiveBatcher | None = None,
    on_progress: OnProgress = silent,
) -> Iterator[TaskResult]:
    """The default pipeline for several masks at once.

    A mask's result does not depend on the others; where batches are shared, it does by rounding.

    Args:
        network: The denoising network.
        jobs: Masks of one photo or of several.
        steps: Diffusion steps of the object views, 1 to 6.
        config: The pipeline's choices.
        batches: Which views the network sees at once, by default 8 of one object; of smaller ones than the patch as
            many more.
        on_progress: Called after each network evaluation.

    Yields:
        The result of each job, in order.
    """
    plans = [_Plan.of(job, config) for job in jobs]
    canvases = [canvas for plan in plans for canvas in plan.canvases]
    run = _Run(network, config, batches or AdaptiveBatcher(8), on_progress)
    run.all_levels(canvases, steps)
    for plan in plans:
        yield plan.result(run.evaluations)


def refine_mask(
    network: Network,
    image: Tensor,
    mask: Tensor,
    steps: int = NUM_TIMESTEPS,
    *,
    seed: int = 0,
    config: PipelineConfig = DEFAULT,
    batches: AdaptiveBatcher | None = None,
    on_progress: OnProgress = silent,
    on_reverted: OnReverted = ignore_reverted,
) -> Tensor:
    """The default pipeline for one mask: `(H, W)` float32, the probability of the refined one.

    Args:
        network: The denoising network.
        image: `(3, H, W)` uint8, RGB.
        mask: `(H, W)` bool, the coarse mask.
        steps: Diffusion steps of the object views, 1 to 6.
        seed: Of the thresholds that decide when a pixel moves to fine.
        config: The pipeline's choices.
        batches: Which views the network sees at once; by default 8 of one object.
        on_progress: Called after each network evaluation.
        on_reverted: Called with what was taken back of each object.
    """
    job = MaskTask(image, mask, seed)
    (refined,) = refine_masks(network, [job], steps, config=config, batches=batches, on_progress=on_progress)
    for reverted in refined.reverted:
        on_reverted(reverted)
    return refined.probability


def changed_objects(
    network: Network, task: MaskTask, steps: int = NUM_TIMESTEPS, *, config: PipelineConfig = DEFAULT
) -> Iterator[tuple[Box, ChangedMask]]:
    """What the default pipeline would change of each of a mask's objects, before acceptance.

    Args:
        network: The denoising network.
        task: A mask of a whole photo.
        steps: Diffusion steps of the object views, 1 to 6.
        config: The pipeline's choices.

    Yields:
        Where an object's masks lie, in photo pixels, and the masks.
    """
    plan = _Plan.of(task, config)
    run = _Run(network, config, AdaptiveBatcher(8), silent)
    run.all_levels(plan.canvases, steps)
    for canvas, pixels in zip(plan.canvases, _owned(plan.boxes, plan.chosen, plan.canvases), strict=True):
        photo = canvas.photo_pixels()
        snapped = _snapped(photo, canvas)
        yield canvas.area, ChangedMask(photo, canvas.probability, canvas.coarse, pixels, canvas.seen, snapped)


@dataclass(frozen=True)
class _Plan:
    """A task's objects and what is drawn on.

    Attributes:
        task: What is refined.
        boxes: Of all of the mask's objects.
        chosen: Places of the objects that are refined, in the list of all.
        canvases: One for each of these.
    """

    task: MaskTask
    boxes: list[Box]
    chosen: list[int]
    canvases: list[Canvas]

    @classmethod
    def of(cls, task: MaskTask, config: PipelineConfig) -> "_Plan":
        boxes, part = task.objects(config), task.part
        chosen = [part.chosen] if part else worth_refining(boxes)
        region = part.window if part else None
        canvases = [Canvas(task.image, task.mask, boxes[i], task.seed, config, region) for i in chosen]
        return cls(task, boxes, chosen, canvases)

    def result(self, evaluations: Mapping[Canvas, int]) -> TaskResult:
        """Takes back what has no support, and joins the objects to one mask."""
        task, canvases = self.task, self.canvases
        owned = _owned(self.boxes, self.chosen, canvases)
        reverted = tuple(
            _revert_unsupported(canvas, pixels, task.trust) for canvas, pixels in zip(canvases, owned, strict=True)
        )
        if len(self.boxes) == 1 and canvases[0].probability.shape == task.mask.shape:
            # The one object's canvas is the photo: nothing is copied.
            probability = canvases[0].probability
        else:
            probability = task.mask.float()
            for canvas, pixels in zip(canvases, owned, strict=True):
                canvas.paste_into(pixels, probability)
        seen = sum(evaluations.get(canvas, 0) for canvas in canvases)
        if task.part:
            about = torch.zeros_like(task.mask)
            canvases[0].window.within(canvases[0].area).paste(owned[0][None], about[None])
            return TaskResult(probability, reverted, seen, owned=about)
        specks = len(self.boxes) - len(canvases)
        reverted += (Reverted(0, KeptReason.SPECK),) * specks
        area = reduce(Box.union, (canvas.area for canvas in canvases)) if canvases and not specks else None
        return TaskResult(probability, reverted, seen, area)


class _Run:
    """What all levels of a run share.

    Attributes:
        evaluations: How many views of each canvas the network saw, each counted once per step.
    """

    def __init__(
        self, network: Network, config: PipelineConfig, batches: AdaptiveBatcher, on_progress: OnProgress
    ) -> None:
        self.network, self.config, self.batches, self.on_progress = network, config, batches, on_progress
        self.evaluations: Counter[Canvas] = Counter()

    def all_levels(self, canvases: Sequence[Canvas], steps: int) -> None:
        """Refines whole objects, then along their contours, coarse to fine."""
        self.level({canvas: [canvas.view] for canvas in canvases}, spaced_timesteps(steps), Stage.WHOLE_OBJECTS)
        tiling = self.config.tiling
        for scale in tile_scales([canvas.seen for canvas in canvases], self.config):
            tiles = {canvas: canvas.tiles(scale) for canvas in canvases}
            self.level(tiles, spaced_timesteps(min(steps, tiling.steps)), Stage.CONTOURS, scale)

    def level(
        self,
        views: Mapping[Canvas, Sequence[View]],
        timesteps: Sequence[int],
        stage: Stage,
        scale: float | None = None,
    ) -> None:
        """Refines the current mask in each view, all of one size, and blends the results into the view's canvas."""
        of_each = [[(canvas, view) for view in mine] for canvas, mine in views.items() if mine]
        if not of_each:
            return
        for group in of_each:
            group[0][0].start_level([view for _, view in group])
        every = list(chain.from_iterable(of_each))
        done, total = 0, len(every) * len(timesteps)

        def evaluate(part: Sequence[tuple[Canvas, View]]) -> tuple[Tensor, Tensor, list[int]]:
            photos, coarse = zip(*(canvas.inputs(view) for canvas, view in part), strict=True)
            draws = [canvas.thresholds(view) for canvas, view in part] if len(timesteps) > 1 else []
            masks = torch.stack(coarse)
            taken, seen = done, [0] * len(part)
            for state in sample(
                self.network,
                normalize(torch.stack(photos)),
                masks,
                timesteps,
                lambda: torch.stack([draw() for draw in draws]),
                converged=-1.0 if masks.is_cuda else self.config.converged,
            ):
                taken += len(part)
                for index in state.seen.tolist() if len(state.seen) < len(part) else range(len(part)):
                    seen[index] += 1
                self.on_progress(Progress(stage, taken, total, state, scale))
            if taken < done + len(part) * len(timesteps):  # All views had converged.
                self.on_progress(Progress(stage, done + len(part) * len(timesteps), total, state, scale))
            return masks, state.probability, seen

        weight = (every[0][1].size / self.config.patch) ** 2
        for group in [every] if self.batches.shared else of_each:
            for part, (masks, results, seen) in self.batches.map(group, evaluate, weight=weight):
                done += len(part) * len(timesteps)
                for (canvas, view), mask, result, times in zip(part, masks, results, seen, strict=True):
                    canvas.blend(view, result, mask)
                    self.evaluations[canvas] += times
        for group in of_each:
            group[0][0].finish_level()


def _owned(boxes: Sequence[Box], places: Sequence[int], canvases: Sequence[Canvas]) -> list[Tensor]:
    """Own pixels of the canvases of one photo, which are those of the boxes at these places in the list of all."""
    areas = [object_area(box, *canvases[0].photo, canvases[0].config) for box in boxes] if canvases else []
    owned = []
    for i, canvas in zip(places, canvases, strict=True):
        near = [k for k, area in enumerate(areas) if area.overlaps(canvas.area)]
        owned.append(canvas.owned_pixels([boxes[k] for k in near if k < i], [boxes[k] for k in near if k > i]))
    return owned


def _snapped(photo: Tensor, canvas: Canvas) -> SnappedBlocks | None:
    """An object's probability with its contour drawn to the photo's edges, where that is asked for."""
    config = canvas.config
    if not config.edge_radius:
        return None
    return snap_to_edges(photo, canvas.probability, config.edge_radius, config.edge_smoothness)


def _revert_unsupported(canvas: Canvas, pixels: Tensor, trust: float | None) -> Reverted:
    """Takes back what one object's refinement changed without enough reason."""
    photo, acceptance = canvas.photo_pixels(), canvas.config.acceptance
    snapped = _snapped(photo, canvas)
    if acceptance is not None and trust is not None:
        acceptance = replace(acceptance, trust=trust) if trust > 0 else None
    if acceptance is None:
        if snapped is not None:
            accept_snapped(canvas.probability, pixels, snapped)
        return Reverted(0, None)
    return revert_unsupported(
        photo, canvas.probability, canvas.coarse, pixels, acceptance, scale=canvas.seen, snapped=snapped
    )


default_pipeline: Pipeline = refine_masks
"""Each object as a whole, then tiles along its contour, with the monotone sampler."""
