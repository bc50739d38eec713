"""Figures of the benchmarks, drawn by matplotlib: SVG files that are the same for the same numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def panels(path: Path, height: float) -> Iterator[tuple[Any, Any]]:
    """Two axes side by side, which are written to `path` when the block ends; `height` in inches."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.stem
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, height), layout="constrained")
    yield axes[0], axes[1]
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
