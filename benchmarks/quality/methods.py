"""The same photos and coarse masks through every method at hand, in one run.

    python -m benchmarks.quality.methods DATA [--photos 60] [--methods ours-6,grabcut] [--kinds real,polygon]
        [--json FILE] [--markdown FILE] [--csv FILE] [--align]

DATA has images/, masks/ (the truth) and, for the kind "real", a folder coarse*/ with masks that a network predicted.
All other kinds of coarse mask are made from the truth, see `common/coarse_kinds.py`; the methods are in
`common/peers.py`. One process does one mask at a time. With `--json`, a run that was cut off goes on where it stopped,
and a run with more photos, methods or kinds adds to the last one.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.common.cases import NONE, chosen, coarse_mask, offsets_of, photo_and_truth
from benchmarks.common.coarse_kinds import EVERY_KIND, KINDS, Mask, Photo
from benchmarks.common.options import OUTPUT, names_of
from benchmarks.common.peers import PEERS, Refine, UnavailableError
from benchmarks.common.results import Results, Settings, code_checksum
from benchmarks.common.tables import COARSE, Row, comma_separated, markdown, summarize
from segrefiner import Refiner, SegRefinerError
from segrefiner.data.alignment import Offset
from segrefiner.data.layouts import PhotoFiles, find_photos
from segrefiner.evaluation.metrics import boundary_iou, iou, mba
from segrefiner.imaging.files import atomic_write, check_output
from segrefiner.model import weights
from segrefiner.model.diffusion import NUM_TIMESTEPS
from segrefiner.refinement.pipelines.coarse_to_fine import default_pipeline, refine_masks
from segrefiner.refinement.pipelines.published import instance_pipeline, semantic_pipeline
from segrefiner.refinement.pipelines.tasks import Pipeline
from segrefiner.refinement.pipelines.views import FREE

OURS: dict[str, tuple[Pipeline, int]] = {
    **{f"ours-{steps}": (default_pipeline, steps) for steps in range(NUM_TIMESTEPS, 0, -1)},
    "free-1": (partial(refine_masks, config=FREE), 1),
    "published-semantic": (semantic_pipeline, NUM_TIMESTEPS),
    "published-instance": (instance_pipeline, NUM_TIMESTEPS),
}
METHODS = (*OURS, *PEERS)
DEFAULT_METHODS = ("ours-6", "ours-1", "published-semantic", "published-instance", *PEERS)
_SAVE_SECONDS = 30


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
    return Row(photo, kind, name, *scores, seconds, error, untouched=np.array_equal(refined, coarse))


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--photos", default=60, show_default=True, help="How many, spread evenly over the names; 0 for all.")
@click.option("--methods", default=",".join(DEFAULT_METHODS), show_default=True, callback=names_of(METHODS))
@click.option("--kinds", default=",".join(KINDS), show_default=True, callback=names_of(EVERY_KIND))
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
            code=code_checksum(["coarse_kinds", "soft_kinds", "peers"]),
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
        "ours-N is our default pipeline with N steps, free-1 its network without any rule of acceptance, "
        "published-semantic and published-instance are the published pipelines, "
        f"all with {which} {refiner.name!r}"
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
