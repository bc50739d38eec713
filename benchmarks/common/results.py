"""Rows of a benchmark in a JSON file: an unfinished run goes on where it stopped, and runs can be compared."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.common.tables import Row
from segrefiner import InputError
from segrefiner.imaging.files import atomic_write
from segrefiner.model import weights

_SOURCES = (
    "data/alignment",
    "model/backends",
    "refinement/pipelines/batching",
    "refinement/pipelines/tasks",
    "refinement/pipelines/canvas",
    "data/composites/layers",
    "data/composites/files",
    "model/diffusion",
    "imaging/edges",
    "imaging/ops",
    "model/image_encoder",
    "imaging/reading",
    "refinement/label_maps",
    "evaluation/mask_checks",
    "evaluation/metrics",
    "model/layers",
    "imaging/codecs/pictures",
    "refinement/pipelines/coarse_to_fine",
    "refinement/pipelines/published",
    "refinement/refiner",
    "refinement/groups",
    "refinement/pipelines/acceptance",
    "refinement/pipelines/acceptance_model",
    "refinement/pipelines/changes",
    "data/composites/thin_structures",
    "model/unet",
    "refinement/pipelines/views",
    "imaging/boxes",
    "imaging/shapes/distances",
    "refinement/pipelines/config",
    "data/packs",
)
_LIBRARIES = ("segrefiner", "torch", "numpy", "scipy", "opencv-python-headless", "pymatting", "pydensecrf2")


@dataclass(frozen=True)
class Settings:
    """What figures depend on, apart from photo, kind and method; rows of other settings are never mixed.

    Attributes:
        data: Name of the data folder, number of its photos, and what was taken away of its masks' offsets.
        seed: Of the coarse masks and of our sampler.
        weights: SHA-256 of our weights' file.
        precision: In which our network runs.
        code: SHA-256 of the sources that figures depend on.
    """

    data: str
    seed: int
    weights: str
    precision: str
    code: str


def code_checksum(own: Sequence[str]) -> str:
    """SHA-256 of our sources that decide about a figure: network, pipelines, metrics, and a benchmark's `own`."""
    here, package = Path(__file__).parent, Path(weights.__file__).parents[1]
    files = [here / f"{name}.py" for name in own]
    files += [package / f"{name}.py" for name in _SOURCES]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class Results:
    """Rows by key, kept in a JSON file where one is given.

    Args:
        path: Of the JSON file; what it holds already is taken over.
        settings: Of this run.

    Raises:
        InputError: The file is from a run with other settings, or is none of ours.
    """

    def __init__(self, path: Path | None, settings: Settings) -> None:
        self.path, self.settings = path, settings
        self.rows: dict[tuple[str, str, str], Row] = {}
        if path is None or not path.exists():
            return
        rows, stored = read_rows(path)
        differing = [k for k, v in asdict(settings).items() if stored.get(k) != v]
        if differing:
            what = ", ".join(differing)
            raise InputError(f"{path} is from a run with other {what}: delete it, or choose another file")
        # What failed is tried again.
        self.rows = {row.key: row for row in rows if not row.error}

    def save(self, summary: dict[str, Any]) -> None:
        """Writes everything, or nothing where no file was given."""
        if self.path is None:
            return
        rows = [{k: None if v != v else v for k, v in asdict(row).items()} for row in self.rows.values()]
        content = {"settings": asdict(self.settings), "versions": _versions(), **summary, "rows": rows}
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        atomic_write(self.path, lambda stream: stream.write(text.encode()))


def read_rows(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """The rows of a JSON file and the settings of its run. Raises `InputError` where it is no such file."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**{k: math.nan if v is None else v for k, v in row.items()}) for row in stored["rows"]]
        return rows, dict(stored["settings"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is no result of this benchmark ({error}): choose another file") from error


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
