"""How likely each change of a mask is right: a small network, learnt from masks of every kind and their truths.

It takes the place of rules about agreement, edges and distances, of which each knew some kinds of masks. Where it was
learnt, and how well it tells, is in docs/experiments.md; `benchmarks.quality.fit_acceptance` learns it again.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from ...model.weights import bundled_file

_LIMIT = 5.0
"""Standard deviations beyond which a feature counts as no stranger still."""


@dataclass(frozen=True)
class AcceptanceModel:
    """A multilayer perceptron over the features of changes.

    Attributes:
        mean: `(F,)` float32, of the features in training.
        deviation: `(F,)` float32, their standard deviation.
        layers: Weight `(outputs, inputs)` and bias `(outputs,)` of each layer; the last has one output.
    """

    mean: Tensor
    deviation: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]

    def __call__(self, features: Tensor) -> Tensor:
        """Gives the probability `(n,)` that each change is right, of features `(n, F)` float32."""
        return self.logits(features).sigmoid()

    def logits(self, features: Tensor, dropout: float = 0.0) -> Tensor:
        """The logits of these probabilities; in training, with dropout after the first layer."""
        device = features.device
        values = ((features - self.mean.to(device)) / self.deviation.to(device)).clamp(-_LIMIT, _LIMIT)
        for index, (weight, bias) in enumerate(self.layers):
            if index:
                values = F.silu(values)
            if index == 1 and dropout:
                values = F.dropout(values, dropout)
            values = F.linear(values, weight.to(device), bias.to(device))
        return values[:, 0]

    def save(self, path: Path) -> None:
        """Writes a `.safetensors` file."""
        tensors = {"mean": self.mean, "deviation": self.deviation}
        for index, (weight, bias) in enumerate(self.layers):
            tensors |= {f"layers.{index}.weight": weight.contiguous(), f"layers.{index}.bias": bias.contiguous()}
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> "AcceptanceModel":
        """Reads what `save` wrote."""
        tensors = load_file(path)
        count = sum(name.endswith(".weight") for name in tensors)
        layers = tuple((tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(count))
        return cls(tensors["mean"], tensors["deviation"], layers)


@lru_cache(maxsize=1)
def bundled() -> AcceptanceModel:
    """The model that judges masks which the bundled weights have refined."""
    return _bundled("acceptance")


@lru_cache(maxsize=1)
def bundled_for_labels() -> AcceptanceModel:
    """The model that judges label maps, by the features of `label_changes`."""
    return _bundled("label_acceptance")


def _bundled(name: str) -> AcceptanceModel:
    return AcceptanceModel.load(bundled_file(f"{name}.safetensors"))
