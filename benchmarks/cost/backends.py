"""What precision and backend cost in quality and time: PyTorch, ONNX Runtime with int8 too, OpenVINO.

    python -m benchmarks.cost.backends DATA [--photos N]

DATA is a folder as for `segrefiner train`, with real coarse masks. Needs the extras `onnx` and `openvino`. The int8
network is quantised by ONNX Runtime, statically, per channel, calibrated on views of other photos of the folder.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.common.tables import aligned
from segrefiner import Refiner
from segrefiner.data.layouts import find_photos
from segrefiner.evaluation.metrics import iou, mba
from segrefiner.imaging.reading import read_mask
from segrefiner.model.backends import Backend, OnnxBackend, OpenVinoBackend, TorchBackend
from segrefiner.model.onnx_export import export_onnx
from segrefiner.model.weights import load, resolve


class Recorder:
    """A backend that keeps what it is given."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.seen = backend, []
        self.config, self.device, self.dtype = backend.config, backend.device, backend.dtype

    def __call__(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """As the backend."""
        for view, timestep in zip(x.split(1), timesteps.split(1), strict=True):
            self.seen.append({"x": view.contiguous().numpy(), "timesteps": timestep.numpy()})
        return self.backend(x, timesteps)


def quantised(source: Path, target: Path, seen: list[dict[str, Any]]) -> None:
    """Writes the int8 network."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Views(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(seen)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(target),
        Views(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
    )


def backends(folder: Path, seen: list[dict[str, Any]]) -> Iterator[tuple[str, Backend, float]]:
    """Names, backends and megabytes of their files, float32 in PyTorch first."""
    source = resolve(None)
    network = load(source)
    megabytes = source.stat().st_size / 1e6
    yield "torch fp32", TorchBackend(network, torch.float32), megabytes
    yield "torch bf16", TorchBackend(network, torch.bfloat16), megabytes
    files = {dtype: folder / f"{dtype}.onnx" for dtype in ("fp32", "fp16", "int8")}
    for dtype in ("fp32", "fp16"):
        export_onnx(network, files[dtype], dtype=dtype)
    quantised(files["fp32"], files["int8"], seen)
    for dtype, file in files.items():
        yield f"onnxruntime {dtype}", OnnxBackend(file), file.stat().st_size / 1e6
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        yield f"openvino {name}", OpenVinoBackend(files["fp32"], dtype), files["fp32"].stat().st_size / 1e6


def seconds_per_view(backend: Backend) -> float:
    x, last = torch.randn(4, 4, 256, 256), torch.full((4,), 5)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        with torch.inference_mode():
            backend(x, last)
        times.append(time.perf_counter() - started)
    return min(times) / 4


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--photos", default=30, show_default=True)
def main(data: Path, photos: int) -> None:
    """Print a table of backends."""
    found = [photo for photo in find_photos(data) if photo.coarse]
    subjects = found[:: max(1, len(found) // photos)][:photos]
    recorder = Recorder(TorchBackend(load(resolve(None)), torch.float32))
    refiner = Refiner(recorder, steps=1)
    for photo in [photo for photo in found if photo not in subjects][:8]:
        refiner(photo.image, photo.coarse)
    lines = [["backend", "MB", "ms per view", "x torch fp32", "% pixels differ", "IoU", "mBA"]]
    exact: list[Any] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, backend, megabytes in backends(Path(folder), recorder.seen[::4][:32]):
            refiner, masks, scores = Refiner(backend, steps=1), [], []
            for photo in subjects:
                masks.append(refiner(photo.image, photo.coarse).mask)
                truth = read_mask(photo.mask)
                scores.append((iou(masks[-1], truth), mba(masks[-1], truth)))
            exact, spent = exact or masks, seconds_per_view(backend)
            slowest = slowest or spent
            differ = 100 * np.mean([np.mean(a != b) for a, b in zip(masks, exact, strict=True)])
            quality = [f"{100 * v:.2f}" for v in np.mean(scores, axis=0)]
            lines.append(
                [name, f"{megabytes:.1f}", f"{1e3 * spent:.1f}", f"{spent / slowest:.2f}", f"{differ:.3f}", *quality]
            )
    print(aligned(lines))


if __name__ == "__main__":
    main()
