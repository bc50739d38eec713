"""The discrete diffusion between fine and coarse mask (arXiv 2312.12425, sections 3.2 and 3.3).

Every pixel is in one of two states, fine or coarse. Forward, in training, pixels fall from fine to coarse, so the
process ends at the coarse mask for certain. Reverse, in inference, they rise from coarse to fine, the sooner the more
confident the network is of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Generator, Tensor

NUM_TIMESTEPS = 6

Network = Callable[[Tensor, Tensor], Tensor]
"""`(x (B, 4, H, W), timesteps (B,) int64) → logits (B, 1, H, W)`."""

Uniform = Callable[[], Tensor]
"""Gives the uniform numbers `(B, 1, H, W)` in [0, 1) that decide which pixels are fine after a step."""


def keep_fine_schedule(num_timesteps: int = NUM_TIMESTEPS) -> Tensor:
    """Probability `(T,)` that a pixel is still fine at each timestep: linear from 0.8 at t = 0 to 0 at T - 1.

    >>> from segrefiner.model.diffusion import keep_fine_schedule
    >>> keep = keep_fine_schedule()
    >>> [round(value, 2) for value in keep.tolist()]
    [0.8, 0.64, 0.48, 0.32, 0.16, 0.0]
    """
    return torch.linspace(0.8, 0.0, num_timesteps, dtype=torch.float32, device="cpu")


def forward_sample(fine: Tensor, coarse: Tensor, timesteps: Tensor, uniform: Tensor) -> Tensor:
    """Mixed masks by the closed-form marginal: fine where `uniform < keep_fine[t]`, else coarse.

    Args:
        fine: `(B, 1, H, W)`, the truth.
        coarse: `(B, 1, H, W)`.
        timesteps: `(B,)` int64 in 0 … T-1.
        uniform: `(B, 1, H, W)` in [0, 1), one draw per pixel.

    >>> import torch
    >>> from segrefiner.model.diffusion import forward_sample
    >>> fine, coarse = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    >>> mixed = forward_sample(fine, coarse, torch.tensor([0, 5]), torch.full((2, 1, 4, 4), 0.5))
    >>> mixed.mean(dim=(1, 2, 3)).tolist()  # All fine at t = 0, where 0.5 < 0.8; all coarse at the end.
    [1.0, 0.0]
    """
    keep = keep_fine_schedule().to(uniform)[timesteps].view(-1, 1, 1, 1)
    return torch.where(uniform < keep, fine, coarse)


def spaced_timesteps(steps: int, num_timesteps: int = NUM_TIMESTEPS) -> list[int]:
    """Timesteps of `steps` network evaluations, from T-1 down, evenly spaced. Raises `ValueError` outside 1 … T.

    >>> from segrefiner.model.diffusion import spaced_timesteps
    >>> for steps in (1, 3, 6):
    ...     print(spaced_timesteps(steps))
    [5]
    [5, 2, 0]
    [5, 4, 3, 2, 1, 0]
    """
    if not 1 <= steps <= num_timesteps:
        raise ValueError(f"steps is {steps}: expected 1 to {num_timesteps}")
    return torch.linspace(num_timesteps - 1, 0, steps, dtype=torch.float32, device="cpu").round().int().tolist()


def confidence(probability: Tensor) -> Tensor:
    """`2·|probability - 0.5|`, in [0, 1]."""
    return 2 * (probability - 0.5).abs()


def transition_to_fine(confidence: Tensor, timestep: int, next_timestep: int) -> Tensor:
    """Probability that a pixel that is coarse at `timestep` is fine at `next_timestep` (-1 is the end).

    Bayes' rule for the forward marginals, weighted by the network's confidence p (section 3.3):
    `p·(keep[s] - keep[t]) / (1 - p·keep[t])` for t → s; for neighbours this is the published step.

    >>> import torch
    >>> from segrefiner.model.diffusion import transition_to_fine
    >>> [round(value, 3) for value in transition_to_fine(torch.tensor([0.0, 0.5, 1.0]), 5, 4).tolist()]
    [0.0, 0.08, 0.16]
    """
    keep = keep_fine_schedule()
    here = float(keep[timestep])
    there = float(keep[next_timestep]) if next_timestep >= 0 else 1.0
    return confidence * (there - here) / (1 - confidence * here)


@dataclass(frozen=True)
class State:
    """What is known after a step; all tensors `(B, 1, H, W)` float.

    Attributes:
        timestep: The step's timestep.
        probability: Sigmoid of the network's logit: the fine mask as seen now.
        fine_prob: Accumulated probability that a pixel has moved to fine.
        mixed: The mask that goes into the next step; after the last one, `probability >= 0.5`.
        seen: `(b,)` int64, which views the network saw in this step; the others had converged.
    """

    timestep: int
    probability: Tensor
    fine_prob: Tensor
    mixed: Tensor
    seen: Tensor


class Stage(StrEnum):
    """What a pipeline looks at."""

    WHOLE_OBJECTS = "whole objects"
    CONTOURS = "contours"
    WHOLE_PHOTO = "whole photo"
    PATCHES = "patches"
    OBJECT = "object"


@dataclass(frozen=True)
class Progress:
    """How far a pipeline has come.

    Attributes:
        stage: What it looks at now.
        done: Network evaluations done in this stage; a view counts once per step.
        total: Network evaluations of this stage.
        state: State of the views that were evaluated last.
        scale: Photo pixels per pixel of the tiles along contours; `None` in other stages.
    """

    stage: Stage
    done: int
    total: int
    state: State
    scale: float | None = None

    @property
    def description(self) -> str:
        """The stage in plain words, with its scale."""
        return self.stage if self.scale is None else f"{self.stage}, 1:{self.scale:g}"


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Takes no notice of progress."""


