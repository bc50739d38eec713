"""What a refinement changed, and what it held back: the report that goes with every refined mask."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..imaging.ops import contour, nonzero_pixels, row_bands
from ..imaging.shapes.distances import largest_distance
from ..model.diffusion import confidence
from .pipelines.acceptance import KeptReason, Reverted, predicted_gain


@dataclass(frozen=True)
class Report:
    """What a refinement changed.

    Attributes:
        changed: Share of the photo's pixels whose mask value changed, in [0, 1].
        agreement: IoU of the refined with the coarse mask, in [0, 1].
        largest_shift: Distance in pixels of the changed pixel that is farthest from the coarse mask's contour.
        confidence: Mean confidence of the refined mask over the changed pixels and its contour, in [0, 1].
        predicted_gain: How much nearer to the truth than the coarse mask the refined one is expected to be, in IoU, by
            the network's own probabilities; more than what is gained in fact where the network is too sure.
        unsure: Share of pixels that kept their coarse label for too little confidence in a change.
        too_far: Share of pixels that kept their coarse label since they lie beyond `max_shift`.
        kept_objects: How many objects kept their coarse mask as a whole, by reason.
        seconds: Wall-clock time, without loading the model.
        evaluations: Views that the network saw, counted once per step.
        steps: Diffusion steps.
        model: Name of the weights.
        seed: Seed of the sampler.
        note: Why a mask came back as it was, or an empty string.
        warnings: What had to be guessed of the inputs, one sentence each.
        ceded: Share of pixels that are left to other masks of the photo; see `instances.separate`.

    >>> report = refiner("photo.jpg", "coarse.png").report
    >>> 0 <= report.changed <= 1 and 0 <= report.agreement <= 1
    True
    >>> print("Report:", report)
    Report: ... % of pixels changed, IoU with the coarse mask ... %, ...
    """

    changed: float
    agreement: float
    largest_shift: float
    confidence: float
    predicted_gain: float
    unsure: float
    too_far: float
    kept_objects: Mapping[str, int]
    seconds: float
    evaluations: int
    steps: int
    model: str
    seed: int
    note: str = ""
    warnings: tuple[str, ...] = ()
    ceded: float = 0.0

    def __str__(self) -> str:
        return "; ".join((self._summary(), *(f"note: {warning}" for warning in self.warnings)))

    @property
    def left(self) -> str:
        """What of the mask was not looked at, and so left as it is, as a sentence; or an empty string."""
        count = self.kept_objects.get(KeptReason.SPECK.value, 0)
        return f"{count} specks among very many are left as they are" if count else ""

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON types, by their names; `None` for a number that is not known.

        >>> report = refiner("photo.jpg", "coarse.png").report
        >>> document = report.to_dict()
        >>> document["seed"], document["ceded"], document["warnings"]
        (0, 0.0, [])
        """
        document = asdict(self) | {"kept_objects": dict(self.kept_objects), "warnings": list(self.warnings)}
        return {name: None if value != value else value for name, value in document.items()}

    def _summary(self) -> str:
        if self.note:
            return self.note
        held = [f"{100 * self.unsure:.2f} % of pixels unsure"] if self.unsure else []
        held += [f"{100 * self.too_far:.2f} % too far away"] if self.too_far else []
        held += [f"{100 * self.ceded:.2f} % of other masks"] if self.ceded else []
        held += [f"{count} object{'s' if count > 1 else ''}: {why}" for why, count in self.kept_objects.items()]
        return (
            f"{100 * self.changed:.2f} % of pixels changed, IoU with the coarse mask {100 * self.agreement:.1f} %, "
            f"largest shift {self.largest_shift:.0f} px, confidence {100 * self.confidence:.0f} %, "
            f"predicted gain {100 * self.predicted_gain:.1f} points of IoU, "
            + (f"held back: {', '.join(held)}, " if held else "")
            + f"{self.seconds:.2f} s ({self.model}, {self.steps} steps, seed {self.seed})"
        )


def make_report(
    coarse: Tensor, probability: Tensor, held: Sequence[Reverted], *, far: int, unsure: int, pixels: int | None = None
) -> Report:
    """The report of a refinement, without what only its caller knows: time, evaluations, steps, model and seed.

    Args:
        coarse: `(H, W)` bool.
        probability: `(H, W)` float, of the refined mask.
        held: What was taken back, object by object.
        far: Pixels held back for being too far from the coarse contour.
        unsure: Pixels held back for too little confidence, beside those of `held`.
        pixels: Of the photo, where `coarse` and `probability` are a part of it outside of which both are zero.
    """
    pixels = pixels or coarse.numel()
    mask = probability >= 0.5
    both = sum(int(torch.count_nonzero(mask[rows] & coarse[rows])) for rows in row_bands(*mask.shape))
    rim, changed = contour(mask), nonzero_pixels(mask ^ coarse)
    union = both + len(changed[0])
    rim[changed] = False
    told = torch.cat([confidence(probability[some]) for some in (changed, nonzero_pixels(rim))])
    gain = predicted_gain(coarse, changed, probability)
    del mask, rim
    reasons = Counter(h.whole.value for h in held if h.whole)
    return Report(
        changed=len(changed[0]) / pixels,
        agreement=both / union if union else 1.0,
        largest_shift=largest_distance(coarse, changed),
        confidence=float(told.mean(dtype=torch.float64)) if len(told) else 1.0,
        predicted_gain=gain,
        unsure=(unsure + sum(h.pixels for h in held)) / pixels,
        too_far=far / pixels,
        kept_objects=dict(reasons),
        seconds=math.nan,
        evaluations=0,
        steps=0,
        model="",
        seed=0,
    )
