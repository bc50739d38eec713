"""The table that decides whether a model can be trusted: masks of every kind, with and without the rules.

    python -m benchmarks.quality.trust DATA --street DIR --objects DIR [--photos 40] [--model ...] [--steps 1,2,3,6]
        [--hold-back 40] [--kinds ...] [--json FILE] [--markdown FILE] [--against FILE]

DATA has images/, masks/ (the truth), and masks that networks predicted: of a weak one in coarse_SOMETHING/, of a strong
one in coarse_isnet/. The kinds of coarse masks are in `common/subjects.py`. "ours" is the default pipeline, "free" its
network and diffusion alone (`views.FREE`); both see the same answers of the network, which are computed once. With
`--json` a run that was cut off goes on where it stopped; `--against` compares with the file of another run.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from benchmarks.common import subjects
from benchmarks.common.cases import NONE, chosen, offsets_of, strong_mask
from benchmarks.common.coarse_kinds import STRONG
from benchmarks.common.options import OUTPUT, names_of
from benchmarks.common.results import Results, Settings, code_checksum, read_rows
from benchmarks.common.soft_kinds import Mask
from benchmarks.common.street import CLASSES, VOID, find_maps
from benchmarks.common.street import KINDS as STREET_KINDS
from benchmarks.common.subjects import KINDS, Scene, Subject
from benchmarks.common.tables import COARSE, Row
from benchmarks.common.thin_kinds import held_back_cutouts
from benchmarks.quality.trust_tables import class_table, comparison, main_table, set_table, step_table, summary
from segrefiner import InputError, Refiner, SegRefinerError
from segrefiner.data.holdout import held_back
from segrefiner.data.layouts import PhotoFiles, find_photos
from segrefiner.evaluation.metrics import iou, iou_counts, mba
from segrefiner.imaging.files import atomic_write, check_output
from segrefiner.model import weights
from segrefiner.model.backends import Backend
from segrefiner.model.diffusion import NUM_TIMESTEPS
from segrefiner.refinement.label_maps import refine_labels
from segrefiner.refinement.pipelines.coarse_to_fine import refine_masks
from segrefiner.refinement.pipelines.views import FREE

DEFAULT_KINDS = (
    "real", "strong", "sam-like", "yolo-like", "polygon", "low-8", "low-16", "missing", "perfect", "thin",
    "thin-perfect", "instances-sam", "instances-low-8", "instances-polygon", "instances-exact", *STREET_KINDS,
)  # fmt: skip
"""Those that tell most; the others take minutes more."""

_OWN = ("coarse_kinds", "soft_kinds", "thin_kinds", "street", "subjects", "cases")
_SAVE_SECONDS = 30

Ways = dict[str, Refiner]
"""With and without acceptance."""


class Remembering:
    """A network that computes each batch once, until it forgets: with and without rules it is asked the same.

    Args:
        backend: What computes it.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.config, self.device, self.dtype = backend.config, backend.device, backend.dtype
        self._answers: dict[bytes, Tensor] = {}

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:  # noqa: D102 - described by the protocol
        content = hashlib.blake2b(x.float().cpu().contiguous().numpy().tobytes())
        content.update(timesteps.cpu().numpy().tobytes())
        key = content.digest()
        if key not in self._answers:
            self._answers[key] = self.backend(x, timesteps)
        # Whoever asks may write into the answer.
        return self._answers[key].clone()

    def forget(self) -> None:
        """Frees the memory."""
        self._answers.clear()


def two_ways(refiner: Refiner) -> tuple[Ways, Remembering]:
    """Refiners with and without acceptance that share a network, and that network."""
    network = Remembering(refiner.backend)
    free = Refiner(network, name=refiner.name, pipeline=partial(refine_masks, config=FREE))
    return {"ours": Refiner(network, name=refiner.name), "free": free}, network


def measure(results: Results, subject: Subject, ways: Ways, steps: Sequence[int]) -> None:
    """Refines what has no row yet of a subject."""
    wanted = (COARSE, *(f"{way}-{n}" for n in steps for way in ways))
    lacking = {k: [m for m in wanted if (subject.name, k, m) not in results.rows] for k in subject.kinds}
    if not any(lacking.values()):
        return
    image, truth = subject.read()
    made = {kind: subject.coarse(kind, image, truth) for kind in subject.kinds if lacking[kind]}
    coarse = {kind: mask for kind, mask in made.items() if mask is not None}
    for n in steps:
        for way, refiner in ways.items():
            some = [kind for kind in coarse if f"{way}-{n}" in lacking[kind]]
            refined = refiner.many(((image, coarse[kind]) for kind in some), seed=results.settings.seed, steps=n)
            for kind, result in zip(some, refined, strict=True):
                row = _row(subject.name, kind, f"{way}-{n}", result.mask, coarse[kind], truth, result.report.seconds)
                results.rows[row.key] = row
    # Last, so that a kind whose coarse masks have rows is complete.
    for kind, mask in coarse.items():
        row = _row(subject.name, kind, COARSE, mask, mask, truth, 0.0)
        results.rows[row.key] = row


