"""The quick gradient of group normalisation is PyTorch's."""

import pytest
import torch
from torch import nn

from segrefiner.model.layers import GroupNorm


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "groups"), [(32, 16), (64, 4), (6, 1), (96, 16)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_gradients(
    dtype: torch.dtype, tolerance: float, channels: int, groups: int, layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    ours, theirs = GroupNorm(groups, channels), nn.GroupNorm(groups, channels)
    ours.load_state_dict({"weight": noise(channels), "bias": noise(channels)})
    theirs.load_state_dict(ours.state_dict())
    x, dy = (noise(3, channels, 10, 14).to(dtype).contiguous(memory_format=layout) for _ in range(2))
    found = []
    for module in (ours, theirs):
        given = (3 * x + 1).requires_grad_()
        result = module(given)
        result.backward(dy)
        found.append((result.detach(), given.grad, module.weight.grad, module.bias.grad))
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert (a - b).float().abs().max() <= tolerance * b.float().abs().max()
    assert found[0][0].stride() == found[1][0].stride()
