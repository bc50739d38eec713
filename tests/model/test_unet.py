"""Laws of the denoising UNet: the published names, shapes and cost; what every configuration does."""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from helpers.tiny import TINY_WITH_ATTENTION as TINY
from segrefiner.model.conversion import with_detail
from segrefiner.model.layers import AttentionBlock, Upsample
from segrefiner.model.unet import BASE, COMPACT, IMAGE_MEAN, IMAGE_STD, DenoisingUNet, UNetConfig, fused, normalize

QUICK = settings(max_examples=25)


@st.composite
def configs(draw: st.DrawFn) -> UNetConfig:
    blocks = draw(st.integers(1, 2))
    refine = draw(st.sampled_from([0, 3]))
    return UNetConfig(
        model_channels=4,
        channel_mult=tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))),
        num_res_blocks=blocks,
        num_up_blocks=draw(st.integers(1, blocks + 1)),
        attention_strides=tuple(draw(st.sets(st.sampled_from([1, 2, 4, 8])))),
        num_heads=draw(st.sampled_from([1, 2])),
        norm_groups=draw(st.sampled_from([1, 2])),
        num_timesteps=draw(st.integers(1, 6)),
        stem_stride=draw(st.sampled_from([1, 2, 4])),
        refine_channels=refine,
        detail_channels=draw(st.sampled_from([0, 4])) if refine else 0,
        image_stages=draw(st.sampled_from([0, 0, 1, 3])),
    )


