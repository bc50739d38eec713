"""`Refiner`: a photo and a coarse mask in, the refined mask and a report of what changed out."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from . import published, weights
from .changes import Report, describe
from .diffusion import NUM_TIMESTEPS, Network, OnProgress, Progress, silent
from .errors import InputError
from .io import ImageSource, MaskSource, check_same_size, read_image, read_mask
from .pipeline import refine_mask
from .settle import Held, OnHeld, not_told, restrain
from .unet import DenoisingUNet


class Pipeline(Protocol):
    """A way through the photo: which views the network sees, at which scale, in which order."""

    def __call__(
        self,
        network: Network,
        image: Tensor,
        mask: Tensor,
        *,
        steps: int,
        seed: int,
        on_progress: OnProgress,
        on_held: OnHeld,
    ) -> Tensor:
        """Gives the refined mask's probability `(H, W)` float of `image` `(3, H, W)` uint8, `mask` `(H, W)` bool."""
        ...


default_pipeline: Pipeline = refine_mask
"""Each object as a whole, then tiles along its contour, with the monotone sampler."""


def _published(run: Callable[..., Tensor], smallest: int) -> Pipeline:
    """A published pipeline, for photos of at least so many pixels on each side; it holds nothing back."""

    def pipeline(
        network: Network,
        image: Tensor,
        mask: Tensor,
        *,
        steps: int,
        seed: int,
        on_progress: OnProgress,
        on_held: OnHeld = not_told,
    ) -> Tensor:
        _check_published(steps, image, smallest)
        return run(network, image, mask, Generator().manual_seed(seed), on_progress=on_progress).float()

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


