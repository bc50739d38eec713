"""The same photos and coarse masks through every method at hand, in one run.

    python benchmarks/quality.py DATA [--photos 60] [--methods ours-6,grabcut] [--kinds real,polygon]
        [--json FILE] [--markdown FILE] [--csv FILE] [--align]

DATA has images/, masks/ (the truth) and, for the kind "real", a folder coarse*/ with masks that a network predicted.
All other kinds of coarse mask are made from the truth, see `coarse_kinds.py`; the methods are in `peers.py`. One
process does one mask at a time. With `--json`, a run that was cut off goes on where it stopped, and a run with more
photos, methods or kinds adds to the last one.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from cases import NONE, chosen, coarse_mask, offsets_of, photo_and_truth
from coarse_kinds import KINDS, Mask, Photo
from options import OUTPUT, names_of
from peers import PEERS, Refine, UnavailableError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tables import COARSE, Row, comma_separated, markdown, summarize

from segrefiner import InputError, Refiner, SegRefinerError, weights
from segrefiner.align import Offset
from segrefiner.diffusion import NUM_TIMESTEPS
from segrefiner.metrics import boundary_iou, iou, mba
from segrefiner.output import atomic_write, check_output
from segrefiner.pipelines import Pipeline, default_pipeline, instance_pipeline, semantic_pipeline
from segrefiner.sources import PhotoFiles, find_photos

OURS: dict[str, tuple[Pipeline, int]] = {
    **{f"ours-{steps}": (default_pipeline, steps) for steps in range(NUM_TIMESTEPS, 0, -1)},
    "published-semantic": (semantic_pipeline, NUM_TIMESTEPS),
    "published-instance": (instance_pipeline, NUM_TIMESTEPS),
}
METHODS = (*OURS, *PEERS)
DEFAULT_METHODS = ("ours-6", "ours-1", "published-semantic", "published-instance", *PEERS)
_SOURCES = (
    "align",
    "backends",
    "batches",
    "calls",
    "canvas",
    "diffusion",
    "edges",
    "geometry",
    "image_encoder",
    "io",
    "metrics",
    "norm",
    "pictures",
    "pipeline",
    "published",
    "refiner",
    "settle",
    "unet",
    "views",
)
_LIBRARIES = ("segrefiner", "torch", "numpy", "scipy", "opencv-python-headless", "pymatting", "pydensecrf2")
_SAVE_SECONDS = 30


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


def prepared(
    methods: Sequence[str], refiner: Refiner, seed: int, console: Console
) -> tuple[dict[str, Refine], list[str]]:
    """The methods that can run here, and a note for each of the others."""
    ready, notes = {}, []
    for name in methods:
        console.print(f"preparing {name}")
        try:
            ready[name] = _ours(name, refiner, seed) if name in OURS else PEERS[name]()
        except UnavailableError as error:
            notes.append(f"{name} is left out: {error}")
    return ready, notes


def _ours(name: str, refiner: Refiner, seed: int) -> Refine:
    pipeline, steps = OURS[name]
    own = Refiner(refiner.backend.network, dtype=refiner.dtype, name=refiner.name, pipeline=pipeline)
    return lambda image, coarse: own(image, coarse, seed=seed, steps=steps).mask


def code_checksum() -> str:
    """SHA-256 of our sources that decide about a figure: network, pipelines, metrics, coarse masks and peers."""
    here, package = Path(__file__).parent, Path(weights.__file__).parent
    files = [here / "coarse_kinds.py", here / "peers.py", *(package / f"{name}.py" for name in _SOURCES)]
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
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            rows = [Row(**{k: math.nan if v is None else v for k, v in row.items()}) for row in stored["rows"]]
            differing = [k for k, v in asdict(settings).items() if stored["settings"].get(k) != v]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path} is no result of this benchmark ({error}): choose another file") from error
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


def measure_all(
    results: Results,
    photos: Sequence[PhotoFiles],
    kinds: Sequence[str],
    methods: dict[str, Refine],
    console: Console,
    offsets: Mapping[str, Offset] = NONE,
) -> None:
    """Runs what has no row yet, and saves now and then."""
    saved = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("photos", total=len(photos))
        for photo in photos:
            progress.update(task, description=photo.name)
            measure(results, photo, kinds, methods, offsets)
            progress.advance(task)
            if time.monotonic() - saved > _SAVE_SECONDS:
                results.save({})
                saved = time.monotonic()


def measure(
    results: Results,
    photo: PhotoFiles,
    kinds: Sequence[str],
    methods: dict[str, Refine],
    offsets: Mapping[str, Offset] = NONE,
) -> None:
    """Runs what has no row yet for one photo."""
    image, truth = photo_and_truth(photo, offsets)
    for kind in kinds:
        open_methods = [m for m in (COARSE, *methods) if (photo.name, kind, m) not in results.rows]
        if not open_methods:
            continue
        coarse = coarse_mask(photo, kind, image, truth, results.settings.seed)
        if coarse is None:
            continue
        for name in open_methods:
            row = _measured(photo.name, kind, name, methods.get(name), image, coarse, truth)
            results.rows[row.key] = row


def _measured(photo: str, kind: str, name: str, method: Refine | None, image: Photo, coarse: Mask, truth: Mask) -> Row:
    refined, error = coarse, ""
    started = time.perf_counter()
    if method is not None and coarse.any() and not coarse.all():
        try:
            refined = method(image, coarse)
        except Exception as failure:  # Whatever a library raises on one mask, the others go on.
            error = f"{type(failure).__name__}: {failure}"
    seconds = time.perf_counter() - started
    scores = (metric(refined, truth) for metric in (iou, mba, boundary_iou))
    return Row(photo, kind, name, *scores, seconds=seconds, error=error)


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--photos", default=60, show_default=True, help="How many, spread evenly over the names; 0 for all.")
@click.option("--methods", default=",".join(DEFAULT_METHODS), show_default=True, callback=names_of(METHODS))
@click.option("--kinds", default=",".join(KINDS), show_default=True, callback=names_of(KINDS))
@click.option("--model", help="Our weights, as for `segrefiner refine`.")
@click.option("--dtype", default="auto", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the coarse masks and of our sampler.")
@click.option("--align", is_flag=True, help="Take away what the true masks of a data set are off by.")
@click.option("--json", "json_file", type=OUTPUT, help="All figures; an unfinished run goes on from here.")
@click.option("--csv", "csv_file", type=OUTPUT, help="One line for each mask and method.")
@click.option("--markdown", "markdown_file", type=OUTPUT, help="The tables that are printed.")
def main(
    data: Path,
    photos: int,
    methods: list[str],
    kinds: list[str],
    model: str | None,
    dtype: str,
    seed: int,
    align: bool,
    json_file: Path | None,
    csv_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Refine coarse masks of every kind of DATA's photos by every method, and compare with the truth."""
    console = Console(stderr=True)
    try:
        for path in filter(None, (json_file, csv_file, markdown_file)):
            check_output(path, suffix=None)
        refiner = Refiner.from_pretrained(model, dtype=dtype)
        photos_there = find_photos(data)
        offsets = offsets_of(data, align)
        taken = "".join(f", {name or 'masks'} {off} put right" for name, off in sorted(offsets.items()) if off)
        settings = Settings(
            data=f"{data.resolve().name}, {len(photos_there)} photos{taken}",
            seed=seed,
            weights=weights.checksum(weights.resolve(model)),
            precision=f"{refiner.device.type}, {str(refiner.dtype).removeprefix('torch.')}",
            code=code_checksum(),
        )
        results = Results(json_file, settings)
        subjects = chosen(photos_there, photos)
        ready, notes = prepared(methods, refiner, seed, console)
        measure_all(results, subjects, kinds, ready, console, offsets)
        names = {photo.name for photo in subjects}
        wanted = [COARSE, *ready]
        rows = [r for r in results.rows.values() if r.photo in names and r.kind in kinds and r.method in wanted]
        cells = summarize(rows, wanted, kinds)
        notes = [_about(settings, subjects), _labels(refiner), *notes, *_failures(rows, ready)]
        text = markdown(cells, kinds, notes)
        summary = {m: {k: asdict(cell) for k, cell in row.items()} for m, row in cells.items()}
        results.save({"notes": notes, "summary": summary})
        for path, content in ((csv_file, comma_separated(rows)), (markdown_file, text)):
            if path is not None:
                atomic_write(path, lambda stream, content=content: stream.write(content.encode()))
    except SegRefinerError as error:
        raise click.ClickException(str(error)) from error
    print(text, end="")


def _about(settings: Settings, photos: Sequence[PhotoFiles]) -> str:
    return (
        f"{len(photos)} photos (of {settings.data}), seed {settings.seed}, ours on {settings.precision}, "
        f"{os.cpu_count()} CPU cores. Gains are over the coarse masks, as means over photos; harmed is what lost more "
        "than half an IoU point"
    )


def _labels(refiner: Refiner) -> str:
    which = "our own weights" if refiner.name == weights.BUNDLED else "the weights"
    return (
        "ours-N is our default pipeline with N steps, published-semantic and published-instance are the published "
        f"pipelines, all with {which} {refiner.name!r}"
    )


def _failures(rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    notes = []
    for method in methods:
        errors = [row.error for row in rows if row.method == method and row.error]
        if errors:
            notes.append(f"{method} failed on {len(errors)} masks, which count as unchanged; first: {errors[0]}")
    return notes


if __name__ == "__main__":
    main()