def seeded(config: UNetConfig, seed: int = 0) -> DenoisingUNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DenoisingUNet(config).eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def published_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every parameter of the published base size, written out from the description of its architecture."""

    def convolution(name: str, into: int, out: int, kernel: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (out, into, *kernel)
        yield f"{name}.bias", (out,)

    def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (channels,)
        yield f"{name}.bias", (channels,)

    def residual(name: str, into: int, out: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from norm(f"{name}.in_layers.0", into)
        yield from convolution(f"{name}.in_layers.2", into, out, (3, 3))
        yield from convolution(f"{name}.emb_layers.1", 512, out, ())
        yield from norm(f"{name}.out_layers.0", out)
        yield from convolution(f"{name}.out_layers.3", out, out, (3, 3))
        if into != out:
            yield from convolution(f"{name}.skip_connection", into, out, (1, 1))

    def attention(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from norm(f"{name}.norm", channels)
        yield from convolution(f"{name}.qkv", channels, 3 * channels, (1,))
        yield from convolution(f"{name}.proj_out", channels, channels, (1,))

    yield "time_embed.weight", (6, 512)
    yield from convolution("input_blocks.0.0", 4, 128, (3, 3))
    entering = [128, 128, 128, 256, 256, 512]
    widths = [128, 128, 256, 256, 512, 512]
    attentive = [False, False, False, False, True, True]  # strides 1, 2, 4, 8, 16, 32
    for level, (into, width, attends) in enumerate(zip(entering, widths, attentive, strict=True)):
        if level:
            yield from convolution(f"input_blocks.{3 * level}.0.op", into, into, (3, 3))
        for block in (1, 2):
            yield from residual(f"input_blocks.{3 * level + block}.0", into if block == 1 else width, width)
            if attends:
                yield from attention(f"input_blocks.{3 * level + block}.1", width)
    yield from residual("middle_block.0", 512, 512)
    yield from attention("middle_block.1", 512)
    yield from residual("middle_block.2", 512, 512)
    coming = 512
    for index, level in enumerate(reversed(range(6))):
        width = widths[level]
        for block, skip in enumerate((width, width, entering[level])):
            name = f"output_blocks.{3 * index + block}"
            yield from residual(f"{name}.0", coming + skip, width)
            coming = width
            if attentive[level]:
                yield from attention(f"{name}.1", width)
            if block == 2 and level:
                yield from convolution(f"{name}.{2 if attentive[level] else 1}.conv", width, width, (3, 3))
    yield from norm("out.0", 128)
    yield from convolution("out.2", 128, 1, (3, 3))


def on_meta(config: UNetConfig) -> DenoisingUNet:
    with torch.device("meta"):
        return DenoisingUNet(config)


def cost(config: UNetConfig) -> tuple[int, int]:
    """Parameters, and operations of one 256x256 patch (a multiplication and its addition are two)."""
    net = on_meta(config)
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 4, 256, 256, device="meta"), torch.empty(1, dtype=torch.int64, device="meta"))
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops()


def test_the_base_size_has_exactly_the_published_parameters() -> None:
    assert {k: tuple(v.shape) for k, v in on_meta(BASE).state_dict().items()} == dict(published_shapes())


def test_what_the_base_size_costs() -> None:
    parameters, operations = cost(BASE)
    assert parameters == pytest.approx(118.6e6, rel=1e-3)
    # As published 498 GFLOP, of which five enlargements with their convolutions take 5 of every 9 twice.
    widths, sides = (512, 512, 256, 256, 128), (16, 32, 64, 128, 256)
    saved = sum(2 * 5 * width**2 * side**2 for width, side in zip(widths, sides, strict=True))
    assert operations + saved == pytest.approx(498e9, rel=2e-3)


def test_the_compact_size_keeps_its_budget() -> None:
    for config in (COMPACT, replace(COMPACT, image_stages=6), replace(COMPACT, image_stages=6, detail_channels=16)):
        parameters, operations = cost(config)
        assert parameters <= 10e6
        assert operations <= 10e9


@QUICK
@given(config=configs(), batch=st.integers(1, 2), rows=st.integers(1, 3), columns=st.integers(1, 3))
def test_every_configuration_gives_one_logit_per_pixel(config: UNetConfig, batch: int, rows: int, columns: int) -> None:
    height, width = rows * config.size_multiple, columns * config.size_multiple
    timesteps = torch.arange(batch) % config.num_timesteps
    logits = seeded(config)(noise(batch, 4, height, width), timesteps)
    assert logits.shape == (batch, 1, height, width)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 2)])
def test_doubling_is_nearest_neighbour_and_a_convolution(size: tuple[int, int]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        up = Upsample(6).double()
    x = noise(2, 6, *size).double()
    expected = up.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(up(x), expected, rtol=0, atol=1e-12)
    up.fuse()
    torch.testing.assert_close(up(x), expected, rtol=0, atol=1e-12)


@QUICK
@given(config=configs())
def test_a_fused_network_computes_the_same_with_the_same_parameters(config: UNetConfig) -> None:
    net = seeded(config)
    quick = fused(net)
    last = config.num_timesteps - 1
    x, timesteps = noise(2, 4, config.size_multiple, config.size_multiple), torch.tensor([last, 0])
    torch.testing.assert_close(quick(x, timesteps), net(x, timesteps), rtol=0, atol=1e-5)
    assert [p.data_ptr() for p in quick.parameters()] == [p.data_ptr() for p in net.parameters()]
    assert quick.state_dict().keys() == net.state_dict().keys()


@QUICK
@given(config=configs())
def test_attention_sits_at_its_strides_and_in_the_middle(config: UNetConfig) -> None:
    net, stride = on_meta(config), {}
    for name, module in net.named_modules():
        if name.startswith("input_blocks.") and isinstance(module, AttentionBlock):
            # Each level has one entry block and its residual blocks.
            level = int(name.split(".")[1]) // (config.num_res_blocks + 1)
            stride[name] = config.stem_stride * 2**level
    strides = {config.stem_stride * 2**level for level in range(len(config.channel_mult))}
    assert set(stride.values()) == strides & set(config.attention_strides)
    assert len(stride) == config.num_res_blocks * len(set(stride.values()))
    assert [isinstance(m, AttentionBlock) for m in net.middle_block] == [False, True, False]
    up = [m for m in net.output_blocks.modules() if isinstance(m, AttentionBlock)]
    assert len(up) == config.num_up_blocks * len(set(stride.values()))


@QUICK
@given(config=configs())
def test_a_config_survives_json(config: UNetConfig) -> None:
    back = UNetConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert back == config and hash(back) == hash(config)


def test_unknown_names_in_a_config_are_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        UNetConfig.from_dict({**TINY.to_dict(), "colour": 1})


@pytest.mark.parametrize("config", [TINY, replace(TINY, stem_stride=1, num_up_blocks=2, refine_channels=0)])
def test_the_items_of_a_batch_know_nothing_of_each_other(config: UNetConfig) -> None:
    net, x, timesteps = seeded(config), noise(3, 4, 16, 24), torch.tensor([5, 0, 3])
    together = net(x, timesteps)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], net(x[i : i + 1], timesteps[i : i + 1]), rtol=0, atol=1e-5)
    with torch.no_grad():
        order = torch.tensor([2, 0, 1])
        torch.testing.assert_close(net(x[order], timesteps[order]), together[order], rtol=0, atol=1e-5)


def test_photo_mask_and_timestep_all_matter() -> None:
    net, x = seeded(TINY), noise(1, 4, 16, 16)
    before = net(x, torch.tensor([2]))
    for channel in range(4):
        other = x.clone()
        other[:, channel] += 1
        assert (net(other, torch.tensor([2])) - before).abs().max() > 1e-3
    assert (net(x, torch.tensor([3])) - before).abs().max() > 1e-3


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, num_res_blocks=2, num_up_blocks=3),
        replace(TINY, stem_stride=1, refine_channels=0),
        replace(TINY, image_stages=2),
        replace(TINY, detail_channels=4),
    ],
    ids=["tiny", "all skips", "full resolution", "image encoder", "detail"],
)
def test_the_gradient_reaches_every_parameter(config: UNetConfig) -> None:
    net = seeded(config).train()
    for name, parameter in net.named_parameters():
        if name.startswith(("image_blocks.", "detail_")):  # silent at first
            torch.nn.init.constant_(parameter, 0.1)
    net(noise(6, 4, 16, 16), torch.arange(6)).square().mean().backward()
    untouched = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []
    assert net.time_embed.weight.grad is not None
    assert net.time_embed.weight.grad.any(dim=1).all()


def published_attention(block: AttentionBlock, x: Tensor) -> Tensor:
    """Attention as the improved-diffusion paper's code orders it: each head's q, k and v lie together."""
    b, c, h, w = x.shape
    qkv = block.qkv(block.norm(x).reshape(b, c, h * w)).reshape(b * block.heads, 3 * c // block.heads, h * w)
    q, k, v = qkv.split(c // block.heads, dim=1)
    scale = (c / block.heads) ** -0.25
    weight = torch.einsum("bct,bcs->bts", q * scale, k * scale).softmax(dim=-1)
    mixed = torch.einsum("bts,bcs->bct", weight, v).reshape(b, c, h * w)
    return x + block.proj_out(mixed).reshape(b, c, h, w)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_the_published_one(heads: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(heads)
        block = AttentionBlock(8, heads, groups=4)
    x = noise(2, 8, 3, 5)
    torch.testing.assert_close(block(x), published_attention(block, x), rtol=0, atol=1e-5)


def test_normalize_is_its_formula_for_every_dtype() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    expected = (photo - np.array(IMAGE_MEAN).reshape(3, 1, 1)) / np.array(IMAGE_STD).reshape(3, 1, 1)
    for dtype in (torch.uint8, torch.int32, torch.float32, torch.float64):
        result = normalize(torch.from_numpy(photo).to(dtype))
        assert result.is_floating_point()
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_a_detail_branch_is_silent_at_first_and_sees_single_pixels() -> None:
    net = seeded(TINY)
    grown = with_detail(net, 4).eval()
    x, t = noise(2, 4, 16, 16), torch.tensor([0, 5])
    assert torch.equal(grown(x, t), net(x, t))
    torch.nn.init.constant_(grown.detail_out.weight, 0.1)
    changed = x.clone()
    changed[:, 3, 8, 8] += 1
    moved = (grown.detail_out(grown.detail(changed)) - grown.detail_out(grown.detail(x))).abs().amax(dim=(0, 1)) > 0
    rows, columns = moved.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 11, 5, 11)


def test_a_seed_gives_the_first_weights_that_it_always_gave() -> None:
    """Parts are made in a fixed order: a run's first weights follow from its seed."""
    network = seeded(replace(TINY, stem_stride=2, attention_strides=(2,), image_stages=2, detail_channels=4))
    parameters = dict(network.named_parameters())
    assert len(parameters) == 131
    first = {
        "time_embed.weight": -1.125840,
        "input_blocks.0.0.weight": -0.058782,
        "image_encoder.stem.weight": 0.114078,
        "middle_block.1.qkv.weight": -0.222536,
        "out.2.weight": -0.021858,
        "refine.0.weight": 0.087404,
        "detail.0.weight": -0.077446,
    }
    assert {name: float(parameters[name].flatten()[0].detach()) for name in first} == pytest.approx(first, abs=1e-5)