@dataclass(frozen=True)
class Result:
    """A refined mask.

    Attributes:
        mask: `(H, W)` bool, exactly the input's size.
        probability: `(H, W)` float32 in [0, 1]; `mask` is where it is at least 0.5.
        report: What changed.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]
    report: Report


class Refiner:
    """Refines coarse masks with one set of weights on one device.

    Args:
        network: The denoising network, on its device.
        dtype: `torch.float32`, or `torch.bfloat16` to run it under autocast.
        name: Of the weights, for reports.
        pipeline: `default_pipeline`, or one of the two published ones.
        steps: Diffusion steps of calls that do not say, 1 to 6.
    """

    def __init__(
        self,
        network: DenoisingUNet,
        *,
        dtype: torch.dtype = torch.float32,
        name: str = "custom",
        pipeline: Pipeline = default_pipeline,
        steps: int = NUM_TIMESTEPS,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.device = next(network.parameters()).device
        self.dtype, self.name, self.pipeline, self.steps = dtype, name, pipeline, steps

    @classmethod
    def from_pretrained(
        cls,
        model: str | PathLike[str] | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        pipeline: Pipeline = default_pipeline,
    ) -> "Refiner":
        """Loads weights.

        In the default pipeline, the steps are those with which the weights refine best, where their file says so.

        Args:
            model: Nothing for the bundled model, or an alias, a folder, a `.safetensors` file or a Hub id `owner/name`.
            device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
            dtype: "auto" (bfloat16 where the device computes it natively), "fp32" or "bf16".
            pipeline: See the class.

        Raises:
            CheckpointError: The weights cannot be found or are not as expected.
            InputError: There is no such device or dtype.
        """
        target = choose_device(device)
        path = weights.resolve(model)
        name = weights.BUNDLED if model is None else str(model)
        network = weights.load(path, device=target)
        steps = weights.best_steps(path) if pipeline is default_pipeline else NUM_TIMESTEPS
        return cls(network, dtype=choose_dtype(dtype, target), name=name, pipeline=pipeline, steps=steps)

    @torch.inference_mode()
    def __call__(
        self,
        image: ImageSource,
        mask: MaskSource,
        *,
        seed: int = 0,
        steps: int | None = None,
        threshold: float | None = None,
        max_shift: float | None = None,
        strength: float = 1.0,
        on_progress: OnProgress = silent,
    ) -> Result:
        """Refines one mask.

        Args:
            image: The photo: a path, a PIL image or `(H, W, 3)` uint8 RGB; see `io.read_image` for what else works.
            mask: Its coarse mask: a path, a PIL image or `(H, W)` bool, {0, 1}, {0, 255} or float probabilities.
            seed: Same seed, same result.
            steps: Diffusion steps, 1 to 6; by default those of the refiner.
            threshold: What counts as foreground in a mask of more than two values, on the values as stored.
            max_shift: How far from the coarse contour pixels may change, in pixels, 0 or more; by default anywhere.
            strength: 1 for every change that the pipeline is for, 0 for none; in between, changes need a confidence of
                `1 - strength`.
            on_progress: Called after each network evaluation.

        Returns:
            The refined mask. An empty or full mask comes back as it is, and the report says so.

        Raises:
            InputError: A file, array or number is not as described; the message says what to do.
        """
        photo = read_image(image)
        coarse = read_mask(mask, threshold=threshold)
        check_same_size(photo, coarse, image_source=image, mask_source=mask)
        steps = self.steps if steps is None else steps
        if not isinstance(steps, int) or not 1 <= steps <= NUM_TIMESTEPS:
            raise InputError(f"steps is {steps!r}: expected a whole number from 1 to {NUM_TIMESTEPS}")
        if not isinstance(seed, int) or seed < 0:
            raise InputError(f"seed is {seed!r}: expected a whole number from 0 up")
        if not 0 <= strength <= 1:
            raise InputError(f"strength is {strength!r}: expected a number from 0 to 1")
        if max_shift is not None and not max_shift >= 0:
            raise InputError(f"max_shift is {max_shift!r}: expected a number of pixels, 0 or more")
        started = time.perf_counter()
        stages: dict[str, int] = {}

        def follow(progress: Progress) -> None:
            stages[progress.stage] = progress.done
            on_progress(progress)

        kept: list[Held] = []
        given = torch.from_numpy(np.ascontiguousarray(coarse))
        if note := _nothing_to_do(coarse):
            probability = given.float()
        else:
            probability = self._refine(photo, given, steps, seed, follow, kept.append)
        probability, far, unsure = restrain(probability, given, max_shift=max_shift, strength=strength)
        report = describe(given, probability, kept, far=far, unsure=unsure)
        seconds = time.perf_counter() - started
        report = replace(
            report,
            seconds=seconds,
            evaluations=sum(stages.values()),
            steps=steps,
            model=self.name,
            seed=seed,
            note=note,
        )
        return Result((probability >= 0.5).numpy(), probability.numpy(), report)

    def _refine(
        self, photo: NDArray[np.uint8], coarse: Tensor, steps: int, seed: int, on_progress: OnProgress, on_held: OnHeld
    ) -> Tensor:
        image = torch.from_numpy(np.ascontiguousarray(photo)).to(self.device).permute(2, 0, 1)
        probability = self.pipeline(
            self._logits,
            image,
            coarse.to(self.device),
            steps=steps,
            seed=seed,
            on_progress=on_progress,
            on_held=on_held,
        )
        return probability.float().cpu()

    def _logits(self, x: Tensor, timesteps: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self.network(x, timesteps).float()


def choose_device(name: str) -> torch.device:
    """The device of this name; "auto" is CUDA where there is one. Raises `InputError` where there is none such."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device is {name!r}: expected auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device is {name!r} but PyTorch finds no CUDA device here: use cpu")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of this name; "auto" is bfloat16 where the device computes it natively. Raises `InputError`."""
    if name == "auto":
        return torch.bfloat16 if _native_bfloat16(device) else torch.float32
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if name not in dtypes:
        raise InputError(f"dtype is {name!r}: expected auto, fp32 or bf16")
    return dtypes[name]


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Emulated bfloat16 is slower than float32.
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _nothing_to_do(coarse: NDArray[np.bool_]) -> str:
    if not coarse.any():
        return "the mask is empty: returned as it is"
    if coarse.all():
        return "the mask covers the whole photo: returned as it is"
    return ""
