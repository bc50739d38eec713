"""What a refinement would cost without PyTorch: cold start, seconds of a photo, memory.

    python -m benchmarks.cost.without_torch [IMAGE MASK] [--rounds 3]

Needs the extra `onnx`. Each row is a process of its own. The first three refine the photo: in PyTorch by default, in
PyTorch in float32, and with the network in ONNX Runtime. The last imports NumPy, SciPy, Pillow and ONNX Runtime, but no
PyTorch, and evaluates the network alone, on the views that the refinement gave it: what no pipeline could be faster
than. Seconds are the processor's, of one thread, the least of the rounds; memory is the peak.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.common.tables import aligned

EXAMPLES = Path(__file__).parents[2] / "examples"
CALLS = 3

REFINE = """
import sys
from segrefiner import Refiner
model, dtype, image, mask = sys.argv[1:]
refiner = Refiner.from_pretrained(model or None, dtype=dtype)
def call():
    refiner(image, mask)
"""

EVALUATE = """
import sys
import numpy as np
import onnxruntime
import PIL.Image, scipy.ndimage, scipy.spatial
model, views = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
with np.load(views) as batches:
    given = [dict(zip(("x", "timesteps"), (batches[f"x{i}"], batches[f"t{i}"]))) for i in range(len(batches) // 2)]
def call():
    for batch in given:
        session.run(None, batch)
"""

MEASURE = f"""
import json, re, time
ready = time.process_time()
call()
times = []
for _ in range({CALLS}):
    started = time.process_time()
    call()
    times.append(time.process_time() - started)
# What `getrusage` says begins with the parent's.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024**2
print(json.dumps({{"ready": ready, "call": min(times), "peak": peak, "torch": "torch" in sys.modules}}))
"""


def prepare(folder: Path, image: Path, mask: Path) -> tuple[Path, Path]:
    """Exports the bundled model, and keeps the views of one refinement; in a process that may import PyTorch."""
    import numpy as np
    import torch

    from benchmarks.cost.backends import Recorder
    from segrefiner import Refiner
    from segrefiner.model.backends import TorchBackend
    from segrefiner.model.onnx_export import export_onnx
    from segrefiner.model.weights import STEPS_KEY, best_steps, load, resolve

    class Batches(Recorder):
        """Keeps batches as they are."""

        def __call__(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            self.seen.append((x.float().contiguous().numpy(), timesteps.numpy()))
            return self.backend(x, timesteps)

    network = load(resolve(None))
    export_onnx(network, folder / "compact.onnx", metadata={STEPS_KEY: str(best_steps(resolve(None)))})
    recorder = Batches(TorchBackend(network, torch.float32))
    Refiner(recorder, steps=best_steps(resolve(None)))(image, mask)
    batches = enumerate(recorder.seen)
    np.savez(folder / "views.npz", **{f"{name}{i}": pair[k] for i, pair in batches for k, name in enumerate("xt")})
    return folder / "compact.onnx", folder / "views.npz"


def measured(program: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-c", program + MEASURE, *arguments]
    # With one thread everywhere none waits for another, which would count.
    environment = {**os.environ, "SEGREFINER_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def best(program: str, rounds: int, *arguments: str) -> dict[str, Any]:
    """The least of several processes."""
    found = [measured(program, *arguments) for _ in range(rounds)]
    return {name: min(one[name] for one in found) for name in found[0]}


@click.command()
@click.argument("image", type=click.Path(path_type=Path, exists=True), default=EXAMPLES / "car.jpg")
@click.argument("mask", type=click.Path(path_type=Path, exists=True), default=EXAMPLES / "car_coarse.png")
@click.option("--rounds", default=3, show_default=True)
def main(image: Path, mask: Path, rounds: int) -> None:
    """Print a table."""
    lines = [["", "s until the model is open", "s per photo", "GiB", "imports PyTorch"]]
    with tempfile.TemporaryDirectory() as folder:
        model, views = map(str, prepare(Path(folder), image, mask))
        pair = (str(image), str(mask))
        rows = {
            "PyTorch, its own precision": (REFINE, "", "auto", *pair),
            "PyTorch, float32": (REFINE, "", "fp32", *pair),
            "PyTorch and ONNX Runtime, float32": (REFINE, model, "auto", *pair),
            "ONNX Runtime, the network alone": (EVALUATE, model, views),
        }
        for name, (program, *arguments) in rows.items():
            one = best(program, rounds, *arguments)
            figures = [f"{one[key]:.2f}" for key in ("ready", "call", "peak")]
            lines.append([name, *figures, "yes" if one["torch"] else "no"])
    print(f"{image.name}, the least of {rounds} processes\n")
    print(aligned(lines))


if __name__ == "__main__":
    main()
