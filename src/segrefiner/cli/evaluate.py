"""The commands `evaluate` and `report`. As in `segrefiner.cli.main`, heavy imports wait until a command runs."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from .shared.common import FiniteRange, exit_on_error, item_bar
from .shared.messages import conclude, is_watched, say
from .shared.streams import FilePath

if TYPE_CHECKING:
    from ..evaluation.protocol import Case, Failure, Measurement, Scores
    from ..evaluation.results import Results
    from ..ledger import Entry

INCOMPLETE = 3
"""Exit code of a run that went through but had to leave something out."""

_CASES = 5
_folder = FilePath()


def _outputs(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every protocol has."""
    for option in (
        click.option("--csv", "csv_path", type=FilePath(), help="One line per row, CSV."),
        click.option("--json", "json_path", type=FilePath(), help="Everything, for `report`, JSON."),
        click.option("--strict", is_flag=True, help="Exit with 3 also where something has no part in the figures."),
    ):
        command = option(command)
    return exit_on_error(command)


_workers = click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")


@click.group()
def evaluate() -> None:
    """Measure masks against the truth, as data sets are published.

    Every protocol prints a table, and what could not be measured on standard error. With coarse masks it also tells
    what was gained by refining, and how many masks were harmed. It exits with 3 if something could not be measured,
    with 1 if there was nothing to measure. Notes count what has no part in the figures, such as photos without a mask;
    with --strict it exits with 3 for that, too.
    """


@evaluate.command()
@click.argument("truth", type=_folder)
@click.argument("predicted", type=_folder)
@click.option("--coarse", type=_folder, help="Folder of the masks that PREDICTED was refined from.")
@click.option("--images", type=_folder, help="Folder of the photos, for the pictures of `report`.")
@click.option("--threshold", type=FiniteRange(), help="Foreground of a mask with more than two values, as stored.")
@click.option("--metric", "keys", multiple=True, metavar="NAME", default=("mba", "boundary_iou"),
              help="iou, dice, mba, boundary_iou, boundary_f or hausdorff95; may be repeated.  "
              "[default: iou, mba, boundary_iou]")  # fmt: skip
@_workers
@_outputs
def folder(
    truth: Path,
    predicted: Path,
    coarse: Path | None,
    images: Path | None,
    threshold: float | None,
    keys: tuple[str, ...],
    workers: int,
    json_path: Path | None,
    csv_path: Path | None,
    strict: bool,
) -> None:
    """Masks in folders: TRUTH/NAME.png with PREDICTED/NAME.png."""
    from ..evaluation.layouts import folder_cases, folder_left_out
    from ..evaluation.protocol import MASK_METRICS, score_mask
    from ..evaluation.results import Results
    from ..imaging.reading import read_mask

    _check_outputs(json_path, csv_path)
    keys = _figures(keys, MASK_METRICS)
    found = folder_cases(truth, predicted, coarse, images)
    columns = (keys[0], "set_iou", *keys[1:])
    given = _given(truth=truth, predicted=predicted, coarse=coarse, images=images, threshold=threshold)
    results = Results("folder", "image", "iou", columns, given, threshold)
    results.leave_out(folder_left_out(truth, predicted, coarse, images))
    _run(results, found, partial(read_mask, threshold=threshold), partial(score_mask, keys=keys), threshold, workers)
    _finish(results, json_path, csv_path, strict)


@evaluate.command()
@click.argument("root", type=_folder)
@click.option("--predicted", type=_folder, help="Folder of refined masks, NAME.png, NAME_seg.png or NAME_refine.png.")
@click.option("--coarse", type=_folder, help="Folder of the coarse masks NAME_seg.png, if not ROOT.")
@_workers
@_outputs
def big(
    root: Path,
    predicted: Path | None,
    coarse: Path | None,
    workers: int,
    json_path: Path | None,
    csv_path: Path | None,
    strict: bool,
) -> None:
    """BIG: NAME_gt.png, NAME_seg.png and NAME_im.jpg in ROOT; IoU of the set, and mBA."""
    from ..evaluation.layouts import big_cases, big_left_out
    from ..evaluation.protocol import score_mask
    from ..evaluation.results import Results
    from ..imaging.reading import read_mask

    _check_outputs(json_path, csv_path)
    found = big_cases(root, predicted, coarse)
    given = _given(root=root, predicted=predicted, coarse=coarse)
    results = Results("big", "image", "iou", ("set_iou", "mba"), given, _HALF)
    _leave_out(results, big_left_out(root, predicted, coarse))
    score = partial(score_mask, keys=("iou", "mba"))
    _run(results, found, partial(read_mask, threshold=_HALF), score, _HALF, workers)
    _finish(results, json_path, csv_path, strict)


