"""The denoising UNet: photo and mixed mask in, one logit of the fine mask per pixel out.

The UNet of improved diffusion (Nichol & Dhariwal 2021, arXiv 2102.09672) as SegRefiner uses it
(arXiv 2312.12425, section 3.3), with the parameter names of the published checkpoints, and a compact
member of the same family that works on pixel-unshuffled input.
"""

import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .image_encoder import ImageEncoder, largest_stride
from .layers import AttentionBlock, Downsample, GroupNorm, ResidualBlock, Upsample, _silent, _Steps

IMAGE_MEAN = (123.675, 116.28, 103.53)
IMAGE_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a `DenoisingUNet`. The defaults are the published "base" size.

    Attributes:
        model_channels: Channels of the first level; a level has `model_channels * channel_mult[level]`.
        channel_mult: Multiplier of each level, shallow to deep; each level halves the resolution.
        num_res_blocks: Residual blocks of each level on the way down.
        num_up_blocks: Residual blocks of each level on the way up. With `num_res_blocks + 1` each takes one of the
            level's skips, as published; with fewer, the deepest skips of the level are taken.
        attention_strides: Strides, in input pixels, of the levels with self-attention.
        num_heads: Attention heads.
        norm_groups: Groups of every GroupNorm.
        num_timesteps: Length T of the diffusion.
        stem_stride: 1, or the factor of the pixel-unshuffle before the stem and pixel-shuffle after the head.
        refine_channels: Width of the full-resolution convolutions after the pixel-shuffle; 0 for none.
        image_stages: Stages of the image encoder, whose features of the photo are added to the levels of their strides
            on the way down; 0 for none.
        detail_channels: Width of a branch of convolutions at full resolution over photo and mixed mask, which adds to
            the last two full-resolution convolutions, so that an exact contour can be copied to the pixel; 0 for
            none. It needs `refine_channels`.
    """

    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    num_res_blocks: int = 2
    num_up_blocks: int = 3
    attention_strides: tuple[int, ...] = (16, 32)
    num_heads: int = 4
    norm_groups: int = 32
    num_timesteps: int = 6
    stem_stride: int = 1
    refine_channels: int = 0
    image_stages: int = 0
    detail_channels: int = 0

    @property
    def size_multiple(self) -> int:
        """Height and width of the network's input must be multiples of this."""
        return max(self.stem_stride * 2 ** (len(self.channel_mult) - 1), largest_stride(self.image_stages))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "UNetConfig":
        """The inverse of `to_dict`. Raises `TypeError` for a name that is no attribute."""
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**known)


BASE = UNetConfig()
COMPACT = UNetConfig(
    model_channels=16,
    channel_mult=(2, 4, 6, 10, 12),
    num_res_blocks=1,
    num_up_blocks=1,
    norm_groups=16,
    stem_stride=2,
    refine_channels=12,
)


