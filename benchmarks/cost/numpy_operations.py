"""Whether NumPy, SciPy and Pillow compute what the pipeline asks of PyTorch: the same bits, and in what time.

    python -m benchmarks.cost.numpy_operations [--side 512]

What a pipeline without PyTorch would be put together from (`cost/without_torch.py`). Each operation of the pipeline on
random numbers, float32 unless its name says otherwise, against its nearest equal. Times are the processor's, one
thread, the least of five.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from scipy import ndimage, special
from torch.nn import functional as F

from benchmarks.common.tables import aligned

Operation = tuple[str, Callable[[], torch.Tensor], str, Callable[[], Any]]
CALLS = 5
BOX = 9


def resized_by_pillow(plane: Any, side: int) -> Any:
    """Pillow's filter, which PyTorch's anti-aliasing was modelled on."""
    return np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BILINEAR))


def enlarged_by_scipy(plane: Any, side: int) -> Any:
    """Bilinear at the same places, borders repeated."""
    places = (np.arange(side, dtype=np.float32) + 0.5) * (plane.shape[0] / side) - 0.5
    grid = np.meshgrid(places, places, indexing="ij")
    return ndimage.map_coordinates(plane, grid, order=1, mode="nearest")


def operations(side: int) -> Iterator[Operation]:
    rng = np.random.default_rng(0)
    plane, other, weight = rng.random((3, side, side), np.float32)
    grey = (255 * plane).astype(np.uint8)
    t, u, w, g = map(torch.from_numpy, (plane, other, weight, grey))
    half, twice = side // 2 - 3, 2 * side + 3

    def interpolate(x: torch.Tensor, to: int, smooth: bool) -> torch.Tensor:
        size = (to, to)
        return F.interpolate(x[None, None], size=size, mode="bilinear", antialias=smooth, align_corners=False)[0, 0]

    yield "smaller, float", lambda: interpolate(t, half, True), "Pillow", lambda: resized_by_pillow(plane, half)
    yield "smaller, uint8", lambda: interpolate(g, half, True), "Pillow", lambda: resized_by_pillow(grey, half)
    yield "larger", lambda: interpolate(t, twice, False), "SciPy", lambda: enlarged_by_scipy(plane, twice)
    yield "lerp", lambda: torch.lerp(t, u, w), "NumPy", lambda: plane + weight * (other - plane)
    yield (
        "addcmul",
        lambda: torch.addcmul(t, u, w, value=-1),
        "NumPy",
        lambda: plane - other * weight,
    )
    yield "sigmoid", lambda: t.sigmoid(), "SciPy", lambda: special.expit(plane)
    yield "sin", lambda: t.sin(), "NumPy", lambda: np.sin(plane)
    yield (
        "max_pool2d",
        lambda: F.max_pool2d(t[None], BOX, stride=1, padding=BOX // 2)[0],
        "SciPy",
        lambda: ndimage.maximum_filter(plane, BOX, mode="nearest"),
    )
    yield (
        "avg_pool2d",
        lambda: F.avg_pool2d(t[None], BOX, stride=1, padding=BOX // 2)[0],
        "SciPy",
        lambda: ndimage.uniform_filter(plane, BOX, mode="constant"),
    )
    yield (
        "pad, unfold",
        lambda: F.pad(t[None], (4, 4, 4, 4), mode="replicate")[0].unfold(0, 40, 32).unfold(1, 40, 32).contiguous(),
        "NumPy",
        lambda: np.lib.stride_tricks.sliding_window_view(np.pad(plane, 4, mode="edge"), (40, 40))[::32, ::32].copy(),
    )
    yield "sum", lambda: t.sum()[None], "NumPy", lambda: plane.sum()[None]
    yield "cumsum", lambda: t.cumsum(0).cumsum(1), "NumPy", lambda: plane.cumsum(0).cumsum(1)


def seconds(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(CALLS):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return min(times)


@click.command()
@click.option("--side", default=512, show_default=True, help="Of the square planes, in pixels.")
def main(side: int) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    lines = [["operation", "instead", "other bits, %", "largest difference", "x PyTorch's time"]]
    with torch.inference_mode():
        for name, ours, library, theirs in operations(side):
            right, tried = ours().numpy(), theirs()
            differ = 100 * float(np.mean(right != tried))
            largest = float(np.abs(right.astype(np.float64) - tried).max())
            ratio = seconds(theirs) / max(seconds(ours), 1e-6)
            lines.append([name, library, f"{differ:.1f}", f"{largest:.2g}", f"{ratio:.1f}"])
    print(aligned(lines))


if __name__ == "__main__":
    main()