@evaluate.command()
@click.argument("root", type=_folder)
@click.option("--coarse", type=_folder, help="Coarse predictions, SET/NAME.png of one model or MODEL/SET/NAME.png.")
@click.option("--predicted", type=_folder, help="Refined masks, laid out as the coarse ones.")
@click.option("--set", "sets", multiple=True, type=click.Choice(["DIS-VD", *(f"DIS-TE{n}" for n in range(1, 5))]),
              help="Only this set; may be repeated.")  # fmt: skip
@click.option("--metric", "keys", multiple=True, metavar="NAME",
              default=("mba", "max_f", "weighted_f", "mae", "s_measure", "e_measure", "hce"),
              help="iou, mba, max_f, weighted_f, mae, s_measure, e_measure or hce; may be repeated.  "
              "[default: all]")  # fmt: skip
@_workers
@_outputs
def dis(
    root: Path,
    coarse: Path | None,
    predicted: Path | None,
    sets: tuple[str, ...],
    keys: tuple[str, ...],
    workers: int,
    json_path: Path | None,
    csv_path: Path | None,
    strict: bool,
) -> None:
    """DIS5K: ROOT/SET/im/NAME.jpg and ROOT/SET/gt/NAME.png; IoU of each set, mBA, and DIS5K's own figures."""
    from ..evaluation.layouts import dis_cases, dis_left_out
    from ..evaluation.protocol import SOFT_METRICS, read_grey, score_soft
    from ..evaluation.results import Results

    _check_outputs(json_path, csv_path)
    keys = _figures(keys, SOFT_METRICS)
    found = dis_cases(root, coarse, predicted, sets)
    columns = tuple({"iou": "set_iou", "max_f": "set_max_f"}.get(key, key) for key in keys)
    given = _given(root=root, coarse=coarse, predicted=predicted, sets=", ".join(sets) or None)
    results = Results("dis", "image", "iou", columns, given, _HALF)
    _leave_out(results, dis_left_out(root, coarse, predicted, sets))
    _run(results, found, read_grey, partial(score_soft, keys=keys), _HALF, workers)
    _finish(results, json_path, csv_path, strict)


_HALF = 128
"""Grey value from which on BIG's and DIS5K's published scripts see the object."""


@evaluate.command()
@click.argument("truth", type=_folder)
@click.argument("predicted", type=_folder)
@click.option("--coarse", type=_folder, help="The masks that PREDICTED was refined from.")
@click.option("--images", type=_folder, help="Folder of the photos, where no file says how large they are.")
@click.option("--metric", "keys", multiple=True, metavar="NAME", default=("mba",),
              help="iou, dice, mba, boundary_iou, boundary_f or hausdorff95; may be repeated.  "
              "[default: iou, mba]")  # fmt: skip
@_outputs
def annotations(
    truth: Path,
    predicted: Path,
    coarse: Path | None,
    images: Path | None,
    keys: tuple[str, ...],
    json_path: Path | None,
    csv_path: Path | None,
    strict: bool,
) -> None:
    """Masks in annotation files or folders of any format that `segrefiner annotations` reads; they may differ.

    IoU and mBA of each class and of all. Objects of one class are matched so that they overlap most.
    """
    from ..evaluation.annotations import measure_annotations, read_sets
    from ..evaluation.protocol import MASK_METRICS
    from ..evaluation.results import Results

    _check_outputs(json_path, csv_path)
    if images is not None and not images.is_dir():
        raise InputError(f"{images} is no folder")
    keys = _figures(keys, MASK_METRICS)
    sets = read_sets(truth, predicted, coarse)
    given = _given(truth=truth, predicted=predicted, coarse=coarse, images=images)
    columns = (keys[0], "set_iou", *keys[1:])
    results = Results("annotations", "mask", "iou", columns, given, total="all classes")
    results.leave_out(entry for one in sets for entry in one.left_out())
    for one in sets:
        _take(results, one.failures())
    _take(results, item_bar("masks")(measure_annotations(sets, images, keys)))
    _finish(results, json_path, csv_path, strict)


