"""The means that a run logs, summed up on the training device."""

import torch
from torch import Tensor

from ...model.diffusion import NUM_TIMESTEPS
from ..batches import Example
from ..distributed import SINGLE, ProcessGroup


class Tally:
    """Sums over the steps since the last look at them, kept on the device.

    Args:
        device: Where the samples are.
    """

    _BCE, _TEXTURE, _LOSS, _COUNT, _DEGENERATE, _NORM, _NORMS = range(7)

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(7 + 2 * NUM_TIMESTEPS, dtype=torch.float64, device=device)
        self.failures: tuple[tuple[str, str], ...] = ()

    @torch.no_grad()
    def samples(self, example: Example, logits: Tensor, entropy: Tensor, texture: Tensor, weight: float) -> None:
        """Adds the losses of samples, and whether their predictions are empty or full where the truth is not.

        Args:
            example: The samples.
            logits: `(B, 1, S, S)` float.
            entropy: `(B,)` float, cross-entropy of each sample.
            texture: `(B,)` float, unweighted texture loss of each sample.
            weight: Weight of the texture loss.
        """
        loss = entropy + weight * texture
        predicted, truth = (masks.flatten(1).float().mean(dim=1) for masks in (logits >= 0, example.batch.fine))
        degenerate = ((predicted == 0) | (predicted == 1)) & (truth > 0) & (truth < 1)
        sums = [entropy.sum(), texture.sum(), loss.sum(), loss.new_tensor(len(loss)), degenerate.sum()]
        self._sums[: len(sums)] += torch.stack([s.double() for s in sums])
        for offset, values in ((7, loss), (7 + NUM_TIMESTEPS, torch.ones_like(loss))):
            self._sums[offset : offset + NUM_TIMESTEPS].index_add_(0, example.timesteps, values.double())

    def gradient(self, norm: Tensor) -> None:
        """Adds the gradient's norm of a step."""
        self._sums[self._NORM] += norm.detach()
        self._sums[self._NORMS] += 1

    def means(self, processes: ProcessGroup = SINGLE) -> dict[str, float]:
        """Means over the samples of all processes: loss, bce, texture, gradient_norm, degenerate, loss_t0 ….

        `degenerate` is the share of predictions that are empty or full where the truth is neither.
        """
        sums = processes.sum(self._sums).tolist()
        number = max(1.0, sums[self._COUNT])
        found = {"loss": sums[self._LOSS], "bce": sums[self._BCE], "texture": sums[self._TEXTURE]}
        found = {name: value / number for name, value in found.items()}
        found["gradient_norm"] = sums[self._NORM] / max(1.0, sums[self._NORMS])
        found["degenerate"] = sums[self._DEGENERATE] / number
        for t in range(NUM_TIMESTEPS):
            total, seen = sums[7 + t], sums[7 + NUM_TIMESTEPS + t]
            if seen:
                found[f"loss_t{t}"] = total / seen
        return found

    def clear(self) -> None:
        """Begins anew."""
        self._sums.zero_()
        self.failures = ()
