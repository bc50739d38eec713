"""The ways through a photo that a `Refiner` can take: ours, and the two published ones."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from torch import Generator, Tensor

from . import published
from .batches import Batches
from .errors import InputError
from .model.diffusion import NUM_TIMESTEPS, Network, OnProgress, Progress
from .pipeline import Job, Refined, refine_masks


class Pipeline(Protocol):
    """A way through the photo: which views the network sees, at which scale, in which order."""

    def __call__(
        self, network: Network, jobs: Sequence[Job], *, steps: int, batches: Batches, on_progress: OnProgress
    ) -> Iterator[Refined]:
        """Gives what becomes of each job, in order."""
        ...


default_pipeline: Pipeline = refine_masks
"""Each object as a whole, then tiles along its contour, with the monotone sampler."""


def _published(run: Callable[..., Tensor], smallest: int) -> Pipeline:
    """A published pipeline, for photos of at least so many pixels on each side; it holds nothing back."""

    def pipeline(
        network: Network, jobs: Sequence[Job], *, steps: int, batches: Batches, on_progress: OnProgress
    ) -> Iterator[Refined]:
        for job in jobs:
            _check_published(steps, job.image, smallest)
            stages: dict[str, int] = {}

            def follow(progress: Progress, stages: dict[str, int] = stages) -> None:
                stages[progress.stage] = progress.done
                on_progress(progress)

            generator = Generator().manual_seed(job.seed)
            mask = run(network, job.image, job.mask, generator, batches=batches, on_progress=follow)
            yield Refined(mask.float(), (), sum(stages.values()))

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


semantic_pipeline = _published(published.semantic, published.PATCH)
"""The published pipeline for high-resolution masks, with its fixed timesteps and its ancestral sampler."""

instance_pipeline = _published(published.instance, 1)
"""The published pipeline for one instance, with its fixed timesteps and its ancestral sampler."""