@evaluate.command()
@click.argument("annotations", type=FilePath())
@click.argument("detections", type=FilePath())
@click.option("--coarse", type=FilePath(), help="Detections with the masks before refining.")
@click.option("--max-dets", type=click.IntRange(1),
              help="Detections that count.  [default: 300 per image of LVIS, 100 per category of COCO]")  # fmt: skip
@click.option("--all-images", is_flag=True, help="Count LVIS's images of COCO's training set, too.")
@_outputs
def coco(
    annotations: Path,
    detections: Path,
    coarse: Path | None,
    max_dets: int | None,
    all_images: bool,
    json_path: Path | None,
    csv_path: Path | None,
    strict: bool,
) -> None:
    """Mask AP and boundary AP of DETECTIONS (JSON) against ANNOTATIONS of COCO or LVIS v1.

    With LVIS, detections have COCO's category ids, and LVIS's rules hold.
    """
    from ..evaluation.coco import KINDS, load_detections, load_truth, measure_detections
    from ..evaluation.results import Results

    _check_outputs(json_path, csv_path)
    truth = load_truth(annotations, all_images=all_images, progress=item_bar("annotations"))
    columns = tuple(f"{prefix}ap{part}" for prefix in KINDS for part in ("", "50", "75", "_small", "_medium", "_large"))
    given = _given(annotations=annotations, detections=detections, coarse=coarse, max_dets=max_dets)
    given["all_images"] = all_images or None
    results = Results("coco", "category", "ap", columns, given, notes=truth.notes)
    after, failures = load_detections(detections, truth, progress=item_bar("detections"))
    before = None
    if coarse is not None:
        before, more = load_detections(coarse, truth, progress=item_bar("coarse"))
        failures = failures + more
    results.leave_out(truth.left_out, noted=True)
    _take(results, truth.failures + failures)
    with _spinner("scoring"):
        _take(results, measure_detections(truth, after, before, max_detections=max_dets))
    _finish(results, json_path, csv_path, strict)


@evaluate.command()
@click.argument("root", type=_folder)
@click.argument("predicted", type=_folder)
@click.option("--coarse", type=_folder, help="Folder of the masks that PREDICTED was refined from.")
@click.option("--split", help="Only the sequences of ROOT/ImageSets/2017/SPLIT.txt, such as val.")
@click.option("--resolution", default="480p", show_default=True, help="Folder of ROOT/Annotations.")
@click.option("--single-object", is_flag=True, help="Everything but 0 is one object, as in DAVIS 2016.")
@_outputs
def davis(
    root: Path,
    predicted: Path,
    coarse: Path | None,
    split: str | None,
    resolution: str,
    single_object: bool,
    json_path: Path | None,
    csv_path: Path | None,
    strict: bool,
) -> None:
    """DAVIS: ROOT/Annotations/480p/SEQUENCE/00000.png with PREDICTED/SEQUENCE/00000.png; J and F of each object."""
    from ..evaluation.davis import davis_sequences, measure_sequences, sequences_left_out
    from ..evaluation.results import Results

    _check_outputs(json_path, csv_path)
    sequences, failures = davis_sequences(root, predicted, coarse, split=split, resolution=resolution)
    columns = ("jf", "j", "j_recall", "j_decay", "f", "f_recall", "f_decay")
    given = _given(root=root, predicted=predicted, coarse=coarse, split=split, single_object=single_object)
    # With a single object, a mask is everything from the index 1 on; otherwise rows name their index.
    results = Results("davis", "object", "j", columns, given, 1 if single_object else None)
    _take(results, failures)
    _leave_out(results, sequences_left_out(sequences))
    _take(results, measure_sequences(item_bar("sequences")(sequences), single_object=single_object))
    _finish(results, json_path, csv_path, strict)


@click.command()
@click.argument("results", type=FilePath())
@click.option("-o", "--output", type=FilePath(), required=True, help="The page, HTML.")
@click.option("--markdown", "markdown_path", type=FilePath(), help="The same without pictures.")
@click.option("--cases", type=click.IntRange(0, 50), default=3, show_default=True,
              help="Pictures of each kind: worst, median and best.")  # fmt: skip
