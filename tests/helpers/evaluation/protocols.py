"""What tests of the protocols share: masks of three photos, files, the command, and figures computed plainly."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image
from scipy import ndimage

from segrefiner.cli.main import main

SIZE = (64, 90)
ROWS, COLUMNS = np.mgrid[: SIZE[0], : SIZE[1]]
Array = Any


def ellipse(row: int, column: int, height: int, width: int) -> Array:
    return ((ROWS - row) / height) ** 2 + ((COLUMNS - column) / width) ** 2 <= 1


# Truth, coarse and predicted masks; the second prediction is worse than its coarse mask.
TRUTHS = {
    "a": ellipse(30, 40, 20, 30),
    "b": ellipse(20, 20, 12, 9) | ellipse(40, 60, 15, 20),
    "c": ellipse(32, 45, 28, 40) & ~ellipse(32, 45, 8, 10),
}
COARSE = {
    "a": ellipse(28, 44, 18, 30),
    "b": ellipse(21, 20, 11, 9) | ellipse(40, 60, 15, 18),
    "c": ellipse(32, 45, 27, 37),
}
PREDICTED = {"a": ellipse(30, 41, 20, 29), "b": ellipse(40, 60, 15, 18), "c": TRUTHS["c"]}


def save(path: Path, array: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def photo() -> Array:
    return np.stack([ROWS * 3, COLUMNS * 2, ROWS + COLUMNS], axis=2).astype(np.uint8)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *(str(one) for one in arguments)])


def run_json(*arguments: object, path: Path, code: int = 0) -> dict[str, Any]:
    result = run(*arguments, "--json", path)
    assert result.exit_code == code, result.output
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def set_iou(masks: dict[str, Array]) -> float:
    return sum((masks[n] & TRUTHS[n]).sum() for n in TRUTHS) / sum((masks[n] | TRUTHS[n]).sum() for n in TRUTHS)


def plain_iou(mask: Array, truth: Array) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def plain_mba(mask: Array, truth: Array) -> float:
    """For pictures of at most 300 pixels of width and height together: all radii are 1, a cross."""
    assert sum(truth.shape) <= 300
    cross = ndimage.generate_binary_structure(2, 1)
    band = ndimage.binary_dilation(truth, cross) & ~ndimage.binary_erosion(truth, cross, border_value=1)
    return float((mask == truth)[band].mean())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])