def _row(name: str, kind: str, method: str, mask: Mask, coarse: Mask, truth: Mask, seconds: float) -> Row:
    both, either = iou_counts(mask, truth)
    same = bool(np.array_equal(mask, coarse))
    return Row(name, kind, method, iou(mask, truth), mba(mask, truth), float("nan"), seconds, "", same, both, either)


def measure_scene(results: Results, scene: Scene, ways: Ways, steps: Sequence[int]) -> None:
    """Refines what has no row yet of a street scene; a class is a row."""
    wanted = (COARSE, *(f"{way}-{n}" for n in steps for way in ways))
    lacking = {k: [m for m in wanted if (f"{scene.name}/0", k, m) not in results.rows] for k in scene.kinds}
    if not any(lacking.values()):
        return
    image, truth = scene.files.read()
    for kind in (kind for kind in scene.kinds if lacking[kind]):
        coarse = scene.coarse(kind, truth)
        for method in lacking[kind]:
            labels, started = coarse, time.perf_counter()
            if method != COARSE:
                way, n = method.split("-")
                options = {"seed": results.settings.seed, "steps": int(n)}
                labels = refine_labels(ways[way], image, coarse, ignore=[VOID], **options).labels
            seconds = (time.perf_counter() - started) / len(CLASSES)
            scored = truth != VOID
            for label in range(len(CLASSES)):
                masks = [(plane == label) & scored for plane in (labels, coarse, truth)]
                row = _row(f"{scene.name}/{label}", kind, method, *masks, seconds)
                # A class that the scene does not show counts for the classes' totals alone.
                shown = row if masks[2].any() else _without_scores(row)
                results.rows[row.key] = shown


def _without_scores(row: Row) -> Row:
    nan = float("nan")
    return Row(row.photo, row.kind, row.method, nan, nan, nan, row.seconds, "", True, row.intersection, row.union)


def measure_all(results: Results, work: Sequence[Callable[[], None]], forget: Callable[[], None]) -> None:
    """Does all work, and saves now and then."""
    saved = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for one in progress.track(work, description="photos and scenes"):
            one()
            forget()
            if time.monotonic() - saved > _SAVE_SECONDS:
                results.save({})
                saved = time.monotonic()


def left_out(photos: Iterable[PhotoFiles], results: Results) -> list[str]:
    """A note on the strong network's masks that show another object or are not there."""
    open_ones = [photo for photo in photos if (photo.name, STRONG, COARSE) not in results.rows]
    others = [photo.name for photo in open_ones if strong_mask(photo) is not None]
    missing = len(open_ones) - len(others)
    notes = []
    if others:
        notes.append(f"strong: {len(others)} masks show another object (IoU below a half): {', '.join(others)}")
    if missing:
        notes.append(f"strong: {missing} photos have no mask")
    return notes


def tables(
    rows: Sequence[Row], kinds: Sequence[str], steps: Sequence[int], notes: Sequence[str], other: Sequence[Row] = ()
) -> str:
    """All tables as Markdown."""
    first = steps[0]
    parts = [f"Gains in points, {first} of {NUM_TIMESTEPS} steps", main_table(rows, kinds, first)]
    if len(steps) > 1:
        parts += ["By steps", step_table(rows, kinds, steps)]
    if by_class := class_table(rows, [kind for kind in kinds if kind in STREET_KINDS], first):
        parts += ["Classes of the street scenes", by_class]
    parts += ["By set", set_table(rows, [kind for kind in kinds if kind not in STREET_KINDS], first)]
    if other:
        table, note = comparison(rows, other, kinds, first)
        parts += ["Against the other run", table]
        notes = [*notes, note]
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes)]) + "\n"


