"""The two published pipelines, faithful to the published code's figures and to its faults.

They are for the published checkpoints and for comparison; `coarse_to_fine.refine_mask` is what users should run. Both
take any size of network; patches are 256x256 pixels.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ...errors import InputError
from ...imaging.boxes import mask_box, non_maximum_suppression
from ...model.diffusion import NUM_TIMESTEPS, Network, OnProgress, Progress, Stage, ancestral, sample, silent
from ...model.unet import normalize
from .batching import AdaptiveBatcher
from .tasks import MaskTask, Pipeline, TaskResult

_GLOBAL_TIMESTEPS = (5, 4, 3, 2, 1)
_ALL_TIMESTEPS = (5, 4, 3, 2, 1, 0)
_UNCERTAIN = 0.9
_NMS_IOU = 0.3
_INSTANCE_PAD = 20
_INSTANCE_MIN_AREA = 512


def _published(run: Callable[..., Tensor], smallest: int) -> Pipeline:
    """A published pipeline, for photos of at least so many pixels on each side; it holds nothing back."""

    def pipeline(
        network: Network, jobs: Sequence[MaskTask], *, steps: int, batches: AdaptiveBatcher, on_progress: OnProgress
    ) -> Iterator[TaskResult]:
        for job in jobs:
            _check_published(steps, job.image, smallest)
            stages: dict[str, int] = {}

            def follow(progress: Progress, stages: dict[str, int] = stages) -> None:
                stages[progress.stage] = progress.done
                on_progress(progress)

            generator = Generator().manual_seed(job.seed)
            mask = run(network, job.image, job.mask, generator, batches=batches, on_progress=follow)
            yield TaskResult(mask.float(), (), sum(stages.values()))

    return pipeline


def _check_published(steps: int, image: Tensor, smallest: int) -> None:
    if steps != NUM_TIMESTEPS:
        raise InputError(f"steps is {steps}: the published pipelines have {NUM_TIMESTEPS} fixed steps; leave it out")
    height, width = image.shape[-2:]
    if min(height, width) < smallest:
        raise InputError(
            f"the photo is {width}x{height}: the published semantic pipeline needs {smallest} pixels "
            "on each side; use the default pipeline"
        )


PATCH = 256


def semantic(
    network: Network,
    image: Tensor,
    mask: Tensor,
    generator: Generator,
    *,
    batches: AdaptiveBatcher | None = None,
    on_progress: OnProgress = silent,
) -> Tensor:
    """The published pipeline for semantic and dichotomous masks: one global pass, then native patches.

    Args:
        network: The denoising network.
        image: `(3, H, W)` uint8, RGB.
        mask: `(H, W)` bool, the coarse mask.
        generator: Source of the noise, on the CPU.
        batches: Patches per network evaluation; by default 8.
        on_progress: Called after each network evaluation.

    Returns:
        `(H, W)` bool, the refined mask. Height and width must be at least 256.
    """
    height, width = mask.shape
    photo = normalize(image[None])
    coarse = (_resize(mask[None, None].float(), (PATCH, PATCH), "nearest") >= 0.5).float()
    uniform = ancestral(coarse.shape, generator)
    small = _resize(photo, (PATCH, PATCH), "nearest")
    states = sample(network, small, coarse, _GLOBAL_TIMESTEPS, lambda: uniform().to(coarse.device))
    for done, state in enumerate(states, start=1):
        on_progress(Progress(Stage.WHOLE_PHOTO, done, len(_GLOBAL_TIMESTEPS), state))
    current = _resize((state.probability >= 0.5).float(), (height, width), "nearest")
    boxes = _uncertain_boxes(state.fine_prob[0, 0], height, width)
    patches = [current[0, :, y : y + PATCH, x : x + PATCH] for x, y in boxes]
    chosen = [i for i, patch in enumerate(patches) if bool(patch.any()) and not bool(patch.all())]
    total, count = torch.zeros_like(current[0]), torch.zeros_like(current[0])
    done = 0

    def refined(part: Sequence[int]) -> Tensor:
        views = torch.stack([photo[0, :, y : y + PATCH, x : x + PATCH] for x, y in (boxes[i] for i in part)])
        (state,) = sample(network, views, torch.stack([patches[i] for i in part]), (0,), uniform)
        on_progress(Progress(Stage.PATCHES, done + len(part), len(chosen), state))
        return state.probability

    for part, probabilities in (batches or AdaptiveBatcher(8)).map(chosen, refined):
        done += len(part)
        for i, probability in zip(part, probabilities, strict=True):
            x, y = boxes[i]
            total[:, y : y + PATCH, x : x + PATCH] += probability
            count[:, y : y + PATCH, x : x + PATCH] += 1
    return torch.where(count > 0, total / count.clamp(min=1) >= 0.5, current[0] >= 0.5)[0]


def instance(
    network: Network,
    image: Tensor,
    mask: Tensor,
    generator: Generator,
    *,
    batches: AdaptiveBatcher | None = None,
    on_progress: OnProgress = silent,
) -> Tensor:
    """The published pipeline for one instance: its padded box at 256x256, all six steps.

    Arguments and result as for `semantic`; a mask under 512 pixels comes back unchanged.
    """
    height, width = mask.shape
    box = mask_box(mask)
    if box is None or int(mask.sum()) < _INSTANCE_MIN_AREA:
        return mask
    box = box.grow(_INSTANCE_PAD).clip(height, width)
    view = _resize(normalize(box.crop(image)[None]), (PATCH, PATCH), "bilinear")
    coarse = (_resize(box.crop(mask[None])[None].float(), (PATCH, PATCH), "bilinear") >= 0.5).float()
    uniform = ancestral(coarse.shape, generator)
    states = sample(network, view, coarse, _ALL_TIMESTEPS, lambda: uniform().to(coarse.device))
    for done, state in enumerate(states, start=1):
        on_progress(Progress(Stage.OBJECT, done, len(_ALL_TIMESTEPS), state))
    x = (torch.arange(box.width, dtype=torch.float32, device=mask.device) + 0.5) / box.width * 2 - 1
    y = (torch.arange(box.height, dtype=torch.float32, device=mask.device) + 0.5) / box.height * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    probability = F.grid_sample(state.probability, grid, align_corners=False)
    refined = torch.zeros_like(mask)
    box.paste(probability[0] >= 0.5, refined[None])
    return refined


semantic_pipeline = _published(semantic, PATCH)
"""The published pipeline for high-resolution masks, with its fixed timesteps and its ancestral sampler."""

instance_pipeline = _published(instance, 1)
"""The published pipeline for one instance, with its fixed timesteps and its ancestral sampler."""


def _resize(picture: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    return F.interpolate(picture, size=size, mode=mode, align_corners=None if mode == "nearest" else False)


def _uncertain_boxes(fine_prob: Tensor, height: int, width: int) -> list[tuple[int, int]]:
    """Corners (x, y) of the native patches around pixels that the global pass left uncertain."""
    uncertain = (fine_prob < _UNCERTAIN * fine_prob.max()).nonzero()
    if not len(uncertain):
        return []
    scores = 1 - fine_prob[uncertain[:, 0], uncertain[:, 1]]
    scale = torch.tensor([height / PATCH, width / PATCH], dtype=torch.float32, device=fine_prob.device)
    centre = (uncertain * scale).int()
    limit = torch.tensor([height - PATCH, width - PATCH], device=fine_prob.device)
    corner = torch.minimum((centre - PATCH // 2).clamp(min=0), limit).flip(1)
    boxes = torch.cat([corner, corner + PATCH], dim=1).float()
    kept = non_maximum_suppression(boxes, scores, _NMS_IOU)
    return [(int(x), int(y)) for x, y in corner[kept].tolist()]
