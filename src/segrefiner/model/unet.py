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

    @property
    def widths(self) -> list[int]:
        """Channels of each level, shallow to deep."""
        return [self.model_channels * multiplier for multiplier in self.channel_mult]

    @property
    def strides(self) -> list[int]:
        """Stride of each level in input pixels, shallow to deep."""
        return [self.stem_stride * 2**level for level in range(len(self.channel_mult))]

    @property
    def embedding_channels(self) -> int:
        """Channels of the embedding of a timestep."""
        return 4 * self.model_channels

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain JSON types."""
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
        # In the order of the published state dict, which is also that of the draws of the first weights.
        self.time_embed = nn.Embedding(config.num_timesteps, config.embedding_channels)
        self.input_blocks, outputs = self._build_input_blocks()
        # A level has one entry block (stem or downsampler) and its residual blocks; the last of them are skips.
        per_level = config.num_res_blocks + 1
        self._skips = [i for i in range(len(outputs)) if i % per_level >= per_level - config.num_up_blocks]
        self._image_strides: dict[str, int] = {}
        if config.image_stages:
            self.image_encoder = ImageEncoder(config.image_stages)
            self.image_blocks, self._image_strides = self._build_image_blocks(self.image_encoder)
        self.middle_block = self._build_middle_block()
        self.output_blocks = self._build_output_blocks([outputs[i] for i in self._skips])
        self.out = self._build_head()
        if config.refine_channels:
            self.refine = self._build_refinement()
        if config.detail_channels:
            self.detail, self.detail_middle, self.detail_out = self._build_detail()
        # Whatever PyTorch's default dtype is in the program around.
        self.float()

    def _build_block(self, channels: int, out_channels: int, stride: int) -> list[nn.Module]:
        """The layers of a residual block, with attention at the strides that have it."""
        config = self.config
        layers: list[nn.Module] = [ResidualBlock(channels, out_channels, config.embedding_channels, config.norm_groups)]
        if stride in config.attention_strides:
            layers.append(AttentionBlock(out_channels, config.num_heads, config.norm_groups))
        return layers

    def _build_input_blocks(self) -> tuple[nn.ModuleList, list[int]]:
        """The way down: stem, residual blocks and downsamplers, and the channels that each of them gives."""
        config, channels = self.config, self.config.widths[0]
        blocks = nn.ModuleList([_Steps(nn.Conv2d(4 * config.stem_stride**2, channels, 3, padding=1))])
        outputs = [channels]
        for level, (width, stride) in enumerate(zip(config.widths, config.strides, strict=True)):
            if level:
                blocks.append(_Steps(Downsample(channels)))
                outputs.append(channels)
            for _ in range(config.num_res_blocks):
                blocks.append(_Steps(*self._build_block(channels, width, stride)))
                channels = width
                outputs.append(channels)
        return blocks, outputs

    def _build_image_blocks(self, encoder: ImageEncoder) -> tuple[nn.ModuleDict, dict[str, int]]:
        """Convolutions of the encoder's features, by the entry block after which they are added, and their strides."""
        config, per_level = self.config, self.config.num_res_blocks + 1
        blocks, strides = nn.ModuleDict(), {}
        for level, stride in enumerate(config.strides):
            if found := encoder.channels.get(stride):
                entry = str(level * per_level)
                strides[entry] = stride
                blocks[entry] = _silent(nn.Conv2d(found, config.widths[max(0, level - 1)], 1))
        return blocks, strides

    def _build_middle_block(self) -> _Steps:
        """The deepest blocks."""
        config, channels = self.config, self.config.widths[-1]
        return _Steps(
            ResidualBlock(channels, channels, config.embedding_channels, config.norm_groups),
            AttentionBlock(channels, config.num_heads, config.norm_groups),
            ResidualBlock(channels, channels, config.embedding_channels, config.norm_groups),
        )

    def _build_output_blocks(self, skips: list[int]) -> nn.ModuleList:
        """The way up: residual blocks that take the skips, given by their channels, and upsamplers."""
        config, channels, left = self.config, self.config.widths[-1], list(skips)
        blocks = nn.ModuleList()
        for level, (width, stride) in reversed(list(enumerate(zip(config.widths, config.strides, strict=True)))):
            for index in range(config.num_up_blocks):
                layers = self._build_block(channels + left.pop(), width, stride)
                channels = width
                if level and index == config.num_up_blocks - 1:
                    layers.append(Upsample(channels))
                blocks.append(_Steps(*layers))
        return blocks

    def _build_head(self) -> nn.Sequential:
        """Logits, or features for the full-resolution convolutions, before the pixel-shuffle."""
        config, channels = self.config, self.config.widths[0]
        head = (config.refine_channels or 1) * config.stem_stride**2
        return nn.Sequential(
            GroupNorm(config.norm_groups, channels), nn.SiLU(), nn.Conv2d(channels, head, 3, padding=1)
        )

    def _build_refinement(self) -> nn.Sequential:
        """Convolutions at full resolution, which see photo and mixed mask there.

        The pixel-unshuffled path alone places edges to two pixels.
        """
        width = self.config.refine_channels
        return nn.Sequential(
            nn.Conv2d(width + 4, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def _build_detail(self) -> tuple[nn.Sequential, nn.Conv2d, nn.Conv2d]:
        """The detail branch, and what it adds to the last two full-resolution convolutions."""
        width = self.config.detail_channels
        branch = nn.Sequential(
            nn.Conv2d(4, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU()
        )
        middle = _silent(nn.Conv2d(width, self.config.refine_channels, 3, padding=1))
        return branch, middle, _silent(nn.Conv2d(width, 1, 3, padding=1))

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


def fused(network: DenoisingUNet, *, copied: bool = False) -> DenoisingUNet:
    """The same network with less to compute.

    Args:
        network: Stays as it is.
        copied: Whether the result has parameters of its own; otherwise the network's, which must not change any more.
    """
    shared = {} if copied else {id(parameter): parameter for parameter in network.parameters()}
    result = copy.deepcopy(network, shared)
    result.fuse()
    for module in result.modules():
        if isinstance(module, nn.Sequential):
            for layer in list(module)[1:]:  # What another layer gave is nobody else's.
                if isinstance(layer, nn.SiLU):
                    layer.inplace = True
    return result
