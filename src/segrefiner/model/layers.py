"""The layers of the denoising UNet; group normalisation is one that learns faster on a CPU.

With channels last, PyTorch 2.13's own gradient of a few channels at a high resolution takes seven times as long as the
elementwise operations that it is made of; everywhere else PyTorch's is taken.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FEW = 64
"""Channels up to which that is so."""


class _Steps(nn.Sequential):
    """A sequence whose residual blocks also take the time."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, time) if isinstance(layer, ResidualBlock) else layer(x)
        return x


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; what the timestep's embedding says is added between them."""

    shifts: Tensor | None

    def __init__(self, channels: int, out_channels: int, embedding_channels: int, groups: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding_channels, out_channels))
        self.out_layers = nn.Sequential(
            GroupNorm(groups, out_channels),
            nn.SiLU(),
            nn.Dropout(0.0),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)
        self.register_buffer("shifts", None, persistent=False)

    def fuse(self, embeddings: Tensor) -> None:
        """Computes for good what is added at each timestep, of their embeddings `(T, E)`."""
        with torch.no_grad():
            self.shifts = self.emb_layers(embeddings)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """`time` are embeddings `(B, E)`; once fused, timesteps `(B,)`."""
        shift = self.emb_layers(time) if self.shifts is None else self.shifts[time]
        h = self.in_layers(x) + shift[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class AttentionBlock(nn.Module):
    """Self-attention over all positions of a feature map."""

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        # Channels last, so that the convolutions are matrix products and the fast attention kernels apply.
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(b, height * width, c)
        qkv = F.linear(tokens, self.qkv.weight[:, :, 0], self.qkv.bias)
        # One head's q, k and v lie together in the published weights.
        q, k, v = qkv.view(b, -1, self.heads, 3, c // self.heads).permute(3, 0, 2, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, height * width, c)
        h = F.linear(h, self.proj_out.weight[:, :, 0], self.proj_out.bias)
        return x + h.view(b, height, width, c).permute(0, 3, 1, 2)


class Downsample(nn.Module):
    """Halves the resolution by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Doubles the resolution by nearest neighbour and a convolution.

    Of the nine weights that meet an enlarged pixel's surroundings some always meet copies of one pixel. With these
    added up, one transposed convolution does the same with four products instead of nine.
    """

    kernel: Tensor | None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.register_buffer("kernel", None, persistent=False)

    def fuse(self) -> None:
        """Computes the kernel for good."""
        with torch.no_grad():
            self.kernel = self._kernel().contiguous()

    def _kernel(self) -> Tensor:
        """`(in, out, 4, 4)`: even pixels meet the second and the last row and column, odd ones the others."""
        w = self.conv.weight
        w = torch.stack([w[:, :, 2], w[:, :, 1] + w[:, :, 2], w[:, :, 0] + w[:, :, 1], w[:, :, 0]], dim=2)
        w = torch.stack([w[..., 2], w[..., 1] + w[..., 2], w[..., 0] + w[..., 1], w[..., 0]], dim=3)
        return w.transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self._kernel() if self.kernel is None else self.kernel
        return F.conv_transpose2d(x, kernel, self.conv.bias, stride=2, padding=1)


def _silent(conv: nn.Conv2d) -> nn.Conv2d:
    """Gives zeros at first, so that a trained network can learn to use what it did not know before."""
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` with another gradient on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        quick = x.device.type == "cpu" and torch.is_grad_enabled() and self.num_channels <= _FEW
        if not quick or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        result: Tensor = _Normalised.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return result


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels, height, width = x.shape
        result, mean, rate = torch.native_group_norm(x, weight, bias, batch, channels, height * width, groups, eps)
        ctx.save_for_backward(x, weight, mean, rate)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With x' = (x - mean) * rate: dx = rate * (w * dy - mean(w * dy) - x' * mean(w * dy * x')), means by group."""
        (dy,) = gradients
        x, weight, mean, rate = ctx.saved_tensors
        batch, channels, height, width = x.shape
        groups = mean.shape[1]

        def of_channels(values: Tensor) -> Tensor:
            return values.float().repeat_interleave(channels // groups, dim=1)

        def mean_of_groups(sums: Tensor) -> Tensor:
            return of_channels((sums * weight).view(batch, groups, -1).mean(dim=2) / (height * width))

        mean, rate = of_channels(mean), of_channels(rate)
        plain = dy.sum((2, 3), dtype=torch.float32)
        with_x = ((dy * x).sum((2, 3), dtype=torch.float32) - mean * plain) * rate
        slope = -rate * rate * mean_of_groups(with_x)
        offset = -rate * mean_of_groups(plain) - slope * mean
        factors = [v.to(x.dtype)[:, :, None, None] for v in (offset, slope, rate * weight)]
        dx = torch.addcmul(torch.addcmul(factors[0], x, factors[1]), dy, factors[2])
        return dx, with_x.sum(0).to(weight.dtype), plain.sum(0).to(weight.dtype), None, None
