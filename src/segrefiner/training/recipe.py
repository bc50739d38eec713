"""A recipe: all that decides what a training run gives, as one frozen value, printed and saved with the weights."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from ..data.coarse.masks import CoarseConfig
from ..data.crop_geometry import ViewConfig
from ..data.packs import PACK_SIZE
from ..data.published_crops import PublishedViews
from ..errors import InputError
from ..model.image_encoder import STAGES
from ..model.unet import COMPACT, UNetConfig
from .losses import TEXTURE_WEIGHT

PRECISIONS = ("bf16", "fp16", "fp32")


@dataclass(frozen=True)
class LinearDecay:
    """A rate that stays constant and falls to zero over the last `share` of the steps, linearly."""

    share: float = 0.325

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at a step."""
        return min(1.0, (steps - step) / max(1.0, self.share * steps))


@dataclass(frozen=True)
class CosineDecay:
    """A rate that falls along half a cosine to `floor`, a share of its peak."""

    floor: float = 0.0

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at a step."""
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * step / max(1, steps))) / 2


@dataclass(frozen=True)
class StepDecay:
    """A rate that is multiplied by `gamma` after each of the shares `at` of the steps."""

    at: tuple[float, ...] = (2 / 3, 5 / 6)
    gamma: float = 0.5

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at a step."""
        return self.gamma ** sum(step >= round(share * steps) for share in self.at)


Decay: TypeAlias = LinearDecay | CosineDecay | StepDecay
Views: TypeAlias = ViewConfig | PublishedViews


@dataclass(frozen=True)
class StepSlice:
    """What one process trains on in one step.

    Attributes:
        step: Number of the step, counted from 0.
        size: Side of the crops in pixels.
        large: Whether this is the larger of the recipe's two sizes.
        offset: Samples of this step that go to processes before this one.
        groups: Numbers of the samples, counted over the whole run; the samples of one group share their draws.
    """

    step: int
    size: int
    large: bool
    offset: int
    groups: tuple[range, ...]

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    def share(self, share: float) -> list[int]:
        """Positions in this portion that belong to so large a share of the step's batch, spread over its groups."""
        chosen: list[int] = []
        position, offset = 0, self.offset
        for group in self.groups:
            count = int(share * (offset + len(group)) + 1e-9) - int(share * offset + 1e-9)
            chosen += range(position, position + count)
            position, offset = position + len(group), offset + len(group)
        return chosen


