"""Exported networks compute what PyTorch does, at any size, and say what they are."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from helpers.tiny import TINY_WITH_ATTENTION
from segrefiner import CheckpointError, InputError, MissingExtraError, OutputError, Refiner
from segrefiner.cli.main import main
from segrefiner.evaluation.metrics import iou
from segrefiner.imaging.reading import read_mask
from segrefiner.model.backends import OnnxBackend, OpenVinoBackend, TorchBackend
from segrefiner.model.onnx_export import export_onnx, onnx_metadata
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import checksum, load, resolve, save

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

PHOTOS = Path(__file__).parents[1] / "data" / "parity"
PHOTO, MASK = PHOTOS / "CCP_0016.jpg", PHOTOS / "CCP_0016_coarse.png"
SIZES = [(1, 8, 8), (5, 32, 48), (2, 24, 8), (3, 64, 64)]
SIZES_OF_BUNDLED = [(1, 32, 32), (3, 96, 64)]


@pytest.fixture(scope="module")
def network() -> DenoisingUNet:
    torch.manual_seed(0)
    # With a coarsest level at stride 8, OpenVINO gives NaN for these sizes.
    return DenoisingUNet(replace(TINY_WITH_ATTENTION, stem_stride=2)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, network: DenoisingUNet) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export_onnx(network, folder / "fp32.onnx", metadata={"steps": "2", "who": "me"})
    return folder


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, as the command exports it."""
    path = tmp_path_factory.mktemp("bundled") / "fp16.onnx"
    assert "fp16" in run("export", "onnx", path, "--dtype", "fp16")
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def given(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, 4, height, width, generator=generator)
    return x, torch.randint(0, 6, (batch,), generator=generator)


def check_onnx_runtime(path: Path, network: DenoisingUNet, size: tuple[int, int, int], bound: float) -> None:
    backend = OnnxBackend(path)
    assert backend.config == network.config
    x, timesteps = given(*size)
    with torch.inference_mode():
        expected = TorchBackend(network, torch.float32)(x, timesteps)
        result = backend(x.contiguous(memory_format=torch.channels_last), timesteps)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, atol=bound, rtol=bound)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_onnx_runtime_gives_what_pytorch_gives(
    folder: Path, network: DenoisingUNet, size: tuple[int, int, int]
) -> None:
    check_onnx_runtime(folder / "fp32.onnx", network, size, 1e-5)


@pytest.mark.parametrize("size", SIZES_OF_BUNDLED, ids=str)
def test_the_bundled_network_in_half_precision(bundled: Path, size: tuple[int, int, int]) -> None:
    check_onnx_runtime(bundled, load(resolve(None)), size, 2e-2)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_openvino_gives_what_pytorch_gives(
    folder: Path, network: DenoisingUNet, dtype: torch.dtype, bound: float
) -> None:
    pytest.importorskip("openvino")
    backend = OpenVinoBackend(folder / "fp32.onnx", dtype)
    for size in SIZES:
        x, timesteps = given(*size)
        with torch.inference_mode():
            expected = TorchBackend(network, torch.float32)(x, timesteps)
        torch.testing.assert_close(backend(x, timesteps), expected, atol=bound, rtol=bound)


def test_a_file_says_what_it_is_and_is_the_same_every_time(
    folder: Path, network: DenoisingUNet, tmp_path: Path
) -> None:
    said = onnx_metadata(folder / "fp32.onnx")
    assert said == {"config": network.config.to_dict(), "dtype": "fp32", "steps": "2", "who": "me"}
    export_onnx(network, tmp_path / "again.onnx", metadata={"steps": "2", "who": "me"})
    assert (tmp_path / "again.onnx").read_bytes() == (folder / "fp32.onnx").read_bytes()


