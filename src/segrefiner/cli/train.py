"""The commands `train` and `report-training`."""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from .shared.common import SEED, FiniteRange, exit_on_error, item_bar
from .shared.messages import conclude, is_quiet, is_watched, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ..training.loop import LogRow
    from ..training.recipe import Recipe
    from ..training.session import RunHooks, TrainingSession

_NAMES = (
    "compact",
    "compact-second",
    "compact-third",
    "compact-fourth",
    "compact-fifth",
    "compact-sixth",
    "compact-general",
    "finetune",
    "lr",
    "hr",
)
_PIPELINES = {"both": ("default", "published"), "default": ("default",), "published": ("published",)}


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="Folder for checkpoint, logs and weights; a checkpoint in it is continued.")  # fmt: skip
@click.option("--recipe", "name", type=click.Choice(_NAMES), help="[default: compact, or finetune with --from]")
@click.option("--from", "before", metavar="MODEL", help="Start from these weights, a name, file, folder or Hub id.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE",
              help="Replace a value of the recipe, such as lr=1e-4 or coarse.perfect=0.2.")  # fmt: skip
@click.option("--samples", type=click.IntRange(1), help="Crops to train on.")
@click.option("--lr", type=FiniteRange(0), help="Peak learning rate.")
@click.option("--seed", type=SEED, help="Of every draw.")
@click.option("--coarse", type=click.Path(path_type=Path), help="Folder of coarse masks that were made beforehand.")
@click.option("--val", metavar="DATA", help="Photos to validate on.  [default: none]")
@click.option("--val-photos", type=click.IntRange(1), default=16, show_default=True)
@click.option("--val-pipelines", type=click.Choice(["both", "default", "published"]), default="both",
              show_default=True)  # fmt: skip
@click.option("--micro-batch", type=click.IntRange(1), help="Crops at a time, at most, where memory is short.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True,
              help="Processes that read photos, where they are not packed into memory.")  # fmt: skip
@click.option("--max-minutes", type=click.FloatRange(0), default=math.inf, help="Stop with a checkpoint after this.")
@click.option("--checkpoint-minutes", type=FiniteRange(0), default=3.0, show_default=True)
@click.option("--log-every", type=click.IntRange(1), default=50, show_default=True, help="Steps.")
@click.option("--tensorboard", is_flag=True, help="Write event files into the folder, too.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--dry-run", is_flag=True, help="Say what the run would take, by a short measurement.")
@exit_on_error
def train(
    data: tuple[str, ...],
    output: Path,
    name: str | None,
    before: str | None,
    values: tuple[str, ...],
    dry_run: bool,
    **options: Any,
) -> None:
    """Train on DATA: data sets, or one file made by `data pack`.

    Start it with torchrun to train on several GPUs or processes:
    torchrun --nproc-per-node 8 -m segrefiner train DATA -o RUN --recipe lr
    """
    from ..training.session import Validation, prepare_run

    shortcuts = {key: repr(options[key]) for key in ("samples", "lr", "seed") if options[key] is not None}
    val, pipelines = options["val"], _PIPELINES[options["val_pipelines"]]
    session = prepare_run(
        data,
        output,
        recipe=name,
        start=before or None,
        values={**shortcuts, **dict(_pair(value) for value in values)},
        coarse=options["coarse"],
        validation=None if val is None else Validation(val, options["val_photos"], pipelines),
        device=options["device"],
        workers=options["workers"],
        micro_batch=options["micro_batch"],
    )
    if dry_run:
        _say_recipe(session.recipe)
        click.echo("\n".join(session.estimate().lines()))
        return
    with ExitStack() as stack:
        result = session.run(
            max_minutes=options["max_minutes"],
            checkpoint_minutes=options["checkpoint_minutes"],
            log_every=options["log_every"],
            hooks=_hooks(session, options["tensorboard"], stack),
        )
    if result.rank == 0:
        state = "finished" if result.finished else "stopped; run the same command again to continue"
        conclude(f"{result.weights}: {state} at step {result.step} of {session.recipe.steps}; {result.report}")


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise InputError(f"--set {text!r} has no value: write NAME=VALUE, such as lr=1e-4")
    return name.strip(), value.strip()


def _say_recipe(recipe: "Recipe") -> None:
    from dataclasses import fields

    from rich.console import Console

    console = Console(stderr=True)
    for entry in fields(recipe):
        console.print(f"{entry.name} = {getattr(recipe, entry.name)}", style="dim", highlight=False, soft_wrap=True)


def _step_bar(console: "Console") -> "Progress":
    """A bar of the run's steps; silent where nobody watches."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    return Progress(*columns, console=console, disable=not is_watched(console))


def _hooks(session: "TrainingSession", tensorboard: bool, stack: ExitStack) -> "RunHooks":
    """The terminal's lines and bars, and TensorBoard where it is asked for."""
    from rich.console import Console

    from ..training.monitoring.tensorboard import TensorBoardLog
    from ..training.photos import PackingHooks
    from ..training.session import RunHooks

    total = session.recipe.steps
    console = Console(stderr=True)
    bar = _step_bar(console)
    task = bar.add_task("starting", start=False, total=total)
    boards: list[TensorBoardLog] = []

    def unreadable(count: int, path: Path) -> None:
        click.echo(f"{count} photos cannot be read: see {path}", err=True)

    def ready(recipe: "Recipe") -> None:
        if not is_quiet():
            _say_recipe(recipe)
        stack.enter_context(bar)
        bar.start_task(task)

    def begin(step: int) -> None:
        bar.update(task, completed=step)
        if tensorboard:
            boards.append(TensorBoardLog(session.output / "tensorboard", steps_taken=step))
            stack.callback(boards[0].close)

    def log(row: "LogRow") -> None:
        line = f"loss {row['loss']:.4f}  lr {row['lr']:.1e}  {row['samples_per_second']:.1f} samples/s"
        bar.update(task, completed=row["step"], description=line)
        if not console.is_terminal and not is_quiet():
            console.print(f"step {row['step']:.0f}/{total}  {line}  {row['minutes']:.1f} min", highlight=False)
        for board in boards:
            board.row(row)

    def validation(row: Any) -> None:
        if not is_quiet():
            console.print(
                f"step {row['step']}, {row['pipeline']} pipeline, {row['photos']} photos: "
                f"IoU {100 * row['iou_before']:.2f} to {100 * row['iou_after']:.2f}, "
                f"mBA {100 * row['mba_before']:.2f} to {100 * row['mba_after']:.2f}, "
                f"{100 * row['harmed']:.1f} % harmed",
                highlight=False,
            )
        for board in boards:
            board.validation(row)

    def picture(step: int, array: Any) -> None:
        for board in boards:
            board.picture(step, array)

    packing = PackingHooks(item_bar("looking"), item_bar("packing"), unreadable)
    return RunHooks(begin, log, validation, picture, ready, packing)


@click.command("report-training")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page, HTML.  [default: RUN/report.html]")
@exit_on_error
def training_report(run: Path, output: Path | None) -> None:
    """Turn the folder RUN of a training run, finished or not, into one page that opens offline."""
    from ..training.monitoring.report import write_training_report

    target = run / "report.html" if output is None else output
    write_training_report(run, target)
    say(str(target))
