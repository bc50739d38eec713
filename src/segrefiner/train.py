"""Training: one loop for a laptop's CPU and for a GPU, that resumes exactly where it was stopped.

Every draw of a step comes from a generator seeded with (seed, step), so a run that was stopped and resumed gives
the same weights as one that was not. The learning rate warms up, stays constant, and decays linearly to zero over the
last part of the run, so that the length of a run can still be chosen while it is under way.
"""

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from .coarse import CoarseConfig
from .data import PACK_SIZE, Batch, PackedPhotos, ViewConfig, shuffled
from .diffusion import NUM_TIMESTEPS, forward_sample
from .errors import TrainingError
from .losses import TEXTURE_WEIGHT, cross_entropy, texture_loss
from .output import atomic_write
from .unet import COMPACT, DenoisingUNet, UNetConfig, normalize

CHECKPOINT_NAME = "checkpoint.pt"
LOG_NAME = "log.jsonl"
BEST_STEPS = 1
"""Diffusion steps with which networks of these recipes refine best: a third or more of their samples are at T-1."""


@dataclass(frozen=True)
class TrainConfig:
    """A recipe. The defaults are the bundled model's.

    Attributes:
        model: Shape of the network.
        samples: Crops to train on.
        large_share: Share of the samples, the last ones, at the large patch size.
        small_size: Patch size of the first samples, in pixels; about four times as many per second as large ones.
        small_batch: Crops per step at the small size.
        large_size: Patch size of the last samples.
        large_batch: Crops per step at the large size.
        lr: Peak learning rate of AdamW.
        warmup_steps: Steps over which the learning rate rises from zero.
        decay_share: Share of the steps, the last ones, over which it falls to zero.
        weight_decay: Of AdamW.
        clip_norm: Gradients are scaled down to this norm.
        ema_decay: Of the moving average of the weights, which is what is saved in the end.
        coarse_timestep_share: Share of samples at t = T-1, where the input is the coarse mask alone.
        large_perfect: Replaces `coarse.perfect`, the share of perfect coarse masks, at the large patch size.
        large_self_mixed: Share of each large batch whose mixed masks take their fine pixels from the network's own
            prediction at T-1 instead of from the truth, as they do in inference.
        large_self_coarse: Share of each large batch whose coarse masks are replaced by what the network makes of them,
            since tiles refine what it made of the whole object.
        contour_weight: Extra weight of the cross-entropy at the truth's contour.
        contour_width: Of that extra weight, in pixels.
        start_share: Share of the weights that a run started from in those that it gives when it is finished; the mean
            of two runs is steadier than either (model soups, arXiv 2203.05482).
        seed: Of every draw.
        pack_size: Long side to which photos are shrunk, where a folder and not a pack is trained on.
        views: How crops are drawn.
        coarse: How coarse masks are made.
    """

    model: UNetConfig = COMPACT
    samples: int = 92_032
    large_share: float = 0.233
    small_size: int = 128
    small_batch: int = 16
    large_size: int = 256
    large_batch: int = 8
    lr: float = 1e-3
    warmup_steps: int = 300
    decay_share: float = 0.325
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    coarse_timestep_share: float = 0.35
    large_perfect: float = 0.15
    large_self_mixed: float = 0.4
    large_self_coarse: float = 0.0
    contour_weight: float = 2.0
    contour_width: float = 4.0
    start_share: float = 0.0
    seed: int = 0
    pack_size: int = PACK_SIZE
    views: ViewConfig = field(default_factory=ViewConfig)
    coarse: CoarseConfig = field(default_factory=CoarseConfig)

    @property
    def small_steps(self) -> int:
        """Steps at the small patch size."""
        return round(self.samples * (1 - self.large_share) / self.small_batch)

    @property
    def steps(self) -> int:
        """All steps."""
        return self.small_steps + round(self.samples * self.large_share / self.large_batch)

    def size_and_batch(self, step: int) -> tuple[int, int]:
        """Patch size and crops of a step."""
        if step < self.small_steps:
            return self.small_size, self.small_batch
        return self.large_size, self.large_batch

    def samples_before(self, step: int) -> int:
        """Samples that the steps before this one have used."""
        small = min(step, self.small_steps)
        return small * self.small_batch + (step - small) * self.large_batch

    def lr_at(self, step: int) -> float:
        """Learning rate of a step."""
        rise = (step + 1) / max(1, self.warmup_steps)
        fall = (self.steps - step) / max(1.0, self.decay_share * self.steps)
        return self.lr * min(1.0, rise, fall)

    def same_until(self, step: int, other: "TrainConfig") -> bool:
        """Whether the learning rates, patch sizes and batches of the steps before `step` are those of `other`."""
        if min(self.small_steps, step) != min(other.small_steps, step):
            return False
        return all(self.lr_at(s) == other.lr_at(s) for s in range(step))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "model": self.model.to_dict()}