@click.option("--title", help="Heading.  [default: the protocol]")
@exit_on_error
def report(results: Path, output: Path, markdown_path: Path | None, cases: int, title: str | None) -> None:
    """Turn RESULTS, the JSON of an evaluation, into one page that opens offline."""
    from ..evaluation.report import html_report, load_results, markdown_report
    from ..imaging.files import atomic_write, check_output

    check_output(output, suffix=".html")
    if markdown_path is not None:
        check_output(markdown_path, suffix=".md")
    data = load_results(results)
    page = html_report(data, cases=cases, title=title)
    # File names may hold bytes that are no Unicode.
    atomic_write(output, lambda stream: stream.write(page.encode("utf-8", "backslashreplace")))
    conclude(f"{output}: {len(data['rows'])} rows, {len(page) / 1e6:.1f} MB")
    if markdown_path is not None:
        text = markdown_report(data, cases=cases, title=title)
        atomic_write(markdown_path, lambda stream: stream.write(text.encode("utf-8", "backslashreplace")))
        say(str(markdown_path))


def _run(
    results: "Results",
    found: "tuple[list[Case], list[Failure]]",
    read: Callable[[Path], Any],
    score: "Callable[[Any, Any], Scores]",
    threshold: float | None,
    workers: int,
) -> None:
    from ..evaluation.protocol import evaluate_cases

    cases, failures = found
    _take(results, failures)
    measured = evaluate_cases(cases, read, score, threshold, workers=workers)
    _take(results, item_bar(results.protocol, len(cases))(measured))


def _take(results: "Results", items: "Iterable[Measurement | Failure]") -> None:
    """Take items in; failures are named at once."""
    from ..errors import printable
    from ..evaluation.protocol import Failure

    for item in items:
        results.add(item)
        if isinstance(item, Failure):
            # Not click.echo: a progress bar catches what goes to sys.stderr and keeps out of its way.
            print(f"segrefiner: {printable(str(item))}", file=sys.stderr)


def _leave_out(results: "Results", entries: "Iterable[Entry]") -> None:
    """Take in what has no part in a layout; what cannot be read is a failure."""
    from ..evaluation.layouts import is_strange
    from ..evaluation.protocol import Failure

    entries = list(entries)
    results.leave_out(entry for entry in entries if not is_strange(entry))
    _take(results, [Failure(entry.name, entry.reason) for entry in entries if is_strange(entry)])


def _finish(results: "Results", json_path: Path | None, csv_path: Path | None, strict: bool) -> None:
    """Write the files, print the tables, and exit as the group's help says."""
    from ..evaluation.results import cases_table, legend, ranked, summary_table
    from ..imaging.files import atomic_write
    from ..rendering.markdown import as_markdown

    if not results.rows:
        raise InputError(
            f"nothing could be measured ({len(results.failures)} problems); check the layout and the paths"
        )
    data = results.to_json()
    # Files first: a closed pipe or terminal must not cost hours of measuring.
    if json_path is not None:
        from ..imaging.json_files import json_text

        text = json_text(data, indent=1)
        atomic_write(json_path, lambda stream: stream.write(text.encode()))
    if csv_path is not None:
        atomic_write(csv_path, lambda stream: stream.write(results.to_csv().encode("utf-8", "surrogateescape")))
    say(as_markdown(summary_table(data)))
    rows = ranked(data)
    few = max(1, min(_CASES, len(rows) // 2))
    for title, chosen in (("worst", rows[:few]), ("best", rows[-few:][::-1])):
        say(f"\n{title}\n\n{as_markdown(cases_table(data, chosen))}")
    say("\n".join(["", *legend(data)]))
    if results.failures:
        print(
            f"segrefiner: the figures are incomplete, {len(results.failures)} problems are named above", file=sys.stderr
        )
    if results.failures or (strict and results.left_out):
        sys.exit(INCOMPLETE)


def _check_outputs(json_path: Path | None, csv_path: Path | None) -> None:
    from ..imaging.files import check_output

    for path, suffix in ((json_path, ".json"), (csv_path, ".csv")):
        if path is not None:
            check_output(path, suffix=suffix)


def _figures(keys: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """The chosen figures in the usual order, with IoU, which decides about harm."""
    for key in keys:
        if key not in known:
            raise click.BadParameter(f"{key!r} is none of {', '.join(known)}", param_hint="--metric")
    return tuple(key for key in known if key == "iou" or key in keys)


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}


def _spinner(title: str) -> Any:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    bars = Progress(*columns, console=console, disable=not is_watched(console))
    bars.add_task(title, total=None)
    return bars
