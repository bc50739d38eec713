"""Masks in folders, and jobs over them that are run to their end."""

from pathlib import Path

import numpy as np
from PIL import Image

from segrefiner import Refiner
from segrefiner.jobs.job import Job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.run import run
from segrefiner.ledger import RunSummary

SIZE = (40, 48)


def disc(radius: float) -> np.ndarray:
    y, x = np.ogrid[: SIZE[0], : SIZE[1]]
    return (y - 20) ** 2 + (x - 24) ** 2 < radius**2


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def finished(job: Job, refiner: Refiner, output: Path) -> RunSummary:
    return run(job, LocalEngine(refiner, workers=0), output / ".segrefiner", config="")


def photos_and_masks(folder: Path) -> tuple[Path, Path, Path]:
    """Folders of photos, of masks, and for results."""
    for index, name in enumerate(("a", "b", "sub/a", "sub/c")):
        random = np.random.default_rng(index)
        save(folder / "images" / f"{name}.jpg", random.integers(0, 256, (*SIZE, 3)).astype(np.uint8))
        save(folder / "masks" / f"{name}.png", disc(10 + index))
    return folder / "images", folder / "masks", folder / "out"