def _numbers(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    known = [str(n) for n in range(1, NUM_TIMESTEPS + 1)]
    return [int(n) for n in names_of(known)(context, parameter, value)] if value else []


FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.argument("data", type=FOLDER)
@click.option("--street", type=FOLDER, help="Street scenes: images/ and labels/; without it, none.")
@click.option("--objects", type=FOLDER, help="Cut-outs, of which those that training never sees are taken.")
@click.option("--photos", default=40, show_default=True, help="How many of each kind, evenly spread; 0 for all.")
@click.option("--hold-back", default=0, help="Take every so many of DATA's photos, those that training leaves out.")
@click.option("--kinds", default=",".join(DEFAULT_KINDS), show_default=True, callback=names_of(KINDS))
@click.option("--steps", default="", callback=_numbers, help="Such as 1,2,3,6.  [default: those of the model]")
@click.option("--model", help="As for `segrefiner refine`.")
@click.option("--dtype", default="auto", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the coarse masks and of the sampler.")
@click.option("--align", is_flag=True, help="Take away what the true masks of a data set are off by.")
@click.option("--json", "json_file", type=OUTPUT, help="All figures; an unfinished run goes on from here.")
@click.option("--markdown", "markdown_file", type=OUTPUT, help="The tables that are printed.")
@click.option("--against", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="JSON of another run.")
def main(data: Path, json_file: Path | None, markdown_file: Path | None, against: Path | None, **options: Any) -> None:
    """Refine masks of every kind, with and without acceptance, and compare with the truth."""
    try:
        for path in filter(None, (json_file, markdown_file)):
            check_output(path, suffix=None)
        other = read_rows(against)[0] if against else []
        text = run(data, json_file, other, **options)
        if markdown_file:
            atomic_write(markdown_file, lambda stream: stream.write(text.encode()))
    except SegRefinerError as error:
        raise click.ClickException(str(error)) from error
    print(text, end="")


def _pool(data: Path, there: Sequence[PhotoFiles], hold_back: int) -> Sequence[PhotoFiles]:
    """The photos to choose from: all, or every so many. Raises `InputError` where there are none."""
    pool = held_back(there, hold_back) if hold_back else there
    if not pool:
        raise InputError(f"{data} has {len(there)} photos, of which none is held back: expected {hold_back} at least")
    return pool


LEGEND = (
    "ours: the default pipeline; free: its network and diffusion alone. Harmed lost more than half an IoU point, "
    "untouched came back exactly as it was. Of street scenes IoU is the mean over classes of the IoU of all "
    "scenes together, and a class in a scene is a mask"
)


def run(
    data: Path,
    json_file: Path | None,
    other: Sequence[Row],
    *,
    street: Path | None,
    objects: Path | None,
    photos: int,
    hold_back: int,
    kinds: Sequence[str],
    steps: Sequence[int],
    model: str | None,
    dtype: str,
    seed: int,
    align: bool,
) -> str:
    """The whole benchmark; arguments as on the command line. Gives the tables as Markdown."""
    refiner = Refiner.from_pretrained(model, dtype=dtype)
    steps = steps or [refiner.steps]
    there = find_photos(data)
    pool = _pool(data, there, hold_back)
    offsets = offsets_of(data, align) if align else NONE
    maps = find_maps(street) if street else []
    cutouts = held_back_cutouts(objects) if objects else ()
    settings = Settings(
        data=f"{data.resolve().name}, {len(pool)} of {len(there)} photos, {len(maps)} scenes, {len(cutouts)} cut-outs"
        + ", put right" * align,
        seed=seed,
        weights=weights.checksum(weights.resolve(model)),
        precision=f"{refiner.device.type}, {str(refiner.dtype).removeprefix('torch.')}",
        code=code_checksum(_OWN),
    )
    results = Results(json_file, settings)
    some, count = chosen(pool, photos), photos or len(pool)
    ways, network = two_ways(refiner)
    masks = [
        *subjects.of_photos(some, kinds, seed, offsets),
        *subjects.of_thin_structures(pool, cutouts, kinds, count, seed),
        *subjects.of_instances(pool, maps, cutouts, kinds, count, seed),
    ]
    scenes = subjects.of_scenes(maps, kinds, count, seed)
    started = time.perf_counter()
    work = [partial(measure, results, subject, ways, steps) for subject in masks]
    work += [partial(measure_scene, results, scene, ways, steps) for scene in scenes]
    measure_all(results, work, network.forget)
    seconds = time.perf_counter() - started
    names = {one.name for one in (*masks, *scenes)}
    methods = {COARSE, *(f"{way}-{n}" for n in steps for way in ways)}
    asked = (row for row in results.rows.values() if row.kind in kinds and row.method in methods)
    rows = [row for row in asked if row.photo.partition("/")[0] in names]
    notes = [
        f"{len(some)} photos of {settings.data}; seed {seed}, model {refiner.name!r} on {settings.precision}, "
        f"{os.cpu_count()} CPU cores, {seconds:.0f} s",
        LEGEND,
        *(left_out(some, results) if STRONG in kinds else []),
    ]
    results.save(
        {"notes": notes, "summary": {k: {m: asdict(f) for m, f in v.items()} for k, v in summary(rows).items()}}
    )
    return tables(rows, kinds, steps, notes, other)


if __name__ == "__main__":
    main()
