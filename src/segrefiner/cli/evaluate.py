"""The commands `evaluate` and `report`. As in `segrefiner.cli.main`, heavy imports wait until a command runs."""

from functools import partial
from pathlib import Path

import click

from ..errors import InputError
from .shared.common import FiniteRange, exit_on_error, item_bar
from .shared.evaluations import (
    add_outputs,
    add_workers,
    check_outputs,
    chosen_figures,
    finish,
    given_arguments,
    leave_out,
    measure,
    spinner,
    take,
)
from .shared.messages import conclude, say
from .shared.streams import FilePath

_folder = FilePath()


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
@add_workers
@add_outputs
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

    check_outputs(json_path, csv_path)
    keys = chosen_figures(keys, MASK_METRICS)
    found = folder_cases(truth, predicted, coarse, images)
    columns = (keys[0], "set_iou", *keys[1:])
    given = given_arguments(truth=truth, predicted=predicted, coarse=coarse, images=images, threshold=threshold)
    results = Results("folder", "image", "iou", columns, given, threshold)
    results.leave_out(folder_left_out(truth, predicted, coarse, images))
    measure(results, found, partial(read_mask, threshold=threshold), partial(score_mask, keys=keys), threshold, workers)
    finish(results, json_path, csv_path, strict)


@evaluate.command()
@click.argument("root", type=_folder)
@click.option("--predicted", type=_folder, help="Folder of refined masks, NAME.png, NAME_seg.png or NAME_refine.png.")
@click.option("--coarse", type=_folder, help="Folder of the coarse masks NAME_seg.png, if not ROOT.")
@add_workers
@add_outputs
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

    check_outputs(json_path, csv_path)
    found = big_cases(root, predicted, coarse)
    given = given_arguments(root=root, predicted=predicted, coarse=coarse)
    results = Results("big", "image", "iou", ("set_iou", "mba"), given, _HALF)
    leave_out(results, big_left_out(root, predicted, coarse))
    score = partial(score_mask, keys=("iou", "mba"))
    measure(results, found, partial(read_mask, threshold=_HALF), score, _HALF, workers)
    finish(results, json_path, csv_path, strict)


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
@add_workers
@add_outputs
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

    check_outputs(json_path, csv_path)
    keys = chosen_figures(keys, SOFT_METRICS)
    found = dis_cases(root, coarse, predicted, sets)
    columns = tuple({"iou": "set_iou", "max_f": "set_max_f"}.get(key, key) for key in keys)
    given = given_arguments(root=root, coarse=coarse, predicted=predicted, sets=", ".join(sets) or None)
    results = Results("dis", "image", "iou", columns, given, _HALF)
    leave_out(results, dis_left_out(root, coarse, predicted, sets))
    measure(results, found, read_grey, partial(score_soft, keys=keys), _HALF, workers)
    finish(results, json_path, csv_path, strict)


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
@add_outputs
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

    check_outputs(json_path, csv_path)
    if images is not None and not images.is_dir():
        raise InputError(f"{images} is no folder")
    keys = chosen_figures(keys, MASK_METRICS)
    sets = read_sets(truth, predicted, coarse)
    given = given_arguments(truth=truth, predicted=predicted, coarse=coarse, images=images)
    columns = (keys[0], "set_iou", *keys[1:])
    results = Results("annotations", "mask", "iou", columns, given, total="all classes")
    results.leave_out(entry for one in sets for entry in one.left_out())
    for one in sets:
        take(results, one.failures())
    take(results, item_bar("masks")(measure_annotations(sets, images, keys)))
    finish(results, json_path, csv_path, strict)


@evaluate.command()
@click.argument("annotations", type=FilePath())
@click.argument("detections", type=FilePath())
@click.option("--coarse", type=FilePath(), help="Detections with the masks before refining.")
@click.option("--max-dets", type=click.IntRange(1),
              help="Detections that count.  [default: 300 per image of LVIS, 100 per category of COCO]")  # fmt: skip
@click.option("--all-images", is_flag=True, help="Count LVIS's images of COCO's training set, too.")
@add_outputs
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

    check_outputs(json_path, csv_path)
    truth = load_truth(annotations, all_images=all_images, progress=item_bar("annotations"))
    columns = tuple(f"{prefix}ap{part}" for prefix in KINDS for part in ("", "50", "75", "_small", "_medium", "_large"))
    given = given_arguments(annotations=annotations, detections=detections, coarse=coarse, max_dets=max_dets)
    given["all_images"] = all_images or None
    results = Results("coco", "category", "ap", columns, given, notes=truth.notes)
    after, failures = load_detections(detections, truth, progress=item_bar("detections"))
    before = None
    if coarse is not None:
        before, more = load_detections(coarse, truth, progress=item_bar("coarse"))
        failures = failures + more
    results.leave_out(truth.left_out, noted=True)
    take(results, truth.failures + failures)
    with spinner("scoring"):
        take(results, measure_detections(truth, after, before, max_detections=max_dets))
    finish(results, json_path, csv_path, strict)


@evaluate.command()
@click.argument("root", type=_folder)
@click.argument("predicted", type=_folder)
@click.option("--coarse", type=_folder, help="Folder of the masks that PREDICTED was refined from.")
@click.option("--split", help="Only the sequences of ROOT/ImageSets/2017/SPLIT.txt, such as val.")
@click.option("--resolution", default="480p", show_default=True, help="Folder of ROOT/Annotations.")
@click.option("--single-object", is_flag=True, help="Everything but 0 is one object, as in DAVIS 2016.")
@add_outputs
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

    check_outputs(json_path, csv_path)
    sequences, failures = davis_sequences(root, predicted, coarse, split=split, resolution=resolution)
    columns = ("jf", "j", "j_recall", "j_decay", "f", "f_recall", "f_decay")
    given = given_arguments(root=root, predicted=predicted, coarse=coarse, split=split, single_object=single_object)
    # With a single object, a mask is everything from the index 1 on; otherwise rows name their index.
    results = Results("davis", "object", "j", columns, given, 1 if single_object else None)
    take(results, failures)
    leave_out(results, sequences_left_out(sequences))
    take(results, measure_sequences(item_bar("sequences")(sequences), single_object=single_object))
    finish(results, json_path, csv_path, strict)


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