CONTINUATION = TrainConfig(
    samples=35_200,
    large_share=1.0,
    lr=6e-4,
    decay_share=0.6,
    coarse_timestep_share=0.5,
    pack_size=832,
    views=ViewConfig(object_share=0.5, zoom=(0.5, 2.0)),
    coarse=CoarseConfig(shifted=0.15),
)
"""The second run, from the weights of the first: large crops alone, at the scales of tiles of large photos."""

CONTOURS = TrainConfig(
    samples=91_200,
    large_share=0.345,
    small_batch=32,
    lr=8e-4,
    decay_share=0.6,
    coarse_timestep_share=0.7,
    large_perfect=0.12,
    large_self_mixed=0.0,
    large_self_coarse=0.25,
    contour_weight=3.0,
    contour_width=3.0,
    start_share=0.5,
    seed=2,
    pack_size=832,
    views=ViewConfig(object_share=0.35, zoom=(0.35, 2.0), tile_share=0.5, degraded=0.2, pasted=0.2, thin=0.05),
    coarse=CoarseConfig(perfect=0.1, slight=0.3, shifted=0.12, blobs=0.2, exact_low_resolution=0.1, exact_blobs=0.1),
)
"""The third run, for the exact place of contours: crops at the scales of tiles, coarse masks that are exact in part."""

RECIPES = {"first": TrainConfig(), "second": CONTINUATION, "third": CONTOURS}
"""The bundled model's runs, each from the weights of the one before."""


def contour_weight(distance: Tensor, config: TrainConfig) -> Tensor:
    """Weight `(B, 1, S, S)` of each pixel's cross-entropy: 1 far from the truth's contour, more beside it."""
    return 1 + config.contour_weight * torch.exp(-((distance / config.contour_width) ** 2))


def draw_timesteps(batch: int, coarse_share: float, generator: Generator) -> Tensor:
    """Timesteps `(batch,)` int64: T-1 for the given share, else uniform on 0 … T-1."""
    draw = torch.rand(2, batch, generator=generator, device=generator.device)
    uniform = (draw[0] * NUM_TIMESTEPS).long().clamp(max=NUM_TIMESTEPS - 1)
    return torch.where(draw[1] < coarse_share, NUM_TIMESTEPS - 1, uniform)