def test_files_that_are_no_export_are_refused(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "fp32.onnx").read_bytes()
    plain = onnx.load(folder / "fp32.onnx")
    del plain.metadata_props[:]
    odd = onnx.load(folder / "fp32.onnx")
    onnx.helper.set_model_props(odd, {"segrefiner": "1", "dtype": "fp32", "config": '{"levels": 3}'})
    cases = {
        "cut": (whole[: len(whole) // 2], "damaged"),
        "text": (b"no network at all", "damaged|no network"),
        "plain": (plain.SerializeToString(), "no network that segrefiner exported"),
        "odd": (odd.SerializeToString(), "config"),
        "empty": (b"", "empty"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            onnx_metadata(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        Refiner.from_pretrained(tmp_path / "nowhere.onnx")


def test_export_refuses_what_it_cannot_write(network: DenoisingUNet, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.onnx"):
        export_onnx(network, tmp_path / "network.bin")
    with pytest.raises(OutputError):
        export_onnx(network, tmp_path / "nowhere" / "network.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(folder: Path, network: DenoisingUNet, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, extra, use in (
        ("openvino", "openvino", lambda: OpenVinoBackend(folder / "fp32.onnx")),
        ("onnxruntime", "onnx", lambda: OnnxBackend(folder / "fp32.onnx")),
        ("onnxscript", "onnx", lambda: export_onnx(network, folder / "new.onnx")),
        ("onnx", "onnx", lambda: onnx_metadata(folder / "fp32.onnx")),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf"{package}.*segrefiner\[{extra}\]"):
            use()


def test_the_refiner_takes_exported_networks(folder: Path, network: DenoisingUNet, tmp_path: Path) -> None:
    save(network, tmp_path / "network.safetensors", dtype=torch.float32, metadata={"steps": "2"})
    expected = Refiner.from_pretrained(tmp_path / "network.safetensors", dtype="fp32")(PHOTO, MASK)
    result = Refiner.from_pretrained(folder / "fp32.onnx")(PHOTO, MASK)
    assert result.report.steps == expected.report.steps == 2
    assert iou(result.mask, expected.mask) > 0.999


def test_the_exported_bundled_model_refines(bundled: Path, tmp_path: Path) -> None:
    """The whole of it: the mask is the one that PyTorch gives."""
    weights = resolve(None)
    said = onnx_metadata(bundled)
    assert said["dtype"] == "fp16" and said["steps"] == "1" and said["exported_from_sha256"] == checksum(weights)
    assert bundled.stat().st_size < 1.2 * weights.stat().st_size
    run("refine", PHOTO, MASK, "-o", tmp_path / "refined.png", "--model", bundled)
    expected = Refiner.from_pretrained(dtype="fp32")(PHOTO, MASK).mask
    refined = read_mask(tmp_path / "refined.png")
    assert iou(refined, expected) > 0.995 and np.mean(refined != expected) < 0.002


def test_what_does_not_go_with_an_exported_network_is_refused(folder: Path) -> None:
    path = folder / "fp32.onnx"
    for wrong, message in (
        ({"model": path, "backend": "torch"}, "cannot run an .onnx"),
        ({"model": path, "backend": "toaster"}, "toaster"),
        ({"model": path, "dtype": "bf16"}, "leave dtype out"),
        ({"model": path, "backend": "openvino", "dtype": "fp16"}, "fp32 or bf16"),
        ({"backend": "onnxruntime"}, "segrefiner export onnx"),
    ):
        with pytest.raises(InputError, match=message):
            Refiner.from_pretrained(**wrong)


def test_an_exporter_that_writes_another_network_is_refused(
    network: DenoisingUNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 0.7.0, onnxscript makes `SpaceToDepth` of `pixel_unshuffle`, which orders channels otherwise."""
    node = onnx.helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2)
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    graph = onnx.helper.make_graph([node], "graph", values[:1], values[1:])
    program = SimpleNamespace(model_proto=onnx.helper.make_model(graph))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: program)
    with pytest.raises(MissingExtraError, match="another network"):
        export_onnx(network, tmp_path / "wrong.onnx")
    assert not (tmp_path / "wrong.onnx").exists()