def sample(
    network: Network,
    image: Tensor,
    coarse: Tensor,
    timesteps: Sequence[int],
    uniform: Uniform,
    *,
    converged: float = -1.0,
) -> Iterator[State]:
    """The reverse process, state by state.

    Args:
        network: The denoising network.
        image: `(B, 3, H, W)` float, normalised.
        coarse: `(B, 1, H, W)` float in {0, 1}.
        timesteps: Descending, within 0 … T-1.
        uniform: Called exactly once per step that is not the last: `ancestral` or `monotone`.
        converged: A view takes no further step once its mixed mask differs from the fine mask as seen now, and that
            from the one before, in this share of its pixels at most; below 0 for never. On a GPU, each step then
            waits for the one before.

    Yields:
        The state after each step; the last one's `probability` is the result.

    >>> import torch
    >>> from segrefiner.model.diffusion import monotone, sample, spaced_timesteps
    >>> def network(x, timesteps):  # It would rather have all pixels.
    ...     return torch.ones_like(x[:, :1])
    >>> photo, coarse = torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    >>> thresholds = torch.full((1, 1, 8, 8), 0.5)
    >>> for state in sample(network, photo, coarse, spaced_timesteps(3), lambda: thresholds):
    ...     print(state.timestep, round(float(state.fine_prob.mean()), 2), int(state.mixed.sum()))
    5 0.22 0
    2 0.37 0
    0 0.46 64
    """
    mixed, fine, fine_prob, logits = coarse, coarse, torch.zeros_like(coarse), coarse
    left = torch.arange(len(image), device=image.device)
    for index, timestep in enumerate(timesteps):
        last = index == len(timesteps) - 1
        after = -1 if last and timestep == 0 else timestep - 1 if last else timesteps[index + 1]
        batch = torch.full((len(left),), timestep, dtype=torch.int64, device=image.device)
        whole = len(left) == len(image)
        shown = torch.cat([image, mixed], dim=1)
        now = network(shown if whole else shown[left], batch).to(coarse.dtype)
        before = fine
        logits = now if whole else logits.index_copy(0, left, now)
        probability, fine = logits.sigmoid(), (logits >= 0).to(coarse.dtype)
        fine_prob = fine_prob + (1 - fine_prob) * transition_to_fine(confidence(probability), timestep, after)
        mixed = fine if last else torch.where(uniform() < fine_prob, fine, coarse)
        yield State(timestep, probability, fine_prob, mixed, left)
        if converged >= 0 and not last:
            moving = torch.maximum(_fraction(mixed != fine), _fraction(fine != before))
            left = left[moving[left] > converged]
            if not len(left):
                return


def _fraction(pixels: Tensor) -> Tensor:
    """Share `(B,)` of the pixels `(B, 1, H, W)` bool of each view that are set."""
    return pixels.flatten(1).float().mean(dim=1)


def ancestral(shape: Sequence[int], generator: Generator) -> Uniform:
    """The published sampler: fresh uniform numbers for every step."""
    return lambda: torch.rand(tuple(shape), generator=generator, dtype=torch.float32, device=generator.device)


def monotone(thresholds: Tensor) -> Uniform:
    """The default sampler: every pixel keeps one threshold, so it moves to fine once and never back."""
    return lambda: thresholds


# Roberts' R2 sequence: multiples of the plastic number's inverse powers fill the plane with low discrepancy.
_R2_X, _R2_Y = 3242174889, 2447445414
_GOLDEN = 2654435769
_MODULUS = 2**32


def pixel_thresholds(x0: int, y0: int, width: int, height: int, seed: int) -> Tensor:
    """Low-discrepancy thresholds `(height, width)` float32 in [0, 1): a function of pixel coordinates and seed alone.

    Tiles that overlap get the same thresholds where they overlap. Over seeds, each pixel's threshold is uniform.
    """
    x = (torch.arange(x0, x0 + width, dtype=torch.int64, device="cpu") * _R2_X) % _MODULUS
    y = (torch.arange(y0, y0 + height, dtype=torch.int64, device="cpu") * _R2_Y) % _MODULUS
    start = (seed * _GOLDEN) % _MODULUS
    # The upper 24 bits: float32 holds them exactly, so no value rounds up to 1.
    return ((((x[None, :] + y[:, None] + start) % _MODULUS) >> 8).double() / 2**24).float()