class Trainer:
    """The state of a run: network, moving average, optimizer and step.

    Args:
        photos: What to train on.
        config: The recipe.
        device: Where to train; `photos` lives there too.
    """

    def __init__(self, photos: PackedPhotos, config: TrainConfig, device: torch.device) -> None:
        self.photos, self.config, self.device = photos, config, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            net = DenoisingUNet(config.model)
        self.net = net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.net)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.step = 0
        self._start: DenoisingUNet | None = None

    def start_from(self, net: DenoisingUNet) -> None:
        """Starts from the weights of a trained network. Raises `TrainingError` where its shape is another one."""
        if net.config != self.config.model:
            raise TrainingError(
                f"the weights to start from are of {net.config}, the recipe's are of {self.config.model}"
            )
        self.net.load_state_dict(net.state_dict())
        self.ema.load_state_dict(net.state_dict())
        self._start = copy.deepcopy(self.ema)

    def result(self) -> DenoisingUNet:
        """The weights that the run gives: the moving average, and in a finished run `start_share` of its start's."""
        if self._start is None or self.step < self.config.steps:
            return self.ema
        mixed = copy.deepcopy(self.ema)
        with torch.no_grad():
            torch._foreach_lerp_(list(mixed.parameters()), list(self._start.parameters()), self.config.start_share)
        return mixed

    def train_step(self) -> dict[str, Tensor]:
        """One step; the returned scalars stay on the device, so that a GPU is not waited for."""
        config = self.config
        generator = Generator(self.device).manual_seed(config.seed * 1_000_000_007 + self.step)
        size, count = config.size_and_batch(self.step)
        large = self.step >= config.small_steps
        coarse = replace(config.coarse, perfect=config.large_perfect) if large else config.coarse
        batch = self.photos.batch(self._indices(count), size, generator, config.views, coarse)
        lr = config.lr_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if large and (self_coarse := round(config.large_self_coarse * count)):
            own = self._own(batch, self_coarse)
            batch = replace(batch, coarse=torch.cat([own, batch.coarse[self_coarse:]]))
        entropy, texture = self._losses(batch, generator, round(config.large_self_mixed * count) if large else 0)
        loss = entropy + TEXTURE_WEIGHT * texture
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), config.clip_norm)
        self.optimizer.step()
        self._update_average()
        self.step += 1
        return {
            "loss": loss.detach(),
            "bce": entropy.detach(),
            "texture": texture.detach(),
            "gradient_norm": norm,
        }

    def _indices(self, count: int) -> Tensor:
        start = self.config.samples_before(self.step)
        total = len(self.photos)
        epochs = range(start // total, (start + count - 1) // total + 1)
        order = torch.cat([shuffled(total, epoch, self.config.seed) for epoch in epochs])
        first = start - epochs[0] * total
        return order[first : first + count].to(self.device)

    def _losses(self, batch: Batch, generator: Generator, self_mixed: int) -> tuple[Tensor, Tensor]:
        timesteps = draw_timesteps(len(batch.fine), self.config.coarse_timestep_share, generator)
        uniform = torch.rand(batch.fine.shape, generator=generator, device=self.device)
        image = normalize(batch.image)
        fine = batch.fine
        if self_mixed:
            fine = torch.cat([self._own(batch, self_mixed), fine[self_mixed:]])
        logits = self._logits(image, forward_sample(fine, batch.coarse, timesteps, uniform), timesteps)
        weight = contour_weight(batch.distance, self.config)
        return cross_entropy(logits, batch.fine, weight), texture_loss(logits, batch.fine)

    @torch.no_grad()
    def _own(self, batch: Batch, count: int) -> Tensor:
        """What the network makes of the first coarse masks of the batch at T-1, `(count, 1, S, S)` in {0, 1}."""
        first = torch.full((count,), NUM_TIMESTEPS - 1, device=self.device)
        logits = self._logits(normalize(batch.image[:count]), batch.coarse[:count], first)
        return (logits >= 0).to(batch.coarse.dtype)

    def _logits(self, image: Tensor, mixed: Tensor, timesteps: Tensor) -> Tensor:
        x = torch.cat([image, mixed], dim=1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            return self.net(x, timesteps).float()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        average, current = list(self.ema.parameters()), list(self.net.parameters())
        torch._foreach_lerp_(average, current, 1 - decay)

    def save(self, path: Path) -> None:
        """Writes the whole state, atomically."""
        state = {
            "step": self.step,
            "config": json.dumps(self.config.to_dict()),
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        atomic_write(path, lambda file: torch.save(state, file))

    def load(self, path: Path) -> None:
        """Continues from a checkpoint. Raises `TrainingError` where its recipe is another one."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            saved, step = json.loads(state["config"]), state["step"]
        except Exception as error:
            raise TrainingError(f"{path} cannot be read as a checkpoint ({error}): delete it to start anew") from error
        self._check_recipe(saved, step, path)
        self.net.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = step

    def _check_recipe(self, saved: dict[str, Any], steps_taken: int, path: Path) -> None:
        mine = json.loads(json.dumps(self.config.to_dict()))
        changed = [k.name for k in fields(self.config) if saved.get(k.name) != mine[k.name]]
        length = {name: saved[name] for name in ("samples", "large_share", "decay_share") if name in saved}
        # The length may change as long as the steps taken so far would have been the same.
        if self.config.same_until(steps_taken, replace(self.config, **length)):
            changed = [name for name in changed if name not in length]
        if changed:
            difference = "; ".join(f"{name}: {saved.get(name)} there, {mine[name]} asked for" for name in changed)
            raise TrainingError(f"{path} was made by another recipe ({difference}): use its values or another folder")


def train(
    trainer: Trainer,
    folder: Path,
    *,
    max_minutes: float = math.inf,
    checkpoint_minutes: float = 3.0,
    log_every: int = 50,
    on_log: Callable[[dict[str, float]], None] = lambda row: None,
) -> bool:
    """Trains until the recipe's end or for so many minutes, resuming from the folder's checkpoint if there is one.

    Args:
        trainer: The run.
        folder: Where checkpoint and log go; created if need be.
        max_minutes: Stop, with a checkpoint, after this time.
        checkpoint_minutes: Time between checkpoints.
        log_every: Steps between log rows.
        on_log: Called with each row.

    Returns:
        True when the recipe's end is reached.

    Raises:
        TrainingError: The loss is no longer a number; the checkpoint on disk is the last good one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT_NAME
    if checkpoint.exists():
        trainer.load(checkpoint)
        _forget_later_rows(folder / LOG_NAME, trainer.step)
    started = saved = logged = time.monotonic()
    samples = trainer.config.samples_before(trainer.step)
    while trainer.step < trainer.config.steps:
        values = trainer.train_step()
        now = time.monotonic()
        if trainer.step % log_every == 0:
            row = {"step": float(trainer.step)} | {name: value.item() for name, value in values.items()}
            _check_finite(values, trainer.step, checkpoint)
            seen = trainer.config.samples_before(trainer.step)
            row |= {"samples": float(seen), "lr": trainer.config.lr_at(trainer.step - 1)}
            row |= {"samples_per_second": (seen - samples) / (now - logged), "minutes": (now - started) / 60}
            samples, logged = seen, now
            with (folder / LOG_NAME).open("a") as log:
                log.write(json.dumps({k: round(v, 6) for k, v in row.items()}) + "\n")
            on_log(row)
        if now - saved > 60 * checkpoint_minutes:
            _check_finite(values, trainer.step, checkpoint)
            trainer.save(checkpoint)
            saved = now
        if now - started > 60 * max_minutes or trainer.step >= trainer.config.steps:
            _check_finite(values, trainer.step, checkpoint)
            break
    trainer.save(checkpoint)
    return trainer.step >= trainer.config.steps


def _forget_later_rows(log: Path, step: int) -> None:
    """Drops what a killed run had logged after its last checkpoint, and a cut-off line: those steps are taken again."""
    if not log.exists():
        return
    whole = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    rows = [line for line in whole if json.loads(line)["step"] <= step]
    atomic_write(log, lambda file: file.write("".join(rows).encode()))


def _check_finite(values: dict[str, Tensor], step: int, checkpoint: Path) -> None:
    """Raises `TrainingError` before numbers that are none get into a checkpoint."""
    for name in ("loss", "gradient_norm"):
        value = values[name].item()
        if not math.isfinite(value):
            raise TrainingError(f"the loss became {value} at step {step}: continue from {checkpoint} with a lower lr")
