"""The command line: files out, one line of summary, one line of error, exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from helpers.refinable import photo_mask_and_weights
from segrefiner.cli.main import main
from segrefiner.model.unet import DenoisingUNet, UNetConfig
from segrefiner.model.weights import checksum, load, metadata
from segrefiner.training.recipes import RECIPES


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return photo_mask_and_weights(tmp_path, name="photo.jpg")


def refine(files: Path, *options: object, image: str = "photo.jpg", mask: str = "mask.png") -> Result:
    return run(
        "refine", files / image, files / mask, "-o", files / "out.png", "--model", files / "tiny.safetensors", *options
    )


def test_refine_writes_mask_and_overlay(files: Path) -> None:
    result = refine(files, "--overlay", files / "overlay.png", "--steps", 2, "--seed", 5)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    assert "seed 5" in result.stdout and "2 steps" in result.stdout
    out = np.asarray(Image.open(files / "out.png"))
    assert out.shape == (60, 80) and set(np.unique(out)) <= {0, 255}
    assert np.asarray(Image.open(files / "overlay.png")).ndim == 3


def test_soft_output_is_the_probability(files: Path) -> None:
    photos = Path(__file__).parents[1] / "data" / "parity"
    given = ("refine", photos / "CCP_0016.jpg", photos / "CCP_0016_coarse.png", "-o", files / "out.png")
    assert run(*given, "--soft").exit_code == 0
    soft = np.asarray(Image.open(files / "out.png"))
    assert run(*given).exit_code == 0
    hard = np.asarray(Image.open(files / "out.png")) > 0
    assert len(np.unique(soft)) > 2
    np.testing.assert_array_equal(soft >= 128, hard)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: (p / "mask.png").unlink(), "mask.png"),
        (lambda p: (p / "mask.png").write_bytes(b""), "0 bytes"),
        (lambda p: Image.new("1", (80, 59), 1).save(p / "mask.png"), "80x59"),
        (lambda p: (p / "photo.jpg").write_bytes((p / "photo.jpg").read_bytes()[:500]), "photo.jpg"),
        (lambda p: (p / "tiny.safetensors").write_bytes(b"nonsense"), "tiny.safetensors"),
    ],
    ids=["missing", "empty file", "size", "truncated", "weights"],
)
def test_errors_are_one_line_and_nothing_is_written(files: Path, make, said: str) -> None:
    make(files)
    result = refine(files)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1 and said in result.stderr
    assert not (files / "out.png").exists()


def test_a_bad_output_is_told_before_the_work(files: Path) -> None:
    result = run("refine", files / "photo.jpg", files / "mask.png", "-o", files / "none" / "out.png")
    assert result.exit_code == 1 and "does not exist" in result.stderr
    assert run("refine", files / "photo.jpg").exit_code == 2
    assert refine(files, "--steps", 9).exit_code == 2


def test_an_empty_mask_comes_back(files: Path) -> None:
    Image.new("1", (80, 60)).save(files / "mask.png")
    result = refine(files)
    assert result.exit_code == 0 and "empty" in result.stdout
    assert not np.asarray(Image.open(files / "out.png")).any()


def test_convert(tmp_path: Path) -> None:
    config = UNetConfig(model_channels=32)
    net = DenoisingUNet(config)
    torch.save({"state_dict": {f"denoise_model.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "lr.pth")
    result = run("convert", tmp_path / "lr.pth", tmp_path / "lr.safetensors", "--fp32")
    assert result.exit_code == 0, result.output
    converted = load(tmp_path / "lr.safetensors")
    assert converted.config == config
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in converted.state_dict().items())


@pytest.mark.slow
def test_pack_and_train(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("images", "masks", "coarse_net"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(
            tmp_path / "data" / "images" / f"{index}.jpg"
        )
        mask = np.zeros((90, 120), bool)
        mask[20:70, 30 + index : 90] = True
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{index}.png")
    Image.fromarray(mask).save(tmp_path / "data" / "coarse_net" / "2.png")
    packed = run("data", "pack", tmp_path / "data", tmp_path / "photos.pack")
    assert packed.exit_code == 0 and "3 photos" in packed.stdout
    # The bundled model's own network, on crops as small as it takes.
    small = ("--set", "small_size=64", "--set", "large_size=64")
    few = ("--samples", 16, "--set", "large_share=0", *small)
    trained = run("train", tmp_path / "photos.pack", "-o", tmp_path / "run", *few)
    assert trained.exit_code == 0, trained.output
    assert "finished at step 1 of 1" in trained.stdout
    weights = tmp_path / "run" / "model.safetensors"
    assert load(weights).config.stem_stride == 2
    options = ("--from", weights, "--samples", 8, "--lr", 0, "--recipe", "compact-second", *small)
    second = run("train", tmp_path / "data", "-o", tmp_path / "second", *options)
    assert second.exit_code == 0, second.output
    assert metadata(tmp_path / "second" / "model.safetensors")["started_from_sha256"] == checksum(weights)
    # Without a learning rate the weights are the ones that it started from.
    before, after = (load(path).state_dict() for path in (weights, tmp_path / "second" / "model.safetensors"))
    assert all(torch.allclose(after[name], value, atol=1e-3) for name, value in before.items())
    options = ("--from", weights, "--recipe", "compact-third", "--samples", 8, "--set", "large_share=1", *small)
    third = run("train", tmp_path / "photos.pack", "-o", tmp_path / "third", *options)
    assert third.exit_code == 0, third.output
    recipe = json.loads(metadata(tmp_path / "third" / "model.safetensors")["recipe"])
    assert recipe["large_self_coarse"] == RECIPES["compact-third"].large_self_coarse > 0 and recipe["samples"] == 8
    again = run("train", tmp_path / "data", "-o", tmp_path / "run", *few, "--lr", 0.1)
    assert again.exit_code == 1 and "lr: 0.001 there, 0.1 asked for" in again.stderr
