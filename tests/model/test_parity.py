"""The numbers that the published implementation gave, from ours.

`tests/data/parity` holds them; `SEGREFINER_PARITY` may name another folder of the same form, which is then checked too.
The weights are filled in by parameter name: they are noise, and the masks they give mean nothing by themselves.
"""

import json
import os
import zlib
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F

from segrefiner.evaluation.metrics import iou, mba
from segrefiner.model.diffusion import ancestral, forward_sample, sample
from segrefiner.model.unet import BASE, DenoisingUNet, UNetConfig, normalize
from segrefiner.refinement.pipelines.published import instance, semantic
from segrefiner.training.losses import TEXTURE_WEIGHT, cross_entropy, texture_loss

SMALL = replace(BASE, model_channels=32)


def fill(name: str, shape: tuple[int, ...], salt: int) -> np.ndarray:
    values = np.random.default_rng(zlib.crc32(name.encode()) + salt).standard_normal(shape).astype(np.float32)
    if len(shape) >= 2 and "time_embed" not in name:
        values /= np.float32(np.sqrt(np.prod(shape[1:])))
    elif len(shape) == 1:
        values *= np.float32(0.1)
        if name.endswith("weight"):
            values += np.float32(1)
    return values


@cache
def network(config: UNetConfig, salt: int) -> DenoisingUNet:
    with torch.device("meta"):
        net = DenoisingUNet(config)
    state = {name: torch.from_numpy(fill(name, tuple(p.shape), salt)) for name, p in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False)


@dataclass(frozen=True)
class Fixture:
    folder: Path

    @cached_property
    def numbers(self) -> dict:
        return json.loads((self.folder / "expected.json").read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "expected.npz") as arrays:
            return dict(arrays)

    @property
    def small(self) -> DenoisingUNet:
        return network(SMALL, self.numbers["salt"])

    @property
    def generator(self) -> Generator:
        return Generator().manual_seed(self.numbers["torch_seed"])

    def image(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(Image.open(self.folder / f"{name}.jpg").convert("RGB"))).permute(2, 0, 1)

    def mask(self, name: str, kind: str) -> np.ndarray:
        return np.asarray(Image.open(self.folder / f"{name}_{kind}.png").convert("L")) >= 128

    @cached_property
    def unet_input(self) -> Tensor:
        draw = np.random.default_rng(int(self.arrays["unet_input_seed"])).standard_normal((2, 4, 256, 256))
        return torch.from_numpy(draw.astype(np.float32))


def folders() -> list[Path]:
    other = os.environ.get("SEGREFINER_PARITY")
    return [Path(__file__).parents[1] / "data" / "parity"] + ([Path(other)] if other else [])


FIXTURES = [Fixture(folder) for folder in folders()]
PHOTOS = [(f, name) for f in FIXTURES for name in sorted(f.numbers["metrics"])]

each_fixture = pytest.mark.parametrize("fixture", FIXTURES, ids=lambda f: f.folder.name)
each_photo = pytest.mark.parametrize(
    ("fixture", "name"), PHOTOS, ids=lambda v: v.folder.name if isinstance(v, Fixture) else v
)


@each_fixture
def test_small_unet(fixture: Fixture) -> None:
    logits = fixture.small(fixture.unet_input, torch.tensor([5, 2]))
    np.testing.assert_allclose(logits[:, 0, ::8, ::8], fixture.arrays["unet_small"], rtol=0, atol=1e-3)


@pytest.mark.slow
@each_fixture
def test_base_unet(fixture: Fixture) -> None:
    net = network.__wrapped__(BASE, fixture.numbers["salt"])  # not kept: half a gigabyte
    logits = net(fixture.unet_input[:1], torch.tensor([3]))
    expected = fixture.arrays["unet_base"]
    np.testing.assert_allclose(logits[0, :, ::8, ::8].reshape(expected.shape), expected, rtol=0, atol=1e-3)


@each_fixture
def test_forward_sample(fixture: Fixture) -> None:
    uniform = torch.rand(1, 1, 64, 64, generator=fixture.generator)
    fine = torch.ones_like(uniform)
    mixed = forward_sample(fine, 1 - fine, torch.tensor([2]), uniform)
    expected = np.unpackbits(fixture.arrays["forward_t2"]).astype(bool)
    np.testing.assert_array_equal(mixed.bool().numpy().ravel(), expected)


@each_photo
def test_loop(fixture: Fixture, name: str) -> None:
    photo = F.interpolate(normalize(fixture.image(name)[None]), size=(256, 256), mode="nearest")
    mask = torch.from_numpy(fixture.mask(name, "coarse"))[None, None].float()
    coarse = F.interpolate(mask, size=(256, 256), mode="nearest")
    noise = ancestral(coarse.shape, fixture.generator)
    *_, state = sample(fixture.small, photo, coarse, range(5, -1, -1), noise)
    for key, value in (("loop_prob", state.probability), ("loop_fine_prob", state.fine_prob)):
        expected = fixture.arrays[f"{name}/{key}"]
        np.testing.assert_allclose(value[0, 0, ::4, ::4], expected, rtol=0, atol=1e-3, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", [semantic, instance], ids=lambda p: p.__name__)
@each_photo
def test_pipeline(fixture: Fixture, name: str, pipeline) -> None:
    coarse = torch.from_numpy(fixture.mask(name, "coarse"))
    refined = pipeline(fixture.small, fixture.image(name), coarse, fixture.generator).numpy()
    bits = np.unpackbits(fixture.arrays[f"{name}/{pipeline.__name__}"])[: refined.size]
    assert (refined == bits.astype(bool).reshape(refined.shape)).mean() >= 0.999


@each_fixture
def test_losses(fixture: Fixture) -> None:
    expected = fixture.numbers["loss"]
    a, b = (np.random.default_rng(seed).standard_normal((2, 1, 96, 80)) for seed in expected["input_seeds"])
    logits, fine = torch.from_numpy(a.astype(np.float32)), torch.from_numpy(b > 0).float()
    assert float(cross_entropy(logits, fine).mean()) == pytest.approx(expected["bce"], abs=1e-5)
    texture = TEXTURE_WEIGHT * float(texture_loss(logits, fine).mean())
    assert texture == pytest.approx(expected["texture_weighted_5"], abs=1e-5)


@each_photo
def test_metrics(fixture: Fixture, name: str) -> None:
    coarse, truth = fixture.mask(name, "coarse"), fixture.mask(name, "truth")
    expected = fixture.numbers["metrics"][name]
    assert iou(coarse, truth) == pytest.approx(expected["iou"], abs=1e-9)
    assert mba(coarse, truth) == pytest.approx(expected["mba"], abs=1e-9)
