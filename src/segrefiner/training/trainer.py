"""One training step, and the state that a run needs to go on exactly where it was stopped.

Every draw of a step comes from generators seeded with the recipe's seed and the numbers of its samples, so a run that
was stopped and resumed gives the same weights as one that was not, and a run on several processes gives those of one,
to rounding.
"""

import copy
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.packed_photos import CropBatch
from ..errors import TrainingError
from ..imaging.files import atomic_write
from ..model.diffusion import NUM_TIMESTEPS, State, forward_sample, monotone, pixel_thresholds, sample, spaced_timesteps
from ..model.unet import DenoisingUNet, normalize
from ..refinement.pipelines.batching import ran_out_of_memory
from .batches import BatchSource, Example, generator_of
from .distributed import SINGLE, ProcessGroup
from .losses import cross_entropy, texture_loss
from .monitoring.tally import Tally
from .overrides import differences
from .recipe import Recipe, StepSlice

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def contour_weight(distance: Tensor, recipe: Recipe) -> Tensor:
    """Weight `(B, 1, S, S)` of each pixel's cross-entropy: 1 far from the truth's contour, more beside it."""
    return 1 + recipe.contour_weight * torch.exp(-((distance / recipe.contour_width) ** 2))


def draw_timesteps(batch: int, coarse_share: float, generator: torch.Generator) -> Tensor:
    """Draws timesteps `(batch,)` int64.

    Args:
        batch: How many.
        coarse_share: Share in [0, 1] of timesteps that are T-1; the others are uniform on 0 … T-1.
        generator: Source of all draws; the timesteps lie on its device.
    """
    draw = torch.rand(2, batch, generator=generator, device=generator.device)
    uniform = (draw[0] * NUM_TIMESTEPS).long().clamp(max=NUM_TIMESTEPS - 1)
    return torch.where(draw[1] < coarse_share, NUM_TIMESTEPS - 1, uniform)


TRUST_IOU = (0.99, 0.975, 0.95, 0.9, 0.8)
"""IoU with the truth from which on a coarse mask is a state of timestep 0, 1, …; a worse one is of T-1."""

SCHEDULES = (2, 3, 6)
"""Numbers of diffusion steps whose states rolled-out samples are, in turn."""

_MOST_ROLLED = 3
"""Steps that a sample is rolled out for, at most: later states differ little and cost as much."""


def trust_timesteps(coarse: Tensor, fine: Tensor) -> Tensor:
    """The timestep `(B,)` int64 that says how good each coarse mask is: 0 for an exact one, T-1 for a bad one.

    Args:
        coarse: `(B, 1, S, S)` float in {0, 1}.
        fine: `(B, 1, S, S)` float in {0, 1}, the truth.
    """
    both = (coarse * fine).sum(dim=(1, 2, 3))
    either = torch.maximum(coarse, fine).sum(dim=(1, 2, 3)).clamp(min=1)
    bounds = torch.tensor(TRUST_IOU, device=fine.device)
    return (both / either < bounds[:, None]).sum(dim=0)


def jittered(t: Tensor, draw: Tensor) -> Tensor:
    """Timesteps `(B,)`, half of them one earlier or later: inference can only estimate how good a mask is.

    Args:
        t: `(B,)` int64 in 0 … T-1.
        draw: `(B,)` uniform in [0, 1).
    """
    offset = (draw >= 0.75).long() - (draw < 0.25).long()
    return (t + offset).clamp(0, NUM_TIMESTEPS - 1)