def normalize(image: Tensor) -> Tensor:
    """Photo `(B, 3, H, W)` of any real dtype, 0-255 → float with ImageNet's mean and deviation removed."""
    if not image.is_floating_point():
        image = image.float()
    mean = torch.tensor(IMAGE_MEAN, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
    return (image - mean).div_(std)


class DenoisingUNet(nn.Module):
    """Predicts the fine mask from a photo and a mixed mask at a timestep.

    `forward(x, timesteps)` takes `x` `(B, 4, H, W)` float, the normalised RGB photo and the mixed mask in {0, 1},
    H and W multiples of `config.size_multiple`, and `timesteps` `(B,)` int64 in 0 … T-1;
    it returns logits `(B, 1, H, W)`.
    """

    def __init__(self, config: UNetConfig = BASE) -> None:
        super().__init__()
        self.config, self.fused = config, False
        base, groups = config.model_channels, config.norm_groups
        embedding = 4 * base
        widths = [base * m for m in config.channel_mult]
        strides = [config.stem_stride * 2**level for level in range(len(widths))]
        self.time_embed = nn.Embedding(config.num_timesteps, embedding)

        def block(channels: int, out_channels: int, stride: int) -> list[nn.Module]:
            layers: list[nn.Module] = [ResidualBlock(channels, out_channels, embedding, groups)]
            if stride in config.attention_strides:
                layers.append(AttentionBlock(out_channels, config.num_heads, groups))
            return layers

        stem_channels = 4 * config.stem_stride**2
        self.input_blocks = nn.ModuleList([_Steps(nn.Conv2d(stem_channels, widths[0], 3, padding=1))])
        outputs, channels = [widths[0]], widths[0]
        for level, (width, stride) in enumerate(zip(widths, strides, strict=True)):
            if level:
                self.input_blocks.append(_Steps(Downsample(channels)))
                outputs.append(channels)
            for _ in range(config.num_res_blocks):
                self.input_blocks.append(_Steps(*block(channels, width, stride)))
                channels = width
                outputs.append(channels)
        # A level has one entry block (stem or downsampler) and its residual blocks; the last of them are skips.
        per_level = config.num_res_blocks + 1
        self._skips = [i for i in range(len(outputs)) if i % per_level >= per_level - config.num_up_blocks]
        skips = [outputs[i] for i in self._skips]

        self._image_strides: dict[str, int] = {}
        if config.image_stages:
            self.image_encoder = ImageEncoder(config.image_stages)
            self.image_blocks = nn.ModuleDict()
            for level, stride in enumerate(strides):
                if found := self.image_encoder.channels.get(stride):
                    entry = str(level * per_level)
                    self._image_strides[entry] = stride
                    self.image_blocks[entry] = _silent(nn.Conv2d(found, widths[max(0, level - 1)], 1))

        self.middle_block = _Steps(
            ResidualBlock(channels, channels, embedding, groups),
            AttentionBlock(channels, config.num_heads, groups),
            ResidualBlock(channels, channels, embedding, groups),
        )

        self.output_blocks = nn.ModuleList()
        for level, (width, stride) in reversed(list(enumerate(zip(widths, strides, strict=True)))):
            for index in range(config.num_up_blocks):
                layers = block(channels + skips.pop(), width, stride)
                channels = width
                if level and index == config.num_up_blocks - 1:
                    layers.append(Upsample(channels))
                self.output_blocks.append(_Steps(*layers))

        head = (config.refine_channels or 1) * config.stem_stride**2
        self.out = nn.Sequential(GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, head, 3, padding=1))
        if config.refine_channels:
            # Sees the photo at full resolution: the pixel-unshuffled path alone places edges to two pixels.
            self.refine = nn.Sequential(
                nn.Conv2d(config.refine_channels + 4, config.refine_channels, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(config.refine_channels, config.refine_channels, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(config.refine_channels, 1, 3, padding=1),
            )
        if config.detail_channels:
            width = config.detail_channels
            self.detail = nn.Sequential(
                nn.Conv2d(4, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU()
            )
            self.detail_middle = _silent(nn.Conv2d(width, config.refine_channels, 3, padding=1))
            self.detail_out = _silent(nn.Conv2d(width, 1, 3, padding=1))
        # Whatever PyTorch's default dtype is in the program around.
        self.float()

    def fuse(self) -> None:
        """Computes for good what only depends on the weights, which must stay as they are from now on."""
        self.fused = True
        for module in self.modules():
            if isinstance(module, Upsample):
                module.fuse()
            if isinstance(module, ResidualBlock):
                module.fuse(self.time_embed.weight)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        time = timesteps if self.fused else self.time_embed(timesteps)
        stride = self.config.stem_stride
        h = F.pixel_unshuffle(x, stride) if stride > 1 else x
        skips = []
        seen = self._image_features(x)
        for index, step in enumerate(self.input_blocks):
            h = step(h, time)
            if index in seen:
                h = h + seen[index]
            if index in self._skips:
                skips.append(h)
        h = self.middle_block(h, time)
        for step in self.output_blocks:
            h = step(torch.cat([h, skips.pop()], dim=1), time)
        h = self.out(h)
        if stride > 1:
            h = F.pixel_shuffle(h, stride)
        if self.config.refine_channels:
            h = self._refined(torch.cat([h, x.to(h.dtype)], dim=1), x)
        return h

    def _refined(self, h: Tensor, x: Tensor) -> Tensor:
        """Logits from features at full resolution and the network's input."""
        if not self.config.detail_channels:
            return self.refine(h)
        detail = self.detail(x)
        first, activation, middle, *rest = self.refine
        h = middle(activation(first(h))) + self.detail_middle(detail)
        for layer in rest:
            h = layer(h)
        return h + self.detail_out(detail)

    def _image_features(self, x: Tensor) -> dict[int, Tensor]:
        """What is added after the blocks that enter a level."""
        if not self.config.image_stages:
            return {}
        features = self.image_encoder(x[:, :3])
        return {int(entry): block(features[self._image_strides[entry]]) for entry, block in self.image_blocks.items()}


def fused(network: DenoisingUNet) -> DenoisingUNet:
    """The same network, with the same parameters, which must not change any more, and less to compute."""
    shared = {id(parameter): parameter for parameter in network.parameters()}
    result = copy.deepcopy(network, shared)
    result.fuse()
    for module in result.modules():
        if isinstance(module, nn.Sequential):
            for layer in list(module)[1:]:  # What another layer gave is nobody else's.
                if isinstance(layer, nn.SiLU):
                    layer.inplace = True
    return result
