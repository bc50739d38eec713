"""What a photo shows, as a network for image classification sees it: features of the photo alone, at several strides.

The convolutional trunk of EfficientNet-Lite0 (arXiv 1905.11946; Lite: without squeeze-and-excitation and with ReLU6),
with batch normalisation folded into the convolutions, so that a photo's features do not depend on its batch.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import CheckpointError, reason

_STEM = 32
_STAGES = ((16, 1, 3, 1, 1), (24, 2, 3, 2, 6), (40, 2, 5, 2, 6), (80, 3, 3, 2, 6), (112, 3, 5, 1, 6), (192, 4, 5, 2, 6))
"""Channels, blocks, kernel, stride of the first block, and expansion."""

STAGES = len(_STAGES)
"""The most stages that an encoder has."""

_EPS = 1e-3
_MEAN, _STD = 127.0, 128.0
"""What the pretrained weights' photos were normalised by."""


def largest_stride(stages: int) -> int:
    """The stride of the deepest features of an encoder of so many stages; 1 for none."""
    return math.prod([2] * (stages > 0) + [stride for _, _, _, stride, _ in _STAGES[:stages]])


class MobileBlock(nn.Module):
    """Inverted bottleneck: 1x1 convolution to more channels, one convolution of each channel, 1x1 to fewer."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = nn.Conv2d(channels, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, padding=0, groups=wide)
        self.project = nn.Conv2d(wide, out_channels, 1)
        self.residual = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        h = x if isinstance(self.expand, nn.Identity) else _relu6(self.expand(x))
        h = self.project(_relu6(_same(self.depthwise, h)))
        return x + h if self.residual else h


class ImageEncoder(nn.Module):
    """Features of photos.

    `forward(image)` takes `(B, 3, H, W)` float, normalised as `unet.normalize` does, H and W multiples of the largest
    stride; it returns features by stride, `(B, channels[stride], H / stride, W / stride)`.

    Attributes:
        channels: Channels of the features, by stride.

    Args:
        stages: How many of the six stages there are.
    """

    def __init__(self, stages: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _STEM, 3, stride=2)
        self.stages = nn.ModuleList()
        self.channels: dict[int, int] = {}
        self._strides, channels, at = [], _STEM, 2
        for out, blocks, kernel, stride, expansion in _STAGES[:stages]:
            first = MobileBlock(channels, out, kernel, stride, expansion)
            self.stages.append(
                nn.Sequential(first, *(MobileBlock(out, out, kernel, 1, expansion) for _ in range(1, blocks)))
            )
            at, channels = at * stride, out
            self._strides.append(at)
            self.channels[at] = out

    def freeze(self, stages: int) -> None:
        """Let the first stages and, where there are any, the stem learn nothing."""
        for part in [self.stem, *self.stages][: stages + 1] if stages else ():
            part.requires_grad_(False)

    def forward(self, image: Tensor) -> dict[int, Tensor]:  # noqa: D102 - described by the class
        h = _relu6(_same(self.stem, image))
        features = {}
        for stride, stage in zip(self._strides, self.stages, strict=True):
            h = stage(h)
            features[stride] = h  # the last stage of a stride is the one that stays
        return features


def _same(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution padded as TensorFlow does: at strides above 1 the odd pixel is at the right and at the bottom."""
    if conv.groups > 1 and conv.weight.requires_grad and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
        # Their gradients take 2 to 20 times as long in bfloat16 as in float32 (docs/experiments.md).
        with torch.autocast("cpu", enabled=False):
            return _padded_as_tensorflow(conv, x.float()).to(x.dtype)
    return _padded_as_tensorflow(conv, x)


def _padded_as_tensorflow(conv: nn.Conv2d, x: Tensor) -> Tensor:
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    if stride == 1:
        return F.conv2d(x, conv.weight, conv.bias, padding=kernel // 2, groups=conv.groups)
    # A whole stride more before, whose row and column are dropped: PyTorch pads both sides alike, and copies cost more.
    padding = (kernel - stride) // 2 + stride
    return F.conv2d(x, conv.weight, conv.bias, stride, padding, groups=conv.groups)[..., 1:, 1:]


def _relu6(x: Tensor) -> Tensor:
    """In place, which takes a third of the time, where nothing is learnt."""
    return F.relu6(x, inplace=not torch.is_grad_enabled())


def folded(state: Mapping[str, Tensor], stages: int, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """The parameters of an `ImageEncoder` from those of EfficientNet-Lite0 as PyTorch packages hold them.

    Batch normalisation is folded into the convolutions before it, and the normalisation of photos that the weights
    expect into the first one.

    Args:
        state: A state dict with the names `_conv_stem`, `_bn0`, `_blocks.N._expand_conv`, …
        stages: Number of stages of the encoder.
        mean: `(3,)`, which was taken off the photos that the encoder is going to see.
        std: `(3,)`, by which they were divided.

    Raises:
        CheckpointError: Parameters are missing or of other shapes.
    """
    try:
        result = dict(_folded(state, stages, mean, std))
        ImageEncoder(stages).load_state_dict(result)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"these are no weights of EfficientNet-Lite0: {reason(error)}") from error
    return result


def _folded(state: Mapping[str, Tensor], stages: int, mean: Tensor, std: Tensor) -> Iterator[tuple[str, Tensor]]:
    weight, bias = _with_norm(state, "_conv_stem", "_bn0")
    yield "stem.weight", weight * (std / _STD).view(1, 3, 1, 1)
    yield "stem.bias", bias + (weight * ((mean - _MEAN) / _STD).view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    numbers = count()
    for stage, (_, blocks, _, _, expansion) in enumerate(_STAGES[:stages]):
        for block in range(blocks):
            there = f"_blocks.{next(numbers)}."
            names = ["expand"] * (expansion > 1) + ["depthwise", "project"]
            norms = range(2 - len(names) + 1, 3)
            for name, norm in zip(names, norms, strict=True):
                weight, bias = _with_norm(state, f"{there}_{name}_conv", f"{there}_bn{norm}")
                yield f"stages.{stage}.{block}.{name}.weight", weight
                yield f"stages.{stage}.{block}.{name}.bias", bias


def _with_norm(state: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    weight, gain, bias, mean, variance = (
        state[name].float()
        for name in (
            f"{conv}.weight",
            *(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
        )
    )
    factor = gain / torch.sqrt(variance + _EPS)
    return weight * factor.view(-1, 1, 1, 1), bias - mean * factor
