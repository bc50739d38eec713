"""Small networks with weights that files are made of, and what errors say of broken ones."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from segrefiner.errors import CheckpointError
from segrefiner.model.unet import BASE, DenoisingUNet, UNetConfig

TINY = UNetConfig(
    model_channels=4,
    channel_mult=(1, 2),
    num_res_blocks=1,
    num_up_blocks=1,
    attention_strides=(4,),
    norm_groups=2,
    stem_stride=2,
    refine_channels=4,
)
"""The compact family, as small as it gets."""
PUBLISHED = replace(BASE, model_channels=4, norm_groups=4, channel_mult=(1, 2), attention_strides=(2,))
"""The published layout with 4 instead of 128 channels and 2 instead of 6 levels."""


def make_network(config: UNetConfig = TINY) -> DenoisingUNet:
    with torch.device("meta"):
        network = DenoisingUNet(config)
    network.load_state_dict({k: v.clone() for k, v in make_state(config).items()}, assign=True)
    return network.eval()


def make_state(config: UNetConfig = PUBLISHED) -> dict[str, Tensor]:
    return dict(cached_state(config))


@cache
def cached_state(config: UNetConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = DenoisingUNet(config).state_dict()
    generator = torch.Generator().manual_seed(0)
    return {name: 0.2 * torch.randn(t.shape, generator=generator) for name, t in shapes.items()}


def run(network: DenoisingUNet) -> Tensor:
    size = network.config.size_multiple
    x = torch.randn(2, 4, size, 2 * size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits: Tensor = network(x, torch.tensor([5, 0]))
    return logits


def refusal(call: Callable[[], object]) -> str:
    """Return the message of the error, which must be one line that can be read."""
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message