class Trainer:
    """The state of a run: network, moving average, optimizer and step.

    Args:
        feed: Gives the batches of this process.
        recipe: Decides what a run gives.
        device: Where to train; the batches live there too.
        processes: This process among those of the run.
        micro_batch: Crops that go through the network at once, at most; None for all of a step's. Gradients of
            several such parts are added up, so that less memory gives the same result to rounding.

    Raises:
        InputError: A batch of the recipe cannot be divided among so many processes.
    """

    def __init__(
        self,
        feed: BatchSource,
        recipe: Recipe,
        device: torch.device,
        *,
        processes: ProcessGroup = SINGLE,
        micro_batch: int | None = None,
    ) -> None:
        self.recipe, self.device, self.processes, self.micro_batch = recipe, device, processes, micro_batch
        for step in {0, max(0, recipe.steps - 1)}:
            recipe.portion(step, processes.rank, processes.world)  # raises where a batch cannot be divided
        self._feed = feed
        self._batches: Any = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            net = DenoisingUNet(recipe.model)
        self.net = net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.model.image_stages:
            self.net.image_encoder.requires_grad_(recipe.image_lr > 0)
            self.net.image_encoder.freeze(recipe.image_frozen)
        self.ema = copy.deepcopy(self.net).requires_grad_(False)
        self._model = processes.wrap(self.net)
        self.optimizer = torch.optim.AdamW(
            self._parameter_groups(), lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.step = 0
        self.tally = Tally(device)
        self._start: DenoisingUNet | None = None

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters that learn, each group with its share of the learning rate."""
        groups: dict[float, list[Tensor]] = {}
        for name, parameter in self.net.named_parameters():
            if parameter.requires_grad:
                share = self.recipe.image_lr if name.startswith("image_encoder.") else 1.0
                groups.setdefault(share, []).append(parameter)
        return [{"params": parameters, "share": share} for share, parameters in groups.items()]

    def start_from(self, net: DenoisingUNet) -> None:
        """Starts from the weights of a trained network. Raises `TrainingError` where its shape is another one."""
        if net.config != self.recipe.model:
            raise TrainingError(
                f"the weights to start from are of {net.config}, the recipe's are of {self.recipe.model}"
            )
        self.net.load_state_dict(net.state_dict())
        self.ema.load_state_dict(net.state_dict())
        self._start = copy.deepcopy(self.ema)

    def start_encoder_from(self, weights: dict[str, Tensor]) -> None:
        """Starts from these weights of the image encoder (`conversion.image_encoder_weights`); the rest is random."""
        for net in (self.net, self.ema):
            net.image_encoder.load_state_dict(weights)

    def result(self) -> DenoisingUNet:
        """The weights that the run gives: the moving average, and in a finished run `start_share` of its start's."""
        if self._start is None or self.step < self.recipe.steps:
            return self.ema
        mixed = copy.deepcopy(self.ema)
        with torch.no_grad():
            torch._foreach_lerp_(list(mixed.parameters()), list(self._start.parameters()), self.recipe.start_share)
        return mixed

    def portion(self, step: int) -> StepSlice:
        """This process's part of a step."""
        return self.recipe.portion(step, self.processes.rank, self.processes.world)

    def train_step(self) -> None:
        """One step; what it found is in `tally`, on the device, so that a GPU is not waited for.

        Raises:
            TrainingError: The memory does not suffice; the message names a `micro_batch` that fits.
        """
        portion = self.portion(self.step)
        if self._batches is None:
            self._batches = self._feed(self.portion(step) for step in count(self.step))
        batch = next(self._batches)
        self.tally.failures += batch.failures
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.recipe.lr_at(self.step)
        if not self._fits(batch, portion):
            raise TrainingError(self._fitting(batch, portion))
        self._update_average()
        self.step += 1

    def example(self) -> Example:
        """The crops of the next step, mixed as they will be."""
        portion = self.portion(self.step)
        return self.prepared(next(iter(self._feed([portion]))), portion)

    def prepared(self, batch: CropBatch, portion: StepSlice) -> Example:
        """Gives the crops of a portion the timesteps and mixed masks that the recipe asks for.

        Args:
            batch: `(B, …)` crops of the portion.
            portion: Part of a step, which seeds the draws.
        """
        recipe = self.recipe
        own = recipe.large_self_coarse if portion.large else recipe.small_self_coarse
        if rows := portion.share(own):
            batch = replace(batch, coarse=self._with_own(batch.coarse, batch, rows))
        fine = batch.fine
        if portion.large and (rows := portion.share(self.recipe.large_self_mixed)):
            fine = self._with_own(fine, batch, rows)
        timesteps, uniform, choice = [], [], []
        for group in portion.groups:
            generator = generator_of(self.recipe, group.start, self.device, noise=True)
            timesteps.append(draw_timesteps(len(group), self.recipe.coarse_timestep_share, generator))
            shape = (len(group), *batch.fine.shape[1:])
            uniform.append(torch.rand(shape, generator=generator, device=self.device))
            if recipe.rolled_out or recipe.trusted:
                choice.append(torch.rand(3, len(group), generator=generator, device=self.device))
        t = torch.cat(timesteps)
        mixed = forward_sample(fine, batch.coarse, t, torch.cat(uniform))
        if choice:
            t, mixed = self._as_in_inference(batch, t, mixed, torch.cat(choice, dim=1), portion.step)
        return Example(batch, t, mixed)

    @torch.no_grad()
    def _as_in_inference(
        self, batch: CropBatch, t: Tensor, mixed: Tensor, choice: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """Timesteps and mixed masks, some of them replaced by states that only inference meets.

        Args:
            batch: The crops.
            t: `(B,)` int64, timesteps as drawn.
            mixed: `(B, 1, S, S)`, mixed masks as drawn.
            choice: `(3, B)` in [0, 1): which samples are replaced, how far they are rolled out, and with which
                thresholds.
            step: Step of the run, which decides how many diffusion steps the sampler takes in all.
        """
        recipe = self.recipe
        rolled = choice[0] < recipe.rolled_out
        trusted = ~rolled & (choice[0] < recipe.rolled_out + (1 - recipe.rolled_out) * recipe.trusted)
        t = torch.where(trusted, jittered(trust_timesteps(batch.coarse, batch.fine), choice[1]), t)
        mixed = torch.where(trusted.view(-1, 1, 1, 1), batch.coarse, mixed)
        rows = rolled.nonzero()[:, 0]
        if not len(rows):
            return t, mixed
        schedule = spaced_timesteps(SCHEDULES[step % len(SCHEDULES)])
        most = min(_MOST_ROLLED, len(schedule) - 1)
        length = 1 + (choice[1][rows] * most).long().clamp(max=most - 1)
        seeds = (choice[2][rows] * 2**20).long().tolist()
        t, mixed = t.clone(), mixed.clone()
        for taken, state in enumerate(self._roll_out(batch, rows, schedule, seeds), start=1):
            here = length == taken
            t[rows[here]], mixed[rows[here]] = schedule[taken], state.mixed[here]
            if taken == int(length.max()):
                break
        return t, mixed

    def _roll_out(
        self, batch: CropBatch, rows: Tensor, schedule: Sequence[int], seeds: Sequence[int]
    ) -> Iterator[State]:
        """The sampler's states for some of a batch's samples, by the moving average, each with a seed of its own."""
        size = batch.coarse.shape[-1]
        thresholds = torch.stack([pixel_thresholds(0, 0, size, size, seed)[None] for seed in seeds])
        image = normalize(batch.image[rows])

        def network(x: Tensor, timesteps: Tensor) -> Tensor:
            return self._answer(self.ema, x, timesteps)

        return sample(network, image, batch.coarse[rows], schedule, monotone(thresholds.to(self.device)))

    @torch.no_grad()
    def _with_own(self, masks: Tensor, batch: CropBatch, rows: list[int]) -> Tensor:
        """Masks, some of which are replaced by what the network makes of the batch's coarse ones at T-1."""
        first = torch.full((len(rows),), NUM_TIMESTEPS - 1, device=self.device)
        logits = self._logits(self.net, batch.image[rows], batch.coarse[rows], first)
        masks = masks.clone()
        masks[rows] = (logits >= 0).to(masks.dtype)
        return masks

    def _logits(self, net: nn.Module, image: Tensor, mixed: Tensor, timesteps: Tensor) -> Tensor:
        return self._answer(net, torch.cat([normalize(image), mixed], dim=1), timesteps)

    def _answer(self, net: nn.Module, x: Tensor, timesteps: Tensor) -> Tensor:
        """Logits of normalised input, in the recipe's precision."""
        x = x.contiguous(memory_format=torch.channels_last)
        dtype = _DTYPES[self.recipe.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits: Tensor = net(x, timesteps).float()
        return logits

    def learn(self, example: Example) -> None:
        """One step of the optimizer on an example."""
        self.optimizer.zero_grad(set_to_none=True)
        size = self.micro_batch or len(example)
        for start in range(0, len(example), size):
            part = example.part(slice(start, start + size))
            with self._synchronised(start + size >= len(example)):
                self._scaler.scale(self._loss(part) / len(example)).backward()
        self._scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip_norm or math.inf)
        self.tally.gradient(norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged with the other processes after the last part of a step only."""
        if isinstance(self._model, DistributedDataParallel) and not last:
            silent: AbstractContextManager[None] = self._model.no_sync()
            return silent
        return nullcontext()

    def _loss(self, example: Example) -> Tensor:
        """The sum of the samples' losses."""
        batch = example.batch
        logits = self._logits(self._model, batch.image, example.mixed, example.timesteps)
        weight = contour_weight(batch.distance, self.recipe) if self.recipe.contour_weight else None
        entropy, texture = cross_entropy(logits, batch.fine, weight), texture_loss(logits, batch.fine)
        self.tally.samples(example, logits.detach(), entropy.detach(), texture.detach(), self.recipe.texture_weight)
        return (entropy + self.recipe.texture_weight * texture).sum()

    @torch.no_grad()
    def probability(self, example: Example) -> Tensor:
        """What the moving average makes of an example, `(B, 1, S, S)` float in [0, 1]."""
        return self._logits(self.ema, example.batch.image, example.mixed, example.timesteps).sigmoid()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        average, current = list(self.ema.parameters()), list(self.net.parameters())
        torch._foreach_lerp_(average, current, 1 - decay)

    def _fits(self, batch: CropBatch, portion: StepSlice) -> bool:
        """Learns from a batch, or tells that memory ran out: outside of a handler, whose error holds on to tensors."""
        try:
            self.learn(self.prepared(batch, portion))
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            return False
        return True

    def _fitting(self, batch: CropBatch, portion: StepSlice) -> str:
        """What to say when memory ran out: the largest part of a batch that fits, tried."""
        size = min(self.micro_batch or len(portion), len(portion)) // 2
        if self.processes.world > 1:  # the others wait elsewhere, so nothing can be tried
            return f"memory ran out at step {self.step}: try --micro-batch {max(1, size)}, which gives the same result"
        while size:
            self.micro_batch = size
            torch.cuda.empty_cache()
            if self._fits(batch, portion):
                return f"memory ran out at step {self.step}: --micro-batch {size} fits and gives the same result"
            size //= 2
        return f"memory ran out at step {self.step}, even for one crop of {portion.size} pixels: take a smaller model"

    def save(self, path: Path) -> None:
        """Writes the whole state, atomically. Raises `OutputError` where it cannot; what was there stays."""
        state = {
            "step": self.step,
            "config": json.dumps(self.recipe.to_dict()),
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "start": None if self._start is None else self._start.state_dict(),
        }
        atomic_write(path, lambda file: torch.save(state, file))

    def load(self, path: Path) -> None:
        """Continues from a checkpoint. Raises `TrainingError` where its recipe is another one."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            saved, step = json.loads(state["config"]), state["step"]
            net, ema, optimizer, scaler, start = (state[k] for k in ("net", "ema", "optimizer", "scaler", "start"))
        except Exception as error:
            raise TrainingError(f"{path} cannot be read as a checkpoint ({error}): delete it to start anew") from error
        self._check_recipe(saved, step, path)
        self.net.load_state_dict(net)
        self.ema.load_state_dict(ema)
        self.optimizer.load_state_dict(optimizer)
        self._scaler.load_state_dict(scaler)
        if start is not None:
            self._start = copy.deepcopy(self.ema)
            self._start.load_state_dict(start)
        self.step, self._batches = step, None
        self.tally.clear()

    def _check_recipe(self, saved: dict[str, Any], steps_taken: int, path: Path) -> None:
        # A value that a file does not know is of a later version, and was then as it is by default.
        saved = Recipe().to_dict() | saved
        changed = differences(*(json.loads(json.dumps(recipe)) for recipe in (saved, self.recipe.to_dict())))
        # The length may change as long as the steps taken so far would have been the same; when to look at it always.
        free = {"validate_every"}
        length = {name: saved[name] for name in ("samples", "large_share") if name in saved}
        if self.recipe.same_until(steps_taken, replace(self.recipe, **length)):
            free |= length.keys()
        if changed := {name: values for name, values in changed.items() if name not in free}:
            said = "; ".join(f"{name}: {there} there, {here} asked for" for name, (there, here) in changed.items())
            raise TrainingError(f"{path} was made by another recipe ({said}): use its values or another folder")
