"""The training loss: binary cross-entropy plus the texture loss (arXiv 2312.12425, section 3.4)."""

from torch import Tensor
from torch.nn import functional as F

TEXTURE_WEIGHT = 5.0


def sobel(mask: Tensor) -> Tensor:
    """Gradient magnitude of a smoothed soft mask.

    Args:
        mask: `(B, 1, H, W)` float in [0, 1].

    Returns:
        `(B, 1, H, W)`: `sqrt(gx² + gy² + 1e-4)` of the 3x3 mean of `mask`, zero-padded, Sobel kernels divided by 4.
    """
    padded = F.pad(F.avg_pool2d(mask, 3, stride=1, padding=1), (1, 1, 1, 1))
    # Both kernels are separable: differences along one axis of (1, 2, 1) sums along the other. On a CPU this takes a
    # fifth of the time of a convolution of one channel (docs/experiments.md).
    down = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    across = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    horizontal, vertical = down[..., :-2] - down[..., 2:], across[..., :-2, :] - across[..., 2:, :]
    return ((horizontal.square() + vertical.square()) / 16 + 1e-4).sqrt()


def texture_loss(logits: Tensor, fine: Tensor) -> Tensor:
    """L1 distance of the gradient magnitudes of prediction and truth, unweighted.

    Args:
        logits: `(B, 1, H, W)` float.
        fine: `(B, 1, H, W)` float in {0, 1}.

    Returns:
        `(B,)`, the mean over each sample's pixels.
    """
    return (sobel(logits.sigmoid()) - sobel(fine)).abs().mean(dim=(1, 2, 3))


def cross_entropy(logits: Tensor, fine: Tensor, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy `(B,)`, the mean over each sample's pixels.

    Args:
        logits: `(B, 1, H, W)` float.
        fine: `(B, 1, H, W)` float in {0, 1}.
        weight: `(B, 1, H, W)` that multiplies each pixel's term.
    """
    terms = F.binary_cross_entropy_with_logits(logits, fine, weight=weight, reduction="none")
    return terms.mean(dim=(1, 2, 3))
