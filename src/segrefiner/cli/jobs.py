"""The commands for many photos: `folder`, `coco`, `semantic` and `panoptic`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import printable
from .shared.common import FAILED, SEED, FiniteRange, device_option, exit_on_error, ignored_labels
from .shared.job_runs import OpenedJob, signals
from .shared.ledger import ledger_line, ledger_options, reason_lines, tell_ledger, tell_names
from .shared.streams import FilePath

if TYPE_CHECKING:
    from ..jobs.job import Job
    from ..refinement.options import Options

_folder = FilePath()


crowds_option = click.option("--crowds", type=click.Choice(["keep", "refine"]), default="keep", show_default=True,
                       help="What becomes of masks with iscrowd.")  # fmt: skip


def shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options that all of these commands have."""
    options = (
        click.option("--model", help="Alias, folder, .safetensors file or Hub id.  [default: the bundled model]"),
        device_option,
        click.option("--dtype", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto", show_default=True),
        click.option("--backend", type=click.Choice(["auto", "torch", "onnxruntime", "openvino"]), default="auto"),
        click.option("--steps", type=click.IntRange(1, 6), help="Diffusion steps.  [default: what suits the model]"),
        click.option("--seed", type=SEED, default=0, show_default=True),
        click.option("--max-shift", type=FiniteRange(min=0), metavar="PIXELS",
                     help="Keep the coarse label farther than this from the coarse contour."),
        click.option("--strength", type=FiniteRange(0, 1), default=1.0, show_default=True,
                     help="Less for surer changes only; 0 changes nothing."),
        click.option("--trust", type=FiniteRange(0, 1), metavar="0..1",
                     help="In the coarse masks: 0 keeps every change, 1 none.  [default: as likely right as wrong]"),
        click.option("--workers", type=click.IntRange(0), default=1, show_default=True,
                     help="Processes that decode and encode around the one model; 0 for none."),
        click.option("--max-failures", type=click.IntRange(0), help="Stop when more have failed.  [default: never]"),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        *ledger_options,
        click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
                     help="This machine, or a Ray cluster, which shares the file system."),
        click.option("--address", help="Of the Ray cluster, such as auto.  [default: one on this machine]"),
        click.option("--actors", type=click.IntRange(1), default=1, show_default=True, help="Models in the cluster."),
        click.option("--gpus-per-actor", type=FiniteRange(0), default=0.0, show_default=True),
        click.option("--cpus-per-actor", type=FiniteRange(1), help="[default: this machine's, over the actors]"),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def refinement_options(given: dict[str, Any]) -> "Options":
    """The options of each refinement."""
    from ..refinement.options import Options

    return Options(given["seed"], given["steps"], given["max_shift"], given["strength"], given["trust"])


@click.command()
@click.argument("images", type=_folder)
@click.argument("masks", type=_folder)
@click.option("-o", "--output", type=_folder, required=True, help="Folder, mirrors that of the masks.")
@click.option("--pair", "pattern", metavar="PATTERN",
              help="A photo's masks, as '{parent}/{stem}_*.png'; '{stem:-_x}' takes _x off.  "
                   "[default: the same path, any suffix]")  # fmt: skip
@click.option("--threshold", type=FiniteRange(), help="Foreground of masks with more than two values, as stored.")
@click.option("--write", type=click.Choice(["mask", "soft", "soft16", "cutout"]), default="mask", show_default=True,
              help="Masks, probabilities in 8 or 16 bit, or the objects cut out.")  # fmt: skip
@click.option("--watch", is_flag=True, help="Go on with what comes into the folders, until Ctrl-C.")
@shared_options
@exit_on_error
def folder(
    images: Path,
    masks: Path,
    output: Path,
    pattern: str | None,
    threshold: float | None,
    write: Any,
    watch: bool,
    **given: Any,
) -> None:
    """Refine the masks in the folder MASKS of the photos in the folder IMAGES."""
    from ..jobs.folders import folder_job
    from ..jobs.run import STATE_NAME

    options = refinement_options(given)

    def make() -> "Job":
        return folder_job(images, masks, output, pattern=pattern, threshold=threshold, write=write, options=options)

    if watch:
        from .watch import watch_folders

        watch_folders(make, (images, masks), output, output / STATE_NAME, given)
    run_job(make(), output, output / STATE_NAME, given)


@click.command()
@click.argument("images", type=_folder)
@click.argument("labels", type=_folder)
@click.option("-o", "--output", type=_folder, required=True, help="Folder, mirrors that of the label maps.")
@click.option("--pair", "pattern", metavar="PATTERN",
              help="A photo's label map, as '{parent}/{stem:-_leftImg8bit}_gtFine_labelIds.png'.  "
                   "[default: the same path, any suffix]")  # fmt: skip
@click.option("--ignore", multiple=True,
              help="Label that is no class; again for more, or none.  [default: the data set's, or 255]")  # fmt: skip
@shared_options
@exit_on_error
def semantic(
    images: Path, labels: Path, output: Path, pattern: str | None, ignore: tuple[str, ...], **given: Any
) -> None:
    """Refine the label maps in the folder LABELS of the photos in the folder IMAGES."""
    from ..jobs.folders import semantic_job
    from ..jobs.run import STATE_NAME

    job = semantic_job(
        images, labels, output, pattern=pattern, ignore=ignored_labels(ignore), options=refinement_options(given)
    )
    run_job(job, output, output / STATE_NAME, given)


@click.command()
@click.argument("source", type=_folder, metavar="JSON")
@click.argument("images", type=_folder)
@click.option("-o", "--output", type=_folder, required=True, help="JSON file.")
@click.option("--annotations", type=_folder, help="For results: the file that says how photos are called.")
@crowds_option
@shared_options
@exit_on_error
def coco(source: Path, images: Path, output: Path, annotations: Path | None, crowds: Any, **given: Any) -> None:
    """Refine the masks of the COCO file JSON, results or annotations, of photos in the folder IMAGES."""
    from ..jobs.coco import coco_job
    from ..jobs.run import STATE_NAME

    job = coco_job(source, images, output, annotations=annotations, crowds=crowds, options=refinement_options(given))
    run_job(job, output, output.with_name(output.name + STATE_NAME), given)


@click.command()
@click.argument("source", type=_folder, metavar="JSON")
@click.argument("maps", type=_folder)
@click.argument("images", type=_folder)
@click.option("-o", "--output", type=_folder, required=True, help="Folder for PNGs and the JSON file.")
@crowds_option
@shared_options
@exit_on_error
def panoptic(source: Path, maps: Path, images: Path, output: Path, crowds: Any, **given: Any) -> None:
    """Refine the COCO panoptic MAPS that JSON describes, of photos in the folder IMAGES."""
    from ..jobs.panoptic import panoptic_job
    from ..jobs.run import STATE_NAME

    job = panoptic_job(source, maps, images, output, crowds=crowds, options=refinement_options(given))
    run_job(job, output, output / STATE_NAME, given)


def run_job(job: "Job", output: Path, state: Path, given: dict[str, Any]) -> None:
    """Run a job, or say what it would do, tell what became of every input, and exit."""
    from ..jobs.run import pending

    opened = OpenedJob(given)
    config = opened.config(job)
    as_json, strict = given["as_json"], given["strict"]
    if given["dry_run"]:
        todo, ledger = pending(job, state, config)
        told = [f"{ledger.total} items, {ledger.total - len(todo)} of them done; would do {len(todo)}:"]
        told += [f"  {item.key}: {', '.join(map(str, item.inputs))}" for item in todo[:10]]
        told += ["  …"] if len(todo) > 10 else []
        told += [f"cannot: {entry.name}: {entry.reason}" for entry in ledger.failures[:10]]
        told += [f"would leave out {line}" for line in reason_lines(ledger)]
        code = FAILED if strict and (ledger.left_out or ledger.failed) else 0
        would_do = [item.key for item in todo]
        tell_ledger(ledger, "\n".join(map(printable, told)), as_json, dry_run=True, would_do=would_do, exit_code=code)
        sys.exit(code)
    with signals() as signalled:
        ledger = opened.run(job, state, config, lambda: bool(signalled))
    code = FAILED if ledger.failed or (strict and ledger.left_out) else 0
    if signalled:
        code = 128 + signalled[0]
    tell_ledger(ledger, ledger_line(ledger, output, state), as_json, dry_run=False, exit_code=code)
    tell_names(ledger)
    sys.exit(code)