@dataclass(frozen=True)
class Recipe:
    """All that decides what a run gives. The defaults are those of the bundled model's first run.

    Attributes:
        model: Shape of the network.
        samples: Crops to train on.
        large_share: Share of the samples, the last ones, at the large patch size.
        small_size: Patch size of the first samples, in pixels; about four times as many per second as large ones.
        small_batch: Crops per step at the small size, over all processes.
        large_size: Patch size of the last samples.
        large_batch: Crops per step at the large size, over all processes.
        batch_factor: Multiplies both batches, divides the number of steps and scales the learning rate with it.
        lr_power: The learning rate is multiplied by `batch_factor` to this power: 0.5 suits AdamW (arXiv 2205.10287),
            1 is the linear rule of plain gradient descent.
        group: Crops whose draws are made together. A batch is divided among processes by whole groups.
        lr: Peak learning rate of AdamW, before `batch_factor`.
        image_lr: Learning rate of the image encoder, as a share of `lr`; 0 leaves the encoder as it is, which takes a
            fifth less time.
        image_frozen: Stages of the image encoder, the first ones with its stem, that stay as they are even so: they
            see edges and textures, which are the same everywhere, and take most of the time.
        warmup_steps: Steps over which the learning rate rises from zero.
        decay: How the learning rate falls.
        weight_decay: Weight decay of AdamW.
        betas: Coefficients of AdamW's running means.
        clip_norm: Gradients are scaled down to this norm; None leaves them.
        ema_decay: Decay of the moving average of the weights, which a run gives; 0 gives the weights themselves.
        precision: Precision in which the network computes: bf16, fp16 (with a scaled loss) or fp32. Weights are
            float32.
        coarse_timestep_share: Share of samples at t = T-1, where the input is the coarse mask alone; the others are
            uniform on 0 … T-1.
        large_perfect: Replaces `coarse.perfect`, the share of perfect coarse masks, at the large patch size.
        large_self_mixed: Share of each large batch whose mixed masks take their fine pixels from the network's own
            prediction at T-1 instead of from the truth, as they do in inference.
        large_self_coarse: Share of each large batch whose coarse masks are replaced by what the network makes of them,
            since tiles refine what it made of the whole object.
        small_self_coarse: Share of each small batch whose coarse masks are replaced so.
        rolled_out: Share of each batch whose mixed masks are the sampler's own states: the moving average has taken
            one to three steps from the coarse mask ("recycling", Fu et al., arXiv 2303.06040).
        trusted: Share of the other samples whose timestep says how good their coarse mask is
            (`trainer.trust_timesteps`), so that a small first timestep asks for trust in the mask.
        large_object_share: Replaces `views.object_share` at the large patch size, at which inference shows whole
            objects; None leaves it.
        interleaved: Whether steps at both patch sizes alternate evenly, instead of the small ones first.
        contour_weight: Extra weight of the cross-entropy at the truth's contour.
        contour_width: Distance from the contour, in pixels, at which the extra weight has fallen to 1/e.
        texture_weight: Weight of the texture loss.
        start_share: Share of the weights that a run started from in those that it gives when it is finished; the mean
            of two runs is steadier than either (model soups, arXiv 2203.05482).
        seed: Seed of every draw.
        pack_size: Long side to which photos are shrunk where they are packed into memory.
        draws: How often photos of some data sets are drawn, against once for those of others: `NAME:TIMES` each, by
            `sources.data_set_of` their names, or by the kind of their real coarse mask, such as `coarse_deeplab`. An
            epoch still has as many samples as there are photos.
        align: Whether packing corrects the offset that all masks of a data set share (`data.alignment`).
        validate_every: Steps between validations, where there are photos to validate on.
        views: How crops are drawn: `ViewConfig` from photos packed into memory, `PublishedViews` from files.
        coarse: How coarse masks are made.
    """

    model: UNetConfig = COMPACT
    samples: int = 92_032
    large_share: float = 0.233
    small_size: int = 128
    small_batch: int = 16
    large_size: int = 256
    large_batch: int = 8
    batch_factor: float = 1.0
    lr_power: float = 0.5
    group: int = 4
    lr: float = 1e-3
    image_lr: float = 0.0
    image_frozen: int = 0
    warmup_steps: int = 300
    decay: Decay = LinearDecay()
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = 1.0
    ema_decay: float = 0.999
    precision: str = "bf16"
    coarse_timestep_share: float = 0.35
    large_perfect: float = 0.15
    large_self_mixed: float = 0.4
    large_self_coarse: float = 0.0
    small_self_coarse: float = 0.0
    rolled_out: float = 0.0
    trusted: float = 0.0
    large_object_share: float | None = None
    interleaved: bool = False
    contour_weight: float = 2.0
    contour_width: float = 4.0
    texture_weight: float = TEXTURE_WEIGHT
    start_share: float = 0.0
    seed: int = 0
    pack_size: int = PACK_SIZE
    draws: tuple[str, ...] = ()
    align: bool = False
    validate_every: int = 500
    views: Views = field(default_factory=ViewConfig)
    coarse: CoarseConfig = field(default_factory=CoarseConfig)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        positive = ("samples", "small_size", "small_batch", "large_size", "large_batch", "batch_factor", "group")
        for name in (*positive, "validate_every"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}, expected more than 0")
        shares = ("large_share", "coarse_timestep_share", "large_perfect", "large_self_mixed", "large_self_coarse")
        more = ("small_self_coarse", "rolled_out", "trusted", "ema_decay", "start_share")
        for name in (*shares, *more):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected a number from 0 to 1")
        if not 0 <= self.model.image_stages <= STAGES:
            raise InputError(f"model.image_stages is {self.model.image_stages}, expected 0 to {STAGES}")
        if not self.lr >= 0:
            raise InputError(f"lr is {self.lr}, expected 0 or more")
        if any(not 0 <= times < math.inf for times in self.draws_of.values()):
            raise InputError(f"draws is {','.join(self.draws)!r}, expected numbers from 0")

    @property
    def draws_of(self) -> dict[str, float]:
        """How often photos are drawn, by the data set's name, where it is not once.

        Raises:
            InputError: An entry of `draws` is not `NAME:TIMES`, or a name recurs.
        """
        try:
            draws = {name: float(times) for name, times in (entry.split(":") for entry in self.draws)}
        except ValueError as error:
            raise InputError(f"draws is {','.join(self.draws)!r}, expected NAME:TIMES such as ECSSD:1.5") from error
        if len(draws) < len(self.draws):
            raise InputError(f"draws is {','.join(self.draws)!r}, expected each name once")
        return draws

    @property
    def batches(self) -> tuple[int, int]:
        """Crops per step at the small and at the large size, over all processes."""
        return max(1, round(self.small_batch * self.batch_factor)), max(1, round(self.large_batch * self.batch_factor))

    @property
    def small_steps(self) -> int:
        """Steps at the small patch size."""
        return round(self.samples * (1 - self.large_share) / self.batches[0])

    @property
    def steps(self) -> int:
        """All steps."""
        return self.small_steps + round(self.samples * self.large_share / self.batches[1])

    @property
    def streamed(self) -> bool:
        """Whether crops are cut from files while training goes on, and not from photos packed into memory."""
        return isinstance(self.views, PublishedViews)

    def small_steps_before(self, step: int) -> int:
        """Steps at the small patch size before this one."""
        if self.interleaved:
            # Of the shares alone, so that a run may become longer or shorter.
            small, large = self.batches
            rate = (1 - self.large_share) / small, self.large_share / large
            return math.floor(step * rate[0] / sum(rate) + 1e-9)
        return min(step, self.small_steps)

    def is_large(self, step: int) -> bool:
        """Whether a step is at the large patch size."""
        return self.small_steps_before(step + 1) == self.small_steps_before(step)

    def size_and_batch(self, step: int) -> tuple[int, int]:
        """Patch size and crops of a step, over all processes."""
        small, large = self.batches
        return (self.large_size, large) if self.is_large(step) else (self.small_size, small)

    def samples_before(self, step: int) -> int:
        """Samples that the steps before this one have used."""
        small = self.small_steps_before(step)
        return small * self.batches[0] + (step - small) * self.batches[1]

    def portion(self, step: int, rank: int = 0, world: int = 1) -> StepSlice:
        """What one process trains on in a step.

        Args:
            step: Number of the step, counted from 0.
            rank: Number of the process.
            world: Number of processes.

        Raises:
            InputError: The batch cannot be divided among so many processes.
        """
        size, batch = self.size_and_batch(step)
        if world > 1 and batch % (self.group * world):
            raise InputError(
                f"a batch of {batch} crops in groups of {self.group} cannot be divided among {world} processes: "
                "choose another number of processes, or set batch_factor or group"
            )
        first, part = self.samples_before(step), batch // world
        starts = range(rank * part, (rank + 1) * part, self.group)
        groups = tuple(range(first + s, first + min(s + self.group, (rank + 1) * part)) for s in starts)
        return StepSlice(step, size, self.is_large(step), rank * part, groups)

    def lr_at(self, step: int) -> float:
        """Learning rate of a step."""
        rise = (step + 1) / max(1, self.warmup_steps)
        return self.lr * self.batch_factor**self.lr_power * min(1.0, rise, self.decay.factor(step, self.steps))

    def same_until(self, step: int, other: "Recipe") -> bool:
        """Whether the learning rates, patch sizes and batches of the steps before `step` are those of `other`."""
        if any(self.small_steps_before(s) != other.small_steps_before(s) for s in range(step + 1)):
            return False
        return all(self.lr_at(s) == other.lr_at(s) for s in range(step))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "model": self.model.to_dict()}
